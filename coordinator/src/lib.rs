//! The control plane: which jobs there are, what state they are in, and in which slots their tasks run.
//!
//! What lives here: [`machine`], the job state machine (pure); [`scheduler`], the placement of subtasks in slots (pure);
//! [`journal`], where events are committed before they are applied; [`service`], the loop that owns the machine's state
//! and performs its effects; [`link`], the way to the workers; [`live`], numbers and answers of workers that are not
//! replicated; [`rpc`], the control port; [`programs`], the stored programs of jobs; [`rest`], the REST API, and
//! [`metrics`], what Prometheus reads; [`process`], which puts them together.
//! Who may call it: the `flott` binary and the embedded cluster, through a [`Handle`].
//! What must never happen here: user code, knowledge of operators, a record of a job.

pub mod checkpoints;
pub mod journal;
pub mod link;
pub mod live;
pub mod machine;
pub mod metrics;
pub mod process;
pub mod programs;
pub mod rest;
pub mod rpc;
pub mod scheduler;
pub mod service;

pub use journal::{Journal, LeaderAddresses, MemoryJournal, Role};
pub use link::{InMemoryLink, LinkError, WorkerLink};
pub use machine::{JobFailure, JobOutcome, JobRecord, JobState, TaskRecord};
pub use service::{Change, Coordinator, CoordinatorError, Handle, JobStateChange, JobStateChanges, Options};
