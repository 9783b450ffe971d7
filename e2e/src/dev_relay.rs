//! A relay in development mode as a process of its own, with WHIP and WHEP at [`ADDRESS`].

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::field::until;
use crate::own_network::ADDRESS;
use crate::program::{Running, command};

pub const TOKEN: &str = "let-me-in-please";
const PORT: u16 = 8081;

/// Ends with its handle; the folder is for the logs of clients too.
pub struct DevRelay {
    running: Running,
    folder: TempDir,
}

impl DevRelay {
    /// Starts it with more flags than it needs; it serves when this returns.
    pub fn start(more: &[&str]) -> Result<Self> {
        let folder = TempDir::with_prefix("muster-e2e-")?;
        let log = File::create(folder.path().join("relay.log"))?;
        let mut command = command("muster-sfu")?;
        command
            .args([
                "--dev",
                "--token",
                TOKEN,
                "--listen",
                &format!("{ADDRESS}:{PORT}"),
                "--plain",
                "--insecure-plain-anywhere",
            ])
            .args(more)
            .env("MUSTER_LOG", "info,muster_sfu=debug")
            .current_dir(folder.path())
            .stdout(log.try_clone()?)
            .stderr(log);
        let running = Running::spawn(&mut command)?;
        let mut relay = Self { running, folder };
        until("the relay serves", Duration::from_secs(20), || {
            ensure!(!relay.running.has_ended()?, "the relay ended by itself");
            Ok(get("/healthz").is_ok())
        })?;
        Ok(relay)
    }

    pub fn url(&self) -> String {
        format!("http://{ADDRESS}:{PORT}")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file for what a client says.
    pub fn log_of(&self, client: &str) -> Result<(PathBuf, File)> {
        let path = self.folder.path().join(format!("{client}.log"));
        let file = File::create(&path)?;
        Ok((path, file))
    }

    /// The value of a metric, by its name and labels; 0 while it was never counted.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let text = get("/metrics")?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Ok(value.unwrap_or(0))
    }

    /// Legs whose SRTP keys were agreed for this profile.
    pub fn agreed(&self, profile: &str) -> Result<u64> {
        self.metric(&format!(
            "muster_relay_srtp_agreed_total{{profile=\"{profile}\"}}"
        ))
    }

    /// Fails with what the programs said.
    pub fn with_logs<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| error.context(crate::field::logs_in(self.folder.path())))
    }
}

fn get(path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((ADDRESS, PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}
