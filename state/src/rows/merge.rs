//! Several sorted runs as one.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use flott_schema::Result;

use super::buffer::{RowRef, Run};

/// The next row of a run. Runs are numbered by age; of one key, the row of the youngest run comes first.
struct Cursor<'a> {
    /// How the row sorts, mostly.
    prefix: u128,
    run: &'a Run,
    age: usize,
    index: usize,
}

impl Cursor<'_> {
    fn row(&self) -> RowRef<'_> {
        self.run.row(self.index)
    }

    /// On to the next row; whether there is one.
    fn advance(&mut self) -> bool {
        self.index += 1;
        let is_there = self.index < self.run.len();
        if is_there {
            self.prefix = self.run.prefix(self.index);
        }
        is_there
    }
}

impl Ord for Cursor<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = || self.row().key.cmp(other.row().key);
        self.prefix.cmp(&other.prefix).then_with(by_key).then_with(|| other.age.cmp(&self.age))
    }
}

impl PartialOrd for Cursor<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Cursor<'_> {}

/// Gives the rows of all runs in order, one for each key: that of the last run that has one.
pub(crate) fn merge<'a>(
    runs: impl IntoIterator<Item = &'a Run>,
    each: &mut dyn FnMut(RowRef<'_>) -> Result<()>,
) -> Result<()> {
    let runs: Vec<&Run> = runs.into_iter().filter(|run| run.len() > 0).collect();
    if let [run] = runs[..] {
        return (0..run.len()).try_for_each(|index| each(run.row(index)));
    }
    if let [older, younger] = runs[..] {
        return merge_two(older, younger, each);
    }
    let first = |(age, run): (usize, &'a Run)| Cursor { prefix: run.prefix(0), run, age, index: 0 };
    let mut heap: BinaryHeap<Reverse<Cursor<'a>>> =
        runs.into_iter().enumerate().map(first).map(Reverse).collect();
    let mut last: Option<(&Run, usize)> = None;
    while let Some(mut top) = heap.peek_mut() {
        let Cursor { prefix, run, index, .. } = top.0;
        let is_older = last
            .is_some_and(|(other, at)| other.prefix(at) == prefix && other.row(at).key == run.row(index).key);
        if !is_older {
            each(run.row(index))?;
            last = Some((run, index));
        }
        if !top.0.advance() {
            PeekMut::pop(top);
        }
    }
    Ok(())
}

/// The same for two, as most often.
fn merge_two(older: &Run, younger: &Run, each: &mut dyn FnMut(RowRef<'_>) -> Result<()>) -> Result<()> {
    let (mut old, mut young) = (0, 0);
    while old < older.len() && young < younger.len() {
        let by_key = || older.row(old).key.cmp(younger.row(young).key);
        let order = older.prefix(old).cmp(&younger.prefix(young)).then_with(by_key);
        if order == Ordering::Less {
            each(older.row(old))?;
            old += 1;
        } else {
            each(younger.row(young))?;
            young += 1;
            old += usize::from(order == Ordering::Equal);
        }
    }
    (old..older.len()).try_for_each(|index| each(older.row(index)))?;
    (young..younger.len()).try_for_each(|index| each(younger.row(index)))
}
