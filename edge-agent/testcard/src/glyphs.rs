//! Writing on a picture: names with the system's Noto CJK font where it is installed, digits and Latin capitals with a
//! small built-in one. The big font is open only while a name is written; nothing of it is kept.

use std::path::Path;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};

use crate::mapped::MappedFile;
use crate::picture::{Picture, Rect};

/// Where Debian's fonts-noto-cjk puts it.
const CJK_FONTS: [&str; 2] = [
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
];
/// Simplified Chinese in the collection.
const CJK_FACE: u32 = 2;
/// Width of a built-in character with its gap, and its height, in units of its scale.
const ADVANCE: usize = 6;
const HEIGHT: usize = 7;

/// Columns of the characters from space to Z, least significant bit at the top.
const BUILT_IN: [[u8; 5]; 59] = [
    [0x00, 0x00, 0x00, 0x00, 0x00],
    [0x00, 0x00, 0x5F, 0x00, 0x00],
    [0x00, 0x07, 0x00, 0x07, 0x00],
    [0x14, 0x7F, 0x14, 0x7F, 0x14],
    [0x24, 0x2A, 0x7F, 0x2A, 0x12],
    [0x23, 0x13, 0x08, 0x64, 0x62],
    [0x36, 0x49, 0x55, 0x22, 0x50],
    [0x00, 0x05, 0x03, 0x00, 0x00],
    [0x00, 0x1C, 0x22, 0x41, 0x00],
    [0x00, 0x41, 0x22, 0x1C, 0x00],
    [0x14, 0x08, 0x3E, 0x08, 0x14],
    [0x08, 0x08, 0x3E, 0x08, 0x08],
    [0x00, 0x50, 0x30, 0x00, 0x00],
    [0x08, 0x08, 0x08, 0x08, 0x08],
    [0x00, 0x60, 0x60, 0x00, 0x00],
    [0x20, 0x10, 0x08, 0x04, 0x02],
    [0x3E, 0x51, 0x49, 0x45, 0x3E],
    [0x00, 0x42, 0x7F, 0x40, 0x00],
    [0x42, 0x61, 0x51, 0x49, 0x46],
    [0x21, 0x41, 0x45, 0x4B, 0x31],
    [0x18, 0x14, 0x12, 0x7F, 0x10],
    [0x27, 0x45, 0x45, 0x45, 0x39],
    [0x3C, 0x4A, 0x49, 0x49, 0x30],
    [0x01, 0x71, 0x09, 0x05, 0x03],
    [0x36, 0x49, 0x49, 0x49, 0x36],
    [0x06, 0x49, 0x49, 0x29, 0x1E],
    [0x00, 0x36, 0x36, 0x00, 0x00],
    [0x00, 0x56, 0x36, 0x00, 0x00],
    [0x08, 0x14, 0x22, 0x41, 0x00],
    [0x14, 0x14, 0x14, 0x14, 0x14],
    [0x00, 0x41, 0x22, 0x14, 0x08],
    [0x02, 0x01, 0x51, 0x09, 0x06],
    [0x32, 0x49, 0x79, 0x41, 0x3E],
    [0x7E, 0x11, 0x11, 0x11, 0x7E],
    [0x7F, 0x49, 0x49, 0x49, 0x36],
    [0x3E, 0x41, 0x41, 0x41, 0x22],
    [0x7F, 0x41, 0x41, 0x22, 0x1C],
    [0x7F, 0x49, 0x49, 0x49, 0x41],
    [0x7F, 0x09, 0x09, 0x09, 0x01],
    [0x3E, 0x41, 0x49, 0x49, 0x7A],
    [0x7F, 0x08, 0x08, 0x08, 0x7F],
    [0x00, 0x41, 0x7F, 0x41, 0x00],
    [0x20, 0x40, 0x41, 0x3F, 0x01],
    [0x7F, 0x08, 0x14, 0x22, 0x41],
    [0x7F, 0x40, 0x40, 0x40, 0x40],
    [0x7F, 0x02, 0x0C, 0x02, 0x7F],
    [0x7F, 0x04, 0x08, 0x10, 0x7F],
    [0x3E, 0x41, 0x41, 0x41, 0x3E],
    [0x7F, 0x09, 0x09, 0x09, 0x06],
    [0x3E, 0x41, 0x51, 0x21, 0x5E],
    [0x7F, 0x09, 0x19, 0x29, 0x46],
    [0x46, 0x49, 0x49, 0x49, 0x31],
    [0x01, 0x01, 0x7F, 0x01, 0x01],
    [0x3F, 0x40, 0x40, 0x40, 0x3F],
    [0x1F, 0x20, 0x40, 0x20, 0x1F],
    [0x3F, 0x40, 0x38, 0x40, 0x3F],
    [0x63, 0x14, 0x08, 0x14, 0x63],
    [0x07, 0x08, 0x70, 0x08, 0x07],
    [0x61, 0x51, 0x49, 0x45, 0x43],
];

