//! The queue of what has changed, told as it stands when it is asked for.
//!
//! A slot or layer is in the queue at most once, so it is never longer than slots plus layers plus three.

use std::sync::Arc;

use crate::event::{Event, SlotState, SlotStatus};
use crate::meeting::Meeting;
use crate::slot::Feed;
use crate::source::{SlotKey, SourceKey};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Slot(SlotKey),
    Layer(Feed),
    Speakers,
    ActiveSpeaker,
    ShownSpeaker,
}

impl Meeting {
    /// The next thing that has changed; `None` when all is told.
    pub fn poll_event(&mut self) -> Option<Event> {
        while let Some(&news) = self.news.front() {
            let event = match news {
                News::Slot(key) => self.slot_event(key),
                News::Layer(feed) => self.layer_event(feed),
                News::Speakers => self.speakers_event(),
                News::ActiveSpeaker => self.active_speaker_event(),
                News::ShownSpeaker => self.shown_speaker_event(),
            };
            // A layer may have more than one thing to tell: it leaves the queue when it has none.
            if event.is_none() || !matches!(news, News::Layer(_)) {
                self.news.pop_front();
            }
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn slot_event(&mut self, key: SlotKey) -> Option<Event> {
        let slot = self.slots.get_mut(key)?;
        slot.queued = false;
        if slot.state == slot.told {
            return None;
        }
        slot.told = slot.state.clone();
        Some(Event::SlotChanged {
            slot: slot.id,
            state: slot.state.clone(),
        })
    }

    /// That a layer is wanted comes before the request for its key frame.
    fn layer_event(&mut self, feed: Feed) -> Option<Event> {
        let source = self.sources.get_mut(feed.source)?;
        let (id, layer) = (source.id, feed.layer);
        let news = &mut source.layers.get_mut(layer)?.news;
        if std::mem::take(&mut news.live) {
            return Some(Event::SourceLive { source: id, layer });
        }
        if news.wanted != news.wanted_told {
            news.wanted_told = news.wanted;
            return Some(Event::LayerWanted {
                source: id,
                layer,
                wanted: news.wanted,
            });
        }
        if std::mem::take(&mut news.key_frame) {
            return Some(Event::KeyFrameNeeded { source: id, layer });
        }
        news.queued = false;
        None
    }

    fn speakers_event(&mut self) -> Option<Event> {
        self.speakers_queued = false;
        let keys = self.selector.speakers().iter();
        let sites: Vec<Arc<str>> = keys
            .filter_map(|&key| self.sources.get(key))
            .map(|source| source.site.clone())
            .collect();
        if sites == self.speakers_told {
            return None;
        }
        self.speakers_told.clone_from(&sites);
        Some(Event::SpeakersChanged { sites })
    }

    fn active_speaker_event(&mut self) -> Option<Event> {
        self.active_queued = false;
        let source = self.selector.active().and_then(|key| self.sources.get(key));
        let site = source.map(|source| source.site.clone());
        if site == self.active_told {
            return None;
        }
        self.active_told.clone_from(&site);
        Some(Event::ActiveSpeakerChanged { site })
    }

    fn shown_speaker_event(&mut self) -> Option<Event> {
        let site = self.stage.speaker().cloned();
        Some(Event::ShownSpeakerChanged { site })
    }

    pub(crate) fn set_state(&mut self, key: SlotKey, state: SlotState) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.stale = state.status == SlotStatus::Stale;
        }
        slot.state = state;
        if slot.state != slot.told && !slot.queued {
            slot.queued = true;
            self.news.push_back(News::Slot(key));
        }
    }

    pub(crate) fn tell_layer(&mut self, feed: Feed) {
        let Some(layer) = self
            .sources
            .get_mut(feed.source)
            .and_then(|s| s.layers.get_mut(feed.layer))
        else {
            return;
        };
        let news = &mut layer.news;
        if !news.queued && (news.live || news.key_frame || news.wanted != news.wanted_told) {
            news.queued = true;
            self.news.push_back(News::Layer(feed));
        }
    }

    pub(crate) fn tell_speakers(&mut self) {
        if !self.speakers_queued {
            self.speakers_queued = true;
            self.news.push_back(News::Speakers);
        }
    }

    pub(crate) fn tell_active_speaker(&mut self) {
        if !self.active_queued {
            self.active_queued = true;
            self.news.push_back(News::ActiveSpeaker);
        }
    }

    pub(crate) fn tell_shown_speaker(&mut self) {
        if !self.news.contains(&News::ShownSpeaker) {
            self.news.push_back(News::ShownSpeaker);
        }
    }

    pub(crate) fn forget_news_of_source(&mut self, key: SourceKey) {
        self.news
            .retain(|news| !matches!(news, News::Layer(feed) if feed.source == key));
    }

    pub(crate) fn forget_news_of_slot(&mut self, key: SlotKey) {
        self.news.retain(|news| *news != News::Slot(key));
    }
}
