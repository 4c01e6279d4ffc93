//! What the cluster still has to hear: the reports that it has not acknowledged, the parts of snapshots that wait, and the tasks
//! that it believes to run here.
//!
//! Pure: no clock, no connection. When a connection breaks, nobody knows which of the last reports arrived; so they are all sent
//! again, and until then the tasks they are about are listed as in the earliest state that an order can put them in. A report that
//! is behind what the cluster knows is ignored there. A part of a pending snapshot is sent once: if it is lost, so is the snapshot.
//! That a task waits for a snapshot is told to every leader anew, until the task has ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use flott_schema::control::{
    Order, Report, RunningTask, SnapshotReport, TaskReport, TaskState, ToCoordinator, ToWorker,
};
use flott_schema::ids::{AttemptId, JobId};

/// Bytes that a report takes at least, about.
const REPORT_BYTES: usize = 64;

/// Reports and tasks of one worker, as the cluster should see them.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Tasks that were ordered and whose end has not been acknowledged, with the state that has been.
    tasks: BTreeMap<(JobId, AttemptId), TaskState>,
    /// Jobs that the worker may keep something for.
    jobs: BTreeSet<JobId>,
    /// Reports that are not acknowledged, oldest first.
    reports: VecDeque<Report>,
    /// How many of them are on their way.
    sent: usize,
    /// Parts of snapshots that have not been sent.
    snapshots: VecDeque<SnapshotReport>,
    /// Tasks that wait for a snapshot, and whether this leader was told so.
    waiting: BTreeMap<(JobId, AttemptId), bool>,
}

impl Book {
    /// Notes an order that is about to be handed to the worker.
    pub(super) fn note_order(&mut self, order: &Order) {
        match &order.message {
            ToWorker::Deploy { job, tasks, .. } => {
                self.jobs.insert(*job);
                for placement in tasks {
                    self.tasks.insert((*job, placement.attempt), TaskState::Deploying);
                }
            }
            ToWorker::Prepare(_)
            | ToWorker::Cancel { .. }
            | ToWorker::Checkpoint(_)
            | ToWorker::CheckpointEnded { .. } => {}
            ToWorker::Release { job } => {
                self.jobs.remove(job);
                self.tasks.retain(|(of, _), _| of != job);
                self.snapshots.retain(|snapshot| snapshot.job != *job);
                self.waiting.retain(|(of, _), _| of != job);
            }
        }
    }

    /// Adds what the worker reports.
    pub(super) fn add(&mut self, reports: impl IntoIterator<Item: Into<ToCoordinator>>) {
        for report in reports {
            match report.into() {
                ToCoordinator::TaskState(report) => self.reports.push_back(Report::Task(report)),
                ToCoordinator::Snapshot(last) if last.is_last() => {
                    self.reports.push_back(Report::LastSnapshot(last));
                }
                ToCoordinator::Snapshot(snapshot) => self.snapshots.push_back(*snapshot),
                ToCoordinator::SnapshotWanted { job, attempt } => {
                    self.waiting.insert((job, attempt), false);
                }
                // The session itself registers the worker.
                ToCoordinator::Register { .. } => {}
            }
        }
    }

    /// Reports and parts of snapshots that wait, reports on their way included.
    pub(super) fn held(&self) -> usize {
        self.reports.len() + self.snapshots.len()
    }

    /// The next reports to send, at most `reports_max` of them and, beyond the first one, about `bytes_max` of failures and state;
    /// none while others are on their way.
    pub(super) fn take_up(&mut self, reports_max: usize, bytes_max: usize) -> Vec<Report> {
        if self.sent > 0 {
            return Vec::new();
        }
        let sizes = self.reports.iter().map(|report| match report {
            Report::Task(report) => failure_bytes(report),
            Report::LastSnapshot(report) => snapshot_bytes(report),
        });
        self.sent = fitting(sizes, reports_max, bytes_max);
        self.reports.iter().take(self.sent).cloned().collect()
    }

