//! What a leg's link carries, shared over its slots.
//!
//! A slot climbs *rungs*: first the smallest layer of its source with more and more of its frames, then larger and larger
//! layers (simulcast, or spatial layers of one stream). `share` deals the budget out; `Meeting::deal` compares that with what the slots have. Less is taken
//! away at once, but for a slot's last picture (see `budget`). More is given if it would still fit with some room to
//! spare, and has done so for a while; the while grows where it was taken back soon. Invariant: what is given costs more
//! than the budget, as measured, for some seconds at most, and then it is the smallest pictures alone.
//! It does not estimate what a link carries, and it drops no voice.

use crate::budget::Budget;
use crate::lane::Cap;
use crate::meeting::{LegSlots, Meeting};
use crate::rate::TEMPORAL;
use crate::slot::{Bound, Feed, Granted};
use crate::source::{Layer, SlotKey, Source};
use crate::types::{Codec, LegId, Micros, WishWhat};

/// Reserved for a voice whose rate is not measured yet, bits a second: Opus at 32 kbit/s and its headers.
const VOICE_BPS: u64 = 60_000;
/// What a video layer is taken to cost, before it is measured, where nobody has said: bits a second and pixel.
const BITS_PER_PIXEL: u64 = 3;
/// The same for a layer of unknown size.
const UNKNOWN_LAYER_BPS: u64 = 500_000;
/// Room above what is used, in per cent, before more is given.
const HEADROOM_PERCENT: u64 = 15;
/// How often the rates are looked at again, in microseconds.
const LOOK_EVERY_US: u64 = 200_000;
/// Rungs that are told apart; of a source with more layers the largest are out of reach.
const RUNGS: usize = 12;

/// A layer of the source, up to a step of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rung {
    pub layer: usize,
    pub cap: Cap,
}

/// A slot's ladder.
#[derive(Debug)]
pub(crate) struct Ask {
    slot: SlotKey,
    stage: bool,
    /// Pixels asked for, the more the earlier it is served.
    size: u64,
    rungs: [(Rung, u64); RUNGS],
    count: usize,
    /// How many of the rungs are fewer or more frames of the smallest picture.
    frames: usize,
    /// What is shown, or was not tried yet, is not taken away lightly.
    has: Has,
    /// The first rung is given before anything else.
    kept: bool,
    /// It is given no more rungs than this.
    most: usize,
}

/// What a slot has of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    Nothing,
    Untried,
    Picture,
}

impl Meeting {
    /// What the way to this leg carries, in bits a second; `None`: no limit is known. It is shared over the leg's slots:
    /// voices first, then a picture in each slot, then all that the stage asks for, then frames and then size of the
    /// others, large boxes before small ones. Less is taken away at once, more is given with some room and after
    /// some time. Unknown legs, and legs that have no slot yet, are ignored.
    pub fn set_budget(&mut self, now: Micros, leg: LegId, bps: Option<u64>) {
        let now = self.advance(now);
        let Some(of_leg) = self.legs.get_mut(&leg) else {
            return;
        };
        if of_leg.budget.set(bps) {
            self.allocate(now, leg);
        }
    }

    /// What the leg would use if its link carried everything that it wishes for, in bits a second, with the room that
    /// the allocation wants above it. To look for more than this is in vain. 0 for an unknown leg.
    pub fn wanted_bps(&self, leg: LegId) -> u64 {
        let Some(of_leg) = self.legs.get(&leg) else {
            return 0;
        };
        let video = of_leg.all.iter().filter_map(|&key| {
            let ask = self.ask(self.now, key)?;
            let (largest, cost) = ask.rungs[..ask.count].last()?;
            let source = self.sources.get(self.slots.get(key)?.bound?.source)?;
            Some(source.bps_upto(largest.layer, largest.cap).max(*cost))
        });
        let wanted = self.voices_bps(of_leg) + video.sum::<u64>();
        wanted.saturating_mul(100 + HEADROOM_PERCENT) / 100
    }

    /// Notes that a leg's slots must be looked at before the present call returns.
    pub(crate) fn reallocate(&mut self, leg: LegId) {
        self.unsettled.push(leg);
    }

