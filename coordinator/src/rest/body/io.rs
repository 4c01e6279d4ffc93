//! Numbers of tasks: records, bytes, and what their time went to.

use std::collections::BTreeMap;

use flott_schema::ids::{TaskId, VertexId};
use serde::Serialize;

use crate::live::TaskSamples;
use crate::machine::TaskRecord;

/// The statistics of a job's tasks.
#[derive(Clone, Debug, Default)]
pub(in crate::rest) struct Numbers(pub(in crate::rest) BTreeMap<TaskId, TaskSamples>);

impl Numbers {
    /// Those of the current attempt of a task; an older attempt's would be somebody else's.
    pub(in crate::rest) fn of(&self, task: &TaskRecord) -> Option<&TaskSamples> {
        let samples = self.0.get(&task.attempt().task)?;
        (samples.latest.value.attempt == task.attempt()).then_some(samples)
    }

    /// Those of a vertex's tasks as far as there are any, by subtask.
    pub(in crate::rest) fn of_vertex(&self, vertex: VertexId) -> impl Iterator<Item = (u32, &TaskSamples)> {
        let from = TaskId { vertex, subtask: 0 };
        let to = TaskId { vertex, subtask: u32::MAX };
        self.0.range(from..=to).map(|(task, samples)| (task.subtask, samples))
    }
}

/// Flink's `metrics` object of a vertex or subtask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Io {
    pub(super) read_bytes: u64,
    pub(super) read_bytes_complete: bool,
    pub(super) write_bytes: u64,
    pub(super) write_bytes_complete: bool,
    pub(super) read_records: u64,
    pub(super) read_records_complete: bool,
    pub(super) write_records: u64,
    pub(super) write_records_complete: bool,
    pub(super) accumulated_backpressured_time: u64,
    pub(super) accumulated_idle_time: u64,
    pub(super) accumulated_busy_time: f64,
}

impl Io {
    /// Of some tasks together; complete if the numbers of each are known.
    pub(super) fn sum<'a>(numbers: &Numbers, tasks: impl Iterator<Item = &'a TaskRecord>) -> Self {
        let mut sum = Io::default();
        let mut complete = true;
        for task in tasks {
            let Some(samples) = numbers.of(task) else {
                complete = false;
                continue;
            };
            let stats = &samples.latest.value;
            sum.read_bytes += stats.bytes_in;
            sum.write_bytes += stats.bytes_out;
            sum.read_records += stats.records_in;
            sum.write_records += stats.records_out;
            sum.accumulated_backpressured_time += stats.backpressured_ms;
            sum.accumulated_idle_time += stats.idle_ms;
            sum.accumulated_busy_time += stats.busy_ms as f64;
        }
        sum.read_bytes_complete = complete;
        sum.write_bytes_complete = complete;
        sum.read_records_complete = complete;
        sum.write_records_complete = complete;
        sum
    }

    /// The numbers by name, for aggregates over subtasks.
    pub(super) fn named(&self) -> [(&'static str, f64); 7] {
        [
            ("read-bytes", self.read_bytes as f64),
            ("write-bytes", self.write_bytes as f64),
            ("read-records", self.read_records as f64),
            ("write-records", self.write_records as f64),
            ("accumulated-backpressured-time", self.accumulated_backpressured_time as f64),
            ("accumulated-idle-time", self.accumulated_idle_time as f64),
            ("accumulated-busy-time", self.accumulated_busy_time),
        ]
    }
}
