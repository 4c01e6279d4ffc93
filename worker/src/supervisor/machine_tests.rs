//! Tests of the machine: an event in, the actions that must follow.

use flott_schema::control::Placement;
use flott_schema::graph::{ExecutionMode, JobGraph, Vertex};
use flott_schema::ids::{SlotId, TaskId, VertexId};
use flott_schema::job::{JobSettings, ProgramDigest, ProgramRef};
use flott_schema::snapshot::Barrier;

use super::*;

const JOB: JobId = JobId(7);
const FIRST: ExecutorNumber = ExecutorNumber(1);

fn attempt(subtask: u32) -> AttemptId {
    AttemptId { task: TaskId { vertex: VertexId(1), subtask }, job_epoch: 0, attempt: 0 }
}

fn program() -> ProgramRef {
    ProgramRef {
        digest: ProgramDigest([1; 32]),
        name: "count".into(),
        arguments: Vec::new(),
        execution: 0,
        configuration: Vec::new(),
    }
}

fn spec(cancellation_timeout_ms: u64) -> Arc<JobSpec> {
    let vertex = Vertex {
        id: VertexId(1),
        name: "Map".into(),
        operators: Vec::new(),
        parallelism: 4,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        is_source: false,
    };
    let graph = JobGraph {
        name: "job".into(),
        mode: ExecutionMode::Streaming,
        vertices: vec![vertex],
        edges: Vec::new(),
    };
    let settings = JobSettings { cancellation_timeout_ms, ..JobSettings::default() };
    Arc::new(JobSpec { program: Some(program()), settings, ..JobSpec::embedded(graph) })
}

fn deploy(subtasks: std::ops::Range<u32>) -> ToWorker {
    let placement = |subtask| Placement {
        attempt: attempt(subtask),
        slot: SlotId { worker: WorkerId(5), index: subtask },
    };
    ToWorker::Deploy {
        job: JOB,
        spec: spec(1000),
        tasks: subtasks.map(placement).collect(),
        peers: Arc::new([]),
        hosts: Arc::new([]),
        restore: None,
    }
}

fn cancel(subtasks: std::ops::Range<u32>) -> ToWorker {
    ToWorker::Cancel { job: JOB, attempts: subtasks.map(attempt).collect() }
}

fn report(subtask: u32, state: TaskState) -> TaskReport {
    TaskReport { job: JOB, attempt: attempt(subtask), state, failure: None }
}

fn exited(executor: ExecutorNumber) -> Event {
    let how = "ended by signal 9 (SIGKILL)".to_string();
    Event::Exited { executor, how, details: "last words".into(), out_of_memory: false }
}

/// A machine with one connected executor, which runs these subtasks.
fn running(subtasks: std::ops::Range<u32>) -> Machine {
    let mut machine = Machine::new(Deadlines::default());
    machine.apply(Event::Order(deploy(subtasks)));
    machine.apply(Event::Spawned(FIRST));
    machine.apply(Event::Connected(FIRST));
    machine
}

