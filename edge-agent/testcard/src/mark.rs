//! The machine-readable mark of a test card: which site a picture is of, and when it was drawn.
//!
//! Geometry, for a picture of `W` x `H` pixels. A grid of 20 columns and 15 rows lies over the whole picture; a
//! cell is `W/20` by `H/15`. The mark is columns 1..=18 and rows 10..=13 of it (counted from 0): 18 cells wide,
//! 4 high. In the mark's own columns (0..=17) and rows (0..=3):
//!
//! - columns 0 and 17 are references: column 0 is white, black, white, black from the top, column 17 is black, white,
//!   black, white;
//! - columns 1..=16 carry 16 bits a row, most significant bit at the left, white is 1: row 0 the site number, row 1 the
//!   upper and row 2 the lower half of the time (milliseconds since the Unix epoch, modulo 2^32), row 3 the
//!   CRC-16/CCITT-FALSE of these six bytes, each row big-endian.
//!
//! Reading, at any size: a cell's value is the mean luma of the pixels with `x` in `[W*(4c+5)/80, W*(4c+7)/80)` and `y` in
//! `[H*(4r+41)/60, H*(4r+43)/60)` (integer division; an empty range is one pixel, the first), that is the middle half of
//! the cell both ways. `white` and `black` are the means of the four reference cells of each kind. If
//! `white - black < 48` there is no mark. The threshold is `(white + black) / 2`; all eight references must lie on their
//! side of it, a data cell above it is 1, and the CRC must agree. A reader that has RGB may take green for luma.
//!
//! The site number is `CRC-16/CCITT-FALSE(site id in UTF-8)` (polynomial 0x1021, start 0xFFFF, not reflected, no final
//! xor; "123456789" gives 0x29B1), so that everyone can compute it from the id.

use crate::picture::{Picture, Rect};

const GRID_COLUMNS: usize = 20;
const GRID_ROWS: usize = 15;
const FIRST_COLUMN: usize = 1;
const FIRST_ROW: usize = 10;
const COLUMNS: usize = 18;
const ROWS: usize = 4;
const WHITE: u8 = 235;
const BLACK: u8 = 16;
const LEAST_CONTRAST: u32 = 48;

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// See [`site_number`].
    pub site: u16,
    /// Milliseconds since the Unix epoch, modulo 2^32.
    pub time_ms: u32,
}

/// The number that stands for a site id in a mark.
pub fn site_number(site_id: &str) -> u16 {
    crc16(site_id.as_bytes())
}

/// CRC-16/CCITT-FALSE.
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0xFFFF_u16;
    for byte in bytes {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
        }
    }
    crc
}

impl Mark {
    /// The mark's age at `now_ms`, in milliseconds; a mark from the future (clocks differ) is 0 old.
    pub fn age_ms(self, now_ms: i64) -> u32 {
        let age = (now_ms as u32).wrapping_sub(self.time_ms);
        if age > u32::MAX / 2 { 0 } else { age }
    }

    /// Draws the mark into the picture.
    pub fn draw(self, picture: &mut Picture) {
        let rows = self.rows();
        let (width, height) = (picture.width(), picture.height());
        for (row, bits) in rows.into_iter().enumerate() {
            let top = height * (FIRST_ROW + row) / GRID_ROWS;
            let bottom = height * (FIRST_ROW + row + 1) / GRID_ROWS;
            for column in 0..COLUMNS {
                let left = width * (FIRST_COLUMN + column) / GRID_COLUMNS;
                let right = width * (FIRST_COLUMN + column + 1) / GRID_COLUMNS;
                let cell = Rect {
                    x: left,
                    y: top,
                    width: right - left,
                    height: bottom - top,
                };
                picture.fill_luma(cell, if is_white(column, row, bits) { WHITE } else { BLACK });
            }
        }
    }

    /// The rectangle that the mark fills in a picture of this size.
    pub fn area(width: usize, height: usize) -> Rect {
        let (x, y) = (
            width * FIRST_COLUMN / GRID_COLUMNS,
            height * FIRST_ROW / GRID_ROWS,
        );
        Rect {
            x,
            y,
            width: width * (FIRST_COLUMN + COLUMNS) / GRID_COLUMNS - x,
            height: height * (FIRST_ROW + ROWS) / GRID_ROWS - y,
        }
    }

