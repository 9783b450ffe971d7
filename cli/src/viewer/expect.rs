//! Whether slots show what they must: the right site, with a clock that moves; and if not, why, in words.

use std::time::{Duration, Instant};

use muster_testcard::site_number;
use tokio::time::sleep;

use super::{Viewer, Wish};
use crate::session::now_ms;

/// A page must show the right sites, moving, within this time.
const PAGE_LIMIT: Duration = Duration::from_secs(6);
/// A picture older than this is a frozen one.
const OLDEST_PICTURE_MS: u32 = 3000;
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// What a slot must show.
pub struct Expectation {
    slot: usize,
    site: String,
    /// Time in the first right mark seen since the expectation was set.
    first: Option<u32>,
    /// A later right mark was seen: the site is right and its clock moves.
    met: bool,
    /// When it was set: marks read before do not count.
    since: Instant,
}

impl Expectation {
    /// Nothing that was seen before now counts.
    pub fn new(slot: usize, site: &str) -> Self {
        Self {
            slot,
            site: site.to_owned(),
            first: None,
            met: false,
            since: Instant::now(),
        }
    }

    pub fn is_met(&self) -> bool {
        self.met
    }

    fn look(&mut self, viewer: &Viewer) {
        let Some((mark, at)) = viewer.reading(self.slot).mark else {
            return;
        };
        if at < self.since
            || mark.site != site_number(&self.site)
            || mark.age_ms(now_ms()) > OLDEST_PICTURE_MS
        {
            return;
        }
        match self.first {
            None => self.first = Some(mark.time_ms),
            Some(first) => self.met |= mark.time_ms.wrapping_sub(first).cast_signed() > 0,
        }
    }

    /// Why it is not met, in words.
    pub fn complaint(&self, viewer: &Viewer) -> String {
        let reading = viewer.reading(self.slot);
        let found = match (reading.mark, reading.pictures, reading.packets) {
            (_, _, 0) => "no packet ever came".to_owned(),
            (_, 0, packets) => format!("{packets} packets came, but no whole picture"),
            (None, pictures, _) => format!("none of {pictures} pictures has a readable mark"),
            (Some((mark, _)), ..) if mark.site != site_number(&self.site) => {
                format!(
                    "it shows the site with the number {:#06x}, not {:#06x}",
                    mark.site,
                    site_number(&self.site)
                )
            }
            (Some((mark, _)), ..) => format!(
                "its clock does not move; the picture is {} ms old",
                mark.age_ms(now_ms())
            ),
        };
        format!("slot {} (site {}): {found}", viewer.mid(self.slot), self.site)
    }
}

/// Waits until all are met, or the limit is over.
pub async fn wait_met(viewer: &Viewer, expectations: &mut [Expectation]) -> bool {
    let deadline = Instant::now() + PAGE_LIMIT;
    loop {
        for expectation in expectations.iter_mut().filter(|expectation| !expectation.met) {
            expectation.look(viewer);
        }
        if expectations.iter().all(|expectation| expectation.met) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Puts a page of sites on the wall; the stage stays in its slot.
pub async fn show_page(
    viewer: &mut Viewer,
    stage: &str,
    page: &[String],
) -> anyhow::Result<Vec<Expectation>> {
    let wishes: Vec<_> = std::iter::once(Wish::Stage)
        .chain(page.iter().map(|site| Wish::Camera(site.clone())))
        .collect();
    viewer.set_view(&wishes).await?;
    Ok(expectations(stage, page))
}

/// The stage in the first slot, the page in those after it; all to be seen anew.
pub fn expectations(stage: &str, page: &[String]) -> Vec<Expectation> {
    std::iter::once((0, stage))
        .chain(
            page.iter()
                .enumerate()
                .map(|(index, site)| (index + 1, site.as_str())),
        )
        .map(|(slot, site)| Expectation::new(slot, site))
        .collect()
}
