//! Whether the relay may be given work: what `/readyz` answers, and why not.
//!
//! `/healthz` says that the process lives; this says that a join would succeed. Not ready are: a relay that is stopping, one
//! of whose workers has ended, and one that was told of a control plane and has never reached it (it knows no stage and
//! perhaps an old token key). One that has lost its control plane stays ready: meetings and joins go on without it.

use std::sync::atomic::{AtomicBool, Ordering};

/// What the answer depends on, but for the workers.
#[derive(Debug)]
pub(crate) struct Readiness {
    awaits_control_plane: AtomicBool,
    stopping: AtomicBool,
}

/// Why a relay is not ready: a code for programs, a sentence for people.
pub(crate) type Reason = (&'static str, &'static str);

impl Readiness {
    /// Of a relay that serves alone, or has a control plane to reach first.
    pub fn new(has_control_plane: bool) -> Self {
        Self {
            awaits_control_plane: AtomicBool::new(has_control_plane),
            stopping: AtomicBool::new(false),
        }
    }

    /// The control plane has answered.
    pub fn welcomed(&self) {
        self.awaits_control_plane.store(false, Ordering::Relaxed);
    }

    /// The relay takes no more joins.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Empty where the relay is ready.
    pub fn reasons(&self, ended_workers: usize) -> Vec<Reason> {
        let all = [
            (
                self.stopping.load(Ordering::Relaxed),
                ("stopping", "the relay is shutting down"),
            ),
            (
                ended_workers > 0,
                ("worker_ended", "a worker has ended; restart the relay"),
            ),
            (
                self.awaits_control_plane.load(Ordering::Relaxed),
                (
                    "no_control_plane",
                    "the control plane has not been reached yet; see --control-plane and the log",
                ),
            ),
        ];
        all.into_iter()
            .filter_map(|(holds, reason)| holds.then_some(reason))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_ready_unless_something_stands_against_it() {
        let codes = |readiness: &Readiness, ended| -> Vec<&str> {
            readiness.reasons(ended).iter().map(|(code, _)| *code).collect()
        };
        let alone = Readiness::new(false);
        assert!(codes(&alone, 0).is_empty());
        assert_eq!(codes(&alone, 1), ["worker_ended"]);
        let readiness = Readiness::new(true);
        assert_eq!(codes(&readiness, 0), ["no_control_plane"]);
        readiness.welcomed();
        assert!(codes(&readiness, 0).is_empty());
        readiness.stopping();
        assert_eq!(codes(&readiness, 2), ["stopping", "worker_ended"]);
    }
}
