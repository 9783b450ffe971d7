//! What is asked of each profile, and the profiles themselves.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_linkshape::Profile;
use serde::Serialize;

use super::Line;

/// What a profile is to come to; `None` where nothing is asked.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    #[serde(skip)]
    pub budget_ms: u64,
    #[serde(skip)]
    pub audio_budget_ms: u64,
    pub frame_miss: Option<f64>,
    pub overhead: Option<f64>,
    pub audio_kept: Option<f64>,
    pub delay_p95_ms: Option<u128>,
    /// Share of the time that the picture may stand.
    pub freeze: Option<f64>,
    /// A picture at least so often.
    pub longest_gap_ms: Option<u128>,
    /// After outages of up to 3 s, and after longer ones.
    pub back_ms: Option<(u128, u128)>,
}

const NOTHING: Target = Target {
    budget_ms: 200,
    audio_budget_ms: 400,
    frame_miss: None,
    overhead: None,
    audio_kept: None,
    delay_p95_ms: None,
    freeze: None,
    longest_gap_ms: None,
    back_ms: None,
};

impl Target {
    pub fn of(profile: &str) -> Self {
        match profile {
            "loss10" => Self {
                frame_miss: Some(0.001),
                overhead: Some(0.25),
                audio_kept: Some(0.999),
                ..NOTHING
            },
            "loss30" => Self {
                frame_miss: Some(0.005),
                overhead: Some(0.6),
                audio_kept: Some(0.995),
                ..NOTHING
            },
            "loss80" => Self {
                audio_kept: Some(0.98),
                ..NOTHING
            },
            "village-4g" | "adsl-rain" => Self {
                budget_ms: 400,
                audio_kept: Some(0.995),
                delay_p95_ms: Some(400),
                freeze: Some(0.01),
                ..NOTHING
            },
            "satellite" => Self {
                budget_ms: 800,
                audio_budget_ms: 800,
                frame_miss: Some(0.01),
                overhead: Some(0.6),
                audio_kept: Some(0.995),
                ..NOTHING
            },
            "thin" => Self {
                budget_ms: 1000,
                audio_kept: Some(0.999),
                longest_gap_ms: Some(1000),
                ..NOTHING
            },
            "flap" => Self {
                back_ms: Some((500, 1000)),
                ..NOTHING
            },
            _ => NOTHING,
        }
    }

    /// Whether all that is asked came out.
    pub(super) fn is_met(&self, line: &Line<'_>) -> bool {
        let at_most = |got: f64, asked: Option<f64>| asked.is_none_or(|asked| got <= asked);
        let back = |limits: (u128, u128)| {
            line.back_ms
                .iter()
                .all(|&(outage, back)| back <= if outage <= 3_100 { limits.0 } else { limits.1 })
        };
        at_most(line.frame_miss, self.frame_miss)
            && at_most(line.overhead, self.overhead)
            && self.audio_kept.is_none_or(|asked| line.audio_kept >= asked)
            && self.delay_p95_ms.is_none_or(|asked| line.delay_p95_ms < asked)
            && at_most(line.freeze_ms as f64 / (line.seconds * 1000) as f64, self.freeze)
            && self
                .longest_gap_ms
                .is_none_or(|asked| line.longest_gap_ms <= asked)
            && self.back_ms.is_none_or(back)
    }
}

/// A profile by its name, or by the path of a file.
pub fn profile(name: &str) -> anyhow::Result<Profile> {
    let text = match name {
        "clean" => include_str!("../../../data/links/clean.csv"),
        "loss10" => include_str!("../../../data/links/loss10.csv"),
        "loss30" => include_str!("../../../data/links/loss30.csv"),
        "loss80" => include_str!("../../../data/links/loss80.csv"),
        "village-4g" => include_str!("../../../data/links/village-4g.csv"),
        "adsl-rain" => include_str!("../../../data/links/adsl-rain.csv"),
        "satellite" => include_str!("../../../data/links/satellite.csv"),
        "thin" => include_str!("../../../data/links/thin.csv"),
        "flap" => include_str!("../../../data/links/flap.csv"),
        path => {
            return Profile::read(path).with_context(|| format!("no built-in profile and no file: {path}"));
        }
    };
    Ok(Profile::parse(name, text)?)
}

/// When the link went and returned, in a run that began at `began`.
pub fn outages(profile: &Profile, began: Instant, length: Duration) -> Vec<(Instant, Instant)> {
    let mut outages = Vec::new();
    let mut gone = None;
    let step = Duration::from_millis(1);
    let mut at = Duration::ZERO;
    while at < length {
        let up = profile.at(at.as_micros() as u64 % profile.duration_us()).up;
        match (up, gone) {
            (false, None) => gone = Some(at),
            (true, Some(since)) => {
                outages.push((began + since, began + at));
                gone = None;
            }
            _ => {}
        }
        at += step;
    }
    outages
}
