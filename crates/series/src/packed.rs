//! A packed block: the same points in one to a few bytes each, chosen per block by its data.
//!
//! | column | kinds, the narrowest wins |
//! |---|---|
//! | times | regular (no bits at all) · differences · differences of differences |
//! | values | constant · decimals (×10^k) from the least · differences of decimals · XOR with the previous |
//!
//! Every kind is fixed-width bit packing above a stated least value: no branches per point, a few
//! instructions each way, and with regular times and decimals any point can be read without the others.
//! Packing keeps every bit: a decimal is used only if it gives back exactly the same float.

use std::sync::Arc;

use crate::bits::{BitReader, BitWriter, width_of};
use crate::budget::{Budget, Charge};
use crate::point::{MAX_TIME, Point};

/// Decimal places tried for values: prices, percentages and temperatures have few.
const MAX_PLACES: u8 = 5;
/// Decimals beyond this lose exactness as floats.
const LARGEST_DECIMAL: u64 = 1 << 53;
const POWERS: [f64; MAX_PLACES as usize + 1] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum TimeKind {
    Differences = 0,
    SecondDifferences = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum ValueKind {
    Decimals = 0,
    DecimalDifferences = 1,
    Xor = 2,
}

/// A compressed, immutable block.
pub(crate) struct PackedBlock {
    count: u16,
    time_kind: TimeKind,
    time_width: u8,
    value_kind: ValueKind,
    value_width: u8,
    /// Decimal places, or for XOR how many low zero bits were left out.
    value_shift: u8,
    first_time: i64,
    last_time: i64,
    /// First difference of the times, for second differences.
    first_step: i64,
    /// What every packed time difference is counted from.
    time_base: i64,
    /// First decimal or first bits; for decimals without differences, the least.
    first_value: u64,
    /// What every packed value difference is counted from.
    value_base: i64,
    /// The time bits, then the value bits, then padding for whole-word reads.
    bits: Box<[u8]>,
    _charge: Charge,
}

impl PackedBlock {
    /// Packs sorted points, at least one. Charged even above the budget: the raw block goes for it.
    pub(crate) fn pack(points: &[Point], budget: &Arc<Budget>) -> PackedBlock {
        let mut writer = BitWriter::with_capacity(points.len() * 4);
        let times = pack_times(points, &mut writer);
        writer.align();
        let values = pack_values(points, &mut writer);
        let bits = writer.finish();
        PackedBlock {
            _charge: charge(&bits, budget),
            count: points.len() as u16,
            time_kind: times.kind,
            time_width: times.width,
            value_kind: values.kind,
            value_width: values.width,
            value_shift: values.shift,
            first_time: points[0].time,
            last_time: points[points.len() - 1].time,
            first_step: times.first_step,
            time_base: times.base,
            first_value: values.first,
            value_base: values.base,
            bits,
        }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub(crate) fn first_time(&self) -> i64 {
        self.first_time
    }

    pub(crate) fn last_time(&self) -> i64 {
        self.last_time
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        (size_of::<PackedBlock>() + self.bits.len()) as u64
    }

    fn value_bits_at(&self) -> usize {
        let packed = match self.time_kind {
            TimeKind::Differences => self.len() - 1,
            TimeKind::SecondDifferences => self.len().saturating_sub(2),
        };
        (packed * usize::from(self.time_width)).div_ceil(64) * 64
    }

    fn times(&self) -> Times<'_> {
        let reader = BitReader::new(&self.bits, 0, self.time_width);
        Times { block: self, reader, at: 0, time: self.first_time, step: self.first_step }
    }

    fn values(&self) -> BitReader<'_> {
        BitReader::new(&self.bits, self.value_bits_at(), self.value_width)
    }

    /// All steps alike: positions and times follow from each other.
    fn regular_step(&self) -> Option<i64> {
        let regular = self.time_kind == TimeKind::Differences && self.time_width == 0;
        (regular && self.time_base > 0).then_some(self.time_base)
    }

    /// The first position whose time is not below `time`.
    fn lower_bound(&self, time: i64) -> usize {
        if time <= self.first_time {
            return 0;
        }
        if time > self.last_time {
            return self.len();
        }
        match self.regular_step() {
            Some(step) => ((time - self.first_time + step - 1) / step) as usize,
            None => self.times().take_while(|t| *t < time).count(),
        }
    }

    fn time_at(&self, at: usize) -> Option<i64> {
        match self.regular_step() {
            Some(step) => Some(self.first_time + step * at as i64),
            None => self.times().nth(at),
        }
    }

    /// The value at `time`.
    pub(crate) fn get(&self, time: i64) -> Option<f64> {
        let at = self.lower_bound(time);
        if at >= self.len() || self.time_at(at)? != time {
            return None;
        }
        Some(self.float(self.number(at)))
    }

    /// Appends the points with `low ≤ time ≤ high`.
    pub(crate) fn copy(&self, low: i64, high: i64, out: &mut Vec<Point>) {
        let (from, to) = (self.lower_bound(low), self.lower_bound(high + 1));
        if from >= to {
            return;
        }
        let start = out.len();
        match self.regular_step() {
            Some(step) => {
                let first = self.first_time + step * from as i64;
                let time = |n: usize| first + step * n as i64;
                out.extend((0..to - from).map(|n| Point { time: time(n), value: 0.0 }));
            }
            None => {
                let times = self.times().take(to).skip(from);
                out.extend(times.map(|time| Point { time, value: 0.0 }));
            }
        }
        self.unpack_values(from, &mut out[start..]);
    }

    /// The number behind the value at `at`: a decimal, or the bits of the float.
    fn number(&self, at: usize) -> u64 {
        let values = self.values();
        let base = self.value_base.cast_unsigned();
        match self.value_kind {
            ValueKind::Decimals => base.wrapping_add(values.get(at)),
            ValueKind::DecimalDifferences => {
                let by_base = base.wrapping_mul(at as u64);
                let sum = if self.value_width == 0 { 0 } else { sum(values, at) };
                self.first_value.wrapping_add(by_base).wrapping_add(sum)
            }
            ValueKind::Xor => {
                let all = (0..at).fold(0, |all, n| all ^ values.get(n));
                self.first_value ^ (all << self.value_shift)
            }
        }
    }

    fn float(&self, number: u64) -> f64 {
        match self.value_kind {
            ValueKind::Xor => f64::from_bits(number),
            _ => number.cast_signed() as f64 / POWERS[usize::from(self.value_shift)],
        }
    }

    /// Fills in the values from position `from` on, in one tight loop for each kind.
    fn unpack_values(&self, from: usize, out: &mut [Point]) {
        let values = self.values();
        let mut number = self.number(from);
        let Some((first, rest)) = out.split_first_mut() else { return };
        first.value = self.float(number);
        if self.value_kind == ValueKind::Xor {
            for (at, point) in (from..).zip(rest) {
                number ^= values.get(at) << self.value_shift;
                point.value = f64::from_bits(number);
            }
            return;
        }
        let scale = POWERS[usize::from(self.value_shift)];
        let base = self.value_base.cast_unsigned();
        if self.value_kind == ValueKind::Decimals {
            for (at, point) in (from + 1..).zip(rest) {
                point.value = base.wrapping_add(values.get(at)).cast_signed() as f64 / scale;
            }
        } else if self.value_width == 0 {
            for point in rest {
                number = number.wrapping_add(base);
                point.value = number.cast_signed() as f64 / scale;
            }
        } else {
            for (at, point) in (from..).zip(rest) {
                number = number.wrapping_add(base).wrapping_add(values.get(at));
                point.value = number.cast_signed() as f64 / scale;
            }
        }
    }

    /// The block as it lies in a file.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&[
            self.time_kind as u8,
            self.time_width,
            self.value_kind as u8,
            self.value_width,
            self.value_shift,
            0,
        ]);
        for word in [self.first_time, self.last_time, self.first_step, self.time_base] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        // first_value doubles as the least decimal, so files keep one word where memory keeps two.
        let value_word = match self.value_kind {
            ValueKind::Decimals => self.value_base.cast_unsigned(),
            ValueKind::DecimalDifferences | ValueKind::Xor => self.first_value,
        };
        out.extend_from_slice(&value_word.to_le_bytes());
        out.extend_from_slice(&self.value_base.to_le_bytes());
        out.extend_from_slice(&(self.bits.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.bits);
    }

    /// Reads what `write_to` wrote, checking that every later read stays inside the bits.
    pub(crate) fn read_from(
        input: &mut &[u8],
        budget: &Arc<Budget>,
    ) -> Result<PackedBlock, &'static str> {
        let mut fields = Fields(input);
        let count = u16::from_le_bytes(fields.take()?);
        let [time_kind, time_width, value_kind, value_width, value_shift, _] =
            fields.take::<6>()?;
        let [first_time, last_time, first_step, time_base] = fields.words::<4>()?;
        let [first_value, value_base] = fields.words::<2>()?;
        let length = u32::from_le_bytes(fields.take()?) as usize;
        let bits: Box<[u8]> = fields.slice(length)?.into();
        let block = PackedBlock {
            count,
            time_kind: time_kind_of(time_kind)?,
            time_width,
            value_kind: value_kind_of(value_kind)?,
            value_width,
            value_shift,
            first_time,
            last_time,
            first_step,
            time_base,
            first_value: first_value.cast_unsigned(),
            value_base,
            _charge: charge(&bits, budget),
            bits,
        };
        block.check()?;
        Ok(block)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.count == 0 || self.time_width > 64 || self.value_width > 64 {
            return Err("block header out of range");
        }
        let places = if self.value_kind == ValueKind::Xor { 63 } else { MAX_PLACES };
        if self.value_shift > places {
            return Err("block scale out of range");
        }
        let packed_values = self.len() - usize::from(self.value_kind != ValueKind::Decimals);
        let bits = self.value_bits_at() + packed_values * usize::from(self.value_width);
        if bits.div_ceil(8) + crate::bits::PADDING_BYTES > self.bits.len() {
            return Err("block bits are shorter than the header says");
        }
        self.check_times()
    }

    fn check_times(&self) -> Result<(), &'static str> {
        let mut last = None;
        for time in self.times() {
            if time.abs() > MAX_TIME || last.is_some_and(|last| time <= last) {
                return Err("block times are not in order");
            }
            last = Some(time);
        }
        if last == Some(self.last_time) { Ok(()) } else { Err("block does not end where it says") }
    }
}

