//! The coordinator's own process.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header;
use flott_schema::control::TaskState;
use flott_schema::graph::JobGraph;
use flott_schema::ids::{AttemptId, JobId};
use serde_json::json;

use super::files::{self, Files};
use super::{body, json};
use crate::checkpoints::Ledger;
use crate::machine::{ClusterState, JobRecord, TaskRecord};
use crate::metrics::{ClusterNumbers, Own, ProcessNumbers, TaskSeries, render};
use crate::rest::body::Hosts;
use crate::rest::error::ApiError;
use crate::rest::gate::Api;
use crate::rest::metrics::{self, Metrics};
use crate::rest::path::Parameters;
use crate::rest::route::ProcessPart;

/// Answers what is asked of the coordinator.
pub(super) async fn coordinator(
    api: &Api,
    part: &ProcessPart,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let files = || {
        let folder = api.options.log_folder.clone();
        folder.map(Files::Own).ok_or_else(|| ApiError::not_found("This process writes no log files."))
    };
    match part {
        ProcessPart::Config => {
            let entries = api.options.configuration.iter();
            let entries = entries.map(|(key, value)| json!({ "key": key, "value": value }));
            Ok(json(&entries.collect::<Vec<_>>()))
        }
        ProcessPart::Environment => Ok(json(&json!({
            "jvm": {
                "version": concat!("none: flott ", env!("CARGO_PKG_VERSION")),
                "arch": std::env::consts::ARCH,
                "options": [],
            },
            "classpath": [],
        }))),
        ProcessPart::Metrics => Ok(body(metrics::listed(&own_metrics(api).await?, parameters))),
        ProcessPart::ThreadDump => Ok(json(&json!({ "threadInfos": [] }))),
        ProcessPart::Logs => match files() {
            Ok(files) => files::list(&files).await,
            Err(_) => Ok(json(&json!({ "logs": [] }))),
        },
        ProcessPart::Log(name) => files::read(files()?, name.as_deref(), "log").await,
        ProcessPart::Stdout => files::read(files()?, None, "out").await,
        ProcessPart::Detail => Err(ApiError::not_found("Not found: /jobmanager")),
    }
}

/// The metrics of the coordinator by Flink's names.
async fn own_metrics(api: &Api) -> Result<Metrics, ApiError> {
    let cluster = api.services.handle.read("metrics", ClusterNumbers::of).await?;
    let process = ProcessNumbers::read();
    let metrics: [(&str, u64); 9] = [
        ("numRegisteredTaskManagers", cluster.workers),
        ("numPendingTaskManagers", 0),
        ("numRunningJobs", cluster.jobs_running),
        ("taskSlotsTotal", cluster.slots_total),
        ("taskSlotsAvailable", cluster.slots_available),
        ("Status.JVM.Memory.Heap.Used", process.resident_bytes),
        ("Status.JVM.Memory.Heap.Committed", process.resident_bytes),
        ("Status.JVM.CPU.Time", process.cpu_ms * 1_000_000),
        ("Status.JVM.Threads.Count", process.threads),
    ];
    Ok(metrics.into_iter().map(|(name, number)| (name.to_owned(), number.into())).collect())
}

/// `/metrics`, in Prometheus' text: this process, and what the leader knows of the tasks that run on workers without metrics of
/// their own.
pub(super) async fn prometheus(api: &Api) -> Result<HttpResponse, ApiError> {
    let question = |state: &ClusterState, ledger: &Ledger| {
        (ClusterNumbers::of(state), places(state), ledger.deletions_failed())
    };
    let (cluster, places, deletions_failed) =
        api.services.handle.read_with_ledger("metrics", question).await?;
    let leads = api.services.handle.role().term().is_some();
    let tasks = if leads { tasks(api, &places) } else { Vec::new() };
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    let own = Own { leads, callers_refused: (api.services.callers_refused)(), deletions_failed };
    let text = render(&cluster, &ProcessNumbers::read(), own, &tasks);
    Ok(HttpResponse::Ok().insert_header(kind).body(text))
}

/// The running tasks of a job that no worker gives itself: its graph, and for each task the name of its worker.
type Places = (JobId, Arc<JobGraph>, Vec<(AttemptId, String)>);

fn places(state: &ClusterState) -> Vec<Places> {
    let open = state.jobs().filter(|job| !job.state().is_terminal());
    let of_job = |job: &JobRecord| {
        let hosts = Hosts::of_job(state, job);
        let tasks = job.vertices().iter().flat_map(|vertex| vertex.tasks());
        let has_port = |worker| state.workers().get(&worker).is_some_and(|it| it.profile().metrics_port != 0);
        // A number that two processes give would be summed twice.
        let given = |task: &&TaskRecord| task.slot().is_some_and(|slot| has_port(slot.worker));
        let running = tasks.filter(|task| task.state() == TaskState::Running && !given(task));
        (job.id(), job.graph().clone(), running.map(|task| (task.attempt(), hosts.of(task).name)).collect())
    };
    open.map(of_job).collect()
}

fn tasks(api: &Api, places: &[Places]) -> Vec<TaskSeries> {
    let mut series = Vec::new();
    for (job, graph, tasks) in places {
        let numbers = api.services.stats.tasks(*job);
        for (attempt, worker) in tasks {
            let samples =
                numbers.get(&attempt.task).filter(|samples| samples.latest.value.attempt == *attempt);
            let (Some(samples), Some(vertex)) = (samples, graph.vertex(attempt.task.vertex)) else {
                continue;
            };
            let labels = vec![
                ("tm_id", worker.clone()),
                ("job_id", job.to_string()),
                ("job_name", graph.name.clone()),
                ("task_id", vertex.id.to_string()),
                ("task_name", vertex.name.clone()),
                ("subtask_index", attempt.task.subtask.to_string()),
                ("task_attempt_num", attempt.attempt.to_string()),
            ];
            for (operator, metrics) in metrics::of_operators(vertex, samples) {
                let labels = labels.iter().cloned().chain([("operator_name", operator.to_owned())]).collect();
                series.push(TaskSeries { scope: "task_operator", labels, values: gauges(metrics) });
            }
            let values = gauges(metrics::of_task_alone(samples));
            series.push(TaskSeries { scope: "task", labels, values });
        }
    }
    series
}

fn gauges(metrics: Metrics) -> Vec<(String, f64)> {
    metrics.into_iter().map(|(name, number)| (name, number.gauge())).collect()
}
