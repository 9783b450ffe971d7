//! The code's arithmetic without large tables, for a box with little memory.
//!
//! The crate's own engines keep 8 MB of products. A product by a constant is linear in the bits of the other factor, so the products of
//! the sixteen bits are enough: [`Small`] adds those whose bit is set, for 32 elements at a time in plain loops that the
//! compiler turns into vector instructions. The code is the same to the bit, and takes some six times the crate's time with AVX2.
//! What is left are the crate's tables for exponents, logarithms and twiddle factors: 128 KiB each.

use reed_solomon_simd::engine::{
    DefaultEngine, Engine, GF_MODULUS, GF_ORDER, GfElement, ShardsRefMut, tables, utils,
};

/// Bytes of a chunk: the low bytes of 32 elements, then the high ones.
const CHUNK: usize = 64;
const HALF: usize = CHUNK / 2;

/// An engine with small tables.
#[derive(Clone, Copy)]
pub struct Small {
    field: &'static tables::ExpLog,
    skew: &'static tables::Skew,
}

/// The products of each bit of an element by one factor: low and high byte.
type Columns = [(u8, u8); 16];

impl Small {
    pub fn new() -> Self {
        Self {
            field: tables::get_exp_log(),
            skew: tables::get_skew(),
        }
    }

    /// What butterflies at this place multiply by; `None` where that is nothing.
    fn factor(&self, place: usize) -> Option<Columns> {
        let log_m = self.skew[place];
        (log_m != GF_MODULUS).then(|| self.columns(log_m))
    }

    fn columns(&self, log_m: GfElement) -> Columns {
        std::array::from_fn(|bit| {
            let product = tables::mul(1 << bit, log_m, &self.field.exp, &self.field.log);
            let [low, high] = product.to_le_bytes();
            (low, high)
        })
    }
}

/// The product of 32 elements.
#[inline(always)]
fn product(chunk: &[u8; CHUNK], columns: &Columns) -> [u8; CHUNK] {
    let mut all = [0u8; CHUNK];
    let (low, high) = all.split_at_mut(HALF);
    for (bit, &(to_low, to_high)) in columns.iter().enumerate() {
        let (half, mask) = (bit / 8 * HALF, 1u8 << (bit % 8));
        for place in 0..HALF {
            let set = if chunk[half + place] & mask == mask {
                0xff
            } else {
                0
            };
            low[place] ^= set & to_low;
            high[place] ^= set & to_high;
        }
    }
    all
}

/// `x += y * factor`.
fn add_product(x: &mut [[u8; CHUNK]], y: &[[u8; CHUNK]], columns: &Columns) {
    for (x, y) in x.iter_mut().zip(y) {
        let product = product(y, columns);
        x.iter_mut().zip(product).for_each(|(x, more)| *x ^= more);
    }
}

impl Engine for Small {
    fn fft(
        &self,
        data: &mut ShardsRefMut,
        pos: usize,
        size: usize,
        truncated_size: usize,
        skew_delta: usize,
    ) {
        let mut apart = size / 2;
        while apart > 0 {
            for from in (0..truncated_size).step_by(apart * 2) {
                let factor = self.factor(from + apart + skew_delta - 1);
                for place in from..from + apart {
                    let (a, b) = data.dist2_mut(pos + place, apart);
                    if let Some(columns) = &factor {
                        add_product(a, b, columns);
                    }
                    utils::xor(b, a);
                }
            }
            apart /= 2;
        }
    }

    fn ifft(
        &self,
        data: &mut ShardsRefMut,
        pos: usize,
        size: usize,
        truncated_size: usize,
        skew_delta: usize,
    ) {
        let mut apart = 1;
        while apart < size {
            for from in (0..truncated_size).step_by(apart * 2) {
                let factor = self.factor(from + apart + skew_delta - 1);
                for place in from..from + apart {
                    let (a, b) = data.dist2_mut(pos + place, apart);
                    utils::xor(b, a);
                    if let Some(columns) = &factor {
                        add_product(a, b, columns);
                    }
                }
            }
            apart *= 2;
        }
    }

    fn mul(&self, x: &mut [[u8; CHUNK]], log_m: GfElement) {
        let columns = self.columns(log_m);
        for chunk in x {
            *chunk = product(chunk, &columns);
        }
    }

    fn eval_poly(erasures: &mut [GfElement; GF_ORDER], truncated_size: usize) {
        // It has the vector instructions, and no table of products.
        DefaultEngine::eval_poly(erasures, truncated_size);
    }
}
