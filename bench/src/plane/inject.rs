//! Changes of presence at a steady rate, made inside the control plane at the register of attached endpoints.
//!
//! Sites come and go in turn: each change is a site that comes, or one that came before and goes. How many are there at a
//! time is bounded, so that memory and the rest of the control plane are those of an idle city.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_control_plane::endpoints::{Attachment, Endpoints, Proof};
use muster_domain::{EndpointKind, Millis, SiteId};
use tokio::time::MissedTickBehavior;

use super::tree;

/// Sites that are there at a time.
const PRESENT: usize = 500;
const TICK: Duration = Duration::from_millis(5);

/// How many changes, of which sites.
pub struct Load {
    sites: Vec<SiteId>,
    rate: u32,
    seconds: u32,
}

impl Load {
    pub fn new(sites: u32, rate: u32, seconds: u32) -> anyhow::Result<Self> {
        let sites: Result<_, _> = (0..sites).map(|n| SiteId::new(tree::site(n))).collect();
        Ok(Self {
            sites: sites?,
            rate,
            seconds,
        })
    }
}

/// Makes them; gives their number. Those that are there in the end go then.
pub async fn run(endpoints: &Arc<Endpoints>, load: &Load) -> anyhow::Result<u64> {
    let mut present: VecDeque<Attachment> = VecDeque::new();
    let mut next = load.sites.iter().cycle();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let ticks = u128::from(load.seconds) * 1000 / TICK.as_millis();
    let (mut made, mut due) = (0_u64, 0.0);
    for _ in 0..ticks {
        tick.tick().await;
        due += f64::from(load.rate) * TICK.as_secs_f64();
        while (made as f64) < due {
            if present.len() >= PRESENT && made % 2 == 1 {
                drop(present.pop_front());
            } else if let Some(site) = next.next() {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
                let (kind, proof) = (EndpointKind::Agent, Proof::Certificate);
                present.push_back(endpoints.attach(site.clone(), kind, proof, Millis(now.try_into()?))?);
            }
            made += 1;
        }
    }
    Ok(made)
}
