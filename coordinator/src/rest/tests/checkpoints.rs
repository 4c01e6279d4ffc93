//! Checkpoints, savepoints, stops and rescaling over REST, in Flink's shapes.

use std::path::Path;
use std::time::Duration;

use flott_schema::control::{SnapshotReport, TaskState, ToCoordinator};
use flott_schema::ids::JobId;
use flott_schema::job::{CheckpointSettings, JobSettings, JobSpec, RestartStrategy};
use flott_schema::snapshot::{SnapshotTimes, TaskSnapshot};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::cluster::{Answer, Cluster, graph, options, spec};
use super::golden::check;

const NUMBER: u128 = 0xc;
const DEADLINE: Duration = Duration::from_secs(20);

struct Played {
    cluster: Cluster,
    folder: TempDir,
}

impl Played {
    /// A job that runs and takes checkpoints when it is asked to.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start(options()).await;
        cluster.worker(1, 8).await;
        let checkpoints = CheckpointSettings {
            interval_ms: Some(3_600_000),
            directory: Some(folder.path().join("checkpoints").display().to_string()),
            savepoint_directory: Some(folder.path().join("savepoints").display().to_string()),
            ..CheckpointSettings::default()
        };
        let plain = spec(2, RestartStrategy::None);
        let settings = JobSettings { checkpoints, ..plain.settings.clone() };
        cluster.handle.submit(JobId(NUMBER), JobSpec { settings, ..plain }).await.unwrap();
        cluster.report(NUMBER, TaskState::Running, None).await;
        cluster.wait_ms(5_000);
        Played { cluster, folder }
    }

    fn path(&self, rest: &str) -> String {
        format!("/jobs/{}/{rest}", JobId(NUMBER))
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/json"), ("connection", "close")];
        self.cluster.send(method, path, &headers, body.to_string().as_bytes()).await
    }

    /// The answer without what is different each time.
    fn plain(&self, answer: &Answer) -> Value {
        let folder = self.folder.path().to_str().unwrap();
        let mut plain: Value = serde_json::from_str(&answer.body.replace(folder, "/FOLDER")).unwrap();
        // The folder stands in it, too.
        if let Some(cause) = plain.pointer_mut("/operation/failure-cause/serialized-throwable") {
            assert!(cause.as_str().is_some_and(|text| text.starts_with("rO0ABXNy")), "{cause}");
            *cause = json!("SERIALIZED");
        }
        plain
    }

    async fn golden(&self, name: &str, path: &str) {
        let answer = self.cluster.call("GET", path).await;
        check(name, &format!("GET {path}"), answer.status, self.plain(&answer));
    }

    /// Tasks hand in their parts, all or the first so many.
    async fn hand_in(&self, checkpoint: u64, count: usize) {
        let job = JobId(NUMBER);
        let record = self.cluster.handle.status(job).await.unwrap();
        let tasks = record.vertices().iter().flat_map(|vertex| vertex.tasks()).take(count);
        for (number, task) in (1..).zip(tasks) {
            let attempt = task.attempt();
            let times = SnapshotTimes {
                start_delay_ms: number,
                alignment_ms: 2 * number,
                sync_us: 3_000 * number,
                async_ms: 4 * number,
                written_bytes: 100 * number,
                state_bytes: 1_000 * number,
                processed_bytes: 10 * number,
                persisted_bytes: 0,
                unaligned: false,
            };
            let part = TaskSnapshot {
                task: attempt.task,
                finished: false,
                operators: Vec::new(),
                channels: Vec::new(),
                times,
            };
            let report = SnapshotReport { job, attempt, checkpoint, handed_in: 0, result: Ok(part) };
            self.cluster.wait_ms(10);
            self.cluster.handle.worker_message(ToCoordinator::Snapshot(Box::new(report))).await.unwrap();
        }
    }

    /// The status of a request once it is over.
    async fn outcome(&self, path: &str) -> Answer {
        timeout(DEADLINE, async {
            loop {
                let answer = self.cluster.call("GET", path).await;
                if answer.json()["status"]["id"] != "IN_PROGRESS" {
                    return answer;
                }
            }
        })
        .await
        .expect("the request has an end")
    }
}