/// The reports among actions: subtask, state, message.
fn reports(actions: &[Action]) -> Vec<(u32, TaskState, String)> {
    let of = |action: &Action| match action {
        Action::Report(report) => Some((
            report.attempt.task.subtask,
            report.state,
            report.failure.as_ref().map_or(String::new(), |failure| failure.message.clone()),
        )),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn orders_wait_for_the_hello_of_the_executor_that_they_start() {
    let mut machine = Machine::new(Deadlines::default());
    let start =
        Action::Start { executor: FIRST, job: JOB, worker: WorkerId(5), program: program(), slots: 2 };
    assert_eq!(machine.apply(Event::Order(deploy(0..2))), [start]);
    assert_eq!(machine.apply(Event::Order(deploy(2..3))), [Action::Resize(FIRST, 3)]);
    assert_eq!(machine.apply(Event::Spawned(FIRST)), [Action::SetTimer(FIRST, Timer::Hello, 60_000)]);
    let sent = [Action::Send(FIRST, deploy(0..2)), Action::Send(FIRST, deploy(2..3))];
    assert_eq!(machine.apply(Event::Connected(FIRST)), sent);
    assert_eq!(machine.apply(Event::Due(FIRST, Timer::Hello)), []);
    assert_eq!(machine.apply(Event::Order(deploy(3..4))).len(), 2);
    assert_eq!(machine.running().len(), 4);
    assert_eq!(machine.current(JOB), Some(FIRST));
}

#[test]
fn reports_are_passed_on_and_only_for_tasks_that_the_executor_has() {
    let mut machine = running(0..1);
    let running = Event::Report { executor: FIRST, report: report(0, TaskState::Running) };
    assert_eq!(machine.apply(running), [Action::Report(report(0, TaskState::Running))]);
    assert_eq!(machine.running()[0].state, TaskState::Running);
    let foreign = Event::Report { executor: FIRST, report: report(9, TaskState::Running) };
    assert_eq!(machine.apply(foreign), []);
    let finished = Event::Report { executor: FIRST, report: report(0, TaskState::Finished) };
    assert_eq!(machine.apply(finished.clone()).len(), 1);
    assert_eq!(machine.apply(finished), []);
    assert_eq!(machine.running(), []);
}

#[test]
fn what_an_executor_still_ran_has_failed_when_it_is_gone_and_the_next_one_has_another_number() {
    let mut machine = running(0..2);
    machine.apply(Event::Report { executor: FIRST, report: report(0, TaskState::Finished) });
    let actions = machine.apply(exited(FIRST));
    let message = "executor ended by signal 9 (SIGKILL); last words".to_string();
    // The result of the one that had finished is lost with the process.
    let lost = [(0, TaskState::Failed, message.clone()), (1, TaskState::Failed, message)];
    assert_eq!(reports(&actions), lost);
    assert_eq!(actions.last(), Some(&Action::Forget(FIRST)));
    assert_eq!(machine.executors(), 0);
    let again = machine.apply(Event::Order(deploy(0..1)));
    assert!(matches!(&again[..], [Action::Start { executor: ExecutorNumber(2), slots: 1, .. }]));
}

#[test]
fn a_finished_result_is_lost_with_its_executor_unless_the_job_was_released_or_the_task_runs_again() {
    let finished = |subtask| Event::Report { executor: FIRST, report: report(subtask, TaskState::Finished) };
    let mut machine = running(0..1);
    machine.apply(finished(0));
    machine.apply(Event::Disconnected(FIRST));
    machine.apply(Event::Due(FIRST, Timer::End));
    let actions = machine.apply(exited(FIRST));
    assert_eq!(reports(&actions).len(), 1);
    assert_eq!((reports(&actions)[0].0, reports(&actions)[0].1), (0, TaskState::Failed));

    let mut machine = running(0..1);
    machine.apply(finished(0));
    machine.apply(Event::Order(ToWorker::Release { job: JOB }));
    assert_eq!(machine.apply(exited(FIRST)), [Action::Forget(FIRST)]);

    let mut machine = running(0..1);
    machine.apply(finished(0));
    let ToWorker::Deploy { job, spec, mut tasks, peers, hosts, restore } = deploy(0..1) else {
        unreachable!()
    };
    tasks[0].attempt.attempt = 1;
    let again = tasks[0].attempt;
    machine.apply(Event::Order(ToWorker::Deploy { job, spec, tasks, peers, hosts, restore }));
    let actions = machine.apply(exited(FIRST));
    let told: Vec<AttemptId> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Report(report) => Some(report.attempt),
            _ => None,
        })
        .collect();
    assert_eq!(told, [again]);
}

