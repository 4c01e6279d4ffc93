//! Regions into slots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_schema::control::{Placement, TaskState, WorkerHost};
use flott_schema::graph::Exchange;
use flott_schema::ids::{JobId, SlotId, WorkerId};

use super::event::Effect;
use super::job::{JobRecord, JobState, Region, SlotWait};
use super::slots::SlotOwner;
use super::step::Step;
use super::task::TaskRecord;
use crate::scheduler::assign;

impl Step<'_> {
    /// Places every region that may start and for which there are slots. Jobs that run come before jobs that have not
    /// started, so that a batch job keeps its slots from stage to stage; otherwise the order is that of submission.
    pub(super) fn place_ready(&mut self) {
        for states in [&[JobState::Running, JobState::Restarting][..], &[JobState::Created]] {
            for position in 0..self.state.open.len() {
                let job = self.state.open[position];
                if states.contains(&self.state.jobs[&job].state) {
                    self.place_job(job);
                }
            }
        }
    }

    pub(super) fn place_job(&mut self, job: JobId) {
        let mut blocked = None;
        for region in 0..self.state.jobs[&job].regions.len() {
            let record = &self.state.jobs[&job];
            if record.regions[region].placed || !record.is_ready(region) {
                continue;
            }
            let needed = record.regions[region].sharing.slots_needed();
            if needed > self.state.slots.free() {
                blocked = Some(blocked.unwrap_or(needed));
            } else {
                self.place_region(job, region);
            }
        }
        self.keep_waiting(job, blocked);
    }

    /// Starts, goes on with or ends the wait for `blocked` slots.
    fn keep_waiting(&mut self, job: JobId, blocked: Option<u32>) {
        let since_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("open jobs are known");
        match blocked {
            Some(needed) if record.state != JobState::Restarting && record.counts().live() == 0 => {
                if record.wait.is_none() {
                    let number = record.waits;
                    record.waits += 1;
                    record.wait = Some(SlotWait { number, since_ms, needed });
                    self.effects.push(Effect::StartSlotWait { job, wait: number });
                    self.touch(job, false);
                }
            }
            // Its own tasks hold slots and will free them, or its restart comes first.
            Some(_) | None => record.wait = None,
        }
    }

    fn place_region(&mut self, job: JobId, region: usize) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("open jobs are known");
        let wishes = wishes(record, region);
        let chosen = assign(&record.regions[region].sharing, &self.state.slots.offers(), &wishes)
            .expect("the free slots were counted before");
        for slot in &chosen {
            self.state.slots.take(*slot, SlotOwner { job, region });
        }

        let JobRecord { vertices, regions, workers, .. } = record;
        let Region { shape, sharing, placed, slots } = &mut regions[region];
        for (member, position) in shape.vertices.iter().enumerate() {
            let vertex = &mut vertices[*position];
            for subtask in 0..vertex.tasks.len() {
                let slot = chosen[sharing.slot_of(member, subtask as u32) as usize];
                vertex.enter(subtask, TaskState::Scheduled, at_ms);
                vertex.enter(subtask, TaskState::Deploying, at_ms);
                vertex.tasks[subtask].slot = Some(slot);
                workers.insert(slot.worker);
            }
        }
        *placed = true;
        *slots = chosen;
        record.choose_restore_point(at_ms);
        if record.state == JobState::Created {
            self.enter(job, JobState::Running);
        }
        let positions: BTreeSet<usize> =
            self.state.jobs[&job].regions[region].shape.vertices.iter().copied().collect();
        self.deploy(job, |position, _| positions.contains(&position));
        self.touch(job, true);
    }

    /// Sends placed tasks to their workers; `which` is given the position of the vertex and the task.
    pub(super) fn deploy(&mut self, job: JobId, which: impl Fn(usize, &TaskRecord) -> bool) {
        let record = &self.state.jobs[&job];
        let mut tasks: BTreeMap<WorkerId, Vec<Placement>> = BTreeMap::new();
        for (position, vertex) in record.vertices.iter().enumerate() {
            for task in &vertex.tasks {
                if let Some(slot) = task.slot.filter(|_| which(position, task)) {
                    let placement = Placement { attempt: task.attempt, slot };
                    tasks.entry(slot.worker).or_default().push(placement);
                }
            }
        }
        let restore = record.restore();
        let peers: Arc<[Placement]> = record.placements().collect();
        let workers: BTreeSet<WorkerId> = peers.iter().map(|peer| peer.slot.worker).collect();
        let hosts: Arc<[WorkerHost]> =
            workers.into_iter().filter_map(|worker| self.state.slots.host(worker)).collect();
        self.effects.extend(tasks.into_iter().map(|(worker, tasks)| Effect::Deploy {
            worker,
            job,
            spec: record.spec.clone(),
            tasks,
            peers: peers.clone(),
            hosts: hosts.clone(),
            restore: restore.clone(),
        }));
    }
}

/// The slot each shared slot of a region would like: where its tasks ran before; else where the matching subtask of a
/// blocking input ran, whose result lies on that worker.
pub(super) fn wishes(record: &JobRecord, region: usize) -> Vec<Option<SlotId>> {
    let region = &record.regions[region];
    let mut wishes = vec![None; region.sharing.slots_needed() as usize];
    for (member, position) in region.shape.vertices.iter().enumerate() {
        for (subtask, task) in (0..).zip(&record.vertices[*position].tasks) {
            let wish = &mut wishes[region.sharing.slot_of(member, subtask) as usize];
            *wish = wish.or(task.previous);
        }
    }
    if region.shape.inputs.is_empty() {
        return wishes;
    }
    for edge in record.graph.edges.iter().filter(|edge| edge.exchange == Exchange::Blocking) {
        let source = record.positions[&edge.source];
        let Ok(member) = region.shape.vertices.binary_search(&record.positions[&edge.target]) else {
            continue;
        };
        if !region.shape.inputs.contains(&source) {
            continue;
        }
        let sources = &record.vertices[source].tasks;
        let targets = record.graph.vertices[region.shape.vertices[member]].parallelism;
        for subtask in 0..targets {
            let matching = u64::from(subtask) * sources.len() as u64 / u64::from(targets);
            let wish = &mut wishes[region.sharing.slot_of(member, subtask) as usize];
            *wish = wish.or(sources[matching as usize].slot);
        }
    }
    wishes
}
