//! What keeps the state of a job's tasks: `flott-state`, in the terms of this room.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use flott_dataflow::snapshot::Snapshots;
use flott_schema::control::CheckpointOrder;
use flott_schema::graph::{ExecutionMode, JobGraph, Vertex};
use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, WorkerId};
use flott_schema::job::JobSpec;
use flott_schema::snapshot::{Barrier, RestoreFrom};
use flott_schema::{Error, ErrorKind, Result};
use flott_state::{
    Backend, ChannelFrames, FetchedTask, SnapshotTarget, StateOptions, StateService, TaskBackend, TaskExtras,
    TaskIdentity,
};

use crate::leftovers;
use crate::snapshots::{Extras, StateKeeper, Taken};
use crate::wiring::channels_into;

/// How names of folders with working files of jobs begin.
const FOLDER_PREFIX: &str = "flott-state-";

/// State of the tasks of one job in this process.
#[derive(Clone)]
pub struct JobState {
    service: Arc<StateService>,
    /// Its working files.
    directory: PathBuf,
    /// For the tasks in a slot.
    memory_bytes: usize,
    /// Whether barriers may overtake records.
    overtaking: bool,
    /// No checkpoints are taken but those that somebody asks for.
    on_demand: bool,
}

impl JobState {
    /// For a job in streaming execution; batch execution takes no snapshots.
    pub fn start(job: JobId, spec: &JobSpec, scratch: &Path, worker: WorkerId) -> Result<Option<Self>> {
        if spec.graph.mode == ExecutionMode::Batch {
            return Ok(None);
        }
        let (checkpoints, state) = (&spec.settings.checkpoints, &spec.settings.state);
        let folder = state.local_directories.first().map_or(scratch, Path::new);
        leftovers::sweep(folder, FOLDER_PREFIX);
        let directory = folder.join(format!("{FOLDER_PREFIX}{job}-{}", worker.0));
        let mut options = StateOptions::of_job(&spec.settings, &directory);
        if !checkpoints.are_taken() {
            // To know what changes is of no use where nothing asks for it regularly.
            options.backend = Backend::HashMap;
        }
        let service = StateService::start(options)?;
        if folder != scratch {
            // Executors come and go, and go on with what those before them have left: the worker is who must live.
            leftovers::mark(&directory, scratch)?;
        }
        Ok(Some(JobState {
            service,
            directory,
            memory_bytes: usize::try_from(state.memory_bytes).unwrap_or(usize::MAX),
            overtaking: checkpoints.unaligned,
            on_demand: !checkpoints.are_taken(),
        }))
    }

    /// Refuses a snapshot with state that no operator of the job claims, unless it may be dropped. Each task looks itself, for the manifest may be
    /// slow to come, and orders must not wait for it.
    fn check(&self, from: &RestoreFrom, graph: &JobGraph) -> Result<()> {
        let manifest = self.service.manifest(from).map_err(of_snapshot)?;
        let operators = graph.vertices.iter().flat_map(|vertex| &vertex.operators);
        flott_state::check_operators(
            from,
            &manifest,
            operators.map(|operator| (operator.id, operator.uid.as_str())),
        )
    }

    /// The state of a split enumerator in a snapshot.
    pub fn enumerator(&self, from: &RestoreFrom, operator: OperatorId) -> Result<Option<Vec<u8>>> {
        let manifest = self.service.manifest(from)?;
        Ok(flott_state::enumerator_state(&manifest, operator).map(<[u8]>::to_vec))
    }

    /// State of one task, to be fetched.
    pub fn of_task(
        &self,
        job: JobId,
        graph: &Arc<JobGraph>,
        vertex: &Vertex,
        attempt: AttemptId,
        restore: Option<Arc<RestoreFrom>>,
    ) -> TaskState {
        let identity = TaskIdentity {
            job,
            attempt,
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
            memory_bytes: self.memory_bytes / tasks_in_a_slot(graph, vertex),
            operators: vertex.operators.iter().map(|operator| operator.id).collect(),
            cancelled: Arc::default(),
        };
        TaskState { job: self.clone(), graph: graph.clone(), identity, restore }
    }

    /// The job is over: nothing of its state is needed here. Gives the folder of its working files, which go when the last task has let go of them.
    pub fn release(&self, job: JobId) -> PathBuf {
        leftovers::unmark(&self.directory);
        if let Err(error) = self.service.release(job) {
            tracing::warn!(%job, %error, "local copies of checkpoints are left behind");
        }
        self.directory.clone()
    }
}

