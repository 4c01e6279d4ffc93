//! A hash table for values that are updated record by record.
//!
//! Open addressing with linear probing, entries in place, and one byte of hash for each entry in front of them, as in
//! Swiss tables (Benzaquen, Evlogimenos, Kulukundis, Perepelitsa: *Swiss Tables and absl::Hash*, CppCon 2017). Sixteen of these
//! bytes are compared at once, so a lookup reads one line of them, which is mostly in the first-level cache, and one
//! entry. [`KeyTable`](super::KeyTable) keeps its entries dense instead: better to scan and to remove from, dearer to update.
//!
//! Hashes are the stable hashes of the keys. Their low bits have chosen the key group, so the table uses the high half: its
//! first bits for the home of an entry, others for the byte. A table may have any number of slots, so that it fills its
//! memory: the home is the hash as a fraction of them (Lemire: *Fast Random Integer Generation in an Interval*, 2019).

use std::mem::MaybeUninit;

use crate::key::{Key, stable_hash};
use crate::state::key_table::prefetch;

/// Bytes compared at once; so many of the first ones are repeated behind the last, so that a group never wraps.
const GROUP: usize = 16;
const SMALLEST: usize = 16;
const EMPTY: u8 = 0;
/// Above this many bytes of entries a batch prefetches: below, they stay in the second-level cache anyway.
const PREFETCH_FROM_BYTES: usize = 512 << 10;
/// How many records before its lookup an entry is fetched; its byte twice as early.
const AHEAD: usize = 12;

/// A table from `K` to `V`.
pub struct UpdateTable<K, V> {
    /// What is in each slot: [`EMPTY`], or 0x80 with seven bits of the hash.
    tags: Vec<u8>,
    /// A byte of its user for each slot, see [`UpdateTable::keep_marks`]; none by default.
    marks: Vec<u8>,
    /// A multiple of [`GROUP`] in number, at most 3/4 of them filled.
    slots: Vec<MaybeUninit<(K, V)>>,
    len: usize,
}

/// A bit for each byte of a group that equals `tag`, and one for each that is empty.
#[inline(always)]
fn compare(group: &[u8; GROUP], tag: u8) -> (u32, u32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 belongs to x86-64; the load covers the 16 bytes of the group, and needs no alignment.
    unsafe {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
        let group = _mm_loadu_si128(group.as_ptr().cast());
        let hits = _mm_movemask_epi8(_mm_cmpeq_epi8(group, _mm_set1_epi8(tag.cast_signed())));
        // Only filled slots have the highest bit.
        (hits.cast_unsigned(), !_mm_movemask_epi8(group).cast_unsigned() & 0xffff)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let bits = |wanted: u8| {
            group.iter().enumerate().fold(0, |bits, (bit, byte)| bits | u32::from(*byte == wanted) << bit)
        };
        (bits(tag), bits(EMPTY))
    }
}

#[inline]
fn tag_of(hash: u64) -> u8 {
    (hash >> 32) as u8 | 0x80
}

/// Whether the numbers have no divisor in common (Euclid).
fn is_coprime(mut one: usize, mut other: usize) -> bool {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one == 1
}

impl<K, V> Default for UpdateTable<K, V> {
    fn default() -> Self {
        UpdateTable::of_size(SMALLEST)
    }
}

impl<K, V> UpdateTable<K, V> {
    fn of_size(capacity: usize) -> Self {
        let mut slots = Vec::with_capacity(capacity);
        slots.resize_with(capacity, MaybeUninit::uninit);
        UpdateTable { tags: vec![EMPTY; capacity + GROUP], marks: Vec::new(), slots, len: 0 }
    }

    /// From now on each entry has a mark, which stays with it; 0 for those there are.
    pub fn keep_marks(&mut self) {
        self.marks.resize(self.slots.len(), 0);
    }

    /// The mark at a position that [`UpdateTable::find`] gave, of a table that keeps marks.
    #[inline(always)]
    pub fn mark_mut(&mut self, position: usize) -> &mut u8 {
        &mut self.marks[position]
    }

    /// The marks of all slots; those of empty ones say nothing.
    pub fn marks(&self) -> &[u8] {
        &self.marks
    }

