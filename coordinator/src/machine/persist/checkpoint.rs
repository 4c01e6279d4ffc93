//! The forms of snapshots as a job remembers them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use flott_schema::error::Result;
use flott_schema::ids::VertexId;
use flott_schema::snapshot::Alignment;
use flott_schema::wire::generated::common_capnp::id;
use flott_schema::wire::generated::job_capnp::vertex_parallelism;
use flott_schema::wire::generated::machine_capnp;
use flott_schema::wire::generated::machine_capnp::{
    alignment, checkpoint, checkpoint_request, checkpoint_stats, checkpoints, closing, operation,
};
use flott_schema::wire::{Wire, fields, read_id, write_id};

use crate::machine::checkpoint::{
    CheckpointOutcome, CheckpointRecord, CheckpointRequest, CheckpointStats, Closing, JobCheckpoints,
    Operation, OperationId, Purpose, Restored,
};

impl From<Purpose> for machine_capnp::Purpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::GoOn => machine_capnp::Purpose::GoOn,
            Purpose::Stop => machine_capnp::Purpose::Stop,
            Purpose::Drain => machine_capnp::Purpose::Drain,
            Purpose::Rescale => machine_capnp::Purpose::Rescale,
            Purpose::Cancel => machine_capnp::Purpose::Cancel,
        }
    }
}

impl From<machine_capnp::Purpose> for Purpose {
    fn from(purpose: machine_capnp::Purpose) -> Self {
        match purpose {
            machine_capnp::Purpose::GoOn => Purpose::GoOn,
            machine_capnp::Purpose::Stop => Purpose::Stop,
            machine_capnp::Purpose::Drain => Purpose::Drain,
            machine_capnp::Purpose::Rescale => Purpose::Rescale,
            machine_capnp::Purpose::Cancel => Purpose::Cancel,
        }
    }
}

impl Wire for OperationId {
    type Form = id::Owned;

    fn write(&self, form: id::Builder<'_>) -> Result<()> {
        write_id(self.0, form);
        Ok(())
    }

    fn read(form: id::Reader<'_>) -> Result<Self> {
        Ok(OperationId(read_id(form)))
    }
}

fn write_alignment(value: Alignment, mut form: alignment::Builder<'_>) {
    match value {
        Alignment::Aligned => form.set_aligned(()),
        Alignment::UnalignedAfter(after_ms) => form.set_unaligned_after_ms(after_ms),
        Alignment::None => form.set_none(()),
    }
}

fn read_alignment(form: alignment::Reader<'_>) -> Result<Alignment> {
    Ok(match fields::known("alignment", form.which())? {
        alignment::Aligned(()) => Alignment::Aligned,
        alignment::UnalignedAfterMs(after_ms) => Alignment::UnalignedAfter(after_ms),
        alignment::None(()) => Alignment::None,
    })
}

fn write_parallelism<'a>(
    parallelism: &BTreeMap<VertexId, u32>,
    init: impl FnOnce(u32) -> capnp::struct_list::Builder<'a, vertex_parallelism::Owned>,
) -> Result<()> {
    let listed: Vec<(VertexId, u32)> = parallelism.clone().into_iter().collect();
    fields::write_list("parallelism", &listed, init)
}

impl Wire for CheckpointRequest {
    type Form = checkpoint_request::Owned;

    fn write(&self, mut form: checkpoint_request::Builder<'_>) -> Result<()> {
        form.set_kind(self.kind.into());
        form.set_purpose(self.purpose.into());
        write_alignment(self.alignment, form.reborrow().init_alignment());
        form.set_folder(fields::text_to_write("folder", &self.folder)?);
        if let Some(operation) = self.operation {
            operation.write(form.reborrow().init_operation())?;
        }
        write_parallelism(&self.parallelism, |length| form.init_parallelism(length))
    }

    fn read(form: checkpoint_request::Reader<'_>) -> Result<Self> {
        Ok(CheckpointRequest {
            kind: fields::known("kind", form.get_kind())?,
            purpose: fields::known("purpose", form.get_purpose())?,
            alignment: read_alignment(form.get_alignment().map_err(flott_schema::wire::broken)?)?,
            folder: fields::text("folder", form.get_folder())?,
            operation: fields::optional("operation", form.has_operation(), form.get_operation())?,
            parallelism: fields::list::<(VertexId, u32)>("parallelism", form.get_parallelism())?
                .into_iter()
                .collect(),
        })
    }
}

impl Wire for CheckpointStats {
    type Form = checkpoint_stats::Owned;

