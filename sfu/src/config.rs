//! Configuration of a relay: flags, then environment (`MUSTER_*`), then one TOML file, then defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use muster_identity::{EnrolToken, PairFiles};
use serde::Deserialize;

use crate::dev::DevToken;
use crate::ice_servers::IceServer;

/// Everything that a relay must be told.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// HTTP and gRPC-web for browsers. Port 0: any.
    pub http_listen: SocketAddr,
    /// What the HTTP port speaks.
    pub http_tls: HttpTls,
    /// Further DNS names and addresses for the relay's certificate.
    pub tls_names: Vec<String>,
    /// Base of the relay's address as browsers reach it (`https://relay.example`), told to the control plane; by default
    /// `https://ANNOUNCE_IP:PORT`.
    pub http_url: Option<String>,
    /// Address that the media ports are bound to.
    pub media_ip: IpAddr,
    /// Address that browsers and agents reach the media ports at; by default `media_ip`.
    pub announce_ip: Option<IpAddr>,
    /// First of two UDP ports a worker (browsers, then links); by default any.
    pub media_port_base: Option<u16>,
    /// Threads that carry media; 0: one a core.
    pub workers: usize,
    /// `HOST:PORT` of the control plane's port for relays, of each replica; none: the relay serves alone.
    pub control_plane: Vec<String>,
    /// `HOST:PORT` of a link port of the relay above (see [`crate::Relay::link_addrs`]); none: this is the uppermost.
    pub uplink: Option<String>,
    /// Certificate, key and CA of this relay.
    pub identity_dir: PathBuf,
    /// Used once, while `identity_dir` is empty.
    pub enrol_token: Option<EnrolToken>,
    /// Legs that the relay takes; more are refused.
    pub max_legs: usize,
    /// TCP port for media, for browsers whose firewall drops UDP; none by default.
    pub tcp_listen: Option<SocketAddr>,
    /// Takes links over TCP too, on the numbers of the link ports, for agents and relays whose UDP is blocked.
    pub link_tcp: bool,
    /// STUN and TURN servers that clients are told of.
    pub ice_servers: Vec<IceServer>,
    /// Development mode: alone, without identity, WHIP and WHEP for whoever has the token.
    pub dev: Option<DevToken>,
}

/// What the HTTP port speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpTls {
    /// HTTP without TLS; refused on an address that is not loopback, unless `anywhere`.
    Plain { anywhere: bool },
    /// TLS with the certificate of the relay's identity.
    Own,
    /// TLS with these files, taken up again when they change.
    Files(PairFiles),
}

impl HttpTls {
    /// Plain HTTP on loopback, for tests and `muster demo`.
    pub const LOCAL: Self = Self::Plain { anywhere: false };
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            http_listen: (Ipv4Addr::LOCALHOST, 8081).into(),
            http_tls: HttpTls::Own,
            tls_names: Vec::new(),
            http_url: None,
            media_ip: Ipv4Addr::LOCALHOST.into(),
            announce_ip: None,
            media_port_base: None,
            workers: 0,
            control_plane: Vec::new(),
            uplink: None,
            identity_dir: PathBuf::from("./data/relay"),
            enrol_token: None,
            max_legs: 2000,
            tcp_listen: None,
            link_tcp: true,
            ice_servers: Vec::new(),
            dev: None,
        }
    }
}

