//! Three machines in a row, each a network namespace of its own: city, district and street, joined by two wires. They are
//! inside a network of the test's own (`own_network`) and vanish with it.
//!
//! The city is where the test itself runs. The district forwards between the wires, so that agents in the street reach
//! the control plane in the city. A wire is cut by taking its upper end down.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::program::{Running, command, run};

pub const CITY: &str = "10.99.1.1";
pub const DISTRICT: &str = "10.99.1.2";
pub const STREET: &str = "10.99.2.2";
/// The district's address towards the street.
const DISTRICT_BELOW: &str = "10.99.2.1";

const LIMIT: Duration = Duration::from_secs(20);

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    City,
    District,
    Street,
}

impl Tier {
    /// Of its relay.
    pub fn address(self) -> &'static str {
        match self {
            Self::City => CITY,
            Self::District => DISTRICT,
            Self::Street => STREET,
        }
    }
}

/// The machines; the two lower ones live as long as the processes that hold their namespaces.
pub struct Tiers {
    district: Running,
    street: Running,
}

impl Tiers {
    /// Sets the wires up; to be called in a network of the test's own.
    pub fn start() -> Result<Self> {
        let tiers = Self {
            district: hold()?,
            street: hold()?,
        };
        let (district, street) = (tiers.district.pid().to_string(), tiers.street.pid().to_string());
        tool(
            Tier::City,
            &tiers,
            &format!("ip link add below type veth peer name above netns {district}"),
        )?;
        tool(
            Tier::District,
            &tiers,
            &format!("ip link add below type veth peer name above netns {street}"),
        )?;
        for (tier, words) in [
            (Tier::City, format!("ip address add {CITY}/24 dev below")),
            (Tier::City, "ip link set below up".to_owned()),
            (Tier::District, "ip link set lo up".to_owned()),
            (Tier::District, format!("ip address add {DISTRICT}/24 dev above")),
            (
                Tier::District,
                format!("ip address add {DISTRICT_BELOW}/24 dev below"),
            ),
            (Tier::District, "ip link set above up".to_owned()),
            (Tier::District, "ip link set below up".to_owned()),
            (Tier::District, "sysctl -q -w net.ipv4.ip_forward=1".to_owned()),
            (Tier::Street, "ip link set lo up".to_owned()),
            (Tier::Street, format!("ip address add {STREET}/24 dev above")),
            (Tier::Street, "ip link set above up".to_owned()),
            (Tier::Street, format!("ip route add default via {DISTRICT_BELOW}")),
        ] {
            tool(tier, &tiers, &words)?;
        }
        tiers.join_uplink()?;
        Ok(tiers)
    }

    /// Cuts the wire between city and district.
    pub fn cut_uplink(&self) -> Result<()> {
        tool(Tier::City, self, "ip link set below down")
    }

    /// Joins it again.
    pub fn join_uplink(&self) -> Result<()> {
        tool(Tier::City, self, "ip link set below up")?;
        // The kernel forgets routes with the wire.
        tool(
            Tier::City,
            self,
            &format!("ip route replace 10.99.2.0/24 via {DISTRICT}"),
        )
    }

    /// A program of the project, at this tier.
    pub fn command(&self, tier: Tier, name: &str) -> Result<Command> {
        let plain = command(name)?;
        let Some(mut there) = self.enter(tier) else {
            return Ok(plain);
        };
        there.arg(plain.get_program());
        for (variable, value) in plain.get_envs() {
            match value {
                Some(value) => there.env(variable, value),
                None => there.env_remove(variable),
            };
        }
        there.stdin(Stdio::null());
        Ok(there)
    }

    /// `nsenter` into the namespace of a tier, to be followed by a program.
    fn enter(&self, tier: Tier) -> Option<Command> {
        let holder = match tier {
            Tier::City => return None,
            Tier::District => &self.district,
            Tier::Street => &self.street,
        };
        let mut enter = Command::new("nsenter");
        enter
            .arg(format!("--net=/proc/{}/ns/net", holder.pid()))
            .arg("--");
        Some(enter)
    }
}

/// A process in a network namespace of its own, which does nothing.
fn hold() -> Result<Running> {
    let mut command = Command::new("unshare");
    command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
    let holder = Running::spawn(&mut command)?;
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let theirs = format!("/proc/{}/ns/net", holder.pid());
    let deadline = Instant::now() + LIMIT;
    while std::fs::read_link(&theirs)? == own {
        ensure!(Instant::now() < deadline, "no network namespace can be made");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(holder)
}

fn tool(tier: Tier, tiers: &Tiers, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = match tiers.enter(tier) {
        Some(mut enter) => {
            enter.arg(words[0]);
            enter
        }
        None => Command::new(words[0]),
    };
    let output = run(command.args(&words[1..]), LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tier:?}: {line}: {said}");
    Ok(())
}
