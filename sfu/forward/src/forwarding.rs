//! The packet path: one packet of a source layer in, one copy out for each slot that shows it.
//!
//! HOT. Cost is one look-up, what the codec's first bytes say, and then the slots of this layer. It allocates nothing
//! once `out` and `touched` have grown; whatever changes the mapping is done after the loop, and seldom.

use crate::described;
use crate::frame::{KeyStart, Picture, Seen, inspect};
use crate::lane::{Incoming, Tag, Then};
use crate::meeting::Meeting;
use crate::slot::Feed;
use crate::source::{SILENT_US, SourceKey};
use crate::tape::Kept;
use crate::types::{Codec, Forwarded, Micros, Packet, SourceId, SourceKind, Stored};

impl Meeting {
    /// As [`Meeting::handle_stored`], of a packet whose payload is not kept anywhere.
    pub fn handle_packet(
        &mut self,
        now: Micros,
        source: SourceId,
        layer: usize,
        packet: &Packet<'_>,
        out: &mut Vec<Forwarded>,
    ) {
        self.handle_stored(now, source, layer, packet, None, out);
    }

    /// Appends to `out` a copy for each slot that is to have this packet. Unknown sources and layers, duplicates and
    /// packets of before a switch yield nothing. What is `stored` may be asked for later, by [`Meeting::take_replays`].
    pub fn handle_stored(
        &mut self,
        now: Micros,
        source: SourceId,
        layer: usize,
        packet: &Packet<'_>,
        stored: Option<Stored>,
        out: &mut Vec<Forwarded>,
    ) {
        let now = self.advance(now);
        let Some(key) = self.source_keys.find(source) else {
            return;
        };
        match self.sources.get(key).map(|source| source.kind) {
            Some(SourceKind::Audio) => self.handle_voice(now, key, packet, out),
            Some(_) => self.handle_picture(now, Feed { source: key, layer }, packet, stored, out),
            None => {}
        }
        self.finish(now);
    }

    fn handle_picture(
        &mut self,
        now: Micros,
        feed: Feed,
        packet: &Packet<'_>,
        stored: Option<Stored>,
        out: &mut Vec<Forwarded>,
    ) {
        let Some(source) = self.sources.get_mut(feed.source) else {
            return;
        };
        let codec = source.codec;
        let Some(layer) = source.layers.get_mut(feed.layer) else {
            return;
        };
        let Some(accepted) = layer.sequence.accept(packet.seq) else {
            return;
        };
        let read = match codec {
            Codec::Av1 if !packet.descriptor.is_empty() => {
                described::inspect(packet, accepted.newest, &mut layer.described)
            }
            _ => Some(inspect(codec, packet.payload)),
        };
        let readable = read.is_some();
        let mut seen = read.unwrap_or(Seen::NOTHING);
        let entry = match seen.key_start {
            KeyStart::No => false,
            KeyStart::Yes => true,
            KeyStart::IfFirstOfPicture => layer.timestamp != Some(packet.timestamp),
        };
        if accepted.newest {
            layer.timestamp = Some(packet.timestamp);
        }
        layer.rate.count(now, seen.picture.step, packet.payload.len());
        (seen.picture.below, seen.picture.top) = layer.rate.around(seen.picture.step);
        let resized = layer.learn_sizes(&seen);
        let was_silent = !layer.delivers(now);
        layer.last_packet = Some(now);
        layer.gave_up_at = None;
        if entry {
            layer.throttle.satisfy();
        }
        if let Some(stored) = stored.filter(|_| readable) {
            let kept = Kept {
                number: accepted.number,
                timestamp: packet.timestamp,
                marker: packet.marker,
                entry,
                picture: seen.picture,
                stored,
            };
            layer.tape.keep(now, kept);
        }
        let mut ask = !readable && accepted.newest && !layer.subscribers.is_empty();
        if !layer.live {
            let first = &mut layer.first_key_frame;
            layer.live = first.take(now, accepted.number, packet.timestamp, packet.marker, entry);
            layer.news.live = layer.live;
            ask |= !layer.live && first.overdue(now);
        }
        let incoming = Incoming {
            now,
            tag: Tag::of(feed),
            codec,
            packet,
            accepted,
            run_start: layer.sequence.run_start(),
            entry,
            picture: seen.picture,
        };
        // A layer that delivers again may be better than what slots of this source fell back to.
        let mut refit = resized || was_silent;
        self.touched.clear();
        for &slot in layer.subscribers.iter().filter(|_| readable) {
            let Some(lane) = self.lanes.get_mut(slot) else {
                continue;
            };
            match lane.take(&incoming, out) {
                Then::Nothing => {}
                Then::Settle => self.touched.push(slot),
                Then::KeyFrame => ask = true,
                Then::Refit => refit = true,
            }
        }
        if ask {
            self.want_key_frame(now, feed);
        }
        self.after_picture(now, feed, refit);
    }

