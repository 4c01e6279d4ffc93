//! What records take in memory, roughly.

use std::marker::PhantomData;

use serde::Serialize;

use crate::codec::encode_value;

/// One in so many values is measured.
const SAMPLED: u32 = 32;

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
        self.encoded.clear();
        // What cannot be encoded is reported when it has to be.
        if encode_value(value, &mut self.encoded).is_ok() {
            // Twice the encoded size: spare capacity, the allocator's share, integers that encode shorter.
            let owned_bytes = self.encoded.len() * 2;
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
}
