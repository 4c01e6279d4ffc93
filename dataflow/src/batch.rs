//! The unit that moves between operators: many records with their timestamps. A record never moves alone.

use std::any::Any;

use serde::Serialize;
use serde::de::DeserializeOwned;

use flott_schema::Result;

use crate::codec;
use crate::operators::bounded::size::mean_owned_bytes;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = i64::MIN;

/// What a record of a stream must be. Implemented for every type that fits.
pub trait Record: Clone + Send + Serialize + DeserializeOwned + 'static {}

impl<T: Clone + Send + Serialize + DeserializeOwned + 'static> Record for T {}

/// Event timestamps of a batch, epoch milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// Every record has this one ([`NO_TIMESTAMP`] if none was assigned).
    Same(i64),
    /// One for each record.
    Each(Vec<i64>),
}

impl Timestamps {
    /// The timestamp of the record at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> i64 {
        match self {
            Timestamps::Same(timestamp) => *timestamp,
            Timestamps::Each(timestamps) => timestamps[index],
        }
    }

    /// Appends a timestamp behind `len` others.
    #[inline]
    pub fn push(&mut self, len: usize, timestamp: i64) {
        match self {
            Timestamps::Each(timestamps) => timestamps.push(timestamp),
            Timestamps::Same(same) if *same == timestamp => {}
            Timestamps::Same(same) if len == 0 => *same = timestamp,
            Timestamps::Same(same) => {
                let mut each = Vec::with_capacity((len + 1).next_power_of_two());
                each.resize(len, *same);
                each.push(timestamp);
                *self = Timestamps::Each(each);
            }
        }
    }

    /// Takes those from this index on.
    pub fn split_off(&mut self, at: usize) -> Self {
        match self {
            Timestamps::Same(same) => Timestamps::Same(*same),
            Timestamps::Each(each) => Timestamps::Each(each.split_off(at)),
        }
    }

    /// The largest timestamp of the first `len` records.
    pub fn max(&self, len: usize) -> Option<i64> {
        match self {
            _ if len == 0 => None,
            Timestamps::Same(timestamp) => Some(*timestamp),
            Timestamps::Each(timestamps) => timestamps.iter().copied().max(),
        }
    }
}

impl Default for Timestamps {
    fn default() -> Self {
        Timestamps::Same(NO_TIMESTAMP)
    }
}

/// Typed records with their timestamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<T> {
    /// The records.
    pub records: Vec<T>,
    /// Their timestamps.
    pub timestamps: Timestamps,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Batch { records: Vec::new(), timestamps: Timestamps::default() }
    }
}

impl<T> Batch<T> {
    /// Records without timestamps.
    pub fn of(records: Vec<T>) -> Self {
        Batch { records, timestamps: Timestamps::default() }
    }

    /// An empty batch with room for `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        Batch { records: Vec::with_capacity(capacity), timestamps: Timestamps::default() }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Appends a record.
    #[inline]
    pub fn push(&mut self, record: T, timestamp: i64) {
        self.timestamps.push(self.records.len(), timestamp);
        self.records.push(record);
    }

    /// The records with their timestamps.
    pub fn iter(&self) -> impl Iterator<Item = (&T, i64)> {
        self.records.iter().enumerate().map(|(index, record)| (record, self.timestamps.get(index)))
    }

    /// Drops the records, keeping their room.
    pub fn clear(&mut self) {
        self.records.clear();
        self.timestamps = Timestamps::default();
    }

    /// Takes the batch, leaving an empty one with room for `capacity` records.
    pub fn take(&mut self, capacity: usize) -> Self {
        std::mem::replace(self, Batch::with_capacity(capacity))
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = (T, i64);
    type IntoIter = BatchIntoIter<T>;

    fn into_iter(self) -> BatchIntoIter<T> {
        BatchIntoIter { records: self.records.into_iter(), timestamps: self.timestamps, index: 0 }
    }
}

/// Owned records of a batch with their timestamps.
pub struct BatchIntoIter<T> {
    records: std::vec::IntoIter<T>,
    timestamps: Timestamps,
    index: usize,
}

impl<T> Iterator for BatchIntoIter<T> {
    type Item = (T, i64);

