//! The forms of snapshots.

use super::Wire;
use super::common::same_words;
use super::fields::{
    bytes, data_to_write, known, list, list_length, optional, pieces, required, text, text_to_write,
    write_list,
};
use super::generated::snapshot_capnp;
use super::generated::snapshot_capnp::{
    barrier, channel_snapshot, keyed_snapshot, list_snapshot, manifest, manifest_operator, manifest_vertex,
    operator_snapshot, restore_from, snapshot_file, snapshot_times, table_snapshot, task_snapshot,
};
use crate::error::Result;
use crate::key_group::KeyGroupRange;
use crate::snapshot::{
    AfterBarrier, Alignment, Barrier, ChannelSnapshot, KeyedSnapshot, ListMode, ListSnapshot, Manifest,
    ManifestOperator, ManifestVertex, OperatorSnapshot, RestoreFrom, SavepointFormat, SnapshotFile,
    SnapshotKind, SnapshotTimes, TableSnapshot, TaskSnapshot,
};

same_words! {
    snapshot_capnp::AfterBarrier { GoOn, Suspend, Drain }
}

same_words! {
    snapshot_capnp::ListMode { Split, Union, Broadcast }
}

impl From<SnapshotKind> for snapshot_capnp::SnapshotKind {
    fn from(kind: SnapshotKind) -> Self {
        match kind {
            SnapshotKind::Checkpoint => Self::Checkpoint,
            SnapshotKind::FullCheckpoint => Self::FullCheckpoint,
            SnapshotKind::Savepoint(SavepointFormat::Canonical) => Self::CanonicalSavepoint,
            SnapshotKind::Savepoint(SavepointFormat::Native) => Self::NativeSavepoint,
        }
    }
}

impl From<snapshot_capnp::SnapshotKind> for SnapshotKind {
    fn from(kind: snapshot_capnp::SnapshotKind) -> Self {
        use snapshot_capnp::SnapshotKind as Form;
        match kind {
            Form::Checkpoint => SnapshotKind::Checkpoint,
            Form::FullCheckpoint => SnapshotKind::FullCheckpoint,
            Form::CanonicalSavepoint => SnapshotKind::Savepoint(SavepointFormat::Canonical),
            Form::NativeSavepoint => SnapshotKind::Savepoint(SavepointFormat::Native),
        }
    }
}

impl Wire for Barrier {
    type Form = barrier::Owned;

    fn write(&self, mut form: barrier::Builder<'_>) -> Result<()> {
        form.set_checkpoint(self.checkpoint);
        form.set_timestamp_ms(self.timestamp_ms);
        form.set_kind(self.kind.into());
        form.set_after(self.after.into());
        let mut alignment = form.init_alignment();
        match self.alignment {
            Alignment::Aligned => alignment.set_aligned(()),
            Alignment::UnalignedAfter(after_ms) => alignment.set_unaligned_after_ms(after_ms),
            Alignment::None => alignment.set_none(()),
        }
        Ok(())
    }

    fn read(form: barrier::Reader<'_>) -> Result<Self> {
        Ok(Barrier {
            checkpoint: form.get_checkpoint(),
            timestamp_ms: form.get_timestamp_ms(),
            kind: known("kind", form.get_kind())?,
            after: known("after", form.get_after())?,
            alignment: match known("alignment", form.get_alignment().which())? {
                barrier::alignment::Aligned(()) => Alignment::Aligned,
                barrier::alignment::UnalignedAfterMs(after_ms) => Alignment::UnalignedAfter(after_ms),
                barrier::alignment::None(()) => Alignment::None,
            },
        })
    }
}

impl Wire for SnapshotFile {
    type Form = snapshot_file::Owned;

    fn write(&self, mut form: snapshot_file::Builder<'_>) -> Result<()> {
        form.set_name(text_to_write("name", &self.name)?);
        form.set_path(text_to_write("path", &self.path)?);
        form.set_size(self.size);
        form.set_crc32c(self.crc32c);
        Ok(())
    }

    fn read(form: snapshot_file::Reader<'_>) -> Result<Self> {
        Ok(SnapshotFile {
            name: text("name", form.get_name())?,
            path: text("path", form.get_path())?,
            size: form.get_size(),
            crc32c: form.get_crc32c(),
        })
    }
}

impl Wire for ListSnapshot {
    type Form = list_snapshot::Owned;

    fn write(&self, mut form: list_snapshot::Builder<'_>) -> Result<()> {
        form.set_name(text_to_write("name", &self.name)?);
        form.set_mode(self.mode.into());
        form.set_item_type(text_to_write("itemType", &self.item_type)?);
        let mut items = form.reborrow().init_items(list_length("items", self.items.len())?);
        for (index, item) in (0..).zip(&self.items) {
            items.set(index, data_to_write("items", item)?);
        }
        if let Some(file) = &self.file {
            file.write(form.init_file())?;
        }
        Ok(())
    }

