//! A snapshot of one task on its way: it is complete when the task has ended its part and every operator's
//! rows are stored.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use flott_schema::ids::{OperatorId, TaskId};
use flott_schema::snapshot::{
    Barrier, ChannelSnapshot, KeyedSnapshot, ListSnapshot, OperatorSnapshot, SnapshotTimes, TaskSnapshot,
};
use flott_schema::{Error, ErrorKind, Result};

use crate::pool::lock;

/// Where the files of a snapshot go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotTarget {
    /// Folder of this snapshot alone: path or URI.
    pub folder: String,
    /// Folder of files that checkpoints share; none if it shares nothing.
    pub shared_folder: Option<String>,
}

/// Records in flight on a channel into the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFrames {
    /// Index of the edge in the graph.
    pub edge: u32,
    /// The sending subtask.
    pub source: u32,
    /// Frames, in order.
    pub frames: Vec<u8>,
}

/// What belongs to a task's part of a snapshot beside the state of its operators.
#[derive(Clone, Debug, Default)]
pub struct TaskExtras {
    /// Whether the task has ended: then only the list states of its operators count.
    pub finished: bool,
    /// State of the split enumerator of a source.
    pub enumerator: Option<(OperatorId, Vec<u8>)>,
    /// Records in flight, of an unaligned checkpoint.
    pub channels: Vec<ChannelFrames>,
    /// What is known of the times; the rest is added.
    pub times: SnapshotTimes,
}

/// Called once, from any thread: what the task hands in, or why it cannot.
pub type Done = Box<dyn FnOnce(Result<TaskSnapshot>) + Send>;

/// Called when it is known where files go, which is nowhere for one that is not wanted.
pub(crate) type Settled = Box<dyn FnOnce(Option<SnapshotTarget>) + Send>;

/// A snapshot on its way.
pub(crate) struct Pending {
    pub(crate) barrier: Barrier,
    task: TaskId,
    state: Mutex<State>,
}

struct State {
    /// The end of the task's part, and the parts that are written in the background.
    parts_open: usize,
    is_given_up: bool,
    /// Whether the task has ended: then only lists count.
    is_finished: bool,
    failed: Option<Error>,
    ended: Option<Ended>,
    /// Who waits to know where files go.
    waiting: Vec<Settled>,
    keyed: Vec<(OperatorId, KeyedSnapshot)>,
    channels: Vec<ChannelSnapshot>,
    /// Lists that are in files.
    lists: Vec<(OperatorId, ListSnapshot)>,
    written_bytes: u64,
}

struct Ended {
    target: SnapshotTarget,
    finished: bool,
    operators: BTreeMap<OperatorId, OperatorSnapshot>,
    times: SnapshotTimes,
    at: Instant,
    /// Taken when it has been told.
    done: Option<Done>,
}

/// Something that a background thread hands in.
pub(crate) enum Part {
    /// Keyed state of an operator.
    Keyed(OperatorId, KeyedSnapshot),
    /// Records in flight.
    Channels(Vec<ChannelSnapshot>),
    /// Lists that are in files.
    Lists(Vec<(OperatorId, ListSnapshot)>),
    /// Nothing, since the task has ended or the snapshot is not wanted any more.
    None,
}

impl Pending {
    pub(crate) fn new(task: TaskId, barrier: Barrier) -> Self {
        Pending {
            barrier,
            task,
            state: Mutex::new(State {
                parts_open: 1,
                is_given_up: false,
                is_finished: false,
                failed: None,
                ended: None,
                waiting: Vec::new(),
                keyed: Vec::new(),
                channels: Vec::new(),
                lists: Vec::new(),
                written_bytes: 0,
            }),
        }
    }

    /// A part more to wait for.
    pub(crate) fn add_part(&self) {
        lock(&self.state).parts_open += 1;
    }

    /// The task has ended: nothing of its tables is wanted.
    pub(crate) fn finish(&self) {
        self.change(|state| state.is_finished = true);
    }

    /// The task has ended its part.
    pub(crate) fn end(
        &self,
        target: SnapshotTarget,
        extras: TaskExtras,
        lists: BTreeMap<OperatorId, Vec<ListSnapshot>>,
        done: Done,
    ) {
        let mut operators: BTreeMap<OperatorId, OperatorSnapshot> = BTreeMap::new();
        for (operator, lists) in lists {
            operators.entry(operator).or_default().lists = lists;
        }
        if let Some((operator, state)) = extras.enumerator {
            operators.entry(operator).or_default().enumerator = Some(state);
        }
        let (at, finished, times) = (Instant::now(), extras.finished, extras.times);
        self.change(|state| {
            state.ended = Some(Ended { target, finished, operators, times, at, done: Some(done) });
            state.is_finished |= finished;
            state.parts_open -= 1;
        });
    }