    /// The next parts of snapshots to send, within the same bounds. They are not kept.
    pub(super) fn take_snapshots(&mut self, reports_max: usize, bytes_max: usize) -> Vec<SnapshotReport> {
        let count = fitting(self.snapshots.iter().map(snapshot_bytes), reports_max, bytes_max);
        self.snapshots.drain(..count).collect()
    }

    /// The tasks that wait for a snapshot, as far as this leader has not been told.
    pub(super) fn take_waiting(&mut self) -> Vec<(JobId, AttemptId)> {
        let untold = self.waiting.iter_mut().filter(|(_, told)| !**told);
        untold
            .map(|(task, told)| {
                *told = true;
                *task
            })
            .collect()
    }

    /// The reports on their way have arrived and are committed.
    pub(super) fn acknowledge(&mut self) {
        for report in self.reports.drain(..std::mem::take(&mut self.sent)) {
            let task = report.task();
            let Report::Task(report) = report else { continue };
            if report.state.is_terminal() {
                self.tasks.remove(&task);
                self.waiting.remove(&task);
            } else if let Some(state) = self.tasks.get_mut(&task) {
                *state = report.state;
            }
        }
    }

    /// Whether the reports on their way arrived will never be known: they are sent again.
    pub(super) fn connection_lost(&mut self) {
        self.sent = 0;
        self.waiting.values_mut().for_each(|told| *told = false);
    }

    /// The tasks that the cluster should believe to run here.
    pub(super) fn running(&self) -> Vec<RunningTask> {
        let reported: BTreeSet<_> = self.reports.iter().map(Report::task).collect();
        let state_of = |task, state| if reported.contains(task) { TaskState::Deploying } else { state };
        let tasks = self.tasks.iter();
        tasks
            .map(|(task, state)| RunningTask { job: task.0, attempt: task.1, state: state_of(task, *state) })
            .collect()
    }

    /// The cluster had given the worker up, and knows it under a new id as one that runs nothing. Forgets everything, and gives
    /// the orders that make it true.
    pub(super) fn start_anew(&mut self, term: u64) -> Vec<Order> {
        self.reports.clear();
        self.sent = 0;
        self.snapshots.clear();
        self.waiting.clear();
        let mut attempts: BTreeMap<JobId, Vec<AttemptId>> = BTreeMap::new();
        for (job, attempt) in std::mem::take(&mut self.tasks).into_keys() {
            attempts.entry(job).or_default().push(attempt);
        }
        let jobs = std::mem::take(&mut self.jobs);
        let cancel = attempts.into_iter().map(|(job, attempts)| ToWorker::Cancel { job, attempts });
        let release = jobs.into_iter().map(|job| ToWorker::Release { job });
        cancel.chain(release).map(|message| Order { term, message }).collect()
    }
}

/// How many of the things with these sizes fit: at most `count_max` and, beyond the first one, about `bytes_max`.
fn fitting(sizes: impl Iterator<Item = usize>, count_max: usize, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |size: usize| {
        let first = bytes == 0;
        bytes += REPORT_BYTES + size;
        first || bytes <= bytes_max
    };
    sizes.take(count_max).map(fits).take_while(|fits| *fits).count()
}

fn failure_bytes(report: &TaskReport) -> usize {
    report.failure.as_ref().map_or(0, |failure| {
        failure.vertex.len() + failure.message.len() + failure.backtrace.as_ref().map_or(0, String::len)
    })
}

