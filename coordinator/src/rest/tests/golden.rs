//! The JSON of every endpoint, against samples in `testdata/rest`. `UPDATE=1` writes them.

use std::path::PathBuf;

use flott_schema::control::TaskState;
use flott_schema::ids::{JobId, VertexId};
use flott_schema::job::RestartStrategy;
use serde_json::{Value, json};

use super::cluster::{Cluster, graph, options};

/// Jobs by number, in every state; two workers of which one is full.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::start(options()).await;
    cluster.worker(1, 8).await;
    cluster.worker(2, 6).await;
    cluster.wait_ms(1_000);
    let again = RestartStrategy::FixedDelay { attempts: 3, delay_ms: 50_000 };

    cluster.submit(0x1, 2, RestartStrategy::None).await;
    cluster.wait_ms(10);
    cluster.report(0x1, TaskState::Initializing, None).await;
    cluster.wait_ms(20);
    cluster.report(0x1, TaskState::Running, None).await;
    cluster.wait_ms(10_000);
    cluster.report(0x1, TaskState::Finished, None).await;

    for number in [0x2, 0x3, 0x4, 0x5, 0x7] {
        cluster.wait_ms(100);
        let restart = if number == 0x4 { again } else { RestartStrategy::None };
        cluster.submit(number, 2, restart).await;
        cluster.wait_ms(10);
        cluster.report(number, TaskState::Running, None).await;
    }
    cluster.wait_ms(500);
    cluster.fail(0x3, 1).await;
    cluster.wait_ms(5);
    cluster.fail(0x3, 0).await;
    cluster.report(0x3, TaskState::Canceled, Some(0)).await;
    cluster.report(0x3, TaskState::Canceled, Some(2)).await;
    cluster.fail(0x4, 0).await;
    cluster.report(0x4, TaskState::Canceled, None).await;
    cluster.handle.cancel(JobId(0x5)).await.unwrap();
    cluster.wait_ms(30);
    cluster.report(0x5, TaskState::Canceled, None).await;
    cluster.fail(0x7, 0).await;

    cluster.submit(0x8, 2, RestartStrategy::None).await;
    cluster.report(0x8, TaskState::Running, None).await;
    cluster.handle.cancel(JobId(0x8)).await.unwrap();
    // Not enough slots for these tasks.
    cluster.submit(0x6, 32, RestartStrategy::None).await;
    cluster
}

/// Compares with the sample of this name, or writes it.
pub(super) fn check(name: &str, request: &str, status: u16, answer: Value) {
    let found = json!({ "request": request, "status": status, "answer": answer });
    let found = serde_json::to_string_pretty(&found).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/rest/{name}.json"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &found).unwrap();
    }
    let known = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE=1 writes it", path.display()));
    assert_eq!(known, found, "the answer to {request} has changed; UPDATE=1 writes {}", path.display());
}