fn charge(bits: &[u8], budget: &Arc<Budget>) -> Charge {
    budget.take_anyway((size_of::<PackedBlock>() + bits.len()) as u64)
}

fn time_kind_of(byte: u8) -> Result<TimeKind, &'static str> {
    match byte {
        0 => Ok(TimeKind::Differences),
        1 => Ok(TimeKind::SecondDifferences),
        _ => Err("unknown kind of times"),
    }
}

fn value_kind_of(byte: u8) -> Result<ValueKind, &'static str> {
    match byte {
        0 => Ok(ValueKind::Decimals),
        1 => Ok(ValueKind::DecimalDifferences),
        2 => Ok(ValueKind::Xor),
        _ => Err("unknown kind of values"),
    }
}

struct Fields<'a, 'b>(&'a mut &'b [u8]);

impl<'b> Fields<'_, 'b> {
    fn slice(&mut self, length: usize) -> Result<&'b [u8], &'static str> {
        let (head, rest) = self.0.split_at_checked(length).ok_or("block is cut short")?;
        *self.0 = rest;
        Ok(head)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.slice(N)?.try_into().map_err(|_| "block is cut short")
    }

    fn words<const N: usize>(&mut self) -> Result<[i64; N], &'static str> {
        let mut words = [0; N];
        for word in &mut words {
            *word = i64::from_le_bytes(self.take()?);
        }
        Ok(words)
    }
}

