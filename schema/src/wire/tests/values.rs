//! Values of every word, at random.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::config::options::{CheckpointRetention, CheckpointingMode, StateBackend};
use crate::control::{
    CheckpointOrder, Order, Placement, PrepareOrder, Report, RunningTask, SnapshotReport, TaskFailure,
    TaskReport, TaskState, ToWorker, WorkerHost,
};
use crate::error::ErrorKind;
use crate::graph::{Edge, Exchange, ExecutionMode, JobGraph, OperatorSpec, Partitioning, Vertex};
use crate::ids::{AttemptId, JobId, OperatorId, SlotId, TaskId, VertexId, WorkerId};
use crate::job::{
    CheckpointSettings, JobSettings, JobSpec, ProgramDigest, ProgramRef, RestartStrategy, StateSettings,
    Submission,
};
use crate::key_group::KeyGroupRange;
use crate::snapshot::{
    AfterBarrier, Alignment, Barrier, ChannelSnapshot, KeyedSnapshot, ListMode, ListSnapshot, Manifest,
    ManifestOperator, ManifestVertex, OperatorSnapshot, RestoreFrom, SavepointFormat, SnapshotFile,
    SnapshotKind, SnapshotTimes, TableSnapshot, TaskSnapshot,
};
use crate::stats::{LogFile, OperatorStats, TaskStats, WorkerProfile, WorkerStats, WorkerUsage};

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..6).prop_map(String::from_iter)
}

fn job_id() -> impl Strategy<Value = JobId> {
    any::<u128>().prop_map(JobId)
}

fn vertex_id() -> impl Strategy<Value = VertexId> {
    any::<u128>().prop_map(VertexId)
}

fn operator_id() -> impl Strategy<Value = OperatorId> {
    any::<u128>().prop_map(OperatorId)
}

fn attempt() -> impl Strategy<Value = AttemptId> {
    (vertex_id(), any::<[u32; 3]>()).prop_map(|(vertex, [subtask, job_epoch, attempt])| AttemptId {
        task: TaskId { vertex, subtask },
        job_epoch,
        attempt,
    })
}

fn placement() -> impl Strategy<Value = Placement> {
    (attempt(), any::<u64>(), any::<u32>()).prop_map(|(attempt, worker, index)| Placement {
        attempt,
        slot: SlotId { worker: WorkerId(worker), index },
    })
}

fn state() -> impl Strategy<Value = TaskState> {
    select(&TaskState::ALL[..])
}

fn failure() -> impl Strategy<Value = TaskFailure> {
    let kinds = [
        ErrorKind::UserCode,
        ErrorKind::BadInput,
        ErrorKind::Configuration,
        ErrorKind::Graph,
        ErrorKind::Resources,
        ErrorKind::Io,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
        ErrorKind::Snapshot,
    ];
    (select(kinds.to_vec()), text(), any::<[u32; 2]>(), text(), option::of(text())).prop_map(
        |(kind, vertex, [subtask, parallelism], message, backtrace)| TaskFailure {
            kind,
            vertex,
            subtask,
            parallelism,
            message,
            backtrace,
        },
    )
}

pub fn task_report() -> impl Strategy<Value = TaskReport> {
    (job_id(), attempt(), state(), option::of(failure()))
        .prop_map(|(job, attempt, state, failure)| TaskReport { job, attempt, state, failure })
}

/// The report of a failure whose message has `bytes` bytes, two a letter but for the first.
pub fn long_report(bytes: usize) -> TaskReport {
    let failure = TaskFailure {
        kind: ErrorKind::UserCode,
        vertex: "map".into(),
        subtask: 0,
        parallelism: 1,
        message: "é".repeat(bytes / 2),
        backtrace: None,
    };
    let task = TaskId { vertex: VertexId(1), subtask: 0 };
    let attempt = AttemptId { task, job_epoch: 0, attempt: 0 };
    TaskReport { job: JobId(1), attempt, state: TaskState::Failed, failure: Some(failure) }
}

