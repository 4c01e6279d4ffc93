//! What a task and its operators know about where they run.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use flott_schema::graph::ExecutionMode;
use flott_schema::key_group::KeyGroupRange;

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

/// Whether the outputs of a task have room, and who to wake when they have again.
#[derive(Default)]
pub struct Congestion {
    blocked: AtomicUsize,
    waker: AtomicWaker,
}

impl Congestion {
    /// One more output is out of credit.
    pub fn block(&self) {
        self.blocked.fetch_add(1, Ordering::AcqRel);
    }

    /// One output has credit again; wakes the task when it was the last one blocked.
    pub fn unblock(&self) {
        if self.blocked.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.waker.wake();
        }
    }

    /// Whether any output is out of credit.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.blocked.load(Ordering::Acquire) > 0
    }

    /// Like [`Self::is_congested`], and has `waker` woken once it is over.
    pub fn register(&self, waker: &Waker) -> bool {
        if !self.is_congested() {
            return false;
        }
        self.waker.register(waker);
        self.is_congested()
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
    /// The task's outputs.
    pub congestion: Arc<Congestion>,
    /// Watermark alignment groups of the job.
    pub alignment: Arc<AlignmentRegistry>,
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
            job_name: job_name.into(),
            vertex_name: vertex_name.into(),
            subtask,
            parallelism,
            max_parallelism,
            attempt: 0,
            settings,
            congestion: Arc::default(),
            alignment: Arc::default(),
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
}

impl OperatorContext {
    /// A context with fresh counters.
    pub fn new(task: Rc<TaskContext>, name: &str, uid: &str) -> Self {
        OperatorContext { task, name: name.into(), uid: uid.into(), metrics: Arc::default() }
    }
}
