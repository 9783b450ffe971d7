//! The certificate of a listening port that people and browsers reach, exchanged while the port serves.
//!
//! Invariants: a pair that cannot be used never takes the place of one that can; a handshake takes whatever certificate
//! is there at its beginning, so connections that stand are not disturbed. Which names a certificate may carry is decided in
//! `names`, who signs it in `authority`.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::credentials::read_optional;
use crate::names::names_in;
use crate::rank::rank_among;
use crate::tls::provider;
use crate::{IdentityError, sha256_text};

/// How often the files of a pair are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate that ends sooner is told of when it is loaded.
const SOON_S: i64 = 14 * 24 * 3600;

/// A certificate chain and its key as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

struct PairText {
    chain: String,
    key: String,
}

impl PairText {
    /// Changes with either file; tells nothing of them.
    fn fingerprint(&self) -> String {
        sha256_text(format!("{}\0{}", self.chain, self.key).as_bytes())
    }
}

impl PairFiles {
    fn read(&self) -> Result<PairText, IdentityError> {
        let text = |path: &PathBuf| {
            read_optional(path)?.ok_or_else(|| IdentityError::File {
                path: path.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            })
        };
        Ok(PairText {
            chain: text(&self.cert)?,
            key: text(&self.key)?,
        })
    }
}

/// The certificate that a port presents now.
pub struct LiveCertificate {
    pair: RwLock<Arc<CertifiedKey>>,
    /// Fingerprint of the text that it was first made from, so that a change before the first look is seen too.
    first: String,
}

impl fmt::Debug for LiveCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveCertificate(key redacted)")
    }
}

impl LiveCertificate {
    /// # Errors
    /// A chain or key of the wrong form, or a key that is not the certificate's.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Arc<Self>, IdentityError> {
        let text = PairText {
            chain: chain_pem.to_owned(),
            key: key_pem.to_owned(),
        };
        Ok(Arc::new(Self {
            pair: RwLock::new(Arc::new(certified(chain_pem, key_pem)?)),
            first: text.fingerprint(),
        }))
    }

    /// As [`LiveCertificate::from_pem`], from files; the ones that have run out are taken too, since a port with such a
    /// certificate is better than none, and told of.
    ///
    /// # Errors
    /// As there, or a file that cannot be read.
    pub fn from_files(files: &PairFiles) -> Result<Arc<Self>, IdentityError> {
        let text = files.read()?;
        let live = Self::from_pem(&text.chain, &text.key).map_err(|error| named(files, error))?;
        live.tell_end(files);
        Ok(live)
    }

    /// From now on presents this pair; keeps the one that it has if this is none, or has run out.
    ///
    /// # Errors
    /// What is wrong with the pair.
    pub fn replace(&self, chain_pem: &str, key_pem: &str) -> Result<(), IdentityError> {
        let pair = certified(chain_pem, key_pem)?;
        let left = ends_s(&pair)? - now_s();
        if left <= 0 {
            let ago = format!("it ran out {} hours ago", -left / 3600);
            return Err(IdentityError::malformed("certificate", ago));
        }
        *self.pair.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
        Ok(())
    }

    fn now(&self) -> Arc<CertifiedKey> {
        self.pair.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The DNS names and addresses that the certificate is for.
    pub fn names(&self) -> Vec<String> {
        let pair = self.now();
        pair.cert.first().map(|cert| names_in(cert)).unwrap_or_default()
    }

    /// When the certificate runs out, in seconds since the Unix epoch; 0 if it does not say.
    pub fn ends_s(&self) -> i64 {
        ends_s(&self.now()).unwrap_or(0)
    }

    /// TLS 1.2 and 1.3 for browsers and commands: h2 before HTTP/1.1, no client certificates.
    ///
    /// # Errors
    /// None that a configuration of ours could meet.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| IdentityError::malformed("TLS versions", e))?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Looks every so often at the files and takes up what they hold when that has changed, until it is dropped. A pair that will not do is told of once, and
    /// only when it is still there at the next look: two files are never exchanged at one instant.
    pub async fn follow(self: Arc<Self>, files: PairFiles, every: Duration) {
        let mut known = Some(self.first.clone());
        let mut suspect: Option<String> = None;
        let mut every = tokio::time::interval(every);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let text = look(&files).await;
            let found = match &text {
                Ok(text) => text.fingerprint(),
                Err(error) => error.to_string(),
            };
            if known.as_ref() == Some(&found) {
                continue;
            }
            match text.and_then(|text| self.replace(&text.chain, &text.key)) {
                Ok(()) => {
                    tracing::info!(cert = %files.cert.display(), "a new certificate is in use");
                    self.tell_end(&files);
                    (known, suspect) = (Some(found), None);
                }
                Err(error) if suspect.as_ref() == Some(&found) => {
                    tracing::warn!(%error, cert = %files.cert.display(), key = %files.key.display(),
                        "the new certificate cannot be used: the old one stays in use");
                    metrics::counter!("muster_certificates_refused_total").increment(1);
                    (known, suspect) = (Some(found), None);
                }
                Err(_) => suspect = Some(found),
            }
        }
    }

    fn tell_end(&self, files: &PairFiles) {
        let left_s = self.ends_s() - now_s();
        if left_s < SOON_S {
            let days = left_s.div_euclid(24 * 3600);
            tracing::warn!(days, cert = %files.cert.display(), "the certificate runs out soon, or has: replace the files");
        }
    }
}