/// An error of reading a snapshot. One that is missing, damaged, or not one that this Flott reads does not get better by trying again.
fn of_snapshot(error: Error) -> Error {
    match error.kind() {
        ErrorKind::BadInput => error.with_kind(ErrorKind::Snapshot),
        _ => error,
    }
}

/// How many tasks share a slot with one of `vertex`.
fn tasks_in_a_slot(graph: &JobGraph, vertex: &Vertex) -> usize {
    graph.vertices.iter().filter(|other| other.slot_sharing_group == vertex.slot_sharing_group).count().max(1)
}

/// State of a task that is yet to be fetched.
pub struct TaskState {
    job: JobState,
    graph: Arc<JobGraph>,
    identity: TaskIdentity,
    restore: Option<Arc<RestoreFrom>>,
}

/// State of a task.
pub struct Opened {
    /// What its operators see of it.
    pub snapshots: Snapshots,
    /// What keeps it.
    pub keeper: Box<dyn StateKeeper>,
    /// Records that were in flight, in frames, by edge and sending subtask.
    pub channels: Vec<(u32, u32, Vec<u8>)>,
    /// Whether barriers may overtake records.
    pub overtaking: bool,
}

impl TaskState {
    /// To be set when the task is gone.
    pub fn cancelled(&self) -> Arc<AtomicBool> {
        self.identity.cancelled.clone()
    }

    /// Fetches what it starts from: on a thread that may wait for files.
    pub fn fetch(self) -> Result<FetchedState> {
        let TaskState { job, graph, identity, restore } = self;
        let task = identity.attempt.task;
        if let Some(from) = &restore {
            flott_faults::point("task.restore");
            job.check(from, &graph)?;
        }
        let fetched = FetchedTask::fetch(&job.service, identity, restore.as_deref()).map_err(of_snapshot)?;
        if restore.is_some() {
            flott_faults::point("task.restored");
        }
        Ok(FetchedState { job, graph, task, fetched })
    }
}

/// State of a task with what it starts from.
pub struct FetchedState {
    job: JobState,
    graph: Arc<JobGraph>,
    task: TaskId,
    fetched: FetchedTask,
}

impl FetchedState {
    /// How many key groups the task's vertex has.
    pub fn max_parallelism(&self) -> u32 {
        self.fetched.max_parallelism()
    }

    /// Opens it, on the task's thread.
    pub fn open(self) -> Opened {
        let FetchedState { job, graph, task, fetched } = self;
        let backend = fetched.open();
        let channels = backend.channel_state().into_iter();
        let channels = channels.map(|channel| (channel.edge, channel.source, channel.frames));
        let snapshots = Snapshots::new(backend.clone(), backend.had_finished());
        Opened {
            snapshots: if job.on_demand { snapshots.on_demand() } else { snapshots },
            channels: channels.collect(),
            keeper: Box::new(Keeper { backend, graph, task }),
            overtaking: job.overtaking,
        }
    }
}

/// Keeps the state of one task.
struct Keeper {
    backend: Rc<TaskBackend>,
    graph: Arc<JobGraph>,
    task: TaskId,
}

impl StateKeeper for Keeper {
    fn opened(&self) -> Result<()> {
        if self.backend.had_finished() { Ok(()) } else { self.backend.check_claimed() }
    }

    fn begin(&self, barrier: &Barrier) -> Result<()> {
        self.backend.begin(barrier)
    }

    fn passed(&self, checkpoint: u64, finished: bool) {
        self.backend.passed(checkpoint, finished);
    }

    fn end(&self, order: &CheckpointOrder, extras: Extras, taken: Taken) {
        let target =
            SnapshotTarget { folder: order.folder.clone(), shared_folder: order.shared_folder.clone() };
        let specs = channels_into(&self.graph, self.task);
        let Extras { finished, enumerator, channels, times } = extras;
        let channels = channels.into_iter().map(|(number, frames)| {
            let spec = specs.get(number as usize)?;
            Some(ChannelFrames { edge: spec.edge as u32, source: spec.source, frames })
        });
        let Some(channels) = channels.collect() else {
            return taken(Err(Error::internal(
                "records were recorded on a channel that the task does not have",
            )));
        };
        self.backend.end(
            order.barrier.checkpoint,
            target,
            TaskExtras { finished, enumerator, channels, times },
            taken,
        );
    }

    fn ended(&self, checkpoint: u64, completed: bool) {
        match completed {
            true => self.backend.completed(checkpoint),
            false => self.backend.aborted(checkpoint),
        }
    }
}
