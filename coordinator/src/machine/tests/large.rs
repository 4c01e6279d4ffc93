//! The size the scheduler is built for, in one event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::JobSpec;

use super::graph::streaming;
use super::offering;
use crate::machine::{ClusterState, Effect, Event, JobState, Limits, apply};

#[test]
fn a_hundred_thousand_subtasks_on_a_thousand_workers_place_below_two_seconds() {
    const WORKERS: u64 = 1_000;
    const SLOTS: u32 = 100;
    let mut cluster = ClusterState::new(Limits::default());
    for worker in 0..WORKERS {
        apply(
            &mut cluster,
            Event::WorkerRegistered { worker: WorkerId(worker), profile: offering(SLOTS), at_ms: 0 },
        );
    }
    // Four groups: each subtask has a slot of its own.
    let vertices = [("a@1", 25_000), ("b@2", 25_000), ("c@3", 25_000), ("d@4", 25_000)];
    let graph = Arc::new(streaming("large", &vertices, &["a > b", "b > c", "c > d"]));
    // The best of three, so that a busy machine does not fail it.
    let mut best = Duration::MAX;
    let (mut state, mut effects) = (cluster.clone(), Vec::new());
    for _ in 0..3 {
        state = cluster.clone();
        let submitted =
            Event::JobSubmitted { job: JobId(1), spec: Arc::new(JobSpec::embedded(graph.clone())), at_ms: 1 };
        let start = Instant::now();
        effects = apply(&mut state, submitted);
        best = best.min(start.elapsed());
    }
    println!("100,000 subtasks in 100,000 slots of 1,000 workers: {} ms", best.as_millis());

    let deployed: Vec<usize> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Deploy { tasks, .. } => Some(tasks.len()),
            _ => None,
        })
        .collect();
    assert_eq!(deployed, vec![SLOTS as usize; WORKERS as usize]);
    assert_eq!(state.job(JobId(1)).map(|job| job.state()), Some(JobState::Running));
    assert_eq!(state.slots().free(), 0);
    assert!(best < Duration::from_secs(2), "{best:?}");
}