struct Times<'a> {
    block: &'a PackedBlock,
    reader: BitReader<'a>,
    at: usize,
    time: i64,
    step: i64,
}

impl Iterator for Times<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        let block = self.block;
        if self.at >= block.len() {
            return None;
        }
        if self.at > 0 {
            match block.time_kind {
                TimeKind::Differences => {
                    let more = self.reader.get(self.at - 1).cast_signed();
                    self.step = block.time_base.wrapping_add(more);
                }
                TimeKind::SecondDifferences if self.at > 1 => {
                    let more = self.reader.get(self.at - 2).cast_signed();
                    self.step = self.step.wrapping_add(block.time_base.wrapping_add(more));
                }
                TimeKind::SecondDifferences => {}
            }
            self.time = self.time.wrapping_add(self.step);
        }
        self.at += 1;
        Some(self.time)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.block.len() - self.at;
        (left, Some(left))
    }
}

/// The sum of the first `count` packed numbers.
fn sum(values: BitReader<'_>, count: usize) -> u64 {
    (0..count).fold(0, |sum, n| sum.wrapping_add(values.get(n)))
}

struct PackedTimes {
    kind: TimeKind,
    width: u8,
    first_step: i64,
    base: i64,
}

fn pack_times(points: &[Point], writer: &mut BitWriter) -> PackedTimes {
    let steps: Vec<i64> = points.windows(2).map(|w| w[1].time - w[0].time).collect();
    let (step_base, step_width) = spread(&steps);
    if step_width > 0 {
        let seconds: Vec<i64> = steps.windows(2).map(|w| w[1] - w[0]).collect();
        let (base, width) = spread(&seconds);
        if width < step_width {
            writer.pack(&seconds, base, width);
            let kind = TimeKind::SecondDifferences;
            return PackedTimes { kind, width, first_step: steps[0], base };
        }
    }
    writer.pack(&steps, step_base, step_width);
    PackedTimes { kind: TimeKind::Differences, width: step_width, first_step: 0, base: step_base }
}

