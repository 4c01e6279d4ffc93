//! State of one task: what its operators hand in at a barrier, and what they start from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use flott_dataflow::snapshot::{StateBackend, TaskState};
use flott_schema::ids::OperatorId;
use flott_schema::snapshot::{Barrier, ChannelSnapshot, Manifest, RestoreFrom, SnapshotFile};
use flott_schema::{Context, Error, Result};

use crate::files;
use crate::operator::{Current, OperatorState, Shared};
use crate::options::TaskIdentity;
use crate::pool::guarded;
use crate::restored::Restored;
use crate::service::StateService;
use crate::snapshot::{ChannelFrames, Done, Part, Pending, SnapshotTarget, TaskExtras};

/// State of one task. Its calls come from the task's thread; what takes time is done on the threads of the
/// service.
pub struct TaskBackend {
    shared: Rc<Shared>,
    operators: RefCell<BTreeMap<OperatorId, Rc<OperatorState>>>,
    pending: RefCell<BTreeMap<u64, Arc<Pending>>>,
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
        let restored = match restore {
            Some(from) => Some((from.clone(), service.manifest(from)?)),
            None => None,
        };
        Self::open_from(service, task, restored)
    }

    fn open_from(
        service: &Arc<StateService>,
        task: TaskIdentity,
        restored: Option<(RestoreFrom, Arc<Manifest>)>,
    ) -> Result<Rc<Self>> {
        let restored = restored.map(|(from, manifest)| Restored { from, manifest });
        let operators = task.operators.clone();
        let shared = Shared::new(service.clone(), task, restored);
        let backend = TaskBackend { shared, operators: RefCell::default(), pending: RefCell::default() };
        for operator in operators {
            let state = OperatorState::open(backend.shared.clone(), operator)?;
            backend.operators.borrow_mut().insert(operator, Rc::new(state));
        }
        Ok(Rc::new(backend))
    }

    /// Whether the task had finished before the snapshot that it starts from.
    pub fn had_finished(&self) -> bool {
        self.shared.restored.as_ref().is_some_and(|restored| restored.had_finished(&self.shared.task))
    }

    /// Records that were in flight into the task. An error if there are any and the vertex has another
    /// parallelism now.
    pub fn channel_state(&self) -> Result<Vec<ChannelFrames>> {
        let Some(Restored { from, manifest }) = &self.shared.restored else { return Ok(Vec::new()) };
        let (task, parallelism) = (self.shared.task.attempt.task, self.shared.task.parallelism);
        let vertex = manifest.vertices.iter().find(|vertex| vertex.vertex == task.vertex);
        let Some(vertex) = vertex else { return Ok(Vec::new()) };
        let mut tasks = manifest.tasks.iter().filter(|one| one.task.vertex == task.vertex);
        if vertex.parallelism != parallelism && tasks.clone().any(|one| !one.channels.is_empty()) {
            return Err(Error::configuration(format!(
                "{from} is an unaligned checkpoint with records in flight into '{}', which had {} tasks and has \
                 {parallelism} now; keep the parallelism, or start from a savepoint or an aligned checkpoint",
                vertex.name, vertex.parallelism
            )));
        }
        let Some(snapshot) = tasks.find(|one| one.task == task) else { return Ok(Vec::new()) };
        let read = |channel: &ChannelSnapshot| {
            let frames = files::get_bytes(&from.folder, &channel.file).at(|| from.to_string())?;
            Ok(ChannelFrames { edge: channel.edge, source: channel.source, frames })
        };
        snapshot.channels.iter().map(read).collect()
    }

    /// To be called when all operators have opened: tables of the snapshot that none has registered are
    /// refused, or dropped if that is allowed. Not for a task that had finished.
    pub fn check_claimed(&self) -> Result<()> {
        self.operators.borrow().values().try_for_each(|operator| operator.check_claimed())
    }

    /// Begins the task's part of a snapshot. The operators hand in what they have; then comes `end`. After an
    /// error the task must fail: rows got lost, and no later snapshot can be right.
    pub fn begin(&self, barrier: &Barrier) -> Result<()> {
        let unfinished = self.shared.current.take();
        if let Some(Current { pending, layers, .. }) = unfinished {
            layers.values().for_each(|(layer, _)| layer.close());
            self.aborted(pending.barrier.checkpoint);
        }
        let pending = Arc::new(Pending::new(self.shared.task.attempt.task, *barrier));
        let operators = self.operators.borrow();
        operators.values().try_for_each(|operator| operator.check_usable())?;
        self.pending.borrow_mut().insert(barrier.checkpoint, pending.clone());
        let mut layers = BTreeMap::new();
        for (id, operator) in operators.iter() {
            if let Some(layer) = operator.begin(&pending)? {
                layers.insert(*id, layer);
            }
        }
        *self.shared.current.borrow_mut() = Some(Current { pending, lists: BTreeMap::new(), layers });
        Ok(())
    }

    /// Ends the task's part of the snapshot at hand: operators have set their lists, and given sinks for all
    /// tables. `done` is called when all of it is stored, or with the reason why it cannot be.
    pub fn end(&self, target: SnapshotTarget, mut extras: TaskExtras, done: Done) {
        let Some(Current { pending, lists, layers }) = self.shared.current.take() else {
            done(Err(Error::internal("a snapshot was ended that was not begun")));
            return;
        };
        let forgotten = layers.iter().find(|(_, (_, open))| !open.is_empty() && !extras.finished);
        if let Some((operator, (_, open))) = forgotten {
            pending.fail(Error::internal(format!(
                "operator {operator} did not hand in its table with number {} for snapshot {}",
                open.first().copied().unwrap_or_default(),
                pending.barrier.checkpoint
            )));
        }
        let channels = std::mem::take(&mut extras.channels);
        if !channels.is_empty() {
            self.store_channels(&pending, target.folder.clone(), channels);
        }
        pending.end(target, extras, lists, done);
        layers.values().for_each(|(layer, _)| layer.close());
        self.operators.borrow().values().for_each(|operator| operator.settled());
    }

    fn store_channels(&self, pending: &Arc<Pending>, folder: String, channels: Vec<ChannelFrames>) {
        let task = &self.shared.task.attempt;
        let stem = format!("{}-{}-{}.{}", task.task.vertex, task.task.subtask, task.job_epoch, task.attempt);
        pending.add_part();
        let part_of = pending.clone();
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
        let submitted = self.shared.service.transfer.submit(move || {
            let result = guarded(|| store(channels));
            part_of.part_done(result);
        });
        if let Err(error) = submitted {
            pending.part_done(Err(error));
        }
    }

    /// A snapshot is complete: later ones may build on it.
    pub fn completed(&self, checkpoint: u64) {
        self.pending.borrow_mut().remove(&checkpoint);
        self.operators.borrow().values().for_each(|operator| operator.completed(checkpoint));
    }

    /// A snapshot was given up: what has been stored for it alone is deleted.
    pub fn aborted(&self, checkpoint: u64) {
        if let Some(pending) = self.pending.borrow_mut().remove(&checkpoint) {
            pending.give_up();
        }
        for operator in self.operators.borrow().values() {
            operator.aborted(checkpoint);
            operator.settled();
        }
    }

    #[cfg(test)]
    pub(crate) fn state_of(&self, operator: OperatorId) -> Rc<OperatorState> {
        self.operators.borrow()[&operator].clone()
    }
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
