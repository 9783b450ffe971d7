//! Reports that wait on the box: opened at the start, sent while the control plane is reached, counted in the status.

use std::path::Path;

use tokio::sync::watch;

use crate::control::ControlPlane;
use crate::outbox::{Outbox, send};

use super::Agent;

/// The queue's folder in the state folder.
const FOLDER: &str = "outbox";

/// Opens the queue, and begins to send what waits in it. An agent without one meets all the same.
pub(super) async fn open(
    state_dir: Option<&Path>,
    control: &ControlPlane,
    reached: watch::Receiver<bool>,
) -> Option<Outbox> {
    let dir = state_dir?.join(FOLDER);
    match Outbox::open(dir.clone()).await {
        Ok(outbox) => {
            tokio::spawn(send::send(outbox.clone(), control.clone(), reached));
            Some(outbox)
        }
        Err(error) => {
            tracing::error!(%error, dir = %dir.display(), "no report can be kept");
            None
        }
    }
}

impl Agent {
    /// Says whether the control plane is reached, and counts what waits.
    pub(super) fn tell_reports(&mut self) {
        self.reached.send_if_modified(|reached| {
            let changed = *reached != self.attached;
            *reached = self.attached;
            changed
        });
        self.status.reports_waiting = self.outbox.as_ref().map_or(0, Outbox::waiting);
    }
}