    /// Number of slots: positions are below.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The entry at any position below the capacity, if there is one.
    #[inline]
    pub fn at(&self, position: usize) -> Option<&(K, V)> {
        // SAFETY: a slot whose tag is not empty is filled.
        (self.tags[position] != EMPTY).then(|| unsafe { self.slots[position].assume_init_ref() })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory that the entries take, bytes, about: half of the slots are filled. Without what keys and values own, and without
    /// the slots that a table which was emptied keeps for its next entries.
    pub fn memory_bytes(&self) -> usize {
        self.len * 2 * (size_of::<(K, V)>() + 1)
    }

    /// Whether a batch gains from [`UpdateTable::prefetch_ahead`].
    pub fn is_large(&self) -> bool {
        self.slots.len() * size_of::<(K, V)>() >= PREFETCH_FROM_BYTES
    }

    /// Prefetches for position `index` of a batch: call with each index in turn before the lookup.
    #[inline(always)]
    pub fn prefetch_ahead(&self, hashes: &[u64], index: usize) {
        if let Some(hash) = hashes.get(index + 2 * AHEAD) {
            prefetch(&self.tags[self.home(*hash)]);
        }
        if let Some(hash) = hashes.get(index + AHEAD) {
            prefetch(&self.slots[self.home(*hash)]);
        }
    }

    /// The same for the mark, of a table that keeps marks.
    #[inline(always)]
    pub fn prefetch_mark_ahead(&self, hashes: &[u64], index: usize) {
        if let Some(hash) = hashes.get(index + AHEAD) {
            prefetch(&self.marks[self.home(*hash)]);
        }
    }

    /// The value at a position that [`UpdateTable::find`] gave, with nothing inserted since.
    #[inline(always)]
    pub fn value_mut(&mut self, position: usize) -> &mut V {
        assert!(self.tags[position] != EMPTY, "a position of an entry");
        // SAFETY: a slot whose tag is not empty is filled.
        unsafe { &mut self.slots[position].assume_init_mut().1 }
    }

    /// The entries, in no particular order.
    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        let filled = self.slots.iter().zip(&self.tags).filter(|(_, tag)| **tag != EMPTY);
        // SAFETY: a slot whose tag is not empty is filled.
        filled.map(|(slot, _)| unsafe { slot.assume_init_ref() })
    }

    /// Some entries that stand together, other ones for another `turn`.
    pub fn sample(&self, turn: usize, wanted: usize) -> impl Iterator<Item = &(K, V)> {
        let capacity = self.slots.len();
        let first = turn.wrapping_mul(capacity / 3 + 1) % capacity;
        let positions = (first..capacity).chain(0..first);
        let filled = positions.filter(|position| self.tags[*position] != EMPTY).take(wanted);
        // SAFETY: a slot whose tag is not empty is filled.
        filled.map(|position| unsafe { self.slots[position].assume_init_ref() })
    }

    /// Takes all entries, leaving the table empty. They come scattered: in the order of their hashes they would pile up in
    /// the first part of the next table that they are put into, as it grows.
    pub fn take_entries(&mut self) -> Vec<(K, V)> {
        let mut entries = Vec::with_capacity(self.len);
        let capacity = self.slots.len();
        // By the golden ratio, so that neighbours in the result are far apart; without a divisor in common with the number of
        // slots, so that each is met once.
        let golden = (capacity as f64 * 0.618_033_988_75) as usize | 1;
        let strides = (golden..).step_by(2);
        let stride = strides.map(|stride| stride % capacity).find(|stride| is_coprime(*stride, capacity));
        let stride = stride.unwrap_or(1);
        self.len = 0;
        let mut next = 0;
        for _ in 0..capacity {
            let position = next;
            next = self.wrap(next + stride);
            if std::mem::replace(&mut self.tags[position], EMPTY) != EMPTY {
                // SAFETY: the slot was filled, and its tag now says that it is not any more.
                entries.push(unsafe { self.slots[position].assume_init_read() });
            }
        }
        // The repeated ones.
        self.tags[capacity..].fill(EMPTY);
        entries
    }

    /// Where the entry of a hash would like to be.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots.len() as u128) >> u64::BITS) as usize
    }

    /// Slots from one position to another, around the end if need be.
    fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.slots.len() - from }
    }

    /// A position that may lie behind the last slot, by less than their number.
    #[inline(always)]
    fn wrap(&self, position: usize) -> usize {
        if position < self.slots.len() { position } else { position - self.slots.len() }
    }

    /// Fills the first free slot from the home of `hash`. There is one: the table is never full.
    fn place(&mut self, hash: u64, entry: (K, V)) -> usize {
        let mut position = self.home(hash);
        while self.tags[position] != EMPTY {
            position = self.wrap(position + 1);
        }
        self.set_tag(position, tag_of(hash));
        self.slots[position].write(entry);
        self.len += 1;
        position
    }

    #[inline]
    fn set_tag(&mut self, position: usize, tag: u8) {
        self.tags[position] = tag;
        if position < GROUP {
            let repeated = self.slots.len() + position;
            self.tags[repeated] = tag;
        }
    }
}

