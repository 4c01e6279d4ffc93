//! How a program learns that it is an executor: one variable of its environment.

use std::path::PathBuf;

use flott_schema::config::options::ExchangeCompression;
use flott_schema::ids::JobId;
use flott_schema::{Error, Result};
use serde::{Deserialize, Serialize};

/// The variable; JSON of [`Environment`]. Not set: the program is none.
pub const VARIABLE: &str = "FLOTT_EXECUTOR";

/// What a worker tells its executor. Fields are added, never renamed: the program may be built with another
/// version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The Unix socket for orders and reports.
    pub control: PathBuf,
    /// The Unix socket over which connections of other executors are handed over.
    pub data: PathBuf,
    /// The job, as it is printed.
    job: String,
    /// Which call of `execute` is meant, from 0.
    pub execution: u32,
    /// Slots of the worker.
    pub slots: u32,
    /// Batches that a channel takes before it blocks its sender.
    pub channel_capacity: usize,
    /// Credit with which each channel from another executor begins, bytes.
    pub window_bytes: u32,
    /// How records to other executors are compressed.
    pub compression: ExchangeCompression,
    /// How long other executors may take until they can be reached.
    pub connect_timeout_ms: u64,
    /// Bytes of spooled results kept in memory.
    pub spool_memory_bytes: usize,
    /// Where temporary files go.
    pub scratch: PathBuf,
    /// Keys of the worker's configuration that say how snapshots are reached, secrets included.
    #[serde(default)]
    pub storage: StorageKeys,
}

/// Keys and values that are not shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorageKeys(pub Vec<(String, String)>);

impl std::fmt::Debug for StorageKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

/// What the task runtime of every executor of a worker is started with.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Slots of the worker.
    pub slots: u32,
    /// Batches that a channel takes before it blocks its sender.
    pub channel_capacity: usize,
    /// Credit with which each channel from another executor begins, bytes.
    pub window_bytes: u32,
    /// How records to other executors are compressed.
    pub compression: ExchangeCompression,
    /// How long other executors may take until they can be reached.
    pub connect_timeout_ms: u64,
    /// Bytes of spooled results kept in memory.
    pub spool_memory_bytes: usize,
    /// Where temporary files go.
    pub scratch: PathBuf,
    /// Keys of the configuration that say how snapshots are reached.
    pub storage: StorageKeys,
}

impl Environment {
    /// For execution `execution` of the program, as job `job`.
    pub fn new(
        control: PathBuf,
        data: PathBuf,
        job: JobId,
        execution: u32,
        runtime: &RuntimeOptions,
    ) -> Self {
        Environment {
            control,
            data,
            job: job.to_string(),
            execution,
            slots: runtime.slots,
            channel_capacity: runtime.channel_capacity,
            window_bytes: runtime.window_bytes,
            compression: runtime.compression,
            connect_timeout_ms: runtime.connect_timeout_ms,
            spool_memory_bytes: runtime.spool_memory_bytes,
            scratch: runtime.scratch.clone(),
            storage: runtime.storage.clone(),
        }
    }

    /// The job.
    pub fn job(&self) -> Result<JobId> {
        self.job.parse()
    }

    /// The value of the variable.
    pub fn to_variable(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// Reads the value of the variable.
    pub fn parse(value: &str) -> Result<Self> {
        let environment: Environment = serde_json::from_str(value).map_err(|error| {
            Error::internal(format!(
                "{VARIABLE} cannot be read: {error}; a worker sets it, and is of another version"
            ))
        })?;
        environment.job()?;
        Ok(environment)
    }
}

/// What the worker that started this process tells it; nothing if it was not started as an executor.
pub fn environment() -> Result<Option<Environment>> {
    std::env::var(VARIABLE).ok().map(|value| Environment::parse(&value)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_can_be_read_back_and_names_itself_when_it_cannot() {
        let runtime = RuntimeOptions {
            slots: 2,
            channel_capacity: 8,
            window_bytes: 1 << 20,
            compression: ExchangeCompression::None,
            connect_timeout_ms: 60_000,
            spool_memory_bytes: 1 << 20,
            scratch: "/tmp".into(),
            storage: StorageKeys(vec![("s3.secret-key".into(), "tell-nobody".into())]),
        };
        assert!(!format!("{runtime:?}").contains("tell-nobody"));
        let environment = Environment::new("/a".into(), "/b".into(), JobId(7), 3, &runtime);
        assert_eq!(Environment::parse(&environment.to_variable().unwrap()).unwrap(), environment);
        assert_eq!(environment.job().unwrap(), JobId(7));
        let error = Environment::parse("{}").unwrap_err();
        assert!(error.to_string().contains(VARIABLE), "{error}");
    }
}
