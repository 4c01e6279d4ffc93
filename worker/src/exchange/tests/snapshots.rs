//! Snapshots over several executors: what is taken, what tasks start from again, and how they end with one.

use flott_dataflow::program::RuntimeMode;
use flott_schema::control::{Placement, TaskState};
use flott_schema::snapshot::{AfterBarrier, Alignment, Barrier};

use super::harness::{Cluster, DEADLINE};
use super::programs::{Sunk, program, released_program};

/// How often each number was counted, by a rolling sum of ones for each key that crosses executors.
fn counting(sunk: &Sunk<(u64, u64)>) -> Cluster {
    let built = program(RuntimeMode::Streaming, sunk, |numbers| {
        numbers.map(|n| (n % 1000, 1u64)).key_by(|(key, _)| *key).sum(|(_, count)| count)
    });
    let mut cluster = Cluster::start(2, built, |_| ());
    cluster.checkpoints.interval_ms = Some(1000);
    cluster
}

fn place_all(cluster: &mut Cluster, epoch: u32) -> Vec<Placement> {
    let all: Vec<_> = cluster.program.graph.vertices.iter().map(|vertex| vertex.id).collect();
    let tasks = cluster.place(&all, epoch, |_| None);
    cluster.deploy(&tasks);
    tasks
}

/// The highest count of each key, if all are there.
fn totals(sunk: &Sunk<(u64, u64)>) -> Vec<u64> {
    let mut totals = vec![0; 1000];
    for (key, count) in sunk.sorted() {
        totals[key as usize] = count;
    }
    totals
}

/// Waits until the sink has something.
fn wait_for_records(sunk: &Sunk<(u64, u64)>) {
    let started = std::time::Instant::now();
    while sunk.sorted().is_empty() {
        assert!(started.elapsed() < DEADLINE, "no records come");
        std::thread::yield_now();
    }
}

fn end_from_here(cluster: &mut Cluster, sunk: &Sunk<(u64, u64)>, tasks: &[Placement], barrier: Barrier) {
    let folder = tempfile::tempdir().unwrap();
    cluster.order_snapshot(tasks, barrier, folder.path());
    let from = cluster.complete_snapshot(tasks, barrier, folder.path());
    cluster.end_snapshot(tasks, barrier.checkpoint, true);
    cluster.cancel(tasks);
    sunk.go_on();
    cluster.restore = Some(from.into());
    let tasks = place_all(cluster, 1);
    cluster.wait_for_end(&tasks);
    assert_eq!(cluster.failures(&tasks), Vec::<String>::new());
    assert_eq!(totals(sunk), vec![20; 1000]);
}

#[test]
fn tasks_go_on_from_a_snapshot_and_count_each_record_once() {
    let sunk = Sunk::new();
    let mut cluster = counting(&sunk);
    sunk.stall(0);
    let tasks = place_all(&mut cluster, 0);
    cluster.wait_for_running(&tasks);
    wait_for_records(&sunk);
    sunk.go_on();
    end_from_here(&mut cluster, &sunk, &tasks, Barrier::of_checkpoint(1));
}

/// The same in one task, with so many key groups, and so many of the 40 splits.
fn counting_in_one_task(sunk: &Sunk<(u64, u64)>, max_parallelism: u32, splits: u64) -> Cluster {
    let built = released_program(RuntimeMode::Streaming, sunk, splits, |numbers| {
        let counted = numbers.map(|n| (n % 1000, 1u64)).key_by(|(key, _)| *key).sum(|(_, count)| count);
        counted.uid("counts").parallelism(1).max_parallelism(max_parallelism)
    });
    let mut cluster = Cluster::start(2, built, |_| ());
    cluster.checkpoints.interval_ms = Some(1000);
    cluster
}

/// As windows over whole streams have, which had as many key groups as other operators in earlier versions.
#[test]
fn a_vertex_with_one_key_group_goes_on_from_a_snapshot_in_which_it_had_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut restore = None;
    // The second one goes on with the state of the first, and so does the third with that of the second.
    for (epoch, max_parallelism, splits) in [(0, 128, 20), (1, 1, 30), (2, 1, 40)] {
        let sunk = Sunk::new();
        let mut cluster = counting_in_one_task(&sunk, max_parallelism, splits);
        cluster.restore = restore.take();
        let tasks = place_all(&mut cluster, epoch);
        if splits == 40 {
            cluster.wait_for_end(&tasks);
            assert_eq!(cluster.failures(&tasks), Vec::<String>::new());
        } else {
            cluster.wait_for_running(&tasks);
            let started = std::time::Instant::now();
            while sunk.sorted().len() < if epoch == 0 { 10_000 } else { 5_000 } {
                assert!(started.elapsed() < DEADLINE, "{} records have come", sunk.sorted().len());
                std::thread::yield_now();
            }
            let barrier = Barrier::of_checkpoint(u64::from(epoch) + 1);
            cluster.order_snapshot(&tasks, barrier, folder.path());
            restore = Some(cluster.complete_snapshot(&tasks, barrier, folder.path()).into());
            cluster.end_snapshot(&tasks, barrier.checkpoint, true);
            cluster.cancel(&tasks);
        }
        assert_eq!(totals(&sunk), vec![splits / 2; 1000]);
    }
}

#[test]
fn records_that_a_barrier_overtakes_are_counted_once() {
    let sunk = Sunk::new();
    let mut cluster = counting(&sunk);
    cluster.checkpoints.unaligned = true;
    let tasks = place_all(&mut cluster, 0);
    wait_for_records(&sunk);
    let barrier = Barrier { alignment: Alignment::UnalignedAfter(0), ..Barrier::of_checkpoint(1) };
    end_from_here(&mut cluster, &sunk, &tasks, barrier);
}

#[test]
fn a_job_that_is_suspended_with_a_snapshot_ends_when_that_is_complete() {
    let sunk = Sunk::new();
    let mut cluster = counting(&sunk);
    let tasks = place_all(&mut cluster, 0);
    wait_for_records(&sunk);
    let folder = tempfile::tempdir().unwrap();
    let barrier = Barrier { after: AfterBarrier::Suspend, ..Barrier::of_checkpoint(1) };
    cluster.order_snapshot(&tasks, barrier, folder.path());
    let from = cluster.complete_snapshot(&tasks, barrier, folder.path());
    cluster.end_snapshot(&tasks, 1, true);
    cluster.wait_for_end(&tasks);
    assert!(tasks.iter().all(|task| cluster.state(task.attempt) == Some(TaskState::Finished)));
    cluster.restore = Some(from.into());
    let tasks = place_all(&mut cluster, 1);
    cluster.wait_for_end(&tasks);
    assert_eq!(totals(&sunk), vec![20; 1000]);
}

#[test]
fn sources_go_on_when_the_snapshot_that_was_to_end_them_is_given_up() {
    let sunk = Sunk::new();
    let mut cluster = counting(&sunk);
    let tasks = place_all(&mut cluster, 0);
    wait_for_records(&sunk);
    let folder = tempfile::tempdir().unwrap();
    let barrier = Barrier { after: AfterBarrier::Suspend, ..Barrier::of_checkpoint(1) };
    cluster.order_snapshot(&tasks, barrier, folder.path());
    cluster.complete_snapshot(&tasks, barrier, folder.path());
    cluster.end_snapshot(&tasks, 1, false);
    cluster.wait_for_end(&tasks);
    assert_eq!(cluster.failures(&tasks), Vec::<String>::new());
    assert_eq!(totals(&sunk), vec![20; 1000]);
}
