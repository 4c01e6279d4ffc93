//! Executes what a program has named.

use std::io::Write;

use flott_connectors::SinkConnectors;
use flott_connectors::collect::Collected;
use flott_dataflow::api::{DataStream, StreamEnv};
use flott_dataflow::batch::Record;
use flott_schema::config::options;
use flott_schema::{Error, Result};

use crate::embedded::{EmbeddedCluster, EmbeddedOptions};
use crate::environment::{process_configuration, wants_json_summary};
use crate::result::JobResult;

/// Runs the job that an environment has gathered.
pub trait Execute {
    /// Runs the job to its end: in an embedded cluster, as the process environment configures it. Shows progress and a
    /// summary on the standard error. Under `flott run --json` the summary goes to the standard output as well.
    fn execute(&self, name: &str) -> Result<JobResult>;

    /// Runs the job to its end in an embedded cluster with these options.
    fn execute_with(&self, name: &str, options: EmbeddedOptions) -> Result<JobResult>;
}

impl Execute for StreamEnv {
    fn execute(&self, name: &str) -> Result<JobResult> {
        let configuration = process_configuration()?;
        let name = configuration.get(&options::PIPELINE_NAME)?.unwrap_or_else(|| name.to_string());
        let result = self.execute_with(&name, EmbeddedOptions::from_configuration(&configuration)?)?;
        if wants_json_summary() {
            writeln!(std::io::stdout(), "{}", result.to_json())
                .map_err(|error| Error::io("summary", error))?;
        }
        Ok(result)
    }

    fn execute_with(&self, name: &str, options: EmbeddedOptions) -> Result<JobResult> {
        EmbeddedCluster::new(options).run(self.compile(name)?)
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
