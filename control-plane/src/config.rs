//! Settings of the control plane. A flag wins over an environment variable (`MUSTER_*`), that over the
//! TOML file named by `--config`, that over the default. An unknown key in the file is an error.

use crate::service_url::ServiceUrl;
use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_identity::PairFiles;
use muster_proto::command::v1 as pb;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
const DEFAULT_AGENTS_LISTEN: &str = "127.0.0.1:8443";
const DEFAULT_DATA_DIR: &str = "data/control-plane";
const DEFAULT_MAX_CONNECTIONS: usize = 16_384;
/// Whole offices sit behind one address.
const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 4096;

/// Everything that [`crate::ControlPlane::start`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Console, gRPC and gRPC-web (HTTP/1.1 and h2). Port 0 means any.
    pub listen: SocketAddr,
    /// What the console's port speaks.
    pub console: ConsoleTls,
    /// Sources that the console's pages may call beside its own, as in CSP; empty: any by https.
    pub relay_origins: Vec<String>,
    /// gRPC over TLS 1.3 for agents and relays. Port 0 means any.
    pub agents_listen: SocketAddr,
    /// Where the database and the certificate authority live.
    pub data_dir: PathBuf,
    /// Connections that each of the two ports holds at once; fewer if the system allows fewer open files.
    pub max_connections: usize,
    /// Of them from one address, or one /64 of IPv6.
    pub max_connections_per_address: usize,
    /// Further DNS names and addresses for the certificates that are made here. No relay gets one of them.
    pub tls_names: Vec<String>,
    /// PostgreSQL, where several replicas share it; SQLite in `data_dir` if not given.
    pub database_url: Option<ServiceUrl>,
    /// NATS, where several replicas hear each other.
    pub nats_url: Option<ServiceUrl>,
    /// PEM file of authorities that NATS' certificate may be of, beside the system's.
    pub nats_ca: Option<PathBuf>,
    /// An account that is made (or given this password) at start.
    pub bootstrap: Option<Bootstrap>,
}

impl Config {
    /// Any free ports of this machine and plain HTTP for the console, for tests and `muster demo`.
    pub fn local(data_dir: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any,
            console: ConsoleTls::Plain { anywhere: false },
            relay_origins: Vec::new(),
            agents_listen: any,
            data_dir: data_dir.into(),
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_address: DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
            tls_names: Vec::new(),
            database_url: None,
            nats_url: None,
            nats_ca: None,
            bootstrap: None,
        }
    }
}

/// What the console's port speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleTls {
    /// HTTP without TLS; refused on an address that is not loopback, unless `anywhere`.
    Plain { anywhere: bool },
    /// TLS with a certificate of the built-in CA, kept in `data_dir/tls`.
    Own,
    /// TLS with these files, taken up again when they change.
    Files(PairFiles),
}

/// The first account. The unit need not exist yet: so the first import has somebody to do it.
#[derive(Clone)]
pub struct Bootstrap {
    pub account: String,
    pub password: String,
    pub role: pb::Role,
    pub unit: String,
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap")
            .field("role", &self.role)
            .field("unit", &self.unit)
            .finish_non_exhaustive()
    }
}