pub fn running_task() -> impl Strategy<Value = RunningTask> {
    (job_id(), attempt(), state()).prop_map(|(job, attempt, state)| RunningTask { job, attempt, state })
}

fn vertex() -> impl Strategy<Value = Vertex> {
    let operator = (operator_id(), text(), text()).prop_map(|(id, uid, name)| OperatorSpec { id, uid, name });
    (vertex_id(), text(), vec(operator, 0..3), any::<[u32; 2]>(), text(), any::<bool>()).prop_map(
        |(id, name, operators, [parallelism, max_parallelism], slot_sharing_group, is_source)| Vertex {
            id,
            name,
            operators,
            parallelism,
            max_parallelism,
            slot_sharing_group,
            is_source,
        },
    )
}

fn edge() -> impl Strategy<Value = Edge> {
    let partitionings = [
        Partitioning::Forward,
        Partitioning::KeyGroup,
        Partitioning::Rebalance,
        Partitioning::Rescale,
        Partitioning::Broadcast,
        Partitioning::Shuffle,
        Partitioning::Global,
        Partitioning::Custom,
    ];
    let exchange = select(vec![Exchange::Pipelined, Exchange::Blocking]);
    (vertex_id(), vertex_id(), any::<u16>(), select(partitionings.to_vec()), exchange).prop_map(
        |(source, target, input, partitioning, exchange)| Edge {
            source,
            target,
            input,
            partitioning,
            exchange,
        },
    )
}

fn graph() -> impl Strategy<Value = JobGraph> {
    let mode = select(vec![ExecutionMode::Streaming, ExecutionMode::Batch]);
    (text(), mode, vec(vertex(), 0..4), vec(edge(), 0..4))
        .prop_map(|(name, mode, vertices, edges)| JobGraph { name, mode, vertices, edges })
}

fn program() -> impl Strategy<Value = ProgramRef> {
    (any::<[u8; 32]>(), text(), vec(text(), 0..3), any::<u32>(), vec((text(), text()), 0..3)).prop_map(
        |(digest, name, arguments, execution, configuration)| ProgramRef {
            digest: ProgramDigest(digest),
            name,
            arguments,
            execution,
            configuration,
        },
    )
}

fn restart() -> impl Strategy<Value = RestartStrategy> {
    let numbers = (any::<[u32; 3]>(), any::<[u64; 3]>());
    (0..4, numbers).prop_map(|(kind, ([first, second, third], [early, middle, late]))| match kind {
        0 => RestartStrategy::None,
        1 => RestartStrategy::FixedDelay { attempts: first, delay_ms: early },
        2 => RestartStrategy::FailureRate { failures_max: first, interval_ms: early, delay_ms: middle },
        _ => RestartStrategy::ExponentialDelay {
            initial_ms: early,
            max_ms: middle,
            multiplier_milli: first,
            jitter_milli: second,
            reset_ms: late,
            attempts: third,
        },
    })
}

fn settings() -> impl Strategy<Value = JobSettings> {
    let own = (restart(), any::<bool>(), option::of(any::<u64>()), any::<u64>());
    (own, option::of(checkpoints()), option::of(state_settings())).prop_map(
        |((restart, restart_all, slot_wait_ms, cancellation_timeout_ms), checkpoints, state)| JobSettings {
            restart,
            restart_all,
            slot_wait_ms,
            cancellation_timeout_ms,
            checkpoints: checkpoints.unwrap_or_default(),
            state: state.unwrap_or_default(),
        },
    )
}

