//! Counters of tasks, and their sums for people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flott_dataflow::context::OperatorMetrics;
use flott_schema::graph::{JobGraph, OperatorSpec, Vertex};
use flott_schema::ids::TaskId;

/// Counters of one task.
pub struct TaskMetrics {
    /// The task.
    pub task: TaskId,
    /// Its operators, upstream first.
    pub operators: Vec<(OperatorSpec, Arc<OperatorMetrics>)>,
    /// Records sent to other tasks, over all edges.
    pub records_sent: Arc<AtomicU64>,
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
        task: TaskId,
        operators: Vec<(OperatorSpec, Arc<OperatorMetrics>)>,
        records_sent: Arc<AtomicU64>,
    ) -> Self {
        TaskMetrics {
            task,
            operators,
            records_sent,
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
    /// Adds a task.
    pub fn add(&self, task: Arc<TaskMetrics>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
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
        for task in tasks.iter().filter(|task| task.task.vertex == vertex.id) {
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
