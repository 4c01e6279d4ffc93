//! State of one task: what its operators hand in at a barrier, and what they start from.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use flott_dataflow::snapshot::{StateBackend, TaskState};
use flott_schema::ids::OperatorId;
use flott_schema::snapshot::{Barrier, ChannelSnapshot, ListSnapshot, RestoreFrom, SnapshotFile};
use flott_schema::{Context, Error, ErrorKind, Result};

use crate::files;
use crate::layer::Layer;
use crate::memory::TaskMemory;
use crate::operator::{Current, Fetched, OperatorState, Shared};
use crate::options::TaskIdentity;
use crate::pool::guarded;
use crate::restored::Restored;
use crate::service::StateService;
use crate::snapshot::{ChannelFrames, Done, Part, Pending, SnapshotTarget, TaskExtras};

/// Snapshots that the task has taken part in and whose end is not known, and those known to be given up.
const KEPT: usize = 64;

/// State of one task. Its calls come from the task's thread; what takes time is done on the threads of the
/// service.
pub struct TaskBackend {
    shared: Rc<Shared>,
    operators: RefCell<BTreeMap<OperatorId, Rc<OperatorState>>>,
    /// Snapshots that have begun, until it is known whether they are complete.
    pending: RefCell<BTreeMap<u64, Arc<Pending>>>,
    /// Those that all operators have handed in for, until the task ends its part.
    passed: RefCell<BTreeMap<u64, Passed>>,
    /// The last ones that were given up: a barrier of theirs may still come.
    given_up: RefCell<BTreeSet<u64>>,
    /// Records that were in flight, until they are asked for.
    channels: RefCell<Vec<ChannelFrames>>,
}

/// What a task starts from, fetched on any thread, so that the task's own does not wait for files.
pub struct FetchedTask {
    service: Arc<StateService>,
    task: TaskIdentity,
    restored: Option<Restored>,
    memory: Arc<TaskMemory>,
    operators: BTreeMap<OperatorId, Fetched>,
    channels: Vec<ChannelFrames>,
}

impl FetchedTask {
    /// Fetches what `task` starts from, if it starts from a snapshot. This may take long.
    ///
    /// An error names the snapshot, and the file that is missing or damaged. There is one if there are records in flight and
    /// the vertex has another parallelism now.
    pub fn fetch(
        service: &Arc<StateService>,
        mut task: TaskIdentity,
        restore: Option<&RestoreFrom>,
    ) -> Result<Self> {
        let restored = match restore {
            Some(from) => Some(Restored { from: from.clone(), manifest: service.manifest(from)? }),
            None => None,
        };
        let memory = Arc::new(TaskMemory::new(task.memory_bytes));
        if let Some(restored) = &restored {
            task.max_parallelism = restored.max_parallelism(&task);
        }
        let fetch = |operator: &OperatorId| {
            Ok((*operator, Fetched::fetch(service, &task, restored.as_ref(), &memory, *operator)?))
        };
        let operators = task.operators.iter().map(fetch).collect::<Result<_>>()?;
        let channels = restored.as_ref().map_or(Ok(Vec::new()), |restored| channels(&task, restored))?;
        Ok(FetchedTask { service: service.clone(), task, restored, memory, operators, channels })
    }

    /// How many key groups the task's vertex has: as many as the state that it starts from, where the vertex has one task for good.
    pub fn max_parallelism(&self) -> u32 {
        self.task.max_parallelism
    }

    /// Opens the state of the task, on its thread.
    pub fn open(self) -> Rc<TaskBackend> {
        let FetchedTask { service, task, restored, memory, operators, channels } = self;
        let shared = Shared::new(service, task, restored, memory);
        let open =
            |(operator, fetched)| (operator, Rc::new(OperatorState::open(shared.clone(), operator, fetched)));
        let operators = RefCell::new(operators.into_iter().map(open).collect());
        let (pending, passed, given_up) = Default::default();
        Rc::new(TaskBackend {
            shared,
            operators,
            pending,
            passed,
            given_up,
            channels: RefCell::new(channels),
        })
    }
}

