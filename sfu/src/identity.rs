//! The relay's credentials: kept in a folder, or won by enrolment at the first start; in development mode of no worth.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use muster_identity::{Credentials, EnrolError, Identity};

use crate::{RelayConfig, dev};

/// How long the first start waits for a control plane that is not there yet.
const ENROL_FOR: Duration = Duration::from_secs(60);

/// Loads the credentials, or enrols and saves them; in development mode makes some that are kept nowhere.
///
/// # Errors
/// No certificate and no way to one, or a certificate that is no relay's. The message says what to do.
pub(crate) async fn obtain(config: &RelayConfig) -> anyhow::Result<Credentials> {
    if config.dev.is_some() {
        return dev::credentials().context("cannot make an identity");
    }
    let dir = &config.identity_dir;
    let credentials =
        match Credentials::load(dir).with_context(|| format!("identity in {}", dir.display()))? {
            Some(credentials) => credentials,
            None => {
                let credentials = enrol(config).await?;
                credentials.save(dir)?;
                tracing::info!(identity = %credentials.identity, dir = %dir.display(), "enrolled");
                credentials
            }
        };
    if !matches!(credentials.identity, Identity::Relay(_)) {
        let found = &credentials.identity;
        bail!(
            "{} holds the certificate of {found}, expected a relay's; enrol with a token for a relay",
            dir.display()
        );
    }
    Ok(credentials)
}

async fn enrol(config: &RelayConfig) -> anyhow::Result<Credentials> {
    let (false, Some(token)) = (config.control_plane.is_empty(), &config.enrol_token) else {
        bail!(
            "{} holds no certificate: give --control-plane HOST:PORT and --enrol-token TOKEN once to get one",
            config.identity_dir.display()
        );
    };
    let start = Instant::now();
    // Any replica gives out certificates.
    for authority in config.control_plane.iter().cycle() {
        match muster_identity::enrol(authority, token).await {
            Err(error @ EnrolError::Unreachable { .. }) if start.elapsed() < ENROL_FOR => {
                tracing::info!(%error, "waiting to enrol");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            result => return result.context("cannot enrol"),
        }
    }
    bail!("no address of the control plane")
}
