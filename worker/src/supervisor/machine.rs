//! Which executors a worker has and what becomes of them: orders and incidents in, actions out. No clock, no
//! process, no socket.
//!
//! A job has at most one *current* executor; one that is to end (released, refused, killed) is no longer
//! current, so that a restart of its job does not wait for it. An attempt is reported in a terminal state by
//! its executor, or by the machine once the executor is gone: what is reported ended does not run any more. A
//! finished attempt is reported failed after all if its executor ends before the job is released, because the
//! results that a later stage may want to read went with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_schema::control::{
    CheckpointOrder, PrepareOrder, RunningTask, SnapshotReport, TaskFailure, TaskReport, TaskState, ToWorker,
};
use flott_schema::error::ErrorKind;
use flott_schema::ids::{AttemptId, JobId, TaskId, WorkerId};
use flott_schema::job::JobSpec;

pub use super::event::{Action, Event, ExecutorNumber, Timer};

/// Deadlines.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the start of a process to its hello.
    pub hello_ms: u64,
    /// From the wish that an executor ends to its being killed.
    pub end_ms: u64,
    /// How long an executor may say nothing: it sends the numbers of its tasks every second.
    pub silence_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { hello_ms: 60_000, end_ms: 2_000, silence_ms: 50_000 }
    }
}

/// The state.
#[derive(Debug, Default)]
pub struct Machine {
    deadlines: Deadlines,
    executors: BTreeMap<ExecutorNumber, Executor>,
    current: BTreeMap<JobId, ExecutorNumber>,
    last_executor: u64,
    last_cancellation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its program is fetched, or it has not said hello yet.
    Starting,
    /// It takes orders.
    Connected,
    /// It is to end.
    Ending,
}

#[derive(Debug)]
struct Executor {
    job: JobId,
    spec: Arc<JobSpec>,
    phase: Phase,
    /// Orders that wait for its hello.
    queued: Vec<ToWorker>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Tasks that have finished, the newest attempt of each: the process keeps their results until the job is
    /// released.
    finished: BTreeMap<TaskId, AttemptId>,
    slots: BTreeSet<u32>,
    /// Why it is to end, where that is a failure of its tasks.
    reason: Option<(ErrorKind, String)>,
}

#[derive(Debug)]
struct Attempt {
    state: TaskState,
    /// The number of the first cancellation that named it.
    cancellation: Option<u64>,
}

impl Machine {
    /// A worker without executors.
    pub fn new(deadlines: Deadlines) -> Self {
        Machine { deadlines, ..Machine::default() }
    }

    /// The tasks that run, as a worker names them when it comes back to a coordinator.
    pub fn running(&self) -> Vec<RunningTask> {
        let tasks = self.executors.values().flat_map(|executor| {
            let job = executor.job;
            executor.attempts.iter().map(move |(attempt, live)| RunningTask {
                job,
                attempt: *attempt,
                state: live.state,
            })
        });
        tasks.collect()
    }

    /// Number of executors, those included that are about to start or to end.
    pub fn executors(&self) -> usize {
        self.executors.len()
    }

    /// The executor that takes orders for a job.
    pub fn current(&self, job: JobId) -> Option<ExecutorNumber> {
        self.current.get(&job).copied()
    }

