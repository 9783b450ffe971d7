//! The relay's credentials: kept in a folder, or won by enrolment at the first start; in development mode of no worth.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use muster_identity::{Credentials, EnrolError, Identity, all_named};

use crate::{RelayConfig, dev};

/// How long the first start waits for a control plane that is not there yet.
const ENROL_FOR: Duration = Duration::from_secs(60);
/// How long a start waits for a certificate that is made anew; the old one serves without.
const RENEW_WITHIN: Duration = Duration::from_secs(5);
/// A certificate that ends sooner is made anew at the start.
const RENEW_S: i64 = 60 * 24 * 3600;

/// Loads the credentials, or enrols and saves them; in development mode makes some that are kept nowhere. Those that lack one
/// of `names`, by which browsers call the relay, or end soon, are made anew if the control plane does.
///
/// # Errors
/// No certificate and no way to one, or a certificate that is no relay's. The message says what to do.
pub(crate) async fn obtain(config: &RelayConfig, names: &[String]) -> anyhow::Result<Credentials> {
    if config.dev.is_some() {
        return dev::credentials().context("cannot make an identity");
    }
    let dir = &config.identity_dir;
    let credentials =
        match Credentials::load(dir).with_context(|| format!("identity in {}", dir.display()))? {
            Some(credentials) => renewed(config, credentials, names).await,
            None => {
                let credentials = enrol(config, names).await?;
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

async fn renewed(config: &RelayConfig, credentials: Credentials, names: &[String]) -> Credentials {
    let ends_s = credentials.live_certificate().map_or(0, |live| live.ends_s());
    let holds = ends_s > crate::watch::now_ms() / 1000 + RENEW_S;
    if config.control_plane.is_empty() || (holds && all_named(&credentials.names(), names)) {
        return credentials;
    }
    let renewed = match tokio::time::timeout(RENEW_WITHIN, renew(config, &credentials, names)).await {
        Ok(Ok(renewed)) => renewed,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the relay's certificate was not made anew; the old one serves");
            return credentials;
        }
        Err(_) => {
            tracing::warn!(
                "no answer in time: the relay's certificate was not made anew; the old one serves"
            );
            return credentials;
        }
    };
    match renewed.save(&config.identity_dir) {
        Ok(()) => tracing::info!(names = %names.join(" "), "the relay's certificate was made anew"),
        Err(error) => tracing::warn!(%error, "the relay's new certificate cannot be kept"),
    }
    renewed
}

/// Asks one replica of the control plane after the other until one answers.
async fn renew(
    config: &RelayConfig,
    credentials: &Credentials,
    names: &[String],
) -> Result<Credentials, EnrolError> {
    let mut replicas = config.control_plane.iter().peekable();
    loop {
        let authority = replicas.next().map(String::as_str).unwrap_or_default();
        match muster_identity::renew(authority, credentials, names).await {
            Err(EnrolError::Unreachable { .. }) if replicas.peek().is_some() => {}
            answered => return answered,
        }
    }
}

async fn enrol(config: &RelayConfig, names: &[String]) -> anyhow::Result<Credentials> {
    let (false, Some(token)) = (config.control_plane.is_empty(), &config.enrol_token) else {
        bail!(
            "{} holds no certificate: give --control-plane HOST:PORT and --enrol-token TOKEN once to get one",
            config.identity_dir.display()
        );
    };
    let start = Instant::now();
    // Any replica gives out certificates.
    for authority in config.control_plane.iter().cycle() {
        match muster_identity::enrol_as(authority, token, names).await {
            Err(error @ EnrolError::Unreachable { .. }) if start.elapsed() < ENROL_FOR => {
                tracing::info!(%error, "waiting to enrol");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            result => return result.context("cannot enrol"),
        }
    }
    bail!("no address of the control plane")
}
