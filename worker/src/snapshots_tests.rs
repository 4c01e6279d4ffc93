use std::cell::RefCell;
use std::rc::Rc;

use flott_dataflow::context::Settings;
use flott_dataflow::snapshot::{CheckpointListener, Snapshots, StateBackend, TaskState};
use flott_schema::ids::{TaskId, VertexId};
use flott_schema::snapshot::{AfterBarrier, SavepointFormat, SnapshotKind};

use super::*;

/// Takes everything at once, and notes it.
#[derive(Clone, Default)]
struct Noting(Rc<RefCell<Vec<String>>>);

impl Noting {
    fn note(&self, what: String) {
        self.0.borrow_mut().push(what);
    }
}

impl StateKeeper for Noting {
    fn opened(&self) -> Result<()> {
        Ok(())
    }

    fn begin(&self, barrier: &Barrier) -> Result<()> {
        self.note(format!("begin {}", barrier.checkpoint));
        Ok(())
    }

    fn passed(&self, checkpoint: u64, finished: bool) {
        self.note(format!("passed {checkpoint} {finished}"));
    }

    fn end(&self, order: &CheckpointOrder, extras: Extras, taken: Taken) {
        self.note(format!("end {}", order.barrier.checkpoint));
        let Extras { finished, enumerator, times, .. } = extras;
        let operators = enumerator.map(|(operator, state)| OperatorSnapshot {
            operator: Some(operator),
            enumerator: Some(state),
            ..OperatorSnapshot::default()
        });
        let operators = operators.into_iter().collect();
        taken(Ok(TaskSnapshot { task: task(), finished, operators, channels: Vec::new(), times }));
    }

    fn ended(&self, checkpoint: u64, completed: bool) {
        self.note(format!("ended {checkpoint} {completed}"));
    }
}

/// A sink that has something to commit.
struct Uncommitted(Noting);

impl CheckpointListener for Uncommitted {
    fn completed(&mut self, _checkpoint: u64) -> Result<()> {
        Ok(())
    }

    fn last_snapshot(&mut self, barrier: &Barrier) -> Result<()> {
        self.0.note(format!("hand in {}", barrier.checkpoint));
        Ok(())
    }

    fn has_uncommitted(&self) -> bool {
        true
    }
}

struct NoState;

impl TaskState for NoState {
    fn operator(&self, _operator: OperatorId, _uid: &str) -> Rc<dyn StateBackend> {
        unreachable!("no operator of these tests has state")
    }
}

fn task() -> TaskId {
    TaskId { vertex: VertexId(1), subtask: 0 }
}

fn snapshots(
    notes: &Noting,
    enumerator: Option<OperatorId>,
) -> (TaskSnapshots, mpsc::Receiver<ToCoordinator>) {
    let (sender, reports) = mpsc::channel(16);
    let attempt = AttemptId { task: task(), job_epoch: 1, attempt: 0 };
    let reporter = Reporter { job: JobId(7), attempt, sender };
    (TaskSnapshots::new(Box::new(notes.clone()), reporter, enumerator, false), reports)
}

fn context() -> TaskContext {
    let mut ctx = TaskContext::new("job", "vertex", 0, 1, 128, Settings::default());
    ctx.snapshots = Snapshots::new(Rc::new(NoState), false);
    ctx
}

fn order(barrier: Barrier) -> Arc<CheckpointOrder> {
    let (folder, shared_folder, attempts) = (String::new(), None, Vec::new());
    Arc::new(CheckpointOrder { job: JobId(7), barrier, folder, shared_folder, attempts })
}

/// What the last reports say is handed in.
fn handed_in(reports: &mut mpsc::Receiver<ToCoordinator>) -> Vec<u64> {
    let last = |message| match message {
        ToCoordinator::Snapshot(report) if report.is_last() => Some(report.handed_in),
        _ => None,
    };
    std::iter::from_fn(|| reports.try_recv().ok()).filter_map(last).collect()
}

/// What was reported: the snapshot, whether the task had finished, and the state of the enumerator.
fn reported(reports: &mut mpsc::Receiver<ToCoordinator>) -> Vec<(u64, bool, Option<Vec<u8>>)> {
    let mut seen = Vec::new();
    while let Ok(message) = reports.try_recv() {
        if let ToCoordinator::Snapshot(report) = message {
            let mut part = report.result.unwrap();
            let state = part.operators.pop().and_then(|operator| operator.enumerator);
            seen.push((report.checkpoint, part.finished, state));
        }
    }
    seen
}

