//! Keys that memory has not, by when something of theirs is due: the next of them are in memory, the others stay with the backend.

use std::collections::BTreeMap;

use flott_schema::Result;

use crate::state::time_pages::Horizon;

/// Keys noted at once, at most and at least. Few in tests, so that horizons move.
const PAGE_MAX: usize = if cfg!(test) { 6 } else { 4096 };
const PAGE_MIN: usize = if cfg!(test) { 2 } else { 128 };
/// The share of the budget that a page may take.
const PAGE_SHARE: usize = 32;

/// Keys by time and key group. A key may be named in vain: nothing of it is due any more, or it is in memory.
pub(super) struct Wakes<K> {
    keys: BTreeMap<Horizon, Vec<K>>,
    count: usize,
    /// The backend has what is to be noted from here on.
    horizon: Option<Horizon>,
}

impl<K> Default for Wakes<K> {
    fn default() -> Self {
        Wakes { keys: BTreeMap::new(), count: 0, horizon: None }
    }
}

/// Reads a page of keys from a horizon on, and gives the next horizon.
pub(super) type ReadKeys<'a, K> =
    &'a mut dyn FnMut(Horizon, usize, &mut dyn FnMut(Horizon, K)) -> Result<Option<Horizon>>;

impl<K: Clone> Wakes<K> {
    /// Keys that a page may have where the operator may keep so many bytes.
    pub(super) fn page(budget_bytes: usize) -> usize {
        let key_bytes = size_of::<K>() + size_of::<Horizon>() + 32;
        (budget_bytes / PAGE_SHARE / key_bytes).clamp(PAGE_MIN, PAGE_MAX)
    }

    /// The backend has all from this time on.
    pub(super) fn begin_at(&mut self, time_ms: i64) {
        self.horizon = Some((time_ms, 0));
    }

    /// Nothing is due before this.
    pub(super) fn next(&self) -> Option<Horizon> {
        let first = self.keys.first_key_value().map(|(at, _)| *at);
        first.into_iter().chain(self.horizon).min()
    }

    /// Nothing is due before this time.
    pub(super) fn next_ms(&self) -> i64 {
        self.next().map_or(i64::MAX, |(time_ms, _)| time_ms)
    }

    /// Something of a key that leaves memory is due then; the backend knows.
    pub(super) fn note(&mut self, at: Horizon, key: &K, page: usize) {
        if self.horizon.is_some_and(|horizon| at >= horizon) {
            return;
        }
        self.keys.entry(at).or_default().push(key.clone());
        self.count += 1;
        while self.count > page * 2
            && self.keys.len() > 1
            && let Some((last, keys)) = self.keys.pop_last()
        {
            self.count -= keys.len();
            self.horizon = Some(last);
        }
    }

    /// Takes the next keys, so many at most, of which something is due up to `until_ms`.
    pub(super) fn take(
        &mut self,
        until_ms: i64,
        wanted: usize,
        page: usize,
        read: ReadKeys<'_, K>,
    ) -> Result<Vec<K>> {
        let mut taken = Vec::new();
        loop {
            let horizon = self.horizon;
            while taken.len() < wanted
                && let Some(mut first) = self.keys.first_entry()
                && first.key().0 <= until_ms
                && horizon.is_none_or(|horizon| *first.key() < horizon)
            {
                let keys = first.get_mut();
                taken.extend(keys.drain(keys.len().saturating_sub(wanted - taken.len())..));
                if keys.is_empty() {
                    first.remove();
                }
            }
            let Some(horizon) = horizon.filter(|(time_ms, _)| *time_ms <= until_ms && taken.is_empty())
            else {
                self.count -= taken.len();
                return Ok(taken);
            };
            let (keys, count) = (&mut self.keys, &mut self.count);
            self.horizon = read(horizon, page, &mut |at, key| {
                keys.entry(at).or_default().push(key);
                *count += 1;
            })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: Horizon, _: usize, _: &mut dyn FnMut(Horizon, u32)) -> Result<Option<Horizon>> {
        panic!("nothing is to be read")
    }

    #[test]
    fn keys_are_taken_in_the_order_of_time_and_those_behind_the_horizon_are_read() {
        let mut wakes: Wakes<u32> = Wakes::default();
        for time_ms in [50, 10, 40, 20, 30] {
            wakes.note((time_ms, 3), &(time_ms as u32), 2);
        }
        assert_eq!((wakes.count, wakes.horizon), (4, Some((50, 3))), "the last are left to the backend");
        wakes.note((50, 4), &7, 2);
        wakes.note((15, 9), &15, 2);
        assert_eq!((wakes.count, wakes.horizon, wakes.next_ms()), (4, Some((40, 3)), 10));
        let mut taken = Vec::new();
        for wanted in [1, 2, 9, 9] {
            taken.push(wakes.take(35, wanted, 2, &mut none).unwrap());
        }
        assert_eq!(taken, [vec![10], vec![15, 20], vec![30], vec![]]);
        let mut read = |at: Horizon, _: usize, found: &mut dyn FnMut(Horizon, u32)| {
            assert_eq!(at, (40, 3));
            found((40, 5), 40);
            found((50, 3), 50);
            Ok(None)
        };
        assert_eq!(wakes.take(49, 9, 2, &mut read).unwrap(), [40]);
        assert!(wakes.take(49, 9, 2, &mut none).unwrap().is_empty());
        assert_eq!(wakes.take(50, 9, 2, &mut none).unwrap(), [50]);
        assert_eq!(wakes.next(), None);
    }

    #[test]
    fn many_keys_of_one_time_are_taken_in_pieces() {
        let mut wakes: Wakes<u32> = Wakes::default();
        (0..7).for_each(|key| wakes.note((10, 0), &key, 2));
        let sizes: Vec<usize> = (0..4).map(|_| wakes.take(10, 3, 2, &mut none).unwrap().len()).collect();
        assert_eq!(sizes, [3, 3, 1, 0]);
    }
}
