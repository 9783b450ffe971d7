//! The doctor's look at the browser that is the camera: it asks the running agent, as its page does. Without an agent only
//! whether there is a browser on the box can be said.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// Of the agent's answer.
const LARGEST_ANSWER: u64 = 256 * 1024;
/// As Debian, Ubuntu and Google name it.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// What is known of the browser at the page.
pub async fn look(page: Option<SocketAddr>) -> Result<String, String> {
    let page = page.ok_or("the page is off, and with it the camera")?;
    match timeout(PATIENCE, ask(page)).await {
        Ok(Ok(state)) => judge(page, &state),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => look_for_browser(),
        Ok(Err(error)) => Err(format!("{page} does not answer as an agent does: {error}")),
        Err(_) => Err(format!("{page} takes the connection and says nothing within 5 s")),
    }
}

async fn ask(page: SocketAddr) -> std::io::Result<Value> {
    let ip = match page.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    let mut stream = TcpStream::connect((ip, page.port())).await?;
    let host = SocketAddr::new(ip, page.port());
    let request = format!("GET /state HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LARGEST_ANSWER).read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n");
    let body = body.map_or(&[][..], |at| &answer[at + 4..]);
    serde_json::from_slice(body).map_err(std::io::Error::other)
}

fn judge(page: SocketAddr, state: &Value) -> Result<String, String> {
    if state["source"] != "page" {
        let source = state["source"].as_str().unwrap_or("something else");
        return Err(format!(
            "the agent that runs publishes {source}, not the page: start it again"
        ));
    }
    if state["browser"] != true {
        return Err(format!(
            "no browser shows http://localhost:{}: is deploy/muster-edge-page.service installed and a screen connected?",
            page.port()
        ));
    }
    match state["status"]["camera_fault"].as_str() {
        None => Ok("a browser shows the page, and its camera is well".into()),
        Some("denied") => Err("the browser does not allow the page to use the camera".into()),
        Some("busy") => Err("the browser finds the camera in use by another program".into()),
        Some("missing") => Err("the browser finds no camera".into()),
        Some(fault) => Err(format!("the browser's camera is {fault}")),
    }
}

fn look_for_browser() -> Result<String, String> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .flat_map(|dir| BROWSERS.map(|name| dir.join(name)))
        .find(|path: &PathBuf| path.is_file());
    match found {
        Some(path) => Ok(format!(
            "the browser at the page; {} is there, and the agent does not run, so no more is known",
            path.display()
        )),
        None => Err("the browser at the page, and none is installed: apt install chromium".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_browser_is_said() {
        let page = SocketAddr::from(([127, 0, 0, 1], 8088));
        let state = |source: &str, browser: bool, fault: Option<&str>| {
            let status = serde_json::json!({ "camera_fault": fault });
            serde_json::json!({ "source": source, "browser": browser, "status": status })
        };
        assert!(judge(page, &state("page", true, None)).is_ok());
        for (state, says) in [
            (state("testcard", false, None), "publishes testcard"),
            (
                state("page", false, None),
                "no browser shows http://localhost:8088",
            ),
            (state("page", true, Some("denied")), "does not allow"),
            (state("page", true, Some("silent")), "silent"),
        ] {
            let why = judge(page, &state).expect_err(says);
            assert!(why.contains(says), "{why}");
        }
    }
}