    /// Does what `reallocate` has noted.
    pub(crate) fn finish(&mut self, now: Micros) {
        if self.unsettled.is_empty() {
            return;
        }
        let mut legs = std::mem::take(&mut self.unsettled);
        legs.sort_unstable();
        legs.dedup();
        for leg in legs.drain(..) {
            self.allocate(now, leg);
        }
        self.unsettled = legs;
    }

    /// Looks at the legs whose time has come.
    pub(crate) fn look_at_budgets(&mut self, now: Micros) {
        if self.budgets_at.is_none_or(|at| at > now) {
            return;
        }
        self.budgets_at = None;
        let due = |of_leg: &LegSlots| of_leg.budget.look_at.is_some_and(|at| at <= now);
        self.unsettled.extend(
            self.legs
                .iter()
                .filter(|(_, of_leg)| due(of_leg))
                .map(|(&leg, _)| leg),
        );
        self.finish(now);
        let next = self
            .legs
            .values()
            .filter_map(|of_leg| of_leg.budget.look_at)
            .min();
        self.budgets_at = next;
    }

    /// Shares the budget of one leg over its video slots.
    pub(crate) fn allocate(&mut self, now: Micros, leg: LegId) {
        // Taken out so that the slots can be changed meanwhile; nothing below looks for this leg.
        let Some((leg, mut of_leg)) = self.legs.remove_entry(&leg) else {
            return;
        };
        let mut asks = std::mem::take(&mut self.asks);
        asks.extend(of_leg.all.iter().filter_map(|&key| self.ask(now, key)));
        match of_leg.budget.bps {
            None => {
                of_leg.budget.look_at = None;
                for ask in &asks {
                    let best = ask.rung(ask.count);
                    self.grant(now, ask, best, Terms::default());
                }
            }
            Some(bps) => {
                let left = bps.saturating_sub(self.voices_bps(&of_leg));
                self.deal(now, &mut of_leg.budget, &mut asks, left);
                let look_at = Micros((now.0 / 25_000) * 25_000).plus(LOOK_EVERY_US);
                of_leg.budget.look_at = Some(look_at);
                self.budgets_at = Some(self.budgets_at.map_or(look_at, |at| at.min(look_at)));
            }
        }
        asks.clear();
        self.asks = asks;
        self.legs.insert(leg, of_leg);
    }

    /// Two shares: with room to spare it says who may climb now; the other, without, gives each no more than what it has or may
    /// climb to. So nobody's picture is taken away for one that does not grow.
    fn deal(&mut self, now: Micros, budget: &mut Budget, asks: &mut [Ask], left: u64) {
        asks.sort_by_key(|ask| (!ask.stage, std::cmp::Reverse(ask.size)));
        let comfortable = left.saturating_mul(100) / (100 + HEADROOM_PERCENT);
        let (mut well, mut given) = (Vec::new(), Vec::new());
        share(asks, comfortable, &mut well);
        for (ask, well) in asks.iter_mut().zip(well) {
            ask.most = self.most(now, budget, ask, well);
        }
        let left = keep_pictures(now, budget, asks, left);
        share(asks, left, &mut given);
        for (ask, &given) in asks.iter().zip(&given) {
            self.note_change(now, budget, ask, given);
        }
        let used = asks.iter().zip(&given).map(|(ask, &given)| ask.cost(given));
        let spare = left.saturating_sub(used.sum());
        let short = |(ask, given): (&Ask, &usize)| *given < ask.count;
        budget.settle(now, asks.iter().zip(&given).any(short));
        for (ask, &given) in asks.iter().zip(&given) {
            let terms = Terms {
                meanwhile: Some(ask.cost(given).saturating_add(spare)),
                narrow: budget.is_narrow(now),
            };
            self.grant(now, ask, ask.rung(given), terms);
        }
    }

    /// How many rungs a slot is up; `None` for one that is new, or whose layer is no longer offered.
    fn had(&self, ask: &Ask) -> Option<usize> {
        match self.slots.get(ask.slot)?.bound.as_ref()?.granted {
            Granted::Open => None,
            Granted::Nothing => Some(0),
            Granted::Some(rung) => ask.offers(rung.layer).then(|| ask.below(rung)),
        }
    }

