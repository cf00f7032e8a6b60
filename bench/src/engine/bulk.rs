//! Loading very many records: one batch, fixed chunks and adaptive chunks, as the originals compared them.

use super::{
    data::{key, scattered},
    suites::{Bench, DURABILITIES, values},
};
use anyhow::Result;
use chronolith_engine::{BulkLoader, Durability, WriteBatch};
use std::time::{Duration, Instant};

/// The adaptive loader's rate, relative to the better of the other ways.
const LEAST_SHARE: f64 = 0.95;
/// Rounds in which the ways take turns: a single round says little on a shared machine. Each order
/// comes as often as the others.
const LEAST_ROUNDS: u32 = 3 * ORDERS.len() as u32;

#[derive(Clone, Copy)]
enum Way {
    OneBatch,
    Tenths,
    Adaptive,
}

const WAYS: [(Way, &str); 3] =
    [(Way::OneBatch, "one batch"), (Way::Tenths, "chunks of a tenth"), (Way::Adaptive, "adaptive")];

/// Every way follows every other one: what one leaves in the allocator and to the disk, the next one
/// meets, and by turns alone it would always be the same one that meets it.
const ORDERS: [[usize; WAYS.len()]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

impl Bench<'_> {
    pub(super) fn bulk(&mut self) -> Result<()> {
        // A run with few operations is a look, not a measurement.
        let mut counts =
            [10_000, 50_000, 100_000].map(|count| self.scale.operations.min(count)).to_vec();
        counts.dedup();
        for count in counts {
            for (name, durability) in &DURABILITIES[..2] {
                let rounds = self.scale.repeats.max(LEAST_ROUNDS);
                let rounds: Vec<[f64; 3]> = (0..rounds)
                    .map(|round| self.bulk_round(round, count, *durability))
                    .collect::<Result<_>>()?;
                for (place, (way, title)) in WAYS.iter().enumerate() {
                    let rate = median(rounds.iter().map(|rates| rates[place]).collect());
                    let took = Duration::from_secs_f64(count as f64 / rate);
                    let case = format!("{count} records, {name}, {title}");
                    let mut row = self.row("bulk", case).took(count, took);
                    if matches!(way, Way::Adaptive) {
                        let share = median(rounds.iter().map(share).collect());
                        row.note = format!("{:.0} % of the better", share * 100.0);
                        row.passed = Some(share >= LEAST_SHARE);
                    }
                    self.done(row);
                }
            }
        }
        Ok(())
    }

    /// Each way once, one after the other, in another order each round: other load on the machine hits
    /// all alike.
    fn bulk_round(&self, round: u32, count: u64, durability: Durability) -> Result<[f64; 3]> {
        let mut rates = [0.0; 3];
        for place in ORDERS[round as usize % ORDERS.len()] {
            rates[place] = self.bulk_case(WAYS[place].0, count, durability)?;
        }
        Ok(rates)
    }

    fn bulk_case(&self, way: Way, count: u64, durability: Durability) -> Result<f64> {
        let (subject, column) = self.subject()?;
        let values = values(count, self.scale.value_bytes);
        let records = (0..count).map(|number| scattered(number, count));
        let begun = Instant::now();
        let mut loader = match way {
            Way::OneBatch => {
                let record_bytes = key(0).len() + self.scale.value_bytes;
                let count = count as usize;
                let mut batch = WriteBatch::with_capacity(count, count * record_bytes);
                records.for_each(|number| {
                    batch.put(column, key(number), &values[number as usize]);
                });
                subject.engine.write(batch, durability)?;
                return Ok(count as f64 / begun.elapsed().as_secs_f64());
            }
            Way::Tenths => {
                BulkLoader::with_fixed_chunks(&*subject.engine, durability, count as usize / 10)
            }
            // It knows what the one batch knows.
            Way::Adaptive => {
                BulkLoader::new(&*subject.engine, durability).expecting(count as usize)
            }
        };
        for number in records {
            loader.put(column, key(number), &values[number as usize])?;
        }
        loader.finish()?;
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    }
}

/// The adaptive way's rate, relative to the better of the others in the same round.
fn share([one, fixed, adaptive]: &[f64; 3]) -> f64 {
    adaptive / one.max(*fixed)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
