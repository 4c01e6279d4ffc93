//! The forms of what passes between a coordinator and its workers.

use std::sync::Arc;

use super::Wire;
use super::fields::{known, list, optional, required, text, text_to_write, write_list};
use super::generated::control_capnp::{order, running_task, task_report, worker_host};
use crate::control::{Order, RunningTask, TaskReport, ToWorker, WorkerHost};
use crate::error::{Error, Result};
use crate::ids::WorkerId;

impl Wire for RunningTask {
    type Form = running_task::Owned;

    fn write(&self, mut form: running_task::Builder<'_>) -> Result<()> {
        self.job.write(form.reborrow().init_job())?;
        self.attempt.write(form.reborrow().init_attempt())?;
        form.set_state(self.state.into());
        Ok(())
    }

    fn read(form: running_task::Reader<'_>) -> Result<Self> {
        Ok(RunningTask {
            job: required("job", form.has_job(), form.get_job())?,
            attempt: required("attempt", form.has_attempt(), form.get_attempt())?,
            state: known("state", form.get_state())?,
        })
    }
}

impl Wire for TaskReport {
    type Form = task_report::Owned;

    fn write(&self, mut form: task_report::Builder<'_>) -> Result<()> {
        self.job.write(form.reborrow().init_job())?;
        self.attempt.write(form.reborrow().init_attempt())?;
        form.set_state(self.state.into());
        match &self.failure {
            Some(failure) => failure.write(form.init_failure()).map_err(|error| error.at("failure")),
            None => Ok(()),
        }
    }

    fn read(form: task_report::Reader<'_>) -> Result<Self> {
        Ok(TaskReport {
            job: required("job", form.has_job(), form.get_job())?,
            attempt: required("attempt", form.has_attempt(), form.get_attempt())?,
            state: known("state", form.get_state())?,
            failure: optional("failure", form.has_failure(), form.get_failure())?,
        })
    }
}

impl Wire for WorkerHost {
    type Form = worker_host::Owned;

    fn write(&self, mut form: worker_host::Builder<'_>) -> Result<()> {
        form.set_worker(self.worker.0);
        form.set_data_address(text_to_write("dataAddress", &self.data_address)?);
        Ok(())
    }

    fn read(form: worker_host::Reader<'_>) -> Result<Self> {
        Ok(WorkerHost {
            worker: WorkerId(form.get_worker()),
            data_address: text("dataAddress", form.get_data_address())?,
        })
    }
}

impl Wire for Order {
    type Form = order::Owned;

    fn write(&self, mut form: order::Builder<'_>) -> Result<()> {
        form.set_term(self.term);
        match &self.message {
            ToWorker::Deploy { job, spec, tasks, peers, hosts, restore: _ } => {
                let mut form = form.init_deploy();
                job.write(form.reborrow().init_job())?;
                spec.write(form.reborrow().init_spec()).map_err(|error| error.at("spec"))?;
                write_list("tasks", tasks, |length| form.reborrow().init_tasks(length))?;
                write_list("peers", peers.iter(), |length| form.reborrow().init_peers(length))?;
                write_list("hosts", hosts.iter(), |length| form.reborrow().init_hosts(length))
            }
            ToWorker::Cancel { job, attempts } => {
                let mut form = form.init_cancel();
                job.write(form.reborrow().init_cancel_job())?;
                write_list("attempts", attempts, |length| form.init_attempts(length))
            }
            ToWorker::Checkpoint(_) | ToWorker::CheckpointEnded { .. } => {
                Err(Error::internal("orders of checkpoints have no wire form"))
            }
            ToWorker::Release { job } => job.write(form.init_release().init_release_job()),
        }
    }

    fn read(form: order::Reader<'_>) -> Result<Self> {
        let message = match known("order", form.which())? {
            order::Deploy(form) => ToWorker::Deploy {
                job: required("job", form.has_job(), form.get_job())?,
                spec: Arc::new(required("spec", form.has_spec(), form.get_spec())?),
                tasks: list("tasks", form.get_tasks())?,
                peers: list("peers", form.get_peers())?.into(),
                hosts: list("hosts", form.get_hosts())?.into(),
                restore: None,
            },
            order::Cancel(form) => ToWorker::Cancel {
                job: required("cancelJob", form.has_cancel_job(), form.get_cancel_job())?,
                attempts: list("attempts", form.get_attempts())?,
            },
            order::Release(form) => ToWorker::Release {
                job: required("releaseJob", form.has_release_job(), form.get_release_job())?,
            },
        };
        Ok(Order { term: form.get_term(), message })
    }
}
