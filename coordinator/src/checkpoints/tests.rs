use std::sync::Arc;

use flott_schema::config::options::CheckpointRetention;
use flott_schema::control::{SnapshotReport, TaskState};
use flott_schema::ids::{AttemptId, JobId, OperatorId, WorkerId};
use flott_schema::job::{CheckpointSettings, JobSettings, JobSpec, RestartStrategy};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::{
    KeyedSnapshot, OperatorSnapshot, RestoreFrom, SavepointFormat, SnapshotFile, SnapshotKind, SnapshotTimes,
    TaskSnapshot,
};
use flott_schema::stats::WorkerProfile;

use super::action::{Deletion, Surveyed};
use super::*;
use crate::machine::tests::graph::streaming;
use crate::machine::{ClusterState, Event, JobRecord, JobState, Limits, OperationId, Purpose, apply};

const JOB: JobId = JobId(7);
const FOLDER: &str = "/data/00000000000000000000000000000007";

/// The machine, and the ledger of its leader.
struct Leader {
    state: ClusterState,
    ledger: Ledger,
    clock_ms: u64,
    /// Whether its worker has yet to return.
    away: bool,
}

fn settings() -> CheckpointSettings {
    CheckpointSettings {
        interval_ms: Some(100),
        timeout_ms: 1_000,
        min_pause_ms: 0,
        max_concurrent: 1,
        tolerable_failures: 100,
        num_retained: 1,
        retention: CheckpointRetention::NoExternalizedCheckpoints,
        directory: Some("/data".into()),
        savepoint_directory: Some("/mine".into()),
        ..CheckpointSettings::default()
    }
}

impl Leader {
    /// A job of a source and a map, which run.
    fn of(checkpoints: CheckpointSettings) -> Self {
        Self::restored(checkpoints, None)
    }

    /// The same, started from a snapshot.
    fn restored(checkpoints: CheckpointSettings, restore: Option<RestoreFrom>) -> Self {
        let ledger = Ledger::new(Places { checkpoints: "/nowhere".into() });
        let state = ClusterState::new(Limits::default());
        let mut leader = Leader { state, ledger, clock_ms: 0, away: false };
        let profile = WorkerProfile { slots: 4, ..WorkerProfile::default() };
        leader.happen(Event::WorkerRegistered { worker: WorkerId(1), profile, at_ms: 0 });
        let graph = streaming("pipe", &[("source", 1), ("map", 1)], &["source > map"]);
        let restart = RestartStrategy::FixedDelay { attempts: 9, delay_ms: 0 };
        let settings = JobSettings { restart, checkpoints, ..JobSettings::default() };
        let spec = Arc::new(JobSpec { settings, restore, ..JobSpec::embedded(graph) });
        leader.happen(Event::JobSubmitted { job: JOB, spec, at_ms: 0 });
        leader.run();
        leader
    }

    fn run(&mut self) {
        for vertex in ["source", "map"] {
            self.report(vertex, TaskState::Running);
        }
    }

    fn now(&self) -> Now {
        Now { clock_ms: self.clock_ms, wall_ms: 1_000_000 + self.clock_ms }
    }

    fn job(&self) -> &JobRecord {
        self.state.job(JOB).unwrap()
    }

    fn attempt(&self, vertex: &str) -> AttemptId {
        let vertex = OperatorId::of_uid(vertex).into();
        self.job().task(flott_schema::ids::TaskId { vertex, subtask: 0 }).unwrap().attempt()
    }

    fn happen(&mut self, event: Event) {
        let requested = matches!(event, Event::CheckpointRequested { .. });
        apply(&mut self.state, event);
        if requested {
            self.ledger.answered(JOB);
        }
        let now = self.now();
        if let Some(record) = self.state.job(JOB) {
            self.ledger.look(record, now);
        }
    }

    fn report(&mut self, vertex: &str, state: TaskState) {
        let attempt = self.attempt(vertex);
        self.happen(Event::TaskStateChanged { job: JOB, attempt, state, failure: None, at_ms: 0 });
    }

