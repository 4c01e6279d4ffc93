//! Checkpoints and savepoints: what is told of them, and requests for them. A request is answered with its number, by which what
//! came of it is asked for.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use flott_schema::ids::{JobId, VertexId};
use flott_schema::snapshot::{MANIFEST_FILE, SavepointFormat, SnapshotKind};
use flott_storage::Storage;
use serde::Deserialize;
use serde_json::{Value, json};

use super::jobs::of_job;
use super::{Asked, accepted, body, json_body, with_status};
use crate::checkpoints::{CheckpointDetails, Ledger};
use crate::machine::{
    CheckpointRecord, CheckpointStats, ClusterState, JobRecord, Operation, OperationId, Purpose,
};
use crate::rest::body::{self as bodies, Body};
use crate::rest::error::ApiError;
use crate::rest::gate::Api;
use crate::rest::route::SnapshotPart;
use crate::service::SnapshotRequest;

/// How long a look at the storage of snapshots may take.
const STORAGE_DEADLINE: Duration = Duration::from_secs(5);

/// Answers what is asked of the snapshots of a job.
pub(super) async fn snapshots(
    api: &Api,
    job: JobId,
    part: SnapshotPart,
    asked: Asked<'_>,
) -> Result<HttpResponse, ApiError> {
    let now_ms = (api.options.now_ms)();
    match part {
        SnapshotPart::All => {
            let show = move |record: &JobRecord, ledger: &Ledger| {
                let pending = record.checkpoints().pending().map(|one| one.id);
                let stats: BTreeMap<u64, CheckpointStats> =
                    pending.filter_map(|id| Some((id, ledger.stats(job, id)?))).collect();
                bodies::checkpoints(record, &stats, now_ms)
            };
            Ok(body(with_ledger(api, job, show).await?))
        }
        SnapshotPart::Retained => retained(api, job).await,
        SnapshotPart::Config => {
            let config =
                of_job(api, job, |_, record| bodies::checkpoint_config(&record.spec().settings)).await?;
            config.map(body).ok_or_else(|| ApiError::not_found("Checkpointing is not enabled for this job."))
        }
        SnapshotPart::Details(id) => {
            let show = move |record: &JobRecord, ledger: &Ledger| {
                let known: Option<CheckpointDetails> = ledger.details(job, id).cloned();
                let stats = ledger.stats(job, id);
                let one = record.checkpoints().find(id)?;
                Some(bodies::details(record, one, stats, known.as_ref(), now_ms))
            };
            with_ledger(api, job, show).await?.map(body).ok_or_else(|| no_checkpoint(id))
        }
        SnapshotPart::SubtaskDetails(id, vertex) => {
            let show = move |record: &JobRecord, ledger: &Ledger| {
                let tasks = record.graph().vertex(vertex)?.parallelism;
                let one = record.checkpoints().find(id)?;
                Some(bodies::subtask_details(one, vertex, tasks, ledger.details(job, id), now_ms))
            };
            with_ledger(api, job, show).await?.map(body).ok_or_else(|| no_checkpoint(id))
        }
        SnapshotPart::Checkpoint => checkpoint(api, job, asked).await,
        SnapshotPart::Savepoint => savepoint(api, job, asked).await,
        SnapshotPart::Stop => stop(api, job, asked).await,
        SnapshotPart::CheckpointStatus(operation) => status(api, job, operation, true).await,
        SnapshotPart::SavepointStatus(operation) => status(api, job, operation, false).await,
        SnapshotPart::Requirements => {
            Ok(body(of_job(api, job, |_, record| bodies::requirements(record)).await?))
        }
        SnapshotPart::Require => require(api, job, asked).await,
    }
}

/// The complete snapshots that the job remembers, the newest first, and whether they are there: a job that has ended may have deleted its own, and
/// savepoints are the user's.
async fn retained(api: &Api, job: JobId) -> Result<HttpResponse, ApiError> {
    let known = |_: &ClusterState, record: &JobRecord| {
        let checkpoints = record.checkpoints();
        let mut known: Vec<CheckpointRecord> =
            checkpoints.retained().chain(checkpoints.savepoints()).cloned().collect();
        known.sort_by_key(|one| std::cmp::Reverse(one.id));
        known
    };
    let known = of_job(api, job, known).await?;
    let folders: Vec<String> = known.iter().map(|one| one.folder.clone()).collect();
    // Storage may be slow, or away: then it is not known.
    let look = move || {
        let is_there = |folder: &String| Storage::open(folder)?.exists(MANIFEST_FILE);
        folders.iter().map(|folder| is_there(folder).ok()).collect::<Vec<Option<bool>>>()
    };
    let looked = tokio::time::timeout(STORAGE_DEADLINE, tokio::task::spawn_blocking(look)).await;
    let exists = looked.ok().and_then(Result::ok).unwrap_or_else(|| vec![None; known.len()]);
    Ok(body(bodies::retained(&known, &exists)))
}