    /// Reads the mark out of a luma plane of `height` rows, `stride` bytes apart. `None`: no mark, a damaged one,
    /// or a plane that is shorter than it says.
    pub fn read(luma: &[u8], width: usize, height: usize, stride: usize) -> Option<Self> {
        let needed = stride.checked_mul(height.checked_sub(1)?)?.checked_add(width)?;
        if width == 0 || stride < width || luma.len() < needed || width > 1 << 16 || height > 1 << 16 {
            return None;
        }
        let cell = |column, row| cell_mean(luma, width, height, stride, column, row);
        let threshold = threshold(&cell)?;
        let mut rows = [0_u16; ROWS];
        for (row, bits) in rows.iter_mut().enumerate() {
            for column in 1..COLUMNS - 1 {
                *bits = *bits << 1 | u16::from(cell(column, row) > threshold);
            }
        }
        let mark = Self {
            site: rows[0],
            time_ms: u32::from(rows[1]) << 16 | u32::from(rows[2]),
        };
        (mark.rows() == rows).then_some(mark)
    }

    fn rows(self) -> [u16; ROWS] {
        let mut bytes = [0; 6];
        bytes[..2].copy_from_slice(&self.site.to_be_bytes());
        bytes[2..].copy_from_slice(&self.time_ms.to_be_bytes());
        [
            self.site,
            (self.time_ms >> 16) as u16,
            self.time_ms as u16,
            crc16(&bytes),
        ]
    }
}

fn is_white(column: usize, row: usize, bits: u16) -> bool {
    match column {
        0 => row.is_multiple_of(2),
        17 => !row.is_multiple_of(2),
        data => bits >> (16 - data) & 1 == 1,
    }
}

/// The threshold between black and white by the reference cells, or `None` if they are not as they must be.
fn threshold(cell: &impl Fn(usize, usize) -> u32) -> Option<u32> {
    let references = [0, COLUMNS - 1]
        .into_iter()
        .flat_map(|column| (0..ROWS).map(move |row| (column, row)));
    let (mut white, mut black) = (0, 0);
    for (column, row) in references.clone() {
        let value = cell(column, row);
        if is_white(column, row, 0) {
            white += value
        } else {
            black += value
        }
    }
    let (white, black) = (white / 4, black / 4);
    if white < black + LEAST_CONTRAST {
        return None;
    }
    let threshold = (white + black) / 2;
    references
        .into_iter()
        .all(|(column, row)| (cell(column, row) > threshold) == is_white(column, row, 0))
        .then_some(threshold)
}

fn cell_mean(luma: &[u8], width: usize, height: usize, stride: usize, column: usize, row: usize) -> u32 {
    let range = |size: usize, first: usize, parts: usize| {
        let start = (size * first / parts).min(size - 1);
        start..(size * (first + 2) / parts).max(start + 1)
    };
    let columns = range(width, 4 * (FIRST_COLUMN + column) + 1, 4 * GRID_COLUMNS);
    let rows = range(height, 4 * (FIRST_ROW + row) + 1, 4 * GRID_ROWS);
    let count = (columns.len() * rows.len()) as u32;
    let sum: u32 = rows
        .map(|y| {
            luma[y * stride..][columns.clone()]
                .iter()
                .map(|&value| u32::from(value))
                .sum::<u32>()
        })
        .sum();
    sum / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_the_documented_one() {
        assert_eq!(crc16(b"123456789"), 0x29B1);
        assert_eq!(site_number(""), 0xFFFF);
    }

    #[test]
    fn ages_wrap_and_are_never_negative() {
        let mark = Mark {
            site: 1,
            time_ms: u32::MAX - 9,
        };
        assert_eq!(mark.age_ms((1 << 32) + 40), 50);
        assert_eq!(mark.age_ms((1 << 32) - 20), 0);
    }

    #[test]
    fn a_grey_picture_has_no_mark() {
        assert_eq!(Mark::read(&vec![128; 320 * 180], 320, 180, 320), None);
    }

    #[test]
    fn one_flipped_cell_is_noticed() {
        let mut picture = Picture::new(320, 180);
        Mark {
            site: 0x1234,
            time_ms: 7,
        }
        .draw(&mut picture);
        assert!(Mark::read(picture.luma(), 320, 180, 320).is_some());
        picture.fill_luma(
            Rect {
                x: 16 * 2,
                y: 120,
                width: 16,
                height: 12,
            },
            WHITE,
        );
        assert_eq!(Mark::read(picture.luma(), 320, 180, 320), None);
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_read_at_any_size(site: u16, time_ms: u32, width in 40_u16..700, height in 30_u16..500) {
            let mark = Mark { site, time_ms };
            let mut picture = Picture::new(width, height);
            mark.draw(&mut picture);
            prop_assert_eq!(Mark::read(picture.luma(), picture.width(), picture.height(), picture.width()), Some(mark));
        }

        #[test]
        fn noise_never_panics(
            luma in proptest::collection::vec(any::<u8>(), 0..4000),
            width in 0_usize..200, height in 0_usize..200, stride in 0_usize..300,
        ) {
            let _ = Mark::read(&luma, width, height, stride);
        }
    }
}
