//! The forms of a job: the program behind it, how it is to run, its submission.

use std::sync::Arc;

use super::Wire;
use super::fields::{
    array, known, list, list_length, optional, required, text, text_to_write, texts, write_list,
};
use super::generated::job_capnp::{
    job_settings, job_spec, program_ref, restart_strategy, submission, vertex_parallelism,
};
use crate::error::Result;
use crate::ids::VertexId;
use crate::job::{
    CheckpointSettings, JobSettings, JobSpec, ProgramDigest, ProgramRef, RestartStrategy, StateSettings,
    Submission,
};

impl Wire for ProgramRef {
    type Form = program_ref::Owned;

    fn write(&self, mut form: program_ref::Builder<'_>) -> Result<()> {
        form.set_digest(&self.digest.0);
        form.set_name(text_to_write("name", &self.name)?);
        let length = list_length("arguments", self.arguments.len())?;
        let mut arguments = form.reborrow().init_arguments(length);
        for (index, argument) in (0..).zip(&self.arguments) {
            arguments.set(index, text_to_write("arguments", argument)?);
        }
        form.set_execution(self.execution);
        write_list("configuration", &self.configuration, |length| form.init_configuration(length))
    }

    fn read(form: program_ref::Reader<'_>) -> Result<Self> {
        Ok(ProgramRef {
            digest: ProgramDigest(array("digest", form.get_digest())?),
            name: text("name", form.get_name())?,
            arguments: texts("arguments", form.get_arguments())?,
            execution: form.get_execution(),
            configuration: list("configuration", form.get_configuration())?,
        })
    }
}

impl Wire for RestartStrategy {
    type Form = restart_strategy::Owned;

    fn write(&self, mut form: restart_strategy::Builder<'_>) -> Result<()> {
        match *self {
            RestartStrategy::None => form.set_none(()),
            RestartStrategy::FixedDelay { attempts, delay_ms } => {
                let mut form = form.init_fixed_delay();
                form.set_attempts(attempts);
                form.set_delay_ms(delay_ms);
            }
            RestartStrategy::FailureRate { failures_max, interval_ms, delay_ms } => {
                let mut form = form.init_failure_rate();
                form.set_failures_max(failures_max);
                form.set_interval_ms(interval_ms);
                form.set_rate_delay_ms(delay_ms);
            }
            RestartStrategy::ExponentialDelay {
                initial_ms,
                max_ms,
                multiplier_milli,
                jitter_milli,
                reset_ms,
                attempts,
            } => {
                let mut form = form.init_exponential_delay();
                form.set_initial_ms(initial_ms);
                form.set_max_ms(max_ms);
                form.set_multiplier_milli(multiplier_milli);
                form.set_jitter_milli(jitter_milli);
                form.set_reset_ms(reset_ms);
                form.set_exponential_attempts(attempts);
            }
        }
        Ok(())
    }

    fn read(form: restart_strategy::Reader<'_>) -> Result<Self> {
        Ok(match known("strategy", form.which())? {
            restart_strategy::None(()) => RestartStrategy::None,
            restart_strategy::FixedDelay(form) => {
                RestartStrategy::FixedDelay { attempts: form.get_attempts(), delay_ms: form.get_delay_ms() }
            }
            restart_strategy::FailureRate(form) => RestartStrategy::FailureRate {
                failures_max: form.get_failures_max(),
                interval_ms: form.get_interval_ms(),
                delay_ms: form.get_rate_delay_ms(),
            },
            restart_strategy::ExponentialDelay(form) => RestartStrategy::ExponentialDelay {
                initial_ms: form.get_initial_ms(),
                max_ms: form.get_max_ms(),
                multiplier_milli: form.get_multiplier_milli(),
                jitter_milli: form.get_jitter_milli(),
                reset_ms: form.get_reset_ms(),
                attempts: form.get_exponential_attempts(),
            },
        })
    }
}

impl Wire for JobSettings {
    type Form = job_settings::Owned;