async fn with_ledger<T: Send + 'static>(
    api: &Api,
    job: JobId,
    question: impl FnOnce(&JobRecord, &Ledger) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let ask =
        move |state: &ClusterState, ledger: &Ledger| state.job(job).map(|record| question(record, ledger));
    api.services.handle.read_with_ledger("checkpoints", ask).await?.ok_or_else(|| ApiError::no_job(job))
}

fn no_checkpoint(id: u64) -> ApiError {
    ApiError::not_found(format!("Could not find checkpointing statistics for checkpoint {id}."))
}

/// A number that nobody has.
fn random() -> OperationId {
    // Each has keys of its own, which the operating system's chance began.
    let half = || u128::from(RandomState::new().build_hasher().finish());
    OperationId(half() << 64 | half())
}

fn operation_id(given: Option<String>) -> Result<OperationId, ApiError> {
    match given {
        None => Ok(random()),
        Some(text) => crate::rest::route::operation_id(&text),
    }
}

/// The words of Flink.
fn format_of(given: Option<&str>) -> Result<SavepointFormat, ApiError> {
    match given.map(str::to_ascii_uppercase).as_deref() {
        None | Some("CANONICAL") => Ok(SavepointFormat::Canonical),
        Some("NATIVE") => Ok(SavepointFormat::Native),
        Some(other) => {
            Err(ApiError::bad_request(format!("There is no savepoint format {other}: CANONICAL or NATIVE")))
        }
    }
}

