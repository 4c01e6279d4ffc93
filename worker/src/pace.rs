//! How many records a slow task takes at once.
//!
//! A task cannot be spoken to while its operators work on a batch: it is not cancelled, and no barrier passes it. Where they take long over each record, a
//! sink say that waits for a server, batches are taken in pieces.

use std::time::Duration;

/// How long the operators of a task may work on one piece.
const PIECE: Duration = Duration::from_millis(20);
/// So many times as fast must a piece be before larger ones are tried.
const MARGIN: u32 = 4;

/// The pace of a task.
#[derive(Debug, Default)]
pub struct Pace {
    /// Records that it takes at once; all if it is fast enough.
    records: Option<usize>,
}

impl Pace {
    /// The operators took so long over so many records. Gives how many they are to take from now on, if that is another number.
    pub fn after(&mut self, records: usize, took: Duration) -> Option<usize> {
        if took > PIECE {
            let fit = records as u128 * PIECE.as_nanos() / took.as_nanos().max(1);
            let fit = usize::try_from(fit).unwrap_or(usize::MAX).max(1);
            return (self.records.replace(fit) != Some(fit)).then_some(fit);
        }
        let limit = self.records?;
        if records < limit || took * MARGIN > PIECE {
            return None;
        }
        // As soon as there is no end of it, all.
        self.records = limit.checked_mul(2);
        Some(self.records.unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_fast_task_takes_whole_batches() {
        let mut pace = Pace::default();
        assert_eq!(pace.after(1_024, ms(1)), None);
        assert_eq!(pace.after(1, ms(19)), None);
    }

    #[test]
    fn a_slow_task_takes_pieces_until_it_is_fast_again() {
        let mut pace = Pace::default();
        assert_eq!(pace.after(1_000, ms(1_000)), Some(20));
        assert_eq!(pace.after(20, ms(20)), None, "as long as it should");
        assert_eq!(pace.after(3, ms(1)), None, "no full piece says nothing");
        assert_eq!(pace.after(20, ms(2)), Some(40));
        assert_eq!(pace.after(40, ms(80)), Some(10));
        assert_eq!(pace.after(1, ms(5_000)), Some(1), "a record is not divided");
        let grown = std::iter::from_fn(|| pace.after(pace.records?, ms(0))).last();
        assert_eq!(grown, Some(usize::MAX));
        assert_eq!(pace.after(1_024, ms(0)), None);
    }
}
