//! A worker is back: what it runs is compared with what it should run.
//!
//! While it was away orders to it may have been lost, and so may the effects of events that an earlier leader committed.
//! Its reports were not: it says again what was not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use flott_schema::control::{RunningTask, TaskState};
use flott_schema::ids::{AttemptId, JobId, WorkerId};

use super::event::Effect;
use super::job::JobRecord;
use super::lifecycle::Losses;
use super::step::Step;
use super::task::{Report, TaskRecord, judge};

/// Jobs that a worker is told once more to drop: those that ended before its connection or its leader did, and no more than
/// its queue takes at once.
const RELEASES_REPEATED_MAX: usize = 64;

/// What a worker says it runs of one job.
type Attempts = BTreeMap<AttemptId, TaskState>;

impl Step<'_> {
    pub(super) fn welcome_back(&mut self, worker: WorkerId, tasks: Vec<RunningTask>) {
        if !self.state.slots.workers().contains_key(&worker) {
            self.state.ignored.unknown_worker += 1;
            return;
        }
        let mut said: BTreeMap<JobId, Attempts> = BTreeMap::new();
        for task in tasks {
            said.entry(task.job).or_default().insert(task.attempt, task.state);
        }
        for (job, attempts) in &said {
            self.stop_strangers(worker, *job, attempts);
        }
        self.release_again(worker, &said);
        for job in self.state.open.clone() {
            if self.state.jobs[&job].workers.contains(&worker) {
                self.compare(worker, job, said.get(&job).unwrap_or(&Attempts::new()));
            }
        }
    }

    /// Lets the worker drop jobs that ended lately: the order may have been lost with its connection or its leader, and it need
    /// not name jobs of which nothing runs.
    fn release_again(&mut self, worker: WorkerId, said: &BTreeMap<JobId, Attempts>) {
        for job in self.state.ended.iter().rev().take(RELEASES_REPEATED_MAX) {
            if self.state.jobs[job].workers.contains(&worker) && !said.contains_key(job) {
                self.effects.push(Effect::Release { worker, job: *job });
            }
        }
    }

    /// Stops what the worker runs and should not, and lets it drop jobs that are over.
    fn stop_strangers(&mut self, worker: WorkerId, job: JobId, said: &Attempts) {
        let record = self.state.jobs.get_mut(&job).filter(|record| !record.state.is_terminal());
        let wanted = |attempt: &AttemptId| {
            let task = record.as_ref().and_then(|record| record.task(attempt.task));
            task.is_some_and(|task| {
                task.attempt == *attempt && task.is_on(worker) && !task.state.is_terminal()
            })
        };
        let live = said.iter().filter(|(_, state)| !state.is_terminal()).map(|(attempt, _)| *attempt);
        let strangers: Vec<AttemptId> = live.filter(|attempt| !wanted(attempt)).collect();
        if !strangers.is_empty() {
            self.effects.push(Effect::Cancel { worker, job, attempts: strangers });
        }
        match record {
            // It keeps something for the job, and is told when that ends.
            Some(record) => {
                record.workers.insert(worker);
            }
            None => self.effects.push(Effect::Release { worker, job }),
        }
    }

    /// Takes over the states that the worker tells; ends tasks that it does not run, or orders them again.
    fn compare(&mut self, worker: WorkerId, job: JobId, said: &Attempts) {
        let at_ms = self.state.now_ms;
        let record = self.state.jobs.get_mut(&job).expect("open jobs are known");
        let mut losses = Losses::default();
        let finished =
            |record: &JobRecord| record.vertices.iter().filter(|vertex| vertex.is_finished()).count();
        let finished_before = finished(record);

        let mut gone = BTreeSet::new();
        for (attempt, told) in said {
            let position = record.positions.get(&attempt.task.vertex).copied();
            let Some((position, task)) = position.zip(record.task(attempt.task)) else { continue };
            if task.attempt != *attempt {
                continue;
            }
            // A failure or an unasked end is a loss, see below; what is known or impossible needs nothing.
            let vertex = &mut record.vertices[position];
            let subtask = attempt.task.subtask as usize;
            match judge(vertex.tasks[subtask].state, *told) {
                Report::Enter(next) if next != TaskState::Failed => vertex.enter(subtask, next, at_ms),
                Report::ResultLost if !vertex.tasks[subtask].result_lost => {
                    vertex.tasks[subtask].result_lost = true;
                    gone.insert(*attempt);
                }
                _ => {}
            }
        }
        record.end_tasks(at_ms, &mut losses, |task| {
            how_it_ended(task, worker, said.get(&task.attempt).copied())
        });
        let message = format!(
            "worker {} came back without the finished result of this task, which a later stage has yet to read",
            worker.0
        );
        record.miss_results(at_ms, &mut losses, &message, |task| gone.contains(&task.attempt));
        self.replan |= finished(record) > finished_before;
        self.take_losses(job, losses);

        // What was to be deployed and is now to stop was never there: nobody else would say that it has.
        if let Some(record) = self.state.jobs.get_mut(&job) {
            record.end_tasks(at_ms, &mut Losses::default(), |task| {
                let never_there = task.state == TaskState::Canceling && !said.contains_key(&task.attempt);
                (never_there && task.is_on(worker)).then(|| (TaskState::Canceled, String::new()))
            });
            self.settle(job);
        }
        self.order_again(worker, job, said);
        self.end_missed(worker, job);
    }

    /// Orders what is still to be done and may never have arrived: tasks to start, tasks to stop.
    fn order_again(&mut self, worker: WorkerId, job: JobId, said: &Attempts) {
        let Some(record) = self.state.jobs.get(&job) else { return };
        let (mut start, mut stop) = (BTreeSet::new(), Vec::new());
        for task in record.vertices.iter().flat_map(|vertex| &vertex.tasks) {
            if !task.is_on(worker) {
                continue;
            }
            match task.state {
                TaskState::Deploying if !said.contains_key(&task.attempt) => {
                    start.insert(task.attempt);
                }
                TaskState::Canceling => stop.push(task.attempt),
                _ => {}
            }
        }
        // Those that this very event sent are among them: once is enough.
        let sent = self.effects.iter().flat_map(|effect| match effect {
            Effect::Deploy { worker: to, job: of, tasks, .. } if (*to, *of) == (worker, job) => {
                tasks.iter().map(|task| task.attempt).collect()
            }
            Effect::Cancel { worker: to, job: of, attempts } if (*to, *of) == (worker, job) => {
                attempts.clone()
            }
            _ => Vec::new(),
        });
        let sent: BTreeSet<AttemptId> = sent.collect();
        start.retain(|attempt| !sent.contains(attempt));
        stop.retain(|attempt| !sent.contains(attempt));
        if !start.is_empty() {
            self.deploy(job, |_, task| start.contains(&task.attempt));
        }
        if !stop.is_empty() {
            self.effects.push(Effect::Cancel { worker, job, attempts: stop });
        }
    }
}

/// How a task ended that its worker does not run, or says has failed; nothing for one that lives, may yet be ordered again,
/// or is elsewhere.
fn how_it_ended(task: &TaskRecord, worker: WorkerId, said: Option<TaskState>) -> Option<(TaskState, String)> {
    if !task.is_on(worker) {
        return None;
    }
    let failed = |message: String| Some((TaskState::Failed, message));
    match (said, task.state) {
        (None, TaskState::Canceling) => Some((TaskState::Canceled, String::new())),
        // The order may have been lost.
        (None, TaskState::Deploying) => None,
        (None, _) => failed(format!("worker {} came back without this task", worker.0)),
        (Some(TaskState::Failed), _) => failed(format!("the task failed while worker {} was away", worker.0)),
        (Some(TaskState::Canceled), _) => {
            failed("the task was cancelled though nobody asked for it".to_string())
        }
        (Some(_), _) => None,
    }
}
