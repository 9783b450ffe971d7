//! The queue file: reports that wait to be handed in, and the last ones that were.
//!
//! Invariants: [`Queue::keep`] returns `Ok` only when the report is on the disk, and then it is found again after a power
//! cut at any byte; what is marked as sent or refused may be found waiting again (it is sent twice, and stored once). The
//! file is only appended to, or replaced whole. Nothing is dropped: a full queue refuses. Every call may wait for the
//! disk: none is made on the thread that carries media.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_proto::command::v1::HandInReportRequest;

use super::line::{Line, Outcome};
use super::record::{self, MAX_RECORD};

/// Reports that wait, at most.
pub const MAX_WAITING: usize = 1000;
/// Bytes of the file, at most.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Reports that are kept after they were handed in, to be shown.
pub const RECENT: usize = 20;
/// Bytes of no more use after which the file is written anew.
const SLACK: u64 = 64 * 1024;

const FILE: &str = "reports";
const NEW: &str = "reports.new";
const LOCK: &str = "lock";
const DAMAGED: &str = "reports.damaged";

/// Why a report was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("{MAX_WAITING} reports, or {} MiB, wait to be sent: the queue is full", MAX_BYTES / 1024 / 1024)]
    Full,
    #[error("the report is too long")]
    TooLong,
    #[error("the disk: {0}")]
    Disk(#[from] std::io::Error),
}

/// A report that was handed in, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    pub report: Arc<HandInReportRequest>,
    pub outcome: Outcome,
}

/// The queue of one box.
#[derive(Debug)]
pub struct Queue {
    dir: PathBuf,
    /// Held while this process uses the folder.
    _lock: File,
    file: File,
    /// Bytes of whole records; what was written beyond is taken back.
    len: u64,
    /// What they were when the file was new.
    base: u64,
    /// The file holds what nobody knows: it is written anew before anything is kept.
    broken: bool,
    waiting: VecDeque<Arc<HandInReportRequest>>,
    recent: VecDeque<Done>,
}

impl Queue {
    /// Opens the queue in a folder of its own, which is made if need be, and cuts off what a power cut left behind.
    ///
    /// # Errors
    /// Another process uses the folder, or the disk does not work.
    pub fn open(dir: &Path) -> std::io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        let lock = private().open(dir.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{}: another agent uses this folder", dir.display());
                return Err(std::io::Error::new(ErrorKind::AddrInUse, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let file = private().open(dir.join(FILE))?;
        let mut bytes = Vec::new();
        // Twice the most there can be: a larger one is not ours.
        (&file).take(2 * MAX_BYTES).read_to_end(&mut bytes)?;
        let found = record::read(&bytes);
        let torn = bytes.len() - found.end;
        if !found.damaged.is_empty() || torn > MAX_RECORD {
            tracing::error!(
                pieces = found.damaged.len(),
                torn,
                "the queue of reports was damaged; what it was is in {DAMAGED}"
            );
            std::fs::write(dir.join(DAMAGED), &bytes)?;
        } else if torn > 0 {
            tracing::warn!(torn, "cut off a report that was not kept yet when the power went");
        }
        let mut queue = Self {
            dir: dir.to_owned(),
            _lock: lock,
            file,
            len: bytes.len() as u64,
            base: bytes.len() as u64,
            broken: false,
            waiting: VecDeque::new(),
            recent: VecDeque::new(),
        };
        let bodies = found.bodies.len();
        for body in found.bodies {
            match Line::decode(body) {
                Ok(line) => queue.take(line),
                Err(error) => tracing::error!(%error, "passed over what another version wrote"),
            }
        }
        // Also what is whole may not have reached the disk before the power went.
        if torn > 0 || bodies != queue.waiting.len() {
            queue.rewrite()?;
        } else {
            queue.file.sync_all()?;
            sync_dir(dir)?;
        }
        Ok(queue)
    }

    /// Takes in a line of the file.
    fn take(&mut self, line: Line) {
        match line {
            Line::Kept(report) => {
                let known = self.waiting.iter().any(|other| other.id == report.id);
                if !known {
                    self.waiting.push_back(Arc::new(report));
                }
            }
            Line::Done(id, outcome) => {
                if let Some(at) = self.waiting.iter().position(|report| report.id == id)
                    && let Some(report) = self.waiting.remove(at)
                {
                    self.recent.push_back(Done { report, outcome });
                    if self.recent.len() > RECENT {
                        self.recent.pop_front();
                    }
                }
            }
        }
    }

    /// Keeps a report: it is on the disk when this returns.
    ///
    /// # Errors
    /// [`KeepError`]; then it is not kept, also not after a power cut.
    pub fn keep(&mut self, report: HandInReportRequest) -> Result<(), KeepError> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(KeepError::Full);
        }
        let line = Line::Kept(report);
        let bytes = line.encode().ok_or(KeepError::TooLong)?;
        let most = MAX_BYTES - bytes.len() as u64;
        if self.broken || self.len > most {
            self.rewrite()?;
        }
        if self.len > most {
            return Err(KeepError::Full);
        }
        self.write(&bytes, true)?;
        self.take(line);
        Ok(())
    }

