//! What became of what was sent: feedback marks it, the order of transmissions decides what is lost.

use super::super::wire::{self, Feedback};
use super::super::{Class, Micros, plan, unwrap16, unwrap32};
use super::{Carried, FULL_BUFFER, Item, LONG_DARK, MOST_AGAIN, MOST_PATIENCE, MOST_REORDER, Sender, State};

impl Sender {
    /// Takes feedback of the other end.
    pub fn feedback(&mut self, now: Micros, feedback: &Feedback) {
        let Some(newest) = self.known(feedback.newest) else {
            return;
        };
        // Where it should be by now: a link may have rested for longer than the field's range.
        let rested = self.fed.map_or(0, |fed| now.saturating_sub(fed));
        let clock = self.clock.map_or(u64::from(feedback.clock) + (1 << 32), |last| {
            unwrap32(feedback.clock, last + rested)
        });
        if self.clock.is_some_and(|last| clock <= last) {
            return;
        }
        self.clock = Some(clock);
        if self.is_dark(now) && self.unanswered.is_some_and(|since| since + LONG_DARK < now) {
            self.rate.resume();
        }
        self.fed = Some(now);
        self.unanswered = None;
        self.stats.feedback += 1;
        let age = u64::from(feedback.age) * wire::AGE_UNIT;
        let arrival = clock.saturating_sub(age);
        // Of a link that rests the same is told again and again.
        let rests = self.newest == Some(newest) && newest + 1 == self.next_transmission();
        if self.newest.is_none_or(|last| newest > last) {
            self.newest = Some(newest);
            // An age that does not fit its field says nothing of when.
            let tells =
                feedback.age < u16::MAX && self.train_arrived(newest, arrival, now.saturating_sub(age));
            let sent = &self.sent[(newest - self.sent_base) as usize];
            if tells {
                let takes = self.rate.takes(sent.bytes);
                self.path.sample(now, sent.at, arrival, age, takes, sent.ahead);
            }
        }
        let exploring = self.is_exploring();
        let probing = self.is_probing(now);
        self.mark_arrived(newest, arrival, feedback.before);
        if probing && !self.is_probing(now) {
            let (waited, jitter, rtt) = (self.path.waited(), self.path.jitter(), self.path.least_rtt());
            self.rate.begin(waited, jitter, rtt, self.loss.share());
        }
        self.look_at_train();
        self.mark_done(feedback);
        self.decide(now, clock);
        while let Some(first) = self.touched.pop() {
            self.mend(now, first);
        }
        self.terms = self.budget.terms(self.path.least_rtt(), self.rate.get());
        let queue = self.path.queue();
        let base = self.path.rtt().saturating_sub(queue);
        if exploring || rests {
            return;
        }
        self.rate
            .update(now, queue, self.path.jitter(), base, self.loss.share());
    }

    /// The full number of a transmission that was made and is remembered.
    pub(super) fn known(&self, low: u16) -> Option<u64> {
        let next = self.sent_base + self.sent.len() as u64;
        let full = unwrap16(low, self.newest.unwrap_or(next.saturating_sub(1)));
        (full >= self.sent_base && full < next).then_some(full)
    }

    pub(super) fn mark_arrived(&mut self, newest: u64, arrival: Micros, before: u64) {
        for back in 0..=64u64 {
            let there = back == 0 || before & (1 << (back - 1)) != 0;
            let Some(index) = newest
                .checked_sub(back)
                .and_then(|number| number.checked_sub(self.sent_base))
            else {
                break;
            };
            let Some(sent) = self.sent.get_mut(index as usize) else {
                break;
            };
            if there && !sent.arrived {
                sent.arrived = true;
                self.rate.arrived(arrival, sent.bytes);
                let tells = !matches!(sent.carried, Carried::Filling);
                self.heard = self.heard.saturating_add(u32::from(tells));
                self.patience -= self.patience / 512;
                self.reorder -= self.reorder / 512;
                let late = newest - back < self.undecided;
                let (number, shard) = match sent.carried {
                    Carried::One(number) => (number, 0),
                    Carried::Shard(first) => (first, 1),
                    Carried::Nothing | Carried::Filling | Carried::Many(_) => (u64::MAX, 0),
                };
                if let Some(frame) = self.frames.of(number) {
                    frame.flying = frame.flying.saturating_sub(u32::from(!late));
                    frame.opening = frame.opening.saturating_sub(u32::from(!late && sent.opening));
                    frame.shards_arrived += shard;
                    let opened = sent.opening && !late && frame.opening == 0;
                    if !frame.over && (opened || frame.is_idle()) {
                        self.touched.push(frame.first);
                    }
                }
                if late {
                    // It was taken for lost.
                    // Those of a train are so near each other that chance decides who comes first.
                    if sent.overdue {
                        self.patience = (self.patience + 4_000).min(MOST_PATIENCE);
                    } else if tells {
                        self.reorder = (self.reorder + 1_000).min(MOST_REORDER);
                    }
                    self.loss.undo((self.undecided - 1 - (newest - back)) as usize);
                }
            }
        }
    }

