//! What the first version wrote of snapshots, into messages and into manifests, is read, and written, for ever.

mod frozen;

use std::path::Path;
use std::sync::Arc;

use flott_schema::config::options::{CheckpointRetention, CheckpointingMode, StateBackend};
use flott_schema::control::{
    CheckpointOrder, LAST_SNAPSHOT, Order, Placement, PrepareOrder, Report, SnapshotReport, ToWorker,
    WorkerHost,
};
use flott_schema::graph::{ExecutionMode, JobGraph};
use flott_schema::ids::{AttemptId, JobId, OperatorId, SlotId, TaskId, VertexId, WorkerId};
use flott_schema::job::{CheckpointSettings, JobSettings, JobSpec, StateSettings};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::{
    AfterBarrier, Alignment, Barrier, ChannelSnapshot, KeyedSnapshot, ListMode, ListSnapshot, Manifest,
    ManifestOperator, ManifestVertex, OperatorSnapshot, RestoreFrom, SavepointFormat, SnapshotFile,
    SnapshotKind, SnapshotTimes, TableSnapshot, TaskSnapshot,
};

use frozen::sample;

const JOB: JobId = JobId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
const VERTEX: u128 = 0x1111_2222_3333_4444_5555_6666_7777_8888;

fn task() -> TaskId {
    TaskId { vertex: VertexId(VERTEX), subtask: 1 }
}

fn attempt() -> AttemptId {
    AttemptId { task: task(), job_epoch: 3, attempt: 2 }
}

fn file(name: &str, path: &str) -> SnapshotFile {
    SnapshotFile { name: name.into(), path: path.into(), size: 4_096, crc32c: 0xdead_beef }
}

fn list(name: &str, mode: ListMode) -> ListSnapshot {
    let items = vec![vec![1, 2, 3], vec![]];
    ListSnapshot { name: name.into(), mode, item_type: "u64".into(), items, file: None }
}

fn task_snapshot() -> TaskSnapshot {
    let table = TableSnapshot {
        name: "sum".into(),
        number: 2,
        holds: "value".into(),
        key_type: "string".into(),
        value_type: "i64".into(),
    };
    let keyed = KeyedSnapshot {
        key_groups: KeyGroupRange { start: 64, end: 128 },
        format: "rocksdb-1".into(),
        tables: vec![table],
        files: vec![file("000012.sst", "../shared/0c-000012.sst"), file("CURRENT", "keyed-1/CURRENT")],
    };
    let lists = vec![
        list("splits", ListMode::Split),
        list("partitions", ListMode::Union),
        list("rules", ListMode::Broadcast),
    ];
    let operator = OperatorSnapshot {
        operator: Some(OperatorId(VERTEX)),
        lists,
        keyed: vec![keyed],
        enumerator: Some(vec![9, 8, 7]),
    };
    TaskSnapshot {
        task: task(),
        finished: true,
        operators: vec![operator, OperatorSnapshot::default()],
        channels: vec![ChannelSnapshot { edge: 4, source: 5, file: file("channel-4-5", "channel-4-5") }],
        times: SnapshotTimes {
            start_delay_ms: 11,
            alignment_ms: 12,
            sync_us: 13,
            async_ms: 14,
            written_bytes: 15,
            state_bytes: 16,
            processed_bytes: 17,
            persisted_bytes: 18,
            unaligned: true,
        },
    }
}

fn manifest(kind: SnapshotKind) -> Manifest {
    let operators =
        vec![ManifestOperator { operator: OperatorId(VERTEX), uid: "sum-1".into(), name: "sum".into() }];
    let vertex = ManifestVertex {
        vertex: VertexId(VERTEX),
        name: "sum".into(),
        parallelism: 2,
        max_parallelism: 128,
        operators,
    };
    Manifest {
        job: JOB,
        job_name: "café".into(),
        checkpoint: 42,
        kind,
        timestamp_ms: 1_790_000_000_000,
        vertices: vec![vertex],
        tasks: vec![task_snapshot()],
    }
}

fn restore() -> RestoreFrom {
    RestoreFrom { folder: "file:///data/chk-42".into(), checkpoint: 42, ignore_unclaimed: true, own: true }
}

fn deploy() -> ToWorker {
    let graph =
        JobGraph { name: "job".into(), mode: ExecutionMode::Streaming, vertices: vec![], edges: vec![] };
    ToWorker::Deploy {
        job: JOB,
        spec: Arc::new(JobSpec::embedded(graph)),
        tasks: vec![],
        peers: Arc::new([]),
        hosts: Arc::new([]),
        restore: Some(Arc::new(restore())),
    }
}

fn prepare() -> ToWorker {
    let ToWorker::Deploy { job, spec, restore, .. } = deploy() else { unreachable!("it is one") };
    let slot = SlotId { worker: WorkerId(7), index: 1 };
    ToWorker::Prepare(PrepareOrder {
        job,
        spec,
        tasks: vec![Placement { attempt: attempt(), slot }],
        hosts: Arc::new([WorkerHost { worker: WorkerId(7), data_address: "worker-7:6121".into() }]),
        restore,
    })
}

