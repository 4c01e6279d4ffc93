//! Rows in their order, wherever they are.

use std::ops::ControlFlow;

use proptest::prelude::*;

use flott_dataflow::snapshot::{ScanPlace, ScanRange};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::SnapshotKind;

use super::kit::*;
use crate::Backend;

#[derive(Clone, Debug)]
enum Step {
    Set(u32, Option<u8>),
    /// To memory, or on to the database.
    Write,
    /// A snapshot that holds what was changed, and which may end later.
    Snapshot,
    /// All that can be stored is.
    Drain,
    /// Key groups, keys from and below, rows a page.
    Scan(u32, u32, u32, Option<u32>, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop_oneof![0u32..40, 256u32..260, Just(0xffff_ffff)];
    let step = prop_oneof![
        8 => (key(), prop::option::weighted(0.7, any::<u8>())).prop_map(|(key, value)| Step::Set(key, value)),
        3 => Just(Step::Write),
        1 => Just(Step::Snapshot),
        2 => Just(Step::Drain),
        4 => (0u32..KEY_GROUPS, 1u32..=KEY_GROUPS, key(), prop::option::of(key()), 1usize..9)
            .prop_map(|(start, groups, from, below, page)| Step::Scan(start, groups, from, below, page)),
    ];
    prop::collection::vec(step, 1..60)
}

type Row = (u16, Vec<u8>, String);

/// All rows of a range, in pages.
fn pages(table: &Table, range: &ScanRange, page: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut after: Option<ScanPlace> = None;
    loop {
        let until = rows.len() + page;
        let place = table.state.scan(table.id, range, after.as_ref(), &mut |group, key, value| {
            rows.push((group, key.to_vec(), String::from_utf8(value.to_vec()).unwrap()));
            Ok(if rows.len() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        after = place.unwrap();
        if after.is_none() {
            return rows;
        }
        assert_eq!(rows.len(), until, "it goes on until it is stopped");
    }
}

fn expected(table: &Table, range: &ScanRange) -> Vec<Row> {
    let rows = table.rows.iter().map(|(key, value)| (group_of(*key), key.to_be_bytes().to_vec(), value));
    let wanted = rows.filter(|(group, key, _)| {
        range.key_groups.contains(u32::from(*group)) && *key >= range.from && range.is_below(key)
    });
    let mut rows: Vec<Row> = wanted.map(|(group, key, value)| (group, key, value.clone())).collect();
    rows.sort();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_scan_gives_what_a_map_would(steps in steps()) {
        // Little goes to the database early.
        let mut cluster = Cluster::with(Backend::RocksDb, |options| options.buffer_bytes = 600);
        let mut tasks = cluster.tasks(1, None);
        let mut open: Option<u64> = None;
        for (step, number) in steps.into_iter().zip(0u32..) {
            match step {
                Step::Set(key, value) => {
                    let value = value.map(|value| format!("{number} {value}"));
                    tasks[0].first.set(key, value.as_deref());
                    tasks[0].second.set(key, Some("of another table"));
                }
                Step::Write => {
                    tasks[0].first.write_out();
                    tasks[0].second.write_out();
                }
                Step::Snapshot => {
                    if let Some(checkpoint) = open.take() {
                        cluster.store(&tasks, checkpoint, SnapshotKind::Checkpoint).unwrap();
                    }
                    let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
                    tasks[0].hand_in(checkpoint);
                    open = Some(checkpoint);
                }
                Step::Drain => tasks[0].backend.state_of(keyed_operator()).drain(),
                Step::Scan(start, groups, from, below, page) => {
                    tasks[0].first.write_out();
                    let key_groups = KeyGroupRange { start, end: (start + groups).min(KEY_GROUPS) };
                    let below = below.map(|below| below.to_be_bytes().to_vec());
                    let range = ScanRange { key_groups, from: from.to_be_bytes().to_vec(), below };
                    let found = pages(&tasks[0].first, &range, page);
                    prop_assert_eq!(found, expected(&tasks[0].first, &range), "{:?}", range);
                }
            }
        }
        tasks[0].first.write_out();
        let range = ScanRange::all(KeyGroupRange { start: 0, end: KEY_GROUPS });
        prop_assert_eq!(pages(&tasks[0].first, &range, 5), expected(&tasks[0].first, &range));
    }
}

#[test]
fn what_is_written_behind_the_place_of_a_scan_is_found_by_it() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    let table = &mut tasks[0].first;
    (0..100).for_each(|key| table.set(key, Some("early")));
    table.write_out();
    let range = ScanRange::all(KeyGroupRange { start: 0, end: KEY_GROUPS });
    let mut first = None;
    let stop = &mut |group: u16, key: &[u8], _: &[u8]| {
        first = Some((group, key.to_vec()));
        Ok(ControlFlow::Break(()))
    };
    let place = table.state.scan(table.id, &range, None, stop).unwrap().unwrap();
    assert_eq!(first, Some((place.key_group, place.key.clone())));
    (0..200).for_each(|key| table.set(key, Some("late")));
    table.write_out();
    let mut late = 0;
    let end = table.state.scan(table.id, &range, Some(&place), &mut |_, _, value| {
        assert_eq!(value, b"late");
        late += 1;
        Ok(ControlFlow::Continue(()))
    });
    assert!(end.unwrap().is_none());
    let passed =
        (0..200u32).filter(|key| (group_of(*key), &key.to_be_bytes()[..]) <= (place.key_group, &place.key));
    assert_eq!(late, 200 - passed.count());
}

#[test]
fn the_range_of_a_prefix_holds_what_begins_with_it() {
    let groups = KeyGroupRange { start: 0, end: 1 };
    let range = ScanRange::of_prefix(groups, vec![1, 255, 255]);
    assert_eq!(range.below, Some(vec![2]));
    assert!(range.is_below(&[1, 255, 255, 255, 9]) && !range.is_below(&[2]));
    assert_eq!(ScanRange::of_prefix(groups, vec![255, 255]).below, None);
    assert_eq!(ScanRange::of_prefix(groups, Vec::new()), ScanRange::all(groups));
    assert_eq!(ScanRange::of_prefix(groups, vec![0, 7]).below, Some(vec![0, 8]));
}
