//! Reports and answers of the people at the site, kept on the box until the control plane has them.
//!
//! A report is on the disk before anybody is told that it is kept ([`queue`]), is handed in when the control plane is
//! reached ([`send`]), and is stored there once, however often that takes: its id is made here. Nothing is dropped; a full
//! queue refuses. It knows nothing of pages, and does not decide what a report says.

mod line;
pub mod queue;
mod record;
pub mod send;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use muster_proto::command::v1::{HandInReportRequest, ReportKind};
use tokio::sync::watch;

pub use line::Outcome;
pub use queue::{Done, KeepError, Queue};

/// Characters of a report, at most.
pub const MAX_TEXT: usize = 500;

/// What waits, and what was handed in last; oldest first.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub waiting: Arc<[Arc<HandInReportRequest>]>,
    pub recent: Arc<[Done]>,
}

/// Why a text is not kept.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("a report has 1 to {MAX_TEXT} characters")]
    Text,
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("the agent ends")]
    Ending,
}

/// The queue, shared. Its calls wait for the disk on a thread of their own.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: Arc<Mutex<Queue>>,
    contents: Arc<watch::Sender<Contents>>,
}

impl Outbox {
    /// Opens the queue in this folder.
    ///
    /// # Errors
    /// As [`Queue::open`].
    pub async fn open(dir: PathBuf) -> std::io::Result<Self> {
        let queue = tokio::task::spawn_blocking(move || Queue::open(&dir));
        let queue = queue.await.map_err(std::io::Error::other)??;
        let contents = watch::Sender::new(contents(&queue));
        Ok(Self {
            queue: Arc::new(Mutex::new(queue)),
            contents: Arc::new(contents),
        })
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.contents.borrow().waiting.len()
    }

    /// What is in it, now and from now on.
    pub fn subscribe(&self) -> watch::Receiver<Contents> {
        self.contents.subscribe()
    }

    /// Keeps what a person wrote at this time (milliseconds since the Unix epoch). Returns its id.
    ///
    /// # Errors
    /// [`WriteError`]; then it is not kept.
    pub async fn write(&self, text: &str, now_ms: i64) -> Result<String, WriteError> {
        let text = plain(text).ok_or(WriteError::Text)?;
        self.keep(HandInReportRequest {
            kind: ReportKind::Words.into(),
            text,
            written_ms: now_ms,
            ..HandInReportRequest::default()
        })
        .await
    }

    /// Keeps that a person answered this roll call of this meeting at this time. Returns its id.
    ///
    /// # Errors
    /// [`WriteError`]; then it is not kept.
    pub async fn answer(&self, meeting: &str, roll_call: u32, now_ms: i64) -> Result<String, WriteError> {
        self.keep(HandInReportRequest {
            kind: ReportKind::RollCallAnswer.into(),
            meeting: meeting.to_owned(),
            roll_call,
            written_ms: now_ms,
            ..HandInReportRequest::default()
        })
        .await
    }

    async fn keep(&self, mut report: HandInReportRequest) -> Result<String, WriteError> {
        let id = format!("r{:032x}", rand::random::<u128>());
        report.id.clone_from(&id);
        let kept = self.with_queue(move |queue| queue.keep(report)).await;
        kept.ok_or(WriteError::Ending)??;
        Ok(id)
    }

    async fn done(&self, id: &str, outcome: Outcome) {
        let id = id.to_owned();
        self.with_queue(move |queue| queue.done(&id, outcome)).await;
    }

    /// None if the runtime ends.
    async fn with_queue<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Queue) -> T + Send + 'static,
    ) -> Option<T> {
        let (shared, told) = (self.queue.clone(), self.contents.clone());
        let work = tokio::task::spawn_blocking(move || {
            let mut queue = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let result = act(&mut queue);
            told.send_replace(contents(&queue));
            result
        });
        work.await.ok()
    }
}

fn contents(queue: &Queue) -> Contents {
    Contents {
        waiting: queue.waiting().cloned().collect(),
        recent: queue.recent().cloned().collect(),
    }
}

/// The text as it may be handed in: line feeds are its only control characters. None if that is nothing, or too long.
fn plain(text: &str) -> Option<String> {
    let text: String = text
        .replace("\r\n", "\n")
        .chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect();
    let text = text.trim();
    let fits = !text.is_empty() && text.chars().count() <= MAX_TEXT;
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_trimmed_and_holds_no_control_characters_but_line_feeds() {
        assert_eq!(plain(" 水\r\n火\t土\u{7}\n"), Some("水\n火 土".into()));
        for bad in ["", " \n\r ", &"水".repeat(501)] {
            assert_eq!(plain(bad), None);
        }
        assert!(plain(&"水".repeat(500)).is_some());
    }

    #[tokio::test]
    async fn what_was_written_is_told_and_there_after_a_start() {
        let dir = tempfile::tempdir().expect("folder");
        let outbox = Outbox::open(dir.path().to_owned()).await.expect("opened");
        let mut told = outbox.subscribe();
        let id = outbox.write("no light", 5).await.expect("kept");
        outbox.answer("m1", 2, 6).await.expect("kept");
        let found = told
            .wait_for(|contents| contents.waiting.len() == 2)
            .await
            .expect("told")
            .clone();
        assert_eq!(
            (found.waiting[0].id.as_str(), found.waiting[0].written_ms),
            (id.as_str(), 5)
        );
        assert_eq!(
            (found.waiting[1].meeting.as_str(), found.waiting[1].roll_call),
            ("m1", 2)
        );
        outbox.done(&id, Outcome::Sent(9)).await;
        drop(outbox);
        let outbox = Outbox::open(dir.path().to_owned()).await.expect("opened");
        let found = outbox.subscribe().borrow().clone();
        assert_eq!((found.waiting.len(), found.recent.len()), (1, 1));
        assert_eq!(found.recent[0].outcome, Outcome::Sent(9));
    }
}
