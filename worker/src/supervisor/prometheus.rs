//! The metrics of a worker and of the tasks on it, as text for Prometheus, under the names that Flink's
//! Prometheus reporter gives them: `flink_taskmanager_...`, every one a gauge, as there. What Flink has no
//! name for begins with `flott_`.
//!
//! What there is to tell is measured when it is asked for, into a recorder that lives for that answer: a job
//! that is gone leaves no series behind.

use flott_schema::graph::{JobGraph, Vertex};
use flott_schema::metric_names::{BACKPRESSURED_FROM, OPERATOR_COUNTERS, TASK_COUNTERS, TASK_TIMES};
use flott_schema::samples::TaskSamples;
use flott_schema::stats::OperatorStats;
use metrics::{Label, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::supervisor::statistics::Snapshot;

/// Everything as text. `host` and `worker` name the worker on each line.
pub fn render(host: &str, worker: &str, slots: u32, snapshot: &Snapshot) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let own = [Label::new("host", host.to_owned()), Label::new("tm_id", worker.to_owned())];
    with_local_recorder(&recorder, || {
        worker_series(&own, slots, snapshot);
        for (graph, tasks) in &snapshot.jobs {
            tasks.iter().for_each(|task| task_series(&own, graph, task));
        }
    });
    rendered.render()
}

fn worker_series(own: &[Label], slots: u32, snapshot: &Snapshot) {
    let set = |name: &'static str, help: &'static str, value: u64| {
        describe_gauge!(name, help);
        gauge!(name, own.iter()).set(value as f64);
    };
    let usage = &snapshot.usage;
    let resident_bytes = usage.resident_bytes + usage.executors_resident_bytes;
    let used = "resident memory of the worker and its executors, bytes";
    set("flink_taskmanager_Status_JVM_Memory_Heap_Used", used, resident_bytes);
    set("flink_taskmanager_Status_JVM_Memory_Heap_Committed", used, resident_bytes);
    set(
        "flink_taskmanager_Status_JVM_CPU_Time",
        "processor time of the worker and its executors that live, nanoseconds",
        usage.cpu_ms.saturating_mul(1_000_000),
    );
    set("flink_taskmanager_System_Memory_Available", "free memory of the host, bytes", usage.host_free_bytes);
    set("flott_worker_slots_total", "slots of the worker", slots.into());
    set("flott_worker_slots_used", "slots that jobs have", snapshot.slots_used.into());
    set("flott_worker_resident_bytes", "resident memory of the worker alone, bytes", usage.resident_bytes);
    set("flott_worker_executors", "executors of the worker", usage.executors.into());
    describe_gauge!("flott_executor_resident_bytes", "resident memory of an executor, bytes");
    describe_gauge!("flott_executor_cpu_ms", "processor time of an executor, milliseconds");
    for executor in &snapshot.executors {
        let name = snapshot
            .jobs
            .iter()
            .find(|(_, tasks)| tasks.first().is_some_and(|task| task.latest.value.job == executor.job));
        let mut labels = own.to_vec();
        labels.push(Label::new("job_id", executor.job.to_string()));
        labels.push(Label::new("job_name", name.map_or(String::new(), |(graph, _)| graph.name.clone())));
        labels.push(Label::new("process", executor.process.to_string()));
        gauge!("flott_executor_resident_bytes", labels.iter()).set(executor.resident_bytes as f64);
        gauge!("flott_executor_cpu_ms", labels.iter()).set(executor.cpu_ms as f64);
    }
}

fn task_series(own: &[Label], graph: &JobGraph, samples: &TaskSamples) {
    let stats = &samples.latest.value;
    let Some(vertex) = graph.vertex(stats.attempt.task.vertex) else { return };
    let mut labels = own.to_vec();
    labels.extend([
        Label::new("job_id", stats.job.to_string()),
        Label::new("job_name", graph.name.clone()),
        Label::new("task_id", vertex.id.to_string()),
        Label::new("task_name", vertex.name.clone()),
        Label::new("subtask_index", stats.attempt.task.subtask.to_string()),
        Label::new("task_attempt_num", stats.attempt.attempt.to_string()),
    ]);
    let set = |name: &str, value: f64| {
        gauge!(format!("flink_taskmanager_job_task_{name}"), labels.iter()).set(value);
    };
    for (name, of) in TASK_COUNTERS {
        set(name, of(stats) as f64);
        set(&format!("{name}PerSecond"), samples.per_second(of));
    }
    for (rate, total, of) in TASK_TIMES {
        set(rate, samples.per_second(of));
        set(total, of(stats) as f64);
    }
    let waiting = samples.per_second(|stats| stats.backpressured_ms);
    set("isBackPressured", f64::from(u8::from(waiting >= BACKPRESSURED_FROM)));
    set("currentInputWatermark", stats.input_watermark_ms.unwrap_or(i64::MIN) as f64);
    for (index, operator) in stats.operators.iter().enumerate() {
        let mut labels = labels.clone();
        if let Some(id) = operator.operator {
            labels.push(Label::new("operator_id", id.to_string()));
        }
        labels.push(Label::new("operator_name", operator_name(vertex, operator, index).to_owned()));
        let set = |name: &str, value: f64| {
            gauge!(format!("flink_taskmanager_job_task_operator_{name}"), labels.iter()).set(value);
        };
        for (name, rate, of) in OPERATOR_COUNTERS {
            set(name, of(operator) as f64);
            if let Some(rate) = rate {
                set(rate, samples.per_second(|stats| stats.operators.get(index).map_or(0, of)));
            }
        }
    }
}

/// The name of an operator, by its id or its place in the chain.
fn operator_name<'a>(vertex: &'a Vertex, stats: &OperatorStats, index: usize) -> &'a str {
    let by_id = stats.operator.and_then(|id| vertex.operators.iter().find(|operator| operator.id == id));
    by_id.or_else(|| vertex.operators.get(index)).map_or("operator", |operator| operator.name.as_str())
}
