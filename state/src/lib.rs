//! State of tasks: where it is kept, how it gets into snapshots, and how it comes back.
//!
//! What lives here: `options`, the settings; `service`, what the tasks of an executor share; `task` and
//! `operator`, the state of a task and of each of its operators; `snapshot`, one snapshot of a task on its
//! way; `pipeline` and `layer`, the way of rows from tables to files; `memory`, how it is divided; `keyed`, the
//! rows of an operator by either of the two backends, `heap` and [`rocks`]; `evolution`, values whose type has
//! changed; `compatibility`, what becomes of a snapshot in a program; [`rows`], rows as bytes
//! and the file of rows that both read; `manifests`, waiting for the manifest that tasks start from; `restored`, what a task takes from it; `source`, rows of a
//! snapshot in whatever form; `scan`, rows of a table in their order; `show`, rows for people; `files`, to and from the storage of snapshots; `place` and `pool`, working
//! files and threads; `checks`, files that are read to the end while a task works with them.
//!
//! Who may call it: the worker, which opens a [`TaskBackend`] for each task and gives it to the operators as
//! `flott_dataflow::snapshot::TaskState`. What must never happen here: work on a task's thread that grows
//! with the state; a decision about which snapshots are taken or kept; a file of an earlier version that is
//! not read.

mod checks;
mod compatibility;
mod ending;
mod evolution;
mod files;
mod heap;
mod keyed;
mod layer;
mod manifests;
mod memory;
mod operator;
mod options;
mod pipeline;
mod place;
mod pool;
mod restored;
pub mod rocks;
pub mod rows;
mod scan;
mod service;
mod show;
mod snapshot;
mod source;
mod task;
#[cfg(test)]
mod tests;

pub use compatibility::{Fate, OperatorPlan, RestorePlan, StatePlan};
pub use options::{Backend, StateOptions, TaskIdentity};
pub use restored::{check_operators, enumerator_state};
pub use service::StateService;
pub use show::each_row;
pub use snapshot::{ChannelFrames, Done, SnapshotTarget, TaskExtras};
pub use task::{FetchedTask, TaskBackend};
