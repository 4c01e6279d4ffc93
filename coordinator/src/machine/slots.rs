//! Workers and who holds their slots.

use std::collections::{BTreeMap, BTreeSet};

use flott_schema::control::WorkerHost;
use flott_schema::ids::{JobId, SlotId, WorkerId};
use flott_schema::stats::WorkerProfile;

use crate::scheduler::WorkerSlots;

/// Most slots a worker may offer; more is a mistake and would cost memory for nothing.
pub const WORKER_SLOTS_MAX: u32 = 65_536;

/// Who holds a slot: a region of a job. Within it, the tasks of one slot-sharing group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotOwner {
    /// The job.
    pub job: JobId,
    /// Position of the region among the job's regions.
    pub region: usize,
}

/// A registered worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRecord {
    profile: WorkerProfile,
    owners: Vec<Option<SlotOwner>>,
    free: BTreeSet<u32>,
    registered_ms: u64,
}

impl WorkerRecord {
    /// What it said of itself when it registered.
    pub fn profile(&self) -> &WorkerProfile {
        &self.profile
    }

    /// Number of its slots.
    pub fn slots(&self) -> u32 {
        self.owners.len() as u32
    }

    /// Number of its free slots.
    pub fn free_slots(&self) -> u32 {
        self.free.len() as u32
    }

    /// Who holds each slot, by index.
    pub fn owners(&self) -> &[Option<SlotOwner>] {
        &self.owners
    }

    /// When it registered (milliseconds since 1970).
    pub fn registered_ms(&self) -> u64 {
        self.registered_ms
    }

    pub(super) fn free_indexes(&self) -> &BTreeSet<u32> {
        &self.free
    }
}

/// All workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotTable {
    workers: BTreeMap<WorkerId, WorkerRecord>,
    free: u32,
}

impl SlotTable {
    /// The registered workers.
    pub fn workers(&self) -> &BTreeMap<WorkerId, WorkerRecord> {
        &self.workers
    }

    /// Free slots of all workers.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Slots of all workers.
    pub fn total(&self) -> u32 {
        self.workers.values().map(WorkerRecord::slots).sum()
    }

    /// Who holds this slot; nothing if it is free or its worker is gone.
    pub fn owner(&self, slot: SlotId) -> Option<SlotOwner> {
        *self.workers.get(&slot.worker)?.owners.get(slot.index as usize)?
    }

    /// Where the executors of a worker are reached.
    pub fn host(&self, worker: WorkerId) -> Option<WorkerHost> {
        let record = self.workers.get(&worker)?;
        Some(WorkerHost { worker, data_address: record.profile.data_address.clone() })
    }

    /// Adds a worker; false if it is there already, or offers an absurd number of slots.
    pub(super) fn register(&mut self, worker: WorkerId, profile: WorkerProfile, at_ms: u64) -> bool {
        if self.workers.contains_key(&worker) || profile.slots > WORKER_SLOTS_MAX {
            return false;
        }
        let slots = profile.slots;
        let record = WorkerRecord {
            profile,
            owners: vec![None; slots as usize],
            free: (0..slots).collect(),
            registered_ms: at_ms,
        };
        self.workers.insert(worker, record);
        self.free += slots;
        true
    }

    /// Forgets a worker; false if it is not there.
    pub(super) fn lose(&mut self, worker: WorkerId) -> bool {
        match self.workers.remove(&worker) {
            Some(record) => {
                self.free -= record.free_slots();
                true
            }
            None => false,
        }
    }

    /// Whether the slot exists and nobody holds it.
    pub(super) fn is_free(&self, slot: SlotId) -> bool {
        self.workers.get(&slot.worker).is_some_and(|worker| worker.free.contains(&slot.index))
    }

    /// Gives a free slot to `owner`.
    pub(super) fn take(&mut self, slot: SlotId, owner: SlotOwner) {
        let worker = self.workers.get_mut(&slot.worker).expect("the scheduler chose a registered worker");
        assert!(worker.free.remove(&slot.index), "{slot:?} is taken already");
        worker.owners[slot.index as usize] = Some(owner);
        self.free -= 1;
    }

    /// Frees a slot, if its worker is still there.
    pub(super) fn release(&mut self, slot: SlotId, owner: SlotOwner) {
        let Some(worker) = self.workers.get_mut(&slot.worker) else { return };
        assert_eq!(worker.owners[slot.index as usize].take(), Some(owner), "{slot:?} is not theirs to free");
        worker.free.insert(slot.index);
        self.free += 1;
    }

    /// Workers with free slots, by id, for the scheduler.
    pub(super) fn offers(&self) -> Vec<WorkerSlots<'_>> {
        self.workers
            .iter()
            .filter(|(_, record)| !record.free.is_empty())
            .map(|(worker, record)| WorkerSlots {
                worker: *worker,
                slots: record.slots(),
                free: &record.free,
            })
            .collect()
    }
}
