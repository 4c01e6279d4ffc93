//! The form of a job.

use std::sync::Arc;

use flott_schema::error::Result;
use flott_schema::ids::{JobId, TaskId, WorkerId};
use flott_schema::job::JobSpec;
use flott_schema::snapshot::TaskSnapshot;
use flott_schema::wire::generated::machine_capnp;
use flott_schema::wire::generated::machine_capnp::{job_record, restart, slot_wait};
use flott_schema::wire::{Wire, broken, fields};

use super::task::{read_task, stamp, stamped, write_task};
use super::wrong;
use crate::machine::check_graph;
use crate::machine::checkpoint::JobCheckpoints;
use crate::machine::exception::ExceptionHistory;
use crate::machine::job::{JobRecord, JobState, PendingRestart, SlotWait};
use crate::machine::restart::RestartMemory;
use crate::machine::task::{StateTimes, TaskCounts};

impl From<JobState> for machine_capnp::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Created => machine_capnp::JobState::Created,
            JobState::Running => machine_capnp::JobState::Running,
            JobState::Failing => machine_capnp::JobState::Failing,
            JobState::Failed => machine_capnp::JobState::Failed,
            JobState::Cancelling => machine_capnp::JobState::Cancelling,
            JobState::Canceled => machine_capnp::JobState::Canceled,
            JobState::Finished => machine_capnp::JobState::Finished,
            JobState::Restarting => machine_capnp::JobState::Restarting,
        }
    }
}

impl From<machine_capnp::JobState> for JobState {
    fn from(state: machine_capnp::JobState) -> Self {
        match state {
            machine_capnp::JobState::Created => JobState::Created,
            machine_capnp::JobState::Running => JobState::Running,
            machine_capnp::JobState::Failing => JobState::Failing,
            machine_capnp::JobState::Failed => JobState::Failed,
            machine_capnp::JobState::Cancelling => JobState::Cancelling,
            machine_capnp::JobState::Canceled => JobState::Canceled,
            machine_capnp::JobState::Finished => JobState::Finished,
            machine_capnp::JobState::Restarting => JobState::Restarting,
        }
    }
}

impl Wire for SlotWait {
    type Form = slot_wait::Owned;

    fn write(&self, mut form: slot_wait::Builder<'_>) -> Result<()> {
        form.set_number(self.number);
        form.set_since_ms(self.since_ms);
        form.set_needed(self.needed);
        Ok(())
    }

    fn read(form: slot_wait::Reader<'_>) -> Result<Self> {
        Ok(SlotWait { number: form.get_number(), since_ms: form.get_since_ms(), needed: form.get_needed() })
    }
}

impl Wire for PendingRestart {
    type Form = restart::Owned;

    fn write(&self, mut form: restart::Builder<'_>) -> Result<()> {
        form.set_number(self.number);
        form.set_since_ms(self.since_ms);
        form.set_delay_ms(self.delay_ms);
        form.set_expired(self.expired);
        let mut regions = form.init_regions(fields::list_length("regions", self.regions.len())?);
        for (index, region) in (0..).zip(&self.regions) {
            regions.set(index, *region as u32);
        }
        Ok(())
    }

    fn read(form: restart::Reader<'_>) -> Result<Self> {
        Ok(PendingRestart {
            number: form.get_number(),
            since_ms: form.get_since_ms(),
            delay_ms: form.get_delay_ms(),
            expired: form.get_expired(),
            regions: form.get_regions().map_err(broken)?.iter().map(|region| region as usize).collect(),
        })
    }
}

/// A list of numbers: lists of primitives have no helper of their own.
macro_rules! write_numbers {
    ($form:ident.$init:ident, $name:literal, $values:expr) => {{
        let mut list = $form.reborrow().$init(fields::list_length($name, $values.len())?);
        for (index, value) in (0..).zip($values) {
            list.set(index, value);
        }
    }};
}

impl Wire for JobRecord {
    type Form = job_record::Owned;

    fn write(&self, mut form: job_record::Builder<'_>) -> Result<()> {
        self.id.write(form.reborrow().init_id())?;
        self.spec.write(form.reborrow().init_spec())?;
        form.set_state(self.state.into());
        let entered = JobState::ALL.into_iter().map(|state| stamp(self.entered_ms(state)));
        write_numbers!(form.init_entered, "entered", entered);

        let length = fields::list_length("vertices", self.vertices.len())?;
        let mut vertices = form.reborrow().init_vertices(length);
        for (index, vertex) in (0..).zip(&self.vertices) {
            let length = fields::list_length("tasks", vertex.tasks.len())?;
            let mut tasks = vertices.reborrow().get(index).init_tasks(length);
            for (subtask, task) in (0..).zip(&vertex.tasks) {
                write_task(task, tasks.reborrow().get(subtask));
            }
            let last: Vec<&TaskSnapshot> =
                vertex.tasks.iter().filter_map(|task| task.last.as_deref()).collect();
            if !last.is_empty() {
                let length = fields::list_length("lastSnapshots", last.len())?;
                let mut forms = vertices.reborrow().get(index).init_last_snapshots(length);
                for (position, last) in (0..).zip(last) {
                    last.write(forms.reborrow().get(position))?;
                }
            }
        }
        let length = fields::list_length("regions", self.regions.len())?;
        let mut regions = form.reborrow().init_regions(length);
        for (index, region) in (0..).zip(&self.regions) {
            let mut form = regions.reborrow().get(index);
            form.set_placed(region.placed);
            fields::write_list("slots", &region.slots, |length| form.init_slots(length))?;
        }
        let workers = self.workers.iter().map(|worker| worker.0);
        write_numbers!(form.init_workers, "workers", workers);
        if let Some(wait) = &self.wait {
            wait.write(form.reborrow().init_wait())?;
        }
        form.set_waits(self.waits);
        if let Some(failure) = &self.failure {
            failure.write(form.reborrow().init_failure())?;
        }
        form.set_epoch(self.epoch);
        if let Some(restart) = &self.restart {
            restart.write(form.reborrow().init_restart())?;
        }
        form.set_delays(self.delays);
        form.set_restarts(self.restarts);
        let RestartMemory { counted, failures_ms, backoff_ms, next_restart_ms } = &self.memory;
        form.set_counted(*counted);
        let failures_ms = failures_ms.iter().copied();
        write_numbers!(form.init_failures_ms, "failuresMs", failures_ms);
        form.set_backoff_ms(*backoff_ms);
        form.set_next_restart_ms(*next_restart_ms);
        form.set_exceptions_total(self.exceptions.total);
        fields::write_list("exceptions", &self.exceptions.latest, |length| {
            form.reborrow().init_exceptions(length)
        })?;
        match self.checkpoints == JobCheckpoints::default() {
            true => Ok(()),
            false => self.checkpoints.write(form.init_checkpoints()),
        }
    }

