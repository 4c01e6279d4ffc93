//! Remembers what becomes of records of the slices seen lately.

use crate::window::slices::Slice;

/// Slices remembered; a power of two. Records out of order change between neighbouring slices all the time.
pub(super) const REMEMBERED: usize = 32;

/// What becomes of the records of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are added to a table.
    Open { table: u32 },
    /// Some windows with the slice have fired; `last_window_end` is that of the last window with it.
    Behind { last_window_end: i64 },
    /// All windows with the slice are over.
    TooLate,
    /// No window holds the slice.
    Gap,
}

/// A slice and the fate of its records; stays true until the clock moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Tells it from its neighbours.
    number: u8,
    start: i64,
    pub(super) end: i64,
    pub(super) fate: Fate,
}

impl Place {
    /// Contains no time.
    pub(super) fn nowhere() -> Self {
        Place { number: 0, start: 0, end: 0, fate: Fate::Gap }
    }

    pub(super) fn open(slice: &Slice, table: u32) -> Self {
        Self::of(slice, Fate::Open { table })
    }

    pub(super) fn behind(slice: &Slice, last_window_end: i64) -> Self {
        Self::of(slice, Fate::Behind { last_window_end })
    }

    pub(super) fn too_late(slice: &Slice) -> Self {
        Self::of(slice, Fate::TooLate)
    }

    pub(super) fn gap(slice: &Slice) -> Self {
        Self::of(slice, Fate::Gap)
    }

    fn of(slice: &Slice, fate: Fate) -> Self {
        Place { number: number_of(slice) as u8, start: slice.start, end: slice.end, fate }
    }

    #[inline]
    pub(super) fn contains(&self, time: i64) -> bool {
        self.start <= time && time < self.end
    }

    /// Below [`REMEMBERED`], and different for neighbouring slices.
    #[inline]
    pub(super) fn number(&self) -> usize {
        usize::from(self.number)
    }
}

#[inline]
fn number_of(slice: &Slice) -> usize {
    slice.number as usize % REMEMBERED
}

/// The places of neighbouring slices.
pub(super) struct Places([Place; REMEMBERED]);

impl Default for Places {
    fn default() -> Self {
        Places([Place::nowhere(); REMEMBERED])
    }
}

impl Places {
    #[inline]
    pub(super) fn get(&self, slice: &Slice) -> Option<Place> {
        let place = self.0[number_of(slice)];
        (place.start == slice.start && place.end == slice.end).then_some(place)
    }

    #[inline]
    pub(super) fn put(&mut self, slice: &Slice, place: Place) {
        self.0[number_of(slice)] = place;
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