    /// Takes in an event.
    pub fn apply(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Order(order) => self.order(order, &mut actions),
            Event::Spawned(number) => {
                if self.executors.contains_key(&number) {
                    actions.push(Action::SetTimer(number, Timer::Hello, self.deadlines.hello_ms));
                }
            }
            Event::NotStarted { executor, kind, reason } => {
                let known = self.executors.get_mut(&executor).and_then(|state| state.reason.take());
                self.gone(executor, known.unwrap_or((kind, reason)), &mut actions);
            }
            Event::Connected(number) => self.connected(number, &mut actions),
            Event::Disconnected(number) => {
                // An executor that ends closes its connection first; one that lives on without is of no use.
                if self.executors.contains_key(&number) {
                    actions.push(Action::SetTimer(number, Timer::End, self.deadlines.end_ms));
                }
            }
            Event::Silent(number) => {
                let reason = format!(
                    "the executor said nothing for {} ms (heartbeat.timeout), and was killed",
                    self.deadlines.silence_ms
                );
                self.kill(number, Some((ErrorKind::Io, reason)), &mut actions)
            }
            Event::Refused { executor, reason } => {
                self.kill(executor, Some((ErrorKind::Graph, reason)), &mut actions)
            }
            Event::Report { executor, report } => self.report(executor, report, &mut actions),
            Event::Snapshot { executor, report } => {
                let executor = self.executors.get(&executor);
                if executor
                    .is_some_and(|executor| executor.job == report.job && executor.has(&report.attempt))
                {
                    actions.push(Action::Snapshot(report));
                }
            }
            Event::SnapshotWanted { executor, attempt } => {
                let executor = self.executors.get(&executor);
                if let Some(executor) = executor.filter(|executor| executor.attempts.contains_key(&attempt)) {
                    actions.push(Action::SnapshotWanted(executor.job, attempt));
                }
            }
            Event::Exited { executor, how, details, out_of_memory } => {
                let kind = match out_of_memory {
                    true => ErrorKind::Resources,
                    false => ErrorKind::UserCode,
                };
                let reason = match self.executors.get_mut(&executor) {
                    Some(state) => state.end_reason(kind, &how, &details),
                    None => return actions,
                };
                self.gone(executor, reason, &mut actions);
            }
            Event::Due(number, timer) => self.due(number, timer, &mut actions),
            Event::EndAll => self.end_all(&mut actions),
        }
        actions
    }

    fn order(&mut self, order: ToWorker, actions: &mut Vec<Action>) {
        match order {
            ToWorker::Deploy { job, spec, tasks, peers, hosts, restore } => {
                let Some(program) = spec.program.clone() else {
                    let reason = (ErrorKind::Internal, "the job names no stored program".to_string());
                    for placement in &tasks {
                        let failure = failure(&spec, placement.attempt, &reason);
                        actions.push(Action::Report(ended(job, placement.attempt, Some(failure))));
                    }
                    return;
                };
                let known = self.current.get(&job).copied();
                let number = known.unwrap_or_else(|| self.new_executor(job, spec.clone()));
                let Some(executor) = self.executors.get_mut(&number) else { return };
                let slots_before = executor.slots.len();
                for placement in &tasks {
                    executor.slots.insert(placement.slot.index);
                    let live = Attempt { state: TaskState::Deploying, cancellation: None };
                    executor.attempts.insert(placement.attempt, live);
                    executor.finished.remove(&placement.attempt.task);
                }
                let slots = executor.slots.len() as u32;
                let worker = tasks.first().map_or(WorkerId(0), |placement| placement.slot.worker);
                let deploy = ToWorker::Deploy { job, spec, tasks, peers, hosts, restore };
                match executor.phase {
                    Phase::Connected => actions.push(Action::Send(number, deploy)),
                    _ => executor.queued.push(deploy),
                }
                if known.is_none() {
                    actions.push(Action::Start { executor: number, job, worker, program, slots });
                } else if executor.slots.len() > slots_before {
                    actions.push(Action::Resize(number, slots));
                }
            }
            ToWorker::Prepare(order) => self.prepare(order, actions),
            ToWorker::Checkpoint(order) => self.checkpoint(order, actions),
            ToWorker::CheckpointEnded { job, checkpoint, completed, attempts } => {
                // Who has no executor any more has nothing to commit.
                if let Some(number) = self.connected_executor(job) {
                    let ended = ToWorker::CheckpointEnded { job, checkpoint, completed, attempts };
                    actions.push(Action::Send(number, ended));
                }
            }
            ToWorker::Cancel { job, attempts } => self.cancel(job, attempts, actions),
            ToWorker::Release { job } => {
                if let Some(number) = self.current.get(&job).copied() {
                    self.end(number, actions);
                }
            }
        }
    }

    /// Starts an executor for tasks that may come, unless there is one, and hands the order on.
    fn prepare(&mut self, order: PrepareOrder, actions: &mut Vec<Action>) {
        let (job, spec) = (order.job, order.spec.clone());
        let (Some(program), Some(first)) = (spec.program.clone(), order.tasks.first()) else { return };
        let worker = first.slot.worker;
        let slots: BTreeSet<u32> = order.tasks.iter().map(|placement| placement.slot.index).collect();
        let known = self.current(job);
        let number = known.unwrap_or_else(|| self.new_executor(job, spec));
        let Some(executor) = self.executors.get_mut(&number) else { return };
        match executor.phase {
            Phase::Connected => actions.push(Action::Send(number, ToWorker::Prepare(order))),
            _ => executor.queued.push(ToWorker::Prepare(order)),
        }
        if known.is_none() {
            let slots_now = slots.len() as u32;
            executor.slots = slots;
            actions.push(Action::Start { executor: number, job, worker, program, slots: slots_now });
        }
    }

    /// Hands the order on. Tasks that are not there cannot take part; the coordinator is told so, rather than left to wait.
    fn checkpoint(&mut self, order: CheckpointOrder, actions: &mut Vec<Action>) {
        let number = self.connected_executor(order.job);
        let executor = number.and_then(|number| self.executors.get(&number));
        let is_here = |attempt: &AttemptId| executor.is_some_and(|executor| executor.has(attempt));
        for attempt in order.attempts.iter().filter(|attempt| !is_here(attempt)) {
            let result = Err("the task does not run on the worker where it was placed".to_string());
            let (job, checkpoint) = (order.job, order.barrier.checkpoint);
            let report = SnapshotReport { job, attempt: *attempt, checkpoint, handed_in: 0, result };
            actions.push(Action::Snapshot(Box::new(report)));
        }
        if let Some(number) = number {
            actions.push(Action::Send(number, ToWorker::Checkpoint(order)));
        }
    }

    /// The executor that takes orders for a job, if it has said hello.
    fn connected_executor(&self, job: JobId) -> Option<ExecutorNumber> {
        let number = self.current(job)?;
        self.executors.get(&number).filter(|executor| executor.phase == Phase::Connected).map(|_| number)
    }

    fn new_executor(&mut self, job: JobId, spec: Arc<JobSpec>) -> ExecutorNumber {
        self.last_executor += 1;
        let number = ExecutorNumber(self.last_executor);
        self.current.insert(job, number);
        let executor = Executor {
            job,
            spec,
            phase: Phase::Starting,
            queued: Vec::new(),
            attempts: BTreeMap::new(),
            finished: BTreeMap::new(),
            slots: BTreeSet::new(),
            reason: None,
        };
        self.executors.insert(number, executor);
        number
    }

    fn cancel(&mut self, job: JobId, attempts: Vec<AttemptId>, actions: &mut Vec<Action>) {
        let mut known: BTreeMap<ExecutorNumber, Vec<AttemptId>> = BTreeMap::new();
        for attempt in attempts {
            let holder = self
                .executors
                .iter()
                .find(|(_, executor)| executor.job == job && executor.attempts.contains_key(&attempt));
            match holder {
                Some((number, _)) => known.entry(*number).or_default().push(attempt),
                // It has ended, or never came here.
                None => actions.push(Action::Report(ended(job, attempt, None))),
            }
        }
        for (number, attempts) in known {
            let Some(executor) = self.executors.get_mut(&number) else { continue };
            match executor.phase {
                Phase::Starting => executor.withdraw(&attempts, actions),
                // Its end is near, and will be reported.
                Phase::Ending => executor.mark(&attempts, 0),
                Phase::Connected => {
                    self.last_cancellation += 1;
                    executor.mark(&attempts, self.last_cancellation);
                    let timeout_ms = executor.spec.settings.cancellation_timeout_ms;
                    actions.push(Action::Send(number, ToWorker::Cancel { job, attempts }));
                    if timeout_ms > 0 {
                        let timer = Timer::Cancellation(self.last_cancellation);
                        actions.push(Action::SetTimer(number, timer, timeout_ms));
                    }
                }
            }
        }
    }

    fn connected(&mut self, number: ExecutorNumber, actions: &mut Vec<Action>) {
        let Some(executor) = self.executors.get_mut(&number) else { return };
        if executor.phase == Phase::Starting {
            executor.phase = Phase::Connected;
            actions.extend(executor.queued.drain(..).map(|order| Action::Send(number, order)));
        }
    }

    fn report(&mut self, number: ExecutorNumber, report: TaskReport, actions: &mut Vec<Action>) {
        let Some(executor) = self.executors.get_mut(&number) else { return };
        let Some(live) = executor.attempts.get_mut(&report.attempt) else { return };
        if report.job != executor.job {
            return;
        }
        match report.state.is_terminal() {
            true => drop(executor.attempts.remove(&report.attempt)),
            false => live.state = report.state,
        }
        if report.state == TaskState::Finished {
            executor.finished.insert(report.attempt.task, report.attempt);
        }
        actions.push(Action::Report(report));
    }

    fn due(&mut self, number: ExecutorNumber, timer: Timer, actions: &mut Vec<Action>) {
        let Some(executor) = self.executors.get_mut(&number) else { return };
        match timer {
            Timer::Hello if executor.phase == Phase::Starting => {
                let ms = self.deadlines.hello_ms;
                let reason = format!(
                    "the program did not come to execution {} within {ms} ms (worker.executor.start-timeout)",
                    executor.spec.program.as_ref().map_or(0, |program| program.execution)
                );
                self.kill(number, Some((ErrorKind::UserCode, reason)), actions);
            }
            Timer::Hello => {}
            Timer::Cancellation(cancellation) => {
                let stuck =
                    executor.attempts.iter().find(|(_, live)| live.cancellation == Some(cancellation));
                if let Some((attempt, _)) = stuck {
                    let (vertex, subtask, of) = executor.place(*attempt);
                    let ms = executor.spec.settings.cancellation_timeout_ms;
                    let reason = format!(
                        "executor killed: task '{vertex}' (subtask {} of {of}) did not end within {ms} ms \
                         of being cancelled (task.cancellation.timeout)",
                        subtask + 1
                    );
                    self.kill(number, Some((ErrorKind::UserCode, reason)), actions);
                }
            }
            Timer::End => self.kill(number, None, actions),
        }
    }

    /// Asks an executor to end, and sees to it that it does.
    fn end(&mut self, number: ExecutorNumber, actions: &mut Vec<Action>) {
        let Some(executor) = self.executors.get_mut(&number) else { return };
        let job = executor.job;
        match executor.phase {
            Phase::Connected => {
                actions.push(Action::Send(number, ToWorker::Release { job }));
                actions.push(Action::SetTimer(number, Timer::End, self.deadlines.end_ms));
            }
            Phase::Starting => actions.push(Action::Kill(number)),
            Phase::Ending => {}
        }
        executor.phase = Phase::Ending;
        executor.queued.clear();
        // Nobody wants to hear of its tasks any more, or to read their results.
        executor.attempts.clear();
        executor.finished.clear();
        if self.current.get(&job) == Some(&number) {
            self.current.remove(&job);
        }
    }

    fn end_all(&mut self, actions: &mut Vec<Action>) {
        let numbers: Vec<_> = self.executors.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.end(number, actions));
    }

    fn kill(
        &mut self,
        number: ExecutorNumber,
        reason: Option<(ErrorKind, String)>,
        actions: &mut Vec<Action>,
    ) {
        let Some(executor) = self.executors.get_mut(&number) else { return };
        let job = executor.job;
        executor.phase = Phase::Ending;
        executor.queued.clear();
        if executor.reason.is_none() {
            executor.reason = reason;
        }
        if self.current.get(&job) == Some(&number) {
            self.current.remove(&job);
        }
        actions.push(Action::Kill(number));
    }

    /// The process is no more: what it still ran has ended, and the results of what had finished are lost.
    /// These are told first, so that the coordinator sees one loss of results and readers rather than readers
    /// that fail, then results.
    fn gone(&mut self, number: ExecutorNumber, reason: (ErrorKind, String), actions: &mut Vec<Action>) {
        let Some(executor) = self.executors.remove(&number) else { return };
        if self.current.get(&executor.job) == Some(&number) {
            self.current.remove(&executor.job);
        }
        for attempt in executor.finished.values() {
            let lost = failure(&executor.spec, *attempt, &reason);
            actions.push(Action::Report(ended(executor.job, *attempt, Some(lost))));
        }
        for (attempt, live) in &executor.attempts {
            let failure = match live.cancellation {
                Some(_) => None,
                None => Some(failure(&executor.spec, *attempt, &reason)),
            };
            actions.push(Action::Report(ended(executor.job, *attempt, failure)));
        }
        actions.push(Action::Forget(number));
    }
}

