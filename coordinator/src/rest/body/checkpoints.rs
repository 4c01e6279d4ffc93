//! Checkpoints and savepoints of a job.

use std::collections::BTreeMap;

use flott_schema::config::options::{CheckpointRetention, CheckpointingMode, StateBackend};
use flott_schema::ids::{TaskId, VertexId};
use flott_schema::job::JobSettings;
use flott_schema::snapshot::{SavepointFormat, SnapshotKind};
use serde_json::{Map, Value, json};

use super::Body;
use super::throwable::throwable;
use crate::checkpoints::{CheckpointDetails, PartDetails};
use crate::machine::{
    CheckpointOutcome, CheckpointRecord, CheckpointStats, JobCheckpoints, JobRecord, Operation, Purpose,
};

/// Flink's summary of numbers. Percentiles are those of the nearest rank.
fn summary(values: impl Iterator<Item = u64>) -> Value {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let sum: u64 = values.iter().fold(0, |sum, value| sum.saturating_add(*value));
    let average = sum.checked_div(values.len() as u64).unwrap_or(0);
    let mut found = Map::new();
    found.insert("min".into(), json!(values.first().copied().unwrap_or(0)));
    found.insert("max".into(), json!(values.last().copied().unwrap_or(0)));
    found.insert("avg".into(), json!(average));
    for (name, per_mille) in [("p50", 500), ("p90", 900), ("p95", 950), ("p99", 990), ("p999", 999)] {
        let rank = (values.len() * per_mille).div_ceil(1_000).max(1) - 1;
        let value = values.get(rank).map_or_else(|| json!("NaN"), |value| json!(*value as f64));
        found.insert(name.into(), value);
    }
    Value::Object(found)
}

/// How long a snapshot took, or has taken so far.
fn duration_ms(one: &CheckpointRecord, now_ms: u64) -> u64 {
    one.ended_ms().unwrap_or(now_ms).saturating_sub(one.triggered_ms)
}

fn status_of(one: &CheckpointRecord) -> (&'static str, &'static str) {
    match one.outcome {
        CheckpointOutcome::Pending => ("in_progress", "IN_PROGRESS"),
        CheckpointOutcome::Completed { .. } => ("completed", "COMPLETED"),
        CheckpointOutcome::Failed { .. } => ("failed", "FAILED"),
    }
}