/// The control plane of Muster: the tree of sites, meetings, and the console for dispatchers.
///
/// Starts with no arguments. The first account comes from --bootstrap-account with the password in
/// MUSTER_BOOTSTRAP_PASSWORD or --bootstrap-password-file, or from `account add`.
#[derive(Debug, Parser)]
#[command(
    name = "muster-control-plane",
    version,
    after_help = "Examples:\n  \
    printf %s \"$PASSWORD\" | muster-control-plane account add wang --role commander --unit WH-EL\n  \
    muster-control-plane --listen 0.0.0.0:8080 --data-dir /var/lib/muster --tls-name muster.city.example\n  \
    muster-control-plane --listen 0.0.0.0:8080 --tls-cert fullchain.pem --tls-key privkey.pem\n\n\
    TLS: without --tls-cert the console's certificate is made at the first start and signed by the built-in CA, whose\n\
    certificate is DATA_DIR/ca/ca.pem. To trust it: `muster --ca ca.pem ...`; Chromium and Chrome on Linux:\n\
    certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n Muster -i ca.pem; Firefox: Settings, Certificates, Authorities, Import;\n\
    Windows: certutil -addstore Root ca.pem; Debian: copy it to /usr/local/share/ca-certificates/muster.crt and run\n\
    update-ca-certificates. Files given by --tls-cert and --tls-key are taken up within seconds of a change.\n\n\
    Every flag has an environment variable (shown in brackets) and a key in the file of --config\n\
    (the flag's name with _ for -). A flag wins over the environment, that over the file."
)]
pub struct Cli {
    #[command(flatten)]
    pub settings: Settings,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Accounts of the people who sign in to the console.
    #[command(subcommand)]
    Account(AccountCommand),
}

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Adds an account, or gives it a new password and role. Reads the password from standard input.
    Add {
        /// The name to sign in with.
        name: String,
        #[arg(long, value_enum)]
        role: RoleName,
        /// Unit whose subtree the role holds for. It need not be imported yet.
        #[arg(long)]
        unit: String,
        /// Shown to others; the name if not given.
        #[arg(long)]
        display_name: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleName {
    Commander,
    DutyOfficer,
    Engineer,
    Auditor,
}

impl From<RoleName> for pb::Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Commander => Self::Commander,
            RoleName::DutyOfficer => Self::DutyOfficer,
            RoleName::Engineer => Self::Engineer,
            RoleName::Auditor => Self::Auditor,
        }
    }
}

/// Flags, environment and file: each names the same keys.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// TOML file with any of these settings.
    #[arg(long, env = "MUSTER_CONFIG", global = true)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// IP:PORT of the console and the API, over TLS (HTTP/1.1 and h2) [default: 127.0.0.1:8080].
    #[arg(long, env = "MUSTER_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// HOST:PORT for agents and relays (TLS 1.3) [default: 127.0.0.1:8443].
    #[arg(long, env = "MUSTER_AGENTS_LISTEN")]
    pub agents_listen: Option<SocketAddr>,
    /// Folder of the database and the certificate authority [default: data/control-plane].
    #[arg(long, env = "MUSTER_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Connections that each of the two ports holds at once [default: 16384, or what the limit of open files allows].
    #[arg(long, env = "MUSTER_MAX_CONNECTIONS", value_name = "NUMBER")]
    pub max_connections: Option<NonZeroUsize>,
    /// Of them from one address, or one /64 of IPv6: an office behind NAT is one [default: 4096, and half of all at most].
    #[arg(long, env = "MUSTER_MAX_CONNECTIONS_PER_ADDRESS", value_name = "NUMBER")]
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// A further DNS name or address for the certificates made here; may be given several times. No relay gets it.
    #[arg(long = "tls-name", env = "MUSTER_TLS_NAMES", value_delimiter = ',')]
    #[serde(default)]
    pub tls_names: Vec<String>,
    /// PEM file of the console's certificate and those above it, in place of one of the built-in CA.
    #[arg(long, env = "MUSTER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of that certificate's key.
    #[arg(long, env = "MUSTER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Plain HTTP for the console, without TLS: for development, on loopback alone.
    #[arg(long, env = "MUSTER_PLAIN", num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    pub plain: Option<bool>,
    /// With --plain: on any address. Passwords and tokens can then be read on the network.
    #[arg(long, env = "MUSTER_INSECURE_PLAIN_ANYWHERE", num_args = 0..=1, default_missing_value = "true", value_name = "true|false")]
    pub insecure_plain_anywhere: Option<bool>,
    /// Origin of relays that the console's pages may call, such as https://*.relays.example; may be given several times
    /// [default: any by https].
    #[arg(
        long = "relay-origin",
        env = "MUSTER_RELAY_ORIGINS",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    #[serde(default)]
    pub relay_origins: Vec<String>,
    /// PostgreSQL, shared by all replicas: postgres://USER:PASSWORD@HOST:PORT/DATABASE [default: SQLite in --data-dir].
    #[arg(long, env = "DATABASE_URL", global = true, hide_env_values = true, value_parser = crate::service_url::parse)]
    pub database_url: Option<ServiceUrl>,
    /// NATS, by which replicas hear each other: tls://USER:PASSWORD@HOST:PORT, or nats:// without TLS [default: one replica
    /// alone].
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_parser = crate::service_url::parse)]
    pub nats_url: Option<ServiceUrl>,
    /// PEM file of the authority of NATS' certificate, where the system does not trust it.
    #[arg(long, env = "MUSTER_NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,
    /// Name of an account to make at start.
    #[arg(long, env = "MUSTER_BOOTSTRAP_ACCOUNT")]
    pub bootstrap_account: Option<String>,
    /// File whose first line is that account's password (or set MUSTER_BOOTSTRAP_PASSWORD).
    #[arg(long, env = "MUSTER_BOOTSTRAP_PASSWORD_FILE")]
    pub bootstrap_password_file: Option<PathBuf>,
    /// Its role [default: commander].
    #[arg(long, env = "MUSTER_BOOTSTRAP_ROLE", value_enum)]
    pub bootstrap_role: Option<RoleName>,
    /// Unit whose subtree the role holds for; it need not be imported yet. Needed with --bootstrap-account.
    #[arg(long, env = "MUSTER_BOOTSTRAP_UNIT")]
    pub bootstrap_unit: Option<String>,
}

