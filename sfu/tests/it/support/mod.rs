//! What the tests share: a relay with identities of an authority in a temporary folder, and its clients.

pub mod agent;
pub mod browser;
pub mod control_plane;
pub mod http;
pub mod raw;
pub mod vp8;
pub mod wire;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_identity::{Authority, Credentials, Identity, JoinClaims};
use muster_proto::command::v1::StageDocument;
use muster_sfu::{HttpTls, Relay, RelayConfig};

use agent::{Agent, slot, wish};
use browser::Browser;

/// Generous: the machine that runs the tests may have much else to do.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A relay, and the authority that it trusts.
pub struct Bench {
    pub relay: Relay,
    pub authority: Authority,
    pub _dir: tempfile::TempDir,
}

pub fn now_s() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs() as i64
}

pub fn credentials(authority: &Authority, identity: Identity) -> Credentials {
    let key = rcgen::KeyPair::generate().expect("key");
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .expect("csr")
        .pem()
        .expect("pem");
    Credentials {
        cert_pem: authority.issue(&csr, &identity).expect("certificate"),
        key_pem: key.serialize_pem(),
        ca_pem: authority.ca_pem().to_owned(),
        token_key_pem: authority.token_key_pem(),
        identity,
    }
}

pub fn config(authority: &Authority, dir: &Path) -> RelayConfig {
    config_of("r1", authority, dir)
}

/// The configuration of a relay of this name.
pub fn config_of(name: &str, authority: &Authority, dir: &Path) -> RelayConfig {
    let identity_dir = dir.join("relay");
    credentials(authority, Identity::Relay(name.into()))
        .save(&identity_dir)
        .expect("saved");
    RelayConfig {
        http_listen: "127.0.0.1:0".parse().expect("address"),
        http_tls: HttpTls::LOCAL,
        workers: 1,
        identity_dir,
        ..RelayConfig::default()
    }
}

impl Bench {
    pub async fn start(workers: usize) -> Self {
        Self::start_with(|config| config.workers = workers).await
    }

    pub async fn start_with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let authority = Authority::load_or_create(&dir.path().join("authority")).expect("authority");
        let mut config = config(&authority, dir.path());
        change(&mut config);
        let relay = Relay::start(config).await.expect("relay starts");
        Self {
            relay,
            authority,
            _dir: dir,
        }
    }

    pub fn token(&self, meeting: &str, site: &str) -> String {
        self.sign(&JoinClaims::new(meeting, site, false, true, now_s()))
    }

    pub fn sign(&self, claims: &JoinClaims) -> String {
        self.authority
            .token_signer()
            .expect("signer")
            .sign(claims)
            .expect("signed")
    }

    pub fn agent_credentials(&self, site: &str) -> Credentials {
        credentials(&self.authority, Identity::Agent(site.into()))
    }
}

/// The site `box`, by its link, and the chair at a browser: each publishes and asks to see the other.
pub async fn box_and_chair(bench: &Bench) -> (Agent, Browser) {
    let mut agent = Agent::in_meeting(bench, 0, "box", vec![slot("v", false)]).await;
    agent.publish_camera();
    let mut browser = Browser::join(bench, "desk:chair", true, 1).await;
    browser.publish_camera();
    browser
        .set_view(vec![wish("1", "box")])
        .await
        .expect("a good wish");
    agent.set_view(vec![wish("v", "desk:chair")]).await;
    (agent, browser)
}

pub fn stage(meeting: &str, version: u64) -> StageDocument {
    StageDocument {
        meeting: meeting.into(),
        version,
        chair: "desk:chair".into(),
        ..Default::default()
    }
}

/// Polls until `check` gives something; panics with `what` after the deadline.
pub async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// As a future, for what must not take for ever.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Tries again until it succeeds.
pub async fn until_async<T, E, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Ok(done) = attempt().await {
            return done;
        }
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
