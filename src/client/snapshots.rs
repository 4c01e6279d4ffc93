//! Checkpoints, savepoints and parallelism of running jobs. What takes its time is started by one call, which gives a trigger, and asked
//! for by others.

use std::collections::BTreeMap;

use flott_schema::snapshot::SavepointFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::ClientError;
use super::transport::Client;
use crate::embedded::new_job_id;

/// Something that a coordinator does, and where to ask for it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// By it the coordinator knows the operation; a call that is repeated with it starts nothing new.
    pub trigger: String,
    status_path: String,
}

/// What became of an [`Operation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done: where the savepoint is, or the id of the checkpoint.
    Done(String),
    /// It failed, and why.
    Failed(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Triggered {
    request_id: String,
}

#[derive(Deserialize)]
struct Status {
    status: StatusId,
    operation: Option<OperationView>,
}

#[derive(Deserialize)]
struct StatusId {
    id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OperationView {
    location: Option<String>,
    #[serde(rename = "checkpointId")]
    checkpoint: Option<u64>,
    #[serde(rename = "failure-cause", alias = "failureCause")]
    failure_cause: Option<Value>,
}

impl From<OperationView> for Outcome {
    fn from(result: OperationView) -> Self {
        match (result.failure_cause, result.location, result.checkpoint) {
            (Some(cause), ..) => Outcome::Failed(reason(&cause)),
            (None, Some(location), _) => Outcome::Done(location),
            (None, None, Some(checkpoint)) => Outcome::Done(checkpoint.to_string()),
            (None, None, None) => Outcome::Done(String::new()),
        }
    }
}

/// What a failure says: Flink writes an exception with its stack, of which the first line counts, behind the name of its class.
fn reason(cause: &Value) -> String {
    let text = cause.as_str().or_else(|| cause["stack-trace"].as_str()).map(str::to_string);
    let text = text.unwrap_or_else(|| cause.to_string());
    let line = text.lines().next().unwrap_or_default().trim();
    let without_class =
        cause["class"].as_str().and_then(|class| line.strip_prefix(class)?.strip_prefix(": "));
    without_class.unwrap_or(line).to_string()
}

/// The fields of a body that have a value.
fn body(fields: [(&str, Value); 4]) -> String {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(name, value)| (name.to_string(), value)).collect()).to_string()
}

fn word(format: SavepointFormat) -> &'static str {
    match format {
        SavepointFormat::Canonical => "CANONICAL",
        SavepointFormat::Native => "NATIVE",
    }
}

impl Client {
    /// Starts a savepoint, in this folder or the one that the cluster has for them.
    pub fn start_savepoint(
        &self,
        job: &str,
        directory: Option<&str>,
        format: SavepointFormat,
    ) -> Result<Operation, ClientError> {
        let fields = |trigger: &str| {
            let (directory, format) = (json!(directory), json!(word(format)));
            body([
                ("target-directory", directory),
                ("formatType", format),
                ("triggerId", json!(trigger)),
                ("cancel-job", json!(false)),
            ])
        };
        let path = format!("/jobs/{job}/savepoints");
        self.start(&path, &path, fields)
    }

    /// Starts a savepoint with which the job ends. With `drain`, event time ends too: windows fire.
    pub fn start_stop(
        &self,
        job: &str,
        directory: Option<&str>,
        drain: bool,
        format: SavepointFormat,
    ) -> Result<Operation, ClientError> {
        let fields = |trigger: &str| {
            let (directory, format) = (json!(directory), json!(word(format)));
            body([
                ("targetDirectory", directory),
                ("drain", json!(drain)),
                ("formatType", format),
                ("triggerId", json!(trigger)),
            ])
        };
        self.start(&format!("/jobs/{job}/stop"), &format!("/jobs/{job}/savepoints"), fields)
    }

    /// Starts a checkpoint; a full one shares no file with earlier ones.
    pub fn start_checkpoint(&self, job: &str, full: bool) -> Result<Operation, ClientError> {
        let kind = if full { "FULL" } else { "CONFIGURED" };
        let path = format!("/jobs/{job}/checkpoints");
        self.start(&path, &path, |trigger| json!({"checkpointType": kind, "triggerId": trigger}).to_string())
    }

    /// Starts the deletion of a savepoint.
    pub fn start_disposal(&self, savepoint: &str) -> Result<Operation, ClientError> {
        let path = "/savepoint-disposal";
        self.start(path, path, |trigger| {
            json!({"savepoint-path": savepoint, "triggerId": trigger}).to_string()
        })
    }

    fn start(
        &self,
        path: &str,
        status_path: &str,
        body: impl FnOnce(&str) -> String,
    ) -> Result<Operation, ClientError> {
        let trigger = new_job_id().to_string();
        let triggered: Triggered = self.post_json(path, &body(&trigger))?;
        let status_path = format!("{status_path}/{}", triggered.request_id);
        Ok(Operation { trigger: triggered.request_id, status_path })
    }

