//! The forms of failures and of exceptions.

use flott_schema::error::Result;
use flott_schema::ids::WorkerId;
use flott_schema::wire::generated::machine_capnp::{exception, failed_task, job_failure};
use flott_schema::wire::{Wire, broken, fields};

use crate::machine::exception::{FailedTask, JobException};
use crate::machine::job::JobFailure;

impl Wire for JobFailure {
    type Form = job_failure::Owned;

    fn write(&self, form: job_failure::Builder<'_>) -> Result<()> {
        match self {
            JobFailure::Task(failure) => failure.write(form.init_task()),
            JobFailure::Job { kind, message } => {
                let mut form = form.init_job();
                form.set_kind((*kind).into());
                form.set_message(fields::text_to_write("message", message)?);
                Ok(())
            }
        }
    }

    fn read(form: job_failure::Reader<'_>) -> Result<Self> {
        match form.which() {
            Ok(job_failure::Task(failure)) => Ok(JobFailure::Task(Wire::read(failure.map_err(broken)?)?)),
            Ok(job_failure::Job(form)) => Ok(JobFailure::Job {
                kind: fields::known("kind", form.get_kind())?,
                message: fields::text("message", form.get_message())?,
            }),
            Err(unknown) => fields::known("failure", Err::<JobFailure, _>(unknown)),
        }
    }
}

impl Wire for FailedTask {
    type Form = failed_task::Owned;

    fn write(&self, mut form: failed_task::Builder<'_>) -> Result<()> {
        form.set_at_ms(self.at_ms);
        self.attempt.write(form.reborrow().init_attempt())?;
        if let Some(worker) = self.worker {
            form.set_has_worker(true);
            form.set_worker(worker.0);
        }
        self.failure.write(form.init_failure())
    }

    fn read(form: failed_task::Reader<'_>) -> Result<Self> {
        Ok(FailedTask {
            at_ms: form.get_at_ms(),
            attempt: fields::required("attempt", form.has_attempt(), form.get_attempt())?,
            worker: form.get_has_worker().then(|| WorkerId(form.get_worker())),
            failure: fields::required("failure", form.has_failure(), form.get_failure())?,
        })
    }
}

impl Wire for JobException {
    type Form = exception::Owned;

    fn write(&self, mut form: exception::Builder<'_>) -> Result<()> {
        form.set_at_ms(self.at_ms);
        self.cause.write(form.reborrow().init_cause())?;
        if let Some(attempt) = self.attempt {
            attempt.write(form.reborrow().init_attempt())?;
        }
        if let Some(worker) = self.worker {
            form.set_has_worker(true);
            form.set_worker(worker.0);
        }
        form.set_restarted(self.restarted);
        fields::write_list("concurrent", &self.concurrent, |length| form.init_concurrent(length))
    }

    fn read(form: exception::Reader<'_>) -> Result<Self> {
        Ok(JobException {
            at_ms: form.get_at_ms(),
            cause: fields::required("cause", form.has_cause(), form.get_cause())?,
            attempt: fields::optional("attempt", form.has_attempt(), form.get_attempt())?,
            worker: form.get_has_worker().then(|| WorkerId(form.get_worker())),
            restarted: form.get_restarted(),
            concurrent: fields::list("concurrent", form.get_concurrent())?,
        })
    }
}
