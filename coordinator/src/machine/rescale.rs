//! Another parallelism: whether a job can have it, and how it goes on with it from a snapshot.
//!
//! The job is suspended with a checkpoint; when that is complete its tasks commit and finish. Then all of them are made anew, in
//! another number and under a new epoch, and start from the checkpoint. No restart is counted.
//!
//! Workers hear of it before, and make ready while the tasks of now still run. That is a plan and no promise: where tasks go is decided
//! when their slots are free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_schema::control::{Placement, PrepareOrder, WorkerHost};
use flott_schema::graph::check_parallelism;
use flott_schema::ids::{JobId, VertexId, WorkerId};
use flott_schema::job::JobSpec;

use super::checkpoint::{Closing, Purpose};
use super::event::Effect;
use super::job::{JobRecord, JobState};
use super::placement::wishes;
use super::region::{check_graph, regions_of};
use super::slots::{SlotOwner, SlotTable};
use super::step::Step;
use crate::scheduler::{SlotSharing, assign};

impl JobRecord {
    /// The job with another parallelism of some vertices.
    fn spec_with(&self, parallelism: &BTreeMap<VertexId, u32>) -> JobSpec {
        let mut spec = JobSpec::clone(&self.spec);
        spec.parallelism.extend(parallelism);
        // What is as it was submitted needs no word.
        let submitted: BTreeMap<VertexId, u32> =
            self.spec.graph.vertices.iter().map(|vertex| (vertex.id, vertex.parallelism)).collect();
        spec.parallelism.retain(|vertex, parallelism| submitted.get(vertex) != Some(parallelism));
        spec
    }

    /// Why the job cannot run with this parallelism, if it cannot.
    pub(super) fn rescale_obstacle(
        &self,
        parallelism: &BTreeMap<VertexId, u32>,
        slots: &SlotTable,
    ) -> Option<String> {
        for (vertex, parallelism) in parallelism {
            let Some(known) = self.graph.vertex(*vertex) else {
                let known: Vec<String> = self.graph.vertices.iter().map(|one| one.id.to_string()).collect();
                return Some(format!("the job has no vertex {vertex}; it has {}", known.join(", ")));
            };
            if let Err(error) = check_parallelism(&known.name, *parallelism, known.max_parallelism) {
                return Some(error.to_string());
            }
        }
        let graph = self.spec_with(parallelism).effective_graph();
        if let Err(error) = check_graph(&graph) {
            return Some(error.to_string());
        }
        let needed = regions_of(&graph).into_iter().map(|shape| {
            let members = shape.vertices.iter().map(|position| &graph.vertices[*position]);
            SlotSharing::of(members.map(|vertex| (vertex.slot_sharing_group.as_str(), vertex.parallelism)))
                .slots_needed()
        });
        let needed = needed.fold(0, u32::saturating_add);
        let held = self.regions.iter().map(|region| region.slots.len() as u32).sum::<u32>();
        let there = slots.free() + held;
        (needed > there).then(|| {
            format!(
                "it would need {needed} slots; it has {held}, and {} more are free: start workers or choose a lower \
                 parallelism",
                slots.free()
            )
        })
    }

    /// What the job will be with another parallelism, and where its tasks would be placed if its slots were free now; nothing if there are
    /// too few.
    fn plan(
        &self,
        parallelism: &BTreeMap<VertexId, u32>,
        slots: &SlotTable,
        at_ms: u64,
    ) -> Option<(Arc<JobSpec>, BTreeMap<WorkerId, Vec<Placement>>)> {
        let (mut planned, mut slots) = (self.clone(), slots.clone());
        for (region, held) in self.regions.iter().enumerate() {
            held.slots.iter().for_each(|slot| slots.release(*slot, SlotOwner { job: self.id, region }));
        }
        planned.remake(self.spec_with(parallelism), at_ms);
        let mut placements: BTreeMap<WorkerId, Vec<Placement>> = BTreeMap::new();
        for (number, region) in planned.regions.iter().enumerate() {
            let chosen = assign(&region.sharing, &slots.offers(), &wishes(&planned, number)).ok()?;
            for (member, position) in region.shape.vertices.iter().enumerate() {
                for (subtask, task) in (0..).zip(&planned.vertices[*position].tasks) {
                    let slot = chosen[region.sharing.slot_of(member, subtask) as usize];
                    placements
                        .entry(slot.worker)
                        .or_default()
                        .push(Placement { attempt: task.attempt, slot });
                }
            }
            chosen.into_iter().for_each(|slot| slots.take(slot, SlotOwner { job: self.id, region: number }));
        }
        Some((planned.spec, placements))
    }

