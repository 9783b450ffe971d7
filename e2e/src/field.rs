//! A small field: a control plane, a relay and some agents, each a process of its own, set up as an engineer
//! would, with the operator's command.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use muster_proto::command::v1::meeting_service_client::MeetingServiceClient;
use muster_proto::command::v1::session_service_client::SessionServiceClient;
use muster_proto::command::v1::{BroadcastSiteRequest, JoinAsDeskRequest, JoinTicket, SignInRequest};
use serde_json::Value;
use tempfile::TempDir;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::program::{Running, command, run};

const ACCOUNT: &str = "duty";
const PASSWORD: &str = "correct horse battery staple";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

pub struct Field {
    folder: TempDir,
    console_port: u16,
    agents_port: u16,
    control_plane: Option<Running>,
    relay: Option<Running>,
    agents: BTreeMap<String, Running>,
}

impl Field {
    /// All started, the tree imported, every agent online.
    pub fn start(sites: &[&str]) -> Result<Self> {
        let (console_port, agents_port) = free_ports()?;
        let folder = TempDir::with_prefix("muster-e2e-")?;
        let mut field = Self {
            folder,
            console_port,
            agents_port,
            control_plane: None,
            relay: None,
            agents: BTreeMap::new(),
        };
        field.start_control_plane()?;
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/eastlake.csv");
        field.muster(&["site", "import", tree])?;
        field.start_relay()?;
        for site in sites {
            field.start_agent(site)?;
        }
        until("all agents are online", Duration::from_secs(30), || {
            let online = field.muster(&["site", "list", "--online"])?;
            let online = online.as_array().context("a list of sites")?;
            Ok(sites
                .iter()
                .all(|site| online.iter().any(|entry| entry["id"] == **site)))
        })?;
        Ok(field)
    }

    pub fn start_control_plane(&mut self) -> Result<()> {
        let mut command = command("muster-control-plane")?;
        command
            .arg("--plain")
            .args(["--listen", &format!("127.0.0.1:{}", self.console_port)])
            .args(["--agents-listen", &format!("127.0.0.1:{}", self.agents_port)])
            .arg("--data-dir")
            .arg(self.path("control-plane"))
            .args(["--bootstrap-account", ACCOUNT, "--bootstrap-unit", "WH"])
            .env("MUSTER_BOOTSTRAP_PASSWORD", PASSWORD);
        self.control_plane = Some(self.spawn(command, "control-plane")?);
        until("the control plane answers", Duration::from_secs(20), || {
            Ok(self.muster(&["status"]).is_ok())
        })
    }

    /// As a power cut would.
    pub fn kill_control_plane(&mut self) {
        if let Some(mut control_plane) = self.control_plane.take() {
            control_plane.kill_now();
        }
    }

    fn start_relay(&mut self) -> Result<()> {
        let token = self.muster(&["relay", "enrol-token", "WH"])?;
        let mut command = command("muster-sfu")?;
        command
            .args([
                "--plain",
                "--http-listen",
                "127.0.0.1:0",
                "--control-plane",
                &self.agents_address(),
            ])
            .arg("--identity-dir")
            .arg(self.path("relay"))
            .env("MUSTER_ENROL_TOKEN", token["token"].as_str().context("a token")?);
        self.relay = Some(self.spawn(command, "relay")?);
        Ok(())
    }

    /// Enrols at the first start; later starts use the certificate of the first.
    pub fn start_agent(&mut self, site: &str) -> Result<()> {
        let identity = self.path(&format!("agent-{site}"));
        let mut command = command("muster-edge")?;
        command.args([
            "--control-plane",
            &self.agents_address(),
            "--source",
            "testcard:180p5",
        ]);
        command.arg("--identity").arg(&identity);
        if !identity.exists() {
            let token = self.muster(&["site", "enrol-token", site])?;
            command.env("MUSTER_ENROL_TOKEN", token["token"].as_str().context("a token")?);
        }
        let running = self.spawn(command, &format!("agent-{site}"))?;
        self.agents.insert(site.to_owned(), running);
        Ok(())
    }

