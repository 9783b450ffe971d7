//! The parts of a demonstration, started in order and ended in the reverse order.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use muster_control_plane::{Bootstrap, Config, ControlPlane};
use muster_identity::Credentials;
use muster_proto::command::v1::create_enrol_token_request::Target;
use muster_proto::command::v1::{CreateEnrolTokenRequest, ImportSitesRequest, Role};
use muster_sfu::{HttpTls, Relay, RelayConfig};
use tokio::sync::watch;
use tokio::time::timeout;

use super::agents::{self, Agents, Plan};
use super::folder::{DataFolder, disk_full};
use super::sites;
use crate::client::Client;
use crate::failure::Failure;

pub const ACCOUNT: &str = "duty";
/// For each server; the agents have a limit of their own.
const END_PATIENCE: Duration = Duration::from_millis(700);

pub struct Running {
    url: String,
    password: String,
    sites: Vec<String>,
    client: Client,
    agents: Agents,
    relay: Relay,
    control_plane: ControlPlane,
    _folder: Arc<DataFolder>,
}

/// Whether a start can come to anything: the agents' program is there and the port is free.
pub fn check(listen: SocketAddr) -> Result<(), Failure> {
    agents::find_program().map_err(Failure::Refused)?;
    check_port(listen)
}

impl Running {
    /// Starts everything; returns when the servers answer and the agents have been started.
    pub async fn start(folder: Arc<DataFolder>, listen: SocketAddr, count: usize) -> Result<Self, Failure> {
        let program = agents::find_program().map_err(Failure::Refused)?;
        let sites: Vec<_> = sites::choose(count).into_iter().map(str::to_owned).collect();
        let password = folder.password()?;
        let (control_plane, client) = start_control_plane(&folder, listen, &password).await?;
        let url = control_plane.url();
        let agents_address = control_plane.agents_addr().to_string();
        let relay = start_relay(&folder, &client, &agents_address)
            .await
            .map_err(|error| explain(&error, &folder))?;
        let plan = Plan {
            program,
            control_plane: agents_address,
            client: client.clone(),
            folder: folder.clone(),
        };
        let agents = Agents::start(plan, sites.clone()).map_err(|error| explain(&error, &folder))?;
        Ok(Self {
            url,
            password,
            sites,
            client,
            agents,
            relay,
            control_plane,
            _folder: folder,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    pub fn sites(&self) -> &[String] {
        &self.sites
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn agent_pids(&self) -> BTreeMap<String, u32> {
        self.agents.pids()
    }

    pub fn agent_changes(&self) -> watch::Receiver<u64> {
        self.agents.changes()
    }

    /// Ends everything, children first. Takes no longer than three seconds.
    pub async fn stop(self) {
        self.agents.stop().await;
        let _ = timeout(END_PATIENCE, self.relay.shutdown()).await;
        let _ = timeout(END_PATIENCE, self.control_plane.shutdown()).await;
    }
}

/// Tried before anything is written: the most frequent mistake gets its own line.
fn check_port(listen: SocketAddr) -> Result<(), Failure> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(Failure::Refused(format!(
            "{listen} is in use: end the other program, or choose another port: make demo PORT={} (muster demo --listen)",
            listen.port().wrapping_add(10).max(1024)
        ))),
        Err(error) => Err(Failure::Refused(format!(
            "cannot listen on {listen}: {error}; choose another with --listen"
        ))),
    }
}

async fn start_control_plane(
    folder: &DataFolder,
    listen: SocketAddr,
    password: &str,
) -> Result<(ControlPlane, Client), Failure> {
    let bootstrap = Bootstrap {
        account: ACCOUNT.to_owned(),
        password: password.to_owned(),
        role: Role::Commander,
        unit: sites::ROOT.to_owned(),
    };
    let config = Config {
        listen,
        bootstrap: Some(bootstrap),
        ..Config::local(folder.control_plane())
    };
    let control_plane = ControlPlane::start(config)
        .await
        .map_err(|error| explain(&error, folder))?;
    let client = Client::sign_in(&control_plane.url(), None, ACCOUNT, password).await?;
    let request = ImportSitesRequest {
        csv: sites::TREE.as_bytes().to_vec(),
        dry_run: false,
    };
    let imported = client.directory().import_sites(request).await?.into_inner();
    if let Some(error) = imported.errors.first() {
        return Err(Failure::Refused(format!(
            "the demonstration tree was not imported: line {}, {}: expected {}",
            error.line, error.column, error.expected
        )));
    }
    Ok((control_plane, client))
}

async fn start_relay(folder: &DataFolder, client: &Client, control_plane: &str) -> anyhow::Result<Relay> {
    let identity_dir = folder.relay();
    std::fs::create_dir_all(&identity_dir)?;
    let enrol_token = if Credentials::load(&identity_dir)?.is_some() {
        None
    } else {
        let target = Target::RelayUnit(sites::ROOT.to_owned());
        let request = CreateEnrolTokenRequest {
            target: Some(target),
            valid_s: 600,
        };
        let response = client.directory().create_enrol_token(request).await?.into_inner();
        Some(response.token.parse()?)
    };
    let config = RelayConfig {
        http_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_tls: HttpTls::LOCAL,
        control_plane: vec![control_plane.to_owned()],
        identity_dir,
        enrol_token,
        ..RelayConfig::default()
    };
    Relay::start(config).await
}

/// One line that says what to do, where the cause is a known one.
fn explain(error: &anyhow::Error, folder: &DataFolder) -> Failure {
    let full = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::StorageFull)
            || cause.to_string().contains("database or disk is full")
    });
    if full {
        disk_full(folder.path())
    } else {
        Failure::Refused(format!("{error:#}"))
    }
}
