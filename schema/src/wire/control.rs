//! The forms of what passes between a coordinator and its workers.

use std::sync::Arc;

use super::Wire;
use super::common::{FAILURE_BYTES_MAX, beginning};
use super::fields::{known, list, optional, required, text, text_to_write, write_list};
use super::generated::control_capnp::{
    checkpoint_order, order, prepare_order, report, running_task, snapshot_report, task_report, waiting_task,
    worker_host,
};
use crate::control::{
    CheckpointOrder, Order, PrepareOrder, Report, RunningTask, SnapshotReport, TaskReport, ToWorker,
    WorkerHost,
};
use crate::error::Result;
use crate::ids::{AttemptId, JobId, WorkerId};

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

impl Wire for SnapshotReport {
    type Form = snapshot_report::Owned;

    fn write(&self, mut form: snapshot_report::Builder<'_>) -> Result<()> {
        self.job.write(form.reborrow().init_job())?;
        self.attempt.write(form.reborrow().init_attempt())?;
        form.set_checkpoint(self.checkpoint);
        form.set_handed_in(self.handed_in);
        match &self.result {
            Ok(snapshot) => snapshot.write(form.init_taken()).map_err(|error| error.at("taken")),
            Err(reason) => {
                form.set_failed(beginning(reason, FAILURE_BYTES_MAX));
                Ok(())
            }
        }
    }

    fn read(form: snapshot_report::Reader<'_>) -> Result<Self> {
        Ok(SnapshotReport {
            job: required("job", form.has_job(), form.get_job())?,
            attempt: required("attempt", form.has_attempt(), form.get_attempt())?,
            checkpoint: form.get_checkpoint(),
            handed_in: form.get_handed_in(),
            result: match known("result", form.which())? {
                snapshot_report::Taken(taken) => Ok(required("taken", form.has_taken(), taken)?),
                snapshot_report::Failed(reason) => Err(text("failed", reason)?),
            },
        })
    }
}

impl Wire for Report {
    type Form = report::Owned;

    fn write(&self, form: report::Builder<'_>) -> Result<()> {
        match self {
            Report::Task(report) => report.write(form.init_task()),
            Report::LastSnapshot(report) => report.write(form.init_last_snapshot()),
        }
    }

    fn read(form: report::Reader<'_>) -> Result<Self> {
        Ok(match known("report", form.which())? {
            report::Task(task) => Report::Task(required("task", form.has_task(), task)?),
            report::LastSnapshot(last) => {
                Report::LastSnapshot(Box::new(required("lastSnapshot", form.has_last_snapshot(), last)?))
            }
        })
    }
}

/// A task that waits for a snapshot.
impl Wire for (JobId, AttemptId) {
    type Form = waiting_task::Owned;

    fn write(&self, mut form: waiting_task::Builder<'_>) -> Result<()> {
        self.0.write(form.reborrow().init_job())?;
        self.1.write(form.init_attempt())
    }

    fn read(form: waiting_task::Reader<'_>) -> Result<Self> {
        Ok((
            required("job", form.has_job(), form.get_job())?,
            required("attempt", form.has_attempt(), form.get_attempt())?,
        ))
    }
}

impl Wire for CheckpointOrder {
    type Form = checkpoint_order::Owned;

    fn write(&self, mut form: checkpoint_order::Builder<'_>) -> Result<()> {
        self.job.write(form.reborrow().init_job())?;
        self.barrier.write(form.reborrow().init_barrier())?;
        form.set_folder(text_to_write("folder", &self.folder)?);
        if let Some(folder) = &self.shared_folder {
            form.set_shared_folder(text_to_write("sharedFolder", folder)?);
        }
        write_list("attempts", &self.attempts, |length| form.init_attempts(length))
    }