    pub(super) fn mark_done(&mut self, feedback: &Feedback) {
        let end = self.end();
        let first = unwrap16(feedback.first, end);
        for number in self.held_base..first.min(end) {
            if let Some(held) = self.get(number) {
                held.state = State::Done;
            }
        }
        for offset in 0..feedback.bitmap.len() * 8 {
            let number = first + offset as u64;
            if number >= end {
                break;
            }
            if feedback.has(offset) == Some(true)
                && let Some(held) = self.get(number)
            {
                held.state = State::Done;
            }
        }
    }

    /// Decides the fate of transmissions in their order, and plans what is missing.
    pub(super) fn decide(&mut self, now: Micros, clock: Micros) {
        let Some(newest) = self.newest else { return };
        let Some(newest_at) = self
            .sent
            .get((newest - self.sent_base) as usize)
            .map(|sent| sent.at)
        else {
            return;
        };
        self.undecided = self.undecided.max(self.sent_base);
        let full = self.path.queue() > FULL_BUFFER + self.path.least_rtt() / 10;
        while let Some(sent) = self.sent.get((self.undecided - self.sent_base) as usize).cloned() {
            let number = self.undecided;
            if !sent.arrived {
                let overtaken =
                    number < newest && sent.at + self.reorder <= newest_at || number + 64 < newest;
                // A train is in its own way.
                let overdue = !matches!(sent.carried, Carried::Filling)
                    && self
                        .path
                        .arrival(sent.at, sent.ahead)
                        .is_some_and(|expected| expected + self.patience < clock);
                if !overtaken && !overdue {
                    break;
                }
                let index = (number - self.sent_base) as usize;
                self.sent[index].overdue = !overtaken;
            }
            self.undecided += 1;
            if sent.arrived || !full {
                self.loss.add(sent.at, !sent.arrived);
            }
            if sent.arrived {
                continue;
            }
            self.learn_round(now.saturating_sub(sent.at), sent.again);
            match sent.carried {
                Carried::Shard(first) => self.lost_of_frame(now, first, None, sent.opening),
                Carried::One(packet) if self.frames.of(packet).is_some() => {
                    self.lost_of_frame(now, packet, Some(packet), sent.opening);
                }
                _ => {
                    for &packet in sent.carried.numbers() {
                        self.missing(now, packet, number);
                    }
                }
            }
        }
    }

    /// So long it took to know that a transmission was lost. Those sent again count: they stand alone, not behind their frame.
    pub(super) fn learn_round(&mut self, round: Micros, again: bool) {
        if !again || round > self.path.rtt() * 2 + 50_000 {
            return;
        }
        let old = self.round.unwrap_or(round);
        self.spread = (self.spread * 15 + old.abs_diff(round)) / 16;
        self.round = Some((old * 15 + round) / 16);
    }

    /// A transmission of a packet was lost: if it was its last, the packet is sent again, or given up.
    pub(super) fn missing(&mut self, now: Micros, number: u64, transmission: u64) {
        let (reach, round, loss) = (self.reach(), self.round(), self.loss.share());
        let (dither, spread) = (self.dither, self.spread);
        let planned = self.redundancy().is_some();
        let Some(held) = self.get(number) else { return };
        if planned && held.packet.class == Class::Audio {
            return;
        }
        if held.state != State::Waiting || held.last != transmission || held.queued > 0 {
            return;
        }
        let left = held.deadline.saturating_sub(now);
        if left < reach {
            held.state = State::Gone;
            self.stats.abandoned += 1;
            return;
        }
        let thousandths = plan::copies(loss, left - reach, round, spread) + dither;
        self.dither = thousandths % 1000;
        let copies = thousandths / 1000;
        let gap = ((left - reach) / u64::from(copies)).min(4_000);
        let room = (MOST_AGAIN - self.again.len().min(MOST_AGAIN)) as u32;
        let Some(held) = self.get(number) else { return };
        held.queued = copies.min(room);
        for copy in 0..copies.min(room) {
            self.agains += 1;
            self.again
                .insert((now + gap * u64::from(copy), self.agains), Item::Packet(number));
        }
    }
}
