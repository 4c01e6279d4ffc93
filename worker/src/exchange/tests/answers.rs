//! Jobs give the same answers over two executors as in one.

use std::time::Duration;

use flott_dataflow::api::DataStream;
use flott_dataflow::batch::Record;
use flott_dataflow::program::RuntimeMode;
use flott_dataflow::time::WatermarkStrategy;
use flott_dataflow::window::TumblingEventTimeWindows;
use flott_schema::job::RestartStrategy;

use super::super::Compression;
use super::harness::Cluster;
use super::programs::{Sunk, program};

/// Runs a program in one executor and over two; both give these records, in whatever order.
fn check<T: Record + Ord + std::fmt::Debug>(
    mode: RuntimeMode,
    build: impl Fn(DataStream<u64>) -> DataStream<T>,
) -> Vec<T> {
    let answers = [1, 2].map(|count| {
        let sunk = Sunk::new();
        let mut cluster = Cluster::start(count, program(mode, &sunk, &build), |_| {});
        cluster.run(0);
        if count == 2 {
            let stats: Vec<_> = cluster
                .executors
                .iter()
                .flat_map(|executor| executor.metrics.stats(super::harness::JOB))
                .collect();
            let (sent, read): (u64, u64) =
                stats.iter().fold((0, 0), |(sent, read), task| (sent + task.bytes_out, read + task.bytes_in));
            assert!(mode == RuntimeMode::Batch || sent > 0, "nothing went over the wire");
            assert!(read >= sent, "{sent} bytes sent, {read} read");
        }
        sunk.sorted()
    });
    let [one, two] = answers;
    assert!(!one.is_empty());
    assert!(one == two, "one executor: {} records, two: {}", one.len(), two.len());
    two
}

fn words(numbers: DataStream<u64>) -> DataStream<(String, u64)> {
    numbers.flat_map(|number, out| {
        out.collect((format!("word{}", number % 97), 1));
        out.collect((format!("{}", number % 7), 1));
    })
}

#[test]
fn words_are_counted() {
    let counts = check(RuntimeMode::Streaming, |numbers| {
        words(numbers).key_by(|(word, _)| word.clone()).sum(|(_, count)| count)
    });
    assert_eq!(counts.len(), 40_000, "a running count for each word");
    assert_eq!(counts.iter().filter(|(word, _)| word == "3").map(|(_, count)| count).max(), Some(&2857));
}

#[test]
fn a_batch_job_reads_results_that_lie_in_the_other_executor() {
    let counts = check(RuntimeMode::Batch, |numbers| {
        words(numbers).key_by(|(word, _)| word.clone()).sum(|(_, count)| count)
    });
    assert_eq!(counts.len(), 104);
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 40_000);
}

#[test]
fn a_keyed_stream_is_keyed_again() {
    check(RuntimeMode::Streaming, |numbers| {
        let sums = numbers.map(|n| (n % 50, n)).key_by(|(key, _)| *key).max(|(_, n)| n);
        sums.map(|(key, _)| (key % 3, 1u64)).key_by(|(key, _)| *key).sum(|(_, count)| count)
    });
}

#[test]
fn broadcast_reaches_every_task_once() {
    let records = check(RuntimeMode::Streaming, |numbers| numbers.broadcast().map(|n| n));
    assert_eq!(records.len(), 80_000);
}

#[test]
fn rebalanced_rescaled_and_gathered_records_all_arrive() {
    let records = check(RuntimeMode::Streaming, |numbers| {
        let halved = numbers.rebalance().map(|n| n).rescale().map(|n| n).parallelism(2);
        halved.shuffle().map(|n| n).global().map(|n| n)
    });
    assert_eq!(records, (0..20_000).collect::<Vec<u64>>());
}

#[test]
fn watermarks_cross_and_close_windows() {
    let strategy = || {
        WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(3600))
            .with_timestamp(|(_, n): &(u64, u64)| *n as i64)
    };
    let sums = check(RuntimeMode::Streaming, |numbers| {
        let keyed = numbers.map(|n| (n % 5, n)).assign_timestamps_and_watermarks(strategy());
        let windows = TumblingEventTimeWindows::of(Duration::from_secs(1));
        keyed.key_by(|(key, _)| *key).window(windows).sum(|(_, n)| n)
    });
    assert_eq!(sums.len(), 100);
}

#[test]
fn compressed_batches_arrive_as_they_were() {
    for compression in [Compression::Lz4, Compression::Zstd] {
        for mode in [RuntimeMode::Streaming, RuntimeMode::Batch] {
            let sunk = Sunk::new();
            let built = program(mode, &sunk, |numbers| words(numbers).rebalance().map(|word| word));
            let mut cluster = Cluster::start(2, built, |options| options.compression = compression);
            cluster.run(0);
            assert_eq!(sunk.sorted().len(), 40_000);
        }
    }
}

#[test]
fn a_reader_that_is_deployed_again_reads_a_result_from_the_beginning() {
    let sunk = Sunk::new();
    let built = program(RuntimeMode::Batch, &sunk, |numbers| numbers.rebalance().map(|n| n));
    let mut cluster = Cluster::start(2, built, |_| {});
    cluster.restart = RestartStrategy::FixedDelay { attempts: 3, delay_ms: 0 };
    cluster.run(0);
    let once = sunk.sorted();
    assert_eq!(once, (0..20_000).collect::<Vec<u64>>());
    // The source stays finished; what reads it goes again, in a newer epoch.
    let readers: Vec<_> = cluster.program.graph.vertices.iter().filter(|vertex| !vertex.is_source).collect();
    let readers: Vec<_> = readers.iter().map(|vertex| vertex.id).collect();
    let tasks = cluster.place(&readers, 1, |_| None);
    cluster.deploy(&tasks);
    cluster.wait_for_end(&tasks);
    assert_eq!(cluster.failures(&tasks), Vec::<String>::new());
    let twice = sunk.sorted();
    assert_eq!(twice.len(), 40_000);
    assert!(twice.chunks(2).all(|pair| pair[0] == pair[1]));
}