fn channels(task: &TaskIdentity, Restored { from, manifest }: &Restored) -> Result<Vec<ChannelFrames>> {
    let (id, parallelism) = (task.attempt.task, task.parallelism);
    let vertex = manifest.vertices.iter().find(|vertex| vertex.vertex == id.vertex);
    let Some(vertex) = vertex else { return Ok(Vec::new()) };
    let mut tasks = manifest.tasks.iter().filter(|one| one.task.vertex == id.vertex);
    if vertex.parallelism != parallelism && tasks.clone().any(|one| !one.channels.is_empty()) {
        return Err(Error::configuration(format!(
            "{from} is an unaligned checkpoint with records in flight into '{}', which had {} tasks and has \
             {parallelism} now; keep the parallelism, or start from a savepoint or an aligned checkpoint",
            vertex.name, vertex.parallelism
        )));
    }
    let Some(snapshot) = tasks.find(|one| one.task == id) else { return Ok(Vec::new()) };
    let read = |channel: &ChannelSnapshot| {
        let frames = files::get_bytes(&from.folder, &channel.file).at(|| from.to_string())?;
        Ok(ChannelFrames { edge: channel.edge, source: channel.source, frames })
    };
    snapshot.channels.iter().map(read).collect()
}

/// A snapshot whose barrier has left the last operator.
struct Passed {
    pending: Arc<Pending>,
    lists: BTreeMap<OperatorId, Vec<ListSnapshot>>,
}

impl TaskBackend {
    /// Opens the state of a task. What it starts from is fetched: this may take long.
    ///
    /// An error names the snapshot, and the file that is missing or damaged.
    pub fn open(
        service: &Arc<StateService>,
        task: TaskIdentity,
        restore: Option<&RestoreFrom>,
    ) -> Result<Rc<Self>> {
        Ok(FetchedTask::fetch(service, task, restore)?.open())
    }

    /// Whether the task had finished before the snapshot that it starts from.
    pub fn had_finished(&self) -> bool {
        self.shared.restored.as_ref().is_some_and(|restored| restored.had_finished(&self.shared.task))
    }

    /// Records that were in flight into the task.
    pub fn channel_state(&self) -> Vec<ChannelFrames> {
        self.channels.take()
    }

    /// To be called when all operators have opened: tables of the snapshot that none has registered are
    /// refused, or dropped if that is allowed. Not for a task that had finished.
    pub fn check_claimed(&self) -> Result<()> {
        self.operators.borrow().values().try_for_each(|operator| operator.check_claimed())
    }

    /// Begins the task's part of a snapshot. The operators hand in what they have; then comes
    /// [`passed`](Self::passed). One that was given up before may begin: then nothing is stored for it. After
    /// an error the task must fail: rows got lost, and no later snapshot can be right.
    pub fn begin(&self, barrier: &Barrier) -> Result<()> {
        let unfinished = self.shared.current.borrow().as_ref().map(|one| one.pending.barrier.checkpoint);
        if let Some(unfinished) = unfinished {
            self.aborted(unfinished);
            self.shared.current.take();
        }
        let checkpoint = barrier.checkpoint;
        let is_abandoned = self.given_up.borrow().contains(&checkpoint);
        let pending = Arc::new(Pending::new(self.shared.task.attempt.task, *barrier));
        let operators = self.operators.borrow();
        operators.values().try_for_each(|operator| operator.check_usable())?;
        let mut layers = BTreeMap::new();
        operators.values().for_each(|operator| operator.all_loaded());
        if !is_abandoned {
            self.pending.borrow_mut().insert(checkpoint, pending.clone());
            for (id, operator) in operators.iter() {
                if let Some(layer) = operator.begin(&pending)? {
                    layers.insert(*id, layer);
                }
            }
        }
        let current = Current { pending, lists: BTreeMap::new(), layers, is_abandoned };
        *self.shared.current.borrow_mut() = Some(current);
        drop(operators);
        self.bound();
        Ok(())
    }

