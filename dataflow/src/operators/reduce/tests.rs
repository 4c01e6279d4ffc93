//! A rolling reduce against a map, with snapshots at any time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::harness::memory::MemoryKind;
use crate::harness::parallel::Parallel;
use crate::key::ByValue;

type Counted = (String, u64);
type Sums = Parallel<Counted, (), Counted>;

fn sums(parallelism: u32, kind: MemoryKind) -> Sums {
    Parallel::new(parallelism, kind, |builder| {
        let key = ByValue::new(|record: &Counted| record.0.clone());
        let add = |sum: &mut Counted, next: &mut Counted| sum.1 = sum.1.wrapping_mul(31).wrapping_add(next.1);
        builder.one_input(|_| Ok(RollingReduce::new(key, add)))
    })
    .unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<(u16, u64)>),
    Barrier,
    Poll,
    /// From the last complete snapshot: what came behind it comes again.
    Restore(u32),
}

fn steps(keys: u16) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec((0..keys, 0u64..1000), 1..60).prop_map(Step::Batch),
        2 => Just(Step::Barrier),
        2 => Just(Step::Poll),
        1 => (1u32..5).prop_map(Step::Restore),
    ];
    prop::collection::vec(step, 1..60)
}

/// Runs the steps, and compares the results of each batch with a plain map.
fn check(kind: MemoryKind, steps: Vec<Step>) -> std::result::Result<(), TestCaseError> {
    let mut sums = sums(2, kind);
    let mut model: BTreeMap<String, u64> = BTreeMap::new();
    let mut at_barrier = None;
    let push = |sums: &mut Sums,
                model: &mut BTreeMap<String, u64>,
                batch: Vec<(u16, u64)>|
     -> std::result::Result<(), TestCaseError> {
        let records = batch.into_iter().map(|(key, add)| (format!("key {key}"), add)).collect::<Vec<_>>();
        let mut expected: Vec<(Counted, i64)> = Vec::new();
        for (key, add) in &records {
            let sum = match model.get(key) {
                Some(sum) => sum.wrapping_mul(31).wrapping_add(*add),
                None => *add,
            };
            model.insert(key.clone(), sum);
            expected.push(((key.clone(), sum), 7));
        }
        sums.push_all(|record| record.0.clone(), records.into_iter().map(|record| (record, 7))).unwrap();
        expected.sort();
        prop_assert_eq!(sums.take_sorted(), expected);
        Ok(())
    };
    for step in steps {
        match step {
            Step::Batch(batch) => push(&mut sums, &mut model, batch)?,
            // Not waited for: the snapshot is completed by what follows.
            Step::Barrier => at_barrier = Some((sums.barrier().unwrap(), model.clone())),
            Step::Poll => sums.tasks().iter_mut().for_each(|task| task.poll().unwrap()),
            Step::Restore(parallelism) => {
                let Some((checkpoint, then)) = at_barrier.take() else { continue };
                let parts = sums.handed_in(checkpoint).unwrap();
                prop_assert_eq!(
                    parts.iter().map(|part| part.row_count("reduced")).sum::<usize>(),
                    then.len()
                );
                sums.restore(&parts, parallelism).unwrap();
                model = then;
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_restored_reduce_goes_on_as_if_nothing_had_happened(steps in steps(200)) {
        check(MemoryKind::AllRows, steps.clone())?;
        check(MemoryKind::Changes, steps)?;
    }

    #[test]
    fn more_keys_than_memory_holds_give_the_same(steps in steps(400), budget in 0usize..8000) {
        check(MemoryKind::Fetching { budget_bytes: budget }, steps)?;
    }
}

#[test]
fn memory_stays_within_the_budget_and_a_snapshot_takes_changes_only() {
    let budget_bytes = 40_000;
    let mut sums = sums(1, MemoryKind::Fetching { budget_bytes });
    let mut model: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..200u64 {
        let records = (0..50).map(|n| ((format!("key {}", (round * 37 + n * n) % 5_000), n), 0));
        for ((key, add), _) in records.clone() {
            let sum = model.get(&key).map_or(add, |sum| sum.wrapping_mul(31).wrapping_add(add));
            model.insert(key, sum);
        }
        sums.push_all(|record| record.0.clone(), records).unwrap();
    }
    let (fetched, written) = sums.states()[0].fetched_and_written();
    assert!(fetched > 1_000 && written > 1_000, "{fetched} {written}");
    let parts = sums.snapshot().unwrap();
    assert_eq!(parts[0].row_count("reduced"), model.len());
    let frozen = sums.states()[0].frozen_rows();
    assert!(frozen < model.len() / 4, "the rest had been written before: {frozen} of {}", model.len());
    sums.snapshot().unwrap();
    assert_eq!(sums.states()[0].frozen_rows(), frozen, "nothing has changed since");
    // Hot keys stay.
    sums.push(&"hot".to_string(), ("hot".to_string(), 1), 0).unwrap();
    let before = sums.states()[0].fetched_and_written().0;
    for _ in 0..100 {
        sums.push(&"hot".to_string(), ("hot".to_string(), 1), 0).unwrap();
    }
    assert_eq!(sums.states()[0].fetched_and_written().0, before);
}

#[test]
fn the_table_itself_keeps_to_its_budget() {
    let state =
        crate::harness::memory::MemoryState::new(MemoryKind::Fetching { budget_bytes: 100_000 }, 0, 1, 128);
    let task = TaskContext::new("job", "vertex", 0, 1, 128, crate::context::Settings::default());
    let ctx = OperatorContext {
        state: Some(crate::snapshot::TaskState::operator(
            &*state,
            flott_schema::ids::OperatorId::of_uid("a"),
            "a",
        )),
        ..OperatorContext::new(Rc::new(task), "a", "a")
    };
    let mut table: StoredTable<String, String> = StoredTable::default();
    table.open(&ctx, "reduced").unwrap();
    for round in 0..300u64 {
        table.begin_batch(20).unwrap();
        if round % 7 == 0 {
            state.begin(round);
            table.freeze();
        }
        let keys: Vec<String> = (0..20).map(|n| format!("{}", (round * 20 + n) % 4_000)).collect();
        table.fetch(keys.iter().map(|key| (stable_hash(key), key))).unwrap();
        for key in keys {
            match table.find(stable_hash(&key), &key) {
                Some(position) => table.value_mut(position).push('x'),
                None => table.insert_new(stable_hash(&key), key, "value".repeat(5)),
            }
        }
        assert!(round < 30 || table.memory_bytes() <= 125_000, "{} bytes", table.memory_bytes());
        table.drain_some(20);
    }
    assert!(table.len() > 300, "{} entries", table.len());
}

#[test]
fn a_large_table_is_handed_in_piece_by_piece_while_records_change_it() {
    for kind in [MemoryKind::AllRows, MemoryKind::Changes] {
        let mut sums = sums(1, kind);
        let all = (0..40_000u64).map(|n| ((format!("key {n}"), n), 0));
        sums.push_all(|record| record.0.clone(), all.clone()).unwrap();
        let checkpoint = sums.barrier().unwrap();
        let mut pieces = 0;
        while !sums.states()[0].is_complete(checkpoint) {
            // New keys make the table grow, old ones are changed before and behind the place that the copying has reached.
            let changed = (0..50).map(|n| ((format!("key {}", pieces * 7_919 + n * 997), 1), 0));
            sums.push_all(|record| record.0.clone(), changed).unwrap();
            pieces += 1;
        }
        assert!((5..100).contains(&pieces), "{pieces} pieces");
        let parts = sums.handed_in(checkpoint).unwrap();
        assert_eq!(sums.states()[0].frozen_rows(), 40_000);
        sums.restore(&parts, 3).unwrap();
        sums.take();
        sums.push_all(|record| record.0.clone(), all.clone()).unwrap();
        let mut expected: Vec<(Counted, i64)> =
            all.map(|((key, n), time)| ((key, n.wrapping_mul(31).wrapping_add(n)), time)).collect();
        expected.sort();
        assert_eq!(sums.take_sorted(), expected);
    }
}