/// A client that has said what it wants; nothing that costs has been done yet.
pub struct Hello {
    start: StartHandshake<TcpStream>,
    rank: u8,
}

impl Hello {
    /// Reads the ClientHello. Who speaks plain HTTP instead is answered that this port does not.
    ///
    /// # Errors
    /// No ClientHello, with or without words.
    pub async fn read(mut stream: TcpStream) -> std::io::Result<Self> {
        refuse_plain(&mut stream).await?;
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let rank = rank_among(start.client_hello().alpn().into_iter().flatten());
        Ok(Self { start, rank })
    }

    /// The place in line that it asks for, 0 the first; proved by nothing.
    pub fn rank(&self) -> u8 {
        self.rank
    }

    /// Goes through with the handshake.
    ///
    /// # Errors
    /// One that fails.
    pub async fn finish(self, config: Arc<ServerConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        self.start.into_stream(config).await
    }
}

/// Takes one connection of a port that speaks TLS. Who speaks plain HTTP instead is answered that it does, and nothing
/// that they sent is looked at.
///
/// # Errors
/// A handshake that fails, with or without words.
pub async fn accept_tls(
    acceptor: &TlsAcceptor,
    mut stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    refuse_plain(&mut stream).await?;
    acceptor.accept(stream).await
}

async fn refuse_plain(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut first = [0];
    // A TLS record of a handshake begins with 22, a method of HTTP with a letter.
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        say_https(stream).await;
        return Err(std::io::Error::other("plain HTTP"));
    }
    Ok(())
}

async fn say_https(stream: &mut TcpStream) {
    const WORDS: &str = "this port speaks TLS: use https:// in place of http://\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{WORDS}",
        WORDS.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    // Closing with bytes unread would reset the connection, and the words with it.
    let mut rest = [0; 1024];
    for _ in 0..64 {
        if !matches!(stream.read(&mut rest).await, Ok(1..)) {
            break;
        }
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

/// Off the runtime's threads: the files may lie on a share that is away.
async fn look(files: &PairFiles) -> Result<PairText, IdentityError> {
    let files = files.clone();
    tokio::task::spawn_blocking(move || files.read())
        .await
        .map_err(|error| IdentityError::malformed("certificate files", error))?
}

fn certified(chain_pem: &str, key_pem: &str) -> Result<CertifiedKey, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| IdentityError::malformed("certificate", e))?;
    if chain.is_empty() {
        return Err(IdentityError::malformed(
            "certificate",
            "expected PEM with BEGIN CERTIFICATE",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| IdentityError::malformed("key", "expected PEM with BEGIN PRIVATE KEY"))?;
    let pair = CertifiedKey::from_der(chain, key, &provider())
        .map_err(|e| IdentityError::malformed("certificate and key", e))?;
    ends_s(&pair)?;
    Ok(pair)
}

fn ends_s(pair: &CertifiedKey) -> Result<i64, IdentityError> {
    let cert = pair
        .end_entity_cert()
        .map_err(|e| IdentityError::malformed("certificate", e))?;
    let (_, cert) =
        X509Certificate::from_der(cert).map_err(|e| IdentityError::malformed("certificate", e))?;
    Ok(cert.validity().not_after.timestamp())
}

fn named(files: &PairFiles, error: IdentityError) -> IdentityError {
    let detail = format!("{} and {}: {error}", files.cert.display(), files.key.display());
    IdentityError::malformed("certificate files", detail)
}

pub(crate) fn now_s() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
