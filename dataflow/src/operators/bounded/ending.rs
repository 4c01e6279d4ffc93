//! The end of a bounded input.

use flott_schema::{Error, Result};

use crate::element::{MAX_WATERMARK, Signal};
use crate::operator::Collector;
use crate::stage::Flow;

/// Records an operator handles before it lets others have the thread.
const QUANTUM: usize = 64 * 1024;

/// Why an operator that gives its results at the end has nothing to hand in for a snapshot.
#[cold]
pub fn holds_input() -> Error {
    Error::user(
        "it holds its whole input until that ends, which no snapshot can hold; run the job in batch mode \
         (execution.runtime-mode: BATCH), or without checkpoints",
    )
}

/// How much one call may still do.
pub struct Pace {
    left: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { left: QUANTUM }
    }
}

impl Pace {
    /// So many records were handled; `true` when the call should end.
    #[inline]
    pub fn is_spent(&mut self, records: usize) -> bool {
        self.left = self.left.saturating_sub(records);
        self.left == 0
    }

    /// So many records were emitted; `true` when the call should end.
    #[inline]
    pub fn must_pause<T: 'static>(&mut self, records: usize, out: &Collector<T>) -> bool {
        self.is_spent(records) || out.is_congested()
    }
}

/// Takes an operator that emits at the end of its input through the signals. Watermarks and idleness stop here,
/// because records with any timestamp are still to come; the final watermark goes on behind the results.
#[derive(Default)]
pub struct Ending {
    emitted: bool,
    watermark_passed: bool,
    /// The last call stopped to let others have the thread, not for want of room.
    is_paused: bool,
}

impl Ending {
    /// Handles a signal; `emit` is called at the end of the input until it answers [`Flow::Done`].
    pub fn signal<T: 'static>(
        &mut self,
        signal: Signal,
        out: &mut Collector<T>,
        emit: impl FnOnce(&mut Collector<T>, &mut Pace) -> Result<Flow>,
    ) -> Result<Flow> {
        match signal {
            Signal::Watermark(_) | Signal::Idle(_) => return Ok(Flow::Done),
            Signal::Barrier(_) => return out.signal(signal),
            Signal::EndOfInput => {}
        }
        self.is_paused = false;
        if !self.emitted {
            if emit(out, &mut Pace::default())? == Flow::Again {
                self.is_paused = !out.is_congested();
                return Ok(Flow::Again);
            }
            self.emitted = true;
        }
        if !self.watermark_passed {
            if out.signal(Signal::Watermark(MAX_WATERMARK))? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.watermark_passed = true;
        }
        out.signal(signal)
    }

    /// The operator's next deadline: at once while it is paused, because nothing else would wake the task.
    pub fn next_deadline_ms(&self) -> i64 {
        if self.is_paused { i64::MIN } else { i64::MAX }
    }
}
