//! `flott rescale`: gives a running job another parallelism.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use flott::client::snapshots::{Requirement, Requirements};
use flott::client::views::{JobDetails, VertexDetails, count, has_ended};
use flott::client::{Client, ClientError};
use flott::schema::ids::OperatorId;
use flott::schema::nearest::nearest;
use flott::{Error, ErrorKind, Result};
use serde_json::json;

use super::connection::{Connection, length};
use super::operation::Wait;

/// Gives a running job another parallelism: it takes a checkpoint, and goes on from there with as many tasks.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// The job's id, or the beginning of it
    job: String,

    /// Number of tasks of every vertex that may have more than one
    #[arg(short, long, value_name = "N", required_unless_present = "vertices", value_parser = at_least_one())]
    parallelism: Option<u32>,

    /// Number of tasks of one vertex, by the uid of its first operator, its id or its name; may be given several times
    #[arg(long = "vertex", value_name = "UID=N")]
    vertices: Vec<String>,

    /// Does not wait until the job runs so
    #[arg(long)]
    no_wait: bool,

    /// How long to wait for that; it goes on after that
    #[arg(long, value_name = "DURATION", default_value = "15 min", value_parser = length)]
    timeout: Duration,

    /// Prints the vertices and their parallelism as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott rescale 3f9a -p 4
  flott rescale -m host:8081 3f9a1c --vertex parse=2 --vertex count=8";

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=32_768)
}

impl Arguments {
    /// Rescales the job.
    pub fn run(self) -> Result<ExitCode> {
        let client = self.connection.client()?;
        let found = client.find_job(&self.job)?;
        if has_ended(&found.state) {
            return Err(Error::bad_input(format!(
                "job {} ('{}') has ended already: {}",
                found.jid, found.name, found.state
            )));
        }
        let job = client.job(&found.jid).map_err(ClientError::into_error)?;
        let before = client.requirements(&job.jid).map_err(ClientError::into_error)?;
        let wanted = self.wanted(&job)?;
        let mut requirements = before.clone();
        for (id, parallelism) in &wanted {
            requirements.insert(id.clone(), Requirement::exactly(*parallelism));
        }
        client.set_requirements(&job.jid, &requirements).map_err(ClientError::into_error)?;
        if !self.no_wait {
            self.wait(&client, &job, &wanted, &requirements)?;
        }
        let named: Vec<_> = job
            .vertices
            .iter()
            .map(|vertex| (vertex, wanted.get(&vertex.id).copied().unwrap_or(vertex.parallelism)))
            .collect();
        if self.json {
            let vertices: Vec<_> = named
                .iter()
                .map(|(vertex, now)| {
                    json!({"id": vertex.id, "name": vertex.name, "before": vertex.parallelism, "parallelism": now})
                })
                .collect();
            println!("{}", json!({"job": job.jid, "name": job.name, "vertices": vertices}));
            return Ok(ExitCode::SUCCESS);
        }
        let how = if self.no_wait { "is being rescaled" } else { "is rescaled" };
        println!("job {} ('{}') {how}", job.jid, job.name);
        for (vertex, now) in named.iter().filter(|(vertex, now)| vertex.parallelism != *now) {
            println!("  {}: {} -> {now} tasks", vertex.name, vertex.parallelism);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The number of tasks that vertices are to have, by their ids.
    fn wanted(&self, job: &JobDetails) -> Result<BTreeMap<String, u32>> {
        let mut wanted = BTreeMap::new();
        if let Some(parallelism) = self.parallelism {
            // What may have one task only stays as it is.
            let several = job.vertices.iter().filter(|vertex| vertex.max_parallelism != 1);
            wanted.extend(several.map(|vertex| (vertex.id.clone(), parallelism)));
        }
        wanted.extend(named(&self.vertices, &job.vertices)?);
        Ok(wanted)
    }

    /// Waits until the job runs with the tasks that were asked for. An error if it does not come to that.
    fn wait(
        &self,
        client: &Client,
        before: &JobDetails,
        wanted: &BTreeMap<String, u32>,
        requirements: &Requirements,
    ) -> Result<()> {
        let what = format!("the rescaling of job {} ('{}')", before.jid, before.name);
        let wait = Wait::begin(what.as_str(), self.timeout);
        loop {
            let how_far = match client.job(&before.jid) {
                Ok(job) if has_ended(&job.state) => {
                    let text = format!("{what} has no end: the job ended {}", job.state);
                    return Err(Error::new(ErrorKind::UserCode, text));
                }
                Ok(job) if runs_with(&job, wanted) => return Ok(()),
                Ok(job) => format!("{} of {} tasks run", job.tasks_in("RUNNING"), job.task_count()),
                Err(error) if wait.goes_on_after(&error) => "the coordinators change places".into(),
                Err(error) => return Err(error.into_error()),
            };
            // A coordinator tells what the job is about to get; one that has given it up, what it has.
            if client.requirements(&before.jid).is_ok_and(|now| now != *requirements) {
                let reason = last_failure(client, &before.jid);
                let text = format!("{what} was given up, and the job goes on as it was{reason}");
                return Err(Error::new(ErrorKind::Io, text));
            }
            wait.step(&how_far)?;
        }
    }
}

/// The number of tasks of each vertex that is named, by its id. To name one twice, in whatever way, is a mistake: nobody knows which number is
/// meant.
fn named(given: &[String], vertices: &[VertexDetails]) -> Result<BTreeMap<String, u32>> {
    let mut wanted: BTreeMap<String, (&str, u32)> = BTreeMap::new();
    for one in given {
        let (name, number) = parsed(one)?;
        let vertex = find(name, vertices)?;
        if let Some((other, _)) = wanted.insert(vertex.id.clone(), (one, number)) {
            return Err(Error::configuration(format!(
                "--vertex {other} and --vertex {one} name the same vertex, '{}'; name it once",
                vertex.name
            )));
        }
    }
    Ok(wanted.into_iter().map(|(id, (_, number))| (id, number)).collect())
}

/// `UID=N`
fn parsed(given: &str) -> Result<(&str, u32)> {
    let wrong = || {
        let text = "is no vertex and number of tasks: write UID=N, such as --vertex count=4";
        Error::configuration(format!("'{given}' {text}"))
    };
    let (name, number) = given.rsplit_once('=').ok_or_else(wrong)?;
    let number =
        number.trim().parse().ok().filter(|number| (1..=32_768).contains(number)).ok_or_else(wrong)?;
    Ok((name.trim(), number))
}

/// The vertex that is meant by the uid of its first operator, its id or its name.
fn find<'a>(name: &str, vertices: &'a [VertexDetails]) -> Result<&'a VertexDetails> {
    let id = OperatorId::of_uid(name).to_string();
    let is_meant = |vertex: &&VertexDetails| [&id, name].contains(&vertex.id.as_str()) || vertex.name == name;
    vertices.iter().find(is_meant).ok_or_else(|| {
        let near = nearest(name, vertices.iter().map(|vertex| vertex.name.as_str()));
        let near = near.map_or_else(String::new, |near| format!("; the nearest is '{near}'"));
        let names: Vec<String> =
            vertices.iter().map(|vertex| format!("'{}' {}", vertex.name, vertex.id)).collect();
        Error::bad_input(format!(
            "the job has no vertex '{name}'{near}; its vertices are {}",
            names.join(", ")
        ))
    })
}

