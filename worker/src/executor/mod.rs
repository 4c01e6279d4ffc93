//! What runs inside the process of an executor: the job's own program, once it has come to the execution that
//! is meant.
//!
//! * [`environment`]: how a program learns that it is an executor
//! * [`run`]: becomes the executor; never returns
//! * inside: `session` speaks with the worker, `incoming` takes connections that the worker hands over
//!
//! Who may call it: the facade, when a program executes a job. What must never happen here: an executor that
//! outlives its worker, user code on the thread that speaks with the worker.

pub mod environment;
pub mod incoming;
mod run;
mod session;

pub use environment::{Environment, RuntimeOptions, StorageKeys, environment};
pub use run::run;