    fn read(form: checkpoint_order::Reader<'_>) -> Result<Self> {
        let shared_folder = text("sharedFolder", form.get_shared_folder())?;
        Ok(CheckpointOrder {
            job: required("job", form.has_job(), form.get_job())?,
            barrier: required("barrier", form.has_barrier(), form.get_barrier())?,
            folder: text("folder", form.get_folder())?,
            shared_folder: form.has_shared_folder().then_some(shared_folder),
            attempts: list("attempts", form.get_attempts())?,
        })
    }
}

impl Wire for PrepareOrder {
    type Form = prepare_order::Owned;

    fn write(&self, mut form: prepare_order::Builder<'_>) -> Result<()> {
        self.job.write(form.reborrow().init_job())?;
        self.spec.write(form.reborrow().init_spec()).map_err(|error| error.at("spec"))?;
        write_list("tasks", &self.tasks, |length| form.reborrow().init_tasks(length))?;
        write_list("hosts", self.hosts.iter(), |length| form.reborrow().init_hosts(length))?;
        match &self.restore {
            Some(restore) => restore.write(form.init_restore()).map_err(|error| error.at("restore")),
            None => Ok(()),
        }
    }

    fn read(form: prepare_order::Reader<'_>) -> Result<Self> {
        Ok(PrepareOrder {
            job: required("job", form.has_job(), form.get_job())?,
            spec: Arc::new(required("spec", form.has_spec(), form.get_spec())?),
            tasks: list("tasks", form.get_tasks())?,
            hosts: list("hosts", form.get_hosts())?.into(),
            restore: optional("restore", form.has_restore(), form.get_restore())?.map(Arc::new),
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
            ToWorker::Deploy { job, spec, tasks, peers, hosts, restore } => {
                let mut form = form.init_deploy();
                job.write(form.reborrow().init_job())?;
                spec.write(form.reborrow().init_spec()).map_err(|error| error.at("spec"))?;
                write_list("tasks", tasks, |length| form.reborrow().init_tasks(length))?;
                write_list("peers", peers.iter(), |length| form.reborrow().init_peers(length))?;
                write_list("hosts", hosts.iter(), |length| form.reborrow().init_hosts(length))?;
                match restore {
                    Some(restore) => restore.write(form.init_restore()).map_err(|error| error.at("restore")),
                    None => Ok(()),
                }
            }
            ToWorker::Cancel { job, attempts } => {
                let mut form = form.init_cancel();
                job.write(form.reborrow().init_cancel_job())?;
                write_list("attempts", attempts, |length| form.init_attempts(length))
            }
            ToWorker::Checkpoint(order) => order.write(form.init_checkpoint()),
            ToWorker::CheckpointEnded { job, checkpoint, completed, attempts } => {
                let mut form = form.init_checkpoint_ended();
                job.write(form.reborrow().init_ended_job())?;
                form.set_ended_checkpoint(*checkpoint);
                form.set_completed(*completed);
                write_list("endedAttempts", attempts, |length| form.init_ended_attempts(length))
            }
            ToWorker::Prepare(order) => order.write(form.init_prepare()),
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
                restore: optional("restore", form.has_restore(), form.get_restore())?.map(Arc::new),
            },
            order::Checkpoint(order) => {
                ToWorker::Checkpoint(required("checkpoint", form.has_checkpoint(), order)?)
            }
            order::CheckpointEnded(form) => ToWorker::CheckpointEnded {
                job: required("endedJob", form.has_ended_job(), form.get_ended_job())?,
                checkpoint: form.get_ended_checkpoint(),
                completed: form.get_completed(),
                attempts: list("endedAttempts", form.get_ended_attempts())?,
            },
            order::Cancel(form) => ToWorker::Cancel {
                job: required("cancelJob", form.has_cancel_job(), form.get_cancel_job())?,
                attempts: list("attempts", form.get_attempts())?,
            },
            order::Prepare(order) => ToWorker::Prepare(required("prepare", form.has_prepare(), order)?),
            order::Release(form) => ToWorker::Release {
                job: required("releaseJob", form.has_release_job(), form.get_release_job())?,
            },
        };
        Ok(Order { term: form.get_term(), message })
    }
}