    /// How many rungs a slot may be up from now on, if `well` would fit with room to spare: more than it has only once that has
    /// been so for a while.
    fn most(&mut self, now: Micros, budget: &Budget, ask: &Ask, well: usize) -> usize {
        let Some(had) = self.had(ask) else {
            return ask.count;
        };
        let Some(bound) = self.slots.get_mut(ask.slot).and_then(|slot| slot.bound.as_mut()) else {
            return ask.count;
        };
        let more_since = bound.more_since.take();
        if well <= had {
            return had;
        }
        let since = more_since.unwrap_or(now);
        if now.since(since) < budget.hold_us() {
            bound.more_since = Some(since);
            return had;
        }
        well
    }

    /// Tells the budget what is given and taken.
    fn note_change(&mut self, now: Micros, budget: &mut Budget, ask: &Ask, given: usize) {
        let Some(had) = self.had(ask) else {
            return;
        };
        if given > had {
            budget.gave(now);
        }
        if given < had {
            budget.took(now);
            if let Some(bound) = self.slots.get_mut(ask.slot).and_then(|slot| slot.bound.as_mut()) {
                bound.more_since = None;
            }
        }
    }

    /// Gives a slot what was decided.
    fn grant(&mut self, now: Micros, ask: &Ask, rung: Option<Rung>, terms: Terms) {
        let key = ask.slot;
        let (Some(slot), Some(lane)) = (self.slots.get_mut(key), self.lanes.get_mut(key)) else {
            return;
        };
        let Some(bound) = slot.bound.as_mut() else { return };
        bound.best = ask.rung(ask.count);
        bound.granted = rung.map_or(Granted::Nothing, Granted::Some);
        bound.narrow = terms.narrow;
        let Some(rung) = rung else {
            lane.clear();
            return self.settle(now, key);
        };
        let target = Feed {
            source: bound.source,
            layer: rung.layer,
        };
        let passes = match (terms.meanwhile, lane.current().filter(|&feed| feed != target)) {
            (Some(bps), Some(current)) => self
                .sources
                .get(current.source)
                .map_or(Cap::ALL, |source| source.within(current.layer, bps)),
            _ => Cap::ALL,
        };
        let top = self.sources.get(bound.source).map_or(Cap::ALL, |source| {
            Cap::upto(source.layers[rung.layer].rate.highest())
        });
        let key_frame = lane.aim(target, rung.cap, passes, top);
        let key_frame = key_frame && !self.replay(now, key, target);
        self.settle(now, key);
        if key_frame {
            self.want_key_frame(now, target);
        }
    }

    /// The ladder of a video slot that is bound.
    fn ask(&self, now: Micros, key: SlotKey) -> Option<Ask> {
        let slot = self.slots.get(key).filter(|slot| !slot.audio)?;
        let bound = slot.bound.as_ref()?;
        let source = self.sources.get(bound.source)?;
        let wish = slot.wish.as_ref()?;
        let mut ask = Ask {
            slot: key,
            stage: matches!(wish.what, WishWhat::Stage | WishWhat::Content),
            size: pixels(wish.max_width, wish.max_height),
            rungs: [(
                Rung {
                    layer: 0,
                    cap: Cap::ALL,
                },
                0,
            ); RUNGS],
            count: 0,
            frames: 0,
            has: match bound.granted {
                Granted::Open => Has::Untried,
                Granted::Nothing => Has::Nothing,
                Granted::Some(_) => Has::Picture,
            },
            kept: false,
            most: RUNGS,
        };
        let smallest = source.codec == Codec::Av1 && !slot.descriptors;
        let wished = (wish.max_width, wish.max_height);
        ask.climb(now, source, bound, if smallest { (1, 1) } else { wished });
        Some(ask)
    }

    /// What the voices that the leg hears take.
    fn voices_bps(&self, of_leg: &LegSlots) -> u64 {
        let voices = of_leg.audio.iter().filter_map(|&key| self.slots.get(key)?.bound);
        voices
            .filter_map(|bound| self.sources.get(bound.source)?.layers.first())
            .map(|layer| layer.rate.bps(0).unwrap_or(VOICE_BPS))
            .sum()
    }

