//! How a packet's deadline is met for the least bytes: rounds of single copies, several in the last round. Parity where no
//! rounds fit is reckoned from the losses that were ([`super::loss`]).
//!
//! With loss `p`, single copies in every round cost p/(1-p) over the source, the least that any scheme can do; what is still
//! missing in the last round is little, so several copies of it cost little. Nothing here keeps more than tables of what it reckoned.

use super::Micros;

/// What a packet that misses its deadline costs, in packets sent: decides how much is spent on the last of them.
pub const COST_OF_MISS: f64 = 120.0;
/// Most copies of a packet in a round.
pub const MOST_COPIES: u32 = 8;
/// Most rounds that are looked ahead.
const MOST_ROUNDS: u32 = 6;

/// Rounds that fit after one that is sent now: `left` until the deadline, one way and from one send to the next in `round`, all µs.
pub fn rounds_after(left: Micros, one_way: Micros, round: Micros) -> u32 {
    let spare = left.saturating_sub(one_way);
    u32::try_from(spare / round.max(1)).unwrap_or(u32::MAX)
}

/// Copies to send now of a packet that is missing, in thousandths so that the caller can spread the fraction.
///
/// `loss` is 0 to 1; `spare` is what is left of the deadline after this round's way, `round` the time from a send to the
/// knowledge that it was lost, `spread` how far that varies; all µs. Works back from the last round: there, copies cost what
/// they save; before, a copy is weighed against the rounds to come, and against the chance that the next comes too late.
pub fn copies(loss: f64, spare: Micros, round: Micros, spread: Micros) -> u32 {
    let loss = loss.clamp(0.001, 0.95);
    let rounds = rounds_after(spare, 0, round).min(MOST_ROUNDS);
    let (mut copies, mut cost) = best(loss, COST_OF_MISS);
    for earlier in (0..=rounds).rev() {
        let spare = spare as f64 - f64::from(earlier) * round as f64;
        // The chance that after this one another round fits.
        let fits = 1.0 / (1.0 + ((round as f64 - spare) / spread.max(500) as f64).exp());
        (copies, cost) = best(loss, fits * cost + (1.0 - fits) * COST_OF_MISS);
    }
    (copies * 1000.0) as u32
}

/// The number of copies with the least expected cost where a loss of all of them costs `next`, and that cost.
fn best(loss: f64, next: f64) -> (f64, f64) {
    let copies = ((next * -loss.ln()).ln() / -loss.ln()).clamp(1.0, f64::from(MOST_COPIES));
    (copies, copies + loss.powf(copies) * next)
}

/// What a frame that misses its deadline costs, in packets sent, times the square of the loss: where little is lost, more is
/// cheap.
const COST_OF_FRAME: f64 = 3.6;
/// The same, at most.
const MOST_COST_OF_FRAME: f64 = 400.0;
/// Needs up to this are planned exactly.
const EXACT: usize = 28;
/// More than needed, at most.
const SLACK: usize = 12;
/// Tables that are kept.
const MOST_TABLES: usize = 8;
/// Rounds that are looked ahead for frames.
const FRAME_ROUNDS: usize = 4;

/// How many symbols of a frame go out in a round, for the least bytes: a dynamic program over the rounds that are left.
///
/// With `k` rounds after this one, `n` symbols needed and `s` sent, the cost is `s` and what the remaining need then costs;
/// in the last round what remains costs what a miss does.
#[derive(Debug, Clone, Default)]
pub struct Planner {
    /// For the losses that were last asked for, the newest last.
    tables: Vec<Table>,
}

#[derive(Debug, Clone, Default)]
struct Table {
    /// Half hundredths of loss that the tables are for.
    bucket: u32,
    /// What a frame that misses costs at that loss.
    miss: f64,
    /// By rounds after this one, then by need: the least cost.
    value: Vec<Vec<f64>>,
    /// By symbols sent, then by symbols that arrive: the chance.
    arrive: Vec<Vec<f64>>,
}

impl Planner {
    /// The table for a loss; one that was not asked for lately is made.
    fn table(&mut self, loss: f64) -> &Table {
        let bucket = ((loss.clamp(0.002, 0.6) * 200.0).round() as u32).max(1);
        let place = self.tables.iter().position(|table| table.bucket == bucket);
        if let Some(place) = place {
            return &self.tables[place];
        }
        if self.tables.len() == MOST_TABLES {
            self.tables.remove(0);
        }
        self.tables.push(Table::new(bucket));
        &self.tables[self.tables.len() - 1]
    }

