use super::*;

/// Free slots of workers numbered from 1: `(slots, taken)` each, the taken ones being the first.
fn cluster(workers: &[(u32, u32)]) -> Vec<(WorkerId, u32, BTreeSet<u32>)> {
    let free = |(position, (slots, taken)): (usize, &(u32, u32))| {
        (WorkerId(position as u64 + 1), *slots, (*taken..*slots).collect())
    };
    workers.iter().enumerate().map(free).collect()
}

fn place(
    sharing: &SlotSharing,
    workers: &[(u32, u32)],
    preferred: &[(u32, SlotId)],
) -> Result<Vec<SlotId>, Shortage> {
    let cluster = cluster(workers);
    let workers: Vec<_> = cluster
        .iter()
        .map(|(worker, slots, free)| WorkerSlots { worker: *worker, slots: *slots, free })
        .collect();
    let mut wishes = vec![None; sharing.slots_needed() as usize];
    for (slot, wish) in preferred {
        wishes[*slot as usize] = Some(*wish);
    }
    let chosen = assign(sharing, &workers, &wishes)?;
    let distinct: BTreeSet<_> = chosen.iter().copied().collect();
    assert_eq!(distinct.len(), chosen.len(), "a slot given twice: {chosen:?}");
    for slot in &chosen {
        assert!(cluster[slot.worker.0 as usize - 1].2.contains(&slot.index), "{slot:?} was not free");
    }
    Ok(chosen)
}

fn slot(worker: u64, index: u32) -> SlotId {
    SlotId { worker: WorkerId(worker), index }
}

fn per_worker(chosen: &[SlotId]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for slot in chosen {
        *counts.entry(slot.worker.0).or_default() += 1;
    }
    counts
}

#[test]
fn a_group_needs_as_many_slots_as_its_widest_vertex() {
    let sharing = SlotSharing::of([("default", 2), ("default", 4), ("heavy", 3), ("default", 4)]);
    assert_eq!(sharing.slots_needed(), 7);
    assert_eq!(SlotSharing::of([]).slots_needed(), 0);
}

#[test]
fn equal_parallelism_meets_in_one_slot_and_groups_never_share() {
    let sharing = SlotSharing::of([("default", 4), ("default", 4), ("heavy", 4)]);
    for subtask in 0..4 {
        assert_eq!(sharing.slot_of(0, subtask), sharing.slot_of(1, subtask));
        assert_ne!(sharing.slot_of(0, subtask) / 4, sharing.slot_of(2, subtask) / 4);
    }
}

#[test]
fn a_slot_never_holds_two_subtasks_of_a_vertex() {
    for width in 1..20 {
        for parallelism in 1..=width {
            let sharing = SlotSharing::of([("g", width), ("g", parallelism)]);
            let slots: BTreeSet<u32> = (0..parallelism).map(|subtask| sharing.slot_of(1, subtask)).collect();
            assert_eq!(slots.len(), parallelism as usize);
            assert!(slots.iter().all(|slot| *slot < width));
        }
    }
}

#[test]
fn narrow_vertices_lie_with_the_subtasks_they_exchange_records_with() {
    use flott_schema::graph::Partitioning;
    let sharing = SlotSharing::of([("g", 2), ("g", 6)]);
    for source in 0..2 {
        let targets = Partitioning::Rescale.targets(source, 2, 6);
        assert!(
            targets.map(|target| sharing.slot_of(1, target)).any(|slot| slot == sharing.slot_of(0, source))
        );
    }
}

#[test]
fn too_few_free_slots_place_nothing_and_say_how_many() {
    let sharing = SlotSharing::of([("g", 5)]);
    assert_eq!(place(&sharing, &[(3, 1), (2, 0)], &[]), Err(Shortage { needed: 5, free: 4 }));
    assert_eq!(place(&sharing, &[], &[]), Err(Shortage { needed: 5, free: 0 }));
    assert_eq!(place(&sharing, &[(3, 1), (3, 0)], &[]).unwrap().len(), 5);
}

#[test]
fn workers_fill_evenly_by_their_share_of_used_slots() {
    let even = place(&SlotSharing::of([("g", 6)]), &[(4, 0), (4, 0), (4, 0)], &[]).unwrap();
    assert_eq!(per_worker(&even), BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
    let busy_first = place(&SlotSharing::of([("g", 4)]), &[(4, 3), (4, 0)], &[]).unwrap();
    assert_eq!(per_worker(&busy_first), BTreeMap::from([(1, 1), (2, 3)]));
    let by_size = place(&SlotSharing::of([("g", 6)]), &[(8, 0), (4, 0)], &[]).unwrap();
    assert_eq!(per_worker(&by_size), BTreeMap::from([(1, 4), (2, 2)]));
}

#[test]
fn neighbouring_subtasks_lie_together_and_each_group_is_spread() {
    let sharing = SlotSharing::of([("a", 4), ("b", 4)]);
    let chosen = place(&sharing, &[(4, 0), (4, 0)], &[]).unwrap();
    for group in 0..2 {
        let workers: Vec<u64> =
            (0..4).map(|subtask| chosen[sharing.slot_of(group, subtask) as usize].worker.0).collect();
        assert_eq!(workers, [1, 1, 2, 2]);
    }
}

#[test]
fn the_preferred_slot_comes_first_then_its_worker_then_the_even_spread() {
    let sharing = SlotSharing::of([("g", 3)]);
    let chosen =
        place(&sharing, &[(4, 0), (4, 1)], &[(0, slot(2, 3)), (1, slot(2, 3)), (2, slot(9, 0))]).unwrap();
    assert_eq!(chosen[0], slot(2, 3));
    assert_eq!(chosen[1].worker, WorkerId(2));
    assert_eq!(chosen[2].worker, WorkerId(1));
}

#[test]
fn a_taken_preferred_slot_is_no_obstacle() {
    let chosen = place(&SlotSharing::of([("g", 2)]), &[(2, 2), (2, 0)], &[(0, slot(1, 0)), (1, slot(1, 1))]);
    assert_eq!(per_worker(&chosen.unwrap()), BTreeMap::from([(2, 2)]));
}
