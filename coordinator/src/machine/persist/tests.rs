//! Round trips, frozen samples, broken bytes. Round trips of states that many events led to are in the simulation.

use std::path::Path;
use std::sync::Arc;

use flott_schema::control::{RunningTask, TaskFailure, TaskState};
use flott_schema::error::ErrorKind;
use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, WorkerId};
use flott_schema::job::{JobSettings, JobSpec, ProgramDigest, ProgramRef, RestartStrategy};
use flott_schema::stats::WorkerProfile;

use super::*;
use crate::machine::state::Limits;
use crate::machine::tests::graph::batch;
use crate::machine::{Effect, apply};

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
    let spec = Arc::new(JobSpec { graph, program: Some(program), settings, restore: None });
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
    let stored = frozen("snapshot", encode_state(&waiting_state()).unwrap());
    assert_eq!(decode_state(&stored).unwrap(), waiting_state());
}

#[test]
fn broken_bytes_are_errors_or_sound_states_and_never_a_panic() {
    let sound = encode_state(&waiting_state()).unwrap();
    assert!(decode_state(&[]).is_err());
    for length in 0..sound.len() {
        assert!(decode_state(&sound[..length]).is_err(), "cut to {length} bytes");
    }
    let mut refused = 0;
    for index in 0..sound.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = sound.clone();
            bytes[index] ^= flip;
            refused += u32::from(decode_state(&bytes).is_err());
        }
    }
    assert!(refused > 100, "{refused}");
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