    /// The barrier of the snapshot at hand has left the last operator: all have set their lists, and taken
    /// sinks for all tables, unless the task has `finished`. Rows may still come through these sinks. What is
    /// handed in behind it belongs to another snapshot.
    pub fn passed(&self, checkpoint: u64, finished: bool) {
        let current =
            self.shared.current.borrow_mut().take_if(|one| one.pending.barrier.checkpoint == checkpoint);
        let Some(Current { pending, lists, layers, is_abandoned }) = current else { return };
        if is_abandoned {
            return;
        }
        if finished {
            pending.finish();
        } else if let Some((operator, (_, open))) = layers.iter().find(|(_, (_, open))| !open.is_empty()) {
            pending.fail(Error::internal(format!(
                "operator {operator} did not hand in its table with number {} for snapshot {checkpoint}",
                open.first().copied().unwrap_or_default(),
            )));
        }
        self.passed.borrow_mut().insert(checkpoint, Passed { pending, lists });
        self.close(&layers);
    }

    /// No more sinks are taken for these layers: what is behind them can be stored.
    fn close(&self, layers: &BTreeMap<OperatorId, (Arc<Layer>, BTreeSet<u16>)>) {
        layers.values().for_each(|(layer, _)| layer.close());
        self.operators.borrow().values().for_each(|operator| operator.layer_closed());
    }

    /// Ends the task's part of a snapshot that has [`passed`](Self::passed): at any time and in any order.
    /// `done` is called when all of it is stored, or with the reason why it cannot be.
    pub fn end(&self, checkpoint: u64, target: SnapshotTarget, mut extras: TaskExtras, done: Done) {
        let Some(Passed { pending, mut lists }) = self.passed.borrow_mut().remove(&checkpoint) else {
            done(Err(if self.given_up.borrow().contains(&checkpoint) {
                given_up(checkpoint)
            } else {
                Error::internal(format!("snapshot {checkpoint} was ended, and its barrier has not passed"))
            }));
            return;
        };
        let channels = std::mem::take(&mut extras.channels);
        if !channels.is_empty() {
            self.store_channels(&pending, target.folder.clone(), channels);
        }
        // What a task that has ended hands in goes into all later manifests, which outlive this snapshot's files.
        if !extras.finished {
            let large = self.large_lists(&mut lists);
            if !large.is_empty() {
                self.store_lists(&pending, target.folder.clone(), large);
            }
        }
        pending.end(target, extras, lists, done);
    }

    /// Takes out the lists that are too large to stand in the manifest.
    fn large_lists(
        &self,
        lists: &mut BTreeMap<OperatorId, Vec<ListSnapshot>>,
    ) -> Vec<(OperatorId, ListSnapshot)> {
        let inline_bytes = self.shared.service.options.inline_bytes;
        let mut large = Vec::new();
        for (operator, lists) in lists {
            let (inline, stored) =
                std::mem::take(lists).into_iter().partition(|list| list.inline_bytes() <= inline_bytes);
            *lists = inline;
            let stored: Vec<ListSnapshot> = stored;
            large.extend(stored.into_iter().map(|list| (*operator, list)));
        }
        large
    }

    /// What tells this deployment's files in the folder of a snapshot from those of others.
    fn stem(&self) -> String {
        let task = &self.shared.task.attempt;
        format!("{}-{}-{}.{}", task.task.vertex, task.task.subtask, task.job_epoch, task.attempt)
    }

    fn store_lists(&self, pending: &Arc<Pending>, folder: String, lists: Vec<(OperatorId, ListSnapshot)>) {
        let stem = self.stem();
        let store = move || {
            let mut written = 0;
            let mut stored = Vec::with_capacity(lists.len());
            for (number, (operator, list)) in lists.into_iter().enumerate() {
                let path = format!("{stem}.list-{number}");
                let bytes = flott_storage::lists::encode(&list.items)?;
                let file = files::put_bytes(&folder, &path, &bytes)?;
                let file = SnapshotFile { name: format!("list-{operator}-{}", list.name), ..file };
                written += file.size;
                stored.push((operator, ListSnapshot { items: Vec::new(), file: Some(file), ..list }));
            }
            Ok((Part::Lists(stored), written))
        };
        self.store(pending, store);
    }

    /// Has a part of a snapshot stored on another thread.
    fn store(&self, pending: &Arc<Pending>, store: impl FnOnce() -> Result<(Part, u64)> + Send + 'static) {
        pending.add_part();
        let part_of = pending.clone();
        let submitted = self.shared.service.transfer.submit(move || part_of.part_done(guarded(store)));
        if let Err(error) = submitted {
            pending.part_done(Err(error));
        }
    }