/// The relay of Muster: takes browsers (WebRTC) and edge agents (QUIC links) into meetings and forwards pictures
/// and sound between them, as the control plane's stage says.
///
/// First start: create an enrolment token for a relay in the control plane and give it with --enrol-token; the
/// certificate is then kept in --identity-dir and the token is not needed again.
///
///   muster-sfu --control-plane cp.example:8443 --enrol-token met1.… --announce-ip 203.0.113.7 \
///              --media-ip 0.0.0.0 --http-listen 0.0.0.0:8081
///
/// TLS: the HTTP port presents the relay's own certificate, for the host of --http-url (or the announced address) and each
/// --tls-name; browsers and commands trust it that trust the control plane's ca.pem (muster-control-plane --help says how).
/// A name of the control plane itself is not given to a relay: one on the same machine takes other names, or files by
/// --tls-cert and --tls-key (such as the control plane's DATA_DIR/tls/server.pem and server-key.pem). Files are taken up
/// within seconds of a change.
///
/// To try it alone, or with OBS, GStreamer and other WHIP clients (no control plane, no certificate; not for production):
///
///   muster-sfu --dev --token SECRET-OF-8-OR-MORE --listen 127.0.0.1:8081 --plain
///
///   publish: POST http://127.0.0.1:8081/whip/MEETING   view: POST http://127.0.0.1:8081/whep/MEETING
///   Without --plain it speaks https, by a CA of its own that --identity-dir keeps (dev-ca/ca.pem).
///   Both take `Authorization: Bearer TOKEN`. A meeting opens at its first use; its name has 1 to 64 of A-Z a-z 0-9 . _ -
///   The k-th video of a viewer shows the k-th publisher, in the order they came; its sound is that of the loudest.
///
/// Browsers reach POST /v1/legs and gRPC-web on --http-listen; GET /healthz and GET /metrics are there too.
/// Log level: MUSTER_LOG (for example info, muster_sfu=debug).
#[derive(Parser)]
#[command(name = "muster-sfu", version, verbatim_doc_comment)]
pub struct Flags {
    /// TOML file with the same names as these flags (`http_listen = "0.0.0.0:8081"`); flags and environment win over it
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

/// What may stand in a flag, in the environment and in the file.
#[derive(Default, Clone, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address and port for browsers' HTTP [default: 127.0.0.1:8081]
    #[arg(
        long,
        visible_alias = "listen",
        env = "MUSTER_RELAY_HTTP_LISTEN",
        value_name = "IP:PORT"
    )]
    pub http_listen: Option<SocketAddr>,
    /// The relay's base address as browsers reach it [default: https://ANNOUNCE_IP:PORT]
    #[arg(long, env = "MUSTER_RELAY_HTTP_URL", value_name = "URL")]
    pub http_url: Option<String>,
    /// A further DNS name or address for the relay's certificate; may be given several times
    #[arg(
        long = "tls-name",
        env = "MUSTER_RELAY_TLS_NAMES",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    #[serde(default)]
    pub tls_names: Vec<String>,
    /// PEM file of a certificate for the HTTP port and those above it, in place of the relay's own
    #[arg(long, env = "MUSTER_RELAY_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of that certificate's key
    #[arg(long, env = "MUSTER_RELAY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Plain HTTP, without TLS: for development, on loopback alone
    #[arg(long, env = "MUSTER_RELAY_PLAIN", num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    pub plain: Option<bool>,
    /// With --plain: on any address; tokens can then be read on the network
    #[arg(long, env = "MUSTER_RELAY_INSECURE_PLAIN_ANYWHERE", num_args = 0..=1, default_missing_value = "true",
        value_name = "true|false")]
    pub insecure_plain_anywhere: Option<bool>,
    /// Address to bind the media ports to [default: 127.0.0.1; with --dev that of --listen]
    #[arg(long, env = "MUSTER_RELAY_MEDIA_IP", value_name = "IP")]
    pub media_ip: Option<IpAddr>,
    /// Address at which browsers and agents reach the media ports [default: the media IP]
    #[arg(long, env = "MUSTER_RELAY_ANNOUNCE_IP", value_name = "IP")]
    pub announce_ip: Option<IpAddr>,
    /// First UDP port; each worker takes two (browsers, links) [default: any]
    #[arg(long, env = "MUSTER_RELAY_MEDIA_PORT_BASE", value_name = "PORT")]
    pub media_port_base: Option<u16>,
    /// Threads that carry media [default: one a core]
    #[arg(long, env = "MUSTER_RELAY_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
    /// The control plane's port for agents and relays; of several replicas, more of them, by comma or one flag each
    /// [default: none, the relay serves alone]
    #[arg(
        long,
        env = "MUSTER_CONTROL_PLANE",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    #[serde(default, deserialize_with = "one_or_more")]
    pub control_plane: Vec<String>,
    /// A link port of the relay above (the second UDP port of one of its workers): meetings with sites at both are joined
    /// [default: none, this relay is the uppermost]
    #[arg(long, env = "MUSTER_RELAY_UPLINK", value_name = "HOST:PORT")]
    pub uplink: Option<String>,
    /// Folder of the relay's certificate [default: ./data/relay]
    #[arg(long, env = "MUSTER_RELAY_IDENTITY_DIR", value_name = "FOLDER")]
    pub identity_dir: Option<PathBuf>,
    /// One-time token that makes this machine a relay
    #[arg(
        long,
        env = "MUSTER_ENROL_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub enrol_token: Option<String>,
    /// Legs that the relay takes [default: 2000]
    #[arg(long, env = "MUSTER_RELAY_MAX_LEGS", value_name = "N")]
    pub max_legs: Option<usize>,
    /// Takes media over TCP too (ICE-TCP), for browsers whose firewall drops UDP [default: off]
    #[arg(long, env = "MUSTER_RELAY_TCP_LISTEN", value_name = "IP:PORT")]
    pub tcp_listen: Option<SocketAddr>,
    /// Takes links over TCP too (TLS), on the numbers of the link ports, for agents and relays whose UDP is blocked
    /// [default: true]
    #[arg(long, env = "MUSTER_RELAY_LINK_TCP", num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    pub link_tcp: Option<bool>,
    /// A STUN or TURN server that clients are told of (Link header, RFC 9725): stun:HOST:PORT or
    /// turn:HOST:PORT?transport=udp,username=NAME,credential=SECRET; may be given several times
    #[arg(long, value_name = "SERVER")]
    #[serde(default)]
    pub ice_server: Vec<String>,
    /// Development mode, not for production: no control plane, WHIP and WHEP for whoever has --token
    #[arg(long, env = "MUSTER_RELAY_DEV", num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    pub dev: Option<bool>,
    /// The bearer token of development mode, 8 characters or more
    #[arg(
        long,
        env = "MUSTER_RELAY_DEV_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
}

