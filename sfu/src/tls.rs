//! TLS of the HTTP port: which names its certificate must have, where it comes from, and how it is kept fresh.
//!
//! Invariant: the port speaks plain HTTP only where that was asked for, and on loopback unless that was asked for too. The
//! relay's own certificate is for agents' links as well (`identity`); one by file is for this port alone.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use muster_identity::{
    Authority, Credentials, LOOK_EVERY, LOOPBACK_NAMES, LiveCertificate, PairFiles, all_named,
};
use tokio_rustls::TlsAcceptor;

use crate::config::{HttpTls, RelayConfig};

/// What the HTTP port presents.
pub(crate) struct HttpCertificate {
    live: Arc<LiveCertificate>,
    files: Option<PairFiles>,
}

/// Refuses plain HTTP where all could read it.
///
/// # Errors
/// `--plain` on an address that is not loopback; the message says what to do.
pub(crate) fn check_plain(config: &RelayConfig) -> anyhow::Result<()> {
    match config.http_tls {
        HttpTls::Plain { anywhere: false } if !config.http_listen.ip().is_loopback() => bail!(
            "--plain on {} would send tokens over the network for all to read: listen on 127.0.0.1, leave out \
             --plain, or say --insecure-plain-anywhere",
            config.http_listen
        ),
        _ => Ok(()),
    }
}

/// What browsers call the relay by; none where its own certificate is not used for that.
pub(crate) fn wanted_names(config: &RelayConfig, announce: IpAddr) -> Vec<String> {
    if config.http_tls != HttpTls::Own {
        return Vec::new();
    }
    let listen = config.http_listen.ip();
    let told = config.http_url.as_deref().and_then(host_of);
    let reached = if listen.is_unspecified() { announce } else { listen };
    let mut names = vec![told.unwrap_or_else(|| reached.to_string())];
    names.extend(config.tls_names.iter().cloned());
    if listen.is_loopback() || listen.is_unspecified() {
        names.extend(LOOPBACK_NAMES.map(str::to_owned));
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host()?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

impl HttpCertificate {
    /// Loads what the port presents; `None` where it speaks plain HTTP.
    ///
    /// # Errors
    /// Files that hold no pair.
    pub fn load(
        config: &RelayConfig,
        credentials: &Credentials,
        names: &[String],
    ) -> anyhow::Result<Option<Self>> {
        let files = match &config.http_tls {
            HttpTls::Plain { .. } => return Ok(None),
            HttpTls::Files(files) => files.clone(),
            HttpTls::Own if config.dev.is_some() => {
                let dir = config.identity_dir.join("dev-ca");
                tracing::info!(ca = %dir.join("ca.pem").display(), "clients must be told to trust this CA, or use --plain");
                Authority::load_or_create(&dir)?.kept_server_certificate(&dir, names)?
            }
            HttpTls::Own => {
                let live = credentials.live_certificate()?;
                if !all_named(&live.names(), names) {
                    tracing::warn!(has = %live.names().join(" "), wanted = %names.join(" "),
                        "the relay's certificate lacks a name that browsers use: they will refuse it");
                }
                return Ok(Some(Self { live, files: None }));
            }
        };
        let live = LiveCertificate::from_files(&files).context("--tls-cert and --tls-key")?;
        let files = Some(files);
        Ok(Some(Self { live, files }))
    }

    /// For the accept loop.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        Ok(TlsAcceptor::from(self.live.server_config()?))
    }

    /// Takes up files that change, for as long as it is polled.
    pub async fn follow(self) {
        if let Some(files) = self.files {
            self.live.follow(files, LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, url: Option<&str>) -> RelayConfig {
        RelayConfig {
            http_listen: listen.parse().expect("an address"),
            http_url: url.map(str::to_owned),
            tls_names: vec!["more.example".into()],
            ..RelayConfig::default()
        }
    }

    #[test]
    fn the_certificate_is_for_what_browsers_call_the_relay() {
        let announce: IpAddr = [192, 0, 2, 7].into();
        let names = |listen, url| wanted_names(&config(listen, url), announce);
        assert_eq!(names("192.0.2.7:8081", None), ["192.0.2.7", "more.example"]);
        assert_eq!(
            names("192.0.2.7:1", Some("https://r.example:8081")),
            ["more.example", "r.example"]
        );
        assert_eq!(
            names("0.0.0.0:1", Some("https://[2001:db8::1]:8081/")),
            ["127.0.0.1", "2001:db8::1", "::1", "localhost", "more.example"]
        );
        assert!(names("0.0.0.0:1", None).contains(&"192.0.2.7".to_owned()));
        let plain = RelayConfig {
            http_tls: HttpTls::LOCAL,
            ..config("127.0.0.1:1", None)
        };
        assert!(wanted_names(&plain, announce).is_empty());
    }

    #[test]
    fn plain_http_is_for_loopback_alone_unless_asked_for_in_so_many_words() {
        for (listen, anywhere, fine) in [
            ("127.0.0.1:1", false, true),
            ("0.0.0.0:1", false, false),
            ("0.0.0.0:1", true, true),
        ] {
            let config = RelayConfig {
                http_tls: HttpTls::Plain { anywhere },
                ..config(listen, None)
            };
            assert_eq!(check_plain(&config).is_ok(), fine, "{listen}");
        }
    }
}
