//! What holds after every event. Each check names what is broken.

use std::collections::BTreeMap;

use flott_schema::control::TaskState;
use flott_schema::ids::SlotId;

use super::job::{JobRecord, JobState};
use super::slots::{SlotOwner, SlotTable};
use super::state::ClusterState;
use super::task::TaskCounts;

/// Checks the whole state. Costs as much as there are slots and tasks: for tests and tools; [`super::apply`] checks what
/// an event touched.
pub fn check_invariants(state: &ClusterState) -> Result<(), String> {
    let mut held: BTreeMap<SlotId, SlotOwner> = BTreeMap::new();
    for (id, job) in &state.jobs {
        check_job(&state.slots, job).map_err(|broken| format!("job {id}: {broken}"))?;
        ensure(state.open.contains(id) != state.ended.contains(id), || {
            format!("job {id} is not open or ended")
        })?;
        ensure(state.open.contains(id) != job.state.is_terminal(), || {
            format!("job {id} is {} and in the wrong list", job.state.word())
        })?;
        for region in 0..job.regions.len() {
            let needed = job.regions[region].sharing.slots_needed();
            let waits = !job.state.is_terminal() && !job.regions[region].placed && job.is_ready(region);
            let going_down = matches!(job.state, JobState::Failing | JobState::Cancelling);
            ensure(!waits || going_down || needed > state.slots.free(), || {
                format!(
                    "region {region} of job {id} waits for {needed} slots while {} are free",
                    state.slots.free()
                )
            })?;
        }
        for (region, slots) in job.regions.iter().map(|region| &region.slots).enumerate() {
            for slot in slots {
                let other = held.insert(*slot, SlotOwner { job: *id, region });
                ensure(other.is_none(), || format!("{slot:?} is held by {other:?} and by job {id}"))?;
            }
        }
    }
    ensure(state.jobs.len() == state.open.len() + state.ended.len(), || "a job is listed twice".into())?;
    ensure(state.ended.len() <= state.limits.ended_jobs_max, || "too many ended jobs are kept".into())?;
    check_slots(&state.slots, &held)
}

/// The slot table agrees with what the jobs hold.
fn check_slots(slots: &SlotTable, held: &BTreeMap<SlotId, SlotOwner>) -> Result<(), String> {
    let mut free = 0;
    for (worker, record) in slots.workers() {
        for (index, owner) in (0..).zip(record.owners()) {
            let slot = SlotId { worker: *worker, index };
            ensure(owner.as_ref() == held.get(&slot), || {
                format!("{slot:?} is marked {owner:?}, held by {:?}", held.get(&slot))
            })?;
            ensure(owner.is_none() == record.free_indexes().contains(&index), || {
                format!("{slot:?} is free and taken at once")
            })?;
        }
        free += record.free_slots();
    }
    ensure(free == slots.free(), || format!("{free} slots are free, {} are counted", slots.free()))
}

