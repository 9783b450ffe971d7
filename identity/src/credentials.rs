//! The certificate and key of an agent or a relay, kept in its identity folder.

use std::fmt;
use std::io::Write as _;
use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Identity, IdentityError, identity_of};

/// Everything that an enrolled agent or relay holds.
#[derive(Clone)]
pub struct Credentials {
    pub identity: Identity,
    pub cert_pem: String,
    pub key_pem: String,
    pub ca_pem: String,
    /// Public key of join tokens; only relays use it.
    pub token_key_pem: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, key redacted)", self.identity)
    }
}

impl Credentials {
    /// Loads what `save` wrote; `None` when the folder holds no certificate yet.
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let Some(cert_pem) = read_optional(&dir.join("cert.pem"))? else {
            return Ok(None);
        };
        let read = |name: &str| {
            read_optional(&dir.join(name))?.ok_or_else(|| {
                IdentityError::malformed(
                    "identity",
                    format!(
                        "{} is missing beside cert.pem; enrol again",
                        dir.join(name).display()
                    ),
                )
            })
        };
        Self::from_pem(
            cert_pem,
            read("key.pem")?,
            read("ca.pem")?,
            read("token-key.pem")?,
        )
        .map(Some)
    }

    pub(crate) fn from_pem(
        cert_pem: String,
        key_pem: String,
        ca_pem: String,
        token_key_pem: String,
    ) -> Result<Self, IdentityError> {
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|e| IdentityError::malformed("certificate", e))?;
        Ok(Self {
            identity: identity_of(&cert)?,
            cert_pem,
            key_pem,
            ca_pem,
            token_key_pem,
        })
    }

    /// Writes the four files, `cert.pem` last, so that a crash leaves nothing that looks whole.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        std::fs::create_dir_all(dir).map_err(|source| IdentityError::File {
            path: dir.to_owned(),
            source,
        })?;
        write_private(&dir.join("key.pem"), &self.key_pem)?;
        write_private(&dir.join("ca.pem"), &self.ca_pem)?;
        write_private(&dir.join("token-key.pem"), &self.token_key_pem)?;
        write_private(&dir.join("cert.pem"), &self.cert_pem)
    }

    /// The DNS names and addresses that the certificate is for.
    pub fn names(&self) -> Vec<String> {
        let cert = CertificateDer::from_pem_slice(self.cert_pem.as_bytes());
        cert.map(|cert| crate::names::names_in(&cert)).unwrap_or_default()
    }

    /// The certificate as that of a port for browsers; the CA stands in the chain.
    ///
    /// # Errors
    /// A certificate and key that do not fit each other.
    pub fn live_certificate(&self) -> Result<std::sync::Arc<crate::LiveCertificate>, IdentityError> {
        crate::LiveCertificate::from_pem(&format!("{}{}", self.cert_pem, self.ca_pem), &self.key_pem)
    }

    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| IdentityError::malformed("certificate", e))
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| IdentityError::malformed("key", e))
    }
}

/// Reads a text file; `None` when there is none.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, IdentityError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), IdentityError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |source| IdentityError::File {
        path: path.to_owned(),
        source,
    };
    let part = path.with_extension("part");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}
