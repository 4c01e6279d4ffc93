use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;

use flott_dataflow::batch::{NO_TIMESTAMP, Record};
use flott_dataflow::source::{Assignment, Boundedness, Source, SourceReader, SplitEnumerator};

use super::Generator;
use crate::test_kit::{Driver, Turn, check_runs, context, drain, read_by, read_resuming, runs};

proptest! {
    #[test]
    fn readers_share_the_numbers_and_each_comes_once(count in 0u64..500, readers in 1u32..5, max in 1usize..60) {
        let mut read = read_by(&Generator::new(|n| n * 3).count(count), readers, max).concat();
        if readers > 1 {
            read.sort_unstable();
        }
        prop_assert!(read.into_iter().eq((0..count).map(|n| n * 3)));
    }

    #[test]
    fn each_number_comes_once_over_restarts(count in 0u64..500, runs in runs()) {
        check_runs(&Generator::new(|n| n * 3).count(count), &runs)?;
    }

    #[test]
    fn a_resumed_reader_makes_the_rest(count in 0u64..300, max in 1usize..50, batches in 0usize..9) {
        let (before, after) = read_resuming(&Generator::new(|n| n).count(count), max, batches);
        prop_assert!([before, after].concat().into_iter().eq(0..count));
    }
}

#[test]
fn event_times_come_from_number_and_record() {
    let source = Generator::new(|n| n * 10).count(3);
    assert_eq!(drain(&source, 2), [(0, NO_TIMESTAMP), (10, NO_TIMESTAMP), (20, NO_TIMESTAMP)]);
    let timed = source.timestamps(|n, record| (n * 1000 + record) as i64);
    assert_eq!(drain(&timed, 2), [(0, 0), (10, 1010), (20, 2020)]);
}

#[test]
fn it_ends_only_if_it_was_told_when() {
    assert_eq!(Generator::new(|n| n).boundedness(), Boundedness::Unbounded);
    assert_eq!(Generator::new(|n| n).count(5).boundedness(), Boundedness::Bounded);
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = Generator::new(|n| n).rate_per_second(rate).check().unwrap_err().to_string();
        assert!(error.contains("must be above 0"), "{error}");
    }
}

#[test]
fn a_reader_of_several_lanes_lets_none_wait_for_the_end_of_another() {
    let source = Generator::new(|n| n);
    let mut enumerator = source.enumerator(3).unwrap();
    let mut reader = source.reader(&context(0, 1)).unwrap();
    while let Assignment::Split(lane) = enumerator.next_split(0).unwrap() {
        reader.add_split(lane).unwrap();
    }
    let mut cx = Context::from_waker(Waker::noop());
    let mut numbers = Vec::new();
    for _ in 0..6 {
        let std::task::Poll::Ready(Some(batch)) = reader.read(2, &mut cx).unwrap() else { panic!() };
        numbers.extend(batch.records);
    }
    assert_eq!(numbers, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
}

/// Reads with all readers for `duration` of paused time; how many records came in each of its steps.
async fn counts<T: Record, F: Fn(u64) -> T + Clone + Send + 'static>(
    driver: &mut Driver<Generator<T, F>>,
    readers: usize,
    steps: usize,
    step: Duration,
) -> Vec<usize> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut counts = Vec::new();
    for _ in 0..steps {
        let mut count = 0;
        for reader in 0..readers {
            loop {
                match driver.turn(reader, 1024, &mut cx).unwrap() {
                    Turn::Batch(batch) => count += batch.len(),
                    Turn::GotSplit => {}
                    Turn::Pending | Turn::Later(_) | Turn::Ended => break,
                }
            }
        }
        counts.push(count);
        tokio::time::advance(step).await;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_that_of_all_readers_together_and_even() {
    let source = Generator::new(|n| n).rate_per_second(1000.0);
    let mut driver = Driver::new(&source, 2);
    let counts = counts(&mut driver, 2, 101, Duration::from_millis(100)).await;
    assert_eq!(counts[0], 2, "the first of each reader comes at once");
    assert!(counts[1..].iter().all(|count| (98..=102).contains(count)), "{counts:?}");
    let total: usize = counts.iter().sum();
    assert!((9_990..=10_010).contains(&total), "{total} in 10 seconds");
}

#[tokio::test(start_paused = true)]
async fn a_slow_rate_gives_single_records_when_they_are_due() {
    let source = Generator::new(|n| n).rate_per_second(0.5);
    let mut driver = Driver::new(&source, 1);
    let counts = counts(&mut driver, 1, 9, Duration::from_secs(1)).await;
    assert_eq!(counts, [1, 0, 1, 0, 1, 0, 1, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_of_the_job_is_made_up_for_up_to_a_second() {
    let source = Generator::new(|n| n).rate_per_second(100.0);
    let mut driver = Driver::new(&source, 1);
    let first = counts(&mut driver, 1, 1, Duration::from_secs(3600)).await;
    let then = counts(&mut driver, 1, 5, Duration::from_secs(1)).await;
    assert_eq!(first, [1]);
    assert!((100..=101).contains(&then[0]), "{then:?}");
    assert!(then[1..].iter().all(|count| (99..=101).contains(count)), "{then:?}");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_wakes_its_task() {
    let source = Generator::new(|n| n).rate_per_second(10.0).count(5);
    let mut reader = source.reader(&context(0, 1)).unwrap();
    let Assignment::Split(lane) = source.enumerator(1).unwrap().next_split(0).unwrap() else { panic!() };
    reader.add_split(lane).unwrap();
    let start = tokio::time::Instant::now();
    let mut read = Vec::new();
    // The paused clock goes on by itself when all tasks wait: without a wake-up this would never end.
    while let Some(batch) = std::future::poll_fn(|cx| match reader.read(100, cx) {
        Ok(poll) => poll.map(Ok),
        Err(error) => std::task::Poll::Ready(Err(error)),
    })
    .await
    .unwrap()
    {
        read.extend(batch.records);
    }
    assert_eq!(read, [0, 1, 2, 3, 4]);
    let passed = start.elapsed().as_millis();
    assert!((400..=410).contains(&passed), "{passed} ms for five records, 100 ms apart");
}