/// What can be told from counts.
pub(super) fn check_job_briefly(job: &JobRecord) -> Result<(), String> {
    let counts = job.counts();
    let total = counts.total();
    let state = job.state.word();
    let canceling = counts.of(TaskState::Canceling);
    let open = total - counts.terminal();
    ensure(counts.of(TaskState::Scheduled) == 0, || "a task is placed and not deployed".into())?;
    ensure(total as usize == job.graph.task_count(), || "the counts of tasks are wrong".into())?;
    ensure(job.entered_ms(job.state).is_some(), || format!("{state} has no time stamp"))?;
    if job.state.is_terminal() {
        ensure(open == 0, || format!("{state} with {open} tasks that have not ended"))?;
        ensure(job.regions.iter().all(|region| region.slots.is_empty()), || format!("{state} holds slots"))?;
    }
    match job.state {
        JobState::Created => {
            ensure(counts.of(TaskState::Created) == total, || "CREATED with tasks on their way".into())?;
        }
        JobState::Running => {
            let (canceled, failed) = (counts.of(TaskState::Canceled), counts.of(TaskState::Failed));
            ensure(canceling + canceled + failed == 0, || "RUNNING with tasks that were stopped".into())?;
            ensure(open > 0, || "RUNNING with no task left".into())?;
        }
        JobState::Restarting => {
            let restart = job.restart.as_ref().ok_or("RESTARTING without a restart")?;
            let regions = (0..job.regions.len()).filter(|region| restart.regions.contains(region));
            let (mut stopped, mut live) = (0, 0);
            for counts in regions.map(|region| job.region_counts(region)) {
                let created = counts.of(TaskState::Created);
                ensure(counts.total() - counts.terminal() == counts.of(TaskState::Canceling), || {
                    format!("a region restarts whose tasks were not asked to stop ({created} not placed)")
                })?;
                stopped += counts.of(TaskState::Canceled) + counts.of(TaskState::Failed);
                live += counts.live();
            }
            let all = counts.of(TaskState::Canceled) + counts.of(TaskState::Failed);
            ensure(stopped == all && live >= canceling, || "tasks were stopped that do not restart".into())?;
            ensure(!restart.expired || live > 0, || "a restart is due and does not come".into())?;
        }
        JobState::Failing | JobState::Cancelling => {
            ensure(open == canceling, || format!("{state} with tasks that were not asked to stop"))?;
            ensure(open > 0, || format!("{state} with no task left"))?;
        }
        JobState::Finished => {
            ensure(counts.of(TaskState::Finished) == total, || "FINISHED with other tasks".into())?;
        }
        JobState::Failed | JobState::Canceled => {}
    }
    job.checkpoints.check(job.state == JobState::Running, job.retained_max())?;
    ensure(job.restart.is_some() == (job.state == JobState::Restarting), || {
        format!("{state} with the restart {:?}", job.restart)
    })?;
    let failed = matches!(job.state, JobState::Failing | JobState::Failed);
    ensure(!failed || job.failure.is_some(), || format!("{state} without a failure"))?;
    // A job always waits for something: for its tasks, or for slots with a deadline.
    let waits = matches!(job.state, JobState::Created | JobState::Running) && counts.live() == 0;
    ensure(job.wait.is_some() == waits, || {
        format!("{state} with {} live tasks and the slot wait {:?}", counts.live(), job.wait)
    })
}

/// Everything about one job and its slots.
pub(super) fn check_job(slots: &SlotTable, job: &JobRecord) -> Result<(), String> {
    check_job_briefly(job)?;
    for vertex in &job.vertices {
        let mut counts = TaskCounts::default();
        vertex.tasks.iter().for_each(|task| counts.add(task.state));
        ensure(counts == vertex.counts, || "the counts of a vertex are wrong".into())?;
    }
    (0..job.regions.len()).try_for_each(|region| check_region(slots, job, region))
}

fn check_region(slots: &SlotTable, job: &JobRecord, position: usize) -> Result<(), String> {
    let region = &job.regions[position];
    let counts = job.region_counts(position);
    let restarting = job.is_restarting(position);
    let needed = region.sharing.slots_needed() as usize;
    // A region that restarts keeps its slots, unless it had finished before.
    let right = match region.slots.len() {
        0 => !region.placed || counts.live() == 0,
        held => held == needed && region.placed && (counts.live() > 0 || restarting),
    };
    ensure(right, || {
        format!("region {position} holds {} slots for {} live tasks", region.slots.len(), counts.live())
    })?;
    ensure(!region.placed || restarting || job.is_ready(position), || {
        format!("region {position} started before its inputs were complete")
    })?;
    let owner = Some(SlotOwner { job: job.id, region: position });
    for slot in &region.slots {
        let gone = !slots.workers().contains_key(&slot.worker);
        ensure(gone || slots.owner(*slot) == owner, || format!("{slot:?} is not marked as theirs"))?;
    }
    for (member, vertex) in region.shape.vertices.iter().enumerate() {
        for (subtask, task) in (0..).zip(&job.vertices[*vertex].tasks) {
            ensure(task.entered_ms(task.state).is_some(), || "a task's state has no time stamp".into())?;
            ensure(task.last.is_none() || task.state != TaskState::Created, || {
                "a task that is not deployed has a last snapshot".into()
            })?;
            ensure(task.slot.is_some() == region.placed, || format!("{task:?} and its region disagree"))?;
            let Some(slot) = task.slot.filter(|_| !task.state.is_terminal()) else { continue };
            let shared = region.sharing.slot_of(member, subtask) as usize;
            ensure(region.slots.get(shared) == Some(&slot), || {
                format!("{task:?} is not where it was placed")
            })?;
            ensure(slots.owner(slot) == owner, || format!("{task:?} runs in a slot that is not theirs"))?;
        }
    }
    let mut distinct = region.slots.clone();
    distinct.sort_unstable();
    distinct.dedup();
    ensure(distinct.len() == region.slots.len(), || format!("region {position} holds a slot twice"))
}

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}
