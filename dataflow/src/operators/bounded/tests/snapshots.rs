//! What of these operators goes into snapshots, and what refuses to.

use proptest::prelude::*;

use crate::harness::HarnessBuilder;
use crate::harness::memory::MemoryKind;
use crate::harness::parallel::Parallel;
use crate::operators::bounded::all::ReduceAll;
use crate::operators::bounded::first::{FirstN, FirstOfKey, WholeRecord};

#[test]
fn an_operator_that_holds_its_input_refuses_a_snapshot_and_says_what_to_do() {
    let make = |builder: HarnessBuilder<u32>| {
        builder.one_input(|_| Ok(ReduceAll::new(|sum: &mut u32, next: &mut u32| *sum += *next)))
    };
    let mut sum = Parallel::<u32, (), u32>::new(1, MemoryKind::AllRows, make).unwrap();
    sum.push(&0, 1, 0).unwrap();
    let error = sum.barrier().unwrap_err().to_string();
    assert!(error.contains("operator under test") && error.contains("execution.runtime-mode"), "{error}");
}

proptest! {
    #[test]
    fn the_first_of_each_key_are_let_pass_once_over_restarts(
        runs in prop::collection::vec((prop::collection::vec(0u8..12, 0..30), 1u32..4, any::<bool>()), 1..6),
        n in 1usize..4,
        changes: bool,
    ) {
        let kind = if changes { MemoryKind::Changes } else { MemoryKind::AllRows };
        let make = move |builder: HarnessBuilder<u8>| {
            builder.one_input(move |ctx| Ok(FirstOfKey::new(WholeRecord, n, ctx)))
        };
        let mut first = Parallel::<u8, (), u8>::new(2, kind, make).unwrap();
        let mut seen = [0usize; 12];
        for (records, tasks, restart) in runs {
            let barrier = (!restart).then(|| first.barrier().unwrap());
            for record in records {
                first.push(&record, record, 0).unwrap();
                seen[usize::from(record)] += 1;
                let expected: Vec<u8> = (seen[usize::from(record)] <= n).then_some(record).into_iter().collect();
                let passed: Vec<u8> = first.take().into_iter().map(|(record, _)| record).collect();
                prop_assert_eq!(passed, expected);
            }
            match barrier {
                Some(checkpoint) => drop(first.handed_in(checkpoint).unwrap()),
                None => first.restart(tasks).unwrap(),
            }
        }
    }

    #[test]
    fn the_first_of_all_are_let_pass_once_over_restarts(
        runs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..10), 1..6),
        n in 0usize..20,
    ) {
        let make = move |builder: HarnessBuilder<u8>| builder.one_input(move |_| Ok(FirstN::new(n)));
        let mut first = Parallel::<u8, (), u8>::new(1, MemoryKind::Changes, make).unwrap();
        let all: Vec<u8> = runs.concat();
        let mut passed = Vec::new();
        for records in runs {
            first.push_all(|_| 0, records.into_iter().map(|record| (record, 0))).unwrap();
            first.restart(1).unwrap();
            passed.extend(first.take().into_iter().map(|(record, _)| record));
        }
        prop_assert_eq!(&passed[..], &all[..n.min(all.len())]);
    }
}
