//! The address of a database or a bus.

use serde::Deserialize;
use std::fmt;

/// The address of a service, with a password perhaps: it is never shown whole.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct ServiceUrl(String);

impl ServiceUrl {
    /// The address as it was given.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ServiceUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let host = host.split(['?', '/']).next().unwrap_or_default();
        write!(f, "{scheme}://{host}")
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// For a flag or a variable.
pub fn parse(text: &str) -> Result<ServiceUrl, String> {
    match text.contains("://") {
        true => Ok(text.into()),
        false => Err("expected SCHEME://HOST:PORT".into()),
    }
}
