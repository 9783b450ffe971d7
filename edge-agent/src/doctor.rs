//! `muster-edge doctor`: looks at everything that an agent needs, one after the other, and says in plain words what is
//! wrong and what to do about it.
//!
//! It uses what the agent uses: its settings, its certificate, its way to the control plane, its interfaces, its link and its
//! camera. What it cannot look at, it names with the reason: no check is passed over in silence.
//! It answers no call and joins no meeting. While it asks the control plane, for a moment, the site counts as online. No
//! finding holds a password.

mod page;

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_identity::{Credentials, Identity};
use muster_link::{Dial, EdgeLink, LinkError, Ways};
use muster_proto::command::v1::endpoint_service_client::EndpointServiceClient;
use muster_proto::command::v1::{AttachRequest, Attached, attach_response};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::config::{Config, Source};
use crate::publisher::{capture, rtsp};

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A clock that is off by more is wrong, milliseconds.
const CLOCK_OFF_MS: i64 = 1000;
const DAY_S: i64 = 86_400;
/// The network interfaces that this process sees.
const INTERFACES: &str = "/proc/self/net/dev";

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `certificate`, `names`, `uplink`, `control_plane`, `clock`, `udp`, `tcp` or `camera`.
    pub check: &'static str,
    /// It is well. Not so of what was not looked at.
    pub ok: bool,
    /// It was not looked at: what it needs is wrong itself.
    pub skipped: bool,
    pub says: String,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    pub checks: Vec<Finding>,
}

impl Report {
    /// A line for each finding.
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        for one in &self.checks {
            let mark = match (one.ok, one.skipped) {
                (true, _) => "ok   ",
                (false, false) => "WRONG",
                (false, true) => "--   ",
            };
            let _ = writeln!(text, "{mark}  {:<14} {}", one.check, one.says);
        }
        text
    }

    fn add(&mut self, check: &'static str, found: Result<String, String>) {
        let ok = found.is_ok();
        self.ok &= ok;
        let says = found.unwrap_or_else(|why| why);
        self.checks.push(Finding {
            check,
            ok,
            skipped: false,
            says,
        });
    }

    /// Says of these that they were not looked at. What they need was found wrong before.
    fn skip(&mut self, checks: &[&'static str], because: &str) {
        self.checks.extend(checks.iter().map(|&check| Finding {
            check,
            ok: false,
            skipped: true,
            says: format!("not looked at, because {because}"),
        }));
    }
}

/// Looks at everything.
pub async fn examine(config: &Config) -> Report {
    let mut report = Report {
        ok: true,
        checks: Vec::new(),
    };
    let credentials = look_at_certificate(config, &mut report);
    report.add("names", look_up(&config.control_plane).await);
    if !config.uplinks.is_empty() {
        look_at_interfaces(&config.uplinks, &mut report);
    }
    match &credentials {
        Some(credentials) => look_at_network(config, credentials, &mut report).await,
        None => report.skip(
            &["control_plane", "clock", "udp", "tcp"],
            "there is no certificate that can be used",
        ),
    }
    report.add("camera", look_at_camera(config).await);
    report
}

fn look_at_certificate(config: &Config, report: &mut Report) -> Option<Credentials> {
    let folder = config.identity_dir.display();
    let found = match Credentials::load(&config.identity_dir) {
        Ok(Some(credentials)) => judge(&credentials).map(|says| (says, credentials)),
        Ok(None) => Err(format!(
            "{folder} holds none: ask an engineer for the site's token and start the agent once with MUSTER_ENROL_TOKEN=met1..."
        )),
        Err(error) => Err(format!("{folder}: {error}")),
    };
    let (says, credentials) = match found {
        Ok((says, credentials)) => (Ok(says), Some(credentials)),
        Err(why) => (Err(why), None),
    };
    report.add("certificate", says);
    credentials
}

