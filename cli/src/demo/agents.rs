//! The agents of a demonstration: one child process of the real `muster-edge` a site, started again when it
//! dies, and gone when the demonstration is.
//!
//! All children are started by one thread that lives as long as they do: the kernel's "die with the parent"
//! means the thread that started the child. They have a process group of their own, so that Ctrl-C on the
//! terminal reaches them only through us, in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use muster_identity::Credentials;
use muster_proto::command::v1::CreateEnrolTokenRequest;
use muster_proto::command::v1::create_enrol_token_request::Target;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::folder::DataFolder;
use crate::client::Client;

/// What the children draw: 140 of them run on a small machine.
const SOURCE: &str = "testcard:180p5";
/// As a service manager's: long enough for a person to see on the wall that the site was away.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A child that ran this long was well: the next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// Between the order to end and the end by force.
const GRACE: Duration = Duration::from_millis(1500);
/// Starts are spread a little, so that enrolments do not all fall into one instant.
const BETWEEN_STARTS: Duration = Duration::from_millis(8);

/// The process ids of the running agents by site.
pub type Pids = Arc<Mutex<BTreeMap<String, u32>>>;

pub struct Agents {
    pids: Pids,
    changed: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What every agent is started with.
#[derive(Clone)]
pub struct Plan {
    pub program: PathBuf,
    /// `HOST:PORT` of the control plane's port for agents.
    pub control_plane: String,
    pub client: Client,
    pub folder: Arc<DataFolder>,
}

impl Agents {
    pub fn start(plan: Plan, sites: Vec<String>) -> Result<Self> {
        let pids = Pids::default();
        let (stop, stopped) = watch::channel(false);
        let (changes, changed) = watch::channel(0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let supervisor = Supervisor {
            plan: Arc::new(plan),
            pids: pids.clone(),
            stopped,
            changes,
        };
        let thread = std::thread::Builder::new()
            .name("agents".to_owned())
            .spawn(move || runtime.block_on(supervisor.run(sites)))?;
        Ok(Self {
            pids,
            changed,
            stop,
            thread: Some(thread),
        })
    }

    pub fn pids(&self) -> BTreeMap<String, u32> {
        locked(&self.pids).clone()
    }

    /// Ticks whenever a process id changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Ends all children and returns when none is left.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn locked(pids: &Pids) -> std::sync::MutexGuard<'_, BTreeMap<String, u32>> {
    pids.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Supervisor {
    plan: Arc<Plan>,
    pids: Pids,
    stopped: watch::Receiver<bool>,
    changes: watch::Sender<u64>,
}

impl Supervisor {
    async fn run(self, sites: Vec<String>) {
        let mut tasks = JoinSet::new();
        for (index, site) in sites.into_iter().enumerate() {
            let supervisor = self.clone();
            tasks.spawn(async move {
                sleep(BETWEEN_STARTS * index as u32).await;
                supervisor.keep_running(&site).await;
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn keep_running(mut self, site: &str) {
        let mut pause = FIRST_PAUSE;
        while !*self.stopped.borrow() {
            let began = Instant::now();
            match self.start(site).await {
                Ok(mut child) => {
                    self.note(site, child.id());
                    let ended = self.wait(&mut child).await;
                    self.note(site, None);
                    if let Some(status) = ended {
                        tracing::warn!(site, %status, "an agent ended; it is started again");
                    }
                }
                Err(error) => tracing::warn!(
                    site,
                    error = format!("{error:#}"),
                    "an agent could not be started"
                ),
            }
            if began.elapsed() > WELL_AFTER {
                pause = FIRST_PAUSE;
            }
            let _ = timeout(pause, self.stopped.wait_for(|stopped| *stopped)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Until the child ends by itself (its status), or was ended by us.
    async fn wait(&mut self, child: &mut Child) -> Option<std::process::ExitStatus> {
        tokio::select! {
            status = child.wait() => return status.ok(),
            _ = self.stopped.wait_for(|stopped| *stopped) => {}
        }
        if let Some(pid) = child.id() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
        }
        if timeout(GRACE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        None
    }

    fn note(&self, site: &str, pid: Option<u32>) {
        match pid {
            Some(pid) => locked(&self.pids).insert(site.to_owned(), pid),
            None => locked(&self.pids).remove(site),
        };
        self.changes.send_modify(|count| *count += 1);
    }

    async fn start(&self, site: &str) -> Result<Child> {
        let plan = &self.plan;
        let identity = plan.folder.agent(site);
        std::fs::create_dir_all(&identity).with_context(|| format!("{}", identity.display()))?;
        let log = File::create(plan.folder.log(site)?)?;
        let mut command = Command::new(&plan.program);
        command
            .args([
                "--control-plane",
                &plan.control_plane,
                "--source",
                SOURCE,
                "--die-with-parent",
            ])
            // A hundred on one machine, and nobody there to look at it.
            .args(["--page", "off"])
            .arg("--identity")
            .arg(&identity)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        // What is meant for us is not meant for them.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MUSTER_"))
        {
            command.env_remove(name);
        }
        if let Some(token) = self.enrol_token(site, &identity).await? {
            // Not as an argument: those are seen by everyone on the machine.
            command.env("MUSTER_ENROL_TOKEN", token);
        }
        command
            .spawn()
            .with_context(|| format!("{}", plan.program.display()))
    }

    /// A new one-time token, if the site's folder holds no certificate yet.
    async fn enrol_token(&self, site: &str, identity: &Path) -> Result<Option<String>> {
        if Credentials::load(identity)
            .with_context(|| format!("{}", identity.display()))?
            .is_some()
        {
            return Ok(None);
        }
        let request = CreateEnrolTokenRequest {
            target: Some(Target::Site(site.to_owned())),
            valid_s: 600,
        };
        let response = self
            .plan
            .client
            .directory()
            .create_enrol_token(request)
            .await
            .context("enrolment token")?;
        Ok(Some(response.into_inner().token))
    }
}

/// The `muster-edge` beside this program.
pub fn find_program() -> Result<PathBuf, String> {
    let own =
        std::env::current_exe().map_err(|error| format!("cannot find this program's own folder: {error}"))?;
    let program = own.with_file_name("muster-edge");
    if program.is_file() {
        return Ok(program);
    }
    Err(format!(
        "{} is missing: build it with make build (or cargo build --bin muster-edge)",
        program.display()
    ))
}