#[test]
fn a_task_that_waits_to_commit_takes_part_in_all_it_is_asked_for() {
    let notes = Noting::default();
    let (mut snapshots, mut reports) = snapshots(&notes, None);
    let ctx = context();
    ctx.snapshots.listen(Rc::new(RefCell::new(Uncommitted(notes.clone()))));
    // Both come before the task has looked. With the savepoint its sinks do not commit.
    let kind = SnapshotKind::Savepoint(SavepointFormat::Canonical);
    assert!(snapshots.order(order(Barrier::of_checkpoint(5))));
    assert!(snapshots.order(order(Barrier { kind, ..Barrier::of_checkpoint(6) })));
    assert_eq!(snapshots.take_part_at_the_end(&ctx).unwrap(), None);
    assert_eq!(reported(&mut reports), [(5, true, None), (6, true, None)]);
    assert!(snapshots.commits_with(5) && !snapshots.commits_with(6));
    assert_eq!(snapshots.take_part_at_the_end(&ctx).unwrap(), None, "once each");
    assert_eq!(reported(&mut reports), []);
    // The job stops with the next one.
    let stop = Barrier { kind, after: AfterBarrier::Suspend, ..Barrier::of_checkpoint(7) };
    snapshots.order(order(stop));
    assert_eq!(snapshots.take_part_at_the_end(&ctx).unwrap(), Some(7));
    let steps = |checkpoint| {
        ["begin", "hand in", "passed", "end"].map(|what| match what {
            "passed" => format!("passed {checkpoint} true"),
            what => format!("{what} {checkpoint}"),
        })
    };
    assert_eq!(*notes.0.borrow(), [steps(5), steps(6), steps(7)].concat());
}

/// Splits that other readers are yet to get are in the state of the enumerator, which goes with the parts of this task.
#[test]
fn a_source_that_has_ended_takes_part_until_its_enumerator_has_nothing_left() {
    let notes = Noting::default();
    let (mut snapshots, mut reports) = snapshots(&notes, Some(OperatorId(3)));
    let ctx = context();
    assert!(snapshots.wants_last_enumerator_states());
    snapshots.last_enumerator_states_asked();
    assert!(snapshots.awaits_last_enumerator_states() && !snapshots.wants_last_enumerator_states());
    snapshots.order(order(Barrier::of_checkpoint(4)));
    snapshots.take_part_at_the_end(&ctx).unwrap();
    assert_eq!(reported(&mut reports), [], "the state of the enumerator is on its way");
    snapshots.enumerator_state(4, Ok(vec![1, 2]));
    assert_eq!(reported(&mut reports), [(4, true, Some(vec![1, 2]))]);
    snapshots.last_enumerator_states(LastStates::of(Ok(vec![])));
    assert!(!snapshots.awaits_last_enumerator_states());
    snapshots.report_last();
    snapshots.report_last();
    assert_eq!(reported(&mut reports), [(LAST_SNAPSHOT, true, Some(vec![]))]);
}

/// A reader elsewhere may have sent a barrier and got a split behind it before the order for it is here: then that split is in no reader's part.
#[test]
fn what_an_enumerator_leaves_does_not_stand_for_snapshots_that_others_have_heard_of_before() {
    let notes = Noting::default();
    let (mut snapshots, mut reports) = snapshots(&notes, Some(OperatorId(3)));
    let ctx = context();
    snapshots.order(order(Barrier::of_checkpoint(4)));
    snapshots.enumerator_state(4, Ok(vec![4]));
    snapshots.take_part_at_the_end(&ctx).unwrap();
    snapshots.last_enumerator_states_asked();
    snapshots.last_enumerator_states(LastStates::behind(Ok(vec![]), [(5, vec![1, 2]), (7, vec![2])]));
    snapshots.report_last();
    assert_eq!(
        reported(&mut reports),
        [
            (4, true, Some(vec![4])),
            (5, true, Some(vec![1, 2])),
            (6, true, Some(vec![2])),
            (7, true, Some(vec![2])),
            (LAST_SNAPSHOT, true, Some(vec![])),
        ]
    );
}

#[test]
fn a_last_part_says_for_which_snapshots_it_does_not_stand() {
    let notes = Noting::default();
    let ctx = context();
    let (mut without, mut reports) = snapshots(&notes, None);
    without.order(order(Barrier::of_checkpoint(4)));
    without.take_part_at_the_end(&ctx).unwrap();
    without.report_last();
    assert_eq!(handed_in(&mut reports), [4]);

    let (mut with, mut reports) = snapshots(&notes, Some(OperatorId(3)));
    with.last_enumerator_states_asked();
    with.last_enumerator_states(LastStates::behind(Ok(vec![]), [(7, vec![2])]));
    with.report_last();
    assert_eq!(handed_in(&mut reports), [7]);
}
