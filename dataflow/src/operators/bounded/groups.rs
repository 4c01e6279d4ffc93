//! The records of a task, key by key.
//!
//! Keys need no order of their own: they are sorted by their stable hash, and those few that share a hash by their
//! encoded form. So two inputs sorted this way can be read side by side.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::VecDeque;

use flott_schema::Result;

use super::ending::Pace;
use super::order::Comparator;
use super::records::{FETCHED, Fetch};
use super::sorter::Sorter;
use crate::batch::{Batch, Record};
use crate::codec::encode_value;
use crate::context::OperatorContext;
use crate::key::{Key, KeySelector, hash_keys};
use crate::stage::Flow;

/// Compares keys with their hashes.
#[inline]
pub fn compare_keys<K: Key>(a_hash: u64, a: &K, b_hash: u64, b: &K) -> Ordering {
    match a_hash.cmp(&b_hash) {
        Ordering::Equal if a == b => Ordering::Equal,
        Ordering::Equal => compare_colliding(a, b),
        other => other,
    }
}

#[cold]
fn compare_colliding<K: Key>(a: &K, b: &K) -> Ordering {
    let encoded = |key: &K| {
        let mut bytes = Vec::new();
        // A key that has a stable hash can be encoded.
        encode_value(key, &mut bytes).map(|()| bytes).unwrap_or_default()
    };
    encoded(a).cmp(&encoded(b))
}

/// Orders hashed records by key, those of one key by `within`.
#[derive(Clone)]
pub struct KeyOrder<S, C> {
    selector: S,
    within: C,
}

impl<T, S: KeySelector<T>, C: Comparator<T>> Comparator<(u64, T)> for KeyOrder<S, C> {
    #[inline]
    fn compare(&self, a: &(u64, T), b: &(u64, T)) -> Ordering {
        if a.0 != b.0 {
            return a.0.cmp(&b.0);
        }
        compare_keys(a.0, self.selector.key(&a.1).borrow(), b.0, self.selector.key(&b.1).borrow())
            .then_with(|| self.within.compare(&a.1, &b.1))
    }
}

/// Holds records and gives them back key by key. First `push_batch`, then `prepare` until it is done, then the rest.
pub struct Groups<S: KeySelector<T>, T, C> {
    selector: S,
    sorter: Sorter<(u64, T), KeyOrder<S, C>>,
    /// The next record.
    head: Option<((u64, T), i64)>,
    is_prepared: bool,
    hashes: Vec<u64>,
}

impl<S: KeySelector<T>, T: Record, C: Comparator<T>> Groups<S, T, C> {
    /// Groups that keep about `limit_bytes` in memory; `within` orders the records of a key.
    pub fn new(selector: S, within: C, ctx: &OperatorContext, limit_bytes: usize) -> Self {
        let order = KeyOrder { selector: selector.clone(), within };
        Groups {
            selector,
            sorter: Sorter::new(order, ctx, limit_bytes),
            head: None,
            is_prepared: false,
            hashes: Vec::new(),
        }
    }

    /// Adds records.
    pub fn push_batch(&mut self, batch: Batch<T>) -> Result<()> {
        hash_keys(&self.selector, &batch.records, &mut self.hashes);
        for ((record, timestamp), hash) in batch.into_iter().zip(&self.hashes) {
            self.sorter.push((*hash, record), timestamp)?;
        }
        Ok(())
    }

    /// Adds a record whose key has this hash.
    #[inline]
    pub fn push(&mut self, hash: u64, record: T, timestamp: i64) -> Result<()> {
        self.sorter.push((hash, record), timestamp)
    }

    /// Gets ready to be read.
    pub fn prepare(&mut self, pace: &mut Pace) -> Result<Flow> {
        if !self.is_prepared {
            if self.sorter.prepare(pace)? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.head = self.sorter.take_next()?;
            self.is_prepared = true;
        }
        Ok(Flow::Done)
    }

    /// The key of the next record, with its hash.
    pub fn head_key(&self) -> Option<(u64, S::Key)> {
        self.head.as_ref().map(|((hash, record), _)| {
            let key = self.selector.key(record);
            let key: &S::Key = key.borrow();
            (*hash, key.clone())
        })
    }

    /// Takes the next record.
    #[inline]
    pub fn take(&mut self) -> Result<Option<(T, i64)>> {
        let Some(((_, record), timestamp)) = self.head.take() else { return Ok(None) };
        self.head = self.sorter.take_next()?;
        Ok(Some((record, timestamp)))
    }

    /// Takes the next record if it has this key.
    #[inline]
    pub fn take_of(&mut self, hash: u64, key: &S::Key) -> Result<Option<(T, i64)>> {
        match &self.head {
            Some(((head_hash, record), _))
                if *head_hash == hash && self.selector.key(record).borrow() == key =>
            {
                self.take()
            }
            _ => Ok(None),
        }
    }

    /// Which of the next records of two inputs has the lower key; one that has ended is above all.
    pub fn compare_heads<SR, R, CR>(&self, other: &Groups<SR, R, CR>) -> Option<Ordering>
    where
        SR: KeySelector<R, Key = S::Key>,
        R: Record,
        CR: Comparator<R>,
    {
        match (&self.head, &other.head) {
            (None, None) => None,
            (Some(_), None) => Some(Ordering::Less),
            (None, Some(_)) => Some(Ordering::Greater),
            (Some(((a_hash, a), _)), Some(((b_hash, b), _))) => Some(compare_keys(
                *a_hash,
                self.selector.key(a).borrow(),
                *b_hash,
                other.selector.key(b).borrow(),
            )),
        }
    }
}

/// The records of one key.
pub struct Group<'a, S: KeySelector<T>, T, C> {
    groups: &'a mut Groups<S, T, C>,
    hash: u64,
    key: &'a S::Key,
}

impl<'a, S: KeySelector<T>, T: Record, C: Comparator<T>> Group<'a, S, T, C> {
    /// Those of `key`; none if it is not next.
    pub fn new(groups: &'a mut Groups<S, T, C>, hash: u64, key: &'a S::Key) -> Self {
        Group { groups, hash, key }
    }
}

impl<S: KeySelector<T>, T: Record, C: Comparator<T>> Fetch<T> for Group<'_, S, T, C> {
    fn fetch(&mut self, ready: &mut VecDeque<(T, i64)>) -> Result<()> {
        while ready.len() < FETCHED {
            match self.groups.take_of(self.hash, self.key)? {
                Some(record) => ready.push_back(record),
                None => break,
            }
        }
        Ok(())
    }
}
