//! Random numbers that depend on nothing but a seed and an event number.

/// 2^64 divided by the golden ratio, odd: the increment of SplitMix64.
const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), with the
/// finaliser constants of Stafford's variant 13. One state word, and every draw is independent of the one before, so
/// draws overlap in the processor.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence number `stream` of `seed`.
    #[inline]
    pub fn new(seed: u64, stream: u64) -> Self {
        // The state is a scrambled number: neighbouring streams would otherwise be one sequence, shifted by a draw.
        Self(mix(seed.wrapping_add(INCREMENT) ^ mix(stream.wrapping_add(INCREMENT))))
    }

    /// 64 random bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(INCREMENT);
        mix(self.0)
    }

    /// Two independent draws of 32 bits, for [`below`]; cheaper than two words.
    #[inline]
    pub fn pair(&mut self) -> (u32, u32) {
        let word = self.word();
        ((word >> 32) as u32, word as u32)
    }

    /// A number in `0..bound`, for bounds that may pass 32 bits; 0 for a bound of 0.
    #[inline]
    pub fn below_wide(&mut self, bound: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }
}

#[inline]
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Scales 32 random bits to `0..bound`, by multiplication (Lemire, "Fast random integer generation in an interval",
/// 2019, without the rejection step: with bounds below 2^22 no value is off its share by more than a thousandth).
#[inline]
pub(super) fn below(draw: u32, bound: u32) -> u32 {
    ((u64::from(draw) * u64::from(bound)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_over_the_range() {
        let mut counts = [0u32; 13];
        let mut wide_counts = [0u32; 13];
        for stream in 0..130_000 {
            let mut random = Random::new(7, stream);
            let (first, second) = random.pair();
            counts[below(first, 13) as usize] += 1;
            counts[below(second, 13) as usize] += 1;
            wide_counts[random.below_wide(13) as usize] += 1;
        }
        assert!(counts.iter().all(|count| count.abs_diff(20_000) < 700), "{counts:?}");
        assert!(wide_counts.iter().all(|count| count.abs_diff(10_000) < 500), "{wide_counts:?}");
    }

    #[test]
    fn streams_and_seeds_differ_and_repeat() {
        let words = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [random.word(), random.word(), random.word()]
        };
        assert_eq!(words(1, 2), words(1, 2));
        let mut all: Vec<u64> = (0..50).flat_map(|seed| (0..50).flat_map(move |n| words(seed, n))).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 50 * 50 * 3, "streams overlap");
    }

    #[test]
    fn a_wide_bound_is_used_in_full() {
        let mut random = Random::new(0, 0);
        let bound = 1 << 40;
        let draws: Vec<u64> = (0..1000).map(|_| random.below_wide(bound)).collect();
        assert!(draws.iter().all(|draw| *draw < bound));
        assert!(draws.iter().any(|draw| *draw > bound / 100 * 99));
        assert_eq!(random.below_wide(0), 0);
    }
}
