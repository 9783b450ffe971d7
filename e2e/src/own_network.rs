//! A network of the test's own: it runs again, alone, in namespaces with a loopback, one Ethernet-like interface, and no process
//! but its own. All of it vanishes with it, whatever becomes of the test.
//!
//! Browsers treat loopback specially and a firewall rule must hit nobody else, hence this. It needs root, or a kernel that
//! lets users have namespaces of their own.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::program::run;

/// The address of the one machine in it.
pub const ADDRESS: &str = "10.99.0.1";
/// Of a whole test.
const LIMIT: Duration = Duration::from_secs(150);
/// Set for the test that runs in its own network.
const INSIDE: &str = "E2E_INSIDE_OWN_NETWORK";

/// Runs a test in a network of its own; `name` is the test's.
pub fn in_own_network(name: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        set_up()?;
        return test();
    }
    let mut again = Command::new("unshare");
    again.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        again.args(["--user", "--map-root-user"]);
    }
    again.arg("--").arg(std::env::current_exe()?);
    again.args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let output = run(&mut again, LIMIT)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("1 passed"),
        "in its own network: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn set_up() -> Result<()> {
    for words in [
        "link set lo up",
        "link add eth0 type veth peer name far",
        "link set far up",
        "address add 10.99.0.1/24 dev eth0",
        "link set eth0 up",
        "route add default dev eth0",
    ] {
        tool("ip", &words.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

/// From here on the namespace drops all UDP, as some firewalls do.
pub fn block_udp() -> Result<()> {
    tool("nft", &["add", "table", "inet", "wall"])?;
    let chain = "{ type filter hook output priority 0 ; policy accept ; }";
    tool("nft", &["add", "chain", "inet", "wall", "out", chain])?;
    tool(
        "nft",
        &[
            "add", "rule", "inet", "wall", "out", "meta", "l4proto", "udp", "counter", "drop",
        ],
    )
}

/// How many UDP packets [`block_udp`] has dropped.
pub fn blocked() -> Result<u64> {
    let output = run(Command::new("nft").args(["list", "table", "inet", "wall"]), LIMIT)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = text
        .split_once("counter packets ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .and_then(|count| count.parse().ok());
    count.with_context(|| format!("no counter in {text}"))
}

fn tool(name: &str, words: &[&str]) -> Result<()> {
    let output = run(Command::new(name).args(words), LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {words:?}: {said}");
    Ok(())
}