#[tokio::test]
async fn checkpoints_and_savepoints_have_the_shapes_of_flink() {
    let played = Played::start().await;
    let count = graph(2).vertices[1].id;
    played.golden("checkpoints_config", &played.path("checkpoints/config")).await;
    // Flink's client chooses the number.
    let trigger = format!("{:032x}", 0xabc);
    let body = json!({ "checkpointType": "CONFIGURED", "triggerId": trigger });
    for _ in 0..2 {
        let begun = played.call("POST", &played.path("checkpoints"), body.clone()).await;
        assert_eq!((begun.status, begun.json()), (202, json!({ "request-id": trigger })));
    }
    let status = played.path(&format!("checkpoints/{trigger}"));
    played.hand_in(1, 2).await;
    played.golden("checkpoint_pending", &status).await;
    played.golden("checkpoints_pending", &played.path("checkpoints")).await;
    played.golden("checkpoint_details_pending", &played.path("checkpoints/details/1")).await;
    played.hand_in(1, 99).await;
    played.outcome(&status).await;
    played.golden("checkpoint_completed", &status).await;

    let trigger = format!("{:032x}", 0xdef);
    let body = json!({ "formatType": "NATIVE", "triggerId": trigger });
    let begun = played.call("POST", &played.path("savepoints"), body).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let status = played.path(&format!("savepoints/{trigger}"));
    played.hand_in(2, 99).await;
    let location = played.outcome(&status).await.json()["operation"]["location"].clone();
    assert!(Path::new(location.as_str().unwrap()).join("_metadata").exists());
    played.golden("savepoint_completed", &status).await;

    // One that fails.
    let trigger = format!("{:032x}", 0xbad);
    std::fs::write(played.folder.path().join("file"), b"").unwrap();
    let target = played.folder.path().join("file").display().to_string();
    let body = json!({ "target-directory": target, "triggerId": trigger });
    assert_eq!(played.call("POST", &played.path("savepoints"), body).await.status, 202);
    played.hand_in(3, 99).await;
    let failed = played.outcome(&played.path(&format!("savepoints/{trigger}"))).await;
    played.golden("savepoint_failed", &played.path(&format!("savepoints/{trigger}"))).await;
    assert!(failed.body.contains("its manifest: "), "{failed:?}");

    played.golden("checkpoints_ended", &played.path("checkpoints")).await;
    played.golden("checkpoint_details", &played.path("checkpoints/details/1")).await;
    played
        .golden("checkpoint_subtasks", &played.path(&format!("checkpoints/details/1/subtasks/{count}")))
        .await;
    played.golden("checkpoint_unknown", &played.path("checkpoints/details/77")).await;
    played.golden("checkpoint_status_unknown", &played.path(&format!("checkpoints/{:032x}", 1))).await;
    let metrics = "metrics?get=numberOfCompletedCheckpoints,lastCheckpointSize,numberOfFailedCheckpoints";
    played.golden("checkpoint_metrics", &played.path(metrics)).await;
    let text = played.cluster.call("GET", "/metrics").await.body;
    let completed =
        text.lines().find(|line| line.starts_with("flink_jobmanager_job_numberOfCompletedCheckpoints"));
    assert!(completed.is_some_and(|line| line.ends_with("} 2")), "{completed:?}");

    let body = json!({ "savepoint-path": location });
    let begun = played.call("POST", "/savepoint-disposal", body.clone()).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let of_disposal =
        |begun: &Answer| format!("/savepoint-disposal/{}", begun.json()["request-id"].as_str().unwrap());
    let disposed = played.outcome(&of_disposal(&begun)).await;
    assert_eq!(disposed.json(), json!({ "status": { "id": "COMPLETED" }, "operation": {} }));
    assert!(!Path::new(location.as_str().unwrap()).exists());
    let again = played.call("POST", "/savepoint-disposal", body).await;
    let again = played.outcome(&of_disposal(&again)).await;
    assert!(again.body.contains("there is no snapshot in"), "{again:?}");
    assert_eq!(played.call("GET", &format!("/savepoint-disposal/{:032x}", 5), json!({})).await.status, 404);
}