fn checkpoints() -> impl Strategy<Value = CheckpointSettings> {
    let modes = vec![CheckpointingMode::ExactlyOnce, CheckpointingMode::AtLeastOnce];
    let retentions = vec![
        CheckpointRetention::NoExternalizedCheckpoints,
        CheckpointRetention::DeleteOnCancellation,
        CheckpointRetention::RetainOnCancellation,
    ];
    let words = (select(modes), select(retentions), option::of(text()), option::of(text()));
    (option::of(1..u64::MAX), words, any::<[u64; 4]>(), any::<[u32; 3]>(), any::<[bool; 4]>()).prop_map(
        |(interval_ms, (mode, retention, directory, savepoint_directory), sizes, counts, flags)| {
            CheckpointSettings {
                interval_ms,
                mode,
                timeout_ms: sizes[0],
                min_pause_ms: sizes[1],
                max_concurrent: counts[0],
                tolerable_failures: counts[1],
                num_retained: counts[2],
                retention,
                directory,
                savepoint_directory,
                incremental: flags[0],
                unaligned: flags[1],
                aligned_timeout_ms: sizes[2],
                after_tasks_finish: flags[2],
                inline_threshold_bytes: sizes[3],
                compress: flags[3],
            }
        },
    )
}

fn state_settings() -> impl Strategy<Value = StateSettings> {
    let backend = select(vec![StateBackend::HashMap, StateBackend::RocksDb]);
    let folders = || vec(text(), 0..3);
    (backend, any::<u64>(), folders(), folders(), any::<[u32; 4]>(), any::<[bool; 3]>()).prop_map(
        |(backend, memory_bytes, local_directories, local_backup_directories, counts, flags)| StateSettings {
            backend,
            memory_bytes,
            local_directories,
            local_backup: flags[0],
            local_backup_directories,
            recover_from_local: flags[1],
            write_buffer_milli: counts[0],
            high_priority_milli: counts[1],
            threads: counts[2],
            transfer_threads: counts[3],
            bloom_filter: flags[2],
        },
    )
}

fn spec() -> impl Strategy<Value = JobSpec> {
    let parallelism = proptest::collection::btree_map(vertex_id(), any::<u32>(), 0..4);
    (graph(), option::of(program()), settings(), option::of(restore_from()), parallelism).prop_map(
        |(graph, program, settings, restore, parallelism)| JobSpec {
            graph: Arc::new(graph),
            program,
            settings,
            restore,
            parallelism,
        },
    )
}

pub fn submission() -> impl Strategy<Value = Submission> {
    (job_id(), spec()).prop_map(|(job, spec)| Submission { job, spec })
}

fn host() -> impl Strategy<Value = WorkerHost> {
    (any::<u64>(), text())
        .prop_map(|(worker, data_address)| WorkerHost { worker: WorkerId(worker), data_address })
}

fn prepare_order() -> impl Strategy<Value = PrepareOrder> {
    (job_id(), spec(), vec(placement(), 0..4), vec(host(), 0..3), option::of(restore_from())).prop_map(
        |(job, spec, tasks, hosts, restore)| PrepareOrder {
            job,
            spec: Arc::new(spec),
            tasks,
            hosts: hosts.into(),
            restore: restore.map(Arc::new),
        },
    )
}

pub fn order() -> impl Strategy<Value = Order> {
    let placements = || vec(placement(), 0..4);
    let deploy =
        (job_id(), spec(), placements(), placements(), vec(host(), 0..3), option::of(restore_from()))
            .prop_map(|(job, spec, tasks, peers, hosts, restore)| ToWorker::Deploy {
                job,
                spec: Arc::new(spec),
                tasks,
                peers: peers.into(),
                hosts: hosts.into(),
                restore: restore.map(Arc::new),
            });
    let checkpoint = checkpoint_order().prop_map(ToWorker::Checkpoint);
    let ended = (job_id(), any::<u64>(), any::<bool>(), vec(attempt(), 0..4)).prop_map(
        |(job, checkpoint, completed, attempts)| ToWorker::CheckpointEnded {
            job,
            checkpoint,
            completed,
            attempts,
        },
    );
    let cancel =
        (job_id(), vec(attempt(), 0..4)).prop_map(|(job, attempts)| ToWorker::Cancel { job, attempts });
    let release = job_id().prop_map(|job| ToWorker::Release { job });
    let prepare = prepare_order().prop_map(ToWorker::Prepare);
    let message =
        prop_oneof![2 => deploy, 1 => checkpoint, 1 => ended, 1 => prepare, 1 => cancel, 1 => release];
    (any::<u64>(), message).prop_map(|(term, message)| Order { term, message })
}