    fn store_channels(&self, pending: &Arc<Pending>, folder: String, channels: Vec<ChannelFrames>) {
        let stem = self.stem();
        let store = move |channels: Vec<ChannelFrames>| {
            let mut written = 0;
            let store = |channel: ChannelFrames| {
                let name = format!("channel-{}-{}", channel.edge, channel.source);
                let path = format!("{stem}.{name}");
                let file = SnapshotFile { name, ..files::put_bytes(&folder, &path, &channel.frames)? };
                written += file.size;
                Ok(ChannelSnapshot { edge: channel.edge, source: channel.source, file })
            };
            let stored: Result<Vec<ChannelSnapshot>> = channels.into_iter().map(store).collect();
            Ok((Part::Channels(stored?), written))
        };
        self.store(pending, move || store(channels));
    }

    /// A snapshot is complete: later ones may build on it. Older checkpoints whose end is not known are not
    /// waited for any more; savepoints, which the user asked for, are.
    pub fn completed(&self, checkpoint: u64) {
        let of_user = |one: &Pending| one.barrier.kind.is_savepoint();
        let completed = self.pending.borrow_mut().remove(&checkpoint);
        self.operators.borrow().values().for_each(|operator| operator.completed(checkpoint));
        if completed.is_some_and(|completed| of_user(&completed)) {
            return;
        }
        let pending = self.pending.borrow();
        let older = pending.range(..checkpoint).filter(|(_, one)| !of_user(one));
        let older: Vec<u64> = older.map(|(older, _)| *older).collect();
        drop(pending);
        older.into_iter().for_each(|older| self.supersede(older));
    }

    /// A snapshot was given up: what has been stored for it alone is deleted, and its barrier may still come.
    pub fn aborted(&self, checkpoint: u64) {
        self.give_up(checkpoint);
        self.operators.borrow().values().for_each(|operator| operator.aborted(checkpoint));
    }

    /// Nobody waits for a snapshot any more. If it was handed in, and complete without this task having been
    /// told, its files are needed: they stay.
    fn supersede(&self, checkpoint: u64) {
        self.give_up(checkpoint);
        self.operators.borrow().values().for_each(|operator| operator.superseded(checkpoint));
    }

    fn give_up(&self, checkpoint: u64) {
        self.passed.borrow_mut().remove(&checkpoint);
        let pending = self.pending.borrow_mut().remove(&checkpoint);
        if let Some(pending) = pending {
            pending.give_up();
        }
        let mut given_up = self.given_up.borrow_mut();
        given_up.insert(checkpoint);
        if given_up.len() > KEPT {
            given_up.pop_first();
        }
        drop(given_up);
        let mut current = self.shared.current.borrow_mut();
        let current = current.as_mut().filter(|one| one.pending.barrier.checkpoint == checkpoint);
        // What operators still hand in for it goes to where rows are worked with, and nothing waits for that.
        let layers = current.map(|current| {
            current.is_abandoned = true;
            std::mem::take(&mut current.layers)
        });
        if let Some(layers) = layers {
            self.close(&layers);
        }
    }

    /// Does not wait any more for the oldest snapshots, where there are too many whose end nobody tells.
    fn bound(&self) {
        while self.pending.borrow().len() > KEPT {
            let Some(oldest) = self.pending.borrow().keys().next().copied() else { return };
            self.supersede(oldest);
        }
    }

    #[cfg(test)]
    pub(crate) fn state_of(&self, operator: OperatorId) -> Rc<OperatorState> {
        self.operators.borrow()[&operator].clone()
    }
}

fn given_up(checkpoint: u64) -> Error {
    Error::new(ErrorKind::Cancelled, format!("snapshot {checkpoint} was given up"))
}

impl TaskState for TaskBackend {
    fn operator(&self, operator: OperatorId, uid: &str) -> Rc<dyn StateBackend> {
        let mut operators = self.operators.borrow_mut();
        let open = || Rc::new(OperatorState::open_late(self.shared.clone(), operator));
        let state = operators.entry(operator).or_insert_with(open);
        state.name(uid);
        state.clone()
    }
}

impl Drop for TaskBackend {
    fn drop(&mut self) {
        for operator in self.operators.borrow().values() {
            operator.close();
        }
        for pending in self.pending.borrow().values() {
            pending.give_up();
        }
    }
}
