//! The relay under test, in a process of its own: this program again, with the hidden subcommand `relay`.
//!
//! It has no control plane; its identity comes from an authority in a temporary folder, which signs the join tokens
//! too. It ends when its standard input does, so that it never outlives the measurement.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use muster_identity::{Authority, Credentials, Identity, JoinClaims, TokenSigner};
use muster_proto::command::v1::StageDocument;
use muster_sfu::{HttpTls, Relay, RelayConfig};

use crate::args::RelayArgs;
use crate::cascade::Neighbour;
use crate::http::{Http, RelayDoor};
use crate::join::{Door, Server};

/// The meeting of which `--stage` is the stage.
pub const MEETING: &str = "bench";

/// A running relay. Dropping it ends it.
pub struct RelayProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    http: SocketAddr,
    signer: Arc<TokenSigner>,
    _dir: tempfile::TempDir,
}

impl RelayProcess {
    /// Starts a relay with so many workers; the site `stage` is on the stage of [`MEETING`].
    pub fn start(workers: u16, stage: Option<&str>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::load_or_create(&dir.path().join("authority"))?;
        let identity_dir = dir.path().join("relay");
        credentials(&authority)?.save(&identity_dir)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("relay")
            .args(["--workers", &workers.to_string()])
            .arg("--identity-dir")
            .arg(&identity_dir)
            .args(stage.iter().flat_map(|site| ["--stage", site]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the relay does not start")?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        Ok(Self {
            http: line.trim().parse().context("the relay ended at its start")?,
            child,
            stdin,
            signer: Arc::new(authority.token_signer()?),
            _dir: dir,
        })
    }

    /// A connection of its own; the relay ends those that are idle.
    pub fn http(&self) -> anyhow::Result<Http> {
        Http::connect(self.http)
    }

    /// Signs join tokens that the relay takes.
    pub fn signer(&self) -> &TokenSigner {
        &self.signer
    }
}

impl Server for RelayProcess {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn door(&self) -> anyhow::Result<Box<dyn Door>> {
        Ok(Box::new(RelayDoor::new(self.http()?, self.signer.clone())))
    }
}

/// A join token of 120 s for `site`.
pub fn token(signer: &TokenSigner, meeting: &str, site: &str, may_publish: bool) -> anyhow::Result<String> {
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)?
        .as_secs()
        .try_into()?;
    let claims = JoinClaims::new(meeting, site, false, may_publish, now_s);
    Ok(signer.sign(&claims)?)
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        self.stdin = None;
        // Nothing to do about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}

fn credentials(authority: &Authority) -> anyhow::Result<Credentials> {
    let identity = Identity::Relay("bench".into());
    let key = rcgen::KeyPair::generate()?;
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)?
        .pem()?;
    Ok(Credentials {
        cert_pem: authority.issue(&csr, &identity)?,
        key_pem: key.serialize_pem(),
        ca_pem: authority.ca_pem().to_owned(),
        token_key_pem: authority.token_key_pem(),
        identity,
    })
}

/// The subcommand `relay`: says the address of its HTTP (in a fleet or a cascade: of its port for links), and serves until
/// standard input ends.
pub fn serve(args: &RelayArgs) -> anyhow::Result<()> {
    let config = RelayConfig {
        http_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_tls: HttpTls::LOCAL,
        workers: args.workers.into(),
        identity_dir: args.identity_dir.clone(),
        max_legs: 10_000,
        control_plane: args.control_plane.iter().cloned().collect(),
        uplink: args.uplink.clone(),
        announce_ip: args.announce_ip,
        ..RelayConfig::default()
    };
    // The same kind of runtime that `muster-sfu` has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let relay = runtime.block_on(Relay::start(config))?;
    if let Some(site) = &args.stage {
        relay.set_stage(StageDocument {
            meeting: MEETING.to_owned(),
            version: 1,
            broadcast_site: site.clone(),
            ..StageDocument::default()
        });
    }
    match (&args.control_plane, relay.link_addrs()) {
        (control_plane, [link, ..]) if control_plane.is_some() || args.cascade => println!("{link}"),
        _ => println!("{}", relay.http_addr()),
    }
    if args.cascade {
        for line in std::io::stdin().lines() {
            line?;
            println!("{}", serde_json::to_string(&neighbours(&relay))?);
        }
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    runtime.block_on(relay.shutdown());
    Ok(())
}

fn neighbours(relay: &Relay) -> Vec<Neighbour> {
    let all = relay.neighbours().into_iter();
    all.map(|neighbour| Neighbour {
        name: neighbour.name,
        above: neighbour.above,
        packets_in: neighbour.packets_in,
        bytes_in: neighbour.bytes_in,
        numbers_in: neighbour.numbers_in,
        layers_in: neighbour.layers_in,
    })
    .collect()
}
