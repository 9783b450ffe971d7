//! Sound: the three loudest others, wherever they are, and never the muted.

use std::collections::BTreeSet;

use crate::support::agent::{Agent, slot};
use crate::support::{Bench, stage, until};

fn voices() -> Vec<muster_proto::media::v1::LinkSlot> {
    vec![slot("1", true), slot("2", true), slot("3", true)]
}

/// The sites in the last packet of each audio slot.
fn heard(agent: &Agent) -> BTreeSet<String> {
    let seen = agent.seen();
    let last = seen.packets.values().filter_map(|packets| packets.last());
    last.map(|(_, payload)| String::from_utf8_lossy(payload).into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_three_loudest_others_are_heard_across_workers() {
    let bench = Bench::start(2).await;
    let mut agents = Vec::new();
    for (n, site) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let mut agent = Agent::in_meeting(&bench, n % 2, site, voices()).await;
        // "a" is the loudest.
        agent.publish_sound(10 + 15 * n as u8);
        agents.push(agent);
    }
    let set = |sites: &[&str]| {
        sites
            .iter()
            .map(|site| (*site).to_owned())
            .collect::<BTreeSet<_>>()
    };
    until("e hears the three loudest", || {
        (heard(&agents[4]) == set(&["a", "b", "c"])).then_some(())
    })
    .await;
    until("a hears others only", || {
        let heard = heard(&agents[0]);
        (heard.contains("b") && heard.contains("c") && !heard.contains("a")).then_some(())
    })
    .await;
    until("speakers are told, loudest first", || {
        (agents[3].seen().speakers.sites == ["a", "b", "c"]).then_some(())
    })
    .await;
    for agent in &agents {
        let seen = agent.seen();
        let all = seen.packets.values().flatten();
        assert!(
            all.into_iter()
                .all(|(_, payload)| payload != agent.site.as_bytes()),
            "nobody hears itself"
        );
    }

    let mut muted = stage("m", 1);
    muted.muted_sites = vec!["a".into()];
    bench.relay.set_stage(muted);
    until("a is told that it is muted", || {
        agents[0].seen().notice.muted.then_some(())
    })
    .await;
    agents[4].seen().packets.clear();
    until("others are heard instead", || {
        (heard(&agents[4]) == set(&["b", "c", "d"])).then_some(())
    })
    .await;
    bench.relay.shutdown().await;
}