#[tokio::test]
async fn a_stop_ends_the_job_behind_its_savepoint() {
    let played = Played::start().await;
    let begun = played.call("POST", &played.path("stop"), json!({ "drain": true })).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let status = played.path(&format!("savepoints/{}", begun.json()["request-id"].as_str().unwrap()));
    // Nothing else meanwhile; that, too, is an answer to ask for.
    let refused = played.call("POST", &played.path("savepoints"), json!({})).await;
    let refused = played.path(&format!("savepoints/{}", refused.json()["request-id"].as_str().unwrap()));
    let refused = played.outcome(&refused).await;
    assert!(refused.body.contains("it is being stopped"), "{refused:?}");
    played.hand_in(1, 99).await;
    timeout(DEADLINE, async {
        let job = JobId(NUMBER);
        while !played.cluster.handle.status(job).await.unwrap().checkpoints().closing().unwrap().completed {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(played.cluster.call("GET", &status).await.json()["status"]["id"], "IN_PROGRESS");
    played.cluster.report(NUMBER, TaskState::Finished, None).await;
    let stopped = played.outcome(&status).await;
    assert!(
        stopped.json()["operation"]["location"].as_str().unwrap().contains("/savepoints/savepoint-000000-")
    );
    let late = played.call("POST", &played.path("savepoints"), json!({})).await;
    assert_eq!(late.status, 409, "{late:?}");
}

#[tokio::test]
async fn requirements_name_every_vertex_and_change_the_parallelism() {
    let played = Played::start().await;
    let path = played.path("resource-requirements");
    played.golden("requirements", &path).await;
    let vertices = graph(2).vertices;
    let bounds = |tasks: u32| json!({ "parallelism": { "lowerBound": 1, "upperBound": tasks } });
    let wanted = |tasks: [u32; 3]| -> Value {
        vertices
            .iter()
            .zip(tasks)
            .map(|(vertex, tasks)| (vertex.id.to_string(), bounds(tasks)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let now: Vec<u32> = vertices.iter().map(|vertex| vertex.parallelism).collect();
    let now = [now[0], now[1], now[2]];
    let put = async |body: Value| played.call("PUT", &path, body).await;

    assert_eq!(put(wanted(now)).await.body, "{}", "as it is");
    let mut some = wanted(now);
    some.as_object_mut().unwrap().remove(&vertices[1].id.to_string());
    let incomplete = put(some).await;
    assert_eq!(incomplete.status, 400);
    assert!(incomplete.error().contains(&vertices[1].id.to_string()), "{incomplete:?}");
    let slots = put(wanted([now[0], 99, now[2]])).await;
    assert_eq!(slots.status, 400);
    assert!(slots.error().contains("slots"), "{slots:?}");
    let mut unknown = wanted(now);
    unknown.as_object_mut().unwrap().insert("0".repeat(32), bounds(1));
    assert!(put(unknown).await.error().contains("has no vertex"));

    let begun = put(wanted([now[0], 4, now[2]])).await;
    assert_eq!((begun.status, begun.body.as_str()), (200, "{}"));
    let of_count =
        |answer: &Answer| answer.json()[vertices[1].id.to_string()]["parallelism"]["upperBound"].clone();
    assert_eq!(of_count(&played.cluster.call("GET", &path).await), 4);
    let job = JobId(NUMBER);
    assert_eq!(played.cluster.handle.status(job).await.unwrap().graph().vertices[1].parallelism, 2);
    // One goes in front of the one with which tasks stop.
    played.hand_in(1, 99).await;
    timeout(DEADLINE, async {
        while played.cluster.handle.status(job).await.unwrap().checkpoints().completed() < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    played.hand_in(2, 99).await;
    timeout(DEADLINE, async {
        while !played.cluster.handle.status(job).await.unwrap().checkpoints().closing().unwrap().completed {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    played.cluster.report(NUMBER, TaskState::Finished, None).await;
    let record = played.cluster.handle.status(job).await.unwrap();
    assert_eq!((record.graph().vertices[1].parallelism, record.vertices()[1].tasks().len()), (4, 4));
    assert_eq!(of_count(&played.cluster.call("GET", &path).await), 4);
}
