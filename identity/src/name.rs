//! The names that certificates carry: a URI in the subject alternative name, `muster:agent:SITE`.

use std::fmt;
use std::str::FromStr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::IdentityError;

/// Who presents a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// An edge agent, by the id of its site.
    Agent(String),
    /// A relay, by its id.
    Relay(String),
    ControlPlane,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(site) => write!(f, "agent:{site}"),
            Self::Relay(id) => write!(f, "relay:{id}"),
            Self::ControlPlane => f.write_str("control-plane"),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let named = |name: &str| {
            let fits = !name.is_empty()
                && name.len() <= 64
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            fits.then(|| name.to_owned()).ok_or(IdentityError::Unnamed)
        };
        match text.split_once(':') {
            Some(("agent", site)) => named(site).map(Self::Agent),
            Some(("relay", id)) => named(id).map(Self::Relay),
            None if text == "control-plane" => Ok(Self::ControlPlane),
            _ => Err(IdentityError::Unnamed),
        }
    }
}

impl Identity {
    /// The URI of the certificate's subject alternative name.
    pub(crate) fn uri(&self) -> String {
        format!("muster:{self}")
    }
}

/// Reads the identity from a certificate in DER form. The caller has verified its chain.
pub fn identity_of(cert_der: &[u8]) -> Result<Identity, IdentityError> {
    let (_, cert) =
        X509Certificate::from_der(cert_der).map_err(|e| IdentityError::malformed("certificate", e))?;
    let names = cert
        .subject_alternative_name()
        .map_err(|e| IdentityError::malformed("certificate", e))?
        .ok_or(IdentityError::Unnamed)?;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("muster:"),
            _ => None,
        })
        .ok_or(IdentityError::Unnamed)?
        .parse()
}
