//! Several tasks of one operator behind a keyed edge, which can be started again from a snapshot.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;

use flott_schema::Result;
use flott_schema::key_group::{DEFAULT_MAX_PARALLELISM, key_group_of, owner_of};

use crate::batch::Record;
use crate::context::Settings;
use crate::element::Signal;
use crate::harness::memory::{MemoryKind, MemorySnapshot, MemoryState};
use crate::harness::{Harness, HarnessBuilder};
use crate::key::stable_hash;

/// Opens the operator in one task.
type Make<L, R, O> = Box<dyn Fn(HarnessBuilder<O>) -> Result<Harness<L, R, O>>>;

/// The tasks of one operator. Records go to the task of their key.
pub struct Parallel<L, R, O> {
    tasks: Vec<Harness<L, R, O>>,
    states: Vec<Rc<MemoryState>>,
    make: Make<L, R, O>,
    kind: MemoryKind,
    settings: Settings,
    now_ms: i64,
    checkpoint: u64,
    /// Results of tasks that are gone.
    results: Vec<(O, i64)>,
}

impl<L: Record, R: Record, O: Record> Parallel<L, R, O> {
    /// So many tasks, each opened by `make`, with default settings.
    pub fn new(
        parallelism: u32,
        kind: MemoryKind,
        make: impl Fn(HarnessBuilder<O>) -> Result<Harness<L, R, O>> + 'static,
    ) -> Result<Self> {
        Self::with_settings(parallelism, kind, Settings::default(), make)
    }

    /// So many tasks with these settings.
    pub fn with_settings(
        parallelism: u32,
        kind: MemoryKind,
        settings: Settings,
        make: impl Fn(HarnessBuilder<O>) -> Result<Harness<L, R, O>> + 'static,
    ) -> Result<Self> {
        let (make, results) = (Box::new(make), Vec::new());
        let (tasks, states) = (Vec::new(), Vec::new());
        let mut parallel =
            Parallel { tasks, states, make, kind, settings, now_ms: 0, checkpoint: 0, results };
        parallel.start(parallelism, None)?;
        Ok(parallel)
    }

    fn start(&mut self, parallelism: u32, parts: Option<&[MemorySnapshot]>) -> Result<()> {
        let max_parallelism = DEFAULT_MAX_PARALLELISM;
        self.tasks.clear();
        self.states.clear();
        for subtask in 0..parallelism {
            let state = match parts {
                None => MemoryState::new(self.kind, subtask, parallelism, max_parallelism),
                Some(parts) => {
                    MemoryState::restored_from(parts, self.kind, subtask, parallelism, max_parallelism)
                }
            };
            let builder = HarnessBuilder::with_state(self.settings.clone(), &state).at_time(self.now_ms);
            self.tasks.push((self.make)(builder)?);
            self.states.push(state);
        }
        Ok(())
    }

    /// The task that has a key.
    pub fn task_of<K: Serialize + ?Sized>(&mut self, key: &K) -> &mut Harness<L, R, O> {
        let group = key_group_of(stable_hash(key), DEFAULT_MAX_PARALLELISM);
        let owner = owner_of(group, DEFAULT_MAX_PARALLELISM, self.tasks.len() as u32);
        &mut self.tasks[owner as usize]
    }

    /// The tasks.
    pub fn tasks(&mut self) -> &mut [Harness<L, R, O>] {
        &mut self.tasks
    }

    /// Their states.
    pub fn states(&self) -> &[Rc<MemoryState>] {
        &self.states
    }

    /// A record of the first input, with its key.
    pub fn push<K: Serialize + ?Sized>(&mut self, key: &K, record: L, timestamp: i64) -> Result<()> {
        self.task_of(key).push(record, timestamp)
    }

