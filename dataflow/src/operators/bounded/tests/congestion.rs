//! Long emissions.

use super::*;
use crate::operator::Collector;
use crate::operators::bounded::cross::Cross;
use crate::operators::bounded::map_partition::MapPartition;
use crate::operators::bounded::records::Records;
use crate::operators::bounded::results::Results;

fn pairs(
    ctx: &OperatorContext,
) -> flott_schema::Result<impl TwoInputOperator<Left = u32, Right = u32, Out = (u32, u32)> + use<>> {
    let pair = |left: &u32, right: &u32, out: &mut Collector<(u32, u32)>| out.collect((*left, *right));
    Ok(Cross::<u32, u32, (u32, u32), _>::new(pair, ctx))
}

#[test]
fn a_long_emission_lets_others_have_the_thread_and_goes_on_where_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let mut cross = HarnessBuilder::new(settings(PLENTY, scratch.path())).two_inputs(pairs).unwrap();
    for n in 0..400 {
        cross.push(n, 0).unwrap();
        cross.push_right(n, 0).unwrap();
    }
    assert_eq!(cross.task().next_deadline_ms(), i64::MAX);
    assert_eq!(cross.task().signal(Signal::EndOfInput).unwrap(), Flow::Again);
    assert!(cross.task().next_deadline_ms() <= 0, "it asks to be called again without waiting for room");
    let first = cross.take_records();
    assert!((1..160_000).contains(&first.len()), "{}", first.len());
    cross.signal(Signal::EndOfInput).unwrap();
    assert_eq!(cross.task().next_deadline_ms(), i64::MAX);
    let mut all = first;
    all.extend(cross.take_records());
    assert_eq!(all.len(), 160_000);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 160_000);
}

#[test]
fn outputs_that_are_congested_now_and_then_get_everything_once() {
    let scratch = tempfile::tempdir().unwrap();
    let repeat = |records: Records<'_, u32>, out: &mut Results<'_, (u32, u32)>| {
        for record in records {
            (0..50).for_each(|n| out.collect((record, n)));
        }
    };
    let mut map = HarnessBuilder::new(settings(1 << 10, scratch.path()))
        .one_input(|ctx| Ok(MapPartition::new(repeat, ctx)))
        .unwrap();
    map.push_all((0..100).map(|n| (n, 0))).unwrap();
    let mut results = Vec::new();
    let mut calls = 0;
    loop {
        let is_congested = calls % 3 != 0;
        if is_congested {
            map.context().task.congestion.block();
        }
        // The outputs are free from the second piece on; a task asks again when it is told so.
        let flow = map.task().signal(Signal::EndOfInput).unwrap();
        if is_congested {
            map.context().task.congestion.unblock();
        }
        results.extend(map.take_records());
        calls += 1;
        if flow == Flow::Done {
            break;
        }
        if calls == 5 {
            assert!(!files(&scratch).is_empty(), "results wait in a file");
            break;
        }
    }
    map.signal(Signal::EndOfInput).unwrap();
    results.extend(map.take_records());
    let expected: Vec<(u32, u32)> = (0..100).flat_map(|record| (0..50).map(move |n| (record, n))).collect();
    assert_eq!(results, expected);
}

#[test]
fn idleness_does_not_pass_an_operator_that_holds_records() {
    let scratch = tempfile::tempdir().unwrap();
    let mut cross = HarnessBuilder::new(settings(PLENTY, scratch.path())).two_inputs(pairs).unwrap();
    cross.push(1, 5).unwrap();
    cross.push_right(2, 7).unwrap();
    cross.signal(Signal::Idle(true)).unwrap();
    cross.watermark(100).unwrap();
    assert_eq!(cross.take_signals(), []);
    assert_eq!(cross.take(), []);
    cross.end().unwrap();
    assert_eq!(cross.take(), [((1, 2), 7)]);
    assert_eq!(cross.take_signals(), [Signal::Watermark(MAX_WATERMARK), Signal::EndOfInput]);
}