fn judge(credentials: &Credentials) -> Result<String, String> {
    let Identity::Agent(site) = &credentials.identity else {
        return Err(format!(
            "it is of {}, expected one of an agent",
            credentials.identity
        ));
    };
    let certificate = credentials
        .live_certificate()
        .map_err(|error| error.to_string())?;
    let days = (certificate.ends_s() - now_ms() / 1000).div_euclid(DAY_S);
    if days < 0 {
        return Err(format!(
            "it ran out {} days ago, or the clock is wrong: take a new token, remove the folder and enrol again",
            -days
        ));
    }
    Ok(format!("of site {site}, good for {days} more days"))
}

/// Finds the addresses of the control plane's names.
async fn look_up(addresses: &[String]) -> Result<String, String> {
    let mut found = Vec::new();
    for address in addresses {
        match timeout(PATIENCE, tokio::net::lookup_host(address)).await {
            Ok(Ok(mut resolved)) => match resolved.next() {
                Some(first) => found.push(format!("{address} is {}", first.ip())),
                None => return Err(format!("{address} has no address")),
            },
            Ok(Err(error)) => {
                return Err(format!(
                    "{address} is not found: {error}; look at the box's DNS server"
                ));
            }
            Err(_) => return Err(format!("{address}: the DNS server does not answer within 5 s")),
        }
    }
    Ok(found.join(", "))
}

/// The interfaces that the link is to go over.
fn look_at_interfaces(named: &[String], report: &mut Report) {
    let table = match std::fs::read_to_string(INTERFACES) {
        Ok(table) => table,
        Err(error) => {
            return report.add("uplink", Err(format!("{INTERFACES} cannot be read: {error}")));
        }
    };
    let there = interfaces(&table);
    for name in named {
        report.add("uplink", judge_interface(name, &there));
    }
}

/// Their names, in the kernel's table of them: a line for each below two of heading.
fn interfaces(table: &str) -> Vec<&str> {
    let lines = table.lines().skip(2);
    lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, _)| name.trim())
        .collect()
}

fn judge_interface(name: &str, there: &[&str]) -> Result<String, String> {
    if there.contains(&name) {
        return Ok(format!("{name} is there"));
    }
    Err(format!(
        "this box has no network interface {name}: it has {}; look at --uplink, the cable or the modem",
        there.join(", ")
    ))
}

async fn look_at_network(config: &Config, credentials: &Credentials, report: &mut Report) {
    let mut attached = None;
    for address in &config.control_plane {
        let asked = ask(address, credentials).await;
        if let Ok(greeting) = &asked {
            attached = Some(greeting.clone());
        }
        report.add(
            "control_plane",
            asked.map(|_| format!("{address} answers and takes the certificate")),
        );
    }
    let Some((attached, took)) = attached else {
        return report.skip(&["clock", "udp", "tcp"], "no control plane has answered");
    };
    report.add("clock", judge_clock(&attached, took));
    look_at_link(&attached.relay_link, &config.uplinks, credentials, report).await;
}

/// The ways to the relay: UDP, and TCP, which the link falls back to.
async fn look_at_link(relay: &str, interfaces: &[String], credentials: &Credentials, report: &mut Report) {
    if relay.is_empty() {
        let none = "the control plane has no relay online to try it with";
        report.add("udp", Err(none.into()));
        return report.skip(&["tcp"], none);
    }
    let (udp, tcp) = tokio::join!(
        look_by(Ways::UdpAlone, relay, interfaces, credentials),
        look_by(Ways::TcpAlone, relay, interfaces, credentials)
    );
    let by_udp = udp.is_ok();
    report.add("udp", judge_udp(relay, udp, tcp.is_ok()));
    report.add("tcp", judge_tcp(relay, tcp, by_udp));
}

