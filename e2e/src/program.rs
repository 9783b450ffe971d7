//! A program of the project as a child process.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The path of a program of the dev profile.
pub fn path_of(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // target/debug/deps/TEST
    let folder = own
        .parent()
        .and_then(Path::parent)
        .context("the test is not in a target folder")?;
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is missing: deploy/build dev builds it",
        path.display()
    );
    Ok(path)
}

/// A command that hears nothing from the test's own environment of the project.
pub fn command(name: &str) -> Result<Command> {
    let mut command = Command::new(path_of(name)?);
    for (variable, _) in
        std::env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("MUSTER_"))
    {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    Ok(command)
}

/// Runs to the end; what it printed is collected.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut text));
            text
        })
    };
    let stdout = read(child.0.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = read(child.0.stderr.take().map(|pipe| Box::new(pipe) as _));
    let ended = child.wait(limit);
    if ended.is_err() {
        child.kill_now();
    }
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    match ended {
        Ok(status) => Ok(Output {
            status,
            stdout,
            stderr,
        }),
        Err(error) => bail!(
            "{error:#}; it said:\n{}\n{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        ),
    }
}

/// A child that is killed when its handle goes.
pub struct Running(Child);

impl Running {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("{command:?}"))?))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// SIGKILL: what a power cut does to a process.
    pub fn kill_now(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// For a child with a piped input that ends when that does.
    pub fn end_input(&mut self) {
        drop(self.0.stdin.take());
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Until it ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the program did not end within {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_now();
    }
}

/// A child with children of its own, such as a browser; all of them are killed, each by its id, when the handle goes.
pub struct Family(Running);

impl Family {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        Ok(Self(Running::spawn(command.stdin(Stdio::null()))?))
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        self.0.has_ended()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        // The parent first, that it starts no more; those below it are known by then.
        let below = descendants(self.0.pid());
        self.0.kill_now();
        for pid in below {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Every process below this one.
fn descendants(of: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let parents: Vec<(Pid, Pid)> = entries
        .flatten()
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((Pid::from_raw(pid), Pid::from_raw(parent)))
        })
        .collect();
    let mut found = vec![of];
    let mut at = 0;
    while let Some(&above) = found.get(at) {
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == above)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found.split_off(1)
}

/// Whether a process with this id exists (and is no zombie).
pub fn is_running(pid: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with('Z')))
        .unwrap_or(false)
}
