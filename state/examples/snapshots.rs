//! How long snapshots take: `cargo run --release -p flott-state --example snapshots [rows] [folder]`.
//!
//! One task with one table; keys and values have 16 bytes each. Times are from the end of the task's own
//! part, when all rows have been handed in, until everything is stored and synced.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use flott_dataflow::snapshot::{FrozenRows, RowSink, StateBackend, TableId, TableSpec, TaskState};
use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, VertexId};
use flott_schema::snapshot::{Barrier, SavepointFormat, SnapshotKind, TaskSnapshot};
use flott_schema::{Error, Result};
use flott_state::{
    Backend, SnapshotTarget, StateOptions, StateService, TaskBackend, TaskExtras, TaskIdentity,
};

const KEY_GROUPS: u32 = 128;
const PIECE: u64 = 4_096;
const CANONICAL: SnapshotKind = SnapshotKind::Savepoint(SavepointFormat::Canonical);

/// Mixes the bits of a number (the finaliser of splitmix64, by Sebastiano Vigna).
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn key(number: u64) -> (u16, [u8; 16]) {
    let hash = mixed(number);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&hash.to_le_bytes());
    key[8..].copy_from_slice(&number.to_le_bytes());
    ((hash % u64::from(KEY_GROUPS)) as u16, key)
}

/// Rows with every `step`th number of a range.
struct Rows {
    from: u64,
    to: u64,
    step: u64,
    value: u64,
}

impl FrozenRows for Rows {
    fn len(&self) -> usize {
        (self.to - self.from).div_ceil(self.step) as usize
    }

    fn encode(self: Box<Self>, rows: &mut dyn RowSink) -> Result<()> {
        for number in (self.from..self.to).step_by(self.step as usize) {
            let (group, key) = key(number);
            let mut value = [0; 16];
            value[..8].copy_from_slice(&self.value.to_le_bytes());
            value[8..].copy_from_slice(&mixed(number ^ self.value).to_le_bytes());
            rows.row(group, &key, Some(&value))?;
        }
        Ok(())
    }
}

struct Task {
    backend: Rc<TaskBackend>,
    state: Rc<dyn StateBackend>,
    table: TableId,
    folder: PathBuf,
    rows: u64,
    checkpoint: u64,
}

impl Task {
    /// Hands in every `step`th row; gives the times for that and for the rest.
    fn snapshot(&mut self, kind: SnapshotKind, step: u64) -> Result<(Duration, Duration, TaskSnapshot)> {
        self.checkpoint += 1;
        let started = Instant::now();
        self.backend.begin(&Barrier { kind, ..Barrier::of_checkpoint(self.checkpoint) })?;
        let mut sink = self.state.freeze(self.table);
        for from in (0..self.rows).step_by((PIECE * step) as usize) {
            let to = (from + PIECE * step).min(self.rows);
            sink.rows(Box::new(Rows { from, to, step, value: self.checkpoint }));
        }
        sink.done();
        let target = SnapshotTarget {
            folder: self.folder.join(format!("chk-{}", self.checkpoint)).to_string_lossy().into_owned(),
            shared_folder: (!kind.is_savepoint())
                .then(|| self.folder.join("shared").to_string_lossy().into_owned()),
        };
        let (send, done) = sync_channel(1);
        let told = Box::new(move |result| drop(send.send(result)));
        self.backend.passed(self.checkpoint, false);
        self.backend.end(self.checkpoint, target, TaskExtras::default(), told);
        let handed_in = started.elapsed();
        let snapshot = done
            .recv_timeout(Duration::from_secs(600))
            .map_err(|_| Error::internal("the snapshot does not end"))??;
        let whole = started.elapsed();
        self.backend.completed(self.checkpoint);
        Ok((handed_in, whole, snapshot))
    }

    fn report(&mut self, what: &str, kind: SnapshotKind, step: u64) -> Result<()> {
        let (handed_in, whole, snapshot) = self.snapshot(kind, step)?;
        let rows = self.rows.div_ceil(step);
        println!(
            "{what}: {rows} rows handed in after {handed_in:.0?}, stored after {whole:.0?}: {:.2} M rows/s; {:.1} MB in {} files written",
            rows as f64 / whole.as_secs_f64() / 1e6,
            snapshot.times.written_bytes as f64 / 1e6,
            snapshot.files().count(),
        );
        Ok(())
    }

    fn fetch(&self, keys: u64) -> Result<()> {
        let (started, mut found) = (Instant::now(), 0);
        for batch in 0..keys / 1_024 {
            let wanted: Vec<(u16, [u8; 16])> =
                (0..1_024).map(|at| key(mixed(batch * 1_024 + at) % self.rows)).collect();
            let wanted: Vec<(u16, &[u8])> = wanted.iter().map(|(group, key)| (*group, &key[..])).collect();
            self.state.fetch(self.table, &wanted, &mut |_, _| {
                found += 1;
                Ok(())
            })?;
        }
        println!(
            "fetch: {:.0} k rows/s in batches of 1,024",
            f64::from(found) / started.elapsed().as_secs_f64() / 1e3
        );
        Ok(())
    }
}

fn measure(backend: Backend, rows: u64, folder: PathBuf) -> Result<()> {
    println!("{backend:?}");
    let service = StateService::start(StateOptions { backend, ..StateOptions::new(folder.join("work")) })?;
    let operator = OperatorId::of_uid("operator");
    let task = TaskId { vertex: VertexId(1), subtask: 0 };
    let identity = TaskIdentity {
        job: JobId(1),
        attempt: AttemptId { task, job_epoch: 0, attempt: 0 },
        parallelism: 1,
        max_parallelism: KEY_GROUPS,
        operators: vec![operator],
        memory_bytes: 1 << 30,
        cancelled: Arc::default(),
    };
    let backend = TaskBackend::open(&service, identity, None)?;
    let state = backend.operator(operator, "operator");
    let types = || String::from("bytes");
    let spec = TableSpec { name: "table".into(), holds: "value", key_type: types(), value_type: types() };
    let table = state.table(spec)?;
    let mut task = Task { backend, state, table, folder: folder.join("snapshots"), rows, checkpoint: 0 };
    task.report("first checkpoint", SnapshotKind::Checkpoint, 1)?;
    if task.state.wants_changes() {
        task.report("a tenth has changed", SnapshotKind::Checkpoint, 10)?;
        task.report("all has changed", SnapshotKind::Checkpoint, 1)?;
        // Nobody changed anything.
        let rows = std::mem::replace(&mut task.rows, 0);
        task.report("nothing has changed", SnapshotKind::Checkpoint, 1)?;
        task.rows = rows;
        task.fetch(200_000)?;
    }
    task.report("canonical savepoint", CANONICAL, if task.state.wants_changes() { rows } else { 1 })?;
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments.next().map_or(Ok(1_000_000), |rows| rows.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("flott-snapshots-{}", std::process::id()));
    let measured = [Backend::HashMap, Backend::RocksDb]
        .into_iter()
        .try_for_each(|backend| measure(backend, rows, folder.join(format!("{backend:?}"))));
    // What a task leaves behind is deleted by others; the folder as a whole goes here.
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("{}: {error}", folder.display());
    }
    measured
}
