//! A viewer that takes pictures apart as a browser does: packets in order, missing ones asked for
//! again, a key frame asked for when that does not help. A picture is shown when all of it and all
//! before it has come since the last key frame, or when a key frame is whole. It counts freezes.

use std::collections::BTreeMap;

use muster_forward::vp8;

const NACK_AFTER_MS: u64 = 10;
const STUCK_MS: u64 = 300;
const PLI_EVERY_MS: u64 = 400;

struct Got {
    start: bool,
    key: Option<u16>,
    marker: bool,
}

#[derive(Default)]
pub struct Viewer {
    got: BTreeMap<u64, Got>,
    /// The next packet of the next picture.
    next: Option<u64>,
    newest: u64,
    /// Missing: when it was seen to be, and when it was asked for last.
    missing: BTreeMap<u64, (u64, u64)>,
    asked_key: u64,
    stuck_since: Option<u64>,
    shown_at: Option<u64>,
    /// When pictures were shown, and how high they were.
    pub shown: Vec<(u64, u16)>,
    height: u16,
    pub plis: u32,
}

impl Viewer {
    pub fn take(&mut self, ms: u64, seq: u16, marker: bool, payload: &[u8]) {
        let number = self.number(seq);
        let d = vp8::parse(payload).expect("a descriptor");
        let key = vp8::key_frame_size(payload, &d).map(|(_, height)| height);
        for n in (self.newest + 1).min(number)..number {
            self.missing.insert(n, (ms, 0));
        }
        self.newest = self.newest.max(number);
        self.missing.remove(&number);
        if self.next.is_some_and(|next| number < next) {
            return;
        }
        self.got.insert(
            number,
            Got {
                start: d.frame_start,
                key,
                marker,
            },
        );
        self.show(ms);
    }

    fn number(&mut self, seq: u16) -> u64 {
        if self.newest == 0 {
            self.newest = 0x1_0000 + u64::from(seq) - 1;
        }
        let step = seq.wrapping_sub(self.newest as u16) as i16;
        self.newest.saturating_add_signed(i64::from(step))
    }

    fn show(&mut self, ms: u64) {
        loop {
            let in_order = self.next.and_then(|next| self.whole(next).map(|end| (next, end)));
            let key = || {
                let keys = self.got.iter().rev().filter(|(_, g)| g.key.is_some());
                keys.map(|(n, _)| *n)
                    .find_map(|n| self.whole(n).map(|end| (n, end)))
            };
            let Some((from, end)) = in_order.or_else(key) else {
                self.stuck_since.get_or_insert(ms);
                return;
            };
            if let Some(height) = self.got[&from].key {
                self.height = height;
            }
            self.shown.push((ms, self.height));
            self.shown_at = Some(ms);
            self.stuck_since = None;
            self.next = Some(end + 1);
            self.got = self.got.split_off(&(end + 1));
            self.missing = self.missing.split_off(&(end + 1));
        }
    }

    /// The last packet of the picture that begins at `from`, if all of it is there.
    fn whole(&self, from: u64) -> Option<u64> {
        if !self.got.get(&from)?.start {
            return None;
        }
        let mut at = from;
        loop {
            let got = self.got.get(&at)?;
            if got.marker {
                return Some(at);
            }
            at += 1;
        }
    }

    /// What is asked for again now.
    pub fn nacks(&mut self, ms: u64, round_trip_ms: u64) -> Vec<u16> {
        let mut out = Vec::new();
        for (number, (seen, asked)) in &mut self.missing {
            if ms >= *seen + NACK_AFTER_MS && ms >= *asked + round_trip_ms + 20 {
                *asked = ms;
                out.push(*number as u16);
            }
        }
        out.truncate(200);
        out
    }

    /// A key frame is asked for now.
    pub fn wants_key(&mut self, ms: u64) -> bool {
        let stuck = self.stuck_since.is_some_and(|at| ms >= at + STUCK_MS);
        let wants = stuck && !self.missing.is_empty() && ms >= self.asked_key + PLI_EVERY_MS;
        if wants {
            self.asked_key = ms;
            self.plis += 1;
        }
        wants
    }

    /// The longest time without a new picture between two times.
    pub fn freeze(&self, from: u64, to: u64) -> u64 {
        let times = self.shown.iter().map(|s| s.0).filter(|t| (from..to).contains(t));
        let times: Vec<u64> = std::iter::once(from).chain(times).chain([to]).collect();
        times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0)
    }

    /// When pictures of this height began to be shown and were the only ones for a second.
    pub fn steadily(&self, height: u16, from: u64) -> Option<u64> {
        let after = self.shown.iter().filter(|s| s.0 >= from);
        let mut since = None;
        for (at, h) in after {
            if *h != height {
                since = None;
                continue;
            }
            let since = *since.get_or_insert(*at);
            if at - since >= 1000 {
                return Some(since);
            }
        }
        None
    }

    pub fn frames(&self, from: u64, to: u64) -> usize {
        self.shown.iter().filter(|s| (from..to).contains(&s.0)).count()
    }
}