impl Settings {
    /// Fills what flags and environment left open from the file and the defaults.
    pub fn resolve(self) -> anyhow::Result<Config> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => Settings::default(),
        };
        let merged = Settings {
            config: None,
            listen: self.listen.or(file.listen),
            agents_listen: self.agents_listen.or(file.agents_listen),
            data_dir: self.data_dir.or(file.data_dir),
            max_connections: self.max_connections.or(file.max_connections),
            max_connections_per_address: self
                .max_connections_per_address
                .or(file.max_connections_per_address),
            tls_names: if self.tls_names.is_empty() {
                file.tls_names
            } else {
                self.tls_names
            },
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            plain: self.plain.or(file.plain),
            insecure_plain_anywhere: self.insecure_plain_anywhere.or(file.insecure_plain_anywhere),
            relay_origins: if self.relay_origins.is_empty() {
                file.relay_origins
            } else {
                self.relay_origins
            },
            database_url: self.database_url.or(file.database_url),
            nats_url: self.nats_url.or(file.nats_url),
            nats_ca: self.nats_ca.or(file.nats_ca),
            bootstrap_account: self.bootstrap_account.or(file.bootstrap_account),
            bootstrap_password_file: self.bootstrap_password_file.or(file.bootstrap_password_file),
            bootstrap_role: self.bootstrap_role.or(file.bootstrap_role),
            bootstrap_unit: self.bootstrap_unit.or(file.bootstrap_unit),
        };
        let bootstrap = merged.bootstrap()?;
        let console = merged.console()?;
        Ok(Config {
            console,
            relay_origins: merged.relay_origins,
            listen: merged.listen.map_or_else(|| DEFAULT_LISTEN.parse(), Ok)?,
            agents_listen: merged
                .agents_listen
                .map_or_else(|| DEFAULT_AGENTS_LISTEN.parse(), Ok)?,
            data_dir: merged.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            max_connections: merged
                .max_connections
                .map_or(DEFAULT_MAX_CONNECTIONS, NonZeroUsize::get),
            max_connections_per_address: merged
                .max_connections_per_address
                .map_or(DEFAULT_MAX_CONNECTIONS_PER_ADDRESS, NonZeroUsize::get),
            tls_names: merged.tls_names,
            database_url: merged.database_url,
            nats_url: merged.nats_url,
            nats_ca: merged.nats_ca,
            bootstrap,
        })
    }

    fn console(&self) -> anyhow::Result<ConsoleTls> {
        let anywhere = self.insecure_plain_anywhere.unwrap_or(false);
        match (self.plain.unwrap_or(false), &self.tls_cert, &self.tls_key) {
            (true, None, None) => Ok(ConsoleTls::Plain { anywhere }),
            (true, ..) => bail!("--plain speaks no TLS: leave out --tls-cert and --tls-key, or --plain"),
            (false, ..) if anywhere => bail!("--insecure-plain-anywhere is for --plain"),
            (false, Some(cert), Some(key)) => Ok(ConsoleTls::Files(PairFiles {
                cert: cert.clone(),
                key: key.clone(),
            })),
            (false, None, None) => Ok(ConsoleTls::Own),
            _ => bail!("--tls-cert and --tls-key: expected both or neither"),
        }
    }

    fn bootstrap(&self) -> anyhow::Result<Option<Bootstrap>> {
        let Some(account) = &self.bootstrap_account else {
            return Ok(None);
        };
        let password = match &self.bootstrap_password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            None => std::env::var("MUSTER_BOOTSTRAP_PASSWORD").unwrap_or_default(),
        };
        if password.is_empty() {
            bail!(
                "--bootstrap-account needs a password: set MUSTER_BOOTSTRAP_PASSWORD or give --bootstrap-password-file"
            );
        }
        let Some(unit) = self.bootstrap_unit.clone() else {
            bail!("--bootstrap-account needs --bootstrap-unit: the unit whose subtree the role holds for");
        };
        Ok(Some(Bootstrap {
            account: account.clone(),
            password,
            role: self.bootstrap_role.unwrap_or(RoleName::Commander).into(),
            unit,
        }))
    }
}