#[test]
fn a_program_that_ends_without_a_hello_is_told_from_an_executor_that_dies() {
    let mut machine = Machine::new(Deadlines::default());
    machine.apply(Event::Order(deploy(0..1)));
    machine.apply(Event::Spawned(FIRST));
    let how = "ended with exit status 0".to_string();
    let ended = Event::Exited { executor: FIRST, how, details: String::new(), out_of_memory: false };
    let reports = reports(&machine.apply(ended));
    assert!(
        reports[0].2.contains("'count' ended with exit status 0 without coming to execution 0"),
        "{reports:?}"
    );
}

#[test]
fn an_executor_that_says_no_hello_in_time_is_killed_and_its_tasks_say_why() {
    let mut machine = Machine::new(Deadlines::default());
    machine.apply(Event::Order(deploy(0..1)));
    machine.apply(Event::Spawned(FIRST));
    assert_eq!(machine.apply(Event::Due(FIRST, Timer::Hello)), [Action::Kill(FIRST)]);
    let reports = reports(&machine.apply(exited(FIRST)));
    assert_eq!(reports[0].1, TaskState::Failed);
    assert!(
        reports[0].2.contains(
            "did not come to execution 0 within 60000 ms (worker.executor.start-timeout); last words"
        ),
        "{reports:?}"
    );
}

#[test]
fn cancelled_tasks_that_do_not_end_in_time_take_their_executor_with_them() {
    let mut machine = running(0..3);
    let actions = machine.apply(Event::Order(cancel(0..2)));
    let due = Timer::Cancellation(1);
    let expected = [Action::Send(FIRST, cancel(0..2)), Action::SetTimer(FIRST, due, 1000)];
    assert_eq!(actions, expected);
    machine.apply(Event::Report { executor: FIRST, report: report(0, TaskState::Canceled) });
    assert_eq!(machine.apply(Event::Due(FIRST, due)), [Action::Kill(FIRST)]);
    // A restart does not wait for the process to go.
    assert_eq!(machine.current(JOB), None);
    let reports = reports(&machine.apply(exited(FIRST)));
    assert_eq!((reports[0].0, reports[0].1), (1, TaskState::Canceled));
    assert_eq!((reports[1].0, reports[1].1), (2, TaskState::Failed));
    assert!(reports[1].2.contains("'Map' (subtask 2 of 4) did not end within 1000 ms"), "{reports:?}");
}

#[test]
fn cancelled_tasks_that_end_in_time_leave_their_executor_alone() {
    let mut machine = running(0..2);
    machine.apply(Event::Order(cancel(0..1)));
    machine.apply(Event::Report { executor: FIRST, report: report(0, TaskState::Canceled) });
    assert_eq!(machine.apply(Event::Due(FIRST, Timer::Cancellation(1))), []);
    assert_eq!(machine.current(JOB), Some(FIRST));
}

#[test]
fn tasks_cancelled_before_the_hello_are_never_deployed() {
    let mut machine = Machine::new(Deadlines::default());
    machine.apply(Event::Order(deploy(0..2)));
    let actions = machine.apply(Event::Order(cancel(0..1)));
    assert_eq!(actions, [Action::Report(report(0, TaskState::Canceled))]);
    machine.apply(Event::Spawned(FIRST));
    assert_eq!(machine.apply(Event::Connected(FIRST)), [Action::Send(FIRST, deploy(1..2))]);
}

#[test]
fn an_unknown_task_is_cancelled_already() {
    let mut machine = Machine::new(Deadlines::default());
    let actions = machine.apply(Event::Order(cancel(3..4)));
    assert_eq!(actions, [Action::Report(report(3, TaskState::Canceled))]);
}

#[test]
fn a_released_executor_is_asked_to_end_and_killed_if_it_does_not() {
    let mut machine = running(0..1);
    let release = ToWorker::Release { job: JOB };
    let actions = machine.apply(Event::Order(release.clone()));
    assert_eq!(actions, [Action::Send(FIRST, release.clone()), Action::SetTimer(FIRST, Timer::End, 2_000)]);
    assert_eq!(machine.apply(Event::Order(release)), []);
    assert_eq!(machine.apply(Event::Due(FIRST, Timer::End)), [Action::Kill(FIRST)]);
    assert_eq!(machine.apply(exited(FIRST)), [Action::Forget(FIRST)]);
    assert_eq!(machine.apply(Event::Due(FIRST, Timer::End)), []);
}

