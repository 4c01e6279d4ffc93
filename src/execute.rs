//! Executes what a program has named.

use std::io::Write;
use std::sync::Arc;

use flott_connectors::SinkConnectors;
use flott_connectors::collect::Collected;
use flott_dataflow::api::{DataStream, StreamEnv};
use flott_dataflow::batch::Record;
use flott_schema::config::options;
use flott_schema::{Error, Result};
use flott_worker::executor;

use crate::embedded::{EmbeddedCluster, EmbeddedOptions, new_job_id};
use crate::environment::{process_configuration, wants_json_summary};
use crate::place::{Place, next_execution};
use crate::restore::{note_plan, restore_from};
use crate::result::JobResult;
use crate::submit::submit;

/// Runs the job that an environment has gathered.
pub trait Execute {
    /// Runs the job to its end, where the process environment says: in an embedded cluster, or as a job of the cluster that
    /// `flott run -m` names. Shows progress and a summary on the standard error. Under `flott run --json` the summary goes to
    /// the standard output as well. Under `flott run -d` it returns once the job is submitted.
    ///
    /// The workers of a cluster start the same program with the same arguments and settings: it must come to the same call of
    /// `execute` with the same job, whatever the host. There it becomes the executor of the job's tasks, so in that process
    /// the call does not return, and calls before it return at once with an empty result.
    fn execute(&self, name: &str) -> Result<JobResult>;

    /// Runs the job to its end in an embedded cluster with these options, also where the program is a client of a cluster. In
    /// an executor nothing runs, since it has run in the client: the call returns at once with an empty result.
    fn execute_with(&self, name: &str, options: EmbeddedOptions) -> Result<JobResult>;
}

impl Execute for StreamEnv {
    fn execute(&self, name: &str) -> Result<JobResult> {
        let configuration = process_configuration()?.overlaid_with(self.options().configuration);
        flott_storage::configure(&flott_storage::keys_of(&configuration))?;
        let name = configuration.get(&options::PIPELINE_NAME)?.unwrap_or_else(|| name.to_string());
        let result = match Place::of_this_process()? {
            Place::Embedded => {
                let program = Arc::new(self.compile(&name)?);
                let restore = restore_from(&configuration, &program, true)?;
                let options =
                    EmbeddedOptions { restore, ..EmbeddedOptions::from_configuration(&configuration)? };
                EmbeddedCluster::new(options).run(program)?
            }
            Place::Client(target) => {
                let program = Arc::new(self.compile(&name)?);
                submit(&target, &program, next_execution(), &configuration)?
            }
            Place::Planner { notes, .. } => {
                let program = Arc::new(self.compile(&name)?);
                note_plan(&notes, &configuration, &program)?;
                return Ok(JobResult::without_numbers(new_job_id(), &program.graph));
            }
            Place::Executor(environment) => {
                let program = self.compile(&name)?;
                if next_execution() == environment.execution {
                    executor::run(environment, program);
                }
                return Ok(JobResult::without_numbers(environment.job()?, &program.graph));
            }
        };
        if wants_json_summary() {
            writeln!(std::io::stdout(), "{}", result.to_json())
                .map_err(|error| Error::io("summary", error))?;
        }
        Ok(result)
    }

    fn execute_with(&self, name: &str, options: EmbeddedOptions) -> Result<JobResult> {
        let program = self.compile(name)?;
        match Place::of_this_process()? {
            Place::Executor(environment) => {
                Ok(JobResult::without_numbers(environment.job()?, &program.graph))
            }
            Place::Planner { .. } => Ok(JobResult::without_numbers(new_job_id(), &program.graph)),
            Place::Embedded | Place::Client(_) => EmbeddedCluster::new(options).run(program),
        }
    }
}

/// Runs the job a stream belongs to, and gives the stream's records.
pub trait ExecuteAndCollect<T> {
    /// Executes everything the stream's environment has gathered, and collects this stream. For small results: more than
    /// ten million records fail the job.
    fn execute_and_collect(&self, name: &str) -> Result<Vec<T>>;
}

impl<T: Record> ExecuteAndCollect<T> for DataStream<T> {
    fn execute_and_collect(&self, name: &str) -> Result<Vec<T>> {
        let collected = Collected::new();
        self.collect_into(&collected);
        self.env().execute(name)?;
        Ok(collected.take())
    }
}