/// How long a link by this way takes, over the interfaces that the agent would take.
async fn look_by(
    ways: Ways,
    relay: &str,
    interfaces: &[String],
    credentials: &Credentials,
) -> Result<Duration, LinkError> {
    let asked = Instant::now();
    let dial = Dial {
        ways,
        interfaces: interfaces.to_vec(),
        ..Dial::default()
    };
    let link = EdgeLink::dial(relay, credentials, dial).await?;
    link.sender.close("the doctor has seen enough");
    Ok(asked.elapsed())
}

/// What the control plane says first, and how long that took.
async fn ask(address: &str, credentials: &Credentials) -> Result<(Attached, Duration), String> {
    match timeout(PATIENCE, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            return Err(format!(
                "{address} cannot be reached by TCP: {error}; look at the address, the network and firewalls"
            ));
        }
        Err(_) => {
            return Err(format!(
                "{address} does not answer by TCP within 5 s; look at the network and firewalls"
            ));
        }
    }
    let greet = async {
        let channel = muster_identity::connect(address, credentials)
            .await
            .map_err(|error| error.to_string())?;
        let mut client = EndpointServiceClient::new(channel);
        let request = AttachRequest {
            endpoint: "agent".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let asked = Instant::now();
        let refused = |status: tonic::Status| format!("{address}: {}", why(&status));
        let mut stream = client.attach(request).await.map_err(refused)?.into_inner();
        let first = stream.message().await.map_err(refused)?;
        match first.and_then(|message| message.event) {
            Some(attach_response::Event::Attached(attached)) => Ok((attached, asked.elapsed())),
            _ => Err(format!(
                "{address} says something unexpected: is it the control plane's port for agents?"
            )),
        }
    };
    let late = |_| {
        Err(format!(
            "{address} takes the connection and says nothing within 5 s"
        ))
    };
    timeout(PATIENCE, greet).await.unwrap_or_else(late)
}

/// A refusal in plain words; that of TLS is deep in its sources.
fn why(status: &tonic::Status) -> String {
    let mut told = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let _ = write!(told, ": {error}");
        source = error.source();
    }
    let has = |words: &[&str]| words.iter().any(|word| told.contains(word));
    if has(&["UnknownIssuer", "UnknownCA", "BadSignature", "DecryptError"]) {
        return format!(
            "certificates of different authorities: the box is enrolled with another control plane ({told})"
        );
    }
    if has(&["Expired", "NotValidYet"]) {
        return format!(
            "a certificate has run out or is not valid yet: look at the clock, then enrol again ({told})"
        );
    }
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
            format!("it does not take the certificate: {told}; enrol again with a new token")
        }
        tonic::Code::NotFound | tonic::Code::InvalidArgument => format!("it does not know the site: {told}"),
        _ => told,
    }
}

fn judge_clock(attached: &Attached, took: Duration) -> Result<String, String> {
    // The answer was written somewhere on its way.
    let half = i64::try_from(took.as_millis() / 2).unwrap_or(i64::MAX);
    let off = now_ms()
        .saturating_sub(half)
        .saturating_sub(attached.server_time_ms);
    if off.unsigned_abs() <= CLOCK_OFF_MS.unsigned_abs() {
        return Ok(format!("{off} ms from the control plane's"));
    }
    let direction = if off > 0 { "ahead of" } else { "behind" };
    let seconds = off.unsigned_abs() / 1000;
    Err(format!(
        "{seconds} s {direction} the control plane's: set it, and keep it by NTP (timedatectl set-ntp true)"
    ))
}

fn judge_udp(relay: &str, udp: Result<Duration, LinkError>, by_tcp: bool) -> Result<String, String> {
    let falls_back = if by_tcp {
        "; links fall back to TCP, which works, but each connects 3 s later and a bad line is felt more"
    } else {
        ""
    };
    match udp {
        Ok(took) => Ok(format!(
            "the relay {relay} answers, linked in {} ms",
            took.as_millis()
        )),
        Err(error) if is_silence(&error) && by_tcp => Err(format!(
            "no answer from the relay {relay}: UDP to this port is blocked on the way{falls_back}"
        )),
        Err(error) if is_silence(&error) => Err(format!(
            "no answer from the relay {relay}: UDP to this port is blocked on the way, or the relay is away"
        )),
        Err(error) => Err(format!("the relay {relay}: {error}{falls_back}")),
    }
}

