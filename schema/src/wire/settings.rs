//! The forms of what is settled about a job's checkpoints and state.

use capnp::text_list;

use super::Wire;
use super::common::same_words;
use super::fields::{known, list_length, text, text_to_write, texts};
use super::generated::job_capnp;
use super::generated::job_capnp::{checkpoint_settings, state_settings};
use crate::config::options::{CheckpointRetention, CheckpointingMode, StateBackend};
use crate::error::Result;
use crate::job::{CheckpointSettings, StateSettings};

same_words! {
    job_capnp::CheckpointingMode { ExactlyOnce, AtLeastOnce }
}

same_words! {
    job_capnp::CheckpointRetention { NoExternalizedCheckpoints, DeleteOnCancellation, RetainOnCancellation }
}

impl From<StateBackend> for job_capnp::StateBackend {
    fn from(backend: StateBackend) -> Self {
        match backend {
            StateBackend::HashMap => Self::HashMap,
            StateBackend::RocksDb | StateBackend::ForSt => Self::RocksDb,
        }
    }
}

impl From<job_capnp::StateBackend> for StateBackend {
    fn from(form: job_capnp::StateBackend) -> Self {
        match form {
            job_capnp::StateBackend::HashMap => StateBackend::HashMap,
            job_capnp::StateBackend::RocksDb => StateBackend::RocksDb,
        }
    }
}

impl Wire for CheckpointSettings {
    type Form = checkpoint_settings::Owned;

    fn write(&self, mut form: checkpoint_settings::Builder<'_>) -> Result<()> {
        form.set_interval_ms(self.interval_ms.unwrap_or(0));
        form.set_mode(self.mode.into());
        form.set_timeout_ms(self.timeout_ms);
        form.set_min_pause_ms(self.min_pause_ms);
        form.set_max_concurrent(self.max_concurrent);
        form.set_tolerable_failures(self.tolerable_failures);
        form.set_num_retained(self.num_retained);
        form.set_retention(self.retention.into());
        if let Some(directory) = &self.directory {
            form.set_directory(text_to_write("directory", directory)?);
        }
        if let Some(directory) = &self.savepoint_directory {
            form.set_savepoint_directory(text_to_write("savepointDirectory", directory)?);
        }
        form.set_incremental(self.incremental);
        form.set_unaligned(self.unaligned);
        form.set_aligned_timeout_ms(self.aligned_timeout_ms);
        form.set_after_tasks_finish(self.after_tasks_finish);
        form.set_inline_threshold_bytes(self.inline_threshold_bytes);
        form.set_compress(self.compress);
        Ok(())
    }

    fn read(form: checkpoint_settings::Reader<'_>) -> Result<Self> {
        let directory = text("directory", form.get_directory())?;
        let savepoint_directory = text("savepointDirectory", form.get_savepoint_directory())?;
        Ok(CheckpointSettings {
            interval_ms: Some(form.get_interval_ms()).filter(|interval_ms| *interval_ms > 0),
            mode: known("mode", form.get_mode())?,
            timeout_ms: form.get_timeout_ms(),
            min_pause_ms: form.get_min_pause_ms(),
            max_concurrent: form.get_max_concurrent(),
            tolerable_failures: form.get_tolerable_failures(),
            num_retained: form.get_num_retained(),
            retention: known("retention", form.get_retention())?,
            directory: form.has_directory().then_some(directory),
            savepoint_directory: form.has_savepoint_directory().then_some(savepoint_directory),
            incremental: form.get_incremental(),
            unaligned: form.get_unaligned(),
            aligned_timeout_ms: form.get_aligned_timeout_ms(),
            after_tasks_finish: form.get_after_tasks_finish(),
            inline_threshold_bytes: form.get_inline_threshold_bytes(),
            compress: form.get_compress(),
        })
    }
}

fn write_texts<'a>(
    field: &'static str,
    values: &[String],
    init: impl FnOnce(u32) -> text_list::Builder<'a>,
) -> Result<()> {
    let mut forms = init(list_length(field, values.len())?);
    for (index, value) in (0..).zip(values) {
        forms.set(index, text_to_write(field, value)?);
    }
    Ok(())
}

impl Wire for StateSettings {
    type Form = state_settings::Owned;

    fn write(&self, mut form: state_settings::Builder<'_>) -> Result<()> {
        form.set_backend(self.backend.into());
        form.set_memory_bytes(self.memory_bytes);
        write_texts("localDirectories", &self.local_directories, |length| {
            form.reborrow().init_local_directories(length)
        })?;
        form.set_local_backup(self.local_backup);
        write_texts("localBackupDirectories", &self.local_backup_directories, |length| {
            form.reborrow().init_local_backup_directories(length)
        })?;
        form.set_recover_from_local(self.recover_from_local);
        form.set_write_buffer_milli(self.write_buffer_milli);
        form.set_high_priority_milli(self.high_priority_milli);
        form.set_threads(self.threads);
        form.set_transfer_threads(self.transfer_threads);
        form.set_bloom_filter(self.bloom_filter);
        Ok(())
    }

    fn read(form: state_settings::Reader<'_>) -> Result<Self> {
        Ok(StateSettings {
            backend: known("backend", form.get_backend())?,
            memory_bytes: form.get_memory_bytes(),
            local_directories: texts("localDirectories", form.get_local_directories())?,
            local_backup: form.get_local_backup(),
            local_backup_directories: texts("localBackupDirectories", form.get_local_backup_directories())?,
            recover_from_local: form.get_recover_from_local(),
            write_buffer_milli: form.get_write_buffer_milli(),
            high_priority_milli: form.get_high_priority_milli(),
            threads: form.get_threads(),
            transfer_threads: form.get_transfer_threads(),
            bloom_filter: form.get_bloom_filter(),
        })
    }
}
