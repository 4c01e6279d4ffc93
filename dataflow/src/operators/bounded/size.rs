//! What records take in memory, roughly.

use std::marker::PhantomData;

use serde::Serialize;

use crate::codec::encode_value;

/// One in so many values is measured.
const SAMPLED: u32 = 32;

/// So many values of a slice are measured.
pub const SAMPLED_OF_SLICE: usize = 8;

/// The memory a value owns besides its own size, by its encoded size; `None` for what cannot be encoded, which is
/// reported when it has to be.
fn owned_bytes<T: Serialize>(value: &T, encoded: &mut Vec<u8>) -> Option<usize> {
    encoded.clear();
    encode_value(value, encoded).ok()?;
    // Twice the encoded size: spare capacity, the allocator's share, integers that encode shorter.
    Some(encoded.len() * 2)
}

/// The mean memory that `values` own besides their own size, bytes, by a few of them spread evenly. Callers that ask
/// again and again give another `turn` each time, so that others are looked at. Costs nothing for types that own nothing.
pub fn mean_owned_bytes<T: Serialize>(values: &[T], turn: usize) -> usize {
    if values.is_empty() || !std::mem::needs_drop::<T>() {
        return 0;
    }
    let step = values.len().div_ceil(SAMPLED_OF_SLICE);
    mean_owned_bytes_of(values.iter().skip(turn % step).step_by(step))
}

/// The mean memory that these values own besides their own size, bytes; all are measured.
pub fn mean_owned_bytes_of<'a, T: Serialize + 'a>(values: impl Iterator<Item = &'a T>) -> usize {
    if !std::mem::needs_drop::<T>() {
        return 0;
    }
    let mut encoded = Vec::new();
    let (mut sum, mut count) = (0, 0);
    for value in values {
        if let Some(bytes) = owned_bytes(value, &mut encoded) {
            sum += bytes;
            count += 1;
        }
    }
    sum.checked_div(count).unwrap_or(0)
}

/// Estimates the memory of values: their own size, and what they own by the encoded size of a sample. Types that own
/// nothing are never sampled.
pub struct SizeEstimate<T> {
    owned_bytes: usize,
    until_sample: u32,
    encoded: Vec<u8>,
    value: PhantomData<fn(T)>,
}

impl<T> Default for SizeEstimate<T> {
    fn default() -> Self {
        SizeEstimate { owned_bytes: 0, until_sample: 0, encoded: Vec::new(), value: PhantomData }
    }
}

impl<T: Serialize> SizeEstimate<T> {
    /// Looks at a value, so that the mean follows what comes.
    #[inline]
    pub fn observe(&mut self, value: &T) {
        if !std::mem::needs_drop::<T>() {
            return;
        }
        match self.until_sample {
            0 => self.sample(value),
            _ => self.until_sample -= 1,
        }
    }

    /// The mean size of recent values, bytes.
    #[inline]
    pub fn mean_bytes(&self) -> usize {
        size_of::<T>() + self.owned_bytes
    }

    /// Looks at a value, and gives the mean size.
    #[inline]
    pub fn of(&mut self, value: &T) -> usize {
        self.observe(value);
        self.mean_bytes()
    }

    #[cold]
    fn sample(&mut self, value: &T) {
        self.until_sample = SAMPLED - 1;
        if let Some(owned_bytes) = owned_bytes(value, &mut self.encoded) {
            self.owned_bytes =
                if self.owned_bytes == 0 { owned_bytes } else { (self.owned_bytes * 3 + owned_bytes) / 4 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_own_memory_count_for_more_than_their_own_size() {
        let mut plain = SizeEstimate::<(u64, u32)>::default();
        assert_eq!(plain.of(&(1, 2)), size_of::<(u64, u32)>());
        let mut owning = SizeEstimate::<String>::default();
        let text = "x".repeat(1000);
        assert!((2000..2100).contains(&owning.of(&text)), "{}", owning.mean_bytes());
        let short = String::new();
        (0..SAMPLED * 40).for_each(|_| owning.observe(&short));
        assert!(owning.mean_bytes() < 100, "the mean follows: {}", owning.mean_bytes());
    }

    #[test]
    fn the_mean_of_a_slice_comes_from_values_spread_over_it() {
        assert_eq!(mean_owned_bytes(&[1u64, 2, 3], 0), 0);
        assert_eq!(mean_owned_bytes::<String>(&[], 0), 0);
        let half: Vec<String> = (0..1000).map(|n| "x".repeat(if n < 500 { 0 } else { 1000 })).collect();
        for turn in [0, 1, 124, 125, 7777] {
            assert!((900..1100).contains(&mean_owned_bytes(&half, turn)), "turn {turn}");
        }
        let alternating: Vec<String> = (0..16).map(|n| "x".repeat(n % 2 * 1000)).collect();
        assert!(mean_owned_bytes(&alternating, 0) < 10);
        assert!(mean_owned_bytes(&alternating, 1) > 2000, "another turn looks at others");
    }
}