fn checkpoint(barrier: Barrier, shared_folder: Option<&str>) -> Order {
    let message = ToWorker::Checkpoint(CheckpointOrder {
        job: JOB,
        barrier,
        folder: "file:///data/chk-42".into(),
        shared_folder: shared_folder.map(str::to_string),
        attempts: vec![attempt()],
    });
    Order { term: 5, message }
}

fn snapshot_report(checkpoint: u64, result: Result<TaskSnapshot, &str>) -> SnapshotReport {
    let result = result.map_err(str::to_string);
    SnapshotReport { job: JOB, attempt: attempt(), checkpoint, handed_in: 0, result }
}

/// Settings and a spec in which nothing is as it is without a word.
fn settled() -> JobSpec {
    let checkpoints = CheckpointSettings {
        interval_ms: Some(3_000),
        mode: CheckpointingMode::AtLeastOnce,
        timeout_ms: 60_000,
        min_pause_ms: 500,
        max_concurrent: 2,
        tolerable_failures: 3,
        num_retained: 4,
        retention: CheckpointRetention::RetainOnCancellation,
        directory: Some("file:///data/checkpoints".into()),
        savepoint_directory: Some("/data/savepoints".into()),
        incremental: false,
        unaligned: true,
        aligned_timeout_ms: 100,
        after_tasks_finish: false,
        inline_threshold_bytes: 1_024,
        compress: true,
    };
    let state = StateSettings {
        backend: StateBackend::HashMap,
        memory_bytes: 64 << 20,
        local_directories: vec!["/disk1".into(), "/disk2".into()],
        local_backup: true,
        local_backup_directories: vec!["/disk3".into()],
        recover_from_local: true,
        write_buffer_milli: 250,
        high_priority_milli: 200,
        threads: 3,
        transfer_threads: 8,
        bloom_filter: true,
    };
    let settings = JobSettings { checkpoints, state, ..JobSettings::default() };
    let graph =
        JobGraph { name: "job".into(), mode: ExecutionMode::Streaming, vertices: vec![], edges: vec![] };
    JobSpec { settings, restore: Some(restore()), ..JobSpec::embedded(graph) }
}

#[test]
fn messages_and_manifests_stay_as_they_were_written_first() {
    let plain = checkpoint(Barrier::of_checkpoint(42), Some("file:///data/shared"));
    let unaligned = Barrier {
        timestamp_ms: 1_790_000_000_000,
        kind: SnapshotKind::FullCheckpoint,
        after: AfterBarrier::Suspend,
        alignment: Alignment::UnalignedAfter(200),
        ..Barrier::of_checkpoint(43)
    };
    let unaligned = checkpoint(unaligned, None);
    let drain = Barrier {
        kind: SnapshotKind::Savepoint(SavepointFormat::Native),
        after: AfterBarrier::Drain,
        alignment: Alignment::None,
        ..Barrier::of_checkpoint(44)
    };
    let drain = checkpoint(drain, None);
    let deploy = Order { term: 5, message: deploy() };
    let prepare = Order { term: 5, message: prepare() };
    let ended =
        ToWorker::CheckpointEnded { job: JOB, checkpoint: 42, completed: true, attempts: vec![attempt()] };
    let ended = Order { term: 5, message: ended };
    let taken = snapshot_report(42, Ok(task_snapshot()));
    let failed = snapshot_report(42, Err("disk full"));
    let last = Report::LastSnapshot(Box::new(snapshot_report(LAST_SNAPSHOT, Ok(task_snapshot()))));
    let handed_in = SnapshotReport { handed_in: 42, ..snapshot_report(LAST_SNAPSHOT, Ok(task_snapshot())) };
    let last_behind_others = Report::LastSnapshot(Box::new(handed_in));
    let waiting = (JOB, attempt());
    let incremental = manifest(SnapshotKind::Checkpoint);
    let full = manifest(SnapshotKind::FullCheckpoint);
    let canonical = manifest(SnapshotKind::Savepoint(SavepointFormat::Canonical));
    let native = manifest(SnapshotKind::Savepoint(SavepointFormat::Native));
    let (restore, settled) = (restore(), settled());
    let kept =
        CheckpointSettings { retention: CheckpointRetention::DeleteOnCancellation, ..Default::default() };
    let in_file = ListSnapshot {
        items: vec![],
        file: Some(file("list-1", "list-1")),
        ..list("splits", ListMode::Split)
    };
    let samples = [
        sample("order.deploy.restore", &deploy),
        sample("order.checkpoint", &plain),
        sample("order.checkpoint.unaligned", &unaligned),
        sample("order.checkpoint.drain", &drain),
        sample("order.checkpoint_ended", &ended),
        sample("order.prepare", &prepare),
        sample("snapshot_report.taken", &taken),
        sample("snapshot_report.failed", &failed),
        sample("report.last_snapshot", &last),
        sample("report.last_snapshot.handed_in", &last_behind_others),
        sample("waiting_task", &waiting),
        sample("manifest", &incremental),
        sample("manifest.full", &full),
        sample("manifest.canonical_savepoint", &canonical),
        sample("manifest.native_savepoint", &native),
        sample("restore_from", &restore),
        sample("job_spec.snapshots", &settled),
        sample("checkpoint_settings.delete_on_cancellation", &kept),
        sample("list_snapshot.file", &in_file),
    ];
    frozen::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/snapshots.txt"), &samples);
}
