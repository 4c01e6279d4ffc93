//! A whole coordinator process: journal, service, control port, REST API and stored programs, put together.
//!
//! * [`CoordinatorProcess`]: what the configuration says; [`run`](run()): the process, until it is told to end
//! * inside: `directory` is where it keeps its files, `store` the programs as REST API and workers see them
//!
//! Who may call it: `flott coordinator`. What must never happen here: a decision about a job.

mod directory;
mod options;
mod run;
mod store;

pub use options::CoordinatorProcess;
pub use run::run;