fn barrier() -> impl Strategy<Value = Barrier> {
    let kinds = vec![
        SnapshotKind::Checkpoint,
        SnapshotKind::FullCheckpoint,
        SnapshotKind::Savepoint(SavepointFormat::Canonical),
        SnapshotKind::Savepoint(SavepointFormat::Native),
    ];
    let after = select(vec![AfterBarrier::GoOn, AfterBarrier::Suspend, AfterBarrier::Drain]);
    let alignment = prop_oneof![
        Just(Alignment::Aligned),
        any::<u32>().prop_map(Alignment::UnalignedAfter),
        Just(Alignment::None)
    ];
    (any::<u64>(), any::<i64>(), select(kinds), after, alignment).prop_map(
        |(checkpoint, timestamp_ms, kind, after, alignment)| Barrier {
            checkpoint,
            timestamp_ms,
            kind,
            after,
            alignment,
        },
    )
}

fn checkpoint_order() -> impl Strategy<Value = CheckpointOrder> {
    (job_id(), barrier(), text(), option::of(text()), vec(attempt(), 0..4)).prop_map(
        |(job, barrier, folder, shared_folder, attempts)| CheckpointOrder {
            job,
            barrier,
            folder,
            shared_folder,
            attempts,
        },
    )
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn snapshot_file() -> impl Strategy<Value = SnapshotFile> {
    (text(), text(), any::<u64>(), any::<u32>()).prop_map(|(name, path, size, crc32c)| SnapshotFile {
        name,
        path,
        size,
        crc32c,
    })
}

fn operator_snapshot() -> impl Strategy<Value = OperatorSnapshot> {
    let mode = select(vec![ListMode::Split, ListMode::Union, ListMode::Broadcast]);
    let list = (text(), mode, text(), vec(data(), 0..3), option::of(snapshot_file()))
        .prop_map(|(name, mode, item_type, items, file)| ListSnapshot { name, mode, item_type, items, file });
    let table = ([text(), text(), text(), text()], any::<u16>()).prop_map(
        |([name, holds, key_type, value_type], number)| TableSnapshot {
            name,
            number,
            holds,
            key_type,
            value_type,
        },
    );
    let keyed = (any::<[u32; 2]>(), text(), vec(table, 0..3), vec(snapshot_file(), 0..3)).prop_map(
        |([start, end], format, tables, files)| KeyedSnapshot {
            key_groups: KeyGroupRange { start, end },
            format,
            tables,
            files,
        },
    );
    (option::of(operator_id()), vec(list, 0..3), vec(keyed, 0..2), option::of(data())).prop_map(
        |(operator, lists, keyed, enumerator)| OperatorSnapshot { operator, lists, keyed, enumerator },
    )
}

fn task_snapshot() -> impl Strategy<Value = TaskSnapshot> {
    let channel = (any::<[u32; 2]>(), snapshot_file()).prop_map(|([edge, source], file)| ChannelSnapshot {
        edge,
        source,
        file,
    });
    let times = (any::<[u64; 8]>(), any::<bool>()).prop_map(|(counts, unaligned)| SnapshotTimes {
        start_delay_ms: counts[0],
        alignment_ms: counts[1],
        sync_us: counts[2],
        async_ms: counts[3],
        written_bytes: counts[4],
        state_bytes: counts[5],
        processed_bytes: counts[6],
        persisted_bytes: counts[7],
        unaligned,
    });
    (attempt(), any::<bool>(), vec(operator_snapshot(), 0..3), vec(channel, 0..3), times).prop_map(
        |(attempt, finished, operators, channels, times)| TaskSnapshot {
            task: attempt.task,
            finished,
            operators,
            channels,
            times,
        },
    )
}

fn snapshot_report() -> impl Strategy<Value = SnapshotReport> {
    let result = prop_oneof![task_snapshot().prop_map(Ok), text().prop_map(Err)];
    (job_id(), attempt(), any::<[u64; 2]>(), result).prop_map(
        |(job, attempt, [checkpoint, handed_in], result)| SnapshotReport {
            job,
            attempt,
            checkpoint,
            handed_in,
            result,
        },
    )
}

pub fn report() -> impl Strategy<Value = Report> {
    prop_oneof![
        task_report().prop_map(Report::Task),
        snapshot_report().prop_map(|report| Report::LastSnapshot(Box::new(report)))
    ]
}

pub fn waiting_task() -> impl Strategy<Value = (JobId, AttemptId)> {
    (job_id(), attempt())
}

fn restore_from() -> impl Strategy<Value = RestoreFrom> {
    (text(), any::<u64>(), any::<[bool; 2]>()).prop_map(|(folder, checkpoint, [ignore_unclaimed, own])| {
        RestoreFrom { folder, checkpoint, ignore_unclaimed, own }
    })
}

pub fn manifest() -> impl Strategy<Value = Manifest> {
    let operator = (operator_id(), text(), text()).prop_map(|(operator, uid, name)| ManifestOperator {
        operator,
        uid,
        name,
    });
    let vertex = (vertex_id(), text(), any::<[u32; 2]>(), vec(operator, 0..3)).prop_map(
        |(vertex, name, [parallelism, max_parallelism], operators)| ManifestVertex {
            vertex,
            name,
            parallelism,
            max_parallelism,
            operators,
        },
    );
    (job_id(), text(), barrier(), vec(vertex, 0..3), vec(task_snapshot(), 0..3)).prop_map(
        |(job, job_name, barrier, vertices, tasks)| Manifest {
            job,
            job_name,
            checkpoint: barrier.checkpoint,
            kind: barrier.kind,
            timestamp_ms: barrier.timestamp_ms,
            vertices,
            tasks,
        },
    )
}

fn operator_stats() -> impl Strategy<Value = OperatorStats> {
    (option::of(operator_id()), any::<[u64; 4]>()).prop_map(|(operator, counts)| OperatorStats {
        operator,
        records_in: counts[0],
        records_out: counts[1],
        late_records_dropped: counts[2],
        undecodable_records: counts[3],
    })
}

fn task_stats() -> impl Strategy<Value = TaskStats> {
    (job_id(), attempt(), any::<[u64; 9]>(), option::of(any::<i64>()), vec(operator_stats(), 0..3)).prop_map(
        |(job, attempt, counts, input_watermark_ms, operators)| TaskStats {
            job,
            attempt,
            records_in: counts[0],
            records_out: counts[1],
            bytes_in: counts[2],
            bytes_out: counts[3],
            batches_in: counts[4],
            batches_out: counts[5],
            busy_ms: counts[6],
            idle_ms: counts[7],
            backpressured_ms: counts[8],
            input_watermark_ms,
            operators,
        },
    )
}

pub fn worker_stats() -> impl Strategy<Value = WorkerStats> {
    (any::<[u64; 4]>(), any::<u32>(), vec(task_stats(), 0..3)).prop_map(|(sizes, executors, tasks)| {
        let usage = WorkerUsage {
            resident_bytes: sizes[0],
            executors_resident_bytes: sizes[1],
            host_free_bytes: sizes[2],
            cpu_ms: sizes[3],
            executors,
        };
        WorkerStats { usage, tasks }
    })
}

pub fn worker_profile() -> impl Strategy<Value = WorkerProfile> {
    ([text(), text(), text(), text()], any::<[u32; 2]>(), any::<[u64; 2]>(), any::<u16>()).prop_map(
        |([name, host, data_address, version], [slots, cores], [memory, slot_memory], metrics_port)| {
            WorkerProfile {
                name,
                host,
                data_address,
                slots,
                cores,
                memory_bytes: memory,
                slot_memory_bytes: slot_memory,
                metrics_port,
                version,
            }
        },
    )
}

pub fn log_file() -> impl Strategy<Value = LogFile> {
    (text(), any::<[u64; 2]>()).prop_map(|(name, [size, modified_ms])| LogFile { name, size, modified_ms })
}