    /// Lets time go by and everything be committed that is proposed. Gives the other actions.
    fn pass(&mut self, clock_ms: u64) -> Vec<Action> {
        self.clock_ms += clock_ms;
        let mut others = Vec::new();
        loop {
            let now = self.now();
            let away = self.away;
            self.ledger.tick(&self.state, now, |_| away);
            let actions = self.ledger.take_actions();
            if actions.is_empty() {
                return others;
            }
            for action in actions {
                match action {
                    Action::Propose(event) => self.happen(event),
                    other => others.push(other),
                }
            }
        }
    }

    fn ask_for_savepoint(&mut self, operation: u128) {
        let kind = SnapshotKind::Savepoint(SavepointFormat::Canonical);
        let (job, operation) = (self.job(), OperationId(operation));
        let request = self.ledger.user_request(job, kind, Purpose::GoOn, None, operation).unwrap();
        self.happen(Event::CheckpointRequested { job: JOB, request, at_ms: 0 });
    }

    fn pending(&self) -> Vec<u64> {
        self.job().checkpoints().pending().map(|one| one.id).collect()
    }

    /// A task hands in a part that names these shared files.
    fn part(&mut self, vertex: &str, checkpoint: u64, shared: &[&str]) {
        let attempt = self.attempt(vertex);
        let report = SnapshotReport {
            job: JOB,
            attempt,
            checkpoint,
            handed_in: 0,
            result: Ok(part(attempt, shared, false)),
        };
        let now = self.now();
        self.ledger.part(report, now);
    }

    /// All tasks hand in, and the manifest is stored. Gives what follows.
    fn complete(&mut self, checkpoint: u64, shared: &[&str]) -> Vec<Action> {
        self.part("source", checkpoint, &[]);
        self.part("map", checkpoint, shared);
        let stored = self.pass(0);
        assert!(
            matches!(&stored[..], [Action::Store { checkpoint: stored, .. }] if *stored == checkpoint),
            "{stored:?}"
        );
        let now = self.now();
        self.ledger.stored(JOB, checkpoint, Ok(99), now);
        self.pass(0)
    }
}

fn part(attempt: AttemptId, shared: &[&str], finished: bool) -> TaskSnapshot {
    let file = |name: &&str| SnapshotFile {
        name: name.to_string(),
        path: format!("../shared/{name}"),
        size: 1,
        crc32c: 2,
    };
    let keyed = KeyedSnapshot {
        key_groups: KeyGroupRange { start: 0, end: 128 },
        format: "rows-1".into(),
        tables: Vec::new(),
        files: shared.iter().map(file).collect(),
    };
    TaskSnapshot {
        task: attempt.task,
        finished,
        operators: vec![OperatorSnapshot { keyed: vec![keyed], ..OperatorSnapshot::default() }],
        channels: Vec::new(),
        times: SnapshotTimes { written_bytes: 10, state_bytes: 20, ..SnapshotTimes::default() },
    }
}

fn deletions(actions: Vec<Action>) -> Deletion {
    let mut all = Deletion::default();
    for action in actions {
        let Action::Delete(one) = action else { panic!("{action:?}") };
        all.files.extend(one.files);
        all.trees.extend(one.trees);
        all.claimed = all.claimed.or(one.claimed);
        all.empty_folder = all.empty_folder.or(one.empty_folder);
    }
    all.files.sort();
    all
}

#[test]
fn checkpoints_begin_an_interval_after_the_job_is_up_and_then_in_its_rhythm() {
    let mut leader = Leader::of(settings());
    assert_eq!(leader.ledger.next_due_ms(), Some(100));
    leader.pass(99);
    assert_eq!(leader.pending(), [0; 0]);
    leader.pass(1);
    assert_eq!(leader.pending(), [1]);
    // One at a time: the next begins when this one has ended.
    leader.pass(150);
    assert_eq!(leader.pending(), [1]);
    leader.complete(1, &[]);
    assert_eq!(leader.pending(), [2]);
    assert_eq!(leader.job().checkpoints().latest()[0].unwrap().stats.written_bytes, 20);
    assert_eq!(leader.job().checkpoints().latest()[0].unwrap().stats.manifest_bytes, 99);
    let details = leader.ledger.details(JOB, 1).unwrap();
    assert_eq!(details.parts.len(), 2);
}