fn prepare(subtasks: std::ops::Range<u32>) -> ToWorker {
    let ToWorker::Deploy { job, spec, tasks, hosts, restore, .. } = deploy(subtasks) else { unreachable!() };
    ToWorker::Prepare(PrepareOrder { job, spec, tasks, hosts, restore })
}

#[test]
fn an_executor_starts_ahead_of_tasks_that_may_come_and_they_find_it_ready() {
    let mut machine = Machine::new(Deadlines::default());
    let start =
        Action::Start { executor: FIRST, job: JOB, worker: WorkerId(5), program: program(), slots: 2 };
    assert_eq!(machine.apply(Event::Order(prepare(0..2))), [start]);
    machine.apply(Event::Spawned(FIRST));
    assert_eq!(machine.apply(Event::Connected(FIRST)), [Action::Send(FIRST, prepare(0..2))]);
    assert_eq!(machine.running(), [], "nothing runs yet");
    assert_eq!(machine.apply(Event::Order(deploy(0..2))), [Action::Send(FIRST, deploy(0..2))]);
    assert_eq!(machine.apply(Event::Order(prepare(2..3))), [Action::Send(FIRST, prepare(2..3))]);
    assert_eq!(machine.running().len(), 2);
}

#[test]
fn an_executor_that_nobody_needed_after_all_goes_and_one_that_did_not_start_is_no_failure() {
    let mut machine = Machine::new(Deadlines::default());
    machine.apply(Event::Order(prepare(0..2)));
    machine.apply(Event::Spawned(FIRST));
    assert_eq!(machine.apply(Event::Order(ToWorker::Release { job: JOB })), [Action::Kill(FIRST)]);
    assert_eq!(machine.apply(exited(FIRST)), [Action::Forget(FIRST)]);

    let second = ExecutorNumber(2);
    machine.apply(Event::Order(prepare(0..2)));
    let kind = ErrorKind::Io;
    let not_started = Event::NotStarted { executor: second, kind, reason: "no such program".into() };
    assert_eq!(machine.apply(not_started), [Action::Forget(second)]);
    assert!(matches!(machine.apply(Event::Order(deploy(0..1)))[..], [Action::Start { .. }]));
}

#[test]
fn a_program_that_cannot_be_had_fails_the_tasks() {
    let mut machine = Machine::new(Deadlines::default());
    machine.apply(Event::Order(deploy(0..1)));
    let reason = "no such program".to_string();
    let event = Event::NotStarted { executor: FIRST, kind: ErrorKind::Io, reason: reason.clone() };
    assert_eq!(reports(&machine.apply(event)), [(0, TaskState::Failed, reason)]);
    assert_eq!(machine.executors(), 0);
}

#[test]
fn a_refusal_is_the_reason_that_the_tasks_give_even_if_it_comes_before_the_hello() {
    let mut machine = Machine::new(Deadlines::default());
    machine.apply(Event::Order(deploy(0..1)));
    machine.apply(Event::Spawned(FIRST));
    let refused = Event::Refused { executor: FIRST, reason: "another graph".into() };
    assert_eq!(machine.apply(refused), [Action::Kill(FIRST)]);
    assert_eq!(
        reports(&machine.apply(exited(FIRST))),
        [(0, TaskState::Failed, "another graph; last words".to_string())]
    );
}

#[test]
fn an_executor_that_closes_its_connection_and_lives_on_is_killed() {
    let mut machine = running(0..1);
    let timer = Action::SetTimer(FIRST, Timer::End, 2_000);
    assert_eq!(machine.apply(Event::Disconnected(FIRST)), [timer]);
    assert_eq!(machine.apply(Event::Due(FIRST, Timer::End)), [Action::Kill(FIRST)]);
    assert_eq!(reports(&machine.apply(exited(FIRST))).len(), 1);
}