fn judge_tcp(relay: &str, tcp: Result<Duration, LinkError>, by_udp: bool) -> Result<String, String> {
    match tcp {
        Ok(took) => {
            let use_of_it = if by_udp {
                "not needed while UDP works"
            } else {
                "the link goes this way"
            };
            let took = took.as_millis();
            Ok(format!(
                "the relay {relay} answers by TLS over TCP too, linked in {took} ms: {use_of_it}"
            ))
        }
        Err(error) if by_udp => Ok(format!(
            "not needed: UDP works. Were it blocked, the link could not fall back to TCP ({error})"
        )),
        Err(error) => Err(format!(
            "the link cannot fall back to TCP either, to {relay}: {error}; open UDP or TCP to this port"
        )),
    }
}

async fn look_at_camera(config: &Config) -> Result<String, String> {
    let source = &config.source;
    match source {
        Source::Page => page::look(config.page).await,
        Source::TestCard(_) => Ok(format!("none: {source} is published")),
        Source::Rtsp(streams) => {
            for address in streams {
                rtsp::look(address).await.map_err(|(fault, detail)| {
                    let detail = if detail.is_empty() {
                        detail
                    } else {
                        format!(" ({detail})")
                    };
                    format!("{address}: {}{detail}", fault.in_words())
                })?;
            }
            Ok(format!("{source} sends H.264 in {} streams", streams.len()))
        }
        Source::Capture(capture) => capture::look(capture)
            .await
            .map(|()| format!("{source} sends pictures"))
            .map_err(|(fault, detail)| format!("{source}: {} ({detail})", fault.in_words())),
    }
}

/// Nothing came back, as against a refusal.
fn is_silence(error: &LinkError) -> bool {
    match error {
        LinkError::Timeout(_) => true,
        LinkError::Lost(lost) => lost.to_string().contains("timed out"),
        _ => false,
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_says_by_how_much_and_which_way() {
        let attached = |off: i64| Attached {
            server_time_ms: now_ms() - off,
            ..Attached::default()
        };
        let took = Duration::from_millis(20);
        assert!(judge_clock(&attached(300), took).is_ok());
        let ahead = judge_clock(&attached(90_500), took).expect_err("wrong");
        assert!(ahead.starts_with("90 s ahead of"), "{ahead}");
        let behind = judge_clock(&attached(-3_600_000), took).expect_err("wrong");
        assert!(
            behind.starts_with("3600 s behind") || behind.starts_with("3599 s behind"),
            "{behind}"
        );
    }

    #[test]
    fn what_is_wrong_stands_in_its_line() {
        let mut report = Report {
            ok: true,
            checks: Vec::new(),
        };
        report.add("names", Ok("cp is 10.0.0.5".into()));
        report.add("udp", Err("blocked".into()));
        report.skip(&["tcp"], "it rains");
        assert!(!report.ok);
        assert_eq!(
            report.in_words(),
            "ok     names          cp is 10.0.0.5\nWRONG  udp            blocked\n--     tcp            not looked at, because it rains\n"
        );
    }

    #[test]
    fn an_interface_that_is_not_there_is_named_beside_those_that_are() {
        let table = "Inter-|   Receive   |  Transmit\n face |bytes packets|bytes packets\n\
                     \x20   lo:  100  1  100  1\n  eth0: 5 1 5 1\neth0:1: 5 1 5 1\n";
        let there = interfaces(table);
        assert_eq!(there, ["lo", "eth0", "eth0:1"]);
        assert!(judge_interface("eth0", &there).is_ok());
        let why = judge_interface("wwan0", &there).expect_err("none");
        assert!(
            why.contains("no network interface wwan0: it has lo, eth0, eth0:1"),
            "{why}"
        );
    }
}