struct PackedValues {
    kind: ValueKind,
    width: u8,
    shift: u8,
    first: u64,
    base: i64,
}

fn pack_values(points: &[Point], writer: &mut BitWriter) -> PackedValues {
    match as_decimals(points) {
        Some((decimals, places)) => pack_decimals(&decimals, places, writer),
        None => pack_xor(points, writer),
    }
}

fn pack_decimals(decimals: &[i64], places: u8, writer: &mut BitWriter) -> PackedValues {
    let (base, width) = spread(decimals);
    let differences: Vec<i64> = decimals.windows(2).map(|w| w[1] - w[0]).collect();
    let (difference_base, difference_width) = spread(&differences);
    let first = decimals[0].cast_unsigned();
    if difference_width < width {
        writer.pack(&differences, difference_base, difference_width);
        let kind = ValueKind::DecimalDifferences;
        return PackedValues {
            kind,
            width: difference_width,
            shift: places,
            first,
            base: difference_base,
        };
    }
    writer.pack(decimals, base, width);
    let first = base.cast_unsigned();
    PackedValues { kind: ValueKind::Decimals, width, shift: places, first, base }
}

fn pack_xor(points: &[Point], writer: &mut BitWriter) -> PackedValues {
    let first = points[0].value.to_bits();
    let xors = || points.windows(2).map(|w| w[0].value.to_bits() ^ w[1].value.to_bits());
    let all = xors().fold(0, |all, xor| all | xor);
    let shift = if all == 0 { 0 } else { all.trailing_zeros() as u8 };
    let width = width_of(all >> shift);
    xors().for_each(|xor| writer.push(xor >> shift, width));
    PackedValues { kind: ValueKind::Xor, width, shift, first, base: 0 }
}

/// The least of `numbers`, and the bits that the greatest distance from it needs.
fn spread(numbers: &[i64]) -> (i64, u8) {
    let Some(first) = numbers.first() else { return (0, 0) };
    let (low, high) =
        numbers.iter().fold((*first, *first), |(low, high), n| (low.min(*n), high.max(*n)));
    (low, width_of(high.wrapping_sub(low).cast_unsigned()))
}

/// The values as whole numbers of the fewest decimal places that give every one back bit for bit.
fn as_decimals(points: &[Point]) -> Option<(Vec<i64>, u8)> {
    let mut places = 0;
    for point in points {
        while !is_decimal(point.value, places) {
            places += 1;
            if places > MAX_PLACES {
                return None;
            }
        }
    }
    let scale = POWERS[usize::from(places)];
    let decimals: Vec<i64> = points.iter().map(|p| nearest(p.value * scale)).collect();
    // More places than the last needed can break an earlier value: large ones run out of digits.
    let exact = |(p, d): (&Point, &i64)| (*d as f64 / scale).to_bits() == p.value.to_bits();
    points.iter().zip(&decimals).all(exact).then_some((decimals, places))
}

#[inline]
fn is_decimal(value: f64, places: u8) -> bool {
    let scale = POWERS[usize::from(places)];
    let decimal = nearest(value * scale);
    // Through i64 as reading does it: this also refuses -0.0, NaN and infinities.
    decimal.unsigned_abs() < LARGEST_DECIMAL
        && (decimal as f64 / scale).to_bits() == value.to_bits()
}

