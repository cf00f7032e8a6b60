//! Fixed-width bit packing: numbers of `width` bits, one after the other, lowest bit first.

/// Bytes behind the last bit, so that a reader may always load whole words.
pub(crate) const PADDING_BYTES: usize = 16;

/// The bits that `number` needs.
#[inline]
pub(crate) fn width_of(number: u64) -> u8 {
    (64 - number.leading_zeros()) as u8
}

/// Packs numbers into words.
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    word: u64,
    used: u32,
}

impl BitWriter {
    pub(crate) fn with_capacity(bytes: usize) -> BitWriter {
        BitWriter { bytes: Vec::with_capacity(bytes + PADDING_BYTES), word: 0, used: 0 }
    }

    /// Appends the `width` lowest bits of `number`, whose other bits are zero.
    #[inline]
    pub(crate) fn push(&mut self, number: u64, width: u8) {
        let width = u32::from(width);
        self.word |= number.checked_shl(self.used).unwrap_or(0);
        if self.used + width < 64 {
            self.used += width;
            return;
        }
        self.bytes.extend_from_slice(&self.word.to_le_bytes());
        let written = 64 - self.used;
        self.word = number.checked_shr(written).unwrap_or(0);
        self.used = width - written;
    }

    /// Appends `numbers`, each as its distance from `base`.
    pub(crate) fn pack(&mut self, numbers: &[i64], base: i64, width: u8) {
        if width > 0 {
            numbers.iter().for_each(|n| self.push(n.wrapping_sub(base).cast_unsigned(), width));
        }
    }

    /// Fills up the current word: the next number starts a new one.
    pub(crate) fn align(&mut self) {
        if self.used > 0 {
            self.bytes.extend_from_slice(&self.word.to_le_bytes());
            (self.word, self.used) = (0, 0);
        }
    }

    pub(crate) fn finish(mut self) -> Box<[u8]> {
        let last = (self.used as usize).div_ceil(8);
        self.bytes.extend_from_slice(&self.word.to_le_bytes()[..last]);
        self.bytes.extend_from_slice(&[0; PADDING_BYTES]);
        self.bytes.into_boxed_slice()
    }
}

/// Reads any of the packed numbers.
#[derive(Clone, Copy)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    start: usize,
    width: usize,
    mask: u64,
}

impl<'a> BitReader<'a> {
    /// Numbers of `width` bits from bit `start` on.
    pub(crate) fn new(bytes: &'a [u8], start: usize, width: u8) -> BitReader<'a> {
        let mask = u64::MAX.checked_shr(64 - u32::from(width)).unwrap_or(0);
        BitReader { bytes, start, width: usize::from(width), mask }
    }

    /// Number `at`.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> u64 {
        let bit = self.start + at * self.width;
        let bytes = &self.bytes[bit / 8..][..PADDING_BYTES];
        let (low, high) = bytes.split_at(8);
        let low = u64::from_le_bytes(low.try_into().expect("eight bytes"));
        let shift = bit % 8;
        // A number of up to 57 bits lies in one word from its first byte on.
        if self.width <= 57 {
            return (low >> shift) & self.mask;
        }
        let high = u64::from_le_bytes(high.try_into().expect("eight bytes"));
        ((low >> shift) | (high << 1 << (63 - shift))) & self.mask
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back() {
        for width in 0..=64_u8 {
            let mask = u64::MAX.checked_shr(64 - u32::from(width)).unwrap_or(0);
            let numbers: Vec<u64> =
                (0..200_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask).collect();
            let mut writer = BitWriter::with_capacity(0);
            numbers.iter().for_each(|n| writer.push(*n, width));
            let bytes = writer.finish();
            let reader = BitReader::new(&bytes, 0, width);
            for (at, number) in numbers.iter().enumerate() {
                assert_eq!(reader.get(at), *number, "width {width}, number {at}");
            }
        }
    }
}
