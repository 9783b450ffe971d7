//! A PostgreSQL and a NATS server of a test's own, on free ports, that can be killed and started again.

use muster_control_plane::store::Store;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("address").port()
}

/// Waits until something listens; false if the process ended before.
fn listens(port: u16, child: &mut Child) -> bool {
    let (addr, began) = (SocketAddr::from(([127, 0, 0, 1], port)), Instant::now());
    while began.elapsed() < PATIENCE {
        if TcpStream::connect(addr).is_ok() {
            return true;
        }
        if child.try_wait().expect("asked").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nothing listens on port {port} after {PATIENCE:?}");
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &str) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = postgres_ids() {
        command.uid(user).gid(group);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Its user and group, where this runs as root.
fn postgres_ids() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    (id(&["-u"])? == 0).then_some(())?;
    Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?))
}

fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL is installed")
}

fn signal(name: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let processes = processes.iter().map(ToString::to_string);
    // Of some that have ended nothing is to be said.
    let _ = Command::new("kill")
        .arg(format!("-{name}"))
        .args(processes)
        .stderr(Stdio::null())
        .status();
}

/// A database server.
pub struct Postgres {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
    /// Its processes, where it is frozen.
    frozen: Vec<u32>,
    databases: AtomicU32,
}

impl Postgres {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        if let Some((user, group)) = postgres_ids() {
            chown(dir.path(), Some(user), Some(group)).expect("given away");
        }
        let data = dir.path().join("data");
        let made = as_postgres(binary("initdb").to_str().expect("path"))
            .current_dir(dir.path())
            .arg("-D")
            .arg(&data)
            .args([
                "-U",
                "muster",
                "--auth=trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ])
            .status()
            .expect("initdb runs");
        assert!(made.success(), "initdb");
        let mut server = Self {
            dir,
            port: free_port(),
            child: None,
            frozen: Vec::new(),
            databases: AtomicU32::new(0),
        };
        server.resume();
        server
    }

    /// Starts it again after [`Postgres::kill`].
    pub fn resume(&mut self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let mut child = as_postgres(binary("postgres").to_str().expect("path"))
                .current_dir(self.dir.path())
                .arg("-D")
                .arg(self.dir.path().join("data"))
                .arg("-k")
                .arg(self.dir.path())
                .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
                .args(["-c", "fsync=off", "-c", "max_connections=200"])
                .stderr(Stdio::null())
                .spawn()
                .expect("postgres runs");
            // What the one before left behind may be in the way for a moment.
            if listens(self.port, &mut child) && self.answers() {
                self.child = Some(child);
                return;
            }
            let _ = child.kill();
            let _ = child.wait();
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start");
    }

    fn answers(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let ready = Command::new(binary("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status();
            if ready.is_ok_and(|status| status.success()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Stops all its processes where they are: connections stay, and nothing is answered.
    pub fn freeze(&mut self) {
        let server = self.child.as_ref().expect("it runs").id();
        // The server itself first, so that no more come.
        signal("STOP", &[server]);
        // It may be making another just now.
        let stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{server}/stat")).expect("its state");
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
        };
        while !stopped() {
            std::thread::yield_now();
        }
        let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        let children = children.expect("its processes");
        self.frozen = vec![server];
        self.frozen.extend(
            children
                .split_whitespace()
                .map(|id| id.parse::<u32>().expect("a number")),
        );
        signal("STOP", &self.frozen);
    }

    /// Lets it go on after [`Postgres::freeze`].
    pub fn thaw(&mut self) {
        signal("CONT", &std::mem::take(&mut self.frozen));
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            // What is frozen would never see that the server is gone.
            self.thaw();
            let _ = child.wait();
        }
    }

    /// The address of a new and empty database.
    pub fn database(&self) -> String {
        let name = format!("muster{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = Command::new(binary("createdb"))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                "muster",
                &name,
            ])
            .status()
            .expect("createdb runs");
        assert!(made.success(), "createdb");
        format!("postgres://muster:not-asked-for@127.0.0.1:{}/{name}", self.port)
    }

    /// A store on a new and empty database.
    pub async fn store(&self) -> Store {
        Store::connect(&self.database()).await.expect("connected")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
/// A bus server.
pub struct Nats {
    port: u16,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Nats {
    pub fn start() -> Self {
        Self::start_with(Vec::new())
    }

    /// With further flags of nats-server.
    pub fn start_with(flags: Vec<String>) -> Self {
        let mut server = Self {
            port: free_port(),
            flags,
            child: None,
        };
        server.resume();
        server
    }

    /// Starts it again after [`Nats::kill`].
    pub fn resume(&mut self) {
        let program = ["/usr/sbin/nats-server", "/usr/bin/nats-server"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("nats-server");
        let mut child = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server runs");
        assert!(listens(self.port, &mut child), "nats-server ended");
        self.child = Some(child);
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
