//! A job of tests: tasks of one vertex with two operators, of which the first has keyed state.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use flott_dataflow::snapshot::{FrozenRows, ListMode, RowSink, StateBackend, TableId, TableSpec, TaskState};
use flott_schema::Result;
use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, VertexId};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::{
    Barrier, Manifest, ManifestOperator, ManifestVertex, RestoreFrom, SavepointFormat, SnapshotFile,
    SnapshotKind, TaskSnapshot,
};

use crate::{
    Backend, FetchedTask, SnapshotTarget, StateOptions, StateService, TaskBackend, TaskExtras, TaskIdentity,
};

pub(super) const JOB: JobId = JobId(7);
pub(super) const VERTEX: VertexId = VertexId(8);
pub(super) const KEY_GROUPS: u32 = 8;
pub(super) const CANONICAL: SnapshotKind = SnapshotKind::Savepoint(SavepointFormat::Canonical);
pub(super) const NATIVE: SnapshotKind = SnapshotKind::Savepoint(SavepointFormat::Native);

/// Rows of a table: key to value.
pub(super) type Rows = BTreeMap<u32, String>;

pub(super) fn keyed_operator() -> OperatorId {
    OperatorId::of_uid("keyed")
}

pub(super) fn other_operator() -> OperatorId {
    OperatorId::of_uid("other")
}

pub(super) fn group_of(key: u32) -> u16 {
    // Any spread will do; this one mixes neighbours.
    (key.wrapping_mul(2_654_435_761) >> 16) as u16 % KEY_GROUPS as u16
}

/// Typed rows on their way.
pub(super) struct Frozen(pub(super) Vec<(u32, Option<String>)>);

impl FrozenRows for Frozen {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn encode(self: Box<Self>, rows: &mut dyn RowSink) -> Result<()> {
        self.0.iter().try_for_each(|(key, value)| {
            rows.row(group_of(*key), &key.to_be_bytes(), value.as_ref().map(|value| value.as_bytes()))
        })
    }
}

/// A table of an operator, as simple as can be.
pub(super) struct Table {
    pub(super) state: Rc<dyn StateBackend>,
    pub(super) id: TableId,
    pub(super) rows: Rows,
    changed: BTreeMap<u32, Option<String>>,
}

pub(super) fn spec(name: &str) -> TableSpec {
    TableSpec { name: name.into(), holds: "value", key_type: "u32".into(), value_type: "str".into() }
}

impl Table {
    fn open(state: Rc<dyn StateBackend>, name: &str) -> Result<Self> {
        let id = state.table(spec(name))?;
        let mut rows = Rows::new();
        state.load(id, &mut |key, value| {
            let key = u32::from_be_bytes(key.try_into()?);
            let before = rows.insert(key, String::from_utf8(value.to_vec())?);
            assert!(before.is_none(), "key {key} was loaded twice");
            Ok(())
        })?;
        Ok(Table { state, id, rows, changed: BTreeMap::new() })
    }

    pub(super) fn set(&mut self, key: u32, value: Option<&str>) {
        match value {
            Some(value) => self.rows.insert(key, value.into()),
            None => self.rows.remove(&key),
        };
        self.changed.insert(key, value.map(str::to_owned));
    }

    /// Writes the changed rows outside of a snapshot.
    pub(super) fn write_out(&mut self) {
        let rows = std::mem::take(&mut self.changed).into_iter().collect();
        self.state.write(self.id, Box::new(Frozen(rows))).unwrap();
    }

    /// Hands in what is due, in pieces.
    pub(super) fn freeze(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        let rows: Vec<_> = match self.state.wants_changes() {
            true => changed.into_iter().collect(),
            false => self.rows.iter().map(|(key, value)| (*key, Some(value.clone()))).collect(),
        };
        let mut sink = self.state.freeze(self.id);
        rows.chunks(7).for_each(|rows| sink.rows(Box::new(Frozen(rows.to_vec()))));
        sink.done();
    }

    pub(super) fn fetch(&self, keys: impl IntoIterator<Item = u32>) -> Rows {
        let keys: Vec<(u32, [u8; 4])> = keys.into_iter().map(|key| (key, key.to_be_bytes())).collect();
        let wanted: Vec<(u16, &[u8])> =
            keys.iter().map(|(key, bytes)| (group_of(*key), &bytes[..])).collect();
        let mut found = Rows::new();
        let mut take = |at: usize, value: &[u8]| {
            found.insert(keys[at].0, String::from_utf8(value.to_vec()).unwrap());
            Ok(())
        };
        self.state.fetch(self.id, &wanted, &mut take).unwrap();
        found
    }
}

/// A task, and its tables.
pub(super) struct Task {
    pub(super) backend: Rc<TaskBackend>,
    pub(super) first: Table,
    pub(super) second: Table,
    pub(super) key_groups: KeyGroupRange,
    pub(super) subtask: u32,
}

