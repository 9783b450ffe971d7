//! First contact: short trains of filling tell what the path takes, before there is anything to send.
//!
//! A train of a few large datagrams leaves back to back; how far apart they arrive is what the narrowest hop takes (packet
//! dispersal). Each train is longer than the one before, as long as it is through in [`LONGEST`] by what the last one told, so
//! that a narrow path is not filled. What is to be sent goes first: with video waiting no more filling leaves.
//! The feedback of a train says nothing of queues: they are the train's own doing.

use bytes::{Bytes, BytesMut};

use super::super::{Micros, wire};
use super::{Carried, Sender};

/// Datagrams of each train, and the bytes of each.
const TRAINS: [(u64, usize); 3] = [(3, 600), (12, 1100), (32, 1100)];
/// A train is through in so long, µs.
const LONGEST: Micros = 250_000;
/// The first is, on most.
const UNKNOWN: Micros = 50_000;
/// A train that brought nothing is sent again so often.
const TRIES: u32 = 2;
/// Feedback of its end is waited for so long over what it takes, µs.
const PATIENCE: Micros = 100_000;
/// Arrivals are together or apart by chance so far, µs: short trains are believed the less for it.
const BLUR: Micros = 5_000;
/// A round trip that is shorter says as much as the time between arrivals, µs.
const SOON: Micros = 20_000;
/// So much of what was seen is taken: others are on the path, too.
const SHARE: f64 = 0.7;

/// The train that is on its way.
#[derive(Debug)]
pub(super) struct Train {
    /// Which of [`TRAINS`].
    step: usize,
    /// Its first transmission, once it is sent.
    first: Option<u64>,
    left: u64,
    sent: u64,
    /// No other follows.
    last_one: bool,
    tries: u32,
    /// So long it takes, as far as is known, µs.
    takes: Micros,
    sent_at: Micros,
    /// The first and the last arrival that were told: transmission and when.
    seen: Option<(u64, Micros)>,
    last: Option<(u64, Micros)>,
    /// When the last was told of, without the receiver's waiting, by our clock.
    told: Micros,
    /// What was sent after it has arrived.
    over: bool,
}

impl Train {
    fn new(step: usize, tries: u32, takes: Micros) -> Self {
        Self {
            step,
            first: None,
            left: TRAINS[step].0,
            sent: 0,
            last_one: false,
            tries,
            takes,
            sent_at: 0,
            seen: None,
            last: None,
            told: 0,
            over: false,
        }
    }
}

impl Sender {
    /// Begins to explore the path; to be called once, when the link is made.
    pub fn explore(&mut self) {
        self.train = Some(Train::new(0, 0, UNKNOWN));
    }

    /// Whether a train is on its way.
    pub(super) fn is_exploring(&self) -> bool {
        self.train.is_some()
    }

    /// The next datagram of a train.
    pub(super) fn next_filling(&mut self, now: Micros, scratch: &mut BytesMut) -> Option<Bytes> {
        let next = self.next_transmission();
        let train = self.train.as_mut()?;
        train.left = train.left.checked_sub(1)?;
        train.sent += 1;
        train.first.get_or_insert(next);
        train.sent_at = now;
        wire::write_filling(next as u16, TRAINS[train.step].1, scratch);
        Some(self.note(now, Carried::Filling, scratch))
    }

    /// When there is something to do for exploring.
    pub(super) fn exploring_wakes(&self, now: Micros) -> Option<Micros> {
        let train = self.train.as_ref()?;
        Some(if train.left > 0 {
            now
        } else {
            self.train_ends(train)
        })
    }

    fn train_ends(&self, train: &Train) -> Micros {
        train.sent_at + 2 * self.path.rtt() + train.takes + PATIENCE
    }

    /// A transmission is the newest that arrived. Says whether its delay tells of the path: it is not in its own train's way.
    pub(super) fn train_arrived(&mut self, newest: u64, arrival: Micros, told: Micros) -> bool {
        let Some(train) = &mut self.train else { return true };
        let Some(first) = train.first.filter(|&first| newest >= first) else {
            return true;
        };
        if newest >= first + train.sent && train.left == 0 {
            // What came after the train tells that it is through: its last may be lost, or have come before others.
            train.over = true;
            if train.last == train.seen {
                train.last = train.seen.map(|_| (first + train.sent - 1, arrival));
            }
            return true;
        }
        train.seen.get_or_insert((newest, arrival));
        train.last = Some((newest, arrival));
        train.told = told;
        newest == first
    }

    /// After a feedback was taken: whether the train is through.
    pub(super) fn look_at_train(&mut self) {
        let Some(train) = &self.train else { return };
        let through = |first| train.last.is_some_and(|(last, _)| last + 1 >= first + train.sent);
        if train.left == 0 && (train.over || train.first.is_some_and(through)) {
            self.end_train();
        }
    }

    /// Ends a train whose end is not heard of, and one that is in the way of what is to be sent.
    pub(super) fn end_train_in_time(&mut self, now: Micros) {
        if let Some(train) = &mut self.train
            && !self.video.is_empty()
        {
            (train.left, train.last_one) = (0, true);
            if train.sent == 0 {
                self.train = None;
                return;
            }
        }
        let over = |train: &Train| train.left == 0 && now >= self.train_ends(train);
        if self.train.as_ref().is_some_and(over) {
            self.end_train();
        }
    }

    /// Learns what the train told; sends the next, or the same again, or ends.
    fn end_train(&mut self) {
        let Some(train) = self.train.take() else { return };
        let Some(bps) = self.told_by(&train) else {
            if train.tries < TRIES && !train.last_one {
                // Where the last came first, a longer one tells more.
                let step = (train.step + usize::from(train.seen.is_some())).min(TRAINS.len() - 1);
                self.train = Some(Train::new(step, train.tries + 1, train.takes));
            }
            return;
        };
        self.rate.explored(bps * SHARE);
        let next = train.step + 1;
        let takes =
            |&(count, bytes): &(u64, usize)| ((count as usize * bytes * 8) as f64 * 1e6 / bps) as Micros;
        if let Some(takes) = TRAINS.get(next).map(takes).filter(|&takes| takes <= LONGEST)
            && !train.last_one
        {
            self.train = Some(Train::new(next, 0, takes));
        }
    }

    /// What got through between the first arrival that was told and the last, bits a second.
    fn told_by(&self, train: &Train) -> Option<f64> {
        let ((first, from), (last, to)) = (train.seen?, train.last?);
        let (after, span) = if first < last {
            (first + 1, to.saturating_sub(from))
        } else {
            // All in one go, as far as is known: at least so much, where it comes soon.
            let took = train.told.saturating_sub(train.sent_at);
            (train.first? + 1, (took < SOON).then_some(took)?)
        };
        // Those that were lost were on their way, too: what is found is what may be sent, not what comes of it.
        let sent = (after..=last).filter_map(|number| {
            self.sent
                .get(usize::try_from(number.checked_sub(self.sent_base)?).ok()?)
        });
        let bytes: usize = sent.map(|sent| sent.bytes).sum();
        (bytes > 0).then(|| bytes as f64 * 8e6 / (span + BLUR) as f64)
    }
}