#[test]
fn nothing_begins_while_a_worker_has_yet_to_return() {
    let mut leader = Leader::of(settings());
    leader.away = true;
    leader.pass(100);
    leader.pass(500);
    assert_eq!(leader.pending(), [0; 0]);
    assert!(
        leader.ledger.next_due_ms().is_some_and(|due_ms| due_ms > leader.clock_ms),
        "it looks again later"
    );
    leader.away = false;
    leader.pass(100);
    assert_eq!(leader.pending(), [1]);
}

#[test]
fn a_pause_is_kept_after_each_checkpoint() {
    let mut leader = Leader::of(CheckpointSettings { min_pause_ms: 70, ..settings() });
    leader.pass(100);
    leader.pass(80);
    leader.complete(1, &[]);
    leader.pass(69);
    assert_eq!(leader.pending(), [0; 0]);
    leader.pass(1);
    assert_eq!(leader.pending(), [2]);
}

#[test]
fn one_that_takes_too_long_is_given_up_with_who_was_missing() {
    let mut leader = Leader::of(settings());
    leader.pass(100);
    leader.part("source", 1, &["a"]);
    let deleted = deletions(leader.pass(1_000));
    assert_eq!(deleted.trees, [format!("{FOLDER}/chk-1")]);
    assert_eq!(deleted.files, [format!("{FOLDER}/shared/a")]);
    let failed = leader.job().checkpoints().latest()[2].unwrap().clone();
    let reason = format!("{:?}", failed.outcome);
    assert!(reason.contains("within 1000 ms; it waited for 'map' (1)"), "{reason}");
    // What comes late is of no use to anybody.
    leader.part("map", 1, &["b"]);
    assert_eq!(deletions(leader.pass(0)).files, [format!("{FOLDER}/shared/b")]);
}

#[test]
fn a_task_that_cannot_hand_in_fails_the_checkpoint_with_its_reason() {
    let mut leader = Leader::of(settings());
    leader.pass(100);
    let attempt = leader.attempt("map");
    let result = Err("no space left on device".to_string());
    let now = leader.now();
    leader.ledger.part(SnapshotReport { job: JOB, attempt, checkpoint: 1, handed_in: 0, result }, now);
    leader.pass(0);
    assert_eq!(leader.pending(), [0; 0]);
    let reason = format!("{:?}", leader.job().checkpoints().latest()[2]);
    assert!(reason.contains("no space left on device"), "{reason}");
}

#[test]
fn shared_files_go_with_the_last_checkpoint_that_needs_them() {
    let mut leader = Leader::of(settings());
    leader.pass(100);
    assert_eq!(leader.complete(1, &["a", "b"]), []);
    leader.pass(100);
    let deleted = deletions(leader.complete(2, &["b", "c"]));
    assert_eq!(
        (deleted.files, deleted.trees),
        (vec![format!("{FOLDER}/shared/a")], vec![format!("{FOLDER}/chk-1")])
    );
    // What could not be deleted is tried again with the next.
    let failed = Deletion { job: Some(JOB), files: vec!["x".into()], ..Deletion::default() };
    leader.ledger.not_deleted(failed);
    assert_eq!(leader.ledger.deletions_failed(), 1);
    leader.pass(100);
    let deleted = deletions(leader.complete(3, &["c"]));
    assert_eq!(deleted.files, [format!("{FOLDER}/shared/b"), "x".to_string()]);
}

#[test]
fn a_checkpoint_that_is_not_incremental_shares_nothing() {
    let mut leader = Leader::of(CheckpointSettings { incremental: false, ..settings() });
    leader.pass(100);
    let pending = leader.job().checkpoints().pending().next().unwrap().clone();
    assert_eq!((pending.kind, pending.shared_folder()), (SnapshotKind::FullCheckpoint, None));
    let leader = Leader::of(settings());
    let operation = OperationId(1);
    let request =
        |kind| leader.ledger.user_request(leader.job(), kind, Purpose::GoOn, None, operation).unwrap();
    assert_eq!(request(SnapshotKind::Checkpoint).kind, SnapshotKind::Checkpoint);
    assert_eq!(request(SnapshotKind::FullCheckpoint).kind, SnapshotKind::FullCheckpoint);
}

