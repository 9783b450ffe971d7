//! The first start: trading the one-time token for a certificate, which is kept in the identity folder.

use std::time::Duration;

use muster_identity::{Credentials, EnrolError, Identity, IdentityError};

use crate::backoff::Backoff;
use crate::config::Config;
use crate::status::{Status, StatusWriter};

const TELL_EACH: Duration = Duration::from_secs(1);

/// Why the agent has no identity to run with.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    #[error(
        "{0} holds no certificate and no token was given: ask an engineer for the site's token and start \
         once with MUSTER_ENROL_TOKEN=met1..."
    )]
    NoToken(String),
    #[error("no address of the control plane")]
    NoAddress,
    #[error("{0}")]
    Refused(EnrolError),
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("the identity folder holds the certificate of {0}, expected one of an agent")]
    NotAnAgent(Identity),
}

/// Loads the agent's certificate, or enrols for one; returns it with the site's id. A control plane that cannot be
/// reached is tried again for as long as it takes, since a box may have power before it has a network.
///
/// # Errors
/// [`EnrolmentError`], for what trying again would not mend.
pub async fn identity(
    config: &Config,
    status: &mut Status,
    writer: &mut StatusWriter,
) -> Result<(Credentials, String), EnrolmentError> {
    let credentials = match Credentials::load(&config.identity_dir)? {
        Some(credentials) => credentials,
        None => enrol(config, status, writer).await?,
    };
    match credentials.identity.clone() {
        Identity::Agent(site) => Ok((credentials, site)),
        other => Err(EnrolmentError::NotAnAgent(other)),
    }
}

async fn enrol(
    config: &Config,
    status: &mut Status,
    writer: &mut StatusWriter,
) -> Result<Credentials, EnrolmentError> {
    let token = config
        .enrol_token
        .as_ref()
        .ok_or_else(|| EnrolmentError::NoToken(config.identity_dir.display().to_string()))?;
    let mut backoff = Backoff::default();
    // Any replica gives out certificates.
    for address in config.control_plane.iter().cycle() {
        let attempt = muster_identity::enrol(address, token);
        match while_told(attempt, status, writer).await {
            Ok(credentials) => {
                credentials.save(&config.identity_dir)?;
                tracing::info!(identity = %credentials.identity, "enrolled");
                return Ok(credentials);
            }
            Err(error @ EnrolError::Unreachable { .. }) => {
                tracing::warn!(%error, "not enrolled yet, trying again");
                status.last_error = Some(error.to_string());
                writer.write(status, true);
                let wait = tokio::time::sleep(backoff.next(rand::random()));
                while_told(wait, status, writer).await;
            }
            Err(error) => return Err(EnrolmentError::Refused(error)),
        }
    }
    Err(EnrolmentError::NoAddress)
}

/// Waits, and goes on telling meanwhile that the agent lives.
async fn while_told<T>(wait: impl Future<Output = T>, status: &Status, writer: &mut StatusWriter) -> T {
    let mut each = tokio::time::interval(TELL_EACH);
    tokio::pin!(wait);
    loop {
        tokio::select! {
            done = &mut wait => return done,
            _ = each.tick() => writer.write(status, false),
        }
    }
}
