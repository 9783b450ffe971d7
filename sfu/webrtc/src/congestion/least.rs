//! The least of the values of the last one to two epochs: what a delay is of itself, without what comes on top.
//!
//! O(1) a value. It knows no unit but the time's: microseconds.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Least<T> {
    length: u64,
    /// When the present epoch began, and its least.
    epoch: Option<(u64, T)>,
    before: Option<T>,
}

impl<T: Copy + Ord> Least<T> {
    /// Epochs of `length` microseconds.
    pub(crate) const fn new(length: u64) -> Self {
        Self {
            length,
            epoch: None,
            before: None,
        }
    }

    /// Takes a value, and gives the least.
    pub(crate) fn update(&mut self, now: u64, value: T) -> T {
        let (since, least) = self.epoch.unwrap_or((now, value));
        let least = least.min(value);
        if now.saturating_sub(since) >= self.length {
            self.before = Some(least);
            self.epoch = Some((now, value));
        } else {
            self.epoch = Some((since, least));
        }
        self.before.map_or(least, |before| before.min(least))
    }

    /// The least, as of the last value; None before the first.
    pub(crate) fn get(&self) -> Option<T> {
        let (_, least) = self.epoch?;
        Some(self.before.map_or(least, |before| before.min(least)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_ago_than_two_epochs_is_forgotten() {
        let mut least = Least::new(100);
        assert_eq!(least.get(), None);
        assert_eq!(
            [(0, 7), (10, 5), (50, 9)].map(|(at, v)| least.update(at, v)),
            [7, 5, 5]
        );
        assert_eq!([(120, 8), (190, 9)].map(|(at, v)| least.update(at, v)), [5, 5]);
        assert_eq!((least.update(230, 6), least.update(300, 9)), (6, 6));
        assert_eq!((least.update(340, 9), least.get()), (6, Some(6)));
        assert_eq!(least.update(450, 9), 9);
    }
}
