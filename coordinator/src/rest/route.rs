//! Which path means what.

use actix_web::http::Method;
use flott_schema::ids::{JobId, VertexId};
use flott_schema::job::ProgramDigest;

use super::error::ApiError;
use crate::machine::OperationId;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Overview,
    Config,
    StopCluster,
    Prometheus,
    Datasets,
    Jobs,
    JobsOverview,
    JobsMetrics,
    Submit,
    Job(JobId, JobPart),
    /// The snapshots of a job, and requests for them.
    Snapshots(JobId, SnapshotPart),
    /// A savepoint is to be deleted.
    Dispose,
    /// What came of that.
    Disposal(OperationId),
    CancelJob(JobId),
    /// A way of cancelling that passes proxies which let nothing but GET through.
    CancelJobByGet(JobId),
    Vertex(JobId, VertexId, VertexPart),
    Workers,
    WorkersMetrics,
    Worker(String, ProcessPart),
    Coordinator(ProcessPart),
    Programs,
    UploadProgram,
    DeleteProgram(ProgramDigest),
    RunProgram(ProgramDigest),
    PlanProgram(ProgramDigest),
    /// A part of Flink's API that Flott does not have.
    Disabled(&'static str),
}

/// What of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobPart {
    Detail,
    Status,
    Config,
    Plan,
    Exceptions,
    Result,
    Accumulators,
    Metrics,
    CoordinatorConfig,
    CoordinatorEnvironment,
    Heartbeat,
}

/// What of the snapshots of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SnapshotPart {
    /// Flott's own: what a job can be started from again.
    Retained,
    All,
    Config,
    Details(u64),
    SubtaskDetails(u64, VertexId),
    /// One is to be taken.
    Checkpoint,
    Savepoint,
    /// One is to be taken with which the job ends.
    Stop,
    CheckpointStatus(OperationId),
    SavepointStatus(OperationId),
    /// The parallelism of the vertices.
    Requirements,
    /// They are to have another.
    Require,
}

/// What of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VertexPart {
    Detail,
    SubtaskTimes,
    Workers,
    Backpressure,
    Watermarks,
    Metrics,
    OperatorMetrics,
    Accumulators,
    FlameGraph,
    SubtasksMetrics,
    SubtasksAccumulators,
    Subtask { subtask: u32, attempt: Option<u32> },
    SubtaskAccumulators { subtask: u32, attempt: u32 },
    SubtaskMetrics(u32),
}

/// What of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProcessPart {
    Detail,
    Config,
    Environment,
    Metrics,
    ThreadDump,
    Logs,
    /// A log file by name; nothing: the main one.
    Log(Option<String>),
    Stdout,
}

const STOP: &str =
    "The termination mode \"stop\" has been removed; for a graceful end, POST to jobs/:jobid/stop instead.";
const RESCALING: &str = "Rescaling is temporarily disabled. See FLINK-12312.";
const RESCALES: &str = "The history of rescaling is not available: see the checkpoints of the job.";
const PROFILER: &str = "The profiler is not available: it runs on a Java virtual machine only.";

/// Reads method and segments. A method that a path does not know is not found, as in Flink.
pub(super) fn route(method: &Method, segments: &[String]) -> Result<Route, ApiError> {
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    // A client that wants the head only gets what GET would answer.
    let asked = if *method == Method::HEAD { &Method::GET } else { method };
    if let Some(route) = find(asked, &parts)? {
        return Ok(route);
    }
    let others = [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT];
    let known = others.iter().filter(|other| *other != asked && matches!(find(other, &parts), Ok(Some(_))));
    let known: Vec<&str> = known.map(Method::as_str).collect();
    Err(ApiError::not_found(match (asked.as_str(), known.as_slice()) {
        // As Flink, which looks for a page of its dashboard then.
        ("GET", []) => format!("Unable to load requested file /{}.", parts.join("/")),
        (_, []) => format!("Not found: /{}", parts.join("/")),
        (_, known) => format!("Not found: /{} answers {} only", parts.join("/"), known.join(" and ")),
    }))
}