#[test]
fn a_savepoint_is_never_deleted_and_shares_nothing() {
    let mut leader = Leader::of(CheckpointSettings { interval_ms: None, ..settings() });
    let kind = SnapshotKind::Savepoint(SavepointFormat::Canonical);
    let operation = OperationId(0xabc);
    let request = leader.ledger.user_request(leader.job(), kind, Purpose::GoOn, None, operation).unwrap();
    leader.happen(Event::CheckpointRequested { job: JOB, request, at_ms: 0 });
    assert_eq!(leader.complete(1, &[]), []);
    let folder = "/mine/savepoint-000000-000000000abc".to_string();
    assert_eq!(leader.job().checkpoints().operation(operation).unwrap().result, Some(Ok(folder)));
    leader.happen(Event::CancelRequested { job: JOB, at_ms: 0 });
    for vertex in ["source", "map"] {
        leader.report(vertex, TaskState::Canceled);
    }
    let deleted = deletions(leader.pass(0));
    assert!(deleted.trees.iter().all(|tree| tree.starts_with(FOLDER)), "{deleted:?}");
    assert!(deleted.files.is_empty());
    // One that was given up was only half there.
    let mut leader = Leader::of(settings());
    let request =
        leader.ledger.user_request(leader.job(), kind, Purpose::GoOn, Some("/other"), operation).unwrap();
    leader.happen(Event::CheckpointRequested { job: JOB, request, at_ms: 0 });
    assert_eq!(deletions(leader.pass(1_000)).trees, ["/other/savepoint-000000-000000000abc"]);
}

#[test]
fn no_checkpoint_begins_while_a_savepoint_is_taken() {
    let mut leader = Leader::of(settings());
    leader.ask_for_savepoint(1);
    leader.pass(500);
    assert_eq!(leader.pending(), [1]);
    leader.complete(1, &[]);
    assert_eq!(leader.pending(), [2], "the interval has long been over");
    // One that was under way into the log when a savepoint came is dropped, and comes again.
    let mut leader = Leader::of(settings());
    leader.clock_ms = 100;
    let now = leader.now();
    leader.ledger.tick(&leader.state, now, |_| false);
    let [Action::Propose(late)] = &leader.ledger.take_actions()[..] else { panic!("no checkpoint is due") };
    leader.ask_for_savepoint(1);
    leader.happen(late.clone());
    leader.pass(0);
    assert_eq!(leader.pending(), [1]);
    leader.complete(1, &[]);
    leader.pass(100);
    assert_eq!(leader.pending(), [2]);
}

#[test]
fn a_savepoint_waits_until_the_checkpoint_before_it_has_ended_and_then_has_its_whole_time() {
    let mut leader = Leader::of(settings());
    leader.pass(100);
    leader.pass(900);
    leader.ask_for_savepoint(1);
    assert!(leader.job().awaits_its_turn(2) && !leader.job().awaits_its_turn(1));
    leader.complete(1, &[]);
    assert!(!leader.job().awaits_its_turn(2));
    leader.pass(999);
    assert_eq!(leader.pending(), [2]);
    leader.complete(2, &[]);
    assert!(matches!(leader.job().checkpoints().operation(OperationId(1)).unwrap().result, Some(Ok(_))));
}

#[test]
fn a_savepoint_does_not_wait_longer_than_it_may_and_does_not_count_as_a_failure() {
    let mut leader =
        Leader::of(CheckpointSettings { timeout_ms: 1_000, tolerable_failures: 0, ..settings() });
    leader.ask_for_savepoint(1);
    leader.pass(500);
    leader.ask_for_savepoint(2);
    // The first is about to end, and does not.
    leader.part("source", 1, &[]);
    leader.part("map", 1, &[]);
    leader.pass(0);
    let now = leader.now();
    leader.ledger.stored(JOB, 1, Ok(1), now);
    let completed = leader.ledger.take_actions();
    leader.pass(1_000);
    let result = leader.job().checkpoints().operation(OperationId(2)).unwrap().result.clone();
    let reason = result.unwrap().unwrap_err();
    assert!(reason.ends_with("within 1000 ms; it waited for those before it to end"), "{reason}");
    assert_eq!((leader.pending(), leader.job().state()), (vec![1], JobState::Running));
    let [Action::Propose(completed)] = &completed[..] else { panic!("{completed:?}") };
    leader.happen(completed.clone());
    assert_eq!(leader.pending(), [0; 0]);
}

