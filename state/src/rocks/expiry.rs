//! Rows that live for a limited time, dropped when files are merged.
//!
//! Tables hide what has expired, and remove what they meet. Of what nobody asks for again this gets rid: no work of its own,
//! since files are merged anyway.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::pool::lock;

const NAME: &CStr = c"flott-expiry";
/// Bytes of a stamp between 1970 and 2039: a varint of zigzag, from 2^35 up to 2^42.
const STAMP_BYTES: usize = 6;
const STAMP_MS_MIN: i64 = 1 << 34;
const STAMP_MS_END: i64 = 1 << 41;

/// How long rows of the tables of a database live behind the stamps with which they end, milliseconds, by the number of the
/// table.
#[derive(Debug, Default)]
pub(super) struct Lives(Mutex<BTreeMap<u16, i64>>);

impl Lives {
    pub(super) fn set(&self, table: u16, life_ms: i64) {
        lock(&self.0).insert(table, life_ms);
    }
}

/// Makes a filter for each time that files are merged.
pub(super) struct DropExpired(pub(super) Arc<Lives>);

pub(super) struct Expired {
    lives: BTreeMap<u16, i64>,
    now_ms: i64,
}

impl CompactionFilterFactory for DropExpired {
    type Filter = Expired;

    fn create(&mut self, _: CompactionFilterContext) -> Expired {
        let lives = lock(&self.0.0).clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Expired { lives, now_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX) }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

impl CompactionFilter for Expired {
    fn filter(&mut self, _: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        let table = key.get(2..4).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let life_ms = table.and_then(|table| self.lives.get(&table));
        match (life_ms, stamp_at_the_end(value)) {
            (Some(life_ms), Some(stamp_ms))
                if self.now_ms < STAMP_MS_END && stamp_ms.saturating_add(*life_ms) <= self.now_ms =>
            {
                CompactionDecision::Remove
            }
            _ => CompactionDecision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// The stamp with which a value ends; none if it has none, or it is not certain where it begins. Read from its end a varint is
/// as long as there are bytes in front with their highest bit set, and what stands in front of it may have such bytes too. But
/// every stamp of these decades has the same length.
fn stamp_at_the_end(value: &[u8]) -> Option<i64> {
    let (_, stamp) = value.split_at_checked(value.len().checked_sub(STAMP_BYTES)?)?;
    let (last, front) = stamp.split_last()?;
    // A last byte of zero is a stamp of zero.
    if *last == 0 || *last >= 0x80 || front.iter().any(|byte| *byte < 0x80) {
        return None;
    }
    let zigzag = stamp.iter().rev().fold(0u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
    let stamp_ms = (zigzag >> 1) as i64;
    (zigzag & 1 == 0 && (STAMP_MS_MIN..STAMP_MS_END).contains(&stamp_ms)).then_some(stamp_ms)
}

#[cfg(test)]
mod tests {
    use flott_dataflow::codec::encode_value;

    use super::*;

    fn ends_with(value: &[u8], stamp_ms: i64) -> Option<i64> {
        let mut bytes = value.to_vec();
        encode_value(&stamp_ms, &mut bytes).unwrap();
        stamp_at_the_end(&bytes)
    }

    #[test]
    fn a_stamp_is_found_whatever_stands_in_front_of_it() {
        let today = 1_800_000_000_000;
        for value in [&b""[..], b"x", &[0xff; 12], &[0x80, 0x80, 0, 0x81], &[0; 9]] {
            for stamp_ms in [today, today + 1, STAMP_MS_MIN, STAMP_MS_END - 1] {
                assert_eq!(ends_with(value, stamp_ms), Some(stamp_ms), "{value:?}");
            }
            assert_eq!(ends_with(value, 0), None, "it has none");
            assert_eq!(ends_with(value, -today), None);
        }
        // A stamp of a clock that began with 0 is shorter: it is not certain where it begins, so the row stays.
        assert_eq!(ends_with(b"x", 100_000), None);
        assert_eq!(stamp_at_the_end(b""), None);
    }

    #[test]
    fn what_a_short_stamp_and_the_bytes_in_front_look_like_is_never_a_stamp_of_today() {
        // Together with high bytes in front a short one may be read as a longer one.
        let read = ends_with(&[0xff; 8], 100_000);
        assert!(read.is_none_or(|stamp_ms| stamp_ms < STAMP_MS_END));
    }

    #[test]
    fn only_rows_of_tables_with_a_life_expire() {
        let mut filter = Expired { lives: [(3, 1_000)].into(), now_ms: 1_800_000_000_000 };
        let mut decide = |table: u8, age_ms: i64| {
            let mut value = b"value".to_vec();
            encode_value(&(1_800_000_000_000i64 - age_ms), &mut value).unwrap();
            matches!(filter.filter(0, &[0, 9, 0, table, b'k'], &value), CompactionDecision::Remove)
        };
        assert!(decide(3, 1_000) && decide(3, 5_000));
        assert!(!decide(3, 999) && !decide(4, 5_000) && !decide(3, -1));
    }
}