/// Flink's numbers of a snapshot, or of a vertex's part of it.
fn numbers(stats: &CheckpointStats, duration_ms: u64, tasks: u32) -> Value {
    json!({
        "latest_ack_timestamp": match stats.last_ack_ms { 0 => json!(-1), at_ms => json!(at_ms) },
        "checkpointed_size": stats.written_bytes,
        "state_size": stats.state_bytes,
        "end_to_end_duration": duration_ms,
        "alignment_buffered": 0,
        "processed_data": stats.processed_bytes,
        "persisted_data": stats.persisted_bytes,
        "num_subtasks": tasks,
        "num_acknowledged_subtasks": stats.acknowledged,
    })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// A snapshot. `stats`: how far it is, where it is under way.
fn one(job: &JobRecord, one: &CheckpointRecord, stats: Option<CheckpointStats>, now_ms: u64) -> Value {
    let (class, status) = status_of(one);
    let stats = stats.unwrap_or(one.stats);
    let format = match one.kind {
        SnapshotKind::Savepoint(SavepointFormat::Canonical) => json!("CANONICAL"),
        SnapshotKind::Savepoint(SavepointFormat::Native) => json!("NATIVE"),
        SnapshotKind::Checkpoint | SnapshotKind::FullCheckpoint => Value::Null,
    };
    let kind = match (one.kind.is_savepoint(), one.purpose) {
        (true, Purpose::Stop | Purpose::Drain) => "SYNC_SAVEPOINT",
        (true, _) => "SAVEPOINT",
        (false, _) if stats.unaligned => "UNALIGNED_CHECKPOINT",
        (false, _) => "CHECKPOINT",
    };
    let mut found = json!({
        "className": class,
        "id": one.id,
        "status": status,
        "is_savepoint": one.kind.is_savepoint(),
        "savepointFormat": format,
        "trigger_timestamp": one.triggered_ms,
        "checkpoint_type": kind,
        "tasks": {},
    });
    merge(&mut found, numbers(&stats, duration_ms(one, now_ms), one.tasks));
    let checkpoints = job.checkpoints();
    match &one.outcome {
        CheckpointOutcome::Pending => {}
        CheckpointOutcome::Completed { .. } => {
            let kept = match one.kind.is_savepoint() {
                true => checkpoints.savepoints().any(|kept| kept.id == one.id),
                false => checkpoints.is_retained(one.id),
            };
            merge(&mut found, json!({ "external_path": one.folder, "discarded": !kept }));
        }
        CheckpointOutcome::Failed { at_ms, reason } => {
            merge(&mut found, json!({ "failure_timestamp": at_ms, "failure_message": reason }));
        }
    }
    found
}

/// `/jobs/:jobid/checkpoints`. `pending`: how far those under way are.
pub(in crate::rest) fn checkpoints(
    job: &JobRecord,
    pending: &BTreeMap<u64, CheckpointStats>,
    now_ms: u64,
) -> Body {
    let checkpoints = job.checkpoints();
    let show = |record: &CheckpointRecord| one(job, record, pending.get(&record.id).copied(), now_ms);
    let in_progress = checkpoints.pending().len() as u64;
    let [completed, savepoint, failed] = checkpoints.latest().map(|latest| latest.map(show));
    let restored = checkpoints.restored().map(|restored| {
        json!({
            "id": restored.from.checkpoint,
            "restore_timestamp": restored.at_ms,
            "is_savepoint": !restored.from.own,
            "external_path": restored.from.folder,
        })
    });
    let mut history: Vec<&CheckpointRecord> = checkpoints.history().chain(checkpoints.pending()).collect();
    history.sort_by_key(|record| std::cmp::Reverse(record.id));
    let complete = || checkpoints.history().filter(|record| record.is_completed());
    let over = |value: fn(&CheckpointStats) -> u64| summary(complete().map(|record| value(&record.stats)));
    Body::of(&json!({
        "counts": {
            "restored": checkpoints.restores(),
            "total": in_progress + checkpoints.completed() + checkpoints.failed(),
            "in_progress": in_progress,
            "completed": checkpoints.completed(),
            "failed": checkpoints.failed(),
        },
        "summary": {
            "checkpointed_size": over(|stats| stats.written_bytes),
            "state_size": over(|stats| stats.state_bytes),
            "end_to_end_duration": summary(complete().map(|record| duration_ms(record, now_ms))),
            "alignment_buffered": summary(complete().map(|_| 0)),
            "processed_data": over(|stats| stats.processed_bytes),
            "persisted_data": over(|stats| stats.persisted_bytes),
        },
        "latest": { "completed": completed, "savepoint": savepoint, "failed": failed, "restored": restored },
        "history": history.into_iter().map(show).collect::<Vec<_>>(),
    }))
}

/// `/jobs/:jobid/checkpoints/retained`, Flott's own. `exists`: of each whether it is there, if that is known.
pub(in crate::rest) fn retained(known: &[CheckpointRecord], exists: &[Option<bool>]) -> Body {
    let shown = known.iter().zip(exists).map(|(one, exists)| {
        json!({
            "id": one.id,
            "is_savepoint": one.kind.is_savepoint(),
            "trigger_timestamp": one.triggered_ms,
            "state_size": one.stats.state_bytes,
            "external_path": one.folder,
            "exists": exists,
        })
    });
    Body::of(&json!({ "retained": shown.collect::<Vec<_>>() }))
}

/// `/jobs/:jobid/checkpoints/details/:checkpointid`.
pub(in crate::rest) fn details(
    job: &JobRecord,
    record: &CheckpointRecord,
    stats: Option<CheckpointStats>,
    details: Option<&CheckpointDetails>,
    now_ms: u64,
) -> Body {
    let mut found = one(job, record, stats, now_ms);
    let vertices = job.graph().vertices.iter().map(|vertex| {
        (vertex.id.to_string(), of_vertex(record, vertex.id, vertex.parallelism, details, now_ms))
    });
    found["tasks"] = Value::Object(vertices.collect());
    Body::of(&found)
}

fn parts_of(details: Option<&CheckpointDetails>, vertex: VertexId) -> Vec<(TaskId, PartDetails)> {
    let parts = details.into_iter().flat_map(|details| &details.parts);
    parts.filter(|(task, _)| task.vertex == vertex).map(|(task, part)| (*task, *part)).collect()
}

fn of_vertex(
    record: &CheckpointRecord,
    vertex: VertexId,
    tasks: u32,
    details: Option<&CheckpointDetails>,
    now_ms: u64,
) -> Value {
    let mut stats = CheckpointStats::default();
    for (_, part) in parts_of(details, vertex) {
        stats.acknowledged += 1;
        stats.last_ack_ms = stats.last_ack_ms.max(part.at_ms);
        stats.written_bytes += part.times.written_bytes;
        stats.state_bytes += part.times.state_bytes;
        stats.processed_bytes += part.times.processed_bytes;
        stats.persisted_bytes += part.times.persisted_bytes;
    }
    let until_ms = match (stats.last_ack_ms, stats.acknowledged < tasks) {
        (0, _) | (_, true) => record.ended_ms().unwrap_or(now_ms),
        (at_ms, false) => at_ms,
    };
    let duration_ms = until_ms.saturating_sub(record.triggered_ms);
    let mut found = json!({ "id": record.id, "status": status_of(record).1 });
    merge(&mut found, numbers(&stats, duration_ms, tasks));
    found
}

/// `/jobs/:jobid/checkpoints/details/:checkpointid/subtasks/:vertexid`.
pub(in crate::rest) fn subtask_details(
    record: &CheckpointRecord,
    vertex: VertexId,
    tasks: u32,
    details: Option<&CheckpointDetails>,
    now_ms: u64,
) -> Body {
    let mut found = of_vertex(record, vertex, tasks, details, now_ms);
    let parts = parts_of(details, vertex);
    let took_ms = |part: &PartDetails| part.at_ms.saturating_sub(record.triggered_ms);
    let over = |value: &dyn Fn(&PartDetails) -> u64| summary(parts.iter().map(|(_, part)| value(part)));
    found["summary"] = json!({
        "checkpointed_size": over(&|part| part.times.written_bytes),
        "state_size": over(&|part| part.times.state_bytes),
        "end_to_end_duration": over(&took_ms),
        "checkpoint_duration": {
            "sync": over(&|part| part.times.sync_us / 1_000),
            "async": over(&|part| part.times.async_ms),
        },
        "alignment": {
            "buffered": over(&|_| 0),
            "processed": over(&|part| part.times.processed_bytes),
            "persisted": over(&|part| part.times.persisted_bytes),
            "duration": over(&|part| part.times.alignment_ms),
        },
        "start_delay": over(&|part| part.times.start_delay_ms),
    });
    let subtasks = (0..tasks).map(|index| {
        let Some((_, part)) = parts.iter().find(|(task, _)| task.subtask == index) else {
            return json!({ "className": "pending", "index": index, "status": "pending_or_failed" });
        };
        json!({
            "className": "completed",
            "index": index,
            "status": "completed",
            "ack_timestamp": part.at_ms,
            "end_to_end_duration": took_ms(part),
            "checkpointed_size": part.times.written_bytes,
            "state_size": part.times.state_bytes,
            "checkpoint": { "sync": part.times.sync_us / 1_000, "async": part.times.async_ms },
            "alignment": {
                "buffered": 0,
                "processed": part.times.processed_bytes,
                "persisted": part.times.persisted_bytes,
                "duration": part.times.alignment_ms,
            },
            "start_delay": part.times.start_delay_ms,
            "unaligned_checkpoint": part.times.unaligned,
            "aborted": false,
        })
    });
    found["subtasks"] = subtasks.collect();
    Body::of(&found)
}

/// `/jobs/:jobid/checkpoints/config`; nothing for a job that takes none by itself.
pub(in crate::rest) fn checkpoint_config(settings: &JobSettings) -> Option<Body> {
    let JobSettings { checkpoints, state, .. } = settings;
    let interval_ms = checkpoints.interval_ms?;
    Some(Body::of(&json!({
        "mode": match checkpoints.mode {
            CheckpointingMode::ExactlyOnce => "exactly_once",
            CheckpointingMode::AtLeastOnce => "at_least_once",
        },
        "interval": interval_ms,
        "timeout": checkpoints.timeout_ms,
        "min_pause": checkpoints.min_pause_ms,
        "max_concurrent": checkpoints.max_concurrent,
        "externalization": {
            "enabled": checkpoints.retention != CheckpointRetention::NoExternalizedCheckpoints,
            "delete_on_cancellation": checkpoints.retention != CheckpointRetention::RetainOnCancellation,
        },
        "state_backend": match state.backend {
            StateBackend::HashMap => "HashMapStateBackend",
            StateBackend::RocksDb | StateBackend::ForSt => "EmbeddedRocksDBStateBackend",
        },
        "checkpoint_storage": "FileSystemCheckpointStorage",
        "unaligned_checkpoints": checkpoints.unaligned,
        "tolerable_failed_checkpoints": checkpoints.tolerable_failures,
        "aligned_checkpoint_timeout": checkpoints.aligned_timeout_ms,
        "checkpoints_after_tasks_finish": checkpoints.after_tasks_finish,
        "state_changelog_enabled": false,
        "changelog_periodic_materialization_interval": 0,
        "changelog_storage": "none",
    })))
}

/// What came of a user's request; `of_checkpoint`: whether for a checkpoint rather than a savepoint.
pub(in crate::rest) fn operation(operation: &Operation, of_checkpoint: bool) -> Body {
    let result = operation.result.as_ref().map(|result| match (result, of_checkpoint) {
        (Ok(_), true) => json!({ "checkpointId": operation.checkpoint, "failureCause": null }),
        (Ok(folder), false) => json!({ "location": folder }),
        (Err(reason), true) => json!({ "checkpointId": null, "failureCause": failure(reason) }),
        (Err(reason), false) => json!({ "failure-cause": failure(reason) }),
    });
    status(result)
}

/// An operation that may be under way.
pub(in crate::rest) fn status(result: Option<Value>) -> Body {
    let word = if result.is_some() { "COMPLETED" } else { "IN_PROGRESS" };
    Body::of(&json!({ "status": { "id": word }, "operation": result }))
}

/// A reason in the place of an exception.
pub(in crate::rest) fn failure(reason: &str) -> Value {
    let class = "flott.SnapshotFailed";
    throwable(class, &format!("{class}: {reason}"))
}

/// `/jobs/:jobid/resource-requirements`: the parallelism that the vertices have, or are about to get.
pub(in crate::rest) fn requirements(job: &JobRecord) -> Body {
    let coming = job.checkpoints().closing().map(|closing| &closing.parallelism);
    let vertices = job.graph().vertices.iter().map(|vertex| {
        let coming = coming.and_then(|coming| coming.get(&vertex.id)).copied();
        let tasks = coming.unwrap_or(vertex.parallelism);
        (vertex.id.to_string(), json!({ "parallelism": { "lowerBound": tasks, "upperBound": tasks } }))
    });
    Body::of(&vertices.collect::<Map<String, Value>>())
}

/// Flink's metrics of the checkpoints of a job; -1 stands for what has not been yet.
pub(crate) fn metrics(checkpoints: &JobCheckpoints) -> [(&'static str, i64); 13] {
    let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let [completed, savepoint, _] = checkpoints.latest();
    let last = completed.into_iter().chain(savepoint).max_by_key(|record| record.id);
    let of_last = |value: fn(&CheckpointRecord) -> u64| last.map_or(-1, |record| int(value(record)));
    let pending = checkpoints.pending().len() as u64;
    let total = int(pending + checkpoints.completed() + checkpoints.failed());
    [
        ("lastCheckpointDuration", of_last(|record| duration_ms(record, 0))),
        ("lastCheckpointSize", of_last(|record| record.stats.written_bytes)),
        ("lastCheckpointFullSize", of_last(|record| record.stats.state_bytes)),
        ("lastCheckpointMetadataSize", of_last(|record| record.stats.manifest_bytes)),
        ("lastCheckpointProcessedData", of_last(|record| record.stats.processed_bytes)),
        ("lastCheckpointPersistedData", of_last(|record| record.stats.persisted_bytes)),
        ("lastCompletedCheckpointId", of_last(|record| record.id)),
        ("lastCheckpointCompletedTimestamp", of_last(|record| record.ended_ms().unwrap_or(0))),
        ("lastCheckpointRestoreTimestamp", checkpoints.restored().map_or(-1, |it| int(it.at_ms))),
        ("numberOfInProgressCheckpoints", int(pending)),
        ("numberOfCompletedCheckpoints", int(checkpoints.completed())),
        ("numberOfFailedCheckpoints", int(checkpoints.failed())),
        ("totalNumberOfCheckpoints", total),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_values_of_the_nearest_ranks() {
        let found = summary(1..=100);
        assert_eq!((&found["min"], &found["max"], &found["avg"]), (&json!(1), &json!(100), &json!(50)));
        assert_eq!(
            (&found["p50"], &found["p99"], &found["p999"]),
            (&json!(50.0), &json!(99.0), &json!(100.0))
        );
        assert_eq!(summary([7].into_iter())["p50"], json!(7.0));
        assert_eq!(summary(std::iter::empty())["p50"], json!("NaN"));
    }
}