    /// Notes what came of a report. Where the disk does not take it, it is sent again after the next start.
    pub fn done(&mut self, id: &str, outcome: Outcome) {
        let line = Line::Done(id.to_owned(), outcome);
        let written = match line.encode() {
            Some(bytes) if !self.broken && self.len + bytes.len() as u64 <= MAX_BYTES => {
                self.write(&bytes, false)
            }
            _ => Ok(()),
        };
        self.take(line);
        let is_long = self.len > 2 * self.base + SLACK;
        let result = if is_long { self.rewrite() } else { written };
        if let Err(error) = result {
            tracing::warn!(%error, "cannot note that a report was handed in; it may be sent again");
        }
    }

    /// Those that wait, oldest first.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Arc<HandInReportRequest>> {
        self.waiting.iter()
    }

    /// The last ones that were handed in, oldest first.
    pub fn recent(&self) -> impl ExactSizeIterator<Item = &Done> {
        self.recent.iter()
    }

    /// Appends whole records, or takes back what it wrote of them.
    fn write(&mut self, bytes: &[u8], durable: bool) -> std::io::Result<()> {
        let result = self
            .file
            .write_all_at(bytes, self.len)
            .and_then(|()| match durable {
                true => self.file.sync_data(),
                false => Ok(()),
            });
        match result {
            Ok(()) => {
                self.len += bytes.len() as u64;
            }
            Err(_) => {
                let taken_back = self.file.set_len(self.len).and_then(|()| self.file.sync_all());
                self.broken = taken_back.is_err();
            }
        }
        result
    }

    /// Writes what is of use into a new file, and puts it in the place of the old one.
    fn rewrite(&mut self) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        for Done { report, outcome } in &self.recent {
            let done = Line::Done(report.id.clone(), outcome.clone());
            for line in [Line::Kept(HandInReportRequest::clone(report)), done] {
                bytes.extend(line.encode().unwrap_or_default());
            }
        }
        for report in &self.waiting {
            bytes.extend(
                Line::Kept(HandInReportRequest::clone(report))
                    .encode()
                    .unwrap_or_default(),
            );
        }
        let new = self.dir.join(NEW);
        let file = private().truncate(true).open(&new)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&new, self.dir.join(FILE))?;
        self.file = file;
        self.len = bytes.len() as u64;
        self.base = self.len;
        let synced = sync_dir(&self.dir);
        self.broken = synced.is_err();
        synced
    }
}