    /// Records of the first input: a batch for each task.
    pub fn push_all<K: Serialize>(
        &mut self,
        key: impl Fn(&L) -> K,
        records: impl IntoIterator<Item = (L, i64)>,
    ) -> Result<()> {
        let mut batches: BTreeMap<u32, Vec<(L, i64)>> = BTreeMap::new();
        for (record, timestamp) in records {
            let group = key_group_of(stable_hash(&key(&record)), DEFAULT_MAX_PARALLELISM);
            let owner = owner_of(group, DEFAULT_MAX_PARALLELISM, self.tasks.len() as u32);
            batches.entry(owner).or_default().push((record, timestamp));
        }
        batches.into_iter().try_for_each(|(owner, batch)| self.tasks[owner as usize].push_all(batch))
    }

    /// A record of the second input, with its key.
    pub fn push_right<K: Serialize + ?Sized>(&mut self, key: &K, record: R, timestamp: i64) -> Result<()> {
        self.task_of(key).push_right(record, timestamp)
    }

    /// A record of the second input for every task.
    pub fn broadcast_right(&mut self, record: R, timestamp: i64) -> Result<()> {
        self.tasks.iter_mut().try_for_each(|task| task.push_right(record.clone(), timestamp))
    }

    /// A signal for every task.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.tasks.iter_mut().try_for_each(|task| task.signal(signal))
    }

    /// A watermark for every task.
    pub fn watermark(&mut self, timestamp: i64) -> Result<()> {
        self.signal(Signal::Watermark(timestamp))
    }

    /// Moves processing time in every task.
    pub fn set_time(&mut self, now_ms: i64) -> Result<()> {
        self.now_ms = now_ms;
        self.tasks.iter_mut().try_for_each(|task| task.set_time(now_ms))
    }

    /// The end of the input of every task.
    pub fn end(&mut self) -> Result<()> {
        self.tasks.iter_mut().try_for_each(|task| task.end())
    }

    /// The barrier of the next checkpoint in every task, without waiting for the state; gives its id.
    pub fn barrier(&mut self) -> Result<u64> {
        self.checkpoint += 1;
        let checkpoint = self.checkpoint;
        self.tasks.iter_mut().try_for_each(|task| task.barrier(checkpoint))?;
        Ok(checkpoint)
    }

    /// What the tasks hand in for a checkpoint whose barrier has passed.
    pub fn handed_in(&mut self, checkpoint: u64) -> Result<Vec<MemorySnapshot>> {
        self.tasks.iter_mut().map(|task| task.handed_in(checkpoint)).collect()
    }

    /// A checkpoint of every task.
    pub fn snapshot(&mut self) -> Result<Vec<MemorySnapshot>> {
        let checkpoint = self.barrier()?;
        self.handed_in(checkpoint)
    }

    /// All tasks are gone, and start again from a checkpoint, at this parallelism. What they had emitted stays.
    pub fn restore(&mut self, parts: &[MemorySnapshot], parallelism: u32) -> Result<()> {
        self.keep_results();
        self.start(parallelism, Some(parts))
    }

    /// The same, with the clock set back to `now_ms`, so that what came behind the checkpoint can be done again as it was.
    pub fn restore_at(&mut self, parts: &[MemorySnapshot], parallelism: u32, now_ms: i64) -> Result<()> {
        self.now_ms = now_ms;
        self.restore(parts, parallelism)
    }

    /// A checkpoint, and then a start from it.
    pub fn restart(&mut self, parallelism: u32) -> Result<()> {
        let parts = self.snapshot()?;
        self.restore(&parts, parallelism)
    }

    fn keep_results(&mut self) {
        for task in &mut self.tasks {
            self.results.append(&mut task.take());
        }
    }

    /// The records emitted since the last call, with timestamps, task by task.
    pub fn take(&mut self) -> Vec<(O, i64)> {
        self.keep_results();
        std::mem::take(&mut self.results)
    }

    /// The records emitted since the last call, task by task.
    pub fn take_records(&mut self) -> Vec<O> {
        self.take().into_iter().map(|(record, _)| record).collect()
    }

    /// The records emitted since the last call, with timestamps, in order.
    pub fn take_sorted(&mut self) -> Vec<(O, i64)>
    where
        O: Ord,
    {
        let mut records = self.take();
        records.sort();
        records
    }
}