    #[inline]
    fn next(&mut self) -> Option<(T, i64)> {
        let record = self.records.next()?;
        let timestamp = self.timestamps.get(self.index);
        self.index += 1;
        Some((record, timestamp))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.records.size_hint()
    }
}

/// What a kind of batch (typed rows, Arrow columns) can do for the parts of the engine that move it.
pub trait DataBatch: Sized + Send + 'static {
    /// Number of records.
    fn record_count(&self) -> usize;
    /// Rough size in memory, bytes, with what the records own; may look at a few of them, so ask once a batch.
    fn weight_bytes(&self) -> usize;
    /// A copy for another consumer.
    fn duplicate(&self) -> Self;
    /// Takes the records from this index on, which is not beyond the end, into another batch.
    fn split_off(&mut self, at: usize) -> Self;
    /// Appends the wire form.
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<()>;
    /// Reads the wire form.
    fn decode(bytes: &[u8]) -> Result<Self>;
}

impl<T: Record> DataBatch for Batch<T> {
    fn record_count(&self) -> usize {
        self.records.len()
    }

    fn weight_bytes(&self) -> usize {
        self.records.len() * (size_of::<T>() + size_of::<i64>() + mean_owned_bytes(&self.records, 0))
    }

    fn duplicate(&self) -> Self {
        self.clone()
    }

    fn split_off(&mut self, at: usize) -> Self {
        Batch { records: self.records.split_off(at), timestamps: self.timestamps.split_off(at) }
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result<()> {
        codec::encode_rows(self, bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode_rows(bytes)
    }
}

/// A batch whose type the mover does not know: one box and one downcast per batch.
pub trait ErasedBatch: Send {
    /// Number of records.
    fn record_count(&self) -> usize;
    /// Rough size in memory, bytes.
    fn weight_bytes(&self) -> usize;
    /// Appends the wire form.
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<()>;
    /// Takes the records from this index on, which is not beyond the end, into another batch.
    fn split_off(&mut self, at: usize) -> Box<dyn ErasedBatch>;
    /// For the downcast at the receiver.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<B: DataBatch> ErasedBatch for B {
    fn record_count(&self) -> usize {
        DataBatch::record_count(self)
    }

    fn weight_bytes(&self) -> usize {
        DataBatch::weight_bytes(self)
    }

    fn encode(&self, bytes: &mut Vec<u8>) -> Result<()> {
        DataBatch::encode(self, bytes)
    }

    fn split_off(&mut self, at: usize) -> Box<dyn ErasedBatch> {
        Box::new(DataBatch::split_off(self, at))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Reads the wire form of one edge's batches.
pub type BatchDecoder = fn(&[u8]) -> Result<Box<dyn ErasedBatch>>;

/// The decoder of `B`.
pub fn decoder_of<B: DataBatch>() -> BatchDecoder {
    |bytes| Ok(Box::new(B::decode(bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_timestamps_take_no_room_and_unequal_ones_are_kept() {
        let mut batch = Batch::default();
        batch.push('a', 5);
        batch.push('b', 5);
        assert_eq!(batch.timestamps, Timestamps::Same(5));
        batch.push('c', 7);
        assert_eq!(batch.into_iter().collect::<Vec<_>>(), [('a', 5), ('b', 5), ('c', 7)]);
    }

    #[test]
    fn a_record_without_timestamp_may_follow_one_with() {
        let mut batch = Batch::default();
        batch.push(1, 5);
        batch.push(2, NO_TIMESTAMP);
        assert_eq!(batch.timestamps.get(1), NO_TIMESTAMP);
        assert_eq!(batch.timestamps.max(2), Some(5));
    }

    #[test]
    fn a_batch_weighs_what_its_records_own_too() {
        let plain = Batch::of(vec![1u64; 100]);
        assert_eq!(DataBatch::weight_bytes(&plain), 100 * 16);
        let texts = Batch::of(vec!["x".repeat(10_000); 100]);
        let weight_bytes = DataBatch::weight_bytes(&texts);
        assert!((1_000_000..2_100_000).contains(&weight_bytes), "{weight_bytes}");
    }
}