    fn read(form: list_snapshot::Reader<'_>) -> Result<Self> {
        let file = match form.has_file() {
            true => Some(required("file", true, form.get_file())?),
            false => None,
        };
        Ok(ListSnapshot {
            name: text("name", form.get_name())?,
            mode: known("mode", form.get_mode())?,
            item_type: text("itemType", form.get_item_type())?,
            items: pieces("items", form.get_items())?,
            file,
        })
    }
}

impl Wire for TableSnapshot {
    type Form = table_snapshot::Owned;

    fn write(&self, mut form: table_snapshot::Builder<'_>) -> Result<()> {
        form.set_name(text_to_write("name", &self.name)?);
        form.set_number(self.number);
        form.set_holds(text_to_write("holds", &self.holds)?);
        form.set_key_type(text_to_write("keyType", &self.key_type)?);
        form.set_value_type(text_to_write("valueType", &self.value_type)?);
        Ok(())
    }

    fn read(form: table_snapshot::Reader<'_>) -> Result<Self> {
        Ok(TableSnapshot {
            name: text("name", form.get_name())?,
            number: form.get_number(),
            holds: text("holds", form.get_holds())?,
            key_type: text("keyType", form.get_key_type())?,
            value_type: text("valueType", form.get_value_type())?,
        })
    }
}

impl Wire for KeyedSnapshot {
    type Form = keyed_snapshot::Owned;

    fn write(&self, mut form: keyed_snapshot::Builder<'_>) -> Result<()> {
        form.set_first_key_group(self.key_groups.start);
        form.set_end_key_group(self.key_groups.end);
        form.set_format(text_to_write("format", &self.format)?);
        write_list("tables", &self.tables, |length| form.reborrow().init_tables(length))?;
        write_list("files", &self.files, |length| form.init_files(length))
    }

    fn read(form: keyed_snapshot::Reader<'_>) -> Result<Self> {
        Ok(KeyedSnapshot {
            key_groups: KeyGroupRange { start: form.get_first_key_group(), end: form.get_end_key_group() },
            format: text("format", form.get_format())?,
            tables: list("tables", form.get_tables())?,
            files: list("files", form.get_files())?,
        })
    }
}

impl Wire for OperatorSnapshot {
    type Form = operator_snapshot::Owned;

    fn write(&self, mut form: operator_snapshot::Builder<'_>) -> Result<()> {
        if let Some(operator) = &self.operator {
            operator.write(form.reborrow().init_operator())?;
        }
        write_list("lists", &self.lists, |length| form.reborrow().init_lists(length))?;
        write_list("keyed", &self.keyed, |length| form.reborrow().init_keyed(length))?;
        if let Some(enumerator) = &self.enumerator {
            form.set_enumerator(data_to_write("enumerator", enumerator)?);
        }
        Ok(())
    }

    fn read(form: operator_snapshot::Reader<'_>) -> Result<Self> {
        let enumerator = bytes("enumerator", form.get_enumerator())?;
        Ok(OperatorSnapshot {
            operator: optional("operator", form.has_operator(), form.get_operator())?,
            lists: list("lists", form.get_lists())?,
            keyed: list("keyed", form.get_keyed())?,
            enumerator: form.has_enumerator().then_some(enumerator),
        })
    }
}

impl Wire for ChannelSnapshot {
    type Form = channel_snapshot::Owned;

    fn write(&self, mut form: channel_snapshot::Builder<'_>) -> Result<()> {
        form.set_edge(self.edge);
        form.set_source(self.source);
        self.file.write(form.init_file())
    }

    fn read(form: channel_snapshot::Reader<'_>) -> Result<Self> {
        Ok(ChannelSnapshot {
            edge: form.get_edge(),
            source: form.get_source(),
            file: required("file", form.has_file(), form.get_file())?,
        })
    }
}

impl Wire for SnapshotTimes {
    type Form = snapshot_times::Owned;

    fn write(&self, mut form: snapshot_times::Builder<'_>) -> Result<()> {
        form.set_start_delay_ms(self.start_delay_ms);
        form.set_alignment_ms(self.alignment_ms);
        form.set_sync_us(self.sync_us);
        form.set_async_ms(self.async_ms);
        form.set_written_bytes(self.written_bytes);
        form.set_state_bytes(self.state_bytes);
        form.set_processed_bytes(self.processed_bytes);
        form.set_persisted_bytes(self.persisted_bytes);
        form.set_unaligned(self.unaligned);
        Ok(())
    }