#[test]
fn what_becomes_of_checkpoints_when_the_job_ends_is_the_users_choice() {
    use CheckpointRetention::{DeleteOnCancellation, NoExternalizedCheckpoints, RetainOnCancellation};
    for (retention, kept) in [
        (NoExternalizedCheckpoints, [false, false]),
        (DeleteOnCancellation, [false, false]),
        (RetainOnCancellation, [false, true]),
    ] {
        for (index, canceled) in [false, true].into_iter().enumerate() {
            let mut leader = Leader::of(CheckpointSettings { retention, ..settings() });
            leader.pass(100);
            leader.complete(1, &["a"]);
            if canceled {
                leader.happen(Event::CancelRequested { job: JOB, at_ms: 0 });
            }
            for vertex in ["source", "map"] {
                leader.report(vertex, if canceled { TaskState::Canceled } else { TaskState::Finished });
            }
            assert!(leader.job().state().is_terminal());
            let deleted = deletions(leader.pass(0));
            let trees = [format!("{FOLDER}/chk-1"), format!("{FOLDER}/shared")];
            let expected = if kept[index] { Vec::new() } else { trees.to_vec() };
            assert_eq!(deleted.trees, expected, "{retention:?}, canceled: {canceled}");
            assert_eq!(deleted.empty_folder.is_some(), !kept[index]);
        }
    }
}

#[test]
fn a_task_that_waits_for_its_commit_gets_a_checkpoint_at_once_when_all_sources_have_ended() {
    let mut leader = Leader::of(CheckpointSettings { interval_ms: Some(1_000_000), ..settings() });
    let (source, map) = (leader.attempt("source"), leader.attempt("map"));
    leader.ledger.wanted(leader.state.job(JOB).unwrap(), map);
    leader.pass(10);
    assert_eq!(leader.pending(), [0; 0]);
    leader.happen(Event::LastSnapshot {
        job: JOB,
        attempt: source,
        snapshot: Arc::new(part(source, &[], true)),
        at_ms: 0,
    });
    leader.report("source", TaskState::Finished);
    leader.pass(0);
    assert_eq!(leader.pending(), [1]);
    let now = leader.now();
    let result = Ok(part(map, &[], true));
    leader.ledger.part(SnapshotReport { job: JOB, attempt: map, checkpoint: 1, handed_in: 0, result }, now);
    let stored = leader.pass(0);
    let Action::Store { manifest, .. } = &stored[0] else { panic!("{stored:?}") };
    assert!(manifest.tasks.len() == 2 && manifest.tasks.iter().all(|task| task.finished));
    leader.ledger.stored(JOB, 1, Ok(1), now);
    leader.pass(10);
    assert_eq!(leader.pending(), [0; 0], "it has what it wanted");
}

#[test]
fn a_task_that_finishes_instead_of_handing_in_counts_by_its_last_part() {
    let mut leader = Leader::of(settings());
    leader.pass(100);
    let source = leader.attempt("source");
    let snapshot = Arc::new(part(source, &[], true));
    let event = Event::LastSnapshot { job: JOB, attempt: source, snapshot: snapshot.clone(), at_ms: 0 };
    leader.happen(event);
    let now = leader.now();
    leader.ledger.last(JOB, source, &snapshot, now);
    leader.part("map", 1, &[]);
    assert!(matches!(&leader.pass(0)[..], [Action::Store { .. }]));
}

#[test]
fn a_last_part_does_not_stand_for_one_that_the_task_has_handed_in_and_that_comes_later() {
    for is_first in [true, false] {
        let mut leader = Leader::of(settings());
        leader.pass(100);
        let source = leader.attempt("source");
        if !is_first {
            leader.part("source", 1, &[]);
        }
        leader.ledger.last_comes(JOB, source, 1);
        let snapshot = Arc::new(part(source, &[], true));
        leader.happen(Event::LastSnapshot {
            job: JOB,
            attempt: source,
            snapshot: snapshot.clone(),
            at_ms: 0,
        });
        let now = leader.now();
        leader.ledger.last(JOB, source, &snapshot, now);
        leader.report("source", TaskState::Finished);
        leader.part("map", 1, &[]);
        if is_first {
            assert_eq!(leader.pass(0), [], "its own part is on its way");
            leader.part("source", 1, &[]);
        }
        let stored = leader.pass(0);
        let [Action::Store { manifest, .. }] = &stored[..] else { panic!("{stored:?}") };
        assert_eq!(manifest.tasks.iter().map(|task| task.finished).collect::<Vec<_>>(), [false, false]);
        // For the next one it does.
        let now = leader.now();
        leader.ledger.stored(JOB, 1, Ok(99), now);
        leader.pass(100);
        leader.part("map", 2, &[]);
        let stored = leader.pass(0);
        let stored = stored.iter().find_map(|action| match action {
            Action::Store { checkpoint, manifest, .. } => Some((*checkpoint, manifest.tasks[0].finished)),
            _ => None,
        });
        assert_eq!(stored, Some((2, true)));
    }
}

