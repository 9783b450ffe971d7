//! Which certificates the two ports present, and how they are kept fresh.
//!
//! Invariant: the console's port speaks plain HTTP only where that was asked for, and on loopback unless that was asked for
//! too. What a certificate may say is decided in `muster-identity`; sockets are in `net`.

use crate::config::{Config, ConsoleTls};
use crate::core::Core;
use anyhow::{Context as _, bail};
use muster_identity::{Authority, LOOK_EVERY, LiveCertificate, PairFiles, names_of_listener};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often certificates that are made here are looked at: they hold for a year.
const RENEW_EVERY: Duration = Duration::from_secs(12 * 3600);

/// The certificates of a control plane that starts.
pub struct Certificates {
    /// Of the console's port; none where it speaks plain HTTP.
    console: Option<(Arc<LiveCertificate>, PairFiles)>,
    agents: Arc<LiveCertificate>,
    /// TLS of the port for agents and relays.
    pub agents_tls: Arc<rustls::ServerConfig>,
    made_here: bool,
    /// Where the console's own certificate is kept.
    folder: PathBuf,
    names: Vec<String>,
    tls_names: Vec<String>,
}

impl Certificates {
    /// Loads or makes them, and tells the CA which names are the control plane's own.
    ///
    /// # Errors
    /// Plain HTTP where it is refused, or files that hold no pair; the message says what to do.
    pub fn prepare(config: &Config, authority: &mut Authority) -> anyhow::Result<Self> {
        if let ConsoleTls::Plain { anywhere } = config.console {
            check_plain(config.listen, anywhere)?;
        }
        let mut names = names_of_listener(config.listen.ip());
        names.extend(config.tls_names.iter().cloned());
        let folder = config.data_dir.join("tls");
        let console = match &config.console {
            ConsoleTls::Plain { .. } => None,
            ConsoleTls::Own => Some(authority.kept_server_certificate(&folder, &names)?),
            ConsoleTls::Files(files) => Some(files.clone()),
        };
        let console = match console {
            None => None,
            Some(files) => {
                let live = LiveCertificate::from_files(&files).context("--tls-cert and --tls-key")?;
                Some((live, files))
            }
        };
        let (agents_tls, agents) = crate::net::agents_tls(authority, &config.tls_names)?;
        let mut own = names.clone();
        own.extend(names_of_listener(config.agents_listen.ip()));
        authority.set_own(own, console.as_ref().map(|(live, _)| live.clone()));
        let made_here = matches!(config.console, ConsoleTls::Own);
        if made_here {
            tracing::info!(
                ca = %config.data_dir.join("ca/ca.pem").display(), names = %names.join(" "),
                "the console's certificate is of the built-in CA: browsers and commands must be told to trust it \
                 (muster --ca FILE; --help says how for browsers), or give --tls-cert and --tls-key"
            );
        }
        Ok(Self {
            console,
            agents,
            agents_tls,
            made_here,
            folder,
            names,
            tls_names: config.tls_names.clone(),
        })
    }

    /// TLS of the console's port; `None` where it speaks plain HTTP.
    ///
    /// # Errors
    /// None that a configuration of ours could meet.
    pub fn console_tls(&self) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
        let config = self.console.as_ref().map(|(live, _)| live.server_config());
        Ok(config.transpose()?)
    }

    /// Keeps them fresh until the control plane stops.
    pub fn keep(self, core: Arc<Core>, tasks: &mut JoinSet<()>) {
        if let Some((live, files)) = &self.console {
            let following = live.clone().follow(files.clone(), LOOK_EVERY);
            let shutdown = core.shutdown.clone();
            tasks.spawn(async move {
                shutdown.run_until_cancelled(following).await;
            });
        }
        tasks.spawn(async move {
            let shutdown = core.shutdown.clone();
            let mut every = tokio::time::interval(RENEW_EVERY);
            every.tick().await;
            while shutdown.run_until_cancelled(every.tick()).await.is_some() {
                if let Err(error) = self.renew(&core.authority) {
                    tracing::warn!(%error, "cannot make a certificate anew; the old one stays in use");
                }
            }
        });
    }

    fn renew(&self, authority: &Authority) -> Result<(), muster_identity::IdentityError> {
        if self.made_here {
            // Files that changed are taken up by who follows them.
            authority.kept_server_certificate(&self.folder, &self.names)?;
        }
        let pem = authority.server_credentials(&self.tls_names)?;
        self.agents.replace(&pem.cert_chain_pem, &pem.key_pem)
    }
}

fn check_plain(listen: SocketAddr, anywhere: bool) -> anyhow::Result<()> {
    if anywhere || listen.ip().is_loopback() {
        return Ok(());
    }
    bail!(
        "--plain on {listen} would send passwords and tokens over the network for all to read: listen on 127.0.0.1, \
         leave out --plain, or say --insecure-plain-anywhere"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_alone_unless_asked_for_in_so_many_words() {
        for (listen, anywhere, fine) in [
            ("127.0.0.1:8080", false, true),
            ("[::1]:8080", false, true),
            ("0.0.0.0:8080", false, false),
            ("192.0.2.7:8080", false, false),
            ("0.0.0.0:8080", true, true),
        ] {
            let checked = check_plain(listen.parse().expect("an address"), anywhere);
            assert_eq!(checked.is_ok(), fine, "{listen}");
            if let Err(error) = checked {
                assert!(error.to_string().contains("--insecure-plain-anywhere"), "{error}");
            }
        }
    }
}