fn runs_with(job: &JobDetails, wanted: &BTreeMap<String, u32>) -> bool {
    let is_so = |vertex: &VertexDetails| {
        let running = count(&vertex.tasks, "RUNNING") + count(&vertex.tasks, "FINISHED");
        let number = wanted.get(&vertex.id).copied().unwrap_or(vertex.parallelism);
        vertex.parallelism == number && running == u64::from(number)
    };
    job.state == "RUNNING" && job.vertices.iter().all(is_so)
}

/// Why the last checkpoint failed, if one did.
fn last_failure(client: &Client, job: &str) -> String {
    let history = client.checkpoints(job).map(|checkpoints| checkpoints.history).unwrap_or_default();
    let failed = history.into_iter().find(|checkpoint| checkpoint.status == "FAILED");
    let reason = failed.and_then(|checkpoint| checkpoint.failure_message);
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(uid: &str, name: &str) -> VertexDetails {
        let vertex = json!({
            "id": OperatorId::of_uid(uid).to_string(), "name": name, "parallelism": 2, "maxParallelism": 128,
            "status": "RUNNING", "tasks": {"RUNNING": 2},
        });
        serde_json::from_value(vertex).unwrap()
    }

    #[test]
    fn a_vertex_is_found_by_uid_id_and_name() {
        let vertices = [vertex("parse-1", "Parse -> Sum"), vertex("sink-1", "Sink")];
        for name in ["sink-1", "Sink", &OperatorId::of_uid("sink-1").to_string()] {
            assert_eq!(find(name, &vertices).unwrap().name, "Sink");
        }
        let error = find("Sinc", &vertices).unwrap_err().to_string();
        assert!(error.contains("the nearest is 'Sink'") && error.contains("'Parse -> Sum'"), "{error}");
    }

    #[test]
    fn a_vertex_that_is_named_twice_is_a_usage_error() {
        let vertices = [vertex("parse-1", "Parse -> Sum"), vertex("sink-1", "Sink")];
        let given = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let wanted = named(&given(&["parse-1=2", "Sink=3"]), &vertices).unwrap();
        assert_eq!(wanted.into_values().collect::<std::collections::BTreeSet<_>>(), [2, 3].into());
        for twice in [["sink-1=3", "sink-1=3"], ["sink-1=2", "Sink=3"]] {
            let error = named(&given(&twice), &vertices).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains("name the same vertex, 'Sink'"), "{error}");
        }
    }

    #[test]
    fn a_number_stands_behind_the_last_sign() {
        assert_eq!(parsed("a=b=3").unwrap(), ("a=b", 3));
        for wrong in ["a", "a=", "a=0", "a=x", "a=40000"] {
            assert!(parsed(wrong).unwrap_err().to_string().contains("write UID=N"), "{wrong}");
        }
    }

    #[test]
    fn a_job_is_rescaled_when_all_its_tasks_run() {
        let job = |state: &str, running: u32| -> JobDetails {
            let mut parse = json!({
                "id": "aa", "name": "Parse", "parallelism": 3, "maxParallelism": 128, "status": "RUNNING",
                "tasks": {"RUNNING": running, "DEPLOYING": 3 - running},
            });
            parse["tasks"]["FINISHED"] = 0.into();
            let job = json!({
                "jid": "00", "name": "job", "state": state, "start-time": 0, "end-time": -1, "duration": 1,
                "vertices": [parse],
            });
            serde_json::from_value(job).unwrap()
        };
        let wanted = |number| [("aa".to_string(), number)].into();
        assert!(runs_with(&job("RUNNING", 3), &wanted(3)));
        assert!(!runs_with(&job("RUNNING", 2), &wanted(3)));
        assert!(!runs_with(&job("RESTARTING", 3), &wanted(3)));
        assert!(!runs_with(&job("RUNNING", 3), &wanted(2)));
    }
}