    /// Whether another rung is the best of a slot than when it was looked at last.
    pub(crate) fn best_has_changed(&self, now: Micros, key: SlotKey) -> bool {
        let Some(ask) = self.ask(now, key) else {
            return false;
        };
        let bound = self.slots.get(key).and_then(|slot| slot.bound);
        bound.is_some_and(|bound| {
            bound.best.map(|best| best.layer) != ask.rung(ask.count).map(|best| best.layer)
        })
    }
}

impl Ask {
    /// Finds the rungs: the layers up to the fitting one that come or may come; where there are none, the smallest
    /// of the larger ones that comes, and else the fitting one, to be waited for. Of a layer's own spatial layers
    /// those that fit the box.
    fn climb(&mut self, now: Micros, source: &Source, bound: &Bound, (width, height): (u16, u16)) {
        let usable = |layer: &usize| source.layers[*layer].usable(now, *layer == bound.fitting);
        let mut upto = (0..=bound.fitting).filter(usable).peekable();
        let smallest = match upto.peek() {
            Some(&layer) => layer,
            None => (bound.fitting + 1..source.layers.len())
                .find(|&layer| source.layers[layer].delivers(now))
                .unwrap_or(bound.fitting),
        };
        let layer = &source.layers[smallest];
        let most = layer.fitting(width, height);
        for step in layer.rate.below_top().filter(|step| Cap::upto(*step) < most) {
            let rung = Rung {
                layer: smallest,
                cap: Cap::upto(step),
            };
            self.push(rung, layer.rate.bps(step).unwrap_or(0));
            self.frames += usize::from(usize::from(step) < TEMPORAL);
        }
        // A guess alone is no reason to show nothing.
        let known = source
            .layers
            .iter()
            .any(|layer| layer.rate.bps(u8::MAX).is_some());
        let guess = if known { u64::MAX } else { UNKNOWN_LAYER_BPS };
        self.push(
            Rung {
                layer: smallest,
                cap: most,
            },
            source.bps_upto(smallest, most).min(guess),
        );
        self.frames += usize::from(usize::from(layer.rate.top()) < TEMPORAL || most.spatial() == 0);
        for larger in upto.filter(|&layer| layer > smallest) {
            let cap = source.layers[larger].fitting(width, height);
            self.push(Rung { layer: larger, cap }, source.bps_upto(larger, cap));
        }
    }

    /// A larger rung never costs less, whatever is measured.
    fn push(&mut self, rung: Rung, bps: u64) {
        let below = self.cost(self.count);
        if let Some(place) = self.rungs.get_mut(self.count) {
            *place = (rung, bps.max(below));
            self.count += 1;
        }
    }

    /// Of so many rungs, bits a second.
    fn cost(&self, rungs: usize) -> u64 {
        rungs.checked_sub(1).map_or(0, |last| self.rungs[last].1)
    }

    fn rung(&self, rungs: usize) -> Option<Rung> {
        rungs.checked_sub(1).map(|last| self.rungs[last].0)
    }

    fn offers(&self, layer: usize) -> bool {
        self.rungs[..self.count]
            .iter()
            .any(|(rung, _)| rung.layer == layer)
    }

    /// How many rungs are not above this one.
    fn below(&self, had: Rung) -> usize {
        self.rungs[..self.count]
            .iter()
            .take_while(|(rung, _)| *rung <= had)
            .count()
    }

    /// Climbs a rung, if `limit` and what is left allow it.
    fn raise(&self, given: &mut usize, limit: usize, left: &mut u64) -> bool {
        if *given >= limit.min(self.most) {
            return false;
        }
        let more = self.cost(*given + 1) - self.cost(*given);
        let fits = more <= *left;
        if fits {
            *left -= more;
            *given += 1;
        }
        fits
    }
}

