//! Round trips, frozen samples, broken bytes. Round trips of states that many events led to are in the simulation.

use std::path::Path;
use std::sync::Arc;

use flott_schema::control::{RunningTask, TaskFailure, TaskState};
use flott_schema::error::ErrorKind;
use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, WorkerId};
use flott_schema::job::{JobSettings, JobSpec, ProgramDigest, ProgramRef, RestartStrategy};
use flott_schema::snapshot::{
    Alignment, OperatorSnapshot, RestoreFrom, SavepointFormat, SnapshotKind, SnapshotTimes, TaskSnapshot,
};
use flott_schema::stats::WorkerProfile;

use super::*;
use crate::machine::state::Limits;
use crate::machine::tests::graph::{batch, streaming};
use crate::machine::{CheckpointRequest, CheckpointStats, Effect, OperationId, Purpose, apply};

const JOB: JobId = JobId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

fn attempt(vertex: &str, subtask: u32) -> AttemptId {
    let task = TaskId { vertex: OperatorId::of_uid(vertex).into(), subtask };
    AttemptId { task, job_epoch: 0, attempt: 0 }
}

fn report(vertex: &str, state: TaskState, message: Option<&str>, at_ms: u64) -> Event {
    let failure = message.map(|message| TaskFailure {
        kind: ErrorKind::UserCode,
        vertex: vertex.to_string(),
        subtask: 0,
        parallelism: 1,
        message: message.to_string(),
        backtrace: Some("at line 7".to_string()),
    });
    Event::TaskStateChanged { job: JOB, attempt: attempt(vertex, 0), state, failure, at_ms }
}

fn request(purpose: Purpose) -> CheckpointRequest {
    let is_rescale = purpose == Purpose::Rescale;
    CheckpointRequest {
        kind: if is_rescale {
            SnapshotKind::Checkpoint
        } else {
            SnapshotKind::Savepoint(SavepointFormat::Native)
        },
        purpose,
        alignment: Alignment::UnalignedAfter(30),
        folder: if is_rescale { "/checkpoints/job".into() } else { "/savepoints/s".into() },
        operation: Some(OperationId(u128::from(purpose as u8) << 100 | 1)),
        parallelism: if is_rescale { [(OperatorId::of_uid("map").into(), 2)].into() } else { [].into() },
    }
}

fn stats() -> CheckpointStats {
    CheckpointStats {
        acknowledged: 2,
        last_ack_ms: 1_000,
        written_bytes: 3,
        state_bytes: 4,
        processed_bytes: 5,
        persisted_bytes: 6,
        manifest_bytes: 7,
        unaligned: true,
    }
}

fn last(vertex: &str) -> Arc<TaskSnapshot> {
    Arc::new(TaskSnapshot {
        task: attempt(vertex, 0).task,
        finished: true,
        operators: vec![OperatorSnapshot { operator: Some(OperatorId(5)), ..OperatorSnapshot::default() }],
        channels: Vec::new(),
        times: SnapshotTimes { state_bytes: 9, ..SnapshotTimes::default() },
    })
}

/// A job with snapshots of every kind and fate: complete, failed, under way; with requests that are answered and open.
fn snapshot_state() -> ClusterState {
    let mut state = ClusterState::new(Limits::default());
    let mut at_ms = 0;
    let mut happen = |event: fn(u64) -> Event| {
        at_ms += 10;
        apply(&mut state, event(at_ms));
    };
    happen(|at_ms| Event::WorkerRegistered {
        worker: WorkerId(1),
        profile: WorkerProfile { slots: 3, ..WorkerProfile::default() },
        at_ms,
    });
    happen(|at_ms| {
        let graph = streaming("pipe", &[("left", 1), ("map", 1)], &[]);
        let restore =
            RestoreFrom { folder: "/old".into(), checkpoint: 4, ignore_unclaimed: true, own: false };
        let spec = JobSpec { restore: Some(restore), ..JobSpec::embedded(graph) };
        Event::JobSubmitted { job: JOB, spec: spec.into(), at_ms }
    });
    happen(|_| report("left", TaskState::Running, None, 30));
    happen(|_| report("map", TaskState::Running, None, 40));
    happen(|at_ms| Event::CheckpointRequested { job: JOB, request: request(Purpose::GoOn), at_ms });
    happen(|at_ms| Event::CheckpointCompleted { job: JOB, checkpoint: 5, stats: stats(), at_ms });
    happen(|at_ms| Event::LastSnapshot {
        job: JOB,
        attempt: attempt("left", 0),
        snapshot: last("left"),
        at_ms,
    });
    happen(|_| report("left", TaskState::Finished, None, 80));
    happen(|at_ms| Event::CheckpointRequested { job: JOB, request: request(Purpose::Stop), at_ms });
    happen(|at_ms| Event::CheckpointFailed {
        job: JOB,
        checkpoint: 6,
        reason: "no space".into(),
        counts: false,
        stats: stats(),
        at_ms,
    });
    happen(|at_ms| {
        let request = CheckpointRequest { operation: None, ..request(Purpose::Rescale) };
        let request = CheckpointRequest { purpose: Purpose::GoOn, parallelism: [].into(), ..request };
        Event::CheckpointRequested { job: JOB, request, at_ms }
    });
    happen(|at_ms| Event::CheckpointCompleted { job: JOB, checkpoint: 7, stats: stats(), at_ms });
    happen(|at_ms| Event::CheckpointRequested { job: JOB, request: request(Purpose::Rescale), at_ms });
    let checkpoints = state.job(JOB).unwrap().checkpoints();
    assert_eq!((checkpoints.completed(), checkpoints.failed(), checkpoints.restores()), (2, 1, 1));
    assert!(checkpoints.closing().is_some() && checkpoints.pending().count() == 1);
    state
}

