//! Placement: which subtasks share a slot, and which free slots they get.
//!
//! Pure functions of counts; who calls them owns the slots. Two steps: [`SlotSharing::of`] folds the subtasks of vertices
//! into *shared slots*, [`assign`] finds a real slot for each shared slot, all of them or none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use flott_schema::ids::{SlotId, WorkerId};

/// How the subtasks of some vertices fold into shared slots. A slot-sharing group takes as many shared slots as its
/// widest vertex has subtasks; a narrower vertex is spread evenly over them. Subtasks with the same index of vertices
/// of the same parallelism and group meet in one slot, so a forward edge never leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSharing {
    members: Vec<Member>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    group: usize,
    parallelism: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    first: u32,
    width: u32,
}

impl SlotSharing {
    /// Folds vertices, given by slot-sharing group and parallelism. A vertex is addressed by its position afterwards.
    pub fn of<'a>(vertices: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let vertices: Vec<_> = vertices.into_iter().collect();
        let mut widths: BTreeMap<&str, u32> = BTreeMap::new();
        for (group, parallelism) in &vertices {
            let width = widths.entry(group).or_default();
            *width = (*width).max(*parallelism);
        }
        let mut first = 0;
        let mut groups = Vec::with_capacity(widths.len());
        let mut position = BTreeMap::new();
        for (name, width) in widths {
            position.insert(name, groups.len());
            groups.push(Group { first, width });
            first += width;
        }
        let members = vertices
            .iter()
            .map(|(group, parallelism)| Member { group: position[group], parallelism: *parallelism });
        SlotSharing { members: members.collect(), groups }
    }

    /// Number of shared slots.
    pub fn slots_needed(&self) -> u32 {
        self.groups.last().map_or(0, |group| group.first + group.width)
    }

    /// The shared slot of a subtask of the vertex at position `member`.
    pub fn slot_of(&self, member: usize, subtask: u32) -> u32 {
        let Member { group, parallelism } = self.members[member];
        let Group { first, width } = self.groups[group];
        first + (u64::from(subtask) * u64::from(width) / u64::from(parallelism)) as u32
    }

    /// The shared slots in an order of which any run holds the same share of every group: so neighbouring subtasks,
    /// and equal indexes of different groups, come to lie on one worker.
    fn interleaved(&self) -> Vec<u32> {
        let mut slots: Vec<(u64, u32)> = Vec::with_capacity(self.slots_needed() as usize);
        for group in &self.groups {
            let middle = |k: u32| ((u64::from(k) * 2 + 1) << 31) / (u64::from(group.width) * 2);
            slots.extend((0..group.width).map(|k| (middle(k), group.first + k)));
        }
        if self.groups.len() > 1 {
            slots.sort_unstable();
        }
        slots.into_iter().map(|(_, slot)| slot).collect()
    }
}

/// A worker as the scheduler sees it.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSlots<'a> {
    /// The worker.
    pub worker: WorkerId,
    /// Number of its slots, taken and free.
    pub slots: u32,
    /// Indexes of its free slots.
    pub free: &'a BTreeSet<u32>,
}

/// Fewer free slots than needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Slots needed at once.
    pub needed: u32,
    /// Free slots.
    pub free: u32,
}

/// Finds a slot for each shared slot, all or none. `workers` is sorted by id; `preferred` has an entry for each shared
/// slot: the slot it would like (where its input lies, where it ran before). A shared slot gets, in this order: the
/// slot it prefers; another slot of that worker; a slot of the workers that are least used, so that all fill evenly.
pub fn assign(
    sharing: &SlotSharing,
    workers: &[WorkerSlots],
    preferred: &[Option<SlotId>],
) -> Result<Vec<SlotId>, Shortage> {
    let needed = sharing.slots_needed();
    let free: u64 = workers.iter().map(|worker| worker.free.len() as u64).sum();
    if free < u64::from(needed) {
        return Err(Shortage { needed, free: free as u32 });
    }
    debug_assert_eq!(preferred.len(), needed as usize);
    let mut offers: Vec<Offer> = workers.iter().map(Offer::new).collect();
    let mut chosen: Vec<Option<SlotId>> = vec![None; needed as usize];

    for exact in [true, false] {
        for (chosen, wish) in chosen.iter_mut().zip(preferred) {
            let (None, Some(wish)) = (&chosen, wish) else { continue };
            let Ok(position) = workers.binary_search_by_key(&wish.worker, |worker| worker.worker) else {
                continue;
            };
            *chosen = if exact { offers[position].take(wish.index) } else { offers[position].take_any() };
        }
    }

    let open: Vec<u32> =
        sharing.interleaved().into_iter().filter(|slot| chosen[*slot as usize].is_none()).collect();
    let quotas = even_quotas(&offers, open.len());
    let mut open = open.into_iter();
    for (offer, quota) in offers.iter_mut().zip(quotas) {
        for slot in open.by_ref().take(quota) {
            chosen[slot as usize] = offer.take_any();
        }
    }
    Ok(chosen.into_iter().map(|slot| slot.expect("the quotas add up to the open slots")).collect())
}

/// How many of `wanted` slots each worker gives: one at a time from the worker that is then used least.
fn even_quotas(offers: &[Offer], wanted: usize) -> Vec<usize> {
    let mut quotas = vec![0; offers.len()];
    let usage = |position: usize, quota: usize| {
        let offer: &Offer = &offers[position];
        ((u64::from(offer.slots - offer.left) + quota as u64) << 32) / u64::from(offer.slots.max(1))
    };
    let mut heap: BinaryHeap<_> = (0..offers.len())
        .filter(|position| offers[*position].left > 0)
        .map(|position| Reverse((usage(position, 0), position)))
        .collect();
    for _ in 0..wanted {
        let Some(Reverse((_, position))) = heap.pop() else { break };
        quotas[position] += 1;
        if quotas[position] < offers[position].left as usize {
            heap.push(Reverse((usage(position, quotas[position]), position)));
        }
    }
    quotas
}

/// A worker's free slots while some of them are being given away.
struct Offer<'a> {
    worker: WorkerId,
    slots: u32,
    left: u32,
    free: &'a BTreeSet<u32>,
    rest: std::collections::btree_set::Iter<'a, u32>,
    taken: BTreeSet<u32>,
}

impl<'a> Offer<'a> {
    fn new(worker: &WorkerSlots<'a>) -> Self {
        Offer {
            worker: worker.worker,
            slots: worker.slots,
            left: worker.free.len() as u32,
            free: worker.free,
            rest: worker.free.iter(),
            taken: BTreeSet::new(),
        }
    }

    fn take(&mut self, index: u32) -> Option<SlotId> {
        if !self.free.contains(&index) || !self.taken.insert(index) {
            return None;
        }
        self.left -= 1;
        Some(SlotId { worker: self.worker, index })
    }

    /// The lowest free slot. Asked for by number only before all exact wishes are met, so `rest` never runs back.
    fn take_any(&mut self) -> Option<SlotId> {
        let taken = &self.taken;
        let index = *self.rest.by_ref().find(|index| !taken.contains(index))?;
        self.left -= 1;
        Some(SlotId { worker: self.worker, index })
    }
}

#[cfg(test)]
mod tests;