    /// What a packet has set off beyond its copies.
    fn after_picture(&mut self, now: Micros, feed: Feed, refit: bool) {
        let touched = std::mem::take(&mut self.touched);
        for &slot in &touched {
            self.settle(now, slot);
        }
        self.touched = touched;
        if refit {
            self.refit(now, feed.source);
        }
        if self
            .sources
            .get(feed.source)
            .is_some_and(|source| source.layers[feed.layer].news.live)
        {
            self.tell_layer(feed);
        }
    }

    fn handle_voice(&mut self, now: Micros, key: SourceKey, packet: &Packet<'_>, out: &mut Vec<Forwarded>) {
        let Some(source) = self.sources.get_mut(key) else {
            return;
        };
        let (muted, codec) = (source.muted, source.codec);
        let layer = &mut source.layers[0];
        if !layer.live {
            layer.live = true;
            layer.news.live = true;
            self.tell_layer(Feed {
                source: key,
                layer: 0,
            });
        }
        if muted {
            return;
        }
        let Some(layer) = self.sources.get_mut(key).map(|source| &mut source.layers[0]) else {
            return;
        };
        let Some(accepted) = layer.sequence.accept(packet.seq) else {
            return;
        };
        layer.last_packet = Some(now);
        layer.rate.count(now, 0, packet.payload.len());
        let bytes = packet.payload.len();
        self.selector.hear(now, key, packet.audio_level, bytes);
        if self.selector.is_due(now) {
            self.select_voices(now);
        }
        let Some(layer) = self.sources.get(key).map(|source| &source.layers[0]) else {
            return;
        };
        if layer.subscribers.is_empty() {
            return;
        }
        let feed = Feed {
            source: key,
            layer: 0,
        };
        let run_start = layer.sequence.run_start();
        let incoming = Incoming {
            now,
            tag: Tag::of(feed),
            codec,
            packet,
            accepted,
            run_start,
            entry: true,
            picture: Picture::PLAIN,
        };
        self.touched.clear();
        for &slot in &layer.subscribers {
            let Some(lane) = self.lanes.get_mut(slot) else {
                continue;
            };
            if lane.take(&incoming, out) == Then::Settle {
                self.touched.push(slot);
            }
        }
        self.after_picture(now, feed, false);
    }

    /// Notes that a layer needs a key frame, and asks for it when the throttle lets it.
    pub(crate) fn want_key_frame(&mut self, now: Micros, feed: Feed) {
        let Some(layer) = self
            .sources
            .get_mut(feed.source)
            .and_then(|s| s.layers.get_mut(feed.layer))
        else {
            return;
        };
        layer.throttle.want();
        let go = layer.throttle.take(now);
        let again = layer.throttle.due().unwrap_or(now.plus(SILENT_US));
        layer.news.key_frame |= go;
        if go {
            self.tell_layer(feed);
        }
        self.look_by(again);
    }
}
