//! What a task and its operators know about where they run.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use flott_schema::graph::ExecutionMode;
use flott_schema::ids::{JobId, OperatorId};
use flott_schema::key_group::KeyGroupRange;

use crate::snapshot::{Snapshots, StateBackend};
use crate::time::alignment::AlignmentRegistry;

/// Settings of a job that its tasks read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Records a full batch holds.
    pub batch_size: usize,
    /// How long a partial batch may wait: 0 sends at once, -1 waits until it is full or the task goes idle.
    pub buffer_timeout_ms: i64,
    /// Interval of periodic watermarks under load.
    pub watermark_interval_ms: i64,
    /// Streaming or batch.
    pub mode: ExecutionMode,
    /// Where operators may keep temporary files.
    pub scratch: PathBuf,
    /// Bytes an operator may keep in memory before it uses `scratch`.
    pub operator_memory_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            batch_size: 1024,
            buffer_timeout_ms: 100,
            watermark_interval_ms: 200,
            mode: ExecutionMode::Streaming,
            scratch: std::env::temp_dir(),
            operator_memory_bytes: 64 << 20,
        }
    }
}

/// Whether a task may go on, and who to wake when it may again.
///
/// Two things are told apart. *Outputs* out of credit hold back everything: records and the signals behind them. A
/// blocked *input* holds back the next element only: an operator inside the task (a sink waiting for an outside
/// system, calls in flight, a source ahead of its alignment group) takes no more for now, but what it emits passes.
#[derive(Default)]
pub struct Congestion {
    outputs: AtomicUsize,
    input: AtomicUsize,
    waker: AtomicWaker,
}

impl Congestion {
    /// One more output is out of credit.
    pub fn block(&self) {
        self.outputs.fetch_add(1, Ordering::AcqRel);
    }

    /// One output has credit again; wakes the task when it was the last one blocked.
    pub fn unblock(&self) {
        self.release(&self.outputs);
    }

    /// Whether any output is out of credit.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.outputs.load(Ordering::Acquire) > 0
    }

    /// One more operator takes no further input; each call is to be balanced by one of [`Self::unblock_input`].
    pub fn block_input(&self) {
        self.input.fetch_add(1, Ordering::AcqRel);
    }

    /// One operator takes input again; wakes the task when it was the last one blocking.
    pub fn unblock_input(&self) {
        self.release(&self.input);
    }

    /// Whether the task must take no further element from its input: an output is out of credit, or an operator
    /// takes no more.
    #[inline]
    pub fn is_input_blocked(&self) -> bool {
        self.is_congested() || self.input.load(Ordering::Acquire) > 0
    }

    /// Like [`Self::is_input_blocked`], and has `waker` woken when the outputs have room again, and when the
    /// operators take input again; one may be over while the other goes on.
    pub fn register(&self, waker: &Waker) -> bool {
        if !self.is_input_blocked() {
            return false;
        }
        self.waker.register(waker);
        self.is_input_blocked()
    }

    /// Has `waker` woken at the next return of credit, whether or not anything is blocked now.
    pub fn watch(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn release(&self, blocked: &AtomicUsize) {
        let before = blocked.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "unblocked more often than blocked");
        if before == 1 {
            self.waker.wake();
        }
    }
}

/// Counters of one operator in one task; updated once per batch.
#[derive(Debug, Default)]
pub struct OperatorMetrics {
    /// Records read.
    pub records_in: AtomicU64,
    /// Records emitted, without side outputs.
    pub records_out: AtomicU64,
    /// Records too late for every window.
    pub late_records_dropped: AtomicU64,
    /// Records that could not be decoded and were skipped.
    pub undecodable_records: AtomicU64,
    /// The last watermark seen; `i64::MIN` before the first.
    pub watermark_ms: AtomicI64Min,
}

/// An `AtomicI64` that starts at `i64::MIN`.
#[derive(Debug)]
pub struct AtomicI64Min(pub std::sync::atomic::AtomicI64);

impl Default for AtomicI64Min {
    fn default() -> Self {
        AtomicI64Min(std::sync::atomic::AtomicI64::new(i64::MIN))
    }
}

