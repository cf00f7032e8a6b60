//! The ordered in-memory indexes that are compared, behind one trait: key = series and time in one word.

use std::collections::BTreeMap;

use bplustree::BPlusTree;
use chronolith_series::{Index, Point, Reader, SeriesId};
use congee::Congee;
use crossbeam_skiplist::SkipMap;
use parking_lot::Mutex;
use scc::{Guard, TreeIndex};

/// Locks of the sharded map: far more than threads.
const SHARDS: usize = 256;

/// An index under comparison. Times are non-negative, values are the times themselves.
pub(crate) trait Peer: Sync {
    /// Appends a run of points of one series; `series` belongs to the calling thread alone.
    fn append(&self, series: u32, times: &mut dyn Iterator<Item = i64>) -> anyhow::Result<()>;
    /// Appends tick by tick: at each of `ticks` one point to each of `series`, which are the caller's.
    fn append_ticks(
        &self,
        series: &[u32],
        ticks: &mut dyn Iterator<Item = i64>,
    ) -> anyhow::Result<()> {
        for time in ticks {
            for series in series {
                self.append(*series, &mut std::iter::once(time))?;
            }
        }
        Ok(())
    }

    /// A session for one reading thread.
    fn reader(&self) -> Box<dyn Read + '_>;
}

/// What one reading thread asks.
pub(crate) trait Read {
    /// The value at a time.
    fn get(&mut self, series: u32, time: i64) -> Option<f64>;
    /// How many points lie in `low..=high`, each of them touched.
    fn scan(&mut self, series: u32, low: i64, high: i64) -> usize;
}

fn key(series: u32, time: i64) -> u64 {
    u64::from(series) << 40 | time.cast_unsigned()
}

/// This project's index.
pub(crate) struct Ours(pub(crate) Index);

impl Peer for Ours {
    fn append(&self, series: u32, times: &mut dyn Iterator<Item = i64>) -> anyhow::Result<()> {
        let mut writer = self.0.writer(SeriesId(series))?;
        for time in times {
            writer.append(time, time as f64)?;
        }
        Ok(())
    }

    /// As an ingesting thread does: it owns its series for as long as it lives.
    fn append_ticks(
        &self,
        series: &[u32],
        ticks: &mut dyn Iterator<Item = i64>,
    ) -> anyhow::Result<()> {
        let writers = series.iter().map(|series| self.0.writer(SeriesId(*series)));
        let mut writers = writers.collect::<Result<Vec<_>, _>>()?;
        for time in ticks {
            for writer in &mut writers {
                writer.append(time, time as f64)?;
            }
        }
        Ok(())
    }

    fn reader(&self) -> Box<dyn Read + '_> {
        Box::new(OurReader { reader: self.0.reader(), out: Vec::with_capacity(128) })
    }
}

struct OurReader {
    reader: Reader,
    out: Vec<Point>,
}

impl Read for OurReader {
    fn get(&mut self, series: u32, time: i64) -> Option<f64> {
        self.reader.get(SeriesId(series), time)
    }

    fn scan(&mut self, series: u32, low: i64, high: i64) -> usize {
        self.out.clear();
        self.reader.range_into(SeriesId(series), low..=high, &mut self.out);
        touched(self.out.iter().map(|point| point.value))
    }
}

/// Counts values that a scan may see: all of them, but only by looking.
fn touched(values: impl Iterator<Item = f64>) -> usize {
    values.filter(|value| *value >= 0.0).count()
}

/// The standard library's map behind many locks.
pub(crate) struct ShardedMap(Vec<Mutex<BTreeMap<u64, f64>>>);