    fn read(form: job_record::Reader<'_>) -> Result<Self> {
        let id: JobId = fields::required("id", form.has_id(), form.get_id())?;
        let spec: JobSpec = fields::required("spec", form.has_spec(), form.get_spec())?;
        check_graph(&spec.graph).and_then(|()| check_graph(&spec.effective_graph())).map_err(wrong)?;
        let mut record = JobRecord::new(id, Arc::new(spec), 0);
        record.state = fields::known("state", form.get_state())?;
        record.times = StateTimes::default();
        for (state, entered) in JobState::ALL.into_iter().zip(form.get_entered().map_err(broken)?) {
            if let Some(at_ms) = stamped(entered) {
                record.times.enter(state as usize, at_ms);
            }
        }
        read_vertices(&mut record, form)?;
        read_regions(&mut record, form)?;
        record.workers = form.get_workers().map_err(broken)?.iter().map(WorkerId).collect();
        record.wait = fields::optional("wait", form.has_wait(), form.get_wait())?;
        record.waits = form.get_waits();
        record.failure = fields::optional("failure", form.has_failure(), form.get_failure())?;
        record.epoch = form.get_epoch();
        record.restart = fields::optional("restart", form.has_restart(), form.get_restart())?;
        let known = record.regions.len();
        let regions = record.restart.iter().flat_map(|restart| &restart.regions);
        if regions.copied().any(|region| region >= known) {
            return Err(wrong(format!("job {id} restarts a region that it does not have")));
        }
        record.delays = form.get_delays();
        record.restarts = form.get_restarts();
        record.memory = RestartMemory {
            counted: form.get_counted(),
            failures_ms: form.get_failures_ms().map_err(broken)?.iter().collect(),
            backoff_ms: form.get_backoff_ms(),
            next_restart_ms: form.get_next_restart_ms(),
        };
        record.exceptions = ExceptionHistory {
            latest: fields::list("exceptions", form.get_exceptions())?.into(),
            total: form.get_exceptions_total(),
        };
        record.checkpoints = fields::optional("checkpoints", form.has_checkpoints(), form.get_checkpoints())?
            .unwrap_or_default();
        Ok(record)
    }
}

fn read_vertices(record: &mut JobRecord, form: job_record::Reader<'_>) -> Result<()> {
    let forms = form.get_vertices().map_err(broken)?;
    if forms.len() as usize != record.vertices.len() {
        let (stored, known) = (forms.len(), record.vertices.len());
        return Err(wrong(format!("job {} has {known} vertices, {stored} are stored", record.id)));
    }
    let vertices = record.vertices.iter_mut().zip(&record.graph.vertices);
    for (form, (vertex, known)) in forms.iter().zip(vertices) {
        let tasks = form.get_tasks().map_err(broken)?;
        if tasks.len() != known.parallelism {
            let (stored, known) = (tasks.len(), known.parallelism);
            return Err(wrong(format!("a vertex has {known} tasks, {stored} are stored")));
        }
        vertex.counts = TaskCounts::default();
        for (subtask, form) in tasks.iter().enumerate() {
            let id = TaskId { vertex: known.id, subtask: subtask as u32 };
            let task = read_task(id, form)?;
            vertex.counts.add(task.state);
            vertex.tasks[subtask] = task;
        }
        for last in fields::list::<TaskSnapshot>("lastSnapshots", form.get_last_snapshots())? {
            match vertex.tasks.get_mut(last.task.subtask as usize) {
                Some(task) if task.attempt.task == last.task => task.last = Some(Arc::new(last)),
                _ => return Err(wrong("a last snapshot belongs to no task")),
            }
        }
    }
    Ok(())
}

fn read_regions(record: &mut JobRecord, form: job_record::Reader<'_>) -> Result<()> {
    let forms = form.get_regions().map_err(broken)?;
    if forms.len() as usize != record.regions.len() {
        let (stored, known) = (forms.len(), record.regions.len());
        return Err(wrong(format!("job {} has {known} regions, {stored} are stored", record.id)));
    }
    for (form, region) in forms.iter().zip(&mut record.regions) {
        region.placed = form.get_placed();
        region.slots = fields::list("slots", form.get_slots())?;
    }
    Ok(())
}
