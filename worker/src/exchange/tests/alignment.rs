//! Sources of one alignment group in two executors.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use flott_dataflow::api::StreamEnv;
use flott_dataflow::batch::Batch;
use flott_dataflow::context::OperatorContext;
use flott_dataflow::program::RuntimeMode;
use flott_dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott_dataflow::time::WatermarkStrategy;
use flott_dataflow::time::alignment::AlignmentRegistry;
use flott_schema::Result;
use flott_schema::ids::WorkerId;
use tokio::time::{Sleep, sleep};

use super::harness::Cluster;
use super::programs::Sunk;

const GROUP: &str = "group";
const DRIFT_MS: u64 = 5_000;
const STEP_MS: u64 = 1_000;

/// One record, a timestamp, at a time, each after a pause; the first of the follower only once the other executor has
/// reported its watermark.
#[derive(Clone)]
struct Paced {
    timestamps: Vec<u64>,
    pause: Duration,
    follows: bool,
}

impl Source for Paced {
    type Record = (bool, u64);
    type Split = ();
    type Enumerator = Once;
    type Reader = Reader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _parallelism: u32) -> Result<Once> {
        Ok(Once(true))
    }

    fn reader(&self, ctx: &OperatorContext) -> Result<Reader> {
        let alignment = self.follows.then(|| ctx.task.alignment.clone());
        Ok(Reader { source: self.clone(), next: 0, pause: None, alignment })
    }
}

struct Once(bool);

impl SplitEnumerator for Once {
    type Split = ();

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<()>> {
        Ok(if std::mem::take(&mut self.0) { Assignment::Split(()) } else { Assignment::NoMore })
    }
}

struct Reader {
    source: Paced,
    next: usize,
    pause: Option<Pin<Box<Sleep>>>,
    /// Until the other executor is heard of.
    alignment: Option<Arc<AlignmentRegistry>>,
}

impl SourceReader for Reader {
    type Record = (bool, u64);
    type Split = ();

    fn add_split(&mut self, (): ()) -> Result<()> {
        Ok(())
    }

    fn read(&mut self, _max_records: usize, cx: &mut Context<'_>) -> Result<ReadBatch<(bool, u64)>> {
        loop {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(self.source.pause)));
            if pause.as_mut().poll(cx).is_pending() {
                return Ok(Poll::Pending);
            }
            self.pause = None;
            // Reports of nobody, to see what the group knows.
            if self.alignment.as_ref().is_none_or(|group| group.report(GROUP, u64::MAX, None).is_some()) {
                break;
            }
        }
        self.alignment = None;
        let timestamp = self.source.timestamps.get(self.next).copied();
        self.next += 1;
        Ok(Poll::Ready(timestamp.map(|timestamp| Batch::of(vec![(self.source.follows, timestamp)]))))
    }

    fn snapshot(&self) -> Vec<()> {
        Vec::new()
    }
}

#[test]
fn a_source_waits_for_a_slower_one_in_another_executor() {
    let strategy = || {
        let drift = Duration::from_millis(DRIFT_MS);
        WatermarkStrategy::monotonous()
            .with_timestamp(|(_, timestamp): &(bool, u64)| *timestamp as i64)
            .with_alignment(GROUP, drift, Duration::from_millis(1))
    };
    let sunk = Sunk::new();
    let env = StreamEnv::new();
    env.set_parallelism(1).set_runtime_mode(RuntimeMode::Streaming);
    // In each pause of the leader, the follower has time for all of its records.
    let leader = Paced {
        timestamps: vec![0, 10_000, 20_000, 100_000],
        pause: Duration::from_millis(200),
        follows: false,
    };
    // A pause longer than the interval of reports, so that there is one between any two records.
    let follower = Paced {
        timestamps: (0..60).map(|n| n * STEP_MS).collect(),
        pause: Duration::from_millis(3),
        follows: true,
    };
    env.from_source(leader, strategy(), "leader").sink_to(sunk.clone(), "leader's");
    env.from_source(follower, strategy(), "follower").sink_to(sunk.clone(), "follower's");
    let mut cluster = Cluster::start(2, env.compile("aligned").unwrap(), |_| {});
    let (leader, follower) = (cluster.vertex("leader"), cluster.vertex("follower"));
    let mut tasks = cluster.place(&[leader], 0, |_| Some(WorkerId(1)));
    tasks.extend(cluster.place(&[follower], 0, |_| Some(WorkerId(2))));
    cluster.deploy(&tasks);
    cluster.wait_for_end(&tasks);
    assert_eq!(cluster.failures(&tasks), Vec::<String>::new());
    let mut led = 0;
    // Both are subtask 0, so this is the order in which they were written.
    let written = sunk.of(0);
    for (number, (follows, timestamp)) in written.iter().copied().enumerate() {
        if follows {
            let most = led + DRIFT_MS + STEP_MS;
            assert!(timestamp <= most, "{timestamp} ms, {most} allowed: {:?}", &written[..=number]);
        } else {
            led = timestamp;
        }
    }
    assert_eq!(written.len(), 64, "{written:?}");
}
