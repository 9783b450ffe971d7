//! The test card: the site's name, a clock, a moving ball and the mark, on a ground whose colour depends on the site.
//!
//! What stands still (ground and names) is drawn once; a picture redraws only clock, ball and mark, so that drawing
//! costs next to nothing beside encoding. In fifteenths of the height: name 1 to 3.5, second name 4 to 5, clock 5.5 to 7,
//! ball 7.5 to 9.5, mark 10 to 14.

use crate::glyphs::{write_built_in, write_cjk};
use crate::mark::Mark;
use crate::picture::{Picture, Rect};
use crate::size::PictureSize;

const GROUND: u8 = 60;
const TRACK: u8 = 40;
const INK: u8 = 230;
/// The ball's way there and back, ms.
const PERIOD_MS: u64 = 4000;

/// The names of a site, as the tree has them; either may be empty.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    pub chinese: &'a str,
    pub english: &'a str,
}

/// A test card of one size.
#[derive(Debug)]
pub struct Card {
    picture: Picture,
    site: u16,
    utc_offset_minutes: i32,
}

impl Card {
    /// Draws what stands still. `site` is the site's number (see [`crate::site_number`]); the clock shows UTC plus
    /// the offset.
    pub fn new(size: PictureSize, site: u16, names: Names<'_>, utc_offset_minutes: i32) -> Self {
        let mut picture = Picture::new(size.width, size.height);
        let (width, height) = (picture.width(), picture.height());
        let all = Rect {
            x: 0,
            y: 0,
            width,
            height,
        };
        picture.fill_luma(all, GROUND);
        // Three bits each of the site number choose the tint.
        let tint = |bits: u16| 92 + (bits & 7) as u8 * 10;
        picture.fill_chroma(all, tint(site), tint(site >> 3));
        picture.fill_chroma(Mark::area(width, height), 128, 128);
        if write_cjk(&mut picture, band(width, height, 20, 70), names.chinese, INK) {
            write_built_in(&mut picture, band(width, height, 80, 100), names.english, INK);
        } else {
            write_built_in(&mut picture, band(width, height, 20, 70), names.english, INK);
        }
        Self {
            picture,
            site,
            utc_offset_minutes,
        }
    }

    /// Draws the picture of a moment, `now_ms` since the Unix epoch.
    pub fn draw(&mut self, now_ms: i64) -> &Picture {
        let (width, height) = (self.picture.width(), self.picture.height());
        let clock = band(width, height, 110, 140);
        self.picture.fill_luma(clock, GROUND);
        write_built_in(
            &mut self.picture,
            clock,
            &clock_text(now_ms, self.utc_offset_minutes),
            INK,
        );
        self.draw_ball(now_ms);
        Mark {
            site: self.site,
            time_ms: now_ms as u32,
        }
        .draw(&mut self.picture);
        &self.picture
    }

    fn draw_ball(&mut self, now_ms: i64) {
        let track = band(self.picture.width(), self.picture.height(), 150, 190);
        self.picture.fill_luma(track, TRACK);
        let phase = now_ms.rem_euclid(PERIOD_MS as i64) as u64;
        let way = if phase < PERIOD_MS / 2 {
            phase
        } else {
            PERIOD_MS - phase
        };
        let size = track.height;
        let left = track.x + (track.width - size.min(track.width)) * way as usize / (PERIOD_MS as usize / 2);
        for row in 0..size {
            let from_middle = (2 * row + 1).abs_diff(size);
            let half = (size * size).saturating_sub(from_middle * from_middle).isqrt() / 2;
            let line = Rect {
                x: left + size / 2 - half.min(size / 2),
                y: track.y + row,
                width: 2 * half,
                height: 1,
            };
            self.picture.fill_luma(line, INK);
        }
    }
}

/// A band over the width less a margin, from `top` to `bottom` in three-hundredths of the height.
fn band(width: usize, height: usize, top: usize, bottom: usize) -> Rect {
    let (x, y) = (width / 20, height * top / 300);
    Rect {
        x,
        y,
        width: width - 2 * x,
        height: height * bottom / 300 - y,
    }
}

/// `HH:MM:SS.t`.
fn clock_text(now_ms: i64, utc_offset_minutes: i32) -> String {
    let tenths = (now_ms + i64::from(utc_offset_minutes) * 60_000).rem_euclid(86_400_000) / 100;
    let seconds = tenths / 10;
    format!(
        "{:02}:{:02}:{:02}.{}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        tenths % 10
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'static> = Names {
        chinese: "花山村11",
        english: "Huashan Village 11",
    };

    #[test]
    fn the_clock_shows_local_time() {
        assert_eq!(clock_text(0, 480), "08:00:00.0");
        assert_eq!(clock_text(86_399_950, 0), "23:59:59.9");
        assert_eq!(clock_text(-100, 0), "23:59:59.9");
    }

    #[test]
    fn every_size_carries_its_mark_and_moves() {
        for size in [
            PictureSize::P180_5,
            PictureSize::P360_15,
            PictureSize::P720_30,
            PictureSize::P1080_30,
        ] {
            let mut card = Card::new(size, 513, NAMES, 480);
            let first = card.draw(1_700_000_000_123).clone();
            let mark = Mark::read(first.luma(), first.width(), first.height(), first.width());
            assert_eq!(
                mark,
                Some(Mark {
                    site: 513,
                    time_ms: 1_700_000_000_123_u64 as u32
                }),
                "{size}"
            );
            let second = card.draw(1_700_000_000_623);
            let ball = band(second.width(), second.height(), 150, 190);
            let row = (ball.y + ball.height / 2) * second.width();
            let line = row..row + second.width();
            assert_ne!(
                first.luma()[line.clone()],
                second.luma()[line],
                "{size}: the ball stands still"
            );
        }
    }

    #[test]
    fn without_any_name_there_is_still_a_card() {
        let mut card = Card::new(
            PictureSize::P180_5,
            7,
            Names {
                chinese: "",
                english: "",
            },
            0,
        );
        assert!(Mark::read(card.draw(5).luma(), 320, 180, 320).is_some());
    }
}
