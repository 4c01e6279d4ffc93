//! A hash table from keys to values, made for batches.
//!
//! Open addressing with linear probing over 4-byte buckets in front of a dense vector of entries. A bucket holds the
//! number of an entry and, in the bits that number leaves, bits of the hash. Four buckets are compared at once, so that a
//! lookup hardly ever branches the wrong way; the index of a million keys is 8 MB, and the memory a batch will touch can be
//! prefetched; a scan is a walk over a vector. Hashes are the stable hashes of the keys; their low half has chosen the key
//! group, so the table uses the high half: its first bits for the place of the bucket, the rest inside it.

use std::borrow::Borrow;

use crate::key::{Key, stable_hash};

/// No entry, in what [`KeyTable::find_all`] finds.
pub const MISSING: u32 = u32::MAX;

const EMPTY: u32 = 0;
const SMALLEST: usize = 8;
/// Buckets compared at once.
const GROUP: usize = 4;
/// Above this many entries a batch prefetches: below, everything is in the second-level cache anyway.
const PREFETCH_FROM: usize = 24 * 1024;
/// How many records before its lookup an entry is fetched; its bucket twice as early.
const AHEAD: usize = 16;

/// A table from `K` to `V`.
#[derive(Clone)]
pub struct KeyTable<K, V> {
    /// `hash bits << bits | (entry + 1)`, [`EMPTY`] where there is none. 2^bits in number, at most 5/8 full, and then the
    /// first `GROUP - 1` once more, so that a group never wraps.
    buckets: Vec<u32>,
    bits: u32,
    entries: Vec<(K, V)>,
}

/// Which of the buckets of a group hold what is `wanted` under `mask`, and which are empty, a bit each.
#[inline(always)]
fn compare(group: &[u32; GROUP], wanted: u32, mask: u32) -> (u32, u32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_and_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_ps,
            _mm_set1_epi32, _mm_setzero_si128,
        };
        // SAFETY: SSE2 belongs to x86-64; the load covers the 16 bytes of the group, and needs no alignment.
        unsafe {
            let buckets = _mm_loadu_si128(group.as_ptr().cast());
            let masked = _mm_and_si128(buckets, _mm_set1_epi32(mask.cast_signed()));
            let hits = _mm_cmpeq_epi32(masked, _mm_set1_epi32(wanted.cast_signed()));
            let empty = _mm_cmpeq_epi32(buckets, _mm_setzero_si128());
            let hits = _mm_movemask_ps(_mm_castsi128_ps(hits)).cast_unsigned();
            let empty = _mm_movemask_ps(_mm_castsi128_ps(empty)).cast_unsigned();
            (hits & !empty, empty)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let (mut hits, mut empty) = (0, 0);
        for (bit, bucket) in group.iter().enumerate() {
            hits |= u32::from(*bucket & mask == wanted && *bucket != EMPTY) << bit;
            empty |= u32::from(*bucket == EMPTY) << bit;
        }
        (hits, empty)
    }
}

impl<K: Key, V> Default for KeyTable<K, V> {
    fn default() -> Self {
        KeyTable {
            buckets: vec![EMPTY; SMALLEST + GROUP - 1],
            bits: SMALLEST.trailing_zeros(),
            entries: Vec::new(),
        }
    }
}

