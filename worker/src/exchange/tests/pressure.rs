//! Slow sinks: memory stays flat, backpressure ends at the source, and other channels go on.

use flott_dataflow::program::RuntimeMode;
use flott_schema::ids::WorkerId;

use super::harness::Cluster;
use super::programs::{Sunk, program};

#[test]
fn a_stalled_sink_holds_back_its_own_source_only() {
    let sunk = Sunk::new();
    sunk.stall(0);
    // One channel from each source to the sink of the same number, all on one connection.
    let built = program(RuntimeMode::Streaming, &sunk, |numbers| numbers.map(|n| (n, "x".repeat(100))));
    let mut cluster = Cluster::start(2, built, |options| options.window_bytes = 8 << 10);
    let (source, map, sink) = (cluster.vertex("numbers"), cluster.vertex("Map"), cluster.vertex("sunk"));
    let mut tasks = cluster.place(&[source, map], 0, |_| Some(WorkerId(1)));
    let sinks = cluster.place(&[sink], 0, |_| Some(WorkerId(2)));
    tasks.extend(&sinks);
    cluster.deploy(&tasks);
    // Splits go to whoever asks: the other three read all but what the held back one has taken.
    cluster.wait_for_end(&sinks[1..]);
    let held_back =
        cluster.placed.values().find(|p| p.attempt.task.vertex == map && p.attempt.task.subtask == 0);
    let attempt = held_back.unwrap().attempt;
    let stats = cluster.executors[0].metrics.stats(super::harness::JOB);
    let stalled = stats.iter().find(|task| task.attempt == attempt).unwrap();
    // The batch that the sink has taken, the window, and the one frame that may go over it; a batch of 64 is 7 kB.
    assert!(stalled.bytes_out <= 7_000 + (8 << 10) + 7_000, "{} bytes were sent", stalled.bytes_out);
    assert!(sunk.of(0).len() <= 64, "a sink takes one batch before it says that it is not ready");
    let others: usize = (1..4).map(|subtask| sunk.of(subtask).len()).sum();
    assert!(others >= 10_000, "{others}");
    sunk.go_on();
    cluster.wait_for_end(&tasks);
    assert_eq!(cluster.failures(&tasks), Vec::<String>::new());
    let all: Vec<u64> = sunk.sorted().into_iter().map(|(n, _)| n).collect();
    assert_eq!(all, (0..20_000).collect::<Vec<u64>>());
}

#[test]
fn records_larger_than_the_window_pass() {
    let sunk = Sunk::new();
    let built = program(RuntimeMode::Streaming, &sunk, |numbers| {
        numbers.filter(|n| n % 500 == 0).map(|n| vec![n as u8; 300_000]).rebalance().map(|bytes| bytes.len())
    });
    let mut cluster = Cluster::start(2, built, |options| options.window_bytes = 1024);
    cluster.run(0);
    assert_eq!(sunk.sorted(), vec![300_000; 40]);
}