    fn read(form: snapshot_times::Reader<'_>) -> Result<Self> {
        Ok(SnapshotTimes {
            start_delay_ms: form.get_start_delay_ms(),
            alignment_ms: form.get_alignment_ms(),
            sync_us: form.get_sync_us(),
            async_ms: form.get_async_ms(),
            written_bytes: form.get_written_bytes(),
            state_bytes: form.get_state_bytes(),
            processed_bytes: form.get_processed_bytes(),
            persisted_bytes: form.get_persisted_bytes(),
            unaligned: form.get_unaligned(),
        })
    }
}

impl Wire for TaskSnapshot {
    type Form = task_snapshot::Owned;

    fn write(&self, mut form: task_snapshot::Builder<'_>) -> Result<()> {
        self.task.write(form.reborrow().init_task())?;
        form.set_finished(self.finished);
        write_list("operators", &self.operators, |length| form.reborrow().init_operators(length))?;
        write_list("channels", &self.channels, |length| form.reborrow().init_channels(length))?;
        self.times.write(form.init_times())
    }

    fn read(form: task_snapshot::Reader<'_>) -> Result<Self> {
        Ok(TaskSnapshot {
            task: required("task", form.has_task(), form.get_task())?,
            finished: form.get_finished(),
            operators: list("operators", form.get_operators())?,
            channels: list("channels", form.get_channels())?,
            times: optional("times", form.has_times(), form.get_times())?.unwrap_or_default(),
        })
    }
}

impl Wire for ManifestOperator {
    type Form = manifest_operator::Owned;

    fn write(&self, mut form: manifest_operator::Builder<'_>) -> Result<()> {
        self.operator.write(form.reborrow().init_operator())?;
        form.set_uid(text_to_write("uid", &self.uid)?);
        form.set_name(text_to_write("name", &self.name)?);
        Ok(())
    }

    fn read(form: manifest_operator::Reader<'_>) -> Result<Self> {
        Ok(ManifestOperator {
            operator: required("operator", form.has_operator(), form.get_operator())?,
            uid: text("uid", form.get_uid())?,
            name: text("name", form.get_name())?,
        })
    }
}

impl Wire for ManifestVertex {
    type Form = manifest_vertex::Owned;

    fn write(&self, mut form: manifest_vertex::Builder<'_>) -> Result<()> {
        self.vertex.write(form.reborrow().init_vertex())?;
        form.set_name(text_to_write("name", &self.name)?);
        form.set_parallelism(self.parallelism);
        form.set_max_parallelism(self.max_parallelism);
        write_list("operators", &self.operators, |length| form.init_operators(length))
    }

    fn read(form: manifest_vertex::Reader<'_>) -> Result<Self> {
        Ok(ManifestVertex {
            vertex: required("vertex", form.has_vertex(), form.get_vertex())?,
            name: text("name", form.get_name())?,
            parallelism: form.get_parallelism(),
            max_parallelism: form.get_max_parallelism(),
            operators: list("operators", form.get_operators())?,
        })
    }
}

impl Wire for Manifest {
    type Form = manifest::Owned;

    fn write(&self, mut form: manifest::Builder<'_>) -> Result<()> {
        self.job.write(form.reborrow().init_job())?;
        form.set_job_name(text_to_write("jobName", &self.job_name)?);
        form.set_checkpoint(self.checkpoint);
        form.set_kind(self.kind.into());
        form.set_timestamp_ms(self.timestamp_ms);
        write_list("vertices", &self.vertices, |length| form.reborrow().init_vertices(length))?;
        write_list("tasks", &self.tasks, |length| form.init_tasks(length))
    }

    fn read(form: manifest::Reader<'_>) -> Result<Self> {
        Ok(Manifest {
            job: required("job", form.has_job(), form.get_job())?,
            job_name: text("jobName", form.get_job_name())?,
            checkpoint: form.get_checkpoint(),
            kind: known("kind", form.get_kind())?,
            timestamp_ms: form.get_timestamp_ms(),
            vertices: list("vertices", form.get_vertices())?,
            tasks: list("tasks", form.get_tasks())?,
        })
    }
}

impl Wire for RestoreFrom {
    type Form = restore_from::Owned;

    fn write(&self, mut form: restore_from::Builder<'_>) -> Result<()> {
        form.set_folder(text_to_write("folder", &self.folder)?);
        form.set_checkpoint(self.checkpoint);
        form.set_ignore_unclaimed(self.ignore_unclaimed);
        form.set_own(self.own);
        Ok(())
    }

    fn read(form: restore_from::Reader<'_>) -> Result<Self> {
        Ok(RestoreFrom {
            folder: text("folder", form.get_folder())?,
            checkpoint: form.get_checkpoint(),
            ignore_unclaimed: form.get_ignore_unclaimed(),
            own: form.get_own(),
        })
    }
}
