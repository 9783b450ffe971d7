//! The stage as the packet path needs it: whose camera everyone is shown, whose content, and who is muted.
//!
//! The highest version wins, whatever the order of arrival. With voice switching the large picture follows the active
//! speaker (`audio` chooses it): each is shown for two seconds at least, who spoke last stays through silence, and one
//! who sends no picture is passed over. A broadcast site goes before; who speaks meanwhile is shown when it ends. Who may
//! set a stage is not decided here.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::meeting::Meeting;
use crate::types::{Micros, SourceKind, Stage, WishWhat};

/// A speaker is shown at least so long. Microseconds.
const SHOWN_US: u64 = 2_000_000;
/// How often it is looked who sends a picture: the shown speaker still, or who speaks by now. Microseconds.
const LOOK_US: u64 = 500_000;

#[derive(Debug, Default)]
pub(crate) struct StageState {
    version: Option<u64>,
    broadcast: Option<Arc<str>>,
    chair: Option<Arc<str>>,
    content: Option<Arc<str>>,
    muted: BTreeSet<Arc<str>>,
    voice_switching: bool,
    speaker: Option<Shown>,
    /// When the speaker must be looked at again.
    look_at: Option<Micros>,
}

/// The speaker in the large picture.
#[derive(Debug)]
struct Shown {
    site: Arc<str>,
    since: Micros,
}

impl StageState {
    /// False if the document is not newer than what is known.
    fn set(&mut self, stage: Stage) -> bool {
        if self.version.is_some_and(|known| stage.version <= known) {
            return false;
        }
        let named = |site: &Arc<str>| !site.is_empty();
        self.version = Some(stage.version);
        self.broadcast = stage.broadcast.filter(named);
        self.chair = Some(stage.chair).filter(named);
        self.content = stage.content.filter(named);
        self.muted = stage.muted.into_iter().collect();
        self.voice_switching = stage.voice_switching;
        true
    }

    /// The site in the large picture.
    pub fn showing(&self) -> Option<&Arc<str>> {
        self.broadcast.as_ref().or(self.speaker()).or(self.chair.as_ref())
    }

    /// Whose content is shown.
    pub fn content(&self) -> Option<&Arc<str>> {
        self.content.as_ref()
    }

    pub fn is_muted(&self, site: &str) -> bool {
        self.muted.contains(site)
    }

    /// Whether the voices matter even where nobody listens.
    pub fn follows_voice(&self) -> bool {
        self.voice_switching
    }

    /// When to call [`Meeting::follow_voice`] at the latest.
    pub fn timeout(&self) -> Option<Micros> {
        self.look_at
    }

    /// Takes who speaks (and may be shown), and whether the one in the picture sends one. True if the picture changes.
    fn follow(&mut self, now: Micros, speaks: Option<Arc<str>>, films: bool) -> bool {
        let before = self.showing().cloned();
        let mut shown = self.speaker.take().filter(|_| films && self.voice_switching);
        let over = shown.as_ref().map(|shown| shown.since.plus(SHOWN_US));
        let mut look_at = self.voice_switching.then(|| now.plus(LOOK_US));
        if let Some(site) = speaks.filter(|_| self.voice_switching)
            && shown.as_ref().is_none_or(|shown| shown.site != site)
        {
            match over.filter(|&over| now < over) {
                Some(over) => look_at = look_at.map(|at| at.min(over)),
                None => shown = Some(Shown { site, since: now }),
            }
        }
        (self.speaker, self.look_at) = (shown, look_at);
        before.as_ref() != self.showing()
    }

    /// The speaker in the large picture, or who will be in it when the broadcast ends.
    pub fn speaker(&self) -> Option<&Arc<str>> {
        self.speaker.as_ref().map(|shown| &shown.site)
    }
}

impl Meeting {
    /// Takes the stage, if its version is higher than any before.
    pub fn set_stage(&mut self, now: Micros, stage: Stage) {
        let now = self.advance(now);
        let followed = self.stage.voice_switching;
        if !self.stage.set(stage) {
            return;
        }
        for key in 0..self.sources.bound() {
            let Some(source) = self.sources.get_mut(key).filter(|s| s.kind == SourceKind::Audio) else {
                continue;
            };
            source.muted = self.stage.is_muted(&source.site);
            self.selector.set_muted(key, source.muted);
            if followed != self.stage.voice_switching {
                self.want_audio(key);
            }
        }
        self.select_voices(now);
        self.follow_voice(now);
        self.remap_stage(now);
        self.finish(now);
    }

    /// Brings the large picture in line with who speaks.
    pub(crate) fn follow_voice(&mut self, now: Micros) {
        if !self.stage.voice_switching && self.stage.speaker.is_none() {
            return;
        }
        let speaks = self.selector.active().and_then(|key| self.sources.get(key));
        let speaks = speaks
            .map(|source| source.site.clone())
            .filter(|site| !self.stage.is_muted(site) && self.films(now, site));
        let films = self.stage.speaker().is_some_and(|site| self.films(now, site));
        let before = self.stage.speaker().cloned();
        if self.stage.follow(now, speaks, films) {
            self.remap_stage(now);
        }
        if before.as_ref() != self.stage.speaker() {
            self.tell_shown_speaker();
        }
    }

    /// The speaker whom another worker shows: taken where nobody is shown here yet, so that who comes late sees what
    /// the others see.
    pub fn adopt_speaker(&mut self, now: Micros, site: &Arc<str>) {
        let now = self.advance(now);
        if !self.stage.voice_switching || self.stage.speaker.is_some() || !self.films(now, site) {
            return;
        }
        if self.stage.follow(now, Some(site.clone()), false) {
            self.remap_stage(now);
        }
        self.finish(now);
    }

    /// Whether the site's camera is there and comes, as far as anybody here has tried.
    fn films(&self, now: Micros, site: &Arc<str>) -> bool {
        let name = (site.clone(), SourceKind::Camera);
        let camera = self.names.get(&name).and_then(|&key| self.sources.get(key));
        camera.is_some_and(|camera| camera.layers.iter().any(|layer| layer.usable(now, true)))
    }

    fn remap_stage(&mut self, now: Micros) {
        let of_stage = |what: &WishWhat| matches!(what, WishWhat::Stage | WishWhat::Content);
        self.remap_where(now, |slot| {
            slot.wish.as_ref().is_some_and(|wish| of_stage(&wish.what))
        });
    }
}