impl<K: Key, V> KeyTable<K, V> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Rough memory held, bytes, without what keys and values own.
    pub fn memory_bytes(&self) -> usize {
        self.buckets.len() * size_of::<u32>() + self.entries.capacity() * size_of::<(K, V)>()
    }

    /// The entries in no particular order; `removal` moves the last one into the gap.
    pub fn entries(&self) -> &[(K, V)] {
        &self.entries
    }

    /// Values may be changed in place.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// Takes all entries, leaving the table empty.
    pub fn take_entries(&mut self) -> Vec<(K, V)> {
        self.buckets.fill(EMPTY);
        std::mem::take(&mut self.entries)
    }

    /// The entry at `index`; its value may be changed in place.
    #[inline]
    pub fn entry_mut(&mut self, index: usize) -> (&K, &mut V) {
        let (key, value) = &mut self.entries[index];
        (key, value)
    }

    /// The value of the entry at `index`.
    #[inline]
    pub fn value_mut(&mut self, index: usize) -> &mut V {
        &mut self.entries[index].1
    }

    /// Number of buckets, without the repeated ones.
    #[inline]
    fn capacity(&self) -> usize {
        1 << self.bits
    }

    /// The bits of a bucket that are of the hash.
    #[inline]
    fn mask(&self) -> u32 {
        u32::MAX << self.bits
    }

    /// Where the bucket of a hash would like to be.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - self.bits)) as usize
    }

    /// The bits of a hash that its bucket holds: those behind the ones that choose its home.
    #[inline]
    fn tag(&self, hash: u64) -> u32 {
        ((hash >> 32) as u32) << self.bits
    }

    /// The entry of a key.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &K) -> Option<usize> {
        let (wanted, mask) = (self.tag(hash), self.mask());
        let mut position = self.home(hash);
        loop {
            // SAFETY: a home is below 2^bits, as is anything under that mask, and behind each of these positions there are
            // `GROUP - 1` further buckets.
            let group = unsafe { &*self.buckets.as_ptr().add(position).cast::<[u32; GROUP]>() };
            let (mut hits, empty) = compare(group, wanted, mask);
            while hits != 0 {
                let entry = ((group[hits.trailing_zeros() as usize % GROUP] & !mask) - 1) as usize;
                // SAFETY: a bucket that is not empty holds the number of an entry plus one.
                if unsafe { self.entries.get_unchecked(entry) }.0 == *key {
                    return Some(entry);
                }
                hits &= hits - 1;
            }
            if empty != 0 {
                return None;
            }
            position = (position + GROUP) & (self.capacity() - 1);
        }
    }

    /// The entries of the keys of a piece of a batch, into `found`; [`MISSING`] for keys that are not in the table. One
    /// tight loop over some keys is faster than lookups between other work; a piece should be small enough that what was
    /// found is still in the first-level cache when it is used. `hashes` is the whole batch's, for prefetching beyond the
    /// piece, which begins at `first`.
    pub fn find_all<Q: Borrow<K>>(
        &self,
        hashes: &[u64],
        first: usize,
        keys: impl Iterator<Item = Q>,
        found: &mut Vec<u32>,
    ) {
        found.clear();
        found.extend(hashes[first..].iter().zip(keys).enumerate().map(|(index, (hash, key))| {
            self.prefetch_ahead(hashes, first + index);
            self.find(*hash, key.borrow()).map_or(MISSING, |entry| entry as u32)
        }));
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, hash: u64, key: &K) -> Option<&V> {
        self.find(hash, key).map(|entry| &self.entries[entry].1)
    }

    /// Appends an entry for a key that is not in the table.
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) -> usize {
        if (self.entries.len() + 1) * 8 > self.capacity() * 5 {
            self.grow();
        }
        let entry = self.entries.len();
        self.entries.push((key, value));
        self.place(hash, entry);
        entry
    }

    /// The value of a key, made by `make` if the key is new.
    #[inline]
    pub fn get_or_insert_with(&mut self, hash: u64, key: &K, make: impl FnOnce() -> V) -> &mut V {
        let entry = match self.find(hash, key) {
            Some(entry) => entry,
            None => self.insert_new(hash, key.clone(), make()),
        };
        &mut self.entries[entry].1
    }

    /// Removes a key. The last entry takes its place.
    pub fn remove(&mut self, hash: u64, key: &K) -> Option<(K, V)> {
        let entry = self.find(hash, key)?;
        let position = self.position_of(hash, entry);
        self.close_gap(position);
        let last = self.entries.len() - 1;
        if entry != last {
            let moved = stable_hash(&self.entries[last].0);
            let position = self.position_of(moved, last);
            self.set(position, self.tag(moved) | (entry as u32 + 1));
        }
        Some(self.entries.swap_remove(entry))
    }

    /// Gives back room, if most of it is unused.
    pub fn shrink(&mut self) {
        if self.entries.capacity() / 4 > self.entries.len() {
            self.entries.shrink_to_fit();
        }
        let needed = (self.entries.len() * 2).next_power_of_two().max(SMALLEST);
        if self.capacity() / 4 > needed {
            self.bits = needed.trailing_zeros();
            self.buckets = vec![EMPTY; needed + GROUP - 1];
            for entry in 0..self.entries.len() {
                self.place(stable_hash(&self.entries[entry].0), entry);
            }
        }
    }

    /// Prefetches for position `index` of a batch: call with each index in turn before the lookup.
    #[inline(always)]
    pub fn prefetch_ahead(&self, hashes: &[u64], index: usize) {
        if self.entries.len() < PREFETCH_FROM {
            return;
        }
        if let Some(hash) = hashes.get(index + 2 * AHEAD) {
            prefetch(&self.buckets[self.home(*hash)]);
        }
        if let Some(hash) = hashes.get(index + AHEAD) {
            // Its bucket is near by now, and most likely the one at home.
            let bucket = self.buckets[self.home(*hash)] & !self.mask();
            if let Some(entry) = self.entries.get((bucket as usize).wrapping_sub(1)) {
                prefetch(entry);
            }
        }
    }

    #[inline]
    fn set(&mut self, position: usize, bucket: u32) {
        self.buckets[position] = bucket;
        if position < GROUP - 1 {
            let repeated = self.capacity() + position;
            self.buckets[repeated] = bucket;
        }
    }

    /// The bucket of an entry with this hash.
    fn position_of(&self, hash: u64, entry: usize) -> usize {
        let wanted = self.tag(hash) | (entry as u32 + 1);
        let mut position = self.home(hash);
        while self.buckets[position] != wanted {
            position = (position + 1) & (self.capacity() - 1);
        }
        position
    }

    /// Backward-shift deletion (Knuth, TAOCP 3, 6.4, algorithm R).
    fn close_gap(&mut self, mut gap: usize) {
        let last = self.capacity() - 1;
        let mut position = gap;
        loop {
            position = (position + 1) & last;
            let bucket = self.buckets[position];
            if bucket == EMPTY {
                break;
            }
            let entry = ((bucket & !self.mask()) - 1) as usize;
            let home = self.home(stable_hash(&self.entries[entry].0));
            if (position.wrapping_sub(home) & last) >= (position.wrapping_sub(gap) & last) {
                self.set(gap, bucket);
                gap = position;
            }
        }
        self.set(gap, EMPTY);
    }

    fn place(&mut self, hash: u64, entry: usize) {
        let mut position = self.home(hash);
        while self.buckets[position] != EMPTY {
            position = (position + 1) & (self.capacity() - 1);
        }
        self.set(position, self.tag(hash) | (entry as u32 + 1));
    }

    fn grow(&mut self) {
        self.bits += 1;
        assert!(self.bits < u32::BITS, "a task's table holds at most 2^30 keys");
        self.buckets = vec![EMPTY; self.capacity() + GROUP - 1];
        for entry in 0..self.entries.len() {
            self.place(stable_hash(&self.entries[entry].0), entry);
        }
    }
}