    pub fn kill_agent(&mut self, site: &str) -> Result<()> {
        self.agents
            .remove(site)
            .with_context(|| format!("no agent of {site} runs"))?
            .kill_now();
        Ok(())
    }

    fn spawn(&self, mut command: Command, name: &str) -> Result<Running> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))?;
        Running::spawn(command.stdout(log.try_clone()?).stderr(log))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.console_port)
    }

    fn agents_address(&self) -> String {
        format!("127.0.0.1:{}", self.agents_port)
    }

    /// Runs the operator's command; gives its JSON.
    pub fn muster(&self, words: &[&str]) -> Result<Value> {
        let (code, json) = self.muster_with_code(words)?;
        ensure!(code == Some(0), "muster {words:?} ended with {code:?}: {json}");
        Ok(json)
    }

    /// The exit code, and the JSON (or null).
    pub fn muster_with_code(&self, words: &[&str]) -> Result<(Option<i32>, Value)> {
        let mut command = command("muster")?;
        command
            .args(words)
            .args(["--server", &self.url(), "--account", ACCOUNT, "-o", "json"]);
        let output = run(command.env("MUSTER_PASSWORD", PASSWORD), COMMAND_LIMIT)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let json = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        Ok((
            output.status.code(),
            json.unwrap_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned().into()),
        ))
    }

    /// A ticket for a desk in the meeting, as the console gets one.
    pub async fn desk_ticket(&self, meeting: &str) -> Result<JoinTicket> {
        let (mut meetings, bearer) = self.console().await?;
        let mut request = tonic::Request::new(JoinAsDeskRequest {
            meeting: meeting.to_owned(),
            ..Default::default()
        });
        request.metadata_mut().insert("authorization", bearer);
        let response = meetings.join_as_desk(request).await?.into_inner();
        response.ticket.context("the answer has no ticket")
    }

    /// Brings a site to the large picture for all, as the console does.
    pub async fn broadcast(&self, meeting: &str, site: &str) -> Result<()> {
        let (mut meetings, bearer) = self.console().await?;
        let mut request = tonic::Request::new(BroadcastSiteRequest {
            meeting: meeting.to_owned(),
            site: site.to_owned(),
        });
        request.metadata_mut().insert("authorization", bearer);
        meetings.broadcast_site(request).await?;
        Ok(())
    }

    async fn console(&self) -> Result<(MeetingServiceClient<Channel>, MetadataValue<Ascii>)> {
        let channel = tonic::transport::Endpoint::from_shared(self.url())?
            .connect()
            .await?;
        let request = SignInRequest {
            account: ACCOUNT.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let session = SessionServiceClient::new(channel.clone())
            .sign_in(request)
            .await?
            .into_inner();
        Ok((
            MeetingServiceClient::new(channel),
            format!("Bearer {}", session.session_token).parse()?,
        ))
    }

    /// Shown when a test fails.
    pub fn logs(&self) -> String {
        logs_in(self.folder.path())
    }
}

/// The ends of all logs in a folder.
pub(crate) fn logs_in(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return String::new();
    };
    let logs = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"));
    logs.map(|path| format!("== {}\n{}\n", path.display(), last_lines(&path)))
        .collect()
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Two ports that nothing listens on. Nobody else takes them before we do, as such tests run alone.
fn free_ports() -> Result<(u16, u16)> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}

/// Polls until the condition holds.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The summons of a site in what `muster status MEETING -o json` says.
pub fn summons<'a>(meeting: &'a Value, site: &str) -> Result<&'a Value> {
    let summonses = meeting["summonses"].as_array().context("a list of summonses")?;
    summonses
        .iter()
        .find(|summons| summons["site"] == site)
        .with_context(|| format!("no summons of {site}"))
}