#[test]
fn a_worker_that_ends_takes_all_its_executors_along_without_a_word() {
    let mut machine = running(0..2);
    let other = JobId(8);
    let ToWorker::Deploy { spec, tasks, peers, hosts, restore, .. } = deploy(0..1) else { unreachable!() };
    machine.apply(Event::Order(ToWorker::Deploy { job: other, spec, tasks, peers, hosts, restore }));
    let actions = machine.apply(Event::EndAll);
    assert_eq!(actions.len(), 3);
    assert_eq!(actions[2], Action::Kill(ExecutorNumber(2)));
    let killed = "killed".to_string();
    let second =
        Event::NotStarted { executor: ExecutorNumber(2), kind: ErrorKind::Cancelled, reason: killed };
    assert_eq!(machine.apply(second), [Action::Forget(ExecutorNumber(2))]);
    assert_eq!(machine.apply(exited(FIRST)), [Action::Forget(FIRST)]);
    assert_eq!(machine.executors(), 0);
}

fn checkpoint(subtasks: std::ops::Range<u32>) -> ToWorker {
    ToWorker::Checkpoint(CheckpointOrder {
        job: JOB,
        barrier: Barrier::of_checkpoint(7),
        folder: "/chk-7".into(),
        shared_folder: None,
        attempts: subtasks.map(attempt).collect(),
    })
}

fn part(subtask: u32, reason: &str) -> Box<SnapshotReport> {
    let result = Err(reason.to_string());
    Box::new(SnapshotReport { job: JOB, attempt: attempt(subtask), checkpoint: 7, handed_in: 0, result })
}

#[test]
fn a_checkpoint_is_handed_to_the_executor_and_tasks_that_are_not_there_do_not_leave_it_waiting() {
    let mut machine = running(0..2);
    machine.apply(Event::Report { executor: FIRST, report: report(0, TaskState::Finished) });
    assert_eq!(machine.apply(Event::Order(checkpoint(0..2))), [Action::Send(FIRST, checkpoint(0..2))]);
    let missing = "the task does not run on the worker where it was placed";
    let expected = [Action::Snapshot(part(2, missing)), Action::Send(FIRST, checkpoint(1..3))];
    assert_eq!(machine.apply(Event::Order(checkpoint(1..3))), expected);
    let ended = ToWorker::CheckpointEnded { job: JOB, checkpoint: 7, completed: true, attempts: vec![] };
    assert_eq!(machine.apply(Event::Order(ended.clone())), [Action::Send(FIRST, ended.clone())]);

    let mut machine = Machine::new(Deadlines::default());
    machine.apply(Event::Order(deploy(0..1)));
    assert_eq!(machine.apply(Event::Order(checkpoint(1..2))), [Action::Snapshot(part(1, missing))]);
    assert_eq!(machine.apply(Event::Order(ended)), []);
}

#[test]
fn parts_of_snapshots_are_passed_on_and_only_for_tasks_that_the_executor_has() {
    let mut machine = running(0..2);
    machine.apply(Event::Report { executor: FIRST, report: report(0, TaskState::Finished) });
    for subtask in 0..2 {
        let event = Event::Snapshot { executor: FIRST, report: part(subtask, "disk full") };
        assert_eq!(machine.apply(event), [Action::Snapshot(part(subtask, "disk full"))]);
    }
    let foreign = Event::Snapshot { executor: FIRST, report: part(9, "disk full") };
    assert_eq!(machine.apply(foreign), []);
    let wanted = |subtask| Event::SnapshotWanted { executor: FIRST, attempt: attempt(subtask) };
    assert_eq!(machine.apply(wanted(1)), [Action::SnapshotWanted(JOB, attempt(1))]);
    // It has finished.
    assert_eq!(machine.apply(wanted(0)), []);
}
