//! The form of the whole state.

use flott_schema::error::Result;
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::wire::generated::machine_capnp::{ignored, snapshot};
use flott_schema::wire::{Wire, broken, fields};

use super::event::{read_program, write_program};
use super::wrong;
use crate::machine::job::JobRecord;
use crate::machine::programs::StoredProgram;
use crate::machine::slots::SlotOwner;
use crate::machine::state::{ClusterState, Ignored, Limits};

/// The format that this version writes, and the highest that it reads.
const FORMAT: u32 = 1;

impl Wire for ClusterState {
    type Form = snapshot::Owned;

    fn write(&self, mut form: snapshot::Builder<'_>) -> Result<()> {
        form.set_format(FORMAT);
        form.set_now_ms(self.now_ms);
        form.set_ended_jobs_max(self.limits.ended_jobs_max as u64);
        form.set_exceptions_max(self.limits.exceptions_max as u64);
        form.set_last_worker_id(self.last_worker_id);
        let known = self.slots.workers();
        let mut workers = form.reborrow().init_workers(fields::list_length("workers", known.len())?);
        for (index, (id, record)) in (0..).zip(known) {
            let mut form = workers.reborrow().get(index);
            form.set_id(id.0);
            form.set_registered_ms(record.registered_ms());
            record.profile().write(form.init_profile())?;
        }
        let mut jobs = form.reborrow().init_jobs(fields::list_length("jobs", self.jobs.len())?);
        for (index, job) in (0..).zip(self.jobs.values()) {
            job.write(jobs.reborrow().get(index))?;
        }
        fields::write_list("open", &self.open, |length| form.reborrow().init_open(length))?;
        fields::write_list("ended", &self.ended, |length| form.reborrow().init_ended(length))?;
        let length = fields::list_length("programs", self.programs.len())?;
        let mut programs = form.reborrow().init_programs(length);
        for (index, (digest, program)) in (0..).zip(&self.programs) {
            let mut form = programs.reborrow().get(index);
            form.set_stored_ms(program.stored_ms);
            write_program(digest, &program.name, program.size, form)?;
        }
        self.ignored.write(form.init_ignored())
    }

    fn read(form: snapshot::Reader<'_>) -> Result<Self> {
        if form.get_format() > FORMAT {
            return Err(wrong(format!(
                "it has format {}, and this version of Flott reads up to {FORMAT}; upgrade this coordinator",
                form.get_format()
            )));
        }
        let limits = Limits {
            ended_jobs_max: usize::try_from(form.get_ended_jobs_max()).unwrap_or(usize::MAX),
            exceptions_max: usize::try_from(form.get_exceptions_max()).unwrap_or(usize::MAX),
        };
        let mut state = ClusterState::new(limits);
        state.now_ms = form.get_now_ms();
        state.last_worker_id = form.get_last_worker_id();
        for form in form.get_workers().map_err(broken)? {
            let worker = WorkerId(form.get_id());
            let profile = fields::required("profile", form.has_profile(), form.get_profile())?;
            if !state.slots.register(worker, profile, form.get_registered_ms()) {
                return Err(wrong(format!("worker {} is stored twice, or has too many slots", worker.0)));
            }
        }
        for job in fields::list::<JobRecord>("jobs", form.get_jobs())? {
            take_slots(&mut state, &job)?;
            let id = job.id();
            if state.jobs.insert(id, job).is_some() {
                return Err(wrong(format!("job {id} is stored twice")));
            }
        }
        state.open = fields::list("open", form.get_open())?;
        state.ended = fields::list::<JobId>("ended", form.get_ended())?.into();
        if let Some(unknown) = state.open.iter().chain(&state.ended).find(|job| !state.jobs.contains_key(job))
        {
            return Err(wrong(format!("job {unknown} is listed and not stored")));
        }
        for form in form.get_programs().map_err(broken)? {
            let (digest, name, size) = read_program(form)?;
            state.programs.insert(digest, StoredProgram { name, size, stored_ms: form.get_stored_ms() });
        }
        state.ignored = fields::required("ignored", form.has_ignored(), form.get_ignored())?;
        Ok(state)
    }
}

/// Marks the slots that a job holds.
fn take_slots(state: &mut ClusterState, job: &JobRecord) -> Result<()> {
    for (region, slots) in job.regions.iter().map(|region| &region.slots).enumerate() {
        for slot in slots {
            if !state.slots.workers().contains_key(&slot.worker) {
                continue;
            }
            if !state.slots.is_free(*slot) {
                return Err(wrong(format!("{slot:?} is held twice, or its worker does not have it")));
            }
            state.slots.take(*slot, SlotOwner { job: job.id(), region });
        }
    }
    Ok(())
}

impl Wire for Ignored {
    type Form = ignored::Owned;

    fn write(&self, mut form: ignored::Builder<'_>) -> Result<()> {
        let Ignored {
            unknown_job,
            unknown_task,
            stale_attempt,
            impossible_transition,
            overtaken,
            repeated,
            stale_slot_wait,
            stale_restart_delay,
            unknown_worker,
            refused_worker,
            refused_job,
            unknown_program,
            refused_checkpoint,
            stale_checkpoint,
        } = *self;
        form.set_unknown_job(unknown_job);
        form.set_unknown_task(unknown_task);
        form.set_stale_attempt(stale_attempt);
        form.set_impossible_transition(impossible_transition);
        form.set_overtaken(overtaken);
        form.set_repeated(repeated);
        form.set_stale_slot_wait(stale_slot_wait);
        form.set_stale_restart_delay(stale_restart_delay);
        form.set_unknown_worker(unknown_worker);
        form.set_refused_worker(refused_worker);
        form.set_refused_job(refused_job);
        form.set_unknown_program(unknown_program);
        form.set_refused_checkpoint(refused_checkpoint);
        form.set_stale_checkpoint(stale_checkpoint);
        Ok(())
    }

    fn read(form: ignored::Reader<'_>) -> Result<Self> {
        Ok(Ignored {
            unknown_job: form.get_unknown_job(),
            unknown_task: form.get_unknown_task(),
            stale_attempt: form.get_stale_attempt(),
            impossible_transition: form.get_impossible_transition(),
            overtaken: form.get_overtaken(),
            repeated: form.get_repeated(),
            stale_slot_wait: form.get_stale_slot_wait(),
            stale_restart_delay: form.get_stale_restart_delay(),
            unknown_worker: form.get_unknown_worker(),
            refused_worker: form.get_refused_worker(),
            refused_job: form.get_refused_job(),
            unknown_program: form.get_unknown_program(),
            refused_checkpoint: form.get_refused_checkpoint(),
            stale_checkpoint: form.get_stale_checkpoint(),
        })
    }
}