    /// Calls `settled` when it is known where files go: now, or from the thread that says so.
    pub(crate) fn when_settled(&self, settled: Settled) {
        self.change(|state| state.waiting.push(settled));
    }

    /// Whether files may be wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        lock(&self.state).is_wanted()
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn is_lost(&self) -> bool {
        lock(&self.state).is_lost()
    }

    /// A part is written, with so many bytes, or cannot be.
    pub(crate) fn part_done(&self, result: Result<(Part, u64)>) {
        self.change(|state| {
            state.parts_open -= 1;
            match result {
                Ok((part, written_bytes)) => {
                    state.written_bytes += written_bytes;
                    match part {
                        Part::Keyed(operator, keyed) => state.keyed.push((operator, keyed)),
                        Part::Channels(channels) => state.channels = channels,
                        Part::Lists(lists) => state.lists = lists,
                        Part::None => {}
                    }
                }
                Err(error) => state.fail(error),
            }
        });
    }

    /// It cannot be completed.
    pub(crate) fn fail(&self, error: Error) {
        self.change(|state| state.fail(error));
    }

    /// It is not wanted any more.
    pub(crate) fn give_up(&self) {
        self.change(|state| state.is_given_up = true);
    }

    /// Changes what is known, and tells those who waited for it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let target = state.ended.as_ref().filter(|_| state.is_wanted()).map(|ended| ended.target.clone());
        let is_settled = target.is_some() || !state.is_wanted();
        let waiting = if is_settled { std::mem::take(&mut state.waiting) } else { Vec::new() };
        let call = self.due(&mut state);
        // Those who are told lock it again.
        drop(state);
        waiting.into_iter().for_each(|settled| settled(target.clone()));
        if let Some((done, result)) = call {
            done(result);
        }
    }

    /// Whom to call with what, if it is time.
    fn due(&self, state: &mut State) -> Option<(Done, Result<TaskSnapshot>)> {
        let is_whole = state.parts_open == 0;
        if !is_whole && !state.is_lost() {
            return None;
        }
        let ended = state.ended.as_mut()?;
        let done = ended.done.take()?;
        if let Some(error) = state.failed.take() {
            // Remembered: parts that are still being written see that they are not wanted.
            state.failed = Some(Error::new(error.kind(), error.to_string()));
            return Some((done, Err(error)));
        }
        if state.is_given_up {
            let why = format!("snapshot {} was given up", self.barrier.checkpoint);
            return Some((done, Err(Error::new(ErrorKind::Cancelled, why))));
        }
        let mut operators = std::mem::take(&mut ended.operators);
        state.keyed.sort_by_key(|(operator, keyed)| (*operator, keyed.key_groups.start));
        for (operator, keyed) in std::mem::take(&mut state.keyed) {
            operators.entry(operator).or_default().keyed.push(keyed);
        }
        for (operator, list) in std::mem::take(&mut state.lists) {
            operators.entry(operator).or_default().lists.push(list);
        }
        for (operator, snapshot) in &mut operators {
            snapshot.operator = Some(*operator);
        }
        let mut times = ended.times;
        times.async_ms = ended.at.elapsed().as_millis() as u64;
        times.written_bytes += state.written_bytes;
        let channels = std::mem::take(&mut state.channels);
        times.persisted_bytes = channels.iter().map(|channel| channel.file.size).sum();
        let operators = operators.into_values().collect();
        let mut snapshot =
            TaskSnapshot { task: self.task, finished: ended.finished, operators, channels, times };
        snapshot.times.state_bytes =
            snapshot.files().map(|file| file.size).sum::<u64>() + inline_bytes(&snapshot.operators);
        Some((done, Ok(snapshot)))
    }
}

impl State {
    /// The first reason counts.
    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    fn is_lost(&self) -> bool {
        self.is_given_up || self.failed.is_some()
    }

    fn is_wanted(&self) -> bool {
        !self.is_lost() && !self.is_finished
    }
}

fn inline_bytes(operators: &[OperatorSnapshot]) -> u64 {
    let lists = operators.iter().flat_map(|operator| &operator.lists).flat_map(|list| &list.items);
    let enumerators = operators.iter().filter_map(|operator| operator.enumerator.as_ref());
    lists.chain(enumerators).map(|bytes| bytes.len() as u64).sum()
}