/// Adds to a counter.
#[inline]
pub fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// Where a task runs, and what it shares with its operators.
pub struct TaskContext {
    /// The job; nil where there is none, as under a test's control.
    pub job: JobId,
    /// Job name.
    pub job_name: String,
    /// Vertex name.
    pub vertex_name: String,
    /// Parallel index, from 0.
    pub subtask: u32,
    /// Number of tasks of the vertex.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Counts deployments of this task, from 0.
    pub attempt: u32,
    /// Settings of the job.
    pub settings: Settings,
    /// Whether the task may go on.
    pub congestion: Arc<Congestion>,
    /// Watermark alignment groups of the job.
    pub alignment: Arc<AlignmentRegistry>,
    /// Records sent to other tasks, over all edges.
    pub records_sent: Arc<AtomicU64>,
    /// State, and who acts when a snapshot is complete.
    pub snapshots: Snapshots,
    now_ms: Cell<i64>,
}

impl TaskContext {
    /// A context for subtask `subtask` of `parallelism`.
    pub fn new(
        job_name: impl Into<String>,
        vertex_name: impl Into<String>,
        subtask: u32,
        parallelism: u32,
        max_parallelism: u32,
        settings: Settings,
    ) -> Self {
        TaskContext {
            job: JobId(0),
            job_name: job_name.into(),
            vertex_name: vertex_name.into(),
            subtask,
            parallelism,
            max_parallelism,
            attempt: 0,
            settings,
            congestion: Arc::default(),
            alignment: Arc::default(),
            records_sent: Arc::default(),
            snapshots: Snapshots::default(),
            now_ms: Cell::new(0),
        }
    }

    /// Processing time, epoch milliseconds: read from the clock by whoever runs the task, once per batch or so.
    #[inline]
    pub fn now_ms(&self) -> i64 {
        self.now_ms.get()
    }

    /// Sets processing time; only whoever runs the task calls this.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.now_ms.set(now_ms);
    }

    /// The key groups this task owns.
    pub fn key_groups(&self) -> KeyGroupRange {
        KeyGroupRange::of_subtask(self.subtask, self.max_parallelism, self.parallelism)
    }

    /// Whether results are final and given once.
    pub fn is_batch(&self) -> bool {
        self.settings.mode == ExecutionMode::Batch
    }
}

/// What one operator knows about itself.
#[derive(Clone)]
pub struct OperatorContext {
    /// The task.
    pub task: Rc<TaskContext>,
    /// Name for people.
    pub name: Arc<str>,
    /// Unique in the job.
    pub uid: Arc<str>,
    /// Its counters.
    pub metrics: Arc<OperatorMetrics>,
    /// Its state in snapshots; none if the job takes none.
    pub state: Option<Rc<dyn StateBackend>>,
}

impl OperatorContext {
    /// A context with fresh counters.
    pub fn new(task: Rc<TaskContext>, name: &str, uid: &str) -> Self {
        let state = task.snapshots.state().map(|state| state.operator(OperatorId::of_uid(uid), uid));
        OperatorContext { task, name: name.into(), uid: uid.into(), metrics: Arc::default(), state }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_blocked_input_does_not_congest_the_outputs() {
        let congestion = Congestion::default();
        congestion.block_input();
        assert!(congestion.is_input_blocked() && !congestion.is_congested());
        congestion.block();
        congestion.unblock_input();
        assert!(congestion.is_input_blocked() && congestion.is_congested());
        congestion.unblock();
        assert!(!congestion.is_input_blocked());
    }

    #[test]
    fn the_task_is_woken_by_the_last_unblock_of_either_kind() {
        let (congestion, wakes) = (Congestion::default(), Arc::new(Wakes::default()));
        let waker = Waker::from(wakes.clone());
        assert!(!congestion.register(&waker));
        congestion.block();
        congestion.block();
        congestion.block_input();
        assert!(congestion.register(&waker));
        congestion.unblock();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        congestion.unblock();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(congestion.register(&waker));
        congestion.unblock_input();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        assert!(!congestion.register(&waker));
    }
}
