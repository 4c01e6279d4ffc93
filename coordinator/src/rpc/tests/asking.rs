//! Questions to workers, and what workers ask.

use flott_schema::answer::{FilePart, ProgramRun};
use flott_schema::ids::WorkerId;
use flott_schema::job::{ProgramDigest, ProgramRef};

use super::peer::{Manner, accepted, apply, registered};
use super::{Cluster, JOB, Options, run};
use crate::live::AskWorkers;

fn program(name: &str) -> ProgramRef {
    ProgramRef {
        digest: ProgramDigest([0; 32]),
        name: name.into(),
        arguments: Vec::new(),
        execution: 0,
        configuration: Vec::new(),
    }
}

#[test]
fn log_files_of_a_worker_are_listed_and_read() {
    run(async {
        let cluster = Cluster::start(Options::default());
        let worker = registered(&cluster.address(), 1).await;
        let files = cluster.rpc.list_logs(worker.id).await.unwrap();
        assert_eq!((files[0].name.as_str(), files[0].size), ("worker.log", 9));
        let part = cluster.rpc.read_log(worker.id, "worker.log".into(), 5, 100).await.unwrap();
        assert_eq!(part, FilePart { bytes: b"byte".to_vec(), size: 9 });
        let error = cluster.rpc.read_log(worker.id, "../secret".into(), 0, 100).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no such log file");
    });
}

#[test]
fn a_worker_runs_a_program_and_says_what_came_of_it() {
    run(async {
        let cluster = Cluster::start(Options::default());
        let worker = registered(&cluster.address(), 1).await;
        let run = |name: &str, plan| cluster.rpc.run_program(worker.id, program(name), "h:1".into(), plan);
        assert_eq!(run("good", false).await.unwrap(), ProgramRun::Submitted(vec![JOB]));
        assert_eq!(run("good", true).await.unwrap(), ProgramRun::Plan("{}".into()));
        assert_eq!(run("broken", false).await.unwrap_err().to_string(), "the program fell over");
    });
}

#[test]
fn a_question_to_a_worker_that_is_not_there_or_does_not_answer_fails() {
    run(async {
        let cluster = Cluster::start(Options { ask_timeout_ms: 100, ..Options::default() });
        let error = cluster.rpc.list_logs(WorkerId(9)).await.unwrap_err();
        assert!(error.to_string().contains("worker 9 is not connected"), "{error}");
        let deaf = accepted(apply(&cluster.address(), 1, 0, &[], Manner::Deaf).await);
        let error = cluster.rpc.list_logs(deaf.id).await.unwrap_err();
        assert!(error.to_string().contains("100 ms"), "{error}");
        assert_eq!(deaf.asked.get(), 1);
        cluster.rpc.stop();
        super::soon("the end of the port", cluster.rpc.ended()).await;
        assert!(cluster.rpc.list_logs(deaf.id).await.is_err());
    });
}

#[test]
fn a_worker_reads_programs_in_parts() {
    run(async {
        let cluster = Cluster::start(Options::default());
        let worker = registered(&cluster.address(), 1).await;
        let stored = ProgramDigest([0; 32]);
        assert_eq!(worker.read_program(stored, 0, 4_096).await.unwrap(), (4_096, 10_000));
        assert_eq!(worker.read_program(stored, 9_990, 4_096).await.unwrap(), (10, 10_000));
        assert_eq!(worker.read_program(stored, u64::MAX, 4_096).await.unwrap(), (0, 10_000));
        let error = worker.read_program(ProgramDigest([1; 32]), 0, 1).await.unwrap_err();
        assert!(error.to_string().contains("there is no program 0101"), "{error}");
    });
}

#[test]
fn a_coordinator_that_is_alone_has_no_peers() {
    run(async {
        let cluster = Cluster::start(Options::default());
        let worker = registered(&cluster.address(), 1).await;
        let error = worker.raft().await.unwrap_err();
        assert!(error.to_string().contains("coordinator.members"), "{error}");
    });
}