impl Flags {
    /// Joins flags, environment, file and defaults.
    ///
    /// # Errors
    /// An unreadable file, an unknown name in it, or a value that is none.
    pub fn into_config(self) -> anyhow::Result<RelayConfig> {
        let file = self
            .config
            .as_deref()
            .map(read_file)
            .transpose()?
            .unwrap_or_default();
        self.settings.or(file).into_config()
    }
}

/// A text (with commas, if need be), or a list of texts.
fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told {
        One(String),
        More(Vec<String>),
    }
    Ok(match Told::deserialize(from)? {
        Told::One(text) => text.split(',').map(str::to_owned).collect(),
        Told::More(list) => list,
    })
}

fn read_file(path: &Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in {}", path.display()))
}

impl Settings {
    fn or(self, file: Self) -> Self {
        Self {
            http_listen: self.http_listen.or(file.http_listen),
            http_url: self.http_url.or(file.http_url),
            tls_names: if self.tls_names.is_empty() {
                file.tls_names
            } else {
                self.tls_names
            },
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            plain: self.plain.or(file.plain),
            insecure_plain_anywhere: self.insecure_plain_anywhere.or(file.insecure_plain_anywhere),
            media_ip: self.media_ip.or(file.media_ip),
            announce_ip: self.announce_ip.or(file.announce_ip),
            media_port_base: self.media_port_base.or(file.media_port_base),
            workers: self.workers.or(file.workers),
            control_plane: if self.control_plane.is_empty() {
                file.control_plane
            } else {
                self.control_plane
            },
            uplink: self.uplink.or(file.uplink),
            identity_dir: self.identity_dir.or(file.identity_dir),
            enrol_token: self.enrol_token.or(file.enrol_token),
            max_legs: self.max_legs.or(file.max_legs),
            tcp_listen: self.tcp_listen.or(file.tcp_listen),
            link_tcp: self.link_tcp.or(file.link_tcp),
            ice_server: if self.ice_server.is_empty() {
                file.ice_server
            } else {
                self.ice_server
            },
            dev: self.dev.or(file.dev),
            token: self.token.or(file.token),
        }
    }