/// Read and written by its owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str) -> HandInReportRequest {
        HandInReportRequest {
            id: id.into(),
            text: format!("{id} 水漫进地下室"),
            ..Default::default()
        }
    }

    fn ids(queue: &Queue) -> Vec<&str> {
        queue.waiting().map(|report| report.id.as_str()).collect()
    }

    fn kept(dir: &Path, count: usize) -> Queue {
        let mut queue = Queue::open(dir).expect("opened");
        for number in 0..count {
            queue.keep(report(&format!("r{number}"))).expect("kept");
        }
        queue
    }

    #[test]
    fn what_was_kept_is_there_after_a_start_and_what_was_sent_does_not_wait() {
        let dir = tempfile::tempdir().expect("folder");
        let mut queue = kept(dir.path(), 3);
        queue.done("r1", Outcome::Sent(7));
        queue.done("r0", Outcome::Refused("too old".into()));
        queue.done("nobody", Outcome::Sent(1));
        drop(queue);
        let queue = Queue::open(dir.path()).expect("opened");
        assert_eq!(ids(&queue), ["r2"]);
        let recent: Vec<_> = queue
            .recent()
            .map(|done| (done.report.id.as_str(), done.outcome.clone()))
            .collect();
        assert_eq!(
            recent,
            [
                ("r1", Outcome::Sent(7)),
                ("r0", Outcome::Refused("too old".into()))
            ]
        );
    }

    #[test]
    fn a_file_that_was_cut_at_any_byte_opens_with_all_that_came_before_and_goes_on() {
        let dir = tempfile::tempdir().expect("folder");
        let mut ends = vec![0];
        let mut queue = Queue::open(dir.path()).expect("opened");
        for number in 0..4 {
            queue.keep(report(&format!("r{number}"))).expect("kept");
            ends.push(queue.len);
        }
        drop(queue);
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).expect("read");
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("cut");
            // What a rewriting that was cut off too leaves behind is of no account.
            std::fs::write(dir.path().join(NEW), &whole[cut..]).expect("written");
            let mut queue = Queue::open(dir.path()).expect("opened");
            let count = ends.iter().filter(|end| **end > 0 && **end <= cut as u64).count();
            assert_eq!(queue.waiting().len(), count, "cut at {cut}");
            queue.keep(report("next")).expect("kept");
            drop(queue);
            let queue = Queue::open(dir.path()).expect("opened");
            assert_eq!(ids(&queue).last(), Some(&"next"), "cut at {cut}");
            assert_eq!(queue.waiting().len(), count + 1);
        }
        assert!(!dir.path().join(DAMAGED).exists(), "a torn tail is no damage");
    }

    #[test]
    fn a_flipped_byte_costs_one_record_and_what_it_was_is_put_aside() {
        let dir = tempfile::tempdir().expect("folder");
        drop(kept(dir.path(), 3));
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).expect("read");
        let third = whole.len() / 3;
        for at in 0..third {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).expect("written");
            let queue = Queue::open(dir.path()).expect("opened");
            assert_eq!(ids(&queue), ["r1", "r2"], "byte {at}");
            assert_eq!(
                std::fs::read(dir.path().join(DAMAGED)).expect("put aside"),
                flipped
            );
        }
    }

    #[test]
    fn a_full_queue_refuses_and_loses_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        // Without the disk's pace: the file is made beforehand.
        let mut bytes = Vec::new();
        for number in 0..MAX_WAITING {
            bytes.extend(Line::Kept(report(&format!("r{number}"))).encode().expect("short"));
        }
        std::fs::write(dir.path().join(FILE), bytes).expect("written");
        let mut queue = Queue::open(dir.path()).expect("opened");
        assert!(matches!(queue.keep(report("more")), Err(KeepError::Full)));
        assert_eq!(queue.waiting().len(), MAX_WAITING);
        queue.done("r0", Outcome::Sent(1));
        queue.keep(report("more")).expect("there is room again");
        assert_eq!(ids(&queue).last(), Some(&"more"));
    }

    #[test]
    fn the_file_stays_small_however_many_are_sent() {
        let dir = tempfile::tempdir().expect("folder");
        let mut queue = kept(dir.path(), 2);
        for number in 0..1500 {
            let id = format!("s{number}");
            let bytes = Line::Kept(report(&id)).encode().expect("short");
            queue.write(&bytes, false).expect("written");
            queue.take(Line::Kept(report(&id)));
            queue.done(&id, Outcome::Sent(1));
            assert!(queue.len < 3 * SLACK, "{} bytes", queue.len);
        }
        drop(queue);
        let queue = Queue::open(dir.path()).expect("opened");
        assert_eq!((ids(&queue), queue.recent().len()), (vec!["r0", "r1"], RECENT));
    }

    #[test]
    fn a_disk_that_takes_no_more_refuses_and_keeps_what_there_was() {
        let dir = tempfile::tempdir().expect("folder");
        let mut queue = kept(dir.path(), 1);
        // A file that cannot be written to stands for a disk that fails.
        let writable = std::mem::replace(
            &mut queue.file,
            File::open(dir.path().join(FILE)).expect("opened"),
        );
        assert!(matches!(queue.keep(report("lost")), Err(KeepError::Disk(_))));
        assert_eq!(ids(&queue), ["r0"]);
        drop(writable);
        // It works again: the file is written anew first.
        queue.keep(report("r1")).expect("kept");
        drop(queue);
        assert_eq!(ids(&Queue::open(dir.path()).expect("opened")), ["r0", "r1"]);
    }

    #[test]
    fn a_folder_is_one_agents() {
        let dir = tempfile::tempdir().expect("folder");
        let queue = kept(dir.path(), 1);
        let error = Queue::open(dir.path()).expect_err("in use");
        assert!(error.to_string().contains("another agent"), "{error}");
        drop(queue);
        Queue::open(dir.path()).expect("free again");
    }
}