/// Has the cache fetch a place that is read soon.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address has no effect but on the cache; the address is that of a live reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add(u16, i32),
        Remove(u16),
        Get(u16),
        Clear,
        Shrink,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0u16..300, -1000i32..1000).prop_map(|(key, value)| Step::Add(key, value)),
            4 => (0u16..300).prop_map(Step::Remove),
            2 => (0u16..300).prop_map(Step::Get),
            1 => Just(Step::Clear),
            1 => Just(Step::Shrink),
        ];
        prop::collection::vec(step, 0..600)
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_hash_map(steps in steps()) {
            let mut table: KeyTable<u16, i32> = KeyTable::default();
            let mut model: HashMap<u16, i32> = HashMap::new();
            for step in steps {
                match step {
                    Step::Add(key, value) => {
                        *table.get_or_insert_with(stable_hash(&key), &key, || 0) += value;
                        *model.entry(key).or_insert(0) += value;
                    }
                    Step::Remove(key) => {
                        let removed = table.remove(stable_hash(&key), &key);
                        prop_assert_eq!(removed.map(|(_, value)| value), model.remove(&key));
                    }
                    Step::Get(key) => prop_assert_eq!(table.get(stable_hash(&key), &key), model.get(&key)),
                    Step::Clear if model.len() > 100 => {
                        prop_assert_eq!(table.take_entries().into_iter().collect::<HashMap<_, _>>(), std::mem::take(&mut model));
                    }
                    Step::Clear => {}
                    Step::Shrink => table.shrink(),
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let mut left: Vec<(u16, i32)> = table.take_entries();
            left.sort_unstable();
            let mut expected: Vec<(u16, i32)> = model.into_iter().collect();
            expected.sort_unstable();
            prop_assert_eq!(left, expected);
        }
    }

    #[test]
    fn a_million_keys_are_found_again() {
        let mut table: KeyTable<u64, u64> = KeyTable::default();
        for key in 0..1_000_000u64 {
            table.insert_new(stable_hash(&key), key, key * 2);
        }
        assert!((0..1_000_000u64).all(|key| table.get(stable_hash(&key), &key) == Some(&(key * 2))));
        assert_eq!(table.get(stable_hash(&1_000_000u64), &1_000_000), None);
    }
}
