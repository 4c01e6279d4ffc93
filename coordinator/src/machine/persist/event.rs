//! The form of an event.

use std::sync::Arc;

use flott_schema::control::TaskReport;
use flott_schema::error::Result;
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::ProgramDigest;
use flott_schema::wire::generated::machine_capnp::{event, program};
use flott_schema::wire::{Wire, broken, fields};

use crate::machine::event::Event;

impl Wire for Event {
    type Form = event::Owned;

    fn write(&self, mut form: event::Builder<'_>) -> Result<()> {
        form.set_at_ms(self.at_ms());
        match self {
            Event::WorkerRegistered { worker, profile, .. } => {
                let mut form = form.init_worker_registered();
                form.set_worker(worker.0);
                profile.write(form.init_profile())
            }
            Event::WorkerLost { worker, .. } => {
                form.init_worker_lost().set_worker(worker.0);
                Ok(())
            }
            Event::WorkerReturned { worker, tasks, .. } => {
                let mut form = form.init_worker_returned();
                form.set_worker(worker.0);
                fields::write_list("tasks", tasks, |length| form.init_tasks(length))
            }
            Event::JobSubmitted { job, spec, .. } => {
                let mut form = form.init_job_submitted();
                job.write(form.reborrow().init_job())?;
                spec.write(form.init_spec())
            }
            Event::TaskStateChanged { job, attempt, state, failure, .. } => {
                let (job, attempt, state) = (*job, *attempt, *state);
                TaskReport { job, attempt, state, failure: failure.clone() }
                    .write(form.init_task_state_changed())
            }
            Event::CancelRequested { job, .. } => job.write(form.init_cancel_requested()),
            Event::SlotWaitExpired { job, wait, .. } => {
                let mut form = form.init_slot_wait_expired();
                form.set_wait(*wait);
                job.write(form.init_job())
            }
            Event::RestartDelayExpired { job, number, .. } => {
                let mut form = form.init_restart_delay_expired();
                form.set_number(*number);
                job.write(form.init_job())
            }
            Event::ProgramStored { digest, name, size, .. } => {
                write_program(digest, name, *size, form.init_program_stored())
            }
            Event::ProgramRemoved { digest, .. } => {
                form.set_program_removed(&digest.0);
                Ok(())
            }
            Event::CheckpointRequested { job, request, .. } => {
                let mut form = form.init_checkpoint_requested();
                job.write(form.reborrow().init_job())?;
                request.write(form.init_request())
            }
            Event::CheckpointCompleted { job, checkpoint, stats, .. } => {
                let mut form = form.init_checkpoint_completed();
                job.write(form.reborrow().init_job())?;
                form.set_checkpoint(*checkpoint);
                stats.write(form.init_stats())
            }
            Event::CheckpointFailed { job, checkpoint, reason, counts, stats, .. } => {
                let mut form = form.init_checkpoint_failed();
                job.write(form.reborrow().init_job())?;
                form.set_checkpoint(*checkpoint);
                form.set_reason(fields::text_to_write("reason", reason)?);
                form.set_counts(*counts);
                stats.write(form.init_stats())
            }
            Event::LastSnapshot { job, attempt, snapshot, .. } => {
                let mut form = form.init_last_snapshot();
                job.write(form.reborrow().init_job())?;
                attempt.write(form.reborrow().init_attempt())?;
                snapshot.write(form.init_snapshot())
            }
            Event::SavepointDisposed { folder, .. } => {
                form.set_savepoint_disposed(fields::text_to_write("folder", folder)?);
                Ok(())
            }
            Event::ClaimEnded { job, .. } => job.write(form.init_claim_ended()),
        }
    }