/// Deals out `left` bits a second to those who ask, in their order: how many rungs each is given. Those who ask for the same
/// climb together, a rung at a time.
fn share(asks: &[Ask], mut left: u64, given: &mut Vec<usize>) {
    given.clear();
    given.resize(asks.len(), 0);
    // How far each may climb in each round: a picture, of those that keep theirs before others, all that the stage asks
    // for, frames, size.
    let rounds: [fn(&Ask) -> usize; 5] = [
        |ask| usize::from(ask.kept),
        |_| 1,
        |ask| if ask.stage { ask.count } else { 1 },
        |ask| ask.frames,
        |ask| ask.count,
    ];
    for limit in rounds {
        let mut given = &mut given[..];
        for equal in asks.chunk_by(|a, b| (a.stage, a.size) == (b.stage, b.size)) {
            let (these, others) = given.split_at_mut(equal.len());
            given = others;
            let mut climbs = true;
            while climbs {
                climbs = false;
                for (ask, given) in equal.iter().zip(&mut *these) {
                    climbs |= ask.raise(given, limit(ask), &mut left);
                }
            }
        }
    }
}

/// Of a box; an open side is taken to be as 16:9 has it.
fn pixels(width: u16, height: u16) -> u64 {
    match (u64::from(width), u64::from(height)) {
        (0, 0) => u64::MAX,
        (0, height) => height * height * 16 / 9,
        (width, 0) => width * width * 9 / 16,
        (width, height) => width * height,
    }
}

/// Marks those whose smallest picture stays although it does not fit, where the budget bears that; what there is to share out
/// then, bits a second.
fn keep_pictures(now: Micros, budget: &mut Budget, asks: &mut [Ask], left: u64) -> u64 {
    let untried = !budget.is_narrow(now);
    let stays = |ask: &Ask| ask.has == Has::Picture || ask.has == Has::Untried && untried;
    let need = asks.iter().filter(|ask| stays(ask)).map(|ask| ask.cost(1)).sum();
    // Where they all fit, nothing but what comes before them takes one away.
    if !budget.bears(now, left, need) || left >= need {
        return left;
    }
    for ask in asks {
        ask.kept = stays(ask);
    }
    need
}

/// What goes with a grant.
#[derive(Clone, Copy, Default)]
struct Terms {
    /// What the slot may use until the switch is done, bits a second; `None`: anything.
    meanwhile: Option<u64>,
    /// That the link is narrow is more than a guess.
    narrow: bool,
}

impl Source {
    /// What a whole layer costs, bits a second: as measured, else as the publisher said, else by its size from what
    /// the nearest other layer costs, else as its size suggests.
    fn bps(&self, index: usize) -> u64 {
        let layer = &self.layers[index];
        if let Some(measured) = layer.rate.bps(u8::MAX) {
            return measured;
        }
        let pixels = layer.pixels();
        let nearest = |(other, known): (usize, &Layer)| {
            let bps = known.rate.bps(u8::MAX).filter(|_| known.pixels() > 0)?;
            Some((other.abs_diff(index), bps, known.pixels()))
        };
        let others = self.layers.iter().enumerate().filter_map(nearest);
        match (layer.max_bps, pixels, others.min_by_key(|(far, ..)| *far)) {
            (1.., ..) => u64::from(layer.max_bps),
            (0, 0, _) => UNKNOWN_LAYER_BPS,
            (0, pixels, Some((_, bps, of))) => bps.saturating_mul(pixels) / of,
            (0, pixels, None) => pixels * BITS_PER_PIXEL,
        }
    }

    /// What a layer costs up to a cap, bits a second: as measured, else its share of the pixels.
    fn bps_upto(&self, index: usize, cap: Cap) -> u64 {
        let layer = &self.layers[index];
        if let Some(measured) = layer.rate.bps(cap.step()) {
            return measured;
        }
        let (width, height) = layer.size_at(cap);
        let (shown, of) = (u64::from(width) * u64::from(height), layer.pixels());
        self.bps(index).saturating_mul(shown.max(1)) / of.max(shown).max(1)
    }

    /// How much of a layer fits this rate.
    fn within(&self, index: usize, bps: u64) -> Cap {
        let Some(layer) = self.layers.get(index) else {
            return Cap::ALL;
        };
        if self.bps(index) <= bps {
            return Cap::ALL;
        }
        let fits = |step: &u8| layer.rate.bps(*step).is_some_and(|cost| cost <= bps);
        let step = layer.rate.below_top().rev().find(fits);
        step.map_or(Cap::NOTHING, Cap::upto)
    }
}

impl Layer {
    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}
