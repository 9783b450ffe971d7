//! Reports that wait on the box: opened at the start, shown on the site's page, sent while the control plane is reached,
//! counted in the status.

use std::path::Path;

use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::control::ControlPlane;
use crate::outbox::{Outbox, send};
use crate::page::{self, Sources};
use crate::publisher::page::desk::Desk;
use crate::recorder::Recorder;
use crate::status::Status;

use super::{Agent, Input};

/// The queue's folder in the state folder.
const FOLDER: &str = "outbox";

/// Opens the queue. An agent without one meets all the same.
pub(super) async fn open(state_dir: Option<&Path>) -> Option<Outbox> {
    let dir = state_dir?.join(FOLDER);
    match Outbox::open(dir.clone()).await {
        Ok(outbox) => Some(outbox),
        Err(error) => {
            tracing::error!(%error, dir = %dir.display(), "no report can be kept");
            None
        }
    }
}

/// Begins to serve the site's page, also while nothing of the outside is reached.
pub(super) fn serve_page(
    config: &mut Config,
    outbox: Option<&Outbox>,
    recorder: Option<&Recorder>,
    desk: Option<Desk>,
    touches: mpsc::Sender<Input>,
) {
    let Some(listen) = config.page else { return };
    if !listen.ip().is_loopback() {
        tracing::warn!(%listen, "the site's page is open to everybody who reaches this address");
    }
    // Of an address only its kind is shown: it may hold a password.
    let source = config.source.to_string();
    let source = source.split(':').next().unwrap_or_default().to_owned();
    let status = config
        .watchers
        .get_or_insert_with(|| watch::Sender::new(Status::default()))
        .subscribe();
    tokio::spawn(page::serve(
        listen,
        Sources {
            status,
            outbox: outbox.cloned(),
            recordings: recorder.map(Recorder::subscribe),
            source,
            desk,
            touches: Some(touches),
        },
    ));
}

/// Begins to send what waits. It is to be told whether the control plane is reached.
pub(super) fn send(outbox: Option<&Outbox>, control: &ControlPlane) -> watch::Sender<bool> {
    let reached = watch::Sender::new(false);
    if let Some(outbox) = outbox {
        tokio::spawn(send::send(outbox.clone(), control.clone(), reached.subscribe()));
    }
    reached
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
