//! The records of a window, as its function gets them.

use std::collections::VecDeque;
use std::fmt;

/// The records of a window, in the order they came in; of a sliding window, slice by slice.
///
/// Going over them by reference is always free. Taking them (`into_vec`, `for record in elements`) is free where the
/// window needs them no longer, and copies them where it does.
pub struct Elements<'a, T>(Kind<'a, T>);

/// The records of the slices of a window, each with the end of its slice.
pub(crate) type ListPanes<T> = VecDeque<(i64, Vec<T>)>;

enum Kind<'a, T> {
    One(T),
    Owned(Vec<T>),
    Borrowed(&'a [T]),
    Panes(&'a ListPanes<T>),
}

impl<'a, T> Elements<'a, T> {
    /// A single record.
    pub fn one(record: T) -> Self {
        Elements(Kind::One(record))
    }

    /// Records that nobody else needs.
    pub fn owned(records: Vec<T>) -> Self {
        Elements(Kind::Owned(records))
    }

    /// Records that stay where they are.
    pub fn borrowed(records: &'a [T]) -> Self {
        Elements(Kind::Borrowed(records))
    }

    pub(super) fn of_panes(panes: &'a ListPanes<T>) -> Self {
        Elements(Kind::Panes(panes))
    }

    /// The records.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (single, panes): (&[T], Option<&ListPanes<T>>) = match &self.0 {
            Kind::One(record) => (std::slice::from_ref(record), None),
            Kind::Owned(records) => (records, None),
            Kind::Borrowed(records) => (records, None),
            Kind::Panes(panes) => (&[], Some(panes)),
        };
        single.iter().chain(panes.into_iter().flatten().flat_map(|(_, records)| records))
    }

    /// The first record.
    pub fn first(&self) -> Option<&T> {
        self.iter().next()
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::One(_) => 1,
            Kind::Owned(records) => records.len(),
            Kind::Borrowed(records) => records.len(),
            Kind::Panes(panes) => panes.iter().map(|(_, records)| records.len()).sum(),
        }
    }

    /// Whether there are none; happens where an evictor has removed all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records as a vector.
    pub fn into_vec(self) -> Vec<T>
    where
        T: Clone,
    {
        match self.0 {
            Kind::One(record) => vec![record],
            Kind::Owned(records) => records,
            Kind::Borrowed(records) => records.to_vec(),
            Kind::Panes(_) => self.iter().cloned().collect(),
        }
    }

    /// The result of an incremental aggregation: the first record.
    pub fn into_first(self) -> Option<T>
    where
        T: Clone,
    {
        match self.0 {
            Kind::One(record) => Some(record),
            Kind::Owned(records) => records.into_iter().next(),
            Kind::Borrowed(_) | Kind::Panes(_) => self.first().cloned(),
        }
    }
}

impl<T: Clone> IntoIterator for Elements<'_, T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for Elements<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_they_are_kept_the_same_records_are_seen() {
        let panes: ListPanes<i32> = [(10, vec![1, 2]), (20, vec![]), (30, vec![3])].into();
        let all =
            || [Elements::owned(vec![1, 2, 3]), Elements::borrowed(&[1, 2, 3]), Elements::of_panes(&panes)];
        for elements in all() {
            assert_eq!(elements.iter().copied().collect::<Vec<_>>(), [1, 2, 3]);
            assert_eq!((elements.len(), elements.first(), elements.is_empty()), (3, Some(&1), false));
            assert_eq!(format!("{elements:?}"), "[1, 2, 3]");
            assert_eq!(elements.into_vec(), [1, 2, 3]);
        }
        assert!(all().into_iter().all(|elements| elements.into_first() == Some(1)));
        assert_eq!(Elements::one(7).into_iter().collect::<Vec<_>>(), [7]);
        assert!(Elements::<i32>::borrowed(&[]).is_empty());
    }
}
