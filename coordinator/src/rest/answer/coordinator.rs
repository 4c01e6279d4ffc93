//! The coordinator's own process.

use actix_web::HttpResponse;
use actix_web::http::header;
use serde_json::json;

use super::files::{self, Files};
use super::{body, json};
use crate::metrics::{ClusterNumbers, ProcessNumbers, render};
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

/// `/metrics`, in Prometheus' text.
pub(super) async fn prometheus(api: &Api) -> Result<HttpResponse, ApiError> {
    let cluster = api.services.handle.read("metrics", ClusterNumbers::of).await?;
    let leads = api.services.handle.role().term().is_some();
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    Ok(HttpResponse::Ok().insert_header(kind).body(render(&cluster, &ProcessNumbers::read(), leads)))
}
