//! Which rows of a table a snapshot still has to take: a byte of marks for each row, read against the epoch the table is in.
//!
//! A barrier is an epoch switch: it changes what the marks mean, and touches none of them. Rows that were marked as dirty are then *frozen*
//! until they are copied out, piece by piece; the other of two bits marks what becomes dirty from then on. Where a snapshot takes
//! all rows, one bit says whether a row was seen in this epoch, and the switch inverts its meaning. The next switch may only come when no
//! row is frozen any more.

use crate::snapshot::StateBackend;

/// Dirty in an even epoch, frozen in the odd one behind it. Where all rows are taken: the epoch a row was last seen in.
const EVEN: u8 = 1;
const ODD: u8 = 2;
/// The backend has a row of this key.
const STORED: u8 = 4;
/// Used since the hand of the clock last passed by (Corbató: *A Paging Experiment with the Multics System*, 1968).
const TOUCHED: u8 = 8;
/// How often the hand has found it used, less how often not: two bits. So one that is used all the time outlasts a while
/// without, and one that was used once goes when the hand comes (as in the generalised clock: Smith, *Sequentiality and
/// Prefetching in Database Systems*, 1978).
const WARMTH: u8 = WARMER | 32;
const WARMER: u8 = 16;
/// How often the hand may pass an entry by that is not used any more: for its last use, its warmth, and when it goes.
pub const PASSED_MAX: usize = 5;

/// What snapshots want of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    /// There are none.
    #[default]
    Off,
    /// All rows.
    AllRows,
    /// The rows changed since the last one.
    Changes,
}

impl Tracking {
    /// What snapshots by this backend want.
    pub fn of(backend: Option<&dyn StateBackend>) -> Self {
        match backend {
            None => Tracking::Off,
            Some(backend) if backend.wants_changes() => Tracking::Changes,
            Some(_) => Tracking::AllRows,
        }
    }
}

/// The epoch that a table is in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epochs {
    tracking: Tracking,
    /// What a write sets in a mark.
    written: u8,
    /// A row is frozen if its mark differs from `flip` in these bits; none while no snapshot is being taken.
    mask: u8,
    flip: u8,
}

impl Epochs {
    /// The first epoch.
    pub fn new(tracking: Tracking) -> Self {
        let written = if tracking == Tracking::Changes { EVEN | TOUCHED } else { 0 };
        Epochs { tracking, written, mask: 0, flip: 0 }
    }

    /// What snapshots want.
    pub fn tracking(&self) -> Tracking {
        self.tracking
    }

    /// Whether anything is tracked.
    #[inline(always)]
    pub fn is_tracked(&self) -> bool {
        self.tracking != Tracking::Off
    }

    /// Whether snapshots take changes, so that rows that are gone have to be told.
    #[inline]
    pub fn wants_changes(&self) -> bool {
        self.tracking == Tracking::Changes
    }

    /// The mark of a row that is made now.
    #[inline(always)]
    pub fn fresh(&self) -> u8 {
        self.written | self.flip
    }

    /// The mark of a row that the backend has as it is.
    pub fn stored(&self) -> u8 {
        if self.wants_changes() { STORED | TOUCHED } else { self.flip }
    }

    /// Whether a row is to be copied out before it is written.
    #[inline(always)]
    pub fn is_frozen(&self, mark: u8) -> bool {
        (mark ^ self.flip) & self.mask != 0
    }

    /// A row is about to be written. Whether it is to be copied out first.
    #[inline(always)]
    #[must_use]
    pub fn write(&self, mark: &mut u8) -> bool {
        let frozen = self.is_frozen(*mark);
        if frozen {
            self.copied(mark);
        }
        *mark |= self.written;
        frozen
    }

    /// A row is written that is not frozen.
    #[inline(always)]
    pub fn dirty(&self, mark: &mut u8) {
        *mark |= self.written;
    }

    /// The mark for the place of a row that was never used.
    pub fn unused(&self) -> u8 {
        self.flip
    }

    /// A frozen row was copied out.
    #[inline]
    pub fn copied(&self, mark: &mut u8) {
        *mark = match self.tracking {
            Tracking::Changes => *mark & !self.mask | STORED,
            _ => *mark & !self.mask | self.flip,
        };
    }

    /// The backend was told, or will be with what is frozen, that a row is gone.
    pub fn told_gone(&self, mark: &mut u8) {
        self.copied(mark);
        *mark &= !STORED;
    }

    /// The mark for the place of a row that is no more and of which nothing has to be told.
    pub fn blank(&self, mark: &mut u8) {
        *mark = if self.wants_changes() { 0 } else { *mark & EVEN };
    }