    /// Makes all tasks anew, for the next deployment of what `spec` says. None may live.
    fn remake(&mut self, spec: JobSpec, at_ms: u64) {
        let fresh = JobRecord::new(self.id, Arc::new(spec), at_ms);
        let epoch = self.epoch + 1;
        let JobRecord { spec, graph, positions, mut vertices, regions, region_of_vertex, .. } = fresh;
        for (vertex, before) in vertices.iter_mut().zip(&self.vertices) {
            for (subtask, task) in vertex.tasks.iter_mut().enumerate() {
                if let Some(before) = before.tasks.get(subtask) {
                    *task = before.clone();
                    task.reset(epoch, at_ms);
                } else {
                    task.attempt.job_epoch = epoch;
                }
            }
        }
        (self.spec, self.graph, self.positions) = (spec, graph, positions);
        (self.vertices, self.regions, self.region_of_vertex) = (vertices, regions, region_of_vertex);
        self.epoch = epoch;
    }
}

impl Step<'_> {
    /// Tells the workers on which tasks would be placed with another parallelism.
    pub(super) fn prepare(&mut self, job: JobId, parallelism: &BTreeMap<VertexId, u32>) {
        let record = &self.state.jobs[&job];
        let Some((spec, placements)) = record.plan(parallelism, &self.state.slots, self.state.now_ms) else {
            return;
        };
        let hosts: Arc<[WorkerHost]> =
            placements.keys().filter_map(|worker| self.state.slots.host(*worker)).collect();
        let restore = record.restore_point().map(Arc::new);
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        record.workers.extend(placements.keys());
        self.effects.extend(placements.into_iter().map(|(worker, tasks)| {
            let (spec, hosts, restore) = (spec.clone(), hosts.clone(), restore.clone());
            Effect::Prepare { worker, order: PrepareOrder { job, spec, tasks, hosts, restore } }
        }));
    }

    /// The job keeps its parallelism after all: workers on which none of its tasks run, or ran before they were stopped, drop what
    /// they keep for it.
    pub(super) fn release_prepared(&mut self, job: JobId) {
        let record = &self.state.jobs[&job];
        let tasks = record.vertices.iter().flat_map(|vertex| &vertex.tasks);
        let used: BTreeSet<WorkerId> =
            tasks.flat_map(|task| [task.slot, task.previous]).flatten().map(|slot| slot.worker).collect();
        // They stay noted: the order may be lost, and is given again at the end of the job.
        let unused =
            record.workers.difference(&used).filter(|worker| self.state.slots.workers().contains_key(worker));
        self.effects.extend(unused.map(|worker| Effect::Release { worker: *worker, job }));
    }

    /// Goes on with another parallelism if that is what the job waits for, now that all its tasks have ended. False: it is not.
    pub(super) fn rescale_if_due(&mut self, job: JobId) -> bool {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("its job is known");
        let due = record
            .checkpoints
            .closing
            .take_if(|closing| closing.purpose == Purpose::Rescale && closing.completed);
        let (JobState::Running, Some(closing)) = (record.state, due) else { return false };
        let Closing { folder, operation, parallelism, .. } = closing;
        // Slots may have gone since the request was judged: then it goes on as it was.
        let (spec, result) = match record.rescale_obstacle(&parallelism, &self.state.slots) {
            None => (record.spec_with(&parallelism), Ok(folder)),
            Some(obstacle) => (JobSpec::clone(&record.spec), Err(obstacle)),
        };
        record.remake(spec, at_ms);
        let is_refused = result.is_err();
        record.checkpoints.end_operation(operation, result);
        // Before all others: its slots have just been freed for it.
        self.place_job(job);
        if is_refused {
            self.release_prepared(job);
        }
        self.replan = true;
        self.touch(job, true);
        true
    }
}
