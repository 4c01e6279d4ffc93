//! The environment a program starts with: options from the configuration.

use flott_dataflow::api::StreamEnv;
use flott_dataflow::program::JobOptions;
use flott_schema::config::{Configuration, options};
use flott_schema::{Error, Result, variables};

use crate::place::Place;

/// An environment configured by the process environment: `FLOTT_CONF_PARALLELISM_DEFAULT=4` sets
/// `parallelism.default`, and `flott run -D key=value` sets any key. What the program sets itself counts more.
pub fn env() -> Result<StreamEnv> {
    Ok(StreamEnv::with_options(job_options(&process_configuration()?)?))
}

/// An environment configured by `configuration`, beneath which the process environment is read.
pub fn env_with(configuration: Configuration) -> Result<StreamEnv> {
    let whole = process_configuration()?.overlaid_with(configuration.clone());
    Ok(StreamEnv::with_options(JobOptions { configuration, ..job_options(&whole)? }))
}

/// The configuration that the environment of this process holds; see [`env`].
pub fn process_configuration() -> Result<Configuration> {
    // A variable that is not UTF-8 is none of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let configuration = Configuration::from_environment(variables)?;
    let Ok(pairs) = std::env::var(variables::DYNAMIC_PROPERTIES) else { return Ok(configuration) };
    let pairs: Vec<String> = serde_json::from_str(&pairs).map_err(|error| {
        Error::configuration(format!(
            "{} is not a JSON list of texts: {error}",
            variables::DYNAMIC_PROPERTIES
        ))
    })?;
    Ok(configuration.overlaid_with(Configuration::from_pairs(pairs)?))
}

/// Whether the summary of a job is to be printed as JSON.
pub(crate) fn wants_json_summary() -> bool {
    std::env::var_os(variables::SUMMARY).is_some_and(|format| format == "json")
}

fn job_options(configuration: &Configuration) -> Result<JobOptions> {
    let mut options =
        JobOptions { mode: configuration.get(&options::RUNTIME_MODE)?, ..JobOptions::default() };
    // A program run alone uses the machine it is on, as Flink's local environment does; on a cluster all hosts must agree.
    let alone = Place::of_this_process()?.is_alone();
    options.parallelism = match configuration.is_set(&options::PARALLELISM_DEFAULT) || !alone {
        true => configuration.get(&options::PARALLELISM_DEFAULT)?,
        false => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
    };
    options.max_parallelism = u32::try_from(configuration.get(&options::PIPELINE_MAX_PARALLELISM)?).ok();
    options.chaining = configuration.get(&options::OPERATOR_CHAINING_ENABLED)?;
    let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    options.settings.watermark_interval_ms = millis(configuration.get(&options::AUTO_WATERMARK_INTERVAL)?);
    options.settings.buffer_timeout_ms = match configuration.get(&options::BUFFER_TIMEOUT_ENABLED)? {
        true => millis(configuration.get(&options::BUFFER_TIMEOUT_INTERVAL)?),
        false => -1,
    };
    options.settings.batch_size = configuration.get(&options::WORKER_BATCH_SIZE)? as usize;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flott_connectors::{Connectors, SinkConnectors};
    use flott_schema::job::JobSettings;

    use super::*;

    #[test]
    fn what_a_program_sets_of_how_its_job_runs_is_kept_with_its_options() {
        let env = env_with(Configuration::from_pairs(["restart-strategy.type=none"]).unwrap()).unwrap();
        env.enable_checkpointing(Duration::from_secs(3)).set("state.backend.type", "hashmap");
        let settings = JobSettings::from_configuration(&env.options().configuration).unwrap();
        assert_eq!(settings.checkpoints.interval_ms, Some(3_000));
        assert_eq!(settings.restart, flott_schema::job::RestartStrategy::None);
        env.sequence(1, 3).discard();
        env.compile("right").unwrap();
    }

    #[test]
    fn a_mistake_in_what_a_program_sets_is_reported_when_the_job_is_executed() {
        let env = StreamEnv::new();
        env.enable_checkpointing(Duration::ZERO).set("state.backend.tipe", "hashmap");
        env.sequence(1, 3).discard();
        let error = env.compile("wrong").err().unwrap().to_string();
        assert!(error.contains("execution.checkpointing.interval"), "{error}");
    }
}