impl Executor {
    /// Whether the task runs in it, or has finished there.
    fn has(&self, attempt: &AttemptId) -> bool {
        self.attempts.contains_key(attempt) || self.finished.get(&attempt.task) == Some(attempt)
    }

    /// Cancels attempts that were not yet handed to the process.
    fn withdraw(&mut self, attempts: &[AttemptId], actions: &mut Vec<Action>) {
        for attempt in attempts {
            self.attempts.remove(attempt);
            actions.push(Action::Report(ended(self.job, *attempt, None)));
        }
        for order in &mut self.queued {
            if let ToWorker::Deploy { tasks, .. } = order {
                tasks.retain(|placement| !attempts.contains(&placement.attempt));
            }
        }
    }

    fn mark(&mut self, attempts: &[AttemptId], cancellation: u64) {
        for attempt in attempts {
            if let Some(live) = self.attempts.get_mut(attempt) {
                live.cancellation.get_or_insert(cancellation);
            }
        }
    }

    /// Vertex, subtask and parallelism.
    fn place(&self, attempt: AttemptId) -> (&str, u32, u32) {
        place(&self.spec, attempt)
    }

    /// What the failures of its tasks say.
    fn end_reason(&mut self, kind: ErrorKind, how: &str, details: &str) -> (ErrorKind, String) {
        let with = |text: String| match details.is_empty() {
            true => text,
            false => format!("{text}; {details}"),
        };
        match (self.reason.take(), self.phase) {
            (Some((kind, reason)), _) => (kind, with(reason)),
            (None, Phase::Starting) => {
                let program = self.spec.program.as_ref();
                (
                    kind,
                    with(format!(
                        "program '{}' {how} without coming to execution {}: does it call execute with \
                         these arguments on this host?",
                        program.map_or("", |program| &program.name),
                        program.map_or(0, |program| program.execution)
                    )),
                )
            }
            (None, _) => (kind, with(format!("executor {how}"))),
        }
    }
}

fn place(spec: &JobSpec, attempt: AttemptId) -> (&str, u32, u32) {
    let vertex = spec.graph.vertex(attempt.task.vertex);
    (
        vertex.map_or("", |vertex| vertex.name.as_str()),
        attempt.task.subtask,
        vertex.map_or(0, |vertex| vertex.parallelism),
    )
}

fn failure(spec: &JobSpec, attempt: AttemptId, reason: &(ErrorKind, String)) -> TaskFailure {
    let (vertex, subtask, parallelism) = place(spec, attempt);
    TaskFailure {
        kind: reason.0,
        vertex: vertex.to_string(),
        subtask,
        parallelism,
        message: reason.1.clone(),
        backtrace: None,
    }
}

/// Failed if there is a failure, else cancelled.
fn ended(job: JobId, attempt: AttemptId, failure: Option<TaskFailure>) -> TaskReport {
    let state = match failure {
        Some(_) => TaskState::Failed,
        None => TaskState::Canceled,
    };
    TaskReport { job, attempt, state, failure }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