#[tokio::test]
async fn answers_have_the_shapes_of_flink() {
    let cluster = cluster().await;
    let count: VertexId = graph(2).vertices[1].id;
    let job = |number: u128| format!("/jobs/{}", JobId(number));
    let vertex = format!("{}/vertices/{count}", job(2));
    let worker = "/taskmanagers/host1:9100-abc";
    let requests = [
        ("overview", "/overview".to_owned()),
        ("config", "/config".into()),
        ("jobs", "/jobs".into()),
        ("jobs_overview", "/jobs/overview".into()),
        ("jobs_metrics", "/jobs/metrics".into()),
        ("jobs_metrics_get", "/jobs/metrics?get=numRestarts,uptime&agg=min,max".into()),
        ("job_finished", job(1)),
        ("job_running", job(2)),
        ("job_failed", job(3)),
        ("job_restarting", job(4)),
        ("job_canceled", job(5)),
        ("job_created", job(6)),
        ("job_failing", job(7)),
        ("job_cancelling", job(8)),
        ("job_status", job(2) + "/status"),
        ("job_config", job(2) + "/config"),
        ("job_config_restart", job(4) + "/config"),
        ("job_plan", job(2) + "/plan"),
        ("job_exceptions", job(3) + "/exceptions"),
        ("job_exceptions_restarted", job(4) + "/exceptions?maxExceptions=1"),
        ("job_exceptions_none", job(2) + "/exceptions"),
        ("job_result_running", job(2) + "/execution-result"),
        ("job_result_finished", job(1) + "/execution-result"),
        ("job_result_failed", job(3) + "/execution-result"),
        ("job_result_canceled", job(5) + "/execution-result"),
        ("job_accumulators", job(2) + "/accumulators"),
        ("job_metrics", job(4) + "/metrics"),
        ("job_metrics_get", job(4) + "/metrics?get=uptime,numRestarts,nothing"),
        ("job_checkpoints", job(2) + "/checkpoints"),
        ("job_checkpoints_config", job(2) + "/checkpoints/config"),
        ("vertex", vertex.clone()),
        ("vertex_subtasktimes", vertex.clone() + "/subtasktimes"),
        ("vertex_taskmanagers", vertex.clone() + "/taskmanagers"),
        ("vertex_backpressure", vertex.clone() + "/backpressure"),
        ("vertex_watermarks", vertex.clone() + "/watermarks"),
        ("vertex_metrics", vertex.clone() + "/metrics"),
        (
            "vertex_metrics_get",
            vertex.clone() + "/metrics?get=0.numRecordsIn,1.busyTimeMsPerSecond,1.Count.numRecordsOut",
        ),
        ("vertex_accumulators", vertex.clone() + "/accumulators"),
        ("vertex_flamegraph", vertex.clone() + "/flamegraph"),
        ("subtasks_metrics", vertex.clone() + "/subtasks/metrics"),
        (
            "subtasks_metrics_get",
            vertex.clone() + "/subtasks/metrics?get=numRecordsInPerSecond,numRecordsOut,busyTimeMsPerSecond",
        ),
        (
            "subtasks_metrics_some",
            vertex.clone() + "/subtasks/metrics?get=numRecordsOut&agg=max&subtasks=1-3",
        ),
        ("subtasks_accumulators", vertex.clone() + "/subtasks/accumulators"),
        ("subtask", vertex.clone() + "/subtasks/1"),
        ("subtask_attempt", vertex.clone() + "/subtasks/1/attempts/0"),
        ("subtask_attempt_unknown", vertex.clone() + "/subtasks/1/attempts/1"),
        (
            "subtask_metrics_get",
            vertex.clone() + "/subtasks/1/metrics?get=numRecordsIn,isBackPressured,currentInputWatermark",
        ),
        ("taskmanagers", "/taskmanagers".into()),
        ("taskmanagers_metrics", "/taskmanagers/metrics?get=Status.JVM.Memory.Heap.Used".into()),
        ("taskmanager", worker.into()),
        (
            "taskmanager_metrics",
            format!("{worker}/metrics?get=Status.JVM.Memory.Heap.Used,Status.JVM.CPU.Time"),
        ),
        ("taskmanager_logs", format!("{worker}/logs")),
        ("taskmanager_thread_dump", format!("{worker}/thread-dump")),
        ("taskmanager_unknown", "/taskmanagers/nobody".into()),
        ("taskmanager_silent", "/taskmanagers/host2:9200-abc/logs".into()),
        ("jobmanager_config", "/jobmanager/config".into()),
        ("jobmanager_logs", "/jobmanager/logs".into()),
        ("jars", "/jars".into()),
        ("job_unknown", job(0xdead)),
        ("job_id_malformed", "/jobs/xyz".into()),
        ("vertex_unknown", job(2) + "/vertices/00000000000000000000000000000001"),
        ("subtask_unknown", vertex.clone() + "/subtasks/7"),
        ("path_unknown", "/nothing/here".into()),
        ("savepoint", job(2) + "/savepoints/00000000000000000000000000000001"),
        ("rescaling", job(2) + "/rescaling/00000000000000000000000000000001"),
    ];
    for (name, path) in requests {
        let answer = cluster.call("GET", &path).await;
        // Where the server listens is different each time.
        let port = cluster.server.address().port().to_string();
        let body = serde_json::from_str(&answer.body.replace(&port, "PORT")).unwrap();
        check(name, &format!("GET {path}"), answer.status, body);
        let versioned = cluster.call("GET", &format!("/v1{path}")).await;
        assert_eq!(versioned.body, answer.body, "/v1{path}");
    }
}