/// An event of each kind, in an order that makes sense.
fn events() -> Vec<(&'static str, Event)> {
    let profile = |slots| WorkerProfile {
        name: "worker-a".to_string(),
        data_address: "10.0.0.7:6122".to_string(),
        slots,
        ..WorkerProfile::default()
    };
    let digest = ProgramDigest([0xab; 32]);
    let program = ProgramRef {
        digest,
        name: "wordcount".to_string(),
        arguments: vec!["--input".to_string(), "text".to_string()],
        execution: 1,
        configuration: vec![("parallelism.default".to_string(), "2".to_string())],
    };
    let settings = JobSettings {
        restart: RestartStrategy::ExponentialDelay {
            initial_ms: 100,
            max_ms: 1_000,
            multiplier_milli: 1_500,
            jitter_milli: 100,
            reset_ms: 60_000,
            attempts: 5,
        },
        restart_all: false,
        slot_wait_ms: Some(7_000),
        cancellation_timeout_ms: 180_000,
        ..JobSettings::default()
    };
    let graph = Arc::new(batch("words", &[("scan", 1), ("count", 1)], &["scan >> count"]));
    let spec = Arc::new(JobSpec { program: Some(program), settings, ..JobSpec::embedded(graph) });
    let running = RunningTask { job: JOB, attempt: attempt("count", 0), state: TaskState::Running };
    vec![
        (
            "program_stored",
            Event::ProgramStored { digest, name: "wordcount".to_string(), size: 4_096, at_ms: 1_000 },
        ),
        (
            "worker_registered",
            Event::WorkerRegistered { worker: WorkerId(1), profile: profile(2), at_ms: 1_001 },
        ),
        ("job_submitted", Event::JobSubmitted { job: JOB, spec, at_ms: 1_002 }),
        ("task_finished", report("scan", TaskState::Finished, None, 1_003)),
        (
            "worker_returned",
            Event::WorkerReturned { worker: WorkerId(1), tasks: vec![running], at_ms: 1_004 },
        ),
        ("task_failed", report("count", TaskState::Failed, Some("no such rule"), 1_005)),
        ("slot_wait_expired", Event::SlotWaitExpired { job: JOB, wait: 3, at_ms: 1_006 }),
        ("restart_delay_expired", Event::RestartDelayExpired { job: JOB, number: 0, at_ms: 1_007 }),
        ("worker_lost", Event::WorkerLost { worker: WorkerId(2), at_ms: 1_008 }),
        ("cancel_requested", Event::CancelRequested { job: JobId(9), at_ms: 1_009 }),
        ("program_removed", Event::ProgramRemoved { digest: ProgramDigest([0xcd; 32]), at_ms: 1_010 }),
        (
            "checkpoint_requested",
            Event::CheckpointRequested { job: JOB, request: request(Purpose::Rescale), at_ms: 1_011 },
        ),
        (
            "checkpoint_completed",
            Event::CheckpointCompleted { job: JOB, checkpoint: 7, stats: stats(), at_ms: 1_012 },
        ),
        (
            "checkpoint_failed",
            Event::CheckpointFailed {
                job: JOB,
                checkpoint: 8,
                reason: "no space".into(),
                counts: true,
                stats: stats(),
                at_ms: 1_013,
            },
        ),
        (
            "last_snapshot",
            Event::LastSnapshot {
                job: JOB,
                attempt: attempt("count", 0),
                snapshot: last("count"),
                at_ms: 1_014,
            },
        ),
        ("savepoint_disposed", Event::SavepointDisposed { folder: "/savepoints/s".into(), at_ms: 1_015 }),
        ("claim_ended", Event::ClaimEnded { job: JOB, at_ms: 1_016 }),
    ]
}