    fn into_config(self) -> anyhow::Result<RelayConfig> {
        let default = RelayConfig::default();
        let dev = self.dev_token()?;
        if dev.is_some() && self.uplink.is_some() {
            bail!("--dev serves alone: leave out --uplink, or --dev");
        }
        let http_tls = self.http_tls()?;
        let http_listen = self.http_listen.unwrap_or(default.http_listen);
        let media_ip = if dev.is_some() {
            http_listen.ip()
        } else {
            default.media_ip
        };
        let ice_servers = self.ice_server.iter().map(|text| {
            text.parse::<IceServer>()
                .with_context(|| format!("ice_server {}", text.split(',').next().unwrap_or_default()))
        });
        let ice_servers = ice_servers.collect::<anyhow::Result<_>>()?;
        let enrol_token = self
            .enrol_token
            .map(|text| {
                text.trim()
                    .parse::<EnrolToken>()
                    .context("enrol_token is not one, expected met1.….…")
            })
            .transpose()?;
        Ok(RelayConfig {
            http_listen,
            http_tls,
            tls_names: self.tls_names,
            http_url: self.http_url,
            media_ip: self.media_ip.unwrap_or(media_ip),
            announce_ip: self.announce_ip,
            media_port_base: self.media_port_base,
            workers: self.workers.unwrap_or(default.workers),
            control_plane: self
                .control_plane
                .iter()
                .map(|text| text.trim().to_owned())
                .collect(),
            uplink: self.uplink,
            identity_dir: self.identity_dir.unwrap_or(default.identity_dir),
            enrol_token,
            max_legs: self.max_legs.unwrap_or(default.max_legs),
            tcp_listen: self.tcp_listen,
            link_tcp: self.link_tcp.unwrap_or(default.link_tcp),
            ice_servers,
            dev,
        })
    }

    fn http_tls(&self) -> anyhow::Result<HttpTls> {
        let anywhere = self.insecure_plain_anywhere.unwrap_or(false);
        match (self.plain.unwrap_or(false), &self.tls_cert, &self.tls_key) {
            (true, None, None) => Ok(HttpTls::Plain { anywhere }),
            (true, ..) => bail!("--plain speaks no TLS: leave out --tls-cert and --tls-key, or --plain"),
            (false, ..) if anywhere => bail!("--insecure-plain-anywhere is for --plain"),
            (false, Some(cert), Some(key)) => Ok(HttpTls::Files(PairFiles {
                cert: cert.clone(),
                key: key.clone(),
            })),
            (false, None, None) => Ok(HttpTls::Own),
            _ => bail!("--tls-cert and --tls-key: expected both or neither"),
        }
    }

