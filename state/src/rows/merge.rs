//! Several sorted runs as one.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use flott_schema::Result;

use super::buffer::{RowRef, Run};

/// The next row of a run. Runs are numbered by age; of one key, the row of the youngest run comes first.
struct Cursor<'a> {
    run: &'a Run,
    age: usize,
    index: usize,
}

impl Cursor<'_> {
    fn row(&self) -> RowRef<'_> {
        self.run.row(self.index)
    }
}

impl Ord for Cursor<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = || self.row().key.cmp(other.row().key);
        self.run
            .prefix(self.index)
            .cmp(&other.run.prefix(other.index))
            .then_with(by_key)
            .then_with(|| other.age.cmp(&self.age))
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

/// How many rows of a run ahead the processor is told what will be read.
const AHEAD: usize = 16;

/// Gives the rows of all runs in order, one for each key: that of the last run that has one.
pub(crate) fn merge<'a>(
    runs: impl IntoIterator<Item = &'a Run>,
    each: &mut dyn FnMut(RowRef<'_>) -> Result<()>,
) -> Result<()> {
    let runs: Vec<&Run> = runs.into_iter().filter(|run| run.len() > 0).collect();
    if let [run] = runs[..] {
        return (0..run.len()).try_for_each(|index| {
            run.prefetch(index + AHEAD);
            each(run.row(index))
        });
    }
    if let [older, younger] = runs[..] {
        return merge_two(older, younger, each);
    }
    let cursors = runs.into_iter().enumerate().map(|(age, run)| Reverse(Cursor { run, age, index: 0 }));
    let mut heap: BinaryHeap<Reverse<Cursor<'a>>> = cursors.collect();
    let mut last: Option<(&Run, usize)> = None;
    while let Some(mut top) = heap.peek_mut() {
        let Cursor { run, index, .. } = top.0;
        let is_older = last.is_some_and(|(other, at)| {
            other.prefix(at) == run.prefix(index) && other.row(at).key == run.row(index).key
        });
        if !is_older {
            each(run.row(index))?;
            last = Some((run, index));
        }
        run.prefetch(index + AHEAD / 2);
        if index + 1 < run.len() {
            top.0.index = index + 1;
        } else {
            std::collections::binary_heap::PeekMut::pop(top);
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
            older.prefetch(old + AHEAD);
            each(older.row(old))?;
            old += 1;
        } else {
            younger.prefetch(young + AHEAD);
            each(younger.row(young))?;
            young += 1;
            old += usize::from(order == Ordering::Equal);
        }
    }
    (old..older.len()).try_for_each(|index| each(older.row(index)))?;
    (young..younger.len()).try_for_each(|index| each(younger.row(index)))
}
