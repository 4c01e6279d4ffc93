//! The form of a task. A job may have a hundred thousand, so it has no lists and no structs of its own.

use flott_schema::control::TaskState;
use flott_schema::error::Result;
use flott_schema::ids::{AttemptId, SlotId, TaskId, WorkerId};
use flott_schema::wire::fields;
use flott_schema::wire::generated::machine_capnp::task;

use crate::machine::task::{StateTimes, TaskRecord};

/// A time stamp that may be missing: one more, so that 0 is left for none. The machine's time never reaches the end.
pub(super) fn stamp(at_ms: Option<u64>) -> u64 {
    at_ms.map_or(0, |at_ms| at_ms.saturating_add(1))
}

pub(super) fn stamped(stamp: u64) -> Option<u64> {
    stamp.checked_sub(1)
}

pub(super) fn write_task(record: &TaskRecord, mut form: task::Builder<'_>) {
    let at = |state| stamp(record.entered_ms(state));
    form.set_created_at(at(TaskState::Created));
    form.set_scheduled_at(at(TaskState::Scheduled));
    form.set_deploying_at(at(TaskState::Deploying));
    form.set_initializing_at(at(TaskState::Initializing));
    form.set_running_at(at(TaskState::Running));
    form.set_finished_at(at(TaskState::Finished));
    form.set_canceling_at(at(TaskState::Canceling));
    form.set_canceled_at(at(TaskState::Canceled));
    form.set_failed_at(at(TaskState::Failed));
    form.set_job_epoch(record.attempt.job_epoch);
    form.set_attempt(record.attempt.attempt);
    form.set_state(record.state.into());
    form.set_result_lost(record.result_lost);
    if let Some(slot) = record.slot {
        form.set_is_placed(true);
        form.set_worker(slot.worker.0);
        form.set_slot(slot.index);
    }
    if let Some(slot) = record.previous {
        form.set_was_placed(true);
        form.set_previous_worker(slot.worker.0);
        form.set_previous_slot(slot.index);
    }
}

pub(super) fn read_task(task: TaskId, form: task::Reader<'_>) -> Result<TaskRecord> {
    let mut times = StateTimes::default();
    let entered = [
        form.get_created_at(),
        form.get_scheduled_at(),
        form.get_deploying_at(),
        form.get_initializing_at(),
        form.get_running_at(),
        form.get_finished_at(),
        form.get_canceling_at(),
        form.get_canceled_at(),
        form.get_failed_at(),
    ];
    for (state, entered) in TaskState::ALL.into_iter().zip(entered) {
        if let Some(at_ms) = stamped(entered) {
            times.enter(state as usize, at_ms);
        }
    }
    let slot = |worker, index| SlotId { worker: WorkerId(worker), index };
    Ok(TaskRecord {
        attempt: AttemptId { task, job_epoch: form.get_job_epoch(), attempt: form.get_attempt() },
        state: fields::known("state", form.get_state())?,
        slot: form.get_is_placed().then(|| slot(form.get_worker(), form.get_slot())),
        previous: form.get_was_placed().then(|| slot(form.get_previous_worker(), form.get_previous_slot())),
        result_lost: form.get_result_lost(),
        times,
        last: None,
    })
}