    fn write(&self, mut form: job_settings::Builder<'_>) -> Result<()> {
        self.restart.write(form.reborrow().init_restart())?;
        form.set_restart_all(self.restart_all);
        let mut slot_wait = form.reborrow().init_slot_wait();
        match self.slot_wait_ms {
            Some(wait_ms) => slot_wait.set_ms(wait_ms),
            None => slot_wait.set_as_configured(()),
        }
        form.set_cancellation_timeout_ms(self.cancellation_timeout_ms);
        if self.checkpoints != CheckpointSettings::default() {
            self.checkpoints.write(form.reborrow().init_checkpoints())?;
        }
        if self.state != StateSettings::default() {
            self.state.write(form.init_state())?;
        }
        Ok(())
    }

    fn read(form: job_settings::Reader<'_>) -> Result<Self> {
        Ok(JobSettings {
            restart: required("restart", form.has_restart(), form.get_restart())?,
            restart_all: form.get_restart_all(),
            slot_wait_ms: match known("slotWait", form.get_slot_wait().which())? {
                job_settings::slot_wait::AsConfigured(()) => None,
                job_settings::slot_wait::Ms(wait_ms) => Some(wait_ms),
            },
            cancellation_timeout_ms: form.get_cancellation_timeout_ms(),
            checkpoints: optional("checkpoints", form.has_checkpoints(), form.get_checkpoints())?
                .unwrap_or_default(),
            state: optional("state", form.has_state(), form.get_state())?.unwrap_or_default(),
        })
    }
}

impl Wire for JobSpec {
    type Form = job_spec::Owned;

    fn write(&self, mut form: job_spec::Builder<'_>) -> Result<()> {
        self.graph.write(form.reborrow().init_graph()).map_err(|error| error.at("graph"))?;
        if let Some(program) = &self.program {
            program.write(form.reborrow().init_program()).map_err(|error| error.at("program"))?;
        }
        self.settings.write(form.reborrow().init_settings())?;
        if !self.parallelism.is_empty() {
            let parallelism: Vec<(VertexId, u32)> = self.parallelism.clone().into_iter().collect();
            write_list("parallelism", &parallelism, |length| form.reborrow().init_parallelism(length))?;
        }
        match &self.restore {
            Some(restore) => restore.write(form.init_restore()).map_err(|error| error.at("restore")),
            None => Ok(()),
        }
    }

    fn read(form: job_spec::Reader<'_>) -> Result<Self> {
        Ok(JobSpec {
            graph: Arc::new(required("graph", form.has_graph(), form.get_graph())?),
            program: optional("program", form.has_program(), form.get_program())?,
            settings: required("settings", form.has_settings(), form.get_settings())?,
            restore: optional("restore", form.has_restore(), form.get_restore())?,
            parallelism: list::<(VertexId, u32)>("parallelism", form.get_parallelism())?
                .into_iter()
                .collect(),
        })
    }
}

impl Wire for (VertexId, u32) {
    type Form = vertex_parallelism::Owned;

    fn write(&self, mut form: vertex_parallelism::Builder<'_>) -> Result<()> {
        form.set_parallelism(self.1);
        self.0.write(form.init_vertex())
    }

    fn read(form: vertex_parallelism::Reader<'_>) -> Result<Self> {
        Ok((required("vertex", form.has_vertex(), form.get_vertex())?, form.get_parallelism()))
    }
}

impl Wire for Submission {
    type Form = submission::Owned;

    fn write(&self, mut form: submission::Builder<'_>) -> Result<()> {
        self.job.write(form.reborrow().init_job())?;
        self.spec.write(form.init_spec()).map_err(|error| error.at("spec"))
    }

    fn read(form: submission::Reader<'_>) -> Result<Self> {
        Ok(Submission {
            job: required("job", form.has_job(), form.get_job())?,
            spec: required("spec", form.has_spec(), form.get_spec())?,
        })
    }
}