fn find(method: &Method, parts: &[&str]) -> Result<Option<Route>, ApiError> {
    Ok(Some(match (method.as_str(), parts) {
        ("GET", ["overview"]) => Route::Overview,
        ("GET", ["config"]) => Route::Config,
        ("GET", ["metrics"]) => Route::Prometheus,
        ("GET", ["datasets"]) => Route::Datasets,
        ("DELETE", ["cluster"]) => Route::StopCluster,
        ("GET", ["jobs"]) => Route::Jobs,
        ("POST", ["jobs"]) => Route::Submit,
        ("GET", ["jobs", "overview"]) => Route::JobsOverview,
        ("GET", ["jobs", "metrics"]) => Route::JobsMetrics,
        ("PATCH", ["jobs", job]) => Route::CancelJob(job_id(job)?),
        ("GET", ["jobs", job, "yarn-cancel"]) => Route::CancelJobByGet(job_id(job)?),
        (method, ["jobs", job, "vertices", vertex, rest @ ..]) => {
            let (job, vertex) = (job_id(job)?, vertex_id(vertex)?);
            return Ok(vertex_part(method, rest)?.map(|part| Route::Vertex(job, vertex, part)));
        }
        (method, ["jobs", job, rest @ ..]) => {
            let job = job_id(job)?;
            if let Some(part) = snapshot_part(method, rest)? {
                return Ok(Some(Route::Snapshots(job, part)));
            }
            return Ok(match job_part(method, rest) {
                Some(part) => Some(Route::Job(job, part)),
                None => job_disabled(method, rest).map(Route::Disabled),
            });
        }
        ("GET", ["taskmanagers"]) => Route::Workers,
        ("GET", ["taskmanagers", "metrics"]) => Route::WorkersMetrics,
        ("GET" | "POST", ["taskmanagers", _, "profiler", ..])
        | ("GET" | "POST", ["jobmanager", "profiler", ..]) => Route::Disabled(PROFILER),
        ("GET", ["taskmanagers", worker, rest @ ..]) => {
            return Ok(process_part(rest).map(|part| Route::Worker((*worker).to_owned(), part)));
        }
        ("GET", ["jobmanager", "config"]) => Route::Coordinator(ProcessPart::Config),
        ("GET", ["jobmanager", "environment"]) => Route::Coordinator(ProcessPart::Environment),
        ("GET", ["jobmanager", rest @ ..]) if !rest.is_empty() => {
            return Ok(process_part(rest).map(Route::Coordinator));
        }
        ("GET", ["jars"]) => Route::Programs,
        ("POST", ["jars", "upload"]) => Route::UploadProgram,
        ("DELETE", ["jars", jar]) => Route::DeleteProgram(digest(jar)?),
        ("POST", ["jars", jar, "run"]) => Route::RunProgram(digest(jar)?),
        ("GET" | "POST", ["jars", jar, "plan"]) => Route::PlanProgram(digest(jar)?),
        ("POST", ["savepoint-disposal"]) => Route::Dispose,
        ("GET", ["savepoint-disposal", operation]) => Route::Disposal(operation_id(operation)?),
        _ => return Ok(None),
    }))
}

fn job_part(method: &str, rest: &[&str]) -> Option<JobPart> {
    Some(match (method, rest) {
        ("GET", []) => JobPart::Detail,
        ("GET", ["status"]) => JobPart::Status,
        ("GET", ["config"]) => JobPart::Config,
        ("GET", ["plan"]) => JobPart::Plan,
        ("GET", ["exceptions"]) => JobPart::Exceptions,
        ("GET", ["execution-result"]) => JobPart::Result,
        ("GET", ["accumulators"]) => JobPart::Accumulators,
        ("GET", ["metrics"]) => JobPart::Metrics,
        ("GET", ["jobmanager", "config"]) => JobPart::CoordinatorConfig,
        ("GET", ["jobmanager", "environment"]) => JobPart::CoordinatorEnvironment,
        ("PATCH", ["clientHeartbeat"]) => JobPart::Heartbeat,
        _ => return None,
    })
}

fn snapshot_part(method: &str, rest: &[&str]) -> Result<Option<SnapshotPart>, ApiError> {
    Ok(Some(match (method, rest) {
        ("GET", ["checkpoints"]) => SnapshotPart::All,
        ("GET", ["checkpoints", "config"]) => SnapshotPart::Config,
        ("GET", ["checkpoints", "details", id]) => SnapshotPart::Details(checkpoint_id(id)?),
        ("GET", ["checkpoints", "details", id, "subtasks", vertex]) => {
            SnapshotPart::SubtaskDetails(checkpoint_id(id)?, vertex_id(vertex)?)
        }
        ("GET", ["checkpoints", "retained"]) => SnapshotPart::Retained,
        ("GET", ["checkpoints", operation]) => SnapshotPart::CheckpointStatus(operation_id(operation)?),
        ("POST", ["checkpoints"]) => SnapshotPart::Checkpoint,
        ("POST", ["savepoints"]) => SnapshotPart::Savepoint,
        ("GET", ["savepoints", operation]) => SnapshotPart::SavepointStatus(operation_id(operation)?),
        ("POST", ["stop"]) => SnapshotPart::Stop,
        ("GET", ["resource-requirements"]) => SnapshotPart::Requirements,
        ("PUT", ["resource-requirements"]) => SnapshotPart::Require,
        _ => return Ok(None),
    }))
}