fn read_file(path: &Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Settings {
        let all = std::iter::once("muster-control-plane").chain(arguments.iter().copied());
        Cli::try_parse_from(all).expect("arguments").settings
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("muster.toml");
        std::fs::write(
            &path,
            "listen = \"127.0.0.1:1\"\nagents_listen = \"127.0.0.1:2\"\n",
        )
        .expect("write");
        let path = path.to_str().expect("path");
        let config = settings(&["--config", path, "--listen", "127.0.0.1:9"])
            .resolve()
            .expect("config");
        assert_eq!(config.listen.port(), 9);
        assert_eq!(config.agents_listen.port(), 2);
        assert_eq!(config.data_dir, PathBuf::from(DEFAULT_DATA_DIR));
    }

    #[test]
    fn the_console_speaks_tls_unless_told_otherwise_in_words_that_fit() {
        let console = |flags: &[&str]| settings(flags).resolve().map(|config| config.console);
        assert_eq!(console(&[]).expect("config"), ConsoleTls::Own);
        let plain = ConsoleTls::Plain { anywhere: false };
        assert_eq!(console(&["--plain"]).expect("config"), plain);
        let files = console(&["--tls-cert", "c.pem", "--tls-key", "k.pem"]).expect("config");
        assert!(matches!(files, ConsoleTls::Files(files) if files.key.ends_with("k.pem")));
        for bad in [
            &["--tls-cert", "c.pem"][..],
            &["--insecure-plain-anywhere"],
            &["--plain", "--tls-cert", "c.pem", "--tls-key", "k.pem"],
        ] {
            assert!(console(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_key_in_the_file_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("muster.toml");
        std::fs::write(&path, "lisen = \"127.0.0.1:1\"\n").expect("write");
        let error = settings(&["--config", path.to_str().expect("path")])
            .resolve()
            .expect_err("refused");
        assert!(format!("{error:#}").contains("lisen"), "{error:#}");
    }

    #[test]
    fn the_password_of_a_service_is_not_shown() {
        let config = settings(&[
            "--database-url",
            "postgres://muster:hunter2@db.example:5432/muster?sslmode=require",
            "--nats-url",
            "nats://u:hunter2@bus.example:4222",
        ]);
        let config = config.resolve().expect("config");
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("postgres://db.example:5432"), "{shown}");
        assert!(
            config
                .database_url
                .is_some_and(|url| url.expose().contains("hunter2"))
        );
    }

    #[test]
    fn the_bootstrap_password_comes_from_a_file_and_is_not_shown() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("password");
        std::fs::write(&path, "hunter2 hunter2\n").expect("write");
        let path = path.to_str().expect("path");
        let config = settings(&[
            "--bootstrap-account",
            "wang",
            "--bootstrap-unit",
            "WH",
            "--bootstrap-password-file",
            path,
        ]);
        let config = config.resolve().expect("config");
        assert_eq!(
            config.bootstrap.as_ref().map(|b| b.password.as_str()),
            Some("hunter2 hunter2")
        );
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!format!("{config:?}").contains("wang"));
    }
}
