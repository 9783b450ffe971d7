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
use crate::tiers::{CITY, DISTRICT, STREET, Tier, Tiers};

const ACCOUNT: &str = "duty";
const PASSWORD: &str = "correct horse battery staple";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// First UDP port of a relay that is alone on its machine; the next is for links.
const RELAY_PORT: u16 = 40_000;

pub struct Field {
    folder: TempDir,
    /// The machines that it is spread over; none: all of it is on loopback.
    tiers: Option<Tiers>,
    console_port: u16,
    agents_port: u16,
    control_plane: Option<Running>,
    relays: Vec<Running>,
    agents: BTreeMap<String, Running>,
}

impl Field {
    /// All started, the tree imported, every agent online.
    pub fn start(sites: &[&str]) -> Result<Self> {
        let mut field = Self::bare(None)?;
        field.start_relay()?;
        for site in sites {
            field.start_agent(site)?;
        }
        field.until_online(sites)?;
        Ok(field)
    }

    /// The same over three machines: a relay at each, joined by uplinks, and agents at the lower two.
    pub fn start_tiers(sites: &[(Tier, &str)]) -> Result<Self> {
        let mut field = Self::bare(Some(Tiers::start()?))?;
        for (tier, unit, ip, uplink) in [
            (Tier::City, "WH", CITY, None),
            (Tier::District, "WH-EL", DISTRICT, Some(CITY)),
            (Tier::Street, "WH-EL-01", STREET, Some(DISTRICT)),
        ] {
            field.start_relay_at(tier, unit, ip, uplink)?;
        }
        for (tier, site) in sites {
            field.start_led_agent(*tier, site)?;
        }
        let sites: Vec<&str> = sites.iter().map(|(_, site)| *site).collect();
        field.until_online(&sites)?;
        Ok(field)
    }

    /// The control plane alone, with the tree.
    fn bare(tiers: Option<Tiers>) -> Result<Self> {
        let (console_port, agents_port) = free_ports()?;
        let folder = TempDir::with_prefix("muster-e2e-")?;
        let mut field = Self {
            folder,
            tiers,
            console_port,
            agents_port,
            control_plane: None,
            relays: Vec::new(),
            agents: BTreeMap::new(),
        };
        field.start_control_plane()?;
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/eastlake.csv");
        field.muster(&["site", "import", tree])?;
        Ok(field)
    }

    /// The machines that it is spread over.
    pub fn tiers(&self) -> Result<&Tiers> {
        self.tiers.as_ref().context("all of it is on one machine")
    }

    fn until_online(&self, sites: &[&str]) -> Result<()> {
        until("all agents are online", Duration::from_secs(30), || {
            let online = self.muster(&["site", "list", "--online"])?;
            let online = online.as_array().context("a list of sites")?;
            Ok(sites
                .iter()
                .all(|site| online.iter().any(|entry| entry["id"] == **site)))
        })
    }

    pub fn start_control_plane(&mut self) -> Result<()> {
        let mut command = command("muster-control-plane")?;
        command
            .arg("--plain")
            .args(["--listen", &format!("127.0.0.1:{}", self.console_port)])
            .args(["--agents-listen", &self.agents_address()])
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
        let relay = self.spawn(command, "relay")?;
        self.relays.push(relay);
        Ok(())
    }

    /// The relay of a unit, at this tier.
    fn start_relay_at(&mut self, tier: Tier, unit: &str, ip: &str, uplink: Option<&str>) -> Result<()> {
        let token = self.muster(&["relay", "enrol-token", unit])?;
        let mut command = self.tiers()?.command(tier, "muster-sfu")?;
        command
            .args(["--plain", "--insecure-plain-anywhere", "--workers", "1"])
            .args(["--http-listen", &format!("{ip}:8081"), "--media-ip", ip])
            .args(["--media-port-base", &RELAY_PORT.to_string()])
            .args(["--control-plane", &self.agents_address()])
            .arg("--identity-dir")
            .arg(self.path(&format!("relay-{unit}")))
            .env("MUSTER_ENROL_TOKEN", token["token"].as_str().context("a token")?);
        if let Some(above) = uplink {
            command.args(["--uplink", &format!("{above}:{}", RELAY_PORT + 1)]);
        }
        let relay = self.spawn(command, &format!("relay-{unit}"))?;
        self.relays.push(relay);
        Ok(())
    }

    /// Enrols at the first start; later starts use the certificate of the first.
    pub fn start_agent(&mut self, site: &str) -> Result<()> {
        self.start_agent_by(command("muster-edge")?, site)
    }

    /// The same, at this tier, and again until it is led to the tier's own relay: the control plane must have heard that
    /// the relays are joined.
    fn start_led_agent(&mut self, tier: Tier, site: &str) -> Result<()> {
        let relay = format!("{}:", tier.address());
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let command = self.tiers()?.command(tier, "muster-edge")?;
            self.start_agent_by(command, site)?;
            until("the agent has a link", Duration::from_secs(20), || {
                let status = self.agent_status(site);
                Ok(status.is_ok_and(|status| status["relay"].is_string()))
            })?;
            let led = self.agent_status(site)?["relay"].clone();
            if led.as_str().is_some_and(|led| led.starts_with(&relay)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{site} is led to {led}, expected {relay}"
            );
            self.kill_agent(site)?;
            std::fs::remove_file(self.status_path(site))?;
        }
    }

    fn start_agent_by(&mut self, mut command: Command, site: &str) -> Result<()> {
        let identity = self.path(&format!("agent-{site}"));
        command.args([
            "--control-plane",
            &self.agents_address(),
            "--source",
            "testcard:180p5",
        ]);
        command.arg("--identity").arg(&identity);
        command.arg("--status").arg(self.status_path(site));
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

    /// What the site's agent says of itself.
    pub fn agent_status(&self, site: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.status_path(site))?)?)
    }

    fn status_path(&self, site: &str) -> PathBuf {
        self.path(&format!("agent-{site}.json"))
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
        let host = self.tiers.as_ref().map_or("127.0.0.1", |_| CITY);
        format!("{host}:{}", self.agents_port)
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