impl Task {
    /// A task whose first table has been registered in a way of its own.
    pub(super) fn of(backend: Rc<TaskBackend>, state: Rc<dyn StateBackend>, id: TableId, rows: Rows) -> Self {
        let second = Table::open(state.clone(), "second").unwrap();
        let first = Table { state, id, rows, changed: BTreeMap::new() };
        let key_groups = KeyGroupRange { start: 0, end: KEY_GROUPS };
        Task { backend, first, second, key_groups, subtask: 0 }
    }
}

impl Task {
    /// Hands in everything, and lets the barrier pass.
    pub(super) fn hand_in(&mut self, checkpoint: u64) {
        self.first.freeze();
        self.second.freeze();
        let other = self.backend.operator(other_operator(), "other");
        for (name, mode) in
            [("split", ListMode::Split), ("union", ListMode::Union), ("broadcast", ListMode::Broadcast)]
        {
            let items = match mode {
                ListMode::Broadcast => vec![b"all".to_vec()],
                _ => (0..3).map(|n| format!("{}.{n}", self.subtask).into_bytes()).collect(),
            };
            other.set_list(name, mode, "str", items).unwrap();
        }
        self.backend.passed(checkpoint, false);
    }
}

/// Where the tasks run, and where snapshots go.
pub(super) struct Cluster {
    pub(super) directory: tempfile::TempDir,
    pub(super) service: Arc<StateService>,
    checkpoint: u64,
    attempt: u32,
}

/// A snapshot that was taken.
#[derive(Clone)]
pub(super) struct Taken {
    pub(super) from: RestoreFrom,
    pub(super) manifest: Manifest,
}

pub(super) fn options(backend: Backend, directory: &Path) -> StateOptions {
    StateOptions { backend, ..StateOptions::new(directory.join("work")) }
}

pub(super) fn identity(subtask: u32, parallelism: u32, attempt: u32) -> TaskIdentity {
    TaskIdentity {
        job: JOB,
        attempt: AttemptId { task: TaskId { vertex: VERTEX, subtask }, job_epoch: 1, attempt },
        parallelism,
        max_parallelism: KEY_GROUPS,
        operators: vec![keyed_operator(), other_operator()],
        memory_bytes: 400 << 20,
        cancelled: Arc::default(),
    }
}

pub(super) fn wait(done: &Receiver<Result<TaskSnapshot>>) -> Result<TaskSnapshot> {
    done.recv_timeout(Duration::from_secs(60)).expect("the snapshot ends")
}

impl Cluster {
    pub(super) fn new(backend: Backend) -> Self {
        Self::with(backend, |_| {})
    }

