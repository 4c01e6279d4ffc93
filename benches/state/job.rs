//! The same work as a job: a rolling sum for each key.

use std::path::Path;
use std::task::{Context, Poll};

use flott::dataflow::api::StreamEnv;
use flott::dataflow::batch::Batch;
use flott::dataflow::codec::{decode_value, encode_value};
use flott::dataflow::context::OperatorContext;
use flott::dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott::prelude::*;
use flott::schema::config::options::StateBackend;
use flott::storage::{Storage, manifest};
use flott::{EmbeddedCluster, EmbeddedOptions};

use crate::{Case, Engine, Outcome};

pub fn run(case: &Case, folder: &Path) -> Outcome {
    let env = StreamEnv::new();
    env.set_parallelism(1);
    let records = Records { count: case.records, key: case.key() };
    // Apart from the source, as in a job whose keys come from elsewhere.
    let records = env.add_source(records, "Records");
    match case.value_bytes {
        0 => {
            records.key_by(|(key, _)| *key).sum(|(_, sum)| sum).uid("sum").discard();
        }
        bytes => {
            let large = records.map(move |(key, index)| (key, index, incompressible(key, bytes)));
            large.key_by(|(key, ..)| *key).sum(|(_, sum, _)| sum).uid("sum").discard();
        }
    }
    let mut options = EmbeddedOptions { scratch: folder.to_path_buf(), ..EmbeddedOptions::default() };
    let settings = &mut options.settings;
    settings.state.backend = match case.engine {
        Engine::RocksDb => StateBackend::RocksDb,
        Engine::Direct | Engine::HashMap => StateBackend::HashMap,
    };
    // Shared by the vertices in a slot.
    settings.state.memory_bytes = case.budget_bytes.unwrap_or(4 << 30) * 2;
    settings.checkpoints.interval_ms = case.interval_ms;
    settings.checkpoints.directory = Some(folder.join("checkpoints").display().to_string());
    settings.checkpoints.num_retained = 1_000;
    settings.checkpoints.tolerable_failures = 1_000;
    settings.checkpoints.retention =
        flott::schema::config::options::CheckpointRetention::RetainOnCancellation;
    let program = env.compile("keyed sum").expect("a graph");
    let watcher = Watcher::start(folder.join("checkpoints"));
    EmbeddedCluster::new(options).run(program).expect("the job finishes");
    watcher.end()
}

/// Bytes in which nothing is like anything else.
fn incompressible(key: u64, bytes: u64) -> Vec<u8> {
    let words = key * bytes..key * bytes + bytes.div_ceil(8);
    words.flat_map(|word| crate::mix(word).to_le_bytes()).collect()
}

/// Reads manifests while the job runs: those of a job that finishes go with it.
struct Watcher {
    stop: std::sync::mpsc::SyncSender<()>,
    thread: std::thread::JoinHandle<Outcome>,
}

impl Watcher {
    fn start(folder: std::path::PathBuf) -> Self {
        let (stop, stopped) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut seen = std::collections::BTreeSet::new();
            let mut outcome = Outcome::default();
            while stopped
                .recv_timeout(std::time::Duration::from_millis(20))
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let jobs = std::fs::read_dir(&folder).into_iter().flatten().flatten();
                let snapshots =
                    jobs.flat_map(|job| std::fs::read_dir(job.path()).into_iter().flatten().flatten());
                for snapshot in snapshots.filter(|snapshot| snapshot.path().join("_metadata").exists()) {
                    if !seen.insert(snapshot.path()) {
                        continue;
                    }
                    let storage = Storage::open(&snapshot.path().display().to_string());
                    let Ok(manifest) = storage.and_then(|storage| manifest::read(&storage)) else { continue };
                    let keyed = manifest
                        .tasks
                        .iter()
                        .filter(|task| task.operators.iter().any(|operator| !operator.keyed.is_empty()));
                    for task in keyed {
                        outcome.pauses_us.push(task.times.sync_us);
                        outcome.written_bytes.push(task.times.written_bytes);
                    }
                }
            }
            outcome
        });
        Watcher { stop, thread }
    }

    fn end(self) -> Outcome {
        drop(self.stop);
        self.thread.join().expect("it reads only")
    }
}

#[derive(Clone)]
struct Records<K> {
    count: u64,
    key: K,
}

impl<K: Fn(u64) -> u64 + Clone + Send + 'static> Source for Records<K> {
    type Record = (u64, u64);
    type Split = (u64, u64);
    type Enumerator = One;
    type Reader = Reader<K>;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _parallelism: u32) -> flott::Result<One> {
        Ok(One(Some((0, self.count))))
    }

    fn reader(&self, _ctx: &OperatorContext) -> flott::Result<Reader<K>> {
        Ok(Reader { key: self.key.clone(), range: None })
    }
}

struct One(Option<(u64, u64)>);

impl SplitEnumerator for One {
    type Split = (u64, u64);

    fn next_split(&mut self, _subtask: u32) -> flott::Result<Assignment<(u64, u64)>> {
        Ok(self.0.take().map_or(Assignment::NoMore, Assignment::Split))
    }

    fn snapshot(&self) -> flott::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(&self.0, &mut bytes)?;
        Ok(bytes)
    }

    fn restore(&mut self, state: &[u8]) -> flott::Result<()> {
        self.0 = decode_value(state)?;
        Ok(())
    }
}

struct Reader<K> {
    key: K,
    range: Option<(u64, u64)>,
}

impl<K: Fn(u64) -> u64 + 'static> SourceReader for Reader<K> {
    type Record = (u64, u64);
    type Split = (u64, u64);

    fn add_split(&mut self, split: (u64, u64)) -> flott::Result<()> {
        self.range = Some(split);
        Ok(())
    }

    fn read(&mut self, max_records: usize, _cx: &mut Context<'_>) -> flott::Result<ReadBatch<(u64, u64)>> {
        let Some((next, end)) = self.range.filter(|(next, end)| next < end) else {
            return Ok(Poll::Ready(None));
        };
        let upto = end.min(next + max_records as u64);
        self.range = Some((upto, end));
        let key = &self.key;
        Ok(Poll::Ready(Some(Batch::of((next..upto).map(|index| (key(index), index)).collect()))))
    }

    fn snapshot(&self) -> Vec<(u64, u64)> {
        self.range.into_iter().collect()
    }
}
