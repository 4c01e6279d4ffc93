//! What the REST API reads from and talks to.

use std::sync::Arc;

use crate::live::{AskWorkers, ReadStats};
use crate::programs::Programs;
use crate::service::Handle;

/// What a [`super::Server`] reads from and talks to. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The service of jobs.
    pub handle: Handle,
    /// Statistics that came with heartbeats.
    pub stats: Arc<dyn ReadStats>,
    /// The way to ask workers.
    pub workers: Arc<dyn AskWorkers>,
    /// The store of programs; nothing: the cluster keeps none.
    pub programs: Option<Programs>,
    /// Ends the cluster's processes, for `DELETE /cluster`.
    pub stop_cluster: Arc<dyn Fn() + Send + Sync>,
    /// How many callers the control port has turned away, for metrics.
    pub callers_refused: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Services {
    /// Without a store of programs and a control port, and with an end of the cluster that is nobody's business.
    pub fn new(handle: Handle, stats: Arc<dyn ReadStats>, workers: Arc<dyn AskWorkers>) -> Self {
        Services {
            handle,
            stats,
            workers,
            programs: None,
            stop_cluster: Arc::new(|| ()),
            callers_refused: Arc::new(|| 0),
        }
    }
}