/// Why a part of Flink's API for jobs is not there.
fn job_disabled(method: &str, rest: &[&str]) -> Option<&'static str> {
    match (method, rest) {
        ("GET", ["yarn-stop"]) => Some(STOP),
        ("PATCH", ["rescaling"]) | ("GET", ["rescaling", _]) => Some(RESCALING),
        ("GET", ["rescales", ..]) => Some(RESCALES),
        _ => None,
    }
}

fn vertex_part(method: &str, rest: &[&str]) -> Result<Option<VertexPart>, ApiError> {
    if method != "GET" {
        return Ok(None);
    }
    Ok(Some(match rest {
        [] => VertexPart::Detail,
        ["subtasktimes"] => VertexPart::SubtaskTimes,
        ["taskmanagers"] => VertexPart::Workers,
        ["backpressure"] => VertexPart::Backpressure,
        ["watermarks"] => VertexPart::Watermarks,
        ["metrics"] => VertexPart::Metrics,
        ["jm-operator-metrics"] => VertexPart::OperatorMetrics,
        ["accumulators"] => VertexPart::Accumulators,
        ["flamegraph"] => VertexPart::FlameGraph,
        ["subtasks", "metrics"] => VertexPart::SubtasksMetrics,
        ["subtasks", "accumulators"] => VertexPart::SubtasksAccumulators,
        ["subtasks", subtask] => {
            VertexPart::Subtask { subtask: number("subtaskindex", subtask)?, attempt: None }
        }
        ["subtasks", subtask, "metrics"] => VertexPart::SubtaskMetrics(number("subtaskindex", subtask)?),
        ["subtasks", subtask, "attempts", attempt] => VertexPart::Subtask {
            subtask: number("subtaskindex", subtask)?,
            attempt: Some(number("attempt", attempt)?),
        },
        ["subtasks", subtask, "attempts", attempt, "accumulators"] => VertexPart::SubtaskAccumulators {
            subtask: number("subtaskindex", subtask)?,
            attempt: number("attempt", attempt)?,
        },
        _ => return Ok(None),
    }))
}

fn process_part(rest: &[&str]) -> Option<ProcessPart> {
    Some(match rest {
        [] => ProcessPart::Detail,
        ["metrics"] => ProcessPart::Metrics,
        ["thread-dump"] => ProcessPart::ThreadDump,
        ["logs"] => ProcessPart::Logs,
        ["logs", name] => ProcessPart::Log(Some((*name).to_owned())),
        ["log"] => ProcessPart::Log(None),
        ["log", name] => ProcessPart::Log(Some((*name).to_owned())),
        ["stdout"] => ProcessPart::Stdout,
        _ => return None,
    })
}

fn unresolved(parameter: &str, text: &str) -> ApiError {
    ApiError::parameters(format!("Cannot resolve path parameter ({parameter}) from value \"{text}\"."))
}

/// The id of a job.
pub(super) fn job_id(text: &str) -> Result<JobId, ApiError> {
    hex(text).map(JobId).ok_or_else(|| unresolved("jobid", text))
}

pub(super) fn vertex_id(text: &str) -> Result<VertexId, ApiError> {
    hex(text).map(VertexId).ok_or_else(|| unresolved("vertexid", text))
}

/// The number of a request.
pub(super) fn operation_id(text: &str) -> Result<OperationId, ApiError> {
    hex(text).map(OperationId).ok_or_else(|| unresolved("triggerid", text))
}

fn checkpoint_id(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| unresolved("checkpointid", text))
}

/// 32 hex digits.
fn hex(text: &str) -> Option<u128> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok())?
}

fn number(parameter: &str, text: &str) -> Result<u32, ApiError> {
    text.parse().map_err(|_| unresolved(parameter, text))
}

/// The digest at the front of `<sha256>_<filename>`, the id of a stored program.
fn digest(text: &str) -> Result<ProgramDigest, ApiError> {
    let (digits, _) = text.split_once('_').unwrap_or((text, ""));
    digits.parse().map_err(|_| {
        ApiError::not_found(format!(
            "File {text} does not exist: the id of a program is '<sha256>_<filename>', see /jars"
        ))
    })
}
