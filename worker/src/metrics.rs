//! Counters of tasks, and their sums for people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flott_dataflow::context::{AtomicI64Min, OperatorMetrics};
use flott_schema::graph::{JobGraph, OperatorSpec, Vertex};
use flott_schema::ids::{AttemptId, JobId};
use flott_schema::stats::{OperatorStats, TaskStats};

/// Adds to a counter.
#[inline]
pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

/// What passed through the channels of one task; counted once a batch.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes read from other executors.
    pub bytes_in: AtomicU64,
    /// Bytes sent to other executors.
    pub bytes_out: AtomicU64,
    /// Batches read.
    pub batches_in: AtomicU64,
    /// Batches sent.
    pub batches_out: AtomicU64,
}

/// Counters of one task.
pub struct TaskMetrics {
    /// The deployment.
    pub attempt: AttemptId,
    /// Its operators, upstream first.
    pub operators: Vec<(OperatorSpec, Arc<OperatorMetrics>)>,
    /// Records sent to other tasks, over all edges.
    pub records_sent: Arc<AtomicU64>,
    /// Batches and bytes over all channels.
    pub traffic: Arc<Traffic>,
    /// The combined watermark of the inputs; `i64::MIN` before the first.
    pub input_watermark_ms: AtomicI64Min,
    /// Time spent working, nanoseconds.
    pub busy_ns: AtomicU64,
    /// Time spent waiting for input, nanoseconds.
    pub idle_ns: AtomicU64,
    /// Time spent waiting for room in the outputs, nanoseconds.
    pub backpressured_ns: AtomicU64,
}

impl TaskMetrics {
    /// Counters at zero.
    pub fn new(
        attempt: AttemptId,
        operators: Vec<(OperatorSpec, Arc<OperatorMetrics>)>,
        records_sent: Arc<AtomicU64>,
        traffic: Arc<Traffic>,
    ) -> Self {
        TaskMetrics {
            attempt,
            operators,
            records_sent,
            traffic,
            input_watermark_ms: AtomicI64Min::default(),
            busy_ns: AtomicU64::new(0),
            idle_ns: AtomicU64::new(0),
            backpressured_ns: AtomicU64::new(0),
        }
    }

    /// Records the task has read; a source reads none.
    pub fn records_in(&self) -> u64 {
        self.operators.first().map_or(0, |(_, metrics)| metrics.records_in.load(Ordering::Relaxed))
    }

    /// Records the task has sent to other tasks; what its sinks wrote does not count.
    pub fn records_out(&self) -> u64 {
        self.records_sent.load(Ordering::Relaxed)
    }

    /// The counters as they are now, in the form that crosses processes.
    pub fn stats(&self, job: JobId) -> TaskStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ms = |counter: &AtomicU64| get(counter) / 1_000_000;
        let operators = self.operators.iter().map(|(spec, metrics)| OperatorStats {
            operator: Some(spec.id),
            records_in: get(&metrics.records_in),
            records_out: get(&metrics.records_out),
            late_records_dropped: get(&metrics.late_records_dropped),
            undecodable_records: get(&metrics.undecodable_records),
        });
        let watermark_ms = self.input_watermark_ms.0.load(Ordering::Relaxed);
        TaskStats {
            job,
            attempt: self.attempt,
            records_in: self.records_in(),
            records_out: self.records_out(),
            bytes_in: get(&self.traffic.bytes_in),
            bytes_out: get(&self.traffic.bytes_out),
            batches_in: get(&self.traffic.batches_in),
            batches_out: get(&self.traffic.batches_out),
            busy_ms: ms(&self.busy_ns),
            idle_ms: ms(&self.idle_ns),
            backpressured_ms: ms(&self.backpressured_ns),
            input_watermark_ms: (watermark_ms > i64::MIN).then_some(watermark_ms),
            operators: operators.collect(),
        }
    }
}

/// Sums over the tasks of a vertex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VertexSummary {
    /// Vertex name.
    pub name: String,
    /// Number of tasks that have been deployed.
    pub tasks: usize,
    /// Records read.
    pub records_in: u64,
    /// Records emitted.
    pub records_out: u64,
    /// Records read from outside, for sources.
    pub source_records: u64,
    /// Records dropped as too late.
    pub late_records_dropped: u64,
    /// Records skipped as undecodable.
    pub undecodable_records: u64,
    /// Time spent working, nanoseconds.
    pub busy_ns: u64,
}

/// Counters of one job on one worker.
#[derive(Default)]
pub struct JobMetrics {
    tasks: Mutex<Vec<Arc<TaskMetrics>>>,
}

impl JobMetrics {
    /// Adds a task, in the place of an earlier deployment of it.
    pub fn add(&self, task: Arc<TaskMetrics>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match tasks.iter_mut().find(|other| other.attempt.task == task.attempt.task) {
            Some(other) => *other = task,
            None => tasks.push(task),
        }
    }

    /// The counters of all tasks deployed so far.
    pub fn stats(&self, job: JobId) -> Vec<TaskStats> {
        self.tasks().iter().map(|task| task.stats(job)).collect()
    }

    /// The counters of some of them.
    pub fn stats_of(&self, job: JobId, attempts: &[AttemptId]) -> Vec<TaskStats> {
        let tasks = self.tasks();
        tasks.iter().filter(|task| attempts.contains(&task.attempt)).map(|task| task.stats(job)).collect()
    }

    /// The tasks deployed so far.
    pub fn tasks(&self) -> Vec<Arc<TaskMetrics>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sums a vertex, in the order of the graph.
    pub fn summary(&self, graph: &JobGraph) -> Vec<VertexSummary> {
        let tasks = self.tasks();
        graph.vertices.iter().map(|vertex| self.summarise(&tasks, vertex)).collect()
    }

    fn summarise(&self, tasks: &[Arc<TaskMetrics>], vertex: &Vertex) -> VertexSummary {
        let mut summary = VertexSummary { name: vertex.name.clone(), ..VertexSummary::default() };
        for task in tasks.iter().filter(|task| task.attempt.task.vertex == vertex.id) {
            summary.tasks += 1;
            summary.records_in += task.records_in();
            summary.records_out += task.records_out();
            if let (true, Some((_, head))) = (vertex.is_source, task.operators.first()) {
                summary.source_records += head.records_out.load(Ordering::Relaxed);
            }
            summary.busy_ns += task.busy_ns.load(Ordering::Relaxed);
            for (_, metrics) in &task.operators {
                summary.late_records_dropped += metrics.late_records_dropped.load(Ordering::Relaxed);
                summary.undecodable_records += metrics.undecodable_records.load(Ordering::Relaxed);
            }
        }
        summary
    }
}
