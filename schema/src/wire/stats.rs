//! The forms of what workers tell about themselves and their tasks.

use super::Wire;
use super::fields::{list, optional, required, text, text_to_write, write_list};
use super::generated::control_capnp::{
    log_file, operator_stats, task_stats, worker_profile, worker_stats, worker_usage,
};
use crate::error::Result;
use crate::stats::{LogFile, OperatorStats, TaskStats, WorkerProfile, WorkerStats, WorkerUsage};

impl Wire for WorkerProfile {
    type Form = worker_profile::Owned;

    fn write(&self, mut form: worker_profile::Builder<'_>) -> Result<()> {
        form.set_name(text_to_write("name", &self.name)?);
        form.set_host(text_to_write("host", &self.host)?);
        form.set_data_address(text_to_write("dataAddress", &self.data_address)?);
        form.set_slots(self.slots);
        form.set_cores(self.cores);
        form.set_memory_bytes(self.memory_bytes);
        form.set_slot_memory_bytes(self.slot_memory_bytes);
        form.set_metrics_port(self.metrics_port);
        form.set_version(text_to_write("version", &self.version)?);
        Ok(())
    }

    fn read(form: worker_profile::Reader<'_>) -> Result<Self> {
        Ok(WorkerProfile {
            name: text("name", form.get_name())?,
            host: text("host", form.get_host())?,
            data_address: text("dataAddress", form.get_data_address())?,
            slots: form.get_slots(),
            cores: form.get_cores(),
            memory_bytes: form.get_memory_bytes(),
            slot_memory_bytes: form.get_slot_memory_bytes(),
            metrics_port: form.get_metrics_port(),
            version: text("version", form.get_version())?,
        })
    }
}

impl Wire for OperatorStats {
    type Form = operator_stats::Owned;

    fn write(&self, mut form: operator_stats::Builder<'_>) -> Result<()> {
        if let Some(operator) = &self.operator {
            operator.write(form.reborrow().init_operator())?;
        }
        form.set_records_in(self.records_in);
        form.set_records_out(self.records_out);
        form.set_late_records_dropped(self.late_records_dropped);
        form.set_undecodable_records(self.undecodable_records);
        Ok(())
    }

    fn read(form: operator_stats::Reader<'_>) -> Result<Self> {
        Ok(OperatorStats {
            operator: optional("operator", form.has_operator(), form.get_operator())?,
            records_in: form.get_records_in(),
            records_out: form.get_records_out(),
            late_records_dropped: form.get_late_records_dropped(),
            undecodable_records: form.get_undecodable_records(),
        })
    }
}

impl Wire for TaskStats {
    type Form = task_stats::Owned;

    fn write(&self, mut form: task_stats::Builder<'_>) -> Result<()> {
        self.job.write(form.reborrow().init_job())?;
        self.attempt.write(form.reborrow().init_attempt())?;
        form.set_records_in(self.records_in);
        form.set_records_out(self.records_out);
        form.set_bytes_in(self.bytes_in);
        form.set_bytes_out(self.bytes_out);
        form.set_batches_in(self.batches_in);
        form.set_batches_out(self.batches_out);
        form.set_busy_ms(self.busy_ms);
        form.set_idle_ms(self.idle_ms);
        form.set_backpressured_ms(self.backpressured_ms);
        if let Some(watermark_ms) = self.input_watermark_ms {
            form.set_has_input_watermark(true);
            form.set_input_watermark_ms(watermark_ms);
        }
        write_list("operators", &self.operators, |length| form.init_operators(length))
    }

    fn read(form: task_stats::Reader<'_>) -> Result<Self> {
        Ok(TaskStats {
            job: required("job", form.has_job(), form.get_job())?,
            attempt: required("attempt", form.has_attempt(), form.get_attempt())?,
            records_in: form.get_records_in(),
            records_out: form.get_records_out(),
            bytes_in: form.get_bytes_in(),
            bytes_out: form.get_bytes_out(),
            batches_in: form.get_batches_in(),
            batches_out: form.get_batches_out(),
            busy_ms: form.get_busy_ms(),
            idle_ms: form.get_idle_ms(),
            backpressured_ms: form.get_backpressured_ms(),
            input_watermark_ms: form.get_has_input_watermark().then(|| form.get_input_watermark_ms()),
            operators: list("operators", form.get_operators())?,
        })
    }
}

impl Wire for WorkerUsage {
    type Form = worker_usage::Owned;

    fn write(&self, mut form: worker_usage::Builder<'_>) -> Result<()> {
        form.set_resident_bytes(self.resident_bytes);
        form.set_executors_resident_bytes(self.executors_resident_bytes);
        form.set_host_free_bytes(self.host_free_bytes);
        form.set_cpu_ms(self.cpu_ms);
        form.set_executors(self.executors);
        Ok(())
    }

    fn read(form: worker_usage::Reader<'_>) -> Result<Self> {
        Ok(WorkerUsage {
            resident_bytes: form.get_resident_bytes(),
            executors_resident_bytes: form.get_executors_resident_bytes(),
            host_free_bytes: form.get_host_free_bytes(),
            cpu_ms: form.get_cpu_ms(),
            executors: form.get_executors(),
        })
    }
}

impl Wire for WorkerStats {
    type Form = worker_stats::Owned;

    fn write(&self, mut form: worker_stats::Builder<'_>) -> Result<()> {
        self.usage.write(form.reborrow().init_usage())?;
        write_list("tasks", &self.tasks, |length| form.init_tasks(length))
    }

    fn read(form: worker_stats::Reader<'_>) -> Result<Self> {
        Ok(WorkerStats {
            usage: required("usage", form.has_usage(), form.get_usage())?,
            tasks: list("tasks", form.get_tasks())?,
        })
    }
}

impl Wire for LogFile {
    type Form = log_file::Owned;

    fn write(&self, mut form: log_file::Builder<'_>) -> Result<()> {
        form.set_name(text_to_write("name", &self.name)?);
        form.set_size(self.size);
        form.set_modified_ms(self.modified_ms);
        Ok(())
    }

    fn read(form: log_file::Reader<'_>) -> Result<Self> {
        Ok(LogFile {
            name: text("name", form.get_name())?,
            size: form.get_size(),
            modified_ms: form.get_modified_ms(),
        })
    }
}
