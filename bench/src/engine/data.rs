//! Keys and values like those of real deployments, the same for every run.

use anyhow::{Context, Result};
use std::fmt::Write;

/// A small generator with a stated seed (SplitMix64): runs can be repeated and compared.
#[derive(Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// From 0 (in) to 1 (out).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Scatters numbers evenly.
pub(super) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The key of a record: 16 bytes, in the order of its number.
pub(super) fn key(number: u64) -> [u8; 16] {
    let mut key = *b"k/0000000000000_";
    let mut rest = number;
    for place in (2..15).rev() {
        key[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// A permutation of `0..count`: each number once, far from its neighbours.
pub(super) fn scattered(number: u64, count: u64) -> u64 {
    // A prime far above any count shares no factor with it.
    (u128::from(number) * 2_305_843_009_213_693_951 % u128::from(count)) as u64
}

/// What values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Kubernetes,
}

/// The value of record `number`: it begins with the number, so that a reader can check it.
pub(super) fn value(number: u64, kind: Kind, size_bytes: usize) -> Vec<u8> {
    let mut text = format!("{number:016x}");
    let mut rng = Rng::new(number);
    while text.len() < size_bytes {
        match kind {
            Kind::Json => json(&mut text, &mut rng),
            Kind::Kubernetes => kubernetes(&mut text, &mut rng),
        }
    }
    text.truncate(size_bytes.max(16));
    text.into_bytes()
}

/// Whether `value` is that of record `number`.
pub(super) fn is_value_of(value: &[u8], number: u64) -> bool {
    value.len() >= 16 && value[..16] == *format!("{number:016x}").as_bytes()
}

fn json(text: &mut String, rng: &mut Rng) {
    let (port, id, weight) = (1024 + rng.below(60_000), rng.next(), rng.unit());
    let region = ["eu-west-1", "us-east-2", "ap-south-1"][rng.below(3) as usize];
    let tier = ["web", "api", "batch", "cache"][rng.below(4) as usize];
    let written = write!(
        text,
        "{{\"service\":\"{tier}-{}\",\"id\":\"{id:016x}\",\"port\":{port},\"region\":\"{region}\",\
         \"weight\":{weight:.4},\"enabled\":true}}",
        id % 97
    );
    written.expect("a String takes everything");
}

fn kubernetes(text: &mut String, rng: &mut Rng) {
    let (name, uid) = (rng.below(5000), rng.next());
    let (address, node) = (rng.below(250), rng.below(40));
    let written = write!(
        text,
        "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"web-{name}\",\"namespace\":\"default\",\
         \"uid\":\"{uid:016x}-{:08x}\",\"labels\":{{\"app\":\"web\",\"pod-template-hash\":\"{:08x}\"}}}},\
         \"spec\":{{\"containers\":[{{\"name\":\"web\",\"image\":\"registry.example.com/web:1.{}.{}\",\
         \"resources\":{{\"limits\":{{\"cpu\":\"500m\",\"memory\":\"256Mi\"}}}}}}],\"nodeName\":\"node-{node}\"}},\
         \"status\":{{\"phase\":\"Running\",\"podIP\":\"10.0.{node}.{address}\"}}}}",
        rng.next() as u32,
        rng.next() as u32,
        rng.below(30),
        rng.below(9)
    );
    written.expect("a String takes everything");
}

/// The packages that this machine's Debian knows: name and stanza.
pub(super) fn packages() -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let listed = std::process::Command::new("apt-cache").arg("dumpavail").output();
    let available = listed.map(|output| output.stdout).unwrap_or_default();
    let text = match available.is_empty() {
        // Without package lists: those that are installed.
        true => std::fs::read("/var/lib/dpkg/status").context("no Debian packages")?,
        false => available,
    };
    let text = String::from_utf8_lossy(&text);
    let stanzas = text.split("\n\n").filter_map(|stanza| {
        let name = stanza.lines().next()?.strip_prefix("Package: ")?;
        Some((format!("packages/{name}").into_bytes(), stanza.as_bytes().to_vec()))
    });
    Ok(stanzas.collect())
}

/// YCSB's Zipf distribution (constant 0.99), after Gray et al.
pub(super) struct Zipf {
    count: u64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    pub(super) fn new(count: u64) -> Self {
        let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum();
        let two = 1.0 + 0.5f64.powf(THETA);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - two / zeta);
        Self { count, zeta, eta }
    }

    /// A rank from 0, the most frequent first.
    pub(super) fn rank(&self, rng: &mut Rng) -> u64 {
        let place = rng.unit() * self.zeta;
        if place < 1.0 {
            return 0;
        }
        if place < 1.0 + 0.5f64.powf(THETA) {
            return 1;
        }
        let share = self.eta * (place / self.zeta) - self.eta + 1.0;
        let rank = self.count as f64 * share.powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.count - 1)
    }

    /// A record, frequent ones spread over the key space.
    pub(super) fn scrambled(&self, rng: &mut Rng) -> u64 {
        mix(self.rank(rng)) % self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_their_numbers() {
        assert!(key(9) < key(10) && key(999) < key(1_000_000));
        assert_eq!(&key(42), b"k/0000000000042_");
    }

    #[test]
    fn scattering_visits_every_number_once() {
        let mut seen: Vec<u64> = (0..1000).map(|number| scattered(number, 1000)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn values_name_their_record() {
        for kind in [Kind::Json, Kind::Kubernetes] {
            let value = value(77, kind, 300);
            assert_eq!(value.len(), 300);
            assert!(is_value_of(&value, 77) && !is_value_of(&value, 78));
        }
    }

    /// The first rank's share is 1/zeta.
    #[test]
    fn the_first_rank_is_as_frequent_as_zipf_says() {
        let zipf = Zipf::new(1000);
        let mut rng = Rng::new(1);
        let firsts = (0..100_000).filter(|_| zipf.rank(&mut rng) == 0).count() as f64 / 100_000.0;
        assert!((firsts - 1.0 / zipf.zeta).abs() < 0.01, "{firsts}");
    }
}