    /// Whether the backend may have a row, which it has to be told is gone when it is.
    #[inline]
    pub fn is_stored(&self, mark: u8) -> bool {
        mark & STORED != 0
    }

    /// Whether the backend has the row as it is, with nothing frozen.
    pub fn is_clean(&self, mark: u8) -> bool {
        mark & (EVEN | ODD) == 0
    }

    /// A row was read.
    #[inline]
    pub fn touch(&self, mark: &mut u8) {
        *mark |= TOUCHED;
    }

    /// That a row was used does not count: it has only just come.
    pub fn untouch(&self, mark: &mut u8) {
        *mark &= !TOUCHED;
    }

    /// The hand of the clock passes by; whether the row is to stay.
    pub fn pass(&self, mark: &mut u8) -> bool {
        if *mark & TOUCHED != 0 {
            let warmer = if *mark & WARMTH == WARMTH { 0 } else { WARMER };
            *mark = (*mark & !TOUCHED) + warmer;
            return true;
        }
        if *mark & WARMTH == 0 {
            return false;
        }
        *mark -= WARMER;
        true
    }

    /// A barrier: dirty rows become frozen.
    pub fn switch(&mut self) {
        debug_assert!(self.mask == 0, "the rows of one snapshot are copied before the next begins");
        match self.tracking {
            Tracking::Off => {}
            Tracking::AllRows => {
                self.flip ^= EVEN;
                self.mask = EVEN;
            }
            Tracking::Changes => {
                self.mask = self.written & (EVEN | ODD);
                self.written ^= EVEN | ODD;
            }
        }
    }

    /// No row is frozen any more.
    pub fn all_copied(&mut self) {
        self.mask = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_changes_only_dirty_rows_are_frozen_and_a_frozen_one_is_copied_once() {
        let mut epochs = Epochs::new(Tracking::Changes);
        let (mut old, mut new) = (epochs.stored(), epochs.fresh());
        for _ in 0..5 {
            epochs.switch();
            assert!(!epochs.is_frozen(old) && epochs.is_frozen(new));
            assert!(!epochs.write(&mut old));
            assert!(epochs.write(&mut new));
            assert!(!epochs.write(&mut new), "it was copied the first time");
            assert!(!epochs.is_clean(old) && !epochs.is_clean(new) && epochs.is_stored(new));
            epochs.all_copied();
            epochs.switch();
            assert!(epochs.is_frozen(old) && epochs.is_frozen(new));
            epochs.copied(&mut old);
            epochs.told_gone(&mut new);
            epochs.all_copied();
            assert!(epochs.is_clean(old) && epochs.is_stored(old) && !epochs.is_stored(new));
            new = epochs.fresh();
        }
    }

    #[test]
    fn what_was_used_often_outlasts_what_was_used_once() {
        let epochs = Epochs::new(Tracking::Changes);
        let (mut often, mut once, mut just_come) = (epochs.fresh(), epochs.fresh(), epochs.fresh());
        epochs.untouch(&mut just_come);
        assert!(!epochs.pass(&mut just_come));
        for _ in 0..5 {
            assert!(epochs.pass(&mut often));
            epochs.touch(&mut often);
        }
        assert!(epochs.pass(&mut once) && epochs.pass(&mut once) && !epochs.pass(&mut once));
        let stays = (0..10).take_while(|_| epochs.pass(&mut often)).count();
        assert_eq!(stays, 4, "once for the last use, and three for its warmth");
        assert!(!epochs.is_clean(often), "nothing else of the mark has changed");
    }

    #[test]
    fn with_all_rows_each_is_frozen_once_an_epoch() {
        let mut epochs = Epochs::new(Tracking::AllRows);
        let (mut a, mut b) = (epochs.stored(), epochs.fresh());
        for _ in 0..5 {
            assert!(!epochs.write(&mut a));
            epochs.switch();
            let mut made = epochs.fresh();
            assert!(epochs.is_frozen(a) && epochs.is_frozen(b) && !epochs.is_frozen(made));
            assert!(epochs.write(&mut a));
            assert!(!epochs.write(&mut a) && !epochs.write(&mut made));
            epochs.copied(&mut b);
            assert!(!epochs.is_frozen(b));
            epochs.all_copied();
            b = made;
        }
    }

    #[test]
    fn without_snapshots_no_mark_is_ever_set() {
        let mut epochs = Epochs::new(Tracking::Off);
        let mut mark = epochs.fresh();
        epochs.switch();
        assert!(!epochs.write(&mut mark));
        assert_eq!(mark, 0);
    }
}
