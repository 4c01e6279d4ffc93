//! Rows that live for a limited time, dropped when files are merged.
//!
//! Tables hide what has expired, and remove what they meet. Of what nobody asks for again this gets rid: no work of its own,
//! since files are merged anyway. It goes by the time that the task goes by: never by the clock of the machine, which may be
//! another one, or be ahead. And no row goes that lived at the barrier of a snapshot before the snapshot has its files.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::pool::lock;

const NAME: &CStr = c"flott-expiry";
/// Bytes of a stamp between 1970 and 2039: a varint of zigzag, from 2^35 up to 2^42.
const STAMP_BYTES: usize = 6;
const STAMP_MS_MIN: i64 = 1 << 34;
const STAMP_MS_END: i64 = 1 << 41;

/// Which rows of a database have expired.
#[derive(Debug)]
pub(super) struct Expiry {
    /// How long rows live behind the stamps with which they end, milliseconds, by the number of their table.
    lives: Mutex<BTreeMap<u16, i64>>,
    /// The last time that the task has gone by.
    now_ms: AtomicI64,
    /// That time at the barrier of each snapshot that has not got its files, by its checkpoint id.
    barriers: Mutex<BTreeMap<u64, i64>>,
    /// The first of those times.
    held_ms: AtomicI64,
}

impl Default for Expiry {
    fn default() -> Self {
        let (lives, barriers) = Default::default();
        Expiry { lives, now_ms: AtomicI64::new(i64::MIN), barriers, held_ms: AtomicI64::new(i64::MAX) }
    }
}

impl Expiry {
    /// Rows of this table live so long behind their stamps.
    pub(super) fn rows_expire(&self, table: u16, life_ms: i64) {
        lock(&self.lives).insert(table, life_ms);
    }

    /// The task goes by this time.
    pub(super) fn set_time(&self, now_ms: i64) {
        // Whoever sees this time sees what was held before.
        self.now_ms.store(now_ms, Ordering::Release);
    }

    /// The barrier of a snapshot has come: until [`release`](Self::release) nothing goes that lives now. On the task's thread.
    pub(super) fn hold(&self, checkpoint: u64) {
        let mut barriers = lock(&self.barriers);
        barriers.insert(checkpoint, self.now_ms.load(Ordering::Relaxed));
        self.hold_first(&barriers);
    }

    /// The snapshot has its files, or needs none.
    pub(super) fn release(&self, checkpoint: u64) {
        let mut barriers = lock(&self.barriers);
        barriers.remove(&checkpoint);
        self.hold_first(&barriers);
    }

    fn hold_first(&self, barriers: &BTreeMap<u64, i64>) {
        let first_ms = barriers.values().min().copied().unwrap_or(i64::MAX);
        self.held_ms.store(first_ms, Ordering::Release);
    }

    /// By which time rows go.
    fn time_ms(&self) -> i64 {
        let now_ms = self.now_ms.load(Ordering::Acquire);
        now_ms.min(self.held_ms.load(Ordering::Acquire))
    }
}

/// Makes a filter for each time that files are merged.
pub(super) struct DropExpired(pub(super) Arc<Expiry>);

pub(super) struct Expired {
    expiry: Arc<Expiry>,
    lives: BTreeMap<u16, i64>,
}

impl CompactionFilterFactory for DropExpired {
    type Filter = Expired;

    fn create(&mut self, _: CompactionFilterContext) -> Expired {
        Expired { expiry: self.0.clone(), lives: lock(&self.0.lives).clone() }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

impl CompactionFilter for Expired {
    fn filter(&mut self, _: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        let table = key.get(2..4).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let life_ms = table.and_then(|table| self.lives.get(&table));
        let (Some(life_ms), Some(stamp_ms)) = (life_ms, stamp_at_the_end(value)) else {
            return CompactionDecision::Keep;
        };
        // At each row, since merging takes long.
        let time_ms = self.expiry.time_ms();
        match time_ms < STAMP_MS_END && stamp_ms.saturating_add(*life_ms) <= time_ms {
            true => CompactionDecision::Remove,
            false => CompactionDecision::Keep,
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

    /// Whether a row of this table with this age at 1,800,000,000,000 goes.
    fn goes(filter: &mut Expired, table: u8, age_ms: i64) -> bool {
        let mut value = b"value".to_vec();
        encode_value(&(1_800_000_000_000i64 - age_ms), &mut value).unwrap();
        matches!(filter.filter(0, &[0, 9, 0, table, b'k'], &value), CompactionDecision::Remove)
    }

    fn expiry() -> (Arc<Expiry>, Expired) {
        let expiry = Arc::<Expiry>::default();
        expiry.rows_expire(3, 1_000);
        let lives = lock(&expiry.lives).clone();
        (expiry.clone(), Expired { expiry, lives })
    }

    #[test]
    fn only_rows_of_tables_with_a_life_expire_and_by_the_time_of_the_task_alone() {
        let (expiry, mut filter) = expiry();
        assert!(!goes(&mut filter, 3, 1_000_000), "no time was told");
        expiry.set_time(1_800_000_000_000);
        assert!(goes(&mut filter, 3, 1_000) && goes(&mut filter, 3, 5_000));
        assert!(!goes(&mut filter, 3, 999) && !goes(&mut filter, 4, 5_000) && !goes(&mut filter, 3, -1));
        expiry.set_time(1_800_000_000_001);
        assert!(goes(&mut filter, 3, 999), "files that are being merged go by it too");
        expiry.set_time(1_799_999_999_999);
        assert!(!goes(&mut filter, 3, 1_000), "the task sees it again");
    }

    #[test]
    fn nothing_goes_that_a_snapshot_may_need() {
        let (expiry, mut filter) = expiry();
        expiry.set_time(1_800_000_000_000);
        expiry.hold(1);
        expiry.set_time(1_800_000_000_100);
        expiry.hold(2);
        expiry.set_time(1_800_000_000_200);
        assert!(goes(&mut filter, 3, 1_000) && !goes(&mut filter, 3, 999));
        expiry.release(1);
        assert!(goes(&mut filter, 3, 900) && !goes(&mut filter, 3, 899));
        expiry.release(2);
        assert!(goes(&mut filter, 3, 800) && !goes(&mut filter, 3, 799));
    }
}
