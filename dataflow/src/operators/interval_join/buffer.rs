//! The records of one key that may still find a partner.

use std::collections::VecDeque;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Records in order of their timestamps; of equal ones, in order of arrival. Records that come in order are appended;
/// one out of order is put in its place, which moves the records that overtook it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent, bound(serialize = "T: Serialize", deserialize = "T: DeserializeOwned"))]
pub struct Buffer<T> {
    records: VecDeque<(i64, T)>,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Buffer { records: VecDeque::new() }
    }
}

impl<T> Buffer<T> {
    /// Adds a record.
    #[inline]
    pub fn insert(&mut self, timestamp: i64, record: T) {
        if self.records.back().is_none_or(|(last, _)| *last <= timestamp) {
            return self.records.push_back((timestamp, record));
        }
        let place = self.records.partition_point(|(other, _)| *other <= timestamp);
        self.records.insert(place, (timestamp, record));
    }

    /// The records from `first` to `last`, both included.
    #[inline]
    pub fn range(&self, first: i64, last: i64) -> impl Iterator<Item = (i64, &T)> {
        let start = self.records.partition_point(|(timestamp, _)| *timestamp < first);
        let records = self.records.range(start..);
        records
            .map(|(timestamp, record)| (*timestamp, record))
            .take_while(move |(timestamp, _)| *timestamp <= last)
    }

    /// Drops the records that are kept no longer when the watermark stands at `watermark_ms`.
    #[inline]
    pub fn expire(&mut self, kept_ms: i64, watermark_ms: i64) {
        if self.next_expiry_ms(kept_ms).is_some_and(|expires| expires <= watermark_ms) {
            self.drop_expired(kept_ms, watermark_ms);
        }
    }

    fn drop_expired(&mut self, kept_ms: i64, watermark_ms: i64) {
        let expired = |(timestamp, _): &(i64, T)| timestamp.saturating_add(kept_ms) <= watermark_ms;
        let end = self.records.partition_point(expired);
        self.records.drain(..end);
        // A burst must not keep its memory for the life of the key.
        if self.records.capacity() > 64 && self.records.len() * 4 < self.records.capacity() {
            self.records.shrink_to(self.records.len() * 2);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// When the oldest record expires.
    #[inline]
    pub fn next_expiry_ms(&self, kept_ms: i64) -> Option<i64> {
        self.records.front().map(|(timestamp, _)| timestamp.saturating_add(kept_ms))
    }
}

/// How long after its timestamp a record is kept, by side.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    pub left_ms: i64,
    pub right_ms: i64,
}

/// Both buffers of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(
    serialize = "L: Serialize, R: Serialize",
    deserialize = "L: DeserializeOwned, R: DeserializeOwned"
))]
pub struct Buffers<L, R> {
    /// Records of the first input.
    pub left: Buffer<L>,
    /// Records of the second input.
    pub right: Buffer<R>,
    /// When the next clean-up is registered; `i64::MAX` for none.
    pub cleanup_ms: i64,
}

impl<L, R> Default for Buffers<L, R> {
    fn default() -> Self {
        Buffers { left: Buffer::default(), right: Buffer::default(), cleanup_ms: i64::MAX }
    }
}

impl<L, R> Buffers<L, R> {
    /// The watermark has come to `watermark_ms`: drops what is kept no longer.
    pub fn expire(&mut self, kept: Kept, watermark_ms: i64) {
        self.left.expire(kept.left_ms, watermark_ms);
        self.right.expire(kept.right_ms, watermark_ms);
    }

    /// A record comes while the watermark stands at `watermark_ms`: drops what was kept no longer when it came there.
    /// Records that expire with their own timestamp are not touched: their clean-up is exact, and those that came
    /// since, at the watermark, may still meet.
    #[inline]
    pub fn expire_overdue(&mut self, kept: Kept, watermark_ms: i64) {
        if kept.left_ms > 0 {
            self.left.expire(kept.left_ms, watermark_ms);
        }
        if kept.right_ms > 0 {
            self.right.expire(kept.right_ms, watermark_ms);
        }
    }

    /// The buffer of left records, and that of their partners.
    #[inline]
    pub fn seen_from_left(&mut self) -> (&mut Buffer<L>, &Buffer<R>) {
        (&mut self.left, &self.right)
    }

    /// The buffer of right records, and that of their partners.
    #[inline]
    pub fn seen_from_right(&mut self) -> (&mut Buffer<R>, &Buffer<L>) {
        (&mut self.right, &self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stand_by_timestamp_and_equal_ones_by_arrival() {
        let mut buffer = Buffer::default();
        for (timestamp, record) in [(5, 'a'), (9, 'b'), (7, 'c'), (5, 'd'), (9, 'e'), (1, 'f')] {
            buffer.insert(timestamp, record);
        }
        let records: String = buffer.range(i64::MIN, i64::MAX).map(|(_, record)| *record).collect();
        assert_eq!(records, "fadcbe");
        assert_eq!(buffer.range(5, 7).collect::<Vec<_>>(), [(5, &'a'), (5, &'d'), (7, &'c')]);
        assert_eq!(buffer.range(10, 20).count(), 0);
        assert_eq!(buffer.range(8, 6).count(), 0);
    }

    #[test]
    fn what_expires_goes_and_gives_its_memory_back() {
        let mut buffer = Buffer::default();
        (0..10_000).for_each(|timestamp| buffer.insert(timestamp, timestamp));
        assert_eq!(buffer.next_expiry_ms(10), Some(10));
        buffer.expire(10, 9);
        assert_eq!(buffer.range(0, 20_000).count(), 10_000);
        buffer.expire(10, 9_999);
        assert_eq!(buffer.next_expiry_ms(10), Some(10_000));
        assert_eq!(buffer.range(0, 20_000).count(), 10);
        assert!(buffer.records.capacity() < 100, "{}", buffer.records.capacity());
        buffer.expire(i64::MAX, i64::MAX);
        assert_eq!(buffer.next_expiry_ms(10), None);
    }
}
