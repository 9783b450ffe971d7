//! The built-in certificate authority and the key that signs join tokens, kept as PEM files in one folder:
//! `ca.pem`, `ca-key.pem` and `token-key.pem`, the keys readable by their owner alone.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::credentials::{read_optional, write_private};
use crate::names::{all_named, for_relay};
use crate::server::now_s;
use crate::{
    CONTROL_PLANE_NAME, Credentials, Identity, IdentityError, LiveCertificate, PairFiles, RELAY_NAME,
    TokenSigner, sha256_text,
};

/// Certificates of agents and relays hold for a year, the CA for twenty.
const LEAF_DAYS: i64 = 366;
const CA_DAYS: i64 = 20 * 366;
/// A kept server certificate that ends sooner is made anew.
const RENEW_S: i64 = 30 * 24 * 3600;

/// The CA of one installation.
pub struct Authority {
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    token_key: KeyPair,
    /// What the control plane itself goes by, so that no relay may.
    own_names: Vec<String>,
    own_certificate: Option<Arc<LiveCertificate>>,
}

/// What a TLS server of the control plane presents.
pub struct ServerPem {
    pub cert_chain_pem: String,
    pub key_pem: String,
    pub ca_pem: String,
}

impl Authority {
    /// Loads the CA from `dir`, or makes a new one there. Half of one is an error, never replaced.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        std::fs::create_dir_all(dir).map_err(|source| IdentityError::File {
            path: dir.to_owned(),
            source,
        })?;
        let files = ["ca.pem", "ca-key.pem", "token-key.pem"].map(|name| dir.join(name));
        let found = [
            read_optional(&files[0])?,
            read_optional(&files[1])?,
            read_optional(&files[2])?,
        ];
        match found {
            [Some(ca), Some(ca_key), Some(token_key)] => Self::from_pem(ca, &ca_key, &token_key),
            [None, None, None] => {
                let (ca, ca_key, token_key) = generate()?;
                // The certificate goes last: a crash before it leaves nothing that looks whole.
                write_private(&files[1], &ca_key)?;
                write_private(&files[2], &token_key)?;
                write_private(&files[0], &ca)?;
                Self::from_pem(ca, &ca_key, &token_key)
            }
            [None, _, _] => {
                // Keys without a certificate: the first start died half-way, nothing was ever signed.
                for file in &files[1..] {
                    let _ = std::fs::remove_file(file);
                }
                Self::load_or_create(dir)
            }
            _ => Err(IdentityError::malformed(
                "certificate authority",
                format!(
                    "{} has a ca.pem but lacks ca-key.pem or token-key.pem; restore them from a backup",
                    dir.display()
                ),
            )),
        }
    }

    /// A CA that is kept nowhere: what it signs holds no longer than the process that made it.
    ///
    /// # Errors
    /// Only where the machine gives no randomness.
    pub fn in_memory() -> Result<Self, IdentityError> {
        let (ca, ca_key, token_key) = generate()?;
        Self::from_pem(ca, &ca_key, &token_key)
    }

    fn from_pem(ca_pem: String, ca_key: &str, token_key: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(ca_key).map_err(|e| IdentityError::malformed("ca-key.pem", e))?;
        let issuer =
            Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|e| IdentityError::malformed("ca.pem", e))?;
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(|e| IdentityError::malformed("ca.pem", e))?;
        let token_key =
            KeyPair::from_pem(token_key).map_err(|e| IdentityError::malformed("token-key.pem", e))?;
        Ok(Self {
            ca_pem,
            ca_der,
            issuer,
            token_key,
            own_names: Vec::new(),
            own_certificate: None,
        })
    }

    /// Says what the control plane is called: such a name is never signed for a relay, nor any that stands in the
    /// certificate that it presents.
    pub fn set_own(&mut self, names: Vec<String>, certificate: Option<Arc<LiveCertificate>>) {
        self.own_names = names;
        self.own_certificate = certificate;
    }

    fn own_names(&self) -> Vec<String> {
        let presented = self
            .own_certificate
            .as_ref()
            .map(|certificate| certificate.names());
        let presented = presented.unwrap_or_default();
        self.own_names.iter().cloned().chain(presented).collect()
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the CA's certificate, as it stands in enrolment tokens.
    pub fn fingerprint(&self) -> String {
        sha256_text(&self.ca_der)
    }

    /// Signs the key of a certificate request for `identity`. Of what the request says, the DNS names and addresses of a
    /// relay are taken; all else is ignored.
    ///
    /// # Errors
    /// A request of the wrong form, or a name that a relay may not have.
    pub fn issue(&self, csr_pem: &str, identity: &Identity) -> Result<String, IdentityError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| IdentityError::malformed("certificate request", e))?;
        let names = match identity {
            Identity::Relay(_) => for_relay(&request.params.subject_alt_names, &self.own_names())?,
            Identity::Agent(_) | Identity::ControlPlane => Vec::new(),
        };
        request.params = leaf_params(identity, &names)?;
        let cert = request
            .signed_by(&self.issuer)
            .map_err(|e| IdentityError::malformed("certificate request", e))?;
        Ok(cert.pem())
    }

    /// A fresh key and certificate for `identity`, without a request of its own: for one that lives in this process.
    ///
    /// # Errors
    /// A name that cannot stand in a certificate.
    pub fn credentials(&self, identity: Identity) -> Result<Credentials, IdentityError> {
        let failed = |e| IdentityError::malformed("certificate", e);
        let key = KeyPair::generate().map_err(failed)?;
        let cert = leaf_params(&identity, &[])?
            .signed_by(&key, &self.issuer)
            .map_err(failed)?;
        Ok(Credentials {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            ca_pem: self.ca_pem.clone(),
            token_key_pem: self.token_key_pem(),
            identity,
        })
    }

    /// A fresh key and certificate for the control plane's own TLS port. The chain includes the CA, so that an
    /// enrolling agent can compare it with the fingerprint in its token.
    pub fn server_credentials(&self, extra_names: &[String]) -> Result<ServerPem, IdentityError> {
        let key = KeyPair::generate().map_err(|e| IdentityError::malformed("server key", e))?;
        let cert = leaf_params(&Identity::ControlPlane, extra_names)?
            .signed_by(&key, &self.issuer)
            .map_err(|e| IdentityError::malformed("server certificate", e))?;
        Ok(ServerPem {
            cert_chain_pem: cert.pem() + &self.ca_pem,
            key_pem: key.serialize_pem(),
            ca_pem: self.ca_pem.clone(),
        })
    }

    /// The server certificate for people, kept in two files of `dir` and made anew if a name is missing, the CA is
    /// another, or it ends within a month. So a browser that was told to trust it does so after a restart too.
    ///
    /// # Errors
    /// A folder that cannot be written, or a name that cannot stand in a certificate.
    pub fn kept_server_certificate(&self, dir: &Path, names: &[String]) -> Result<PairFiles, IdentityError> {
        let files = PairFiles {
            cert: dir.join("server.pem"),
            key: dir.join("server-key.pem"),
        };
        let (chain, key) = (read_optional(&files.cert)?, read_optional(&files.key)?);
        if let (Some(chain), Some(key)) = (chain, key)
            && chain.ends_with(&self.ca_pem)
            && let Ok(kept) = LiveCertificate::from_pem(&chain, &key)
            && kept.ends_s() > now_s() + RENEW_S
            && all_named(&kept.names(), names)
        {
            return Ok(files);
        }
        std::fs::create_dir_all(dir).map_err(|source| IdentityError::File {
            path: dir.to_owned(),
            source,
        })?;
        let failed = |e| IdentityError::malformed("server certificate", e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        let title = names.first().map_or("Muster", String::as_str);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, title);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, LEAF_DAYS);
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        write_private(&files.key, &key.serialize_pem())?;
        write_private(&files.cert, &(cert.pem() + &self.ca_pem))?;
        Ok(files)
    }

    /// A secret key for this purpose, the same wherever the folder of this authority is.
    pub fn key_for(&self, purpose: &str) -> [u8; 32] {
        use aws_lc_rs::hmac;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.token_key.serialize_der());
        let mut derived = [0; 32];
        derived.copy_from_slice(hmac::sign(&key, purpose.as_bytes()).as_ref());
        derived
    }

    /// Signs join tokens.
    pub fn token_signer(&self) -> Result<TokenSigner, IdentityError> {
        TokenSigner::from_pkcs8_der(&self.token_key.serialize_der())
    }

    /// Public half of the key that signs join tokens, SubjectPublicKeyInfo in PEM.
    pub fn token_key_pem(&self) -> String {
        self.token_key.public_key_pem()
    }
}