async fn request(api: &Api, job: JobId, request: SnapshotRequest) -> Result<HttpResponse, ApiError> {
    let operation = request.operation;
    api.services.handle.request_snapshot(job, request).await?;
    let answer = json!({ "request-id": format!("{:032x}", operation.0) });
    Ok(with_status(StatusCode::ACCEPTED, Body::of(&answer)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CheckpointBody {
    #[serde(rename = "checkpointType")]
    kind: Option<String>,
    #[serde(rename = "triggerId")]
    trigger: Option<String>,
}

async fn checkpoint(api: &Api, job: JobId, mut asked: Asked<'_>) -> Result<HttpResponse, ApiError> {
    let CheckpointBody { kind, trigger } = json_body(api, &mut asked.payload).await?;
    let kind = match kind.map(|kind| kind.to_ascii_uppercase()).as_deref() {
        None | Some("CONFIGURED" | "INCREMENTAL") => SnapshotKind::Checkpoint,
        Some("FULL") => SnapshotKind::FullCheckpoint,
        Some(other) => {
            let text = format!("There is no checkpoint type {other}: CONFIGURED, FULL or INCREMENTAL");
            return Err(ApiError::bad_request(text));
        }
    };
    let wanted = SnapshotRequest {
        kind,
        purpose: Purpose::GoOn,
        target: None,
        parallelism: BTreeMap::new(),
        operation: operation_id(trigger)?,
    };
    request(api, job, wanted).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SavepointBody {
    #[serde(rename = "target-directory")]
    target: Option<String>,
    #[serde(rename = "cancel-job")]
    cancel: Option<bool>,
    #[serde(rename = "formatType")]
    format: Option<String>,
    #[serde(rename = "triggerId")]
    trigger: Option<String>,
}

async fn savepoint(api: &Api, job: JobId, mut asked: Asked<'_>) -> Result<HttpResponse, ApiError> {
    let SavepointBody { target, cancel, format, trigger } = json_body(api, &mut asked.payload).await?;
    let wanted = SnapshotRequest {
        kind: SnapshotKind::Savepoint(format_of(format.as_deref())?),
        purpose: if cancel == Some(true) { Purpose::Cancel } else { Purpose::GoOn },
        target,
        parallelism: BTreeMap::new(),
        operation: operation_id(trigger)?,
    };
    request(api, job, wanted).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StopBody {
    target_directory: Option<String>,
    drain: Option<bool>,
    format_type: Option<String>,
    trigger_id: Option<String>,
}

async fn stop(api: &Api, job: JobId, mut asked: Asked<'_>) -> Result<HttpResponse, ApiError> {
    let StopBody { target_directory, drain, format_type, trigger_id } =
        json_body(api, &mut asked.payload).await?;
    let wanted = SnapshotRequest {
        kind: SnapshotKind::Savepoint(format_of(format_type.as_deref())?),
        purpose: if drain == Some(true) { Purpose::Drain } else { Purpose::Stop },
        target: target_directory,
        parallelism: BTreeMap::new(),
        operation: operation_id(trigger_id)?,
    };
    request(api, job, wanted).await
}

async fn status(
    api: &Api,
    job: JobId,
    operation: OperationId,
    of_checkpoint: bool,
) -> Result<HttpResponse, ApiError> {
    let found: Option<Operation> =
        of_job(api, job, move |_, record| record.checkpoints().operation(operation).cloned()).await?;
    let found = found.ok_or_else(|| {
        let what = if of_checkpoint { "checkpoint" } else { "savepoint" };
        let id = format!("{:032x}", operation.0);
        ApiError::not_found(format!("There is no {what} operation with triggerId={id} for job {job}."))
    })?;
    Ok(body(bodies::operation(&found, of_checkpoint)))
}

#[derive(Debug, Deserialize)]
struct Requirement {
    parallelism: Bounds,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounds {
    lower_bound: u32,
    upper_bound: u32,
}

/// `PUT /jobs/:jobid/resource-requirements`: the job is to have as many tasks as the upper bounds say.
async fn require(api: &Api, job: JobId, mut asked: Asked<'_>) -> Result<HttpResponse, ApiError> {
    let given: BTreeMap<String, Requirement> = json_body(api, &mut asked.payload).await?;
    let mut wanted: BTreeMap<VertexId, u32> = BTreeMap::new();
    for (vertex, Requirement { parallelism }) in given {
        let Bounds { lower_bound, upper_bound } = parallelism;
        if lower_bound > upper_bound {
            return Err(ApiError::bad_request(format!(
                "The lower bound {lower_bound} of vertex {vertex} is above its upper bound {upper_bound}."
            )));
        }
        wanted.insert(crate::rest::route::vertex_id(&vertex)?, upper_bound);
    }
    let now: BTreeMap<VertexId, u32> = of_job(api, job, |_, record| {
        record.graph().vertices.iter().map(|vertex| (vertex.id, vertex.parallelism)).collect()
    })
    .await?;
    if let Some(missing) = now.keys().find(|vertex| !wanted.contains_key(vertex)) {
        let text = format!("The request body was incomplete: there is no requirement of vertex {missing}.");
        return Err(ApiError::bad_request(text));
    }
    wanted.retain(|vertex, parallelism| now.get(vertex) != Some(parallelism));
    if !wanted.is_empty() {
        let rescale = SnapshotRequest {
            kind: SnapshotKind::Checkpoint,
            purpose: Purpose::Rescale,
            target: None,
            parallelism: wanted,
            operation: random(),
        };
        api.services.handle.request_snapshot(job, rescale).await?;
    }
    Ok(accepted(StatusCode::OK))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DisposalBody {
    #[serde(rename = "savepoint-path")]
    path: Option<String>,
    #[serde(rename = "triggerId")]
    trigger: Option<String>,
}

/// `POST /savepoint-disposal`.
pub(super) async fn dispose(api: &Api, mut asked: Asked<'_>) -> Result<HttpResponse, ApiError> {
    let DisposalBody { path, trigger } = json_body(api, &mut asked.payload).await?;
    let operation = operation_id(trigger)?;
    let path = path.filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| ApiError::bad_request("The body names no savepoint-path."))?;
    if api.disposals.begin(operation) {
        let (handle, disposals) = (api.services.handle.clone(), api.disposals.clone());
        actix_web::rt::spawn(async move {
            let result = handle.dispose_savepoint(path).await.map_err(|error| error.to_string());
            disposals.end(operation, result);
        });
    }
    let answer = json!({ "request-id": format!("{:032x}", operation.0) });
    Ok(with_status(StatusCode::OK, Body::of(&answer)))
}

/// `GET /savepoint-disposal/:triggerid`.
pub(super) fn disposal(api: &Api, operation: OperationId) -> Result<HttpResponse, ApiError> {
    let found = api.disposals.result(operation).ok_or_else(|| {
        let id = format!("{:032x}", operation.0);
        ApiError::not_found(format!("There is no savepoint disposal with triggerId={id}."))
    })?;
    let result: Option<Value> = found.map(|result| match result {
        Ok(()) => json!({}),
        Err(reason) => json!({ "failure-cause": bodies::failure(&reason) }),
    });
    Ok(body(bodies::status(result)))
}
