//! The console's static files, embedded at build time (read from `console/dist` in debug builds).
//!
//! Hashed assets are immutable for caches; `index.html` is never cached and answers for `/` and `/join`.
//! A file with a `.gz` beside it goes out compressed to those who take it. Where the console was not built, a page
//! says how to build it. What every answer tells a browser beside (its policies) is in `headers`.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/console/dist"]
#[allow_missing = true]
struct Dist;

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Muster</title>\
<h1>The console is not built</h1>\
<p>The control plane is running; its web app is missing. Build it, then reload this page:</p>\
<pre>cd control-plane/console\nnpm ci\nnpm run build</pre>\
<p>A release binary carries the console of its build: build it again afterwards.</p>\
<h1 lang=\"zh\">控制台尚未构建</h1><p lang=\"zh\">控制面已在运行，但缺少网页应用。请执行上面的命令后刷新本页。</p></html>";

/// Answers everything that is no RPC.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response<Body> {
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
        _ => asset(path, takes_gzip(&headers)),
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

/// Whether the reader takes gzip (RFC 9110 section 12.5.3); `q=0` refuses it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let Some(accepted) = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    accepted.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !weight.replace(' ', "").eq_ignore_ascii_case("q=0")
    })
}

fn asset(path: &str, gzip: bool) -> Response<Body> {
    // Vite names everything under assets/ by its content.
    let caching = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    if let Some(file) = gzip.then(|| Dist::get(&format!("{path}.gz"))).flatten() {
        let mut response = respond(StatusCode::OK, content_type(path), caching, body(file.data));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        return response;
    }
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
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, caching),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(path: &'static str) -> Response<Body> {
        serve(Method::GET, Uri::from_static(path), HeaderMap::new()).await
    }

    #[tokio::test]
    async fn an_absent_asset_is_not_answered_with_the_page() {
        assert_eq!(get("/assets/absent.js").await.status(), StatusCode::NOT_FOUND);
        assert_eq!(get("/../Cargo.toml").await.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn gzip_is_taken_only_by_who_says_so() {
        let check = |accepted: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted));
            assert_eq!(takes_gzip(&headers), expected, "{accepted}");
        };
        check("gzip, deflate, br", true);
        check("br;q=1.0, GZIP;q=0.5", true);
        check("br, gzip; q=0", false);
        check("br", false);
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn only_reading_is_allowed() {
        let response = serve(Method::POST, Uri::from_static("/"), HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