impl<K: Key, V> UpdateTable<K, V> {
    /// The position of a key's entry.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &K) -> Option<usize> {
        let mut first = self.home(hash);
        loop {
            // SAFETY: a home is below the number of slots, as is any position that is wrapped, and behind each of these there
            // are `GROUP - 1` further tags.
            let group = unsafe { &*self.tags.as_ptr().add(first).cast::<[u8; GROUP]>() };
            let (mut hits, empty) = compare(group, tag_of(hash));
            while hits != 0 {
                let position = self.wrap(first + hits.trailing_zeros() as usize);
                // SAFETY: the position is below the number of slots, and its tag is not empty, so the slot is filled.
                let entry = unsafe { self.slots.get_unchecked(position).assume_init_ref() };
                if entry.0 == *key {
                    return Some(position);
                }
                hits &= hits - 1;
            }
            if empty != 0 {
                return None;
            }
            first = self.wrap(first + GROUP);
        }
    }

    /// Adds an entry for a key that is not in the table, and gives its position. Positions found before are void.
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) -> usize {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize(self.slots.len() * 2);
        }
        self.place(hash, (key, value))
    }

    /// Gives the table this many slots, or somewhat more where its entries need them. Positions found before are void.
    pub fn set_capacity(&mut self, capacity: usize) {
        let needed = ((self.len + 1) * 4).div_ceil(3);
        let capacity = needed.max(capacity).max(SMALLEST).next_multiple_of(GROUP);
        if capacity != self.slots.len() {
            self.resize(capacity);
        }
    }

    #[cold]
    fn resize(&mut self, capacity: usize) {
        let mut before = std::mem::replace(self, UpdateTable::of_size(capacity));
        if !before.marks.is_empty() {
            self.keep_marks();
        }
        let UpdateTable { tags, marks, slots, .. } = &mut before;
        for (position, (slot, tag)) in slots.iter_mut().zip(tags).enumerate() {
            if *tag == EMPTY {
                continue;
            }
            // SAFETY: a slot whose tag is not empty is filled.
            let hash = stable_hash(unsafe { &slot.assume_init_ref().0 });
            *tag = EMPTY;
            // SAFETY: it was filled, and its tag now says that it is not any more.
            let placed = self.place(hash, unsafe { slot.assume_init_read() });
            if let Some(mark) = marks.get(position) {
                self.marks[placed] = *mark;
            }
        }
    }

    /// Removes the entry at a position, of a table that keeps marks. Entries behind it move up (Knuth, TAOCP 3, 6.4, algorithm R),
    /// maybe one to this position; positions found before are void.
    ///
    /// # Panics
    /// If there is no entry.
    pub fn remove_at(&mut self, position: usize) -> (K, V, u8) {
        assert!(self.tags[position] != EMPTY, "a position of an entry");
        self.set_tag(position, EMPTY);
        self.len -= 1;
        // SAFETY: the slot was filled, and its tag now says that it is not any more.
        let (key, value) = unsafe { self.slots[position].assume_init_read() };
        let mark = self.marks[position];
        let (mut gap, mut next) = (position, position);
        loop {
            next = self.wrap(next + 1);
            let tag = self.tags[next];
            if tag == EMPTY {
                return (key, value, mark);
            }
            // SAFETY: its tag is not empty, so the slot is filled.
            let home = self.home(stable_hash(unsafe { &self.slots[next].assume_init_ref().0 }));
            if self.distance(home, next) >= self.distance(gap, next) {
                self.set_tag(next, EMPTY);
                // SAFETY: the slot was filled, and its tag now says that it is not any more.
                let entry = unsafe { self.slots[next].assume_init_read() };
                self.slots[gap].write(entry);
                self.marks[gap] = self.marks[next];
                self.set_tag(gap, tag);
                gap = next;
            }
        }
    }
}

