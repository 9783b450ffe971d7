//! Congestion control in virtual time over a seeded network.

mod link;
mod path;

use link::Conditions;
use path::{Path, greedy, layers};

fn show(name: &str, path: &Path) {
    println!("{name}");
    for (n, s) in path.seconds.iter().enumerate() {
        println!(
            "{n:3} est {:6} carried {:6} queue {:4} audio {:3} probe {:4}",
            s.estimate_kbps, s.carried_kbps, s.queue_ms, s.audio_wait_ms, s.probe_kbps
        );
    }
}

#[test]
fn step() {
    let mut path = Path::new(1, Conditions::rate(4000).queue(300));
    path.side.set_wanted_bps(path.now(), Some(2_700_000));
    path.run(15, layers);
    path.down.conditions.rate_kbps = 350;
    path.run(20, layers);
    path.down.conditions.rate_kbps = 4000;
    path.run(15, layers);
    show("step", &path);
}

#[test]
fn loss() {
    for loss in [0.0, 0.02, 0.1, 0.2] {
        let mut path = Path::new(7, Conditions::rate(4000).losing(loss));
        path.side.set_wanted_bps(path.now(), Some(2_700_000));
        path.run(30, layers);
        show(&format!("layers loss {loss}"), &path);
        let mut path = Path::new(7, Conditions::rate(2000).losing(loss));
        path.side.set_wanted_bps(path.now(), Some(6_000_000));
        path.run(40, greedy(6_000_000));
        show(&format!("greedy loss {loss}"), &path);
    }
}

#[test]
fn idle() {
    let mut path = Path::new(1, Conditions::rate(4000).queue(300));
    path.side.set_wanted_bps(path.now(), Some(2_700_000));
    path.run(10, layers);
    path.side.set_wanted_bps(path.now(), Some(0));
    path.run(20, |_| 0);
    path.side.set_wanted_bps(path.now(), Some(2_700_000));
    path.run(10, layers);
    show("idle", &path);
}
