//! What the kernel says of a process, a thread and of sockets.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU time of a process since its start: all threads, those that have ended too.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct CpuTime {
    /// Exact, in nanoseconds.
    pub total_ns: u64,
    /// In the kernel's ticks.
    pub user: u64,
    pub system: u64,
}

impl CpuTime {
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (user, system) = ticks(&stat).context("/proc/PID/stat is not as expected")?;
        Ok(Self {
            total_ns: nanoseconds(clock)?,
            user,
            system,
        })
    }

    /// From `before` until this: total, user and system in nanoseconds; the total is split as the ticks are.
    pub fn since(self, before: Self) -> (u64, u64, u64) {
        let total = self.total_ns.saturating_sub(before.total_ns);
        let user = self.user.saturating_sub(before.user);
        let all = user + self.system.saturating_sub(before.system);
        let user = (u128::from(total) * u128::from(user)).checked_div(all.into());
        let user = user.and_then(|user| user.try_into().ok()).unwrap_or(total);
        (total, user, total - user)
    }
}

fn nanoseconds(clock: ClockId) -> anyhow::Result<u64> {
    Ok(Duration::from(clock_gettime(clock)?).as_nanos().try_into()?)
}

/// utime and stime of `/proc/PID/stat`. The name, second in it, may have spaces and brackets.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// How long this thread has run or waited for a core, in nanoseconds.
pub fn thread_busy_ns() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let mut words = text.split_ascii_whitespace().map(str::parse::<u64>);
    match (words.next(), words.next()) {
        (Some(Ok(ran)), Some(Ok(waited))) => Ok(ran + waited),
        _ => anyhow::bail!("/proc/thread-self/schedstat: expected two numbers, got {text:?}"),
    }
}

/// Resident memory, in MB (10^6 bytes).
pub fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("/proc/PID/status has no VmRSS")? as f64 * 1024.0 / 1e6)
}

/// Datagrams that sockets bound to these ports had no room for, since they were opened.
pub fn socket_drops(ports: &HashSet<u16>) -> anyhow::Result<u64> {
    Ok(drops(&std::fs::read_to_string("/proc/net/udp")?, ports))
}

fn drops(table: &str, ports: &HashSet<u16>) -> u64 {
    let of_line = |line: &str| -> Option<u64> {
        let mut words = line.split_ascii_whitespace();
        let port = words.nth(1)?.rsplit_once(':')?.1;
        ports
            .contains(&u16::from_str_radix(port, 16).ok()?)
            .then_some(())?;
        words.last()?.parse().ok()
    };
    table.lines().filter_map(of_line).sum()
}

/// As many files as the machine lets us have: each peer has a socket.
pub fn allow_many_files() -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 77 33 0 0 20 0 3 0 900 1 2";
        assert_eq!(ticks(stat), Some((77, 33)));
        assert_eq!(ticks("42 (x) S 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn the_total_is_split_as_the_ticks_are() {
        let before = CpuTime {
            total_ns: 1000,
            user: 10,
            system: 10,
        };
        let after = CpuTime {
            total_ns: 2000,
            user: 11,
            system: 13,
        };
        assert_eq!(after.since(before), (1000, 250, 750));
        let sooner = CpuTime {
            total_ns: 1010,
            ..before
        };
        assert_eq!(sooner.since(before), (10, 10, 0), "less than a tick");
    }

    #[test]
    fn our_own_times_grow() {
        let before = CpuTime::of(std::process::id()).expect("readable");
        let busy = thread_busy_ns().expect("readable");
        let mut n = 0u64;
        while CpuTime::of(std::process::id()).expect("readable").total_ns < before.total_ns + 20_000_000 {
            n += 1;
        }
        assert!(n > 0 && thread_busy_ns().expect("readable") > busy);
        assert!(resident_mb(std::process::id()).expect("readable") > 0.5);
    }

    #[test]
    fn drops_are_of_our_ports() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            10: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 11 2 0 5\n\
            11: 0100007F:1F91 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 12 2 0 7\n\
            12: 0100007F:1F92 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 13 2 0 9\n";
        assert_eq!(drops(table, &HashSet::from([8080, 8082])), 14);
        assert_eq!(drops(table, &HashSet::new()), 0);
    }
}