fn generate() -> Result<(String, String, String), IdentityError> {
    let failed = |e| IdentityError::malformed("new certificate authority", e);
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Muster CA");
    set_validity(&mut params, CA_DAYS);
    let cert = params.self_signed(&key).map_err(failed)?;
    let token_key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(failed)?;
    Ok((cert.pem(), key.serialize_pem(), token_key.serialize_pem()))
}

fn leaf_params(identity: &Identity, extra_names: &[String]) -> Result<CertificateParams, IdentityError> {
    let mut names = extra_names.to_vec();
    match identity {
        Identity::ControlPlane => names.push(CONTROL_PLANE_NAME.to_owned()),
        Identity::Relay(_) => names.push(RELAY_NAME.to_owned()),
        Identity::Agent(_) => {}
    }
    let malformed = |e| IdentityError::malformed("certificate name", e);
    let mut params = CertificateParams::new(names).map_err(malformed)?;
    let uri = identity.uri().as_str().try_into().map_err(malformed)?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, identity.to_string());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, LEAF_DAYS);
    Ok(params)
}

/// From a day ago, since clocks of boxes in the field are off, until `days` from now.
fn set_validity(params: &mut CertificateParams, days: i64) {
    let day = std::time::Duration::from_secs(24 * 3600);
    let now = std::time::SystemTime::now();
    params.not_before = (now - day).into();
    params.not_after = (now + day * u32::try_from(days).unwrap_or(u32::MAX)).into();
}