    fn read(form: event::Reader<'_>) -> Result<Self> {
        let at_ms = form.get_at_ms();
        let which = match form.which() {
            Ok(which) => which,
            Err(unknown) => return fields::known("event", Err::<Event, _>(unknown)),
        };
        Ok(match which {
            event::WorkerRegistered(form) => Event::WorkerRegistered {
                worker: WorkerId(form.get_worker()),
                profile: fields::required("profile", form.has_profile(), form.get_profile())?,
                at_ms,
            },
            event::WorkerLost(form) => Event::WorkerLost { worker: WorkerId(form.get_worker()), at_ms },
            event::WorkerReturned(form) => Event::WorkerReturned {
                worker: WorkerId(form.get_worker()),
                tasks: fields::list("tasks", form.get_tasks())?,
                at_ms,
            },
            event::JobSubmitted(form) => Event::JobSubmitted {
                job: fields::required("job", form.has_job(), form.get_job())?,
                spec: Arc::new(fields::required("spec", form.has_spec(), form.get_spec())?),
                at_ms,
            },
            event::TaskStateChanged(report) => {
                let TaskReport { job, attempt, state, failure } = TaskReport::read(report.map_err(broken)?)?;
                Event::TaskStateChanged { job, attempt, state, failure, at_ms }
            }
            event::CancelRequested(job) => {
                Event::CancelRequested { job: Wire::read(job.map_err(broken)?)?, at_ms }
            }
            event::SlotWaitExpired(form) => Event::SlotWaitExpired {
                job: fields::required("job", form.has_job(), form.get_job())?,
                wait: form.get_wait(),
                at_ms,
            },
            event::RestartDelayExpired(form) => Event::RestartDelayExpired {
                job: fields::required("job", form.has_job(), form.get_job())?,
                number: form.get_number(),
                at_ms,
            },
            event::ProgramStored(form) => {
                let (digest, name, size) = read_program(form.map_err(broken)?)?;
                Event::ProgramStored { digest, name, size, at_ms }
            }
            event::ProgramRemoved(digest) => {
                Event::ProgramRemoved { digest: ProgramDigest(fields::array("digest", digest)?), at_ms }
            }
            event::CheckpointRequested(form) => Event::CheckpointRequested {
                job: fields::required("job", form.has_job(), form.get_job())?,
                request: fields::required("request", form.has_request(), form.get_request())?,
                at_ms,
            },
            event::CheckpointCompleted(form) => Event::CheckpointCompleted {
                job: fields::required::<JobId>("job", form.has_job(), form.get_job())?,
                checkpoint: form.get_checkpoint(),
                stats: fields::required("stats", form.has_stats(), form.get_stats())?,
                at_ms,
            },
            event::CheckpointFailed(form) => Event::CheckpointFailed {
                job: fields::required("job", form.has_job(), form.get_job())?,
                checkpoint: form.get_checkpoint(),
                reason: fields::text("reason", form.get_reason())?,
                counts: form.get_counts(),
                stats: fields::required("stats", form.has_stats(), form.get_stats())?,
                at_ms,
            },
            event::LastSnapshot(form) => Event::LastSnapshot {
                job: fields::required("job", form.has_job(), form.get_job())?,
                attempt: fields::required("attempt", form.has_attempt(), form.get_attempt())?,
                snapshot: Arc::new(fields::required("snapshot", form.has_snapshot(), form.get_snapshot())?),
                at_ms,
            },
            event::ClaimEnded(job) => Event::ClaimEnded { job: Wire::read(job.map_err(broken)?)?, at_ms },
            event::SavepointDisposed(folder) => {
                Event::SavepointDisposed { folder: fields::text("folder", folder)?, at_ms }
            }
        })
    }
}

/// A stored program, but for the time.
pub(super) fn write_program(
    digest: &ProgramDigest,
    name: &str,
    size: u64,
    mut form: program::Builder<'_>,
) -> Result<()> {
    form.set_digest(&digest.0);
    form.set_name(fields::text_to_write("name", name)?);
    form.set_size(size);
    Ok(())
}

pub(super) fn read_program(form: program::Reader<'_>) -> Result<(ProgramDigest, String, u64)> {
    let digest = ProgramDigest(fields::array("digest", form.get_digest())?);
    Ok((digest, fields::text("name", form.get_name())?, form.get_size()))
}
