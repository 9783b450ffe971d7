//! What watchers of a leg are told, coalesced: the newest state of each slot, the newest speakers, quality and notice.
//!
//! The worker posts, one reader takes. A slow reader finds the newest state and never a backlog: what waits is bounded by
//! the number of slots. A heartbeat comes when nothing else did for 5 s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_proto::media::v1::watch_leg_response::Event;
use muster_proto::media::v1::{Heartbeat, LegQuality, MeetingNotice, SlotState, Speakers, WatchLegResponse};
use tokio::sync::Notify;

const HEARTBEAT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Pending {
    slots: BTreeMap<usize, SlotState>,
    speakers: Option<Speakers>,
    quality: Option<LegQuality>,
    notice: Option<MeetingNotice>,
    over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker's end. Dropping it ends the watcher once it has read what was posted.
#[derive(Debug)]
pub(crate) struct Post(Arc<Shared>);

/// The watcher's end.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    ready: VecDeque<Event>,
}

pub(crate) fn pair() -> (Post, Watch) {
    let shared = Arc::new(Shared::default());
    (
        Post(shared.clone()),
        Watch {
            shared,
            ready: VecDeque::new(),
        },
    )
}

impl Post {
    pub fn slot(&self, index: usize, state: SlotState) {
        self.change(|pending| {
            pending.slots.insert(index, state);
        });
    }

    pub fn speakers(&self, speakers: Speakers) {
        self.change(|pending| pending.speakers = Some(speakers));
    }

    pub fn quality(&self, quality: LegQuality) {
        self.change(|pending| pending.quality = Some(quality));
    }

    pub fn notice(&self, notice: MeetingNotice) {
        self.change(|pending| pending.notice = Some(notice));
    }

    /// Whether nobody reads any more.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.0.pending());
        self.0.changed.notify_one();
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.change(|pending| pending.over = true);
    }
}

impl Watch {
    /// The next thing to tell; `None` when the leg is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchLegResponse> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(WatchLegResponse { event: Some(event) });
            }
            let over = self.take();
            if !self.ready.is_empty() {
                continue;
            }
            if over {
                return None;
            }
            if tokio::time::timeout(HEARTBEAT, self.shared.changed.notified())
                .await
                .is_err()
            {
                return Some(WatchLegResponse {
                    event: Some(Event::Heartbeat(Heartbeat { at_ms: now_ms() })),
                });
            }
        }
    }

    fn take(&mut self) -> bool {
        let mut pending = self.shared.pending();
        let over = pending.over;
        self.ready
            .extend(std::mem::take(&mut pending.slots).into_values().map(Event::Slot));
        self.ready.extend(pending.speakers.take().map(Event::Speakers));
        self.ready.extend(pending.quality.take().map(Event::Quality));
        self.ready.extend(pending.notice.take().map(Event::Notice));
        over
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_watcher_gets_the_newest_state_of_each_slot() {
        let (post, mut watch) = pair();
        for width in 1..1000 {
            post.slot(
                3,
                SlotState {
                    width,
                    ..Default::default()
                },
            );
        }
        post.slot(
            1,
            SlotState {
                width: 5,
                ..Default::default()
            },
        );
        let widths: Vec<u32> = [watch.next().await, watch.next().await]
            .into_iter()
            .flatten()
            .filter_map(|response| match response.event {
                Some(Event::Slot(slot)) => Some(slot.width),
                _ => None,
            })
            .collect();
        assert_eq!(widths, [5, 999]);
    }

    #[tokio::test]
    async fn a_watch_ends_after_what_was_posted() {
        let (post, mut watch) = pair();
        post.notice(MeetingNotice {
            ended: true,
            ..Default::default()
        });
        drop(post);
        assert!(matches!(watch.next().await.and_then(|r| r.event), Some(Event::Notice(n)) if n.ended));
        assert_eq!(watch.next().await, None);
    }
}