fn snapshot_bytes(report: &SnapshotReport) -> usize {
    match &report.result {
        Ok(snapshot) => {
            snapshot.inline_bytes() + snapshot.files().map(|file| 64 + file.path.len()).sum::<usize>()
        }
        Err(reason) => reason.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flott_schema::control::{LAST_SNAPSHOT, Placement, TaskFailure};
    use flott_schema::error::ErrorKind;
    use flott_schema::graph::{ExecutionMode, JobGraph};
    use flott_schema::ids::{SlotId, TaskId, VertexId, WorkerId};
    use flott_schema::job::JobSpec;

    use super::*;

    const JOB: JobId = JobId(7);

    fn attempt(subtask: u32) -> AttemptId {
        AttemptId { task: TaskId { vertex: VertexId(1), subtask }, job_epoch: 0, attempt: 0 }
    }

    fn deploy(subtasks: std::ops::Range<u32>) -> Order {
        let slot = SlotId { worker: WorkerId(1), index: 0 };
        let graph = JobGraph {
            name: "job".into(),
            mode: ExecutionMode::Streaming,
            vertices: Vec::new(),
            edges: Vec::new(),
        };
        let message = ToWorker::Deploy {
            job: JOB,
            spec: Arc::new(JobSpec::embedded(graph)),
            tasks: subtasks.map(|subtask| Placement { attempt: attempt(subtask), slot }).collect(),
            peers: Arc::new([]),
            hosts: Arc::new([]),
            restore: None,
        };
        Order { term: 1, message }
    }

    fn report(subtask: u32, state: TaskState) -> TaskReport {
        TaskReport { job: JOB, attempt: attempt(subtask), state, failure: None }
    }

    fn reports(group: Vec<Report>) -> Vec<TaskReport> {
        let report = |report| match report {
            Report::Task(report) => report,
            Report::LastSnapshot(last) => panic!("{last:?}"),
        };
        group.into_iter().map(report).collect()
    }

    fn snapshot(subtask: u32, checkpoint: u64) -> SnapshotReport {
        SnapshotReport {
            job: JOB,
            attempt: attempt(subtask),
            checkpoint,
            handed_in: 0,
            result: Err("no disk".into()),
        }
    }

    fn running(book: &Book) -> Vec<(u32, TaskState)> {
        book.running().iter().map(|task| (task.attempt.task.subtask, task.state)).collect()
    }

    #[test]
    fn reports_go_out_in_order_and_one_group_at_a_time() {
        let mut book = Book::default();
        book.add((0..5).map(|subtask| report(subtask, TaskState::Running)));
        let first = reports(book.take_up(2, 1 << 20));
        assert_eq!(first, [report(0, TaskState::Running), report(1, TaskState::Running)]);
        assert_eq!(book.take_up(2, 1 << 20), []);
        book.acknowledge();
        let second = reports(book.take_up(10, 1 << 20));
        assert_eq!(second.len(), 3);
        assert_eq!(second[0], report(2, TaskState::Running));
    }

    #[test]
    fn a_group_is_not_larger_than_a_message_may_be_but_holds_one_report_at_least() {
        let failed = |subtask, message: String| {
            let failure = TaskFailure {
                kind: ErrorKind::UserCode,
                vertex: "map".into(),
                subtask,
                parallelism: 4,
                message,
                backtrace: Some("line".into()),
            };
            TaskReport { failure: Some(failure), ..report(subtask, TaskState::Failed) }
        };
        let mut book = Book::default();
        book.add((0..4).map(|subtask| failed(subtask, "x".repeat(400))));
        for expected in [2, 2, 0] {
            assert_eq!(book.take_up(10, 1_200).len(), expected);
            book.acknowledge();
        }
        book.add([failed(0, "x".repeat(5_000)), report(1, TaskState::Finished)]);
        assert_eq!(book.take_up(10, 1_000).len(), 1);
    }

    #[test]
    fn after_a_lost_connection_unacknowledged_reports_are_sent_again_from_the_first() {
        let mut book = Book::default();
        book.add((0..4).map(|subtask| report(subtask, TaskState::Running)));
        book.take_up(2, 1 << 20);
        book.acknowledge();
        let lost = book.take_up(1, 1 << 20);
        book.connection_lost();
        let again = book.take_up(10, 1 << 20);
        assert_eq!(again[0], lost[0]);
        assert_eq!(again.len(), 2);
        assert_eq!(book.held(), 2);
    }

    #[test]
    fn a_task_counts_as_running_until_its_end_is_acknowledged_and_never_ahead_of_its_reports() {
        let mut book = Book::default();
        book.note_order(&deploy(0..2));
        assert_eq!(running(&book), [(0, TaskState::Deploying), (1, TaskState::Deploying)]);

        book.add([report(0, TaskState::Running)]);
        book.take_up(10, 1 << 20);
        book.acknowledge();
        assert_eq!(running(&book), [(0, TaskState::Running), (1, TaskState::Deploying)]);

        book.add([report(0, TaskState::Finished)]);
        book.take_up(10, 1 << 20);
        book.connection_lost();
        assert_eq!(running(&book), [(0, TaskState::Deploying), (1, TaskState::Deploying)]);

        book.take_up(10, 1 << 20);
        book.acknowledge();
        assert_eq!(running(&book), [(1, TaskState::Deploying)]);
    }

    #[test]
    fn a_worker_that_was_given_up_is_told_to_drop_its_jobs_and_old_reports_are_not_sent() {
        let mut book = Book::default();
        book.note_order(&deploy(0..2));
        book.add([report(0, TaskState::Running)]);
        book.take_up(10, 1 << 20);
        let orders = book.start_anew(9);
        let cancel = ToWorker::Cancel { job: JOB, attempts: vec![attempt(0), attempt(1)] };
        assert_eq!(
            orders,
            [Order { term: 9, message: cancel }, Order { term: 9, message: ToWorker::Release { job: JOB } }]
        );
        assert_eq!(book.held(), 0);
        assert_eq!(book.take_up(10, 1 << 20), []);
        assert_eq!(running(&book), []);
    }

    #[test]
    fn a_released_job_leaves_nothing_behind() {
        let mut book = Book::default();
        book.note_order(&deploy(0..1));
        book.note_order(&Order { term: 1, message: ToWorker::Release { job: JOB } });
        assert_eq!(running(&book), []);
        assert_eq!(book.start_anew(2), []);
    }
    #[test]
    fn a_last_snapshot_stays_in_front_of_the_end_of_its_task_until_it_is_acknowledged() {
        let mut book = Book::default();
        let last = snapshot(0, LAST_SNAPSHOT);
        book.add([ToCoordinator::Snapshot(Box::new(last.clone())), report(0, TaskState::Finished).into()]);
        let expected = [Report::LastSnapshot(Box::new(last)), Report::Task(report(0, TaskState::Finished))];
        assert_eq!(book.take_up(10, 1 << 20), expected);
        book.connection_lost();
        assert_eq!(book.take_up(10, 1 << 20), expected);
        book.acknowledge();
        assert_eq!((book.held(), book.take_snapshots(10, 1 << 20)), (0, Vec::new()));
    }

    #[test]
    fn parts_of_snapshots_go_out_once_beside_the_reports() {
        let mut book = Book::default();
        let parts = [snapshot(0, 5), snapshot(1, 5), snapshot(2, 5)];
        book.add(parts.iter().map(|part| ToCoordinator::Snapshot(Box::new(part.clone()))));
        assert_eq!((book.held(), book.take_up(10, 1 << 20)), (3, Vec::new()));
        assert_eq!(book.take_snapshots(2, 1 << 20), parts[..2]);
        book.connection_lost();
        assert_eq!(book.take_snapshots(2, 1 << 20), parts[2..]);
    }

    #[test]
    fn every_leader_is_told_once_that_a_task_waits_until_the_task_has_ended() {
        let mut book = Book::default();
        let wanted = |subtask| ToCoordinator::SnapshotWanted { job: JOB, attempt: attempt(subtask) };
        book.add([wanted(0), wanted(1)]);
        assert_eq!(book.take_waiting(), [(JOB, attempt(0)), (JOB, attempt(1))]);
        assert_eq!(book.take_waiting(), []);
        book.add([report(0, TaskState::Finished)]);
        book.take_up(10, 1 << 20);
        book.acknowledge();
        book.connection_lost();
        assert_eq!(book.take_waiting(), [(JOB, attempt(1))]);
        book.note_order(&Order { term: 1, message: ToWorker::Release { job: JOB } });
        book.connection_lost();
        assert_eq!(book.take_waiting(), []);
    }
}
