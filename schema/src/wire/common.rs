//! The forms of ids, states and failures.

use super::Wire;
use super::fields::{known, required, text, text_to_write};
use super::generated::common_capnp;
use super::generated::common_capnp::{attempt_id, id, placement, property, slot_id, task_failure, task_id};
use crate::control::{Placement, TaskFailure, TaskState};
use crate::error::{ErrorKind, Result};
use crate::ids::{AttemptId, JobId, OperatorId, SlotId, TaskId, VertexId, WorkerId};

/// Conversions between an enum and that of the schema with the same words.
macro_rules! same_words {
    ($module:ident::$name:ident { $($word:ident),+ $(,)? }) => {
        impl From<$name> for $module::$name {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$word => $module::$name::$word,)+
                }
            }
        }

        impl From<$module::$name> for $name {
            fn from(value: $module::$name) -> Self {
                match value {
                    $($module::$name::$word => $name::$word,)+
                }
            }
        }
    };
}

pub(super) use same_words;

same_words! {
    common_capnp::TaskState {
        Created, Scheduled, Deploying, Initializing, Running, Finished, Canceling, Canceled, Failed,
    }
}

same_words! {
    common_capnp::ErrorKind {
        UserCode, BadInput, Configuration, Graph, Resources, Io, Cancelled, Internal, Snapshot,
    }
}

/// Writes the 128 bits of an id.
pub fn write_id(id: u128, mut form: id::Builder<'_>) {
    form.set_high((id >> 64) as u64);
    form.set_low(id as u64);
}

/// The 128 bits of an id.
pub fn read_id(form: id::Reader<'_>) -> u128 {
    u128::from(form.get_high()) << 64 | u128::from(form.get_low())
}

macro_rules! ids {
    ($($name:ident),+) => {$(
        impl Wire for $name {
            type Form = id::Owned;

            fn write(&self, form: id::Builder<'_>) -> Result<()> {
                write_id(self.0, form);
                Ok(())
            }

            fn read(form: id::Reader<'_>) -> Result<Self> {
                Ok($name(read_id(form)))
            }
        }
    )+};
}

ids!(JobId, VertexId, OperatorId);

impl Wire for TaskId {
    type Form = task_id::Owned;

    fn write(&self, mut form: task_id::Builder<'_>) -> Result<()> {
        self.vertex.write(form.reborrow().init_vertex())?;
        form.set_subtask(self.subtask);
        Ok(())
    }

    fn read(form: task_id::Reader<'_>) -> Result<Self> {
        let vertex = required("vertex", form.has_vertex(), form.get_vertex())?;
        Ok(TaskId { vertex, subtask: form.get_subtask() })
    }
}

impl Wire for AttemptId {
    type Form = attempt_id::Owned;

    fn write(&self, mut form: attempt_id::Builder<'_>) -> Result<()> {
        self.task.write(form.reborrow().init_task())?;
        form.set_job_epoch(self.job_epoch);
        form.set_attempt(self.attempt);
        Ok(())
    }

    fn read(form: attempt_id::Reader<'_>) -> Result<Self> {
        let task = required("task", form.has_task(), form.get_task())?;
        Ok(AttemptId { task, job_epoch: form.get_job_epoch(), attempt: form.get_attempt() })
    }
}

impl Wire for SlotId {
    type Form = slot_id::Owned;

    fn write(&self, mut form: slot_id::Builder<'_>) -> Result<()> {
        form.set_worker(self.worker.0);
        form.set_index(self.index);
        Ok(())
    }

    fn read(form: slot_id::Reader<'_>) -> Result<Self> {
        Ok(SlotId { worker: WorkerId(form.get_worker()), index: form.get_index() })
    }
}

impl Wire for Placement {
    type Form = placement::Owned;

    fn write(&self, mut form: placement::Builder<'_>) -> Result<()> {
        self.attempt.write(form.reborrow().init_attempt())?;
        self.slot.write(form.init_slot())
    }

    fn read(form: placement::Reader<'_>) -> Result<Self> {
        Ok(Placement {
            attempt: required("attempt", form.has_attempt(), form.get_attempt())?,
            slot: required("slot", form.has_slot(), form.get_slot())?,
        })
    }
}

/// Bytes of a failure's message and of its backtrace that cross processes: a failure that is told in part is better than one
/// that cannot be told.
pub(super) const FAILURE_BYTES_MAX: usize = 256 << 10;

/// The beginning of `text`, at most `bytes_max` long.
pub(super) fn beginning(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

impl Wire for TaskFailure {
    type Form = task_failure::Owned;

    fn write(&self, mut form: task_failure::Builder<'_>) -> Result<()> {
        form.set_kind(self.kind.into());
        form.set_vertex(text_to_write("vertex", &self.vertex)?);
        form.set_subtask(self.subtask);
        form.set_parallelism(self.parallelism);
        form.set_message(beginning(&self.message, FAILURE_BYTES_MAX));
        if let Some(backtrace) = &self.backtrace {
            form.set_backtrace(beginning(backtrace, FAILURE_BYTES_MAX));
        }
        Ok(())
    }

    fn read(form: task_failure::Reader<'_>) -> Result<Self> {
        let backtrace = text("backtrace", form.get_backtrace())?;
        Ok(TaskFailure {
            kind: known("kind", form.get_kind())?,
            vertex: text("vertex", form.get_vertex())?,
            subtask: form.get_subtask(),
            parallelism: form.get_parallelism(),
            message: text("message", form.get_message())?,
            backtrace: form.has_backtrace().then_some(backtrace),
        })
    }
}

/// Key and value.
impl Wire for (String, String) {
    type Form = property::Owned;

    fn write(&self, mut form: property::Builder<'_>) -> Result<()> {
        form.set_key(text_to_write("key", &self.0)?);
        form.set_value(text_to_write("value", &self.1)?);
        Ok(())
    }

    fn read(form: property::Reader<'_>) -> Result<Self> {
        Ok((text("key", form.get_key())?, text("value", form.get_value())?))
    }
}