    pub(super) fn with(backend: Backend, change: impl FnOnce(&mut StateOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(backend, directory.path());
        change(&mut options);
        Cluster { service: StateService::start(options).unwrap(), directory, checkpoint: 0, attempt: 0 }
    }

    /// The same files, and executors with other settings.
    pub(super) fn switch(&mut self, backend: Backend) {
        self.attempt += 1;
        let directory = self.directory.path().join(format!("executor-{}", self.attempt));
        self.service = StateService::start(options(backend, &directory)).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.directory.path().join("snapshots").join(name).to_string_lossy().into_owned()
    }

    pub(super) fn try_task(&mut self, subtask: u32, parallelism: u32, from: Option<&Taken>) -> Result<Task> {
        self.attempt += 1;
        self.try_task_of(identity(subtask, parallelism, self.attempt), from)
    }

    fn try_task_of(&mut self, identity: TaskIdentity, from: Option<&Taken>) -> Result<Task> {
        let (subtask, from) = (identity.attempt.task.subtask, from.map(|taken| &taken.from));
        let fetched = FetchedTask::fetch(&self.service, identity.clone(), from)?;
        let identity = TaskIdentity { max_parallelism: fetched.max_parallelism(), ..identity };
        let key_groups = identity.key_groups();
        let backend = fetched.open();
        let state = backend.operator(keyed_operator(), "keyed");
        let first = Table::open(state.clone(), "first")?;
        let second = Table::open(state, "second")?;
        backend.check_claimed()?;
        Ok(Task { backend, first, second, key_groups, subtask })
    }

    /// The task of a vertex that has one for good.
    pub(super) fn only_task(&mut self, from: Option<&Taken>) -> Task {
        self.attempt += 1;
        let identity = TaskIdentity { max_parallelism: 1, ..identity(0, 1, self.attempt) };
        self.try_task_of(identity, from).unwrap()
    }

    pub(super) fn tasks(&mut self, parallelism: u32, from: Option<&Taken>) -> Vec<Task> {
        (0..parallelism).map(|subtask| self.try_task(subtask, parallelism, from).unwrap()).collect()
    }

    pub(super) fn target(&self, checkpoint: u64, kind: SnapshotKind) -> SnapshotTarget {
        let folder =
            self.path(&format!("{}-{checkpoint}", if kind.is_savepoint() { "savepoint" } else { "chk" }));
        let shared_folder = (kind == SnapshotKind::Checkpoint).then(|| self.path("shared"));
        SnapshotTarget { folder, shared_folder }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.checkpoint += 1;
        self.checkpoint
    }

    /// Begins a snapshot in all tasks; ends it in none.
    pub(super) fn begin(&mut self, tasks: &mut [Task], kind: SnapshotKind) -> u64 {
        let checkpoint = self.next();
        for task in tasks {
            task.backend.begin(&Barrier { kind, ..Barrier::of_checkpoint(checkpoint) }).unwrap();
        }
        checkpoint
    }

    /// Hands in everything, and waits until it is stored.
    pub(super) fn end(&self, tasks: &mut [Task], checkpoint: u64, kind: SnapshotKind) -> Result<Taken> {
        tasks.iter_mut().for_each(|task| task.hand_in(checkpoint));
        self.store(tasks, checkpoint, kind)
    }

    /// Waits until what was handed in is stored.
    pub(super) fn store(&self, tasks: &[Task], checkpoint: u64, kind: SnapshotKind) -> Result<Taken> {
        let end = |task: &Task| {
            let (send, done) = sync_channel(1);
            let told = Box::new(move |result| send.send(result).unwrap());
            task.backend.end(checkpoint, self.target(checkpoint, kind), TaskExtras::default(), told);
            done
        };
        let waiting: Vec<_> = tasks.iter().map(end).collect();
        // All have ended before one is looked at.
        let results: Vec<Result<TaskSnapshot>> = waiting.iter().map(wait).collect();
        let parts: Result<Vec<TaskSnapshot>> = results.into_iter().collect();
        Ok(self.manifest(checkpoint, kind, parts?))
    }

    pub(super) fn manifest(&self, checkpoint: u64, kind: SnapshotKind, tasks: Vec<TaskSnapshot>) -> Taken {
        let operator = |uid: &str| ManifestOperator {
            operator: OperatorId::of_uid(uid),
            uid: uid.into(),
            name: uid.into(),
        };
        let vertex = ManifestVertex {
            vertex: VERTEX,
            name: "vertex".into(),
            parallelism: tasks.len() as u32,
            max_parallelism: KEY_GROUPS,
            operators: vec![operator("keyed"), operator("other")],
        };
        let manifest = Manifest {
            job: JOB,
            job_name: "job".into(),
            checkpoint,
            kind,
            timestamp_ms: 0,
            vertices: vec![vertex],
            tasks,
        };
        let folder = self.target(checkpoint, kind).folder;
        write_manifest(&folder, &manifest);
        Taken { from: RestoreFrom { folder, checkpoint, ignore_unclaimed: false, own: true }, manifest }
    }

    /// Takes a snapshot of all tasks and completes it.
    pub(super) fn take(&mut self, tasks: &mut [Task], kind: SnapshotKind) -> Taken {
        let checkpoint = self.begin(tasks, kind);
        let taken = self.end(tasks, checkpoint, kind).unwrap();
        tasks.iter().for_each(|task| task.backend.completed(checkpoint));
        taken
    }

    /// The rows of both tables that tasks of this parallelism start with.
    pub(super) fn restored(&mut self, parallelism: u32, from: &Taken) -> (Rows, Rows) {
        let tasks = self.tasks(parallelism, Some(from));
        all_rows(&tasks)
    }
}

/// The rows of both tables of all tasks, each of which has its own key groups alone.
pub(super) fn all_rows(tasks: &[Task]) -> (Rows, Rows) {
    let mut all = (Rows::new(), Rows::new());
    for task in tasks {
        for (table, all) in [(&task.first, &mut all.0), (&task.second, &mut all.1)] {
            for (key, value) in &table.rows {
                assert!(
                    task.key_groups.contains(group_of(*key).into()),
                    "key {key} is not of task {}",
                    task.subtask
                );
                assert!(all.insert(*key, value.clone()).is_none());
            }
        }
    }
    all
}

pub(super) fn write_manifest(folder: &str, manifest: &Manifest) {
    let folder = flott_storage::Storage::open(folder).unwrap();
    folder.create().unwrap();
    flott_storage::manifest::write(&folder, manifest).unwrap();
}

/// The files of all tasks.
pub(super) fn files(taken: &Taken) -> Vec<SnapshotFile> {
    let mut files: Vec<SnapshotFile> =
        taken.manifest.tasks.iter().flat_map(|task| task.files().cloned()).collect();
    files.sort();
    files
}

/// Sets a key in the task that owns it.
pub(super) fn set(tasks: &mut [Task], second: bool, key: u32, value: Option<&str>) {
    let owner = tasks.iter_mut().find(|task| task.key_groups.contains(group_of(key).into())).unwrap();
    let table = if second { &mut owner.second } else { &mut owner.first };
    table.set(key, value);
}
