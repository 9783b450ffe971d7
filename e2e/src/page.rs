//! The page `clients/page.html` in a real browser: served on loopback (where a browser gives cameras to pages without TLS),
//! opened without anyone to drive it, and telling how it goes by POST.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::dev_relay::{DevRelay, TOKEN};
use crate::field::until;
use crate::program::Family;

const PAGE: &str = include_str!("../clients/page.html");
const LARGEST_REPORT: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browser {
    Chromium,
    Firefox,
}

/// What the page does.
pub struct Task<'a> {
    pub meeting: &'a str,
    pub publish: bool,
    /// Videos to view.
    pub slots: usize,
    /// `iceTransportPolicy`: `all` or `relay`.
    pub policy: &'a str,
    /// More of the page's query: what is published, and whether a small picture is viewed too. `&NAME=VALUE...`.
    pub more: &'a str,
}

/// An open page; the browser ends with it.
pub struct Page {
    told: Arc<Mutex<Value>>,
    browser: Family,
}

impl Page {
    pub fn open(browser: Browser, relay: &DevRelay, task: &Task<'_>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let url = format!(
            "http://localhost:{}/?url={}&token={TOKEN}&meeting={}&publish={}&slots={}&policy={}{}",
            listener.local_addr()?.port(),
            relay.url(),
            task.meeting,
            u8::from(task.publish),
            task.slots,
            task.policy,
            task.more
        );
        let told = Arc::new(Mutex::new(Value::Null));
        let heard = told.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                std::thread::spawn(move || serve(stream, &heard));
            }
        });
        let name = format!("{browser:?}").to_lowercase();
        let (_, log) = relay.log_of(&name)?;
        let profile = relay.folder().join(&name);
        std::fs::create_dir_all(&profile)?;
        let mut command = match browser {
            Browser::Chromium => chromium(&profile),
            Browser::Firefox => firefox(&profile)?,
        };
        command.arg(url).stdout(log.try_clone()?).stderr(log);
        command.env("HOME", &profile).env_remove("DISPLAY");
        Ok(Self {
            told,
            browser: Family::spawn(&mut command)?,
        })
    }

    /// What the page told last; null before.
    pub fn told(&self) -> Value {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until what the page tells is as it should be.
    pub fn until(&mut self, what: &str, limit: Duration, check: impl Fn(&Value) -> bool) -> Result<Value> {
        let waited = until(what, limit, || {
            if self.browser.has_ended()? {
                bail!("the browser ended by itself");
            }
            let told = self.told();
            if let Some(error) = told["errors"].get(0) {
                bail!("the page says {error}");
            }
            Ok(check(&told))
        });
        waited.with_context(|| format!("the page told {}", self.told()))?;
        Ok(self.told())
    }
}

/// `GET` gives the page, `POST` takes what it tells.
fn serve(stream: TcpStream, heard: &Mutex<Value>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?.take(LARGEST_REPORT));
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let page = if first.starts_with("POST ") {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = serde_json::from_slice(&body).ok()?;
        ""
    } else {
        PAGE
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        page.len()
    );
    (&stream).write_all((head + page).as_bytes()).ok()
}

fn chromium(profile: &Path) -> Command {
    let mut command = Command::new("/usr/bin/chromium");
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--no-first-run",
            "--disable-gpu",
            "--mute-audio",
            "--disable-background-networking",
            "--disable-component-update",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            "--autoplay-policy=no-user-gesture-required",
        ])
        .arg(format!("--user-data-dir={}", profile.display()));
    command
}

fn firefox(profile: &Path) -> Result<Command> {
    let preferences = [
        ("media.navigator.streams.fake", "true"),
        ("media.navigator.permission.disabled", "true"),
        ("media.autoplay.default", "0"),
        ("media.gmp-manager.updateEnabled", "false"),
        ("app.normandy.enabled", "false"),
        ("app.update.disabledForTesting", "true"),
        ("browser.aboutwelcome.enabled", "false"),
        ("browser.shell.checkDefaultBrowser", "false"),
        ("browser.startup.homepage_override.mstone", "\"ignore\""),
        ("browser.tabs.remote.autostart", "true"),
        ("datareporting.policy.dataSubmissionEnabled", "false"),
        ("datareporting.usage.uploadEnabled", "false"),
        ("extensions.update.enabled", "false"),
        ("network.captive-portal-service.enabled", "false"),
        ("network.connectivity-service.enabled", "false"),
        ("termsofuse.bypassNotification", "true"),
        ("toolkit.telemetry.enabled", "false"),
    ];
    let text: String = preferences
        .iter()
        .map(|(name, value)| format!("user_pref(\"{name}\", {value});\n"))
        .collect();
    std::fs::write(profile.join("user.js"), text)?;
    let mut command = Command::new("/usr/bin/firefox-esr");
    command
        .args(["--headless", "--no-remote", "--new-instance", "--profile"])
        .arg(profile)
        // The sandbox wants namespaces, which the test is in already.
        .env("MOZ_DISABLE_CONTENT_SANDBOX", "1")
        .env("MOZ_CRASHREPORTER_DISABLE", "1");
    Ok(command)
}
