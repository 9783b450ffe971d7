//! The console's static files, embedded at build time (read from `console/dist` in debug builds).
//!
//! Hashed assets are immutable for caches; `index.html` is never cached and answers for `/` and `/join`.
//! Where the console was not built, a page says how to build it.

use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/console/dist"]
#[allow_missing = true]
struct Dist;

/// Scripts only from here; media and calls may go to relays, which have addresses of their own.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data: blob:; media-src 'self' blob: mediastream:; worker-src 'self' blob:; \
     connect-src 'self' http: https: ws: wss:; object-src 'none'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Muster</title>\
<h1>The console is not built</h1>\
<p>The control plane is running; its web app is missing. Build it, then reload this page:</p>\
<pre>cd control-plane/console\nnpm ci\nnpm run build</pre>\
<p>A release binary carries the console of its build: build it again afterwards.</p>\
<h1 lang=\"zh\">控制台尚未构建</h1><p lang=\"zh\">控制面已在运行，但缺少网页应用。请执行上面的命令后刷新本页。</p></html>";

/// Answers everything that is no RPC.
pub async fn serve(method: Method, uri: Uri) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return respond(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain; charset=utf-8",
            "no-store",
            "expected GET".into(),
        );
    }
    let path = uri.path().trim_start_matches('/');
    match path {
        "healthz" => respond(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            "no-store",
            "ok\n".into(),
        ),
        "" | "index.html" | "join" | "join/" => page(),
        _ => asset(path),
    }
}

fn page() -> Response<Body> {
    match Dist::get("index.html") {
        Some(file) => respond(
            StatusCode::OK,
            "text/html; charset=utf-8",
            "no-cache",
            body(file.data),
        ),
        None => respond(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/html; charset=utf-8",
            "no-store",
            NOT_BUILT.into(),
        ),
    }
}

fn asset(path: &str) -> Response<Body> {
    // Vite names everything under assets/ by its content.
    let caching = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    match Dist::get(path) {
        Some(file) => respond(StatusCode::OK, content_type(path), caching, body(file.data)),
        None => respond(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "no-store",
            "not found\n".into(),
        ),
    }
}

fn body(data: std::borrow::Cow<'static, [u8]>) -> Body {
    match data {
        std::borrow::Cow::Borrowed(bytes) => Body::from(bytes),
        std::borrow::Cow::Owned(bytes) => Body::from(bytes),
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "wasm" => "application/wasm",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    caching: &'static str,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fixed = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, caching),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(
        "permissions-policy",
        HeaderValue::from_static("camera=(self), microphone=(self), fullscreen=(self)"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(path: &'static str) -> Response<Body> {
        serve(Method::GET, Uri::from_static(path)).await
    }

    #[tokio::test]
    async fn every_page_forbids_inline_scripts_and_framing() {
        for path in ["/", "/join", "/assets/absent.js"] {
            let response = get(path).await;
            let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
                .to_str()
                .expect("text")
                .to_owned();
            assert!(policy.contains("script-src 'self';"), "{path}: {policy}");
            assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        }
    }

    #[tokio::test]
    async fn an_absent_asset_is_not_answered_with_the_page() {
        assert_eq!(get("/assets/absent.js").await.status(), StatusCode::NOT_FOUND);
        assert_eq!(get("/../Cargo.toml").await.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn only_reading_is_allowed() {
        let response = serve(Method::POST, Uri::from_static("/")).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
