//! The job state machine: what is true about workers, slots, jobs and tasks, and what follows from an event.
//!
//! [`apply`] takes the state and an event and returns effects: things somebody has to do. Every replica of a coordinator
//! applies the same events in the same order and holds the same state; only the leader performs the effects.
//! Who may call it: [`crate::service`], and tests. What must never happen here: I/O, a clock (time stamps come inside
//! events), randomness, an async runtime, a map of random order. It imports `flott_schema` and the scheduler, nothing else.
//!
//! * [`event`]: the events and the effects
//! * [`state`]: [`ClusterState`], the whole of it
//! * [`slots`]: workers and who holds their slots
//! * [`job`], [`task`]: the records of a job and of a task, their states and time stamps; [`checkpoint`]: of its snapshots
//! * `restart`: when a failed job starts again; [`exception`]: what went wrong so far
//! * `returned`: what follows when a worker comes back; [`programs`]: the stored programs
//! * [`region`]: the parts of a graph that are placed at once
//! * `step`: dispatch of an event; `placement`: regions into slots; `lifecycle`: how tasks and jobs end; `failover`: which
//!   regions a failure takes back, and how they start again; `checkpointing`: how snapshots begin and end; `rescale`: another
//!   parallelism
//! * [`persist`]: the stored forms of events and of the state
//! * [`invariants`]: what holds after every event

pub mod checkpoint;
mod checkpointing;
pub mod event;
pub mod exception;
mod failover;
pub mod invariants;
pub mod job;
mod lifecycle;
pub mod persist;
mod placement;
pub mod programs;
pub mod region;
mod rescale;
mod restart;
mod returned;
pub mod slots;
pub mod state;
mod step;
pub mod task;

pub use checkpoint::{
    CheckpointOutcome, CheckpointRecord, CheckpointRequest, CheckpointStats, JobCheckpoints, Operation,
    OperationId, Purpose, Restored,
};
pub use event::{Effect, Event};
pub use exception::{CONCURRENT_FAILURES_MAX, ExceptionHistory, FailedTask, JobException};
pub use invariants::check_invariants;
pub use job::{JobFailure, JobOutcome, JobRecord, JobState, PendingRestart, SlotWait, VertexRecord};
pub use programs::StoredProgram;
pub use region::check_graph;
pub use state::{ClusterState, Ignored, Limits, Timer};
pub use step::apply;
pub use task::{StateTimes, TaskCounts, TaskRecord};

#[cfg(test)]
pub(crate) mod tests;