    fn write(&self, mut form: checkpoint_stats::Builder<'_>) -> Result<()> {
        form.set_acknowledged(self.acknowledged);
        form.set_last_ack_ms(self.last_ack_ms);
        form.set_written_bytes(self.written_bytes);
        form.set_state_bytes(self.state_bytes);
        form.set_processed_bytes(self.processed_bytes);
        form.set_persisted_bytes(self.persisted_bytes);
        form.set_manifest_bytes(self.manifest_bytes);
        form.set_unaligned(self.unaligned);
        Ok(())
    }

    fn read(form: checkpoint_stats::Reader<'_>) -> Result<Self> {
        Ok(CheckpointStats {
            acknowledged: form.get_acknowledged(),
            last_ack_ms: form.get_last_ack_ms(),
            written_bytes: form.get_written_bytes(),
            state_bytes: form.get_state_bytes(),
            processed_bytes: form.get_processed_bytes(),
            persisted_bytes: form.get_persisted_bytes(),
            manifest_bytes: form.get_manifest_bytes(),
            unaligned: form.get_unaligned(),
        })
    }
}

impl Wire for CheckpointRecord {
    type Form = checkpoint::Owned;

    fn write(&self, mut form: checkpoint::Builder<'_>) -> Result<()> {
        form.set_id(self.id);
        form.set_kind(self.kind.into());
        form.set_purpose(self.purpose.into());
        write_alignment(self.alignment, form.reborrow().init_alignment());
        form.set_folder(fields::text_to_write("folder", &self.folder)?);
        if let Some(operation) = self.operation {
            operation.write(form.reborrow().init_operation())?;
        }
        form.set_triggered_ms(self.triggered_ms);
        form.set_tasks(self.tasks);
        self.stats.write(form.reborrow().init_stats())?;
        let mut outcome = form.init_outcome();
        match &self.outcome {
            CheckpointOutcome::Pending => outcome.set_pending(()),
            CheckpointOutcome::Completed { at_ms } => outcome.set_completed_ms(*at_ms),
            CheckpointOutcome::Failed { at_ms, reason } => {
                let mut failed = outcome.init_failed();
                failed.set_failed_ms(*at_ms);
                failed.set_reason(fields::text_to_write("reason", reason)?);
            }
        }
        Ok(())
    }

    fn read(form: checkpoint::Reader<'_>) -> Result<Self> {
        use checkpoint::outcome::{CompletedMs, Failed, Pending};
        Ok(CheckpointRecord {
            id: form.get_id(),
            kind: fields::known("kind", form.get_kind())?,
            purpose: fields::known("purpose", form.get_purpose())?,
            alignment: read_alignment(form.get_alignment().map_err(flott_schema::wire::broken)?)?,
            folder: fields::text("folder", form.get_folder())?,
            operation: fields::optional("operation", form.has_operation(), form.get_operation())?,
            triggered_ms: form.get_triggered_ms(),
            tasks: form.get_tasks(),
            stats: fields::required("stats", form.has_stats(), form.get_stats())?,
            outcome: match fields::known("outcome", form.get_outcome().which())? {
                Pending(()) => CheckpointOutcome::Pending,
                CompletedMs(at_ms) => CheckpointOutcome::Completed { at_ms },
                Failed(failed) => CheckpointOutcome::Failed {
                    at_ms: failed.get_failed_ms(),
                    reason: fields::text("reason", failed.get_reason())?,
                },
            },
        })
    }
}

impl Wire for Closing {
    type Form = closing::Owned;

    fn write(&self, mut form: closing::Builder<'_>) -> Result<()> {
        form.set_checkpoint(self.checkpoint);
        form.set_completed(self.completed);
        form.set_purpose(self.purpose.into());
        form.set_folder(fields::text_to_write("folder", &self.folder)?);
        if let Some(operation) = self.operation {
            operation.write(form.reborrow().init_operation())?;
        }
        write_parallelism(&self.parallelism, |length| form.init_parallelism(length))
    }

    fn read(form: closing::Reader<'_>) -> Result<Self> {
        Ok(Closing {
            checkpoint: form.get_checkpoint(),
            completed: form.get_completed(),
            purpose: fields::known("purpose", form.get_purpose())?,
            folder: fields::text("folder", form.get_folder())?,
            operation: fields::optional("operation", form.has_operation(), form.get_operation())?,
            parallelism: fields::list::<(VertexId, u32)>("parallelism", form.get_parallelism())?
                .into_iter()
                .collect(),
        })
    }
}

impl Wire for Operation {
    type Form = operation::Owned;