    /// What became of an operation; nothing while it is under way.
    pub fn outcome(&self, operation: &Operation) -> Result<Option<Outcome>, ClientError> {
        let status: Status = self.get(&operation.status_path)?;
        let is_over = status.status.id == "COMPLETED";
        Ok(is_over.then(|| Outcome::from(status.operation.unwrap_or_default())))
    }

    /// The checkpoints and savepoints of a job.
    pub fn checkpoints(&self, job: &str) -> Result<Checkpoints, ClientError> {
        self.get(&format!("/jobs/{job}/checkpoints"))
    }

    /// The complete snapshots that a job remembers, the newest first.
    pub fn retained(&self, job: &str) -> Result<Vec<RetainedView>, ClientError> {
        self.get::<Retained>(&format!("/jobs/{job}/checkpoints/retained")).map(|found| found.retained)
    }

    /// How many tasks each vertex of a job shall have, by the vertices' ids.
    pub fn requirements(&self, job: &str) -> Result<Requirements, ClientError> {
        self.get(&format!("/jobs/{job}/resource-requirements"))
    }

    /// Says how many tasks each vertex shall have: every vertex has to be there. The job changes some time later.
    pub fn set_requirements(&self, job: &str, requirements: &Requirements) -> Result<(), ClientError> {
        let body = json!(requirements).to_string();
        self.put_json(&format!("/jobs/{job}/resource-requirements"), &body)
    }
}

/// `GET /jobs/:id/resource-requirements`: by the id of a vertex.
pub type Requirements = BTreeMap<String, Requirement>;

/// What a vertex shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The number of its tasks.
    pub parallelism: Bounds,
}

/// A number of tasks, within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    /// At least.
    pub lower_bound: u32,
    /// At most, and if there are slots.
    pub upper_bound: u32,
}

impl Requirement {
    /// So many tasks, no more and no fewer.
    pub fn exactly(parallelism: u32) -> Self {
        Requirement { parallelism: Bounds { lower_bound: parallelism, upper_bound: parallelism } }
    }
}

/// `GET /jobs/:id/checkpoints`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Checkpoints {
    /// The latest first.
    pub history: Vec<CheckpointView>,
    /// The latest of their kinds.
    pub latest: LatestView,
}

/// The latest in [`Checkpoints`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LatestView {
    /// What the tasks that run now were started from.
    pub restored: Option<RestoredView>,
}

/// What tasks were started from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RestoredView {
    /// The id of the snapshot.
    pub id: u64,
    /// When (milliseconds since 1970).
    pub restore_timestamp: u64,
    /// Its folder.
    pub external_path: String,
}

/// `GET /jobs/:id/checkpoints/retained`
#[derive(Default, Deserialize)]
#[serde(default)]
struct Retained {
    retained: Vec<RetainedView>,
}

/// A complete snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RetainedView {
    /// Its id.
    pub id: u64,
    /// Whether it is the user's.
    pub is_savepoint: bool,
    /// When it was begun (milliseconds since 1970).
    pub trigger_timestamp: i64,
    /// Bytes of it.
    pub state_size: u64,
    /// Its folder.
    pub external_path: String,
    /// Whether it is there; nothing if that could not be found out.
    pub exists: Option<bool>,
}

/// A checkpoint or savepoint in [`Checkpoints`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CheckpointView {
    /// Its id.
    pub id: u64,
    /// `IN_PROGRESS`, `COMPLETED` or `FAILED`.
    pub status: String,
    /// Whether it is the user's.
    pub is_savepoint: bool,
    /// Tasks that take part.
    pub num_subtasks: u64,
    /// Those that have handed in their part.
    pub num_acknowledged_subtasks: u64,
    /// Bytes of it.
    pub state_size: u64,
    /// Milliseconds that it took.
    pub end_to_end_duration: u64,
    /// Where it is, once it is complete.
    pub external_path: Option<String>,
    /// Why it failed.
    pub failure_message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(operation: Value) -> Outcome {
        Outcome::from(serde_json::from_value::<OperationView>(operation).unwrap())
    }

    #[test]
    fn an_operation_ends_with_a_place_an_id_nothing_or_a_reason() {
        assert_eq!(outcome(json!({"location": "file:/sp"})), Outcome::Done("file:/sp".into()));
        assert_eq!(outcome(json!({"checkpointId": 7})), Outcome::Done("7".into()));
        assert_eq!(outcome(json!({})), Outcome::Done(String::new()));
        let text = "flott.Io: disk full\n   at worker 3";
        let cause = json!({"class": "flott.Io", "stack-trace": text, "serialized-throwable": ""});
        assert_eq!(outcome(json!({"failure-cause": cause})), Outcome::Failed("disk full".into()));
        assert_eq!(outcome(json!({"failureCause": "no folder"})), Outcome::Failed("no folder".into()));
    }

    #[test]
    fn what_is_not_said_is_left_out_of_a_body() {
        let fields = [("a", json!(1)), ("b", json!(None::<&str>)), ("c", json!("x")), ("d", Value::Null)];
        assert_eq!(body(fields), r#"{"a":1,"c":"x"}"#);
    }
}