    fn dev_token(&self) -> anyhow::Result<Option<DevToken>> {
        let dev = self.dev.unwrap_or(false);
        match &self.token {
            Some(token) if dev => {
                if !self.control_plane.is_empty() || self.enrol_token.is_some() {
                    bail!(
                        "--dev serves without a control plane: leave out --control-plane and --enrol-token, or --dev"
                    );
                }
                Ok(Some(DevToken::new(token).context("--token")?))
            }
            None if dev => {
                bail!("--dev needs --token TOKEN: what publishers and viewers show, 8 characters or more")
            }
            Some(_) => bail!("--token is for --dev alone; a relay of a control plane takes its join tokens"),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("relay.toml");
        std::fs::write(&path, "workers = 3\nmax_legs = 7\n").expect("written");
        let path = path.to_str().expect("text");
        let flags = Flags::try_parse_from(["muster-sfu", "--config", path, "--workers", "5"]).expect("flags");
        let config = flags.into_config().expect("config");
        assert_eq!((config.workers, config.max_legs), (5, 7));
        assert_eq!(config.http_listen, RelayConfig::default().http_listen);
    }

    #[test]
    fn links_over_tcp_are_taken_unless_somebody_says_no() {
        assert!(config(&[]).expect("config").link_tcp);
        assert!(!config(&["--link-tcp", "false"]).expect("config").link_tcp);
    }

    fn config(flags: &[&str]) -> Result<RelayConfig, String> {
        let flags = [&["muster-sfu"], flags].concat();
        let flags = Flags::try_parse_from(flags).map_err(|error| error.to_string())?;
        flags.into_config().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn development_mode_needs_a_good_token_and_no_control_plane() {
        let dev = config(&["--dev", "--token", "12345678", "--listen", "10.1.2.3:9"]).expect("config");
        assert!(dev.dev.is_some());
        assert_eq!(dev.media_ip.to_string(), "10.1.2.3", "media is where HTTP is");
        assert_eq!(dev.http_listen.to_string(), "10.1.2.3:9");
        for (flags, expected) in [
            (&["--dev"][..], "needs --token"),
            (&["--token", "12345678"], "for --dev alone"),
            (&["--dev", "--token", "1234567"], "7 characters, expected 8"),
            (
                &["--dev", "--token", "12345678", "--control-plane", "a:1"],
                "leave out --control-plane",
            ),
        ] {
            let error = config(flags).expect_err("no config");
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
        assert!(config(&[]).expect("config").dev.is_none());
    }

    #[test]
    fn replicas_of_the_control_plane_stand_in_flags_or_in_the_file() {
        let both = config(&["--control-plane", "a:1, b:2", "--control-plane", "c:3"]).expect("config");
        assert_eq!(both.control_plane, ["a:1", "b:2", "c:3"]);
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("relay.toml");
        for text in ["\"a:1, b:2\"", "[\"a:1\", \"b:2\"]"] {
            std::fs::write(&path, format!("control_plane = {text}\n")).expect("written");
            let found = config(&["--config", path.to_str().expect("text")]).expect("config");
            assert_eq!(found.control_plane, ["a:1", "b:2"]);
        }
    }

    #[test]
    fn http_is_tls_unless_told_otherwise() {
        let tls = |flags: &[&str]| config(flags).map(|config| config.http_tls);
        assert_eq!(tls(&[]), Ok(HttpTls::Own));
        assert_eq!(tls(&["--plain"]), Ok(HttpTls::LOCAL));
        let anywhere = tls(&["--plain", "--insecure-plain-anywhere"]);
        assert_eq!(anywhere, Ok(HttpTls::Plain { anywhere: true }));
        assert!(tls(&["--tls-cert", "a", "--tls-key", "b"]).is_ok());
        for bad in [
            &["--tls-cert", "a"][..],
            &["--insecure-plain-anywhere"],
            &["--plain", "--tls-key", "b"],
        ] {
            assert!(tls(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ice_servers_are_read_and_a_bad_one_is_named_without_its_secret() {
        let both = [
            "--ice-server",
            "stun:a",
            "--ice-server",
            "turn:b,username=c,credential=d",
        ];
        assert_eq!(config(&both).expect("config").ice_servers.len(), 2);
        let error = config(&["--ice-server", "turn:b,credential=hush"]).expect_err("no login");
        assert!(error.contains("turn:b") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn an_unknown_name_in_the_file_and_a_bad_token_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("relay.toml");
        std::fs::write(&path, "worker = 3\n").expect("written");
        let error = read_file(&path).err().expect("unknown name");
        assert!(format!("{error:#}").contains("worker"), "{error:#}");
        let flags = Flags::try_parse_from(["muster-sfu", "--enrol-token", "nonsense"]).expect("flags");
        assert!(flags.into_config().is_err());
    }
}