/// The nearest whole number; saturating, NaN to zero. Without a call into the math library.
#[inline]
fn nearest(number: f64) -> i64 {
    (number + 0.5_f64.copysign(number)) as i64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget() -> Arc<Budget> {
        Budget::new(1 << 30)
    }

    /// Bytes of a packed block in a file besides its bits.
    const HEADER_BYTES: usize = 60;

    fn round_trip(points: &[Point]) -> PackedBlock {
        let block = PackedBlock::pack(points, &budget());
        let mut file = Vec::new();
        block.write_to(&mut file);
        assert!(file.len() <= HEADER_BYTES + block.bits.len());
        let read = PackedBlock::read_from(&mut file.as_slice(), &budget())
            .expect("what was written is read");
        let mut got = Vec::new();
        read.copy(-MAX_TIME, MAX_TIME, &mut got);
        assert_eq!(got.len(), points.len());
        for (got, sent) in got.iter().zip(points) {
            assert!(got.same_bits(sent), "{got:?} for {sent:?}");
            let value = read.get(sent.time).expect("every time is found");
            assert_eq!(value.to_bits(), sent.value.to_bits());
        }
        read
    }

    fn grid(value: impl Fn(i64) -> f64) -> Vec<Point> {
        (0..512).map(|i| Point::new(1_700_000_000_000 + i * 10_000, value(i))).collect()
    }

    #[test]
    fn each_kind_of_data_gets_its_narrowest_form() {
        let constant = round_trip(&grid(|_| 3.25));
        assert_eq!((constant.time_width, constant.value_width), (0, 0));
        let counter = round_trip(&grid(|i| (i * 100 + i % 3) as f64));
        assert_eq!(counter.value_kind, ValueKind::DecimalDifferences);
        assert!(counter.value_width <= 2);
        let gauge = round_trip(&grid(|i| ((i * 7919) % 100) as f64 / 100.0));
        assert_eq!((gauge.value_kind, gauge.value_width), (ValueKind::Decimals, 7));
        let noisy = round_trip(&grid(|i| (i as f64).sin()));
        assert_eq!(noisy.value_kind, ValueKind::Xor);
    }

    #[test]
    fn drifting_times_use_second_differences() {
        let points: Vec<Point> = (0..512).map(|i| Point::new(i * i * 1000, 0.0)).collect();
        let block = round_trip(&points);
        assert_eq!((block.time_kind, block.time_width), (TimeKind::SecondDifferences, 0));
    }

    #[test]
    fn awkward_values_and_times_keep_every_bit() {
        let awkward = [
            f64::NAN,
            f64::from_bits(0x7ff8_0000_dead_beef),
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            0.0,
            f64::MIN_POSITIVE,
            f64::MAX,
            9_007_199_254_740_993.0,
            0.1 + 0.2,
            1e-310,
        ];
        let times = |i: usize| if i == 0 { -MAX_TIME } else { MAX_TIME - 20 + i as i64 };
        let points: Vec<Point> =
            awkward.iter().enumerate().map(|(i, v)| Point::new(times(i), *v)).collect();
        round_trip(&points);
        awkward.iter().for_each(|v| drop(round_trip(&[Point::new(5, *v)])));
    }

    #[test]
    fn a_damaged_block_is_refused_and_never_panics() {
        let mut file = Vec::new();
        PackedBlock::pack(&grid(|i| (i % 17) as f64), &budget()).write_to(&mut file);
        for at in 0..file.len() {
            for flip in [1_u8, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] ^= flip;
                if let Ok(block) = PackedBlock::read_from(&mut damaged.as_slice(), &budget()) {
                    let mut out = Vec::new();
                    block.copy(-MAX_TIME, MAX_TIME, &mut out);
                    assert_eq!(out.len(), block.len());
                }
            }
            assert!(PackedBlock::read_from(&mut &file[..at], &budget()).is_err());
        }
    }

    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            any::<i32>().prop_map(|v| f64::from(v) / 100.0),
            (0..10_i32).prop_map(f64::from),
            any::<i64>().prop_map(|v| v as f64),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_packed_comes_back(
            start in -MAX_TIME / 2..MAX_TIME / 2,
            steps in proptest::collection::vec((prop_oneof![1..3_i64, 1..100_000_i64, 1..1_i64 << 40], values()), 1..512),
            low in 0..512_usize,
            high in 0..512_usize,
        ) {
            let mut time = start;
            let points: Vec<Point> = steps.iter().map(|(step, value)| { time += step; Point::new(time, *value) }).collect();
            let block = round_trip(&points);
            let (low, high) = (points[low % points.len()].time, points[high % points.len()].time);
            let mut got = Vec::new();
            block.copy(low, high, &mut got);
            let expected: Vec<&Point> = points.iter().filter(|p| (low..=high).contains(&p.time)).collect();
            prop_assert_eq!(got.len(), expected.len());
            prop_assert!(got.iter().zip(expected).all(|(a, b)| a.same_bits(b)));
        }
    }
}
