//! Why a firing has stopped, and when it goes on.

use crate::operator::Collector;
use crate::stage::Flow;

/// What an operator that has answered [`Flow::Again`] waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pause {
    /// Nothing.
    #[default]
    Not,
    /// Room in the outputs; the task is woken when there is.
    ForRoom,
    /// Its next turn: others were to have the thread in between.
    ForTurn,
}

impl Pause {
    /// After a call that answered `flow`.
    pub(super) fn after<O: 'static>(flow: Flow, out: &Collector<O>) -> Self {
        match flow {
            Flow::Done => Pause::Not,
            Flow::Again if out.is_congested() => Pause::ForRoom,
            Flow::Again => Pause::ForTurn,
        }
    }

    /// The operator's next deadline, if it is `due_ms` without a pause: a deadline that has passed would keep a task
    /// busy that waits for room.
    pub(super) fn deadline_ms(self, due_ms: i64) -> i64 {
        match self {
            Pause::Not => due_ms,
            Pause::ForRoom => i64::MAX,
            Pause::ForTurn => i64::MIN,
        }
    }
}