impl<K, V> Drop for UpdateTable<K, V> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<(K, V)>() {
            drop(self.take_entries());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_hash_map(steps in prop::collection::vec((0u16..400, -1000i32..1000, 0u8..50), 0..900)) {
            let mut table: UpdateTable<String, i32> = UpdateTable::default();
            let mut model: HashMap<String, i32> = HashMap::new();
            for (key, value, take) in steps {
                let key = key.to_string();
                let hash = stable_hash(&key);
                match table.find(hash, &key) {
                    Some(position) => *table.value_mut(position) += value,
                    None => {
                        table.insert_new(hash, key.clone(), value);
                    }
                }
                *model.entry(key).or_insert(0) += value;
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.iter().count(), model.len());
                if take == 0 {
                    let taken: HashMap<_, _> = table.take_entries().into_iter().collect();
                    prop_assert_eq!(taken, std::mem::take(&mut model));
                    prop_assert!(table.is_empty());
                }
            }
            let left: HashMap<_, _> = table.take_entries().into_iter().collect();
            prop_assert_eq!(left, model);
        }
    }

    proptest! {
        #[test]
        fn entries_can_be_removed_and_keep_their_marks(steps in prop::collection::vec((0u16..200, any::<u8>(), 0u8..3), 0..900)) {
            let mut table: UpdateTable<String, u16> = UpdateTable::default();
            table.keep_marks();
            let mut model: HashMap<String, (u16, u8)> = HashMap::new();
            for (number, mark, step) in steps {
                let key = number.to_string();
                let hash = stable_hash(&key);
                match (table.find(hash, &key), step) {
                    (Some(position), 0) => {
                        let (removed, value, mark) = table.remove_at(position);
                        prop_assert_eq!(Some((value, mark)), model.remove(&removed));
                    }
                    (Some(position), _) => {
                        *table.mark_mut(position) = mark;
                        model.insert(key, (number, mark));
                    }
                    (None, 2) => table.set_capacity(usize::from(mark)),
                    (None, _) => {
                        let position = table.insert_new(hash, key.clone(), number);
                        *table.mark_mut(position) = mark;
                        model.insert(key, (number, mark));
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (key, (value, mark)) in &model {
                let position = table.find(stable_hash(key), key).unwrap();
                prop_assert_eq!((*table.value_mut(position), *table.mark_mut(position)), (*value, *mark));
            }
            let standing = (0..table.capacity()).filter_map(|position| table.at(position)).count();
            prop_assert_eq!(standing, model.len());
        }
    }

    #[test]
    fn a_million_keys_are_found_again() {
        let mut table: UpdateTable<u64, u64> = UpdateTable::default();
        for key in 0..1_000_000u64 {
            table.insert_new(stable_hash(&key), key, key * 2);
        }
        for key in 0..1_000_000u64 {
            let position = table.find(stable_hash(&key), &key).unwrap();
            assert_eq!(*table.value_mut(position), key * 2);
        }
        assert_eq!(table.find(stable_hash(&1_000_000u64), &1_000_000), None);
    }

    #[test]
    fn a_table_of_any_size_gives_each_entry_once() {
        for capacity in [48, 112, 1_360, 30_000] {
            let mut table: UpdateTable<u64, u64> = UpdateTable::default();
            table.set_capacity(capacity);
            let count = capacity as u64 * 7 / 10;
            for key in 0..count {
                table.insert_new(stable_hash(&key), key, key);
            }
            assert_eq!(table.capacity(), capacity);
            for key in 0..count {
                assert_eq!(
                    table.find(stable_hash(&key), &key).map(|at| table.at(at)),
                    Some(Some(&(key, key)))
                );
            }
            let mut taken = table.take_entries();
            taken.sort_unstable();
            assert!(taken.into_iter().eq((0..count).map(|key| (key, key))));
        }
    }

    #[test]
    fn what_one_table_gives_spreads_evenly_in_the_next() {
        let mut table: UpdateTable<u64, ()> = UpdateTable::default();
        for key in 0..100_000u64 {
            table.insert_new(stable_hash(&key), key, ());
        }
        let taken = table.take_entries();
        // In the order of hashes, the first tenth would lie in the first tenth of the slots.
        let homes = taken[..10_000].iter().map(|(key, ())| stable_hash(key) >> 60);
        let mut counts = [0; 16];
        homes.for_each(|home| counts[home as usize] += 1);
        assert!(counts.iter().all(|count| (500..750).contains(count)), "{counts:?}");
    }

    #[test]
    fn an_emptied_table_does_not_count_as_full() {
        let mut table: UpdateTable<u64, u64> = UpdateTable::default();
        for key in 0..1_000u64 {
            table.insert_new(stable_hash(&key), key, key);
        }
        assert!(table.memory_bytes() >= 1_000 * size_of::<(u64, u64)>());
        table.take_entries();
        assert_eq!(table.memory_bytes(), 0);
    }

    #[test]
    fn what_the_table_owns_is_dropped_once() {
        let owned = Rc::new(());
        let mut table: UpdateTable<u32, Rc<()>> = UpdateTable::default();
        for key in 0..100u32 {
            table.insert_new(stable_hash(&key), key, owned.clone());
        }
        assert_eq!(Rc::strong_count(&owned), 101);
        drop(table);
        assert_eq!(Rc::strong_count(&owned), 1);
    }
}
