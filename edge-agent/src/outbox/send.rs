//! Hands in what waits, oldest first, one at a time, while the control plane is reached.
//!
//! Invariant: a report leaves the queue only when the control plane has said that it has it, or that it never takes it;
//! whatever else happens it is handed in again, with backoff.

use std::time::Duration;

use muster_proto::command::v1::HandInReportRequest;
use tokio::sync::watch;
use tonic::{Code, Status};

use super::{Outbox, Outcome};
use crate::backoff::Backoff;

/// The way to the control plane.
pub trait Carrier: Send + Sync {
    /// Hands a report in; when it was stored first, milliseconds since the Unix epoch.
    fn hand_in(&self, report: HandInReportRequest) -> impl Future<Output = Result<i64, Status>> + Send;
}

/// Sends until one of the others is gone. `reached` says whether the control plane is.
pub async fn send(outbox: Outbox, carrier: impl Carrier, mut reached: watch::Receiver<bool>) {
    let mut contents = outbox.subscribe();
    let mut backoff = Backoff::default();
    loop {
        let oldest = match contents.wait_for(|contents| !contents.waiting.is_empty()).await {
            Ok(contents) => contents.waiting[0].clone(),
            Err(_) => return,
        };
        if reached.wait_for(|reached| *reached).await.is_err() {
            return;
        }
        match carrier.hand_in(HandInReportRequest::clone(&oldest)).await {
            Ok(received_ms) => {
                backoff.reset();
                outbox.done(&oldest.id, Outcome::Sent(received_ms)).await;
            }
            Err(status) if status.code() == Code::InvalidArgument => {
                tracing::error!(id = oldest.id, %status, "the control plane does not take a report");
                let reason = status.message().to_owned();
                outbox.done(&oldest.id, Outcome::Refused(reason)).await;
            }
            Err(status) => {
                tracing::warn!(%status, waiting = contents.borrow().waiting.len(), "a report is not handed in yet");
                wait(backoff.next(rand::random()), &mut reached).await;
            }
        }
    }
}

/// Waits, but not longer than until the control plane is reached again.
async fn wait(time: Duration, reached: &mut watch::Receiver<bool>) {
    reached.mark_unchanged();
    let back = async {
        while reached.changed().await.is_ok() {
            if *reached.borrow_and_update() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(time, back).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Answers as told, and notes what it was given.
    #[derive(Clone, Default)]
    struct Told {
        answers: Arc<Mutex<Vec<Result<i64, Status>>>>,
        given: Arc<Mutex<Vec<String>>>,
    }

    impl Carrier for Told {
        async fn hand_in(&self, report: HandInReportRequest) -> Result<i64, Status> {
            self.given.lock().expect("lock").push(report.text);
            let mut answers = self.answers.lock().expect("lock");
            if answers.is_empty() {
                Ok(1)
            } else {
                answers.remove(0)
            }
        }
    }

    #[tokio::test]
    async fn reports_go_in_order_are_sent_again_and_a_refused_one_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("folder");
        let outbox = Outbox::open(dir.path().to_owned()).await.expect("opened");
        for text in ["a", "b", "c"] {
            outbox.write(text, 1).await.expect("kept");
        }
        let told = Told::default();
        *told.answers.lock().expect("lock") = vec![
            Err(Status::unavailable("away")),
            Err(Status::resource_exhausted("too many")),
            Ok(7),
            Err(Status::invalid_argument("no")),
        ];
        let (reached, receiver) = watch::channel(false);
        let mut contents = outbox.subscribe();
        let sending = tokio::spawn(send(outbox.clone(), told.clone(), receiver));
        // Nothing is tried before the control plane is reached.
        tokio::task::yield_now().await;
        assert!(told.given.lock().expect("lock").is_empty());
        reached.send_replace(true);
        let done = contents
            .wait_for(|contents| contents.waiting.is_empty())
            .await
            .expect("told")
            .clone();
        assert_eq!(*told.given.lock().expect("lock"), ["a", "a", "a", "b", "c"]);
        let outcomes: Vec<_> = done.recent.iter().map(|done| done.outcome.clone()).collect();
        assert_eq!(
            outcomes,
            [Outcome::Sent(7), Outcome::Refused("no".into()), Outcome::Sent(1)]
        );
        sending.abort();
    }
}
