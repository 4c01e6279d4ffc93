//! A program that submits itself to a cluster.
//!
//! * [`submit`]: one execution of the program becomes a job of the cluster
//! * `program`: the program's own file, and what it is started with again
//! * `watch`: waiting for the end, with progress; `summary`: what is said of it then
//!
//! Who may call it: [`crate::Execute`], when `flott run` or a worker has started this program as a client. What must never
//! happen here: running a task.

mod program;
mod summary;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use flott_dataflow::program::Program;
use flott_schema::config::Configuration;
use flott_schema::graph::JobGraph;
use flott_schema::ids::JobId;
use flott_schema::job::{JobSettings, JobSpec, ProgramRef, Submission};
use flott_schema::plan::Plan;
use flott_schema::{Error, Result, variables, wire};

use crate::client::{Addresses, Client, ClientError};
use crate::embedded::new_job_id;
use crate::restore::restore_from;
use crate::result::JobResult;

/// The media type of a submission.
const CONTENT_TYPE: &str = "application/x-flott-submission";

/// What `flott run`, or a worker that runs a stored program, asks of this one.
pub struct Target {
    addresses: Addresses,
    detached: bool,
    /// Where the jobs are noted.
    notes: Option<PathBuf>,
    plan_only: bool,
}

impl Target {
    /// The target that the process environment names, if it names one.
    pub fn of_this_process() -> Result<Option<Self>> {
        let Some(addresses) = std::env::var_os(variables::SUBMIT).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let addresses =
            addresses.to_string_lossy().parse().map_err(|error: Error| error.at(variables::SUBMIT))?;
        let is_on = |variable| std::env::var_os(variable).is_some_and(|value| value == "1");
        Ok(Some(Target {
            addresses,
            detached: is_on(variables::DETACHED),
            notes: std::env::var_os(variables::SUBMITTED).map(PathBuf::from),
            plan_only: is_on(variables::PLAN_ONLY),
        }))
    }

    /// Tells whoever started this program.
    fn note(&self, line: &str) -> Result<()> {
        let Some(path) = &self.notes else { return Ok(()) };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}")).map_err(|error| Error::io(path.display(), error))
    }
}

/// Submits execution number `execution` of this program, and waits for its end unless detached. `configuration` is that of
/// the process.
pub fn submit(
    target: &Target,
    program: &Arc<Program>,
    execution: u32,
    configuration: &Configuration,
) -> Result<JobResult> {
    let graph = program.graph.clone();
    refuse_collecting(&graph)?;
    let job = new_job_id();
    if target.plan_only {
        target.note(&serde_json::to_string(&Plan::of(&graph, job))?)?;
        return Ok(JobResult::without_numbers(job, &graph));
    }
    let own = program::own()?;
    let spec = JobSpec {
        graph: graph.clone().into(),
        program: Some(ProgramRef {
            digest: own.digest,
            name: own.name.clone(),
            arguments: program::arguments()?,
            execution,
            configuration: program::configuration_of_the_job(configuration),
        }),
        settings: JobSettings::from_configuration(configuration)?,
        restore: restore_from(configuration, program, false)?,
        parallelism: Default::default(),
    };
    flott_storage::check_places(&spec)?;
    let body = wire::to_bytes(&Submission { job, spec })?;
    let client = Client::new(target.addresses.clone(), configuration)?;
    let place = || format!("job '{}' was not submitted", graph.name);
    upload(&client, &own).map_err(|error| error.into_error().at(place()))?;
    let _: crate::client::views::Submitted =
        client.post("/jobs", CONTENT_TYPE, &body).map_err(|error| error.into_error().at(place()))?;
    target.note(&job.to_string())?;
    match target.detached {
        true => {
            announce(job, &graph, "submitted");
            Ok(JobResult::without_numbers(job, &graph))
        }
        false => {
            announce(job, &graph, "submitted; Ctrl-C cancels it");
            watch::to_the_end(client, job, &graph)
        }
    }
}

fn announce(job: JobId, graph: &JobGraph, what: &str) {
    eprintln!("job '{}' {job} {what}", graph.name);
}

fn upload(client: &Client, own: &program::Own) -> Result<(), ClientError> {
    if client.has_program(own.digest)? {
        return Ok(());
    }
    eprintln!("uploading {} ({} MiB)", own.name, own.size_bytes.div_ceil(1 << 20));
    let id = client.upload_program(&own.path, &own.name)?;
    match id.starts_with(&own.digest.to_string()) {
        true => Ok(()),
        false => Err(ClientError::Strange {
            address: client.addresses().to_string(),
            path: "/jars/upload".into(),
            reason: format!("it has stored the program as {id}, not as {}", own.digest),
        }),
    }
}

/// What is collected is collected where a sink runs, which is in another process.
fn refuse_collecting(graph: &JobGraph) -> Result<()> {
    let operators = graph.vertices.iter().flat_map(|vertex| &vertex.operators);
    match operators.into_iter().any(|operator| operator.name == "Sink: Collect") {
        true => Err(Error::graph(format!(
            "job '{}' collects records in the program's own memory, but on a cluster its sinks run in other processes; write \
             them to files, or run the program in an embedded cluster (without -m and FLOTT_COORDINATOR)",
            graph.name
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use flott_connectors::collect::Collected;
    use flott_connectors::{Connectors, SinkConnectors};
    use flott_dataflow::api::StreamEnv;

    use super::*;

    #[test]
    fn a_job_that_collects_is_refused_with_what_to_do_instead() {
        let env = StreamEnv::new();
        env.sequence(1, 3).collect_into(&Collected::new());
        let error = refuse_collecting(&env.compile("small").unwrap().graph).unwrap_err().to_string();
        assert!(error.contains("job 'small'") && error.contains("write them to files"), "{error}");
        let env = StreamEnv::new();
        env.sequence(1, 3).discard();
        refuse_collecting(&env.compile("small").unwrap().graph).unwrap();
    }
}