    fn write(&self, mut form: operation::Builder<'_>) -> Result<()> {
        self.id.write(form.reborrow().init_id())?;
        form.set_purpose(self.purpose.into());
        form.set_at_ms(self.at_ms);
        form.set_checkpoint(self.checkpoint);
        let mut result = form.init_result();
        match &self.result {
            None => result.set_open(()),
            Some(Ok(folder)) => result.set_folder(fields::text_to_write("folder", folder)?),
            Some(Err(reason)) => result.set_failure(fields::text_to_write("failure", reason)?),
        }
        Ok(())
    }

    fn read(form: operation::Reader<'_>) -> Result<Self> {
        use operation::result::{Failure, Folder, Open};
        Ok(Operation {
            id: fields::required("id", form.has_id(), form.get_id())?,
            purpose: fields::known("purpose", form.get_purpose())?,
            at_ms: form.get_at_ms(),
            checkpoint: form.get_checkpoint(),
            result: match fields::known("result", form.get_result().which())? {
                Open(()) => None,
                Folder(folder) => Some(Ok(fields::text("folder", folder)?)),
                Failure(failure) => Some(Err(fields::text("failure", failure)?)),
            },
        })
    }
}

impl Wire for JobCheckpoints {
    type Form = checkpoints::Owned;

    fn write(&self, mut form: checkpoints::Builder<'_>) -> Result<()> {
        let JobCheckpoints {
            last_id,
            pending,
            retained,
            savepoints,
            history,
            latest_completed,
            latest_savepoint,
            latest_failed,
            completed,
            failed,
            restores,
            failures_in_a_row,
            closing,
            operations,
            restored,
            claim_ended,
        } = self;
        form.set_last_id(*last_id);
        fields::write_list("pending", pending.values(), |length| form.reborrow().init_pending(length))?;
        fields::write_list("retained", retained, |length| form.reborrow().init_retained(length))?;
        fields::write_list("savepoints", savepoints, |length| form.reborrow().init_savepoints(length))?;
        fields::write_list("history", history, |length| form.reborrow().init_history(length))?;
        if let Some(latest) = latest_completed {
            latest.write(form.reborrow().init_latest_completed())?;
        }
        if let Some(latest) = latest_savepoint {
            latest.write(form.reborrow().init_latest_savepoint())?;
        }
        if let Some(latest) = latest_failed {
            latest.write(form.reborrow().init_latest_failed())?;
        }
        form.set_completed(*completed);
        form.set_failed(*failed);
        form.set_restores(*restores);
        form.set_failures_in_a_row(*failures_in_a_row);
        form.set_claim_ended(*claim_ended);
        if let Some(closing) = closing {
            closing.write(form.reborrow().init_closing())?;
        }
        fields::write_list("operations", operations, |length| form.reborrow().init_operations(length))?;
        if let Some(Restored { from, at_ms }) = restored {
            form.set_restored_ms(*at_ms);
            from.write(form.init_restored_from())?;
        }
        Ok(())
    }

    fn read(form: checkpoints::Reader<'_>) -> Result<Self> {
        let queue = |list: Vec<CheckpointRecord>| list.into_iter().collect::<VecDeque<_>>();
        let pending: Vec<CheckpointRecord> = fields::list("pending", form.get_pending())?;
        let latest_completed =
            fields::optional("latestCompleted", form.has_latest_completed(), form.get_latest_completed())?;
        let latest_savepoint =
            fields::optional("latestSavepoint", form.has_latest_savepoint(), form.get_latest_savepoint())?;
        let latest_failed =
            fields::optional("latestFailed", form.has_latest_failed(), form.get_latest_failed())?;
        let from = fields::optional("restoredFrom", form.has_restored_from(), form.get_restored_from())?;
        let restored = from.map(|from| Restored { from: Arc::new(from), at_ms: form.get_restored_ms() });
        Ok(JobCheckpoints {
            last_id: form.get_last_id(),
            pending: pending.into_iter().map(|one| (one.id, one)).collect(),
            retained: queue(fields::list("retained", form.get_retained())?),
            savepoints: queue(fields::list("savepoints", form.get_savepoints())?),
            history: queue(fields::list("history", form.get_history())?),
            latest_completed,
            latest_savepoint,
            latest_failed,
            completed: form.get_completed(),
            failed: form.get_failed(),
            restores: form.get_restores(),
            failures_in_a_row: form.get_failures_in_a_row(),
            closing: fields::optional("closing", form.has_closing(), form.get_closing())?,
            operations: fields::list::<Operation>("operations", form.get_operations())?.into(),
            restored,
            claim_ended: form.get_claim_ended(),
        })
    }
}
