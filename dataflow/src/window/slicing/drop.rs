//! Slices that nobody needs any more.

use flott_schema::Result;

use super::SlicingWindows;
use crate::batch::Record;
use crate::key::KeySelector;
use crate::operators::bounded::ending::Pace;
use crate::stage::Flow;
use crate::window::Window;
use crate::window::beyond::Scan;
use crate::window::logic::SlicedLogic;

impl<S, T, W, L> SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    /// Drops slices that no late record can need any more. If it stops half-way, what is left in the backend is dropped later, or after a restart.
    pub(super) fn drop_over(&mut self, pace: &mut Pace) -> Result<Flow> {
        loop {
            while let Some(scan) = &mut self.dropping {
                let count = self.rows.remove_page(scan)?;
                if scan.is_done() {
                    self.dropping = None;
                }
                if pace.is_spent(count) {
                    return Ok(Flow::Again);
                }
            }
            let Some(first) = self.past.first_entry() else { break };
            let end = *first.key();
            let last_window_end = self.layout.slice_of(end - 1).last_window_end;
            if last_window_end.is_some_and(|last| !self.late.is_over(last - 1, self.clock_ms)) {
                break;
            }
            let table = first.remove();
            let stored = self.tables.stored(table);
            if !stored.is_empty() {
                self.dropping = Some(Scan::of(stored.clone(), &end)?);
            }
            self.tables.remove(table, &mut self.rows);
        }
        self.rows.tell_gone()?;
        self.live_rows.tell_gone()?;
        let clocks = self.clocks();
        self.logic.expire(self.clock_ms.saturating_sub(self.late.lateness_ms), clocks)?;
        Ok(Flow::Done)
    }
}