#[test]
fn a_task_whose_last_part_is_known_is_not_waited_for_though_it_has_yet_to_say_that_it_has_finished() {
    let mut leader = Leader::of(settings());
    let source = leader.attempt("source");
    let snapshot = Arc::new(part(source, &[], true));
    leader.happen(Event::LastSnapshot { job: JOB, attempt: source, snapshot, at_ms: 0 });
    leader.pass(100);
    assert_eq!(leader.pending(), [1]);
    leader.part("map", 1, &[]);
    let stored = leader.pass(0);
    let [Action::Store { manifest, .. }] = &stored[..] else { panic!("{stored:?}") };
    assert_eq!(manifest.tasks.iter().map(|task| task.finished).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_failure_of_the_job_gives_up_what_is_pending_and_an_interval_passes_after_it_is_up_again() {
    let mut leader = Leader::of(settings());
    leader.pass(100);
    leader.complete(1, &["a"]);
    leader.pass(100);
    leader.part("map", 2, &["a", "b"]);
    leader.report("map", TaskState::Failed);
    assert_eq!(leader.job().state(), JobState::Restarting);
    let deleted = deletions(leader.pass(0));
    assert_eq!(
        deleted.files,
        [format!("{FOLDER}/shared/b")],
        "the file of a checkpoint that is complete stays"
    );
    leader.report("source", TaskState::Canceled);
    leader.happen(Event::RestartDelayExpired { job: JOB, number: 0, at_ms: 0 });
    leader.pass(500);
    leader.run();
    leader.pass(99);
    assert_eq!(leader.pending(), [0; 0]);
    leader.pass(1);
    assert_eq!(leader.pending(), [3], "no id is given twice");
}

#[test]
fn a_new_leader_gives_up_what_was_pending_and_learns_which_files_are_shared() {
    let mut leader = Leader::of(settings());
    leader.pass(100);
    leader.complete(1, &["a", "b"]);
    leader.pass(100);
    assert_eq!(leader.pending(), [2]);
    let now = leader.now();
    leader.ledger.take_over(&leader.state, now);
    let actions = leader.pass(0);
    let [Action::Survey(survey), Action::Delete(pending)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(survey.retained, [(1, format!("{FOLDER}/chk-1"))]);
    assert_eq!(pending.trees, [format!("{FOLDER}/chk-2")]);
    assert_eq!(leader.pending(), [0; 0]);
    // Checkpoints go on before that is known.
    leader.pass(500);
    assert_eq!(leader.pending(), [3]);
    let surveyed = Surveyed {
        manifests: Some(vec![(1, vec!["a".into(), "b".into()])]),
        files: ["a", "b", "stale"].map(String::from).to_vec(),
        folders: vec![0, 1, 2],
    };
    leader.ledger.surveyed(leader.state.job(JOB).unwrap(), surveyed, now);
    let deleted = deletions(leader.pass(0));
    assert!(deleted.files.is_empty(), "what is there may be of the one that is being taken");
    assert_eq!(deleted.trees, [format!("{FOLDER}/chk-0"), format!("{FOLDER}/chk-2")]);
    let deleted = deletions(leader.complete(3, &["b"]));
    assert_eq!(deleted.files, ["a", "stale"].map(|name| format!("{FOLDER}/shared/{name}")));
}

#[test]
fn without_the_manifests_nothing_shared_is_deleted_and_they_are_looked_for_again() {
    let mut leader = Leader::of(settings());
    leader.pass(100);
    leader.complete(1, &["a"]);
    let now = leader.now();
    leader.ledger.take_over(&leader.state, now);
    leader.pass(0);
    leader.ledger.surveyed(leader.state.job(JOB).unwrap(), Surveyed::default(), now);
    leader.pass(100);
    let deleted = deletions(leader.complete(2, &["b"]));
    assert_eq!((deleted.files.len(), deleted.trees), (0, vec![format!("{FOLDER}/chk-1")]));
    let again = leader.pass(900);
    let [Action::Survey(survey)] = &again[..] else { panic!("{again:?}") };
    assert_eq!(survey.retained, [(2, format!("{FOLDER}/chk-2"))]);
    assert_eq!(leader.pending(), [3]);
    let surveyed = Surveyed {
        manifests: Some(vec![(2, vec!["b".into()])]),
        files: vec!["a".into(), "b".into()],
        folders: vec![2, 3],
    };
    let now = leader.now();
    leader.ledger.surveyed(leader.state.job(JOB).unwrap(), surveyed, now);
    let deleted = deletions(leader.complete(3, &["b"]));
    assert_eq!(
        (deleted.files, deleted.trees),
        (vec![format!("{FOLDER}/shared/a")], vec![format!("{FOLDER}/chk-2")])
    );
}

/// A job that starts from a snapshot of another.
fn started_from(own: bool, num_retained: u32) -> Leader {
    let folder = "file:///data/other/chk-4".into();
    let restore = RestoreFrom { folder, checkpoint: 4, ignore_unclaimed: false, own };
    Leader::restored(CheckpointSettings { num_retained, ..settings() }, Some(restore))
}

fn claimed(actions: Vec<Action>) -> Vec<String> {
    let of = |action| match action {
        Action::Delete(Deletion { claimed, .. }) => claimed.map(|claimed| claimed.folder),
        _ => None,
    };
    actions.into_iter().filter_map(of).collect()
}

#[test]
fn a_claimed_snapshot_goes_when_as_many_of_the_jobs_own_are_complete_as_it_retains() {
    let mut leader = started_from(true, 2);
    leader.pass(100);
    assert!(claimed(leader.complete(5, &[])).is_empty());
    leader.pass(100);
    assert_eq!(claimed(leader.complete(6, &[])), ["file:///data/other/chk-4"]);
    leader.pass(100);
    assert!(claimed(leader.complete(7, &[])).is_empty(), "it goes once");
    // Another leader does not know whether it is gone, until that is in the log: then what is there is somebody's.
    let (state, now) = (leader.state.clone(), leader.now());
    leader.ledger.take_over(&state, now);
    assert_eq!(claimed(leader.ledger.take_actions()), ["file:///data/other/chk-4"]);
    leader.ledger.claim_ended(JOB, now);
    leader.pass(0);
    leader.ledger.take_over(&leader.state.clone(), now);
    assert!(claimed(leader.ledger.take_actions()).is_empty());
}

#[test]
fn a_snapshot_that_is_not_claimed_stays() {
    let mut leader = started_from(false, 1);
    leader.pass(100);
    assert!(claimed(leader.complete(5, &[])).is_empty());
    leader.report("source", TaskState::Finished);
    leader.report("map", TaskState::Finished);
    assert_eq!(leader.job().state(), JobState::Finished);
    assert!(claimed(leader.pass(0)).is_empty());
}

#[test]
fn a_claimed_snapshot_goes_with_the_job_unless_the_job_got_nowhere() {
    let mut leader = started_from(true, 3);
    leader.happen(Event::CancelRequested { job: JOB, at_ms: 0 });
    leader.report("source", TaskState::Canceled);
    leader.report("map", TaskState::Canceled);
    assert_eq!(leader.job().state(), JobState::Canceled);
    assert!(claimed(leader.pass(0)).is_empty());

    let mut leader = started_from(true, 3);
    leader.pass(100);
    assert!(claimed(leader.complete(5, &[])).is_empty());
    leader.happen(Event::CancelRequested { job: JOB, at_ms: 0 });
    leader.report("source", TaskState::Canceled);
    leader.report("map", TaskState::Canceled);
    assert_eq!(claimed(leader.pass(0)), ["file:///data/other/chk-4"]);
}
