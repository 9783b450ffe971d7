//! An I420 picture in one buffer: the luma plane, then the two chroma planes of half the width and height.
//! Rows are not padded. Drawing outside the picture is clipped, never an error.

/// An I420 picture. Width and height are even and at least 2.
#[derive(Clone, Debug)]
pub struct Picture {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

/// A rectangle in pixels; it may reach outside the picture.
#[derive(Clone, Copy, Debug)]
pub struct Rect {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

impl Picture {
    /// A black picture. Odd sizes are rounded up to even ones.
    pub fn new(width: u16, height: u16) -> Self {
        let width = (usize::from(width).max(2) + 1) & !1;
        let height = (usize::from(height).max(2) + 1) & !1;
        let mut data = vec![16; width * height * 3 / 2];
        data[width * height..].fill(128);
        Self { width, height, data }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// The luma plane: `width * height` bytes, row by row.
    pub fn luma(&self) -> &[u8] {
        &self.data[..self.width * self.height]
    }

    /// All three planes, one after the other.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Fills a rectangle of the luma plane.
    pub fn fill_luma(&mut self, rect: Rect, value: u8) {
        let (right, bottom) = self.clip(rect);
        for y in rect.y..bottom {
            let row = y * self.width;
            if let Some(pixels) = self.data.get_mut(row + rect.x..row + right) {
                pixels.fill(value);
            }
        }
    }

    /// Gives one pixel of the luma plane a value between its own (0) and `value` (255).
    pub fn blend_luma(&mut self, x: usize, y: usize, value: u8, coverage: u8) {
        if x >= self.width || y >= self.height {
            return;
        }
        let pixel = &mut self.data[y * self.width + x];
        let (old, new, part) = (u32::from(*pixel), u32::from(value), u32::from(coverage));
        *pixel = ((old * (255 - part) + new * part) / 255) as u8;
    }

    /// Fills the chroma of a rectangle (given in luma pixels).
    pub fn fill_chroma(&mut self, rect: Rect, u: u8, v: u8) {
        let (right, bottom) = self.clip(rect);
        let (half_width, luma) = (self.width / 2, self.width * self.height);
        let plane = half_width * self.height / 2;
        for (start, value) in [(luma, u), (luma + plane, v)] {
            for y in rect.y / 2..bottom.div_ceil(2) {
                let row = start + y * half_width;
                if let Some(pixels) = self.data.get_mut(row + rect.x / 2..row + right.div_ceil(2)) {
                    pixels.fill(value);
                }
            }
        }
    }

    fn clip(&self, rect: Rect) -> (usize, usize) {
        (
            rect.x.saturating_add(rect.width).min(self.width),
            rect.y.saturating_add(rect.height).min(self.height),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_outside_is_clipped() {
        let mut picture = Picture::new(16, 8);
        let outside = Rect {
            x: 10,
            y: 6,
            width: 100,
            height: 100,
        };
        picture.fill_luma(outside, 200);
        picture.fill_chroma(outside, 1, 2);
        picture.fill_luma(
            Rect {
                x: 90,
                y: 90,
                width: 1,
                height: 1,
            },
            200,
        );
        picture.blend_luma(99, 99, 1, 1);
        assert_eq!(
            picture.luma().iter().filter(|&&value| value == 200).count(),
            6 * 2
        );
        assert_eq!(picture.data().len(), 16 * 8 * 3 / 2);
    }

    #[test]
    fn odd_sizes_become_even() {
        let picture = Picture::new(0, 7);
        assert_eq!((picture.width(), picture.height()), (2, 8));
    }
}