/// Writes `text` with the CJK font into `area`, smaller where it would not fit. `false`, and nothing drawn, if the font
/// is not installed or lacks a character.
pub fn write_cjk(picture: &mut Picture, area: Rect, text: &str, value: u8) -> bool {
    CJK_FONTS
        .iter()
        .any(|path| write_with(picture, area, text, value, Path::new(path)).is_some())
}

fn write_with(picture: &mut Picture, area: Rect, text: &str, value: u8, path: &Path) -> Option<()> {
    let bytes = MappedFile::open(path).ok()?;
    let font = FontRef::try_from_slice_and_index(&bytes, CJK_FACE).ok()?;
    if text.trim().is_empty() || text.chars().any(|c| font.glyph_id(c).0 == 0) {
        return None;
    }
    let mut scale = area.height as f32;
    let advance: f32 = text
        .chars()
        .map(|c| font.as_scaled(scale).h_advance(font.glyph_id(c)))
        .sum();
    scale *= (area.width as f32 / advance.max(1.0)).min(1.0);
    let scaled = font.as_scaled(PxScale::from(scale));
    let mut pen = point(area.x as f32, area.y as f32 + scaled.ascent());
    for c in text.chars() {
        let glyph: Glyph = font.glyph_id(c).with_scale_and_position(scale, pen);
        pen.x += scaled.h_advance(glyph.id);
        let Some(outline) = font.outline_glyph(glyph) else {
            continue;
        };
        let bounds = outline.px_bounds();
        outline.draw(|x, y, coverage| {
            let (x, y) = (
                bounds.min.x as i64 + i64::from(x),
                bounds.min.y as i64 + i64::from(y),
            );
            if let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) {
                picture.blend_luma(x, y, value, (coverage.clamp(0.0, 1.0) * 255.0) as u8);
            }
        });
    }
    Some(())
}

/// Writes `text` with the built-in font, as large as fits into `area`; small letters become capitals, and what the font
/// lacks a question mark. What does not fit even at the smallest size is cut off.
pub fn write_built_in(picture: &mut Picture, area: Rect, text: &str, value: u8) {
    let count = text.chars().count().max(1);
    let scale = (area.height / HEIGHT).min(area.width / (count * ADVANCE)).max(1);
    for (index, c) in text.chars().take(area.width / (ADVANCE * scale)).enumerate() {
        let columns =
            usize::try_from(u32::from(c.to_ascii_uppercase()).wrapping_sub(32)).unwrap_or(usize::MAX);
        let columns = BUILT_IN.get(columns).unwrap_or(&BUILT_IN[31]);
        for (column, bits) in columns.iter().enumerate() {
            for row in (0..HEIGHT).filter(|row| bits >> row & 1 == 1) {
                let (x, y) = (area.x + (index * ADVANCE + column) * scale, area.y + row * scale);
                picture.fill_luma(
                    Rect {
                        x,
                        y,
                        width: scale,
                        height: scale,
                    },
                    value,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<u8> {
        let mut picture = Picture::new(64, 16);
        write_built_in(
            &mut picture,
            Rect {
                x: 0,
                y: 0,
                width: 64,
                height: 16,
            },
            text,
            255,
        );
        picture.luma().to_vec()
    }

    #[test]
    fn unknown_characters_become_question_marks() {
        assert_eq!(written("a武"), written("A?"));
        assert_ne!(written("A?"), written("A "));
    }

    #[test]
    fn a_missing_character_draws_nothing() {
        let mut picture = Picture::new(64, 16);
        let area = Rect {
            x: 0,
            y: 0,
            width: 64,
            height: 16,
        };
        assert!(!write_cjk(&mut picture, area, "\u{10FFFF}", 255));
        assert!(picture.luma().iter().all(|&value| value == 16));
    }
}