    /// Symbols to be on their way now where `need` are wanted: those that fly already count. Times as in [`copies`].
    pub fn symbols(&mut self, loss: f64, need: usize, spare: Micros, round: Micros, spread: Micros) -> usize {
        self.table(loss).symbols(need, spare, round, spread)
    }
}

impl Table {
    fn new(bucket: u32) -> Self {
        let mut table = Self {
            bucket,
            miss: (COST_OF_FRAME / (f64::from(bucket) / 200.0).powi(2)).min(MOST_COST_OF_FRAME),
            arrive: vec![vec![1.0]],
            value: Vec::new(),
        };
        let through = 1.0 - f64::from(bucket) / 200.0;
        // Pascal's triangle with weights.
        for sent in 1..=EXACT + SLACK {
            let before = &table.arrive[sent - 1];
            let chance = |arrived: usize| before.get(arrived).copied().unwrap_or(0.0);
            let row = (0..=sent).map(|arrived| {
                let this = arrived.checked_sub(1).map_or(0.0, chance);
                chance(arrived) * (1.0 - through) + this * through
            });
            let row = row.collect();
            table.arrive.push(row);
        }
        for rounds in 0..=FRAME_ROUNDS {
            let row = (0..=EXACT).map(|need| table.least(rounds, need).1).collect();
            table.value.push(row);
        }
        table
    }

    /// The cost of `sent` symbols where `need` are wanted and `rounds` follow.
    fn cost(&self, rounds: usize, need: usize, sent: usize) -> f64 {
        let remains = |arrived: usize| match rounds.checked_sub(1) {
            _ if arrived >= need => 0.0,
            None => self.miss,
            Some(later) => self.value[later][need - arrived],
        };
        let chances = self.arrive[sent].iter().enumerate().take(need);
        sent as f64
            + chances
                .map(|(arrived, chance)| chance * remains(arrived))
                .sum::<f64>()
    }

    fn least(&self, rounds: usize, need: usize) -> (usize, f64) {
        let costs = (need..=need + SLACK).map(|sent| (sent, self.cost(rounds, need, sent)));
        costs.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((need, 0.0))
    }

    fn symbols(&self, need: usize, spare: Micros, round: Micros, spread: Micros) -> usize {
        if need == 0 {
            return 0;
        }
        if need > EXACT {
            let part = self.symbols(EXACT, spare, round, spread);
            return need * part / EXACT;
        }
        // As many rounds as fit, to the nearest whole number: the last fits by chance.
        let near = (spare + round / 2) / round.max(1);
        let rounds = near.min(FRAME_ROUNDS as u64) as usize;
        let over = spare as f64 - rounds as f64 * round as f64;
        let wide = spread.max(300) as f64 * (rounds as f64).sqrt();
        let fits = if rounds == 0 {
            1.0
        } else {
            1.0 / (1.0 + (-over / wide).exp())
        };
        let fewer = rounds.saturating_sub(1);
        let costs = (need..=need + SLACK).map(|sent| {
            let cost = fits * self.cost(rounds, need, sent) + (1.0 - fits) * self.cost(fewer, need, sent);
            (sent, cost)
        });
        costs
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(need, |(sent, _)| sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_those_that_arrive_in_time() {
        assert_eq!(rounds_after(200_000, 25_000, 55_000), 3);
        assert_eq!(rounds_after(79_000, 25_000, 55_000), 0);
        assert_eq!(rounds_after(10_000, 25_000, 0), 0);
    }

    #[test]
    fn copies_wait_for_the_last_round() {
        let (round, spread) = (54_000, 2_000);
        assert_eq!(copies(0.3, 3 * round + 20_000, round, spread), 1000);
        let next_to_last = copies(0.3, round + 20_000, round, spread);
        assert!((1000..1600).contains(&next_to_last), "{next_to_last}");
        let last = copies(0.3, 20_000, round, spread);
        assert!((3000..5000).contains(&last), "{last}");
        let unsure = copies(0.3, round, round, spread);
        assert!((1500..last).contains(&unsure), "{unsure}");
    }

    #[test]
    fn any_input_gives_some_copies_and_not_too_many() {
        for (loss, spare, round, spread) in [
            (0.0, 0, 0, 0),
            (1.5, u64::MAX, 1, u64::MAX),
            (f64::MIN_POSITIVE, 1, u64::MAX, 0),
        ] {
            assert!((1000..=8000).contains(&copies(loss, spare, round, spread)));
        }
    }
}
