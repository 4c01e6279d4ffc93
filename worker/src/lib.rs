//! The runtime of tasks.
//!
//! What lives here: slots (threads), subtask actors, the pump that drives a task, input gates and channels, spooled
//! results, split enumerators, snapshots, the exchange with other executors, the limit of open files, and the service that deploys and cancels on the
//! coordinator's orders. Who may call it: the `flott` binary and the embedded cluster. What must never happen here: a decision about a job (the coordinator's),
//! knowledge of particular operators (the program's). Who knows actix is listed in `tests/tidy.rs`.

pub mod channel;
pub mod clock;
pub mod enumerator;
pub mod exchange;
pub mod executor;
pub mod fd_passing;
pub mod frame;
pub mod gate;
mod leftovers;
mod links;
pub mod metrics;
pub mod open_files;
pub mod overtaking;
pub mod pace;
pub mod panics;
pub mod pump;
pub mod service;
pub mod session;
pub mod slot;
pub mod snapshots;
pub mod spool;
mod state;
pub mod subtask;
pub mod supervisor;
pub mod wiring;

pub use metrics::{JobMetrics, TaskMetrics};
pub use service::{Options, Worker, WorkerHandle};