/// The state that the events up to the failure lead to: a job that waits for its restart.
fn waiting_state() -> ClusterState {
    let mut state = ClusterState::new(Limits { ended_jobs_max: 7, exceptions_max: 16 });
    for (_, event) in events().into_iter().take(6) {
        apply(&mut state, event);
    }
    assert!(state.job(JOB).is_some_and(|job| job.pending_restart().is_some()));
    state
}

#[test]
fn every_kind_of_event_comes_back_as_it_was() {
    for (name, event) in events() {
        assert_eq!(decode_event(&encode_event(&event).unwrap()).unwrap(), event, "{name}");
    }
}

#[test]
fn a_restored_state_goes_on_as_the_original() {
    let mut original = waiting_state();
    let mut restored = decode_state(&encode_state(&original).unwrap()).unwrap();
    assert_eq!(restored, original);
    let event = Event::RestartDelayExpired { job: JOB, number: 0, at_ms: 2_000 };
    let effects = apply(&mut original, event.clone());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Deploy { .. })), "{effects:?}");
    assert_eq!(apply(&mut restored, event), effects);
    assert_eq!(restored, original);
}

/// The message in the form that does not show fields which are as if they were not there.
fn canonical(mut bytes: &[u8]) -> Vec<capnp::Word> {
    let message = capnp::serialize::read_message(&mut bytes, capnp::message::ReaderOptions::new()).unwrap();
    message.canonicalize().unwrap()
}

/// What one version has stored, later ones read and would write again. `UPDATE=1` adds a sample and changes none.
#[test]
fn stored_forms_are_frozen() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let frozen = |name: &str, bytes: Vec<u8>| {
        let path = folder.join(format!("{name}.bin"));
        if std::env::var_os("UPDATE").is_some() && !path.exists() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(canonical(&stored) == canonical(&bytes), "{name} is written in another way than before");
        stored
    };
    for (name, event) in events() {
        let stored = frozen(&format!("event_{name}"), encode_event(&event).unwrap());
        assert_eq!(decode_event(&stored).unwrap(), event, "{name}");
    }
    let mut claim_ended = snapshot_state();
    apply(&mut claim_ended, Event::ClaimEnded { job: JOB, at_ms: 1_016 });
    let states = [
        ("snapshot", waiting_state()),
        ("snapshot_checkpoints", snapshot_state()),
        ("snapshot_claim_ended", claim_ended),
    ];
    for (name, state) in states {
        let stored = frozen(name, encode_state(&state).unwrap());
        assert_eq!(decode_state(&stored).unwrap(), state, "{name}");
    }
}

fn broken_states_are_refused(sound: &[u8]) {
    for length in 0..sound.len() {
        assert!(decode_state(&sound[..length]).is_err(), "cut to {length} bytes");
    }
    let mut refused = 0;
    for index in 0..sound.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = sound.to_vec();
            bytes[index] ^= flip;
            refused += u32::from(decode_state(&bytes).is_err());
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn broken_bytes_are_errors_or_sound_states_and_never_a_panic() {
    assert!(decode_state(&[]).is_err());
    for sound in [encode_state(&waiting_state()).unwrap(), encode_state(&snapshot_state()).unwrap()] {
        broken_states_are_refused(&sound);
    }
    for (_, event) in events() {
        let sound = encode_event(&event).unwrap();
        for index in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[index] ^= 0xff;
            // Whatever it is read as, the machine takes it.
            if let Ok(event) = decode_event(&bytes) {
                apply(&mut waiting_state(), event);
            }
        }
    }
}

#[test]
fn a_format_of_a_newer_version_is_refused_with_the_reason() {
    use flott_schema::wire::generated::machine_capnp::snapshot;
    let mut message = capnp::message::Builder::new_default();
    message.init_root::<snapshot::Builder>().set_format(2);
    let error = decode_state(&capnp::serialize::write_message_to_words(&message)).unwrap_err();
    assert!(error.to_string().contains("format 2"), "{error}");
}
