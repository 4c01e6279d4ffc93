//! Keys of records.

use std::borrow::Borrow;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use flott_schema::stable_hash::stable_hash;

/// What a key must be. Implemented for every type that fits; `key_by` also checks that the type encodes stably
/// (no floats, no maps), because the key group of a key must be the same in every process.
pub trait Key: Clone + Eq + Send + Serialize + DeserializeOwned + 'static {}

impl<K: Clone + Eq + Send + Serialize + DeserializeOwned + 'static> Key for K {}

/// Finds the key in a record, without copying it where the record holds it.
pub trait KeySelector<T>: Clone + Send + 'static {
    /// The key.
    type Key: Key;
    /// The key as found: owned, or borrowed from the record.
    type Found<'a>: Borrow<Self::Key>
    where
        T: 'a;

    /// The key of `record`.
    fn key<'a>(&self, record: &'a T) -> Self::Found<'a>;
}

/// A selector that computes the key.
pub struct ByValue<F, K>(F, PhantomData<fn() -> K>);

/// A selector that points at the key inside the record.
pub struct ByRef<F, K>(F, PhantomData<fn() -> K>);

impl<F, K> ByValue<F, K> {
    /// Wraps `Fn(&T) -> K`.
    pub fn new(f: F) -> Self {
        ByValue(f, PhantomData)
    }
}

impl<F, K> ByRef<F, K> {
    /// Wraps `Fn(&T) -> &K`.
    pub fn new(f: F) -> Self {
        ByRef(f, PhantomData)
    }
}

impl<F: Clone, K> Clone for ByValue<F, K> {
    fn clone(&self) -> Self {
        ByValue(self.0.clone(), PhantomData)
    }
}

impl<F: Clone, K> Clone for ByRef<F, K> {
    fn clone(&self) -> Self {
        ByRef(self.0.clone(), PhantomData)
    }
}

impl<T, K: Key, F: Fn(&T) -> K + Clone + Send + 'static> KeySelector<T> for ByValue<F, K> {
    type Key = K;
    type Found<'a>
        = K
    where
        T: 'a;

    #[inline]
    fn key(&self, record: &T) -> K {
        (self.0)(record)
    }
}

impl<T, K: Key, F: Fn(&T) -> &K + Clone + Send + 'static> KeySelector<T> for ByRef<F, K> {
    type Key = K;
    type Found<'a>
        = &'a K
    where
        T: 'a;

    #[inline]
    fn key<'a>(&self, record: &'a T) -> &'a K {
        (self.0)(record)
    }
}

/// The stable hashes of a batch's keys, into `hashes`.
pub fn hash_keys<T, S: KeySelector<T>>(selector: &S, records: &[T], hashes: &mut Vec<u64>) {
    hashes.clear();
    hashes.extend(records.iter().map(|record| stable_hash(selector.key(record).borrow())));
}

/// A copy of the key of `record`.
pub(crate) fn key_of<T, S: KeySelector<T>>(selector: &S, record: &T) -> S::Key {
    let found = selector.key(record);
    let key: &S::Key = found.borrow();
    key.clone()
}