#[tokio::test]
async fn prometheus_reads_flinks_names() {
    let cluster = cluster().await;
    let answer = cluster.call("GET", "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("text/plain"), "{}", answer.head);
    for line in [
        "flink_jobmanager_numRegisteredTaskManagers 2",
        "flink_jobmanager_taskSlotsTotal 14",
        "flink_jobmanager_numRunningJobs 5",
        "flott_coordinator_leader 1",
        "flott_coordinator_callers_refused 0",
        "flott_coordinator_snapshot_deletions_failed 0",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "no '{line}' in {}", answer.body);
    }
    let job =
        format!("flink_jobmanager_job_runningState{{job_id=\"{}\",job_name=\"word count\"}} 1", JobId(2));
    assert!(answer.body.lines().any(|found| found == job), "no '{job}' in {}", answer.body);
    let task = |name: &str, rest: &str| {
        let id = JobId(2).to_string();
        let is_it = |line: &&str| {
            line.starts_with(&format!("{name}{{")) && line.contains(&id) && line.ends_with(rest)
        };
        let found = answer.body.lines().filter(is_it);
        found.filter(|line| line.contains("task_name=\"Count\"")).count()
    };
    // The other task of the vertex runs on a worker that gives the numbers of its tasks itself.
    assert_eq!(task("flink_taskmanager_job_task_numRecordsIn", "} 20000"), 1, "{}", answer.body);
    assert_eq!(task("flink_taskmanager_job_task_busyTimeMsPerSecond", "} 700"), 1, "{}", answer.body);
    assert_eq!(
        task("flink_taskmanager_job_task_operator_numRecordsOut", "operator_name=\"Count\"} 40000"),
        1
    );
    assert!(!answer.body.contains("tm_id=\"host2"), "{}", answer.body);
}

#[tokio::test]
async fn cancel_ends_a_job_and_can_be_repeated() {
    let cluster = cluster().await;
    let job = |number: u128| format!("/jobs/{}", JobId(number));
    let canceled = cluster.call("PATCH", &(job(2) + "?mode=cancel")).await;
    assert_eq!((canceled.status, canceled.body.as_str()), (202, "{}"));
    assert_eq!(cluster.call("GET", &(job(2) + "/status")).await.json()["status"], "CANCELLING");
    assert_eq!(cluster.call("PATCH", &job(2)).await.status, 202);
    assert_eq!(cluster.call("GET", &(job(2) + "/yarn-cancel")).await.status, 202);
    cluster.report(2, TaskState::Canceled, None).await;
    assert_eq!(cluster.call("PATCH", &(job(2) + "?mode=cancel")).await.status, 202);

    let finished = cluster.call("PATCH", &(job(1) + "?mode=cancel")).await;
    assert_eq!(finished.status, 409);
    assert!(finished.error().ends_with("was not canceled, but instead FINISHED."), "{}", finished.error());
    assert_eq!(cluster.call("PATCH", &(job(0xdead) + "?mode=cancel")).await.status, 404);
    assert_eq!(cluster.call("PATCH", &(job(4) + "?mode=stop")).await.status, 308);
    assert_eq!(cluster.call("PATCH", &(job(4) + "?mode=now")).await.status, 400);
}

#[tokio::test]
async fn logs_of_workers_are_read_in_pieces() {
    let cluster = cluster().await;
    for path in ["log", "log/flott-worker.log", "logs/flott-worker.log"] {
        let log = cluster.call("GET", &format!("/taskmanagers/host1:9100-abc/{path}")).await;
        assert_eq!(log.status, 200);
        assert_eq!(log.body, super::cluster::log_text(), "{path}");
    }
    assert_eq!(cluster.call("GET", "/taskmanagers/host1:9100-abc/stdout").await.body, "");
    for name in ["..%2Fflott-worker.log", "nothing.log", "%2Fetc%2Fpasswd"] {
        let refused = cluster.call("GET", &format!("/taskmanagers/host1:9100-abc/logs/{name}")).await;
        assert_eq!(refused.status, 404, "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn logs_of_the_coordinator_are_those_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text = super::cluster::log_text();
    std::fs::write(folder.path().join("flott-coordinator.log"), &text).unwrap();
    std::fs::create_dir(folder.path().join("folder.log")).unwrap();
    let options = crate::rest::Options { log_folder: Some(folder.path().to_owned()), ..options() };
    let cluster = Cluster::start(options).await;
    let list = cluster.call("GET", "/jobmanager/logs").await.json();
    assert_eq!(list["logs"][0]["name"], "flott-coordinator.log");
    assert_eq!(list["logs"][0]["size"], text.len());
    assert_eq!(list["logs"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.call("GET", "/jobmanager/log").await.body, text);
    assert_eq!(cluster.call("GET", "/jobmanager/logs/flott-coordinator.log").await.body, text);
    assert_eq!(cluster.call("GET", "/jobmanager/logs/..%2F..%2Fetc%2Fpasswd").await.status, 404);
    assert_eq!(cluster.call("GET", "/jobmanager/stdout").await.status, 404);
}