impl ShardedMap {
    pub(crate) fn new() -> ShardedMap {
        ShardedMap((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    fn shard(&self, series: u32) -> &Mutex<BTreeMap<u64, f64>> {
        &self.0[series as usize % SHARDS]
    }
}

impl Peer for ShardedMap {
    fn append(&self, series: u32, times: &mut dyn Iterator<Item = i64>) -> anyhow::Result<()> {
        times.for_each(|time| {
            self.shard(series).lock().insert(key(series, time), time as f64);
        });
        Ok(())
    }

    fn reader(&self) -> Box<dyn Read + '_> {
        Box::new(self)
    }
}

impl Read for &ShardedMap {
    fn get(&mut self, series: u32, time: i64) -> Option<f64> {
        self.shard(series).lock().get(&key(series, time)).copied()
    }

    fn scan(&mut self, series: u32, low: i64, high: i64) -> usize {
        let map = self.shard(series).lock();
        touched(map.range(key(series, low)..=key(series, high)).map(|(_, value)| *value))
    }
}

impl Peer for SkipMap<u64, f64> {
    fn append(&self, series: u32, times: &mut dyn Iterator<Item = i64>) -> anyhow::Result<()> {
        times.for_each(|time| drop(self.insert(key(series, time), time as f64)));
        Ok(())
    }

    fn reader(&self) -> Box<dyn Read + '_> {
        Box::new(self)
    }
}

impl Read for &SkipMap<u64, f64> {
    fn get(&mut self, series: u32, time: i64) -> Option<f64> {
        SkipMap::get(self, &key(series, time)).map(|entry| *entry.value())
    }

    fn scan(&mut self, series: u32, low: i64, high: i64) -> usize {
        touched(self.range(key(series, low)..=key(series, high)).map(|entry| *entry.value()))
    }
}

impl Peer for TreeIndex<u64, f64> {
    fn append(&self, series: u32, times: &mut dyn Iterator<Item = i64>) -> anyhow::Result<()> {
        for time in times {
            let inserted = self.insert_sync(key(series, time), time as f64);
            anyhow::ensure!(inserted.is_ok(), "a key was there already");
        }
        Ok(())
    }

    fn reader(&self) -> Box<dyn Read + '_> {
        Box::new(self)
    }
}

impl Read for &TreeIndex<u64, f64> {
    fn get(&mut self, series: u32, time: i64) -> Option<f64> {
        self.peek_with(&key(series, time), |_, value| *value)
    }

    fn scan(&mut self, series: u32, low: i64, high: i64) -> usize {
        let guard = Guard::new();
        touched(self.range(key(series, low)..=key(series, high), &guard).map(|(_, value)| *value))
    }
}

/// An adaptive radix tree; it holds words, so values travel as their bits.
pub(crate) struct Art(pub(crate) Congee<usize, usize>);

impl Peer for Art {
    fn append(&self, series: u32, times: &mut dyn Iterator<Item = i64>) -> anyhow::Result<()> {
        let guard = self.0.pin();
        for time in times {
            let bits = (time as f64).to_bits() as usize;
            let inserted = self.0.insert(key(series, time) as usize, bits, &guard);
            anyhow::ensure!(matches!(inserted, Ok(None)), "a key was there already, or no memory");
        }
        Ok(())
    }

    fn reader(&self) -> Box<dyn Read + '_> {
        Box::new(self)
    }
}

impl Read for &Art {
    fn get(&mut self, series: u32, time: i64) -> Option<f64> {
        let bits = self.0.get(&(key(series, time) as usize), &self.0.pin())?;
        Some(f64::from_bits(bits as u64))
    }

    fn scan(&mut self, series: u32, low: i64, high: i64) -> usize {
        let mut out = [(0, 0); 128];
        // Its range ends before its end.
        let (start, end) = (key(series, low) as usize, key(series, high) as usize + 1);
        let count = self.0.range(&start, &end, &mut out, &self.0.pin());
        touched(out[..count].iter().map(|(_, bits)| f64::from_bits(*bits as u64)))
    }
}

impl Peer for BPlusTree<u64, f64> {
    fn append(&self, series: u32, times: &mut dyn Iterator<Item = i64>) -> anyhow::Result<()> {
        times.for_each(|time| {
            self.insert(key(series, time), time as f64);
        });
        Ok(())
    }

    fn reader(&self) -> Box<dyn Read + '_> {
        Box::new(self)
    }
}

impl Read for &BPlusTree<u64, f64> {
    fn get(&mut self, series: u32, time: i64) -> Option<f64> {
        self.lookup(&key(series, time), |value| *value)
    }

    fn scan(&mut self, series: u32, low: i64, high: i64) -> usize {
        let mut iter = self.raw_iter();
        iter.seek(&key(series, low));
        let end = key(series, high);
        touched(std::iter::from_fn(|| iter.next().filter(|(k, _)| **k <= end).map(|(_, v)| *v)))
    }
}
