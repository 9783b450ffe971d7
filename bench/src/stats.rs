//! Percentiles of a sample, and the JSON's rounding.

/// Values of one kind; the order is lost.
#[derive(Default)]
pub struct Sample(Vec<u64>);

impl Sample {
    pub fn add(&mut self, value: u64) {
        self.0.push(value);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// The smallest value that at least `percent` of all do not exceed (nearest rank); None of nothing.
    pub fn percentile(&mut self, percent: u32) -> Option<u64> {
        self.0.sort_unstable();
        let rank = (self.0.len() as u64 * u64::from(percent)).div_ceil(100).max(1);
        self.0.get(usize::try_from(rank).ok()? - 1).copied()
    }

    /// Of microseconds, in milliseconds.
    pub fn percentile_ms(&mut self, percent: u32) -> Option<f64> {
        self.percentile(percent).map(|us| rounded(us as f64 / 1000.0, 2))
    }
}

/// To `digits` after the point.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut sample = Sample::default();
        assert_eq!(sample.percentile(50), None);
        (1..=200).rev().for_each(|n| sample.add(n));
        let found = [0, 1, 50, 95, 99, 100].map(|percent| sample.percentile(percent));
        assert_eq!(found, [1, 2, 100, 190, 198, 200].map(Some));
        let mut one = Sample::default();
        one.add(7);
        assert_eq!((one.percentile(1), one.percentile(99)), (Some(7), Some(7)));
    }

    #[test]
    fn microseconds_become_milliseconds() {
        let mut sample = Sample::default();
        sample.add(12_346);
        assert_eq!(sample.percentile_ms(99), Some(12.35));
        assert_eq!(rounded(0.99996, 4), 1.0);
    }
}
