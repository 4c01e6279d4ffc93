//! A worker process: the executors that it starts for jobs, and what they need of it.
//!
//! * [`run`](run()): a whole worker process, as its configuration describes it ([`WorkerProcess`])
//! * [`service`]: the loop; orders in, reports out; [`machine`]: what it decides, without processes, sockets
//!   and clock
//! * [`child`]: the process of an executor, [`output`] what it writes, [`limits`] the memory it may take
//! * [`program_cache`]: the programs on disk; [`clients`]: programs that are run to submit their jobs
//! * [`control_socket`], [`links`]: the executors at the other end; [`data_port`]: connections between
//!   executors of the cluster
//! * `metrics_port`: where Prometheus reads the numbers, `prometheus` what it reads
//! * [`statistics`]: the numbers of a heartbeat; [`logs`]: log files as others read them; [`rotate`]: log
//!   files that stay small, [`old_logs`]: those that go
//!
//! Who may call it: `flott worker`; log files also the other processes. What must never happen here: user
//! code, a record, a decision about a job, an executor that outlives the worker. Everything but the
//! statistics, the log files and the output of executors lives on one thread, and nothing on it waits for a
//! disk or for an executor.

pub mod child;
pub mod clients;
pub mod control_socket;
pub mod data_port;
mod event;
pub mod limits;
pub mod links;
pub mod logs;
pub mod machine;
mod metrics_port;
pub mod old_logs;
pub mod output;
mod process;
pub mod program_cache;
mod prometheus;
pub mod rotate;
pub mod service;
pub mod statistics;

pub use process::{WorkerProcess, run};
pub use service::{Options, Supervisor};
