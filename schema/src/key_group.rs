//! Key groups: the unit of keyed state and of rescaling.

use serde::{Deserialize, Serialize};

/// Default number of key groups of a job.
pub const DEFAULT_MAX_PARALLELISM: u32 = 128;
/// Largest number of key groups (Flink's bound).
pub const UPPER_BOUND_MAX_PARALLELISM: u32 = 32_768;

/// The default max parallelism of an operator of this parallelism: Flink's rule,
/// `clamp(next_power_of_two(1.5 * parallelism), 128, 32768)`.
pub fn default_max_parallelism(parallelism: u32) -> u32 {
    let parallelism = parallelism.min(UPPER_BOUND_MAX_PARALLELISM);
    (parallelism + parallelism / 2)
        .next_power_of_two()
        .clamp(DEFAULT_MAX_PARALLELISM, UPPER_BOUND_MAX_PARALLELISM)
}

/// The key group of a key with this stable hash: `hash % max_parallelism`.
#[inline]
pub fn key_group_of(hash: u64, max_parallelism: u32) -> u32 {
    if max_parallelism.is_power_of_two() {
        hash as u32 & (max_parallelism - 1)
    } else {
        (hash % u64::from(max_parallelism)) as u32
    }
}

/// The subtask that owns a key group.
#[inline]
pub fn owner_of(key_group: u32, max_parallelism: u32, parallelism: u32) -> u32 {
    (u64::from(key_group) * u64::from(parallelism) / u64::from(max_parallelism)) as u32
}

/// A run of key groups, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// First key group.
    pub start: u32,
    /// One past the last key group.
    pub end: u32,
}

impl KeyGroupRange {
    /// The key groups owned by `subtask`; [`owner_of`] is its inverse.
    pub fn of_subtask(subtask: u32, max_parallelism: u32, parallelism: u32) -> Self {
        let bound =
            |i: u32| (u64::from(i) * u64::from(max_parallelism)).div_ceil(u64::from(parallelism)) as u32;
        KeyGroupRange { start: bound(subtask), end: bound(subtask + 1) }
    }

    /// Whether the key group belongs to the range.
    pub fn contains(&self, key_group: u32) -> bool {
        (self.start..self.end).contains(&key_group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_all_key_groups_and_agree_with_the_owner() {
        for max in [1, 7, 128, 200, 32_768] {
            for parallelism in (1..=max.min(130)).step_by(3) {
                let mut next = 0;
                for subtask in 0..parallelism {
                    let range = KeyGroupRange::of_subtask(subtask, max, parallelism);
                    assert_eq!(range.start, next);
                    next = range.end;
                    for group in range.start..range.end {
                        assert_eq!(owner_of(group, max, parallelism), subtask);
                    }
                }
                assert_eq!(next, max);
            }
        }
    }

    #[test]
    fn max_parallelism_follows_flinks_rule() {
        assert_eq!(default_max_parallelism(1), 128);
        assert_eq!(default_max_parallelism(100), 256);
        assert_eq!(default_max_parallelism(30_000), 32_768);
    }
}
