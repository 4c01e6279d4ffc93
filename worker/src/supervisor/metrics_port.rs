//! The port at which Prometheus reads the metrics of a worker: HTTP, `GET /metrics`, a request a connection.
//! With a secret in the cluster it has to be shown, as `Authorization: Bearer`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flott_schema::config::PortRanges;
use flott_schema::security::Token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::timeout;

use crate::supervisor::control_socket::pause;
use crate::supervisor::prometheus::render;
use crate::supervisor::statistics::Statistics;

/// Connections that are served at the same time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8;
/// Bytes of a request.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long a request may take from the first byte to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is told, and to whom.
#[derive(Clone)]
pub struct MetricsPort {
    /// The host of the worker, for people.
    pub host: String,
    /// Its name.
    pub worker: String,
    /// Its slots.
    pub slots: u32,
    /// The numbers.
    pub statistics: Statistics,
    /// The shared secret.
    pub token: Token,
}

/// The first free port of `ports` on `host`, with its number; nothing where none is free, which the log
/// tells: a worker without metrics is better than none.
pub async fn bind(host: &str, ports: &PortRanges) -> Option<(TcpListener, u16)> {
    let mut reason = "no port is named".to_string();
    for port in ports.iter() {
        match TcpListener::bind((host, port)).await.and_then(|bound| Ok((bound.local_addr()?.port(), bound)))
        {
            Ok((port, listener)) => return Some((listener, port)),
            Err(error) => reason = error.to_string(),
        }
    }
    tracing::warn!(
        host,
        reason,
        "no port for metrics (metrics.reporter.prom.port); the leader gives those of the tasks"
    );
    None
}

impl MetricsPort {
    /// Answers, for ever. Must be called inside a `LocalSet`.
    pub async fn serve(self, listener: TcpListener) {
        let port = Rc::new(self);
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // An error means a closed semaphore, and this one never is.
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let port = port.clone();
                    spawn_local(async move {
                        // Who goes away or says nothing needs no answer.
                        let _ = timeout(DEADLINE, port.answer(stream)).await;
                        drop(permit);
                    });
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let request = read_head(&mut stream).await?;
        let (status, more, body) = match self.decide(&request) {
            Decision::Refused(status, more, reason) => (status, more, format!("{reason}\n")),
            Decision::Metrics => ("200 OK", "", self.text().await),
        };
        let is_head = request.starts_with("HEAD ");
        let head = format!(
            "HTTP/1.1 {status}\r\n{more}content-type: text/plain; version=0.0.4; charset=utf-8\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if !is_head {
            stream.write_all(body.as_bytes()).await?;
        }
        stream.shutdown().await
    }

    fn decide(&self, request: &str) -> Decision {
        let mut lines = request.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        if !version.is_some_and(|version| version.starts_with("HTTP/1.")) {
            return Decision::Refused("400 Bad Request", "", "this is no HTTP request");
        }
        if !self.token.is_none() && !bearer(lines).is_some_and(|shown| self.token.admits(shown)) {
            let scheme = "www-authenticate: Bearer realm=\"flott\"\r\n";
            return Decision::Refused(
                "401 Unauthorized",
                scheme,
                "the secret of the cluster is missing or wrong",
            );
        }
        match (method, target.map(|target| target.split('?').next().unwrap_or_default())) {
            (Some("GET" | "HEAD"), Some("/metrics" | "/")) => Decision::Metrics,
            (Some("GET" | "HEAD"), _) => Decision::Refused("404 Not Found", "", "only /metrics is here"),
            _ => Decision::Refused("405 Method Not Allowed", "allow: GET, HEAD\r\n", "only GET is answered"),
        }
    }

    async fn text(&self) -> String {
        let Self { host, worker, slots, statistics, .. } = self.clone();
        // A worker with many tasks has much to write, and orders are not to wait for that.
        let text = spawn_blocking(move || render(&host, &worker, slots, &statistics.snapshot()));
        text.await.unwrap_or_default()
    }
}

enum Decision {
    Metrics,
    /// Status, a header line, reason.
    Refused(&'static str, &'static str, &'static str),
}

/// Reads a request up to the empty line. What has none within the bound is cut there, and found wanting.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::with_capacity(1 << 10);
    while bytes.len() < REQUEST_BYTES_MAX && !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        let room = (REQUEST_BYTES_MAX - bytes.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The secret that a request shows.
fn bearer<'a>(headers: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut headers = headers.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
    let (scheme, secret) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

#[cfg(test)]
mod tests {
    use flott_schema::graph::{ExecutionMode, JobGraph, OperatorSpec, Vertex};
    use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, VertexId};
    use flott_schema::stats::{OperatorStats, TaskStats, WorkerUsage};
    use tokio::task::LocalSet;

    use super::*;
    use crate::supervisor::machine::ExecutorNumber;
    use crate::supervisor::statistics::ExecutorUsage;

    const JOB: JobId = JobId(7);

    fn statistics() -> Statistics {
        let statistics = Statistics::default();
        let operator = OperatorSpec { id: OperatorId(2), uid: "words".into(), name: "Words".into() };
        let vertex = Vertex {
            id: VertexId(1),
            name: "Source -> Words".into(),
            operators: vec![operator],
            parallelism: 4,
            max_parallelism: 128,
            slot_sharing_group: "default".into(),
            is_source: true,
        };
        let graph = JobGraph {
            name: "word count".into(),
            mode: ExecutionMode::Streaming,
            vertices: vec![vertex],
            edges: Vec::new(),
        };
        statistics.note_job(JOB, Arc::new(graph));
        let attempt =
            AttemptId { task: TaskId { vertex: VertexId(1), subtask: 3 }, job_epoch: 0, attempt: 2 };
        let operators = vec![OperatorStats { records_out: 9, ..OperatorStats::default() }];
        let stats = TaskStats { records_out: 7, operators, ..TaskStats::new(JOB, attempt) };
        statistics.note_tasks(ExecutorNumber(1), vec![stats]);
        let usage = WorkerUsage { resident_bytes: 5, executors_resident_bytes: 6, ..WorkerUsage::default() };
        let executor = ExecutorUsage { process: 42, job: JOB, resident_bytes: 6, cpu_ms: 1 };
        statistics.set_usage(usage, vec![executor], 2);
        statistics
    }

    async fn ask(token: Token, request: &str) -> String {
        let (listener, _) = bind("127.0.0.1", &ports()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let statistics = statistics();
        let port = MetricsPort { host: "here".into(), worker: "w-1".into(), slots: 4, statistics, token };
        let serving = spawn_local(port.serve(listener));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        serving.abort();
        answer
    }

    fn ports() -> PortRanges {
        use flott_schema::config::ConfigValue;
        PortRanges::parse("0").unwrap()
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn prometheus_reads_the_worker_its_executors_tasks_and_operators_by_flinks_names() {
        run(async {
            let answer = ask(Token::none(), "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            let own = "host=\"here\",tm_id=\"w-1\"";
            for line in [
                format!("flink_taskmanager_Status_JVM_Memory_Heap_Used{{{own}}} 11"),
                format!("flott_worker_slots_total{{{own}}} 4"),
                format!("flott_worker_slots_used{{{own}}} 2"),
            ] {
                assert!(answer.lines().any(|found| found == line), "no '{line}' in {answer}");
            }
            let job = format!("{own},job_id=\"{JOB}\",job_name=\"word count\"");
            for (name, more, value) in [
                ("flott_executor_resident_bytes", "process=\"42\"", " 6"),
                ("flink_taskmanager_job_task_numRecordsOut", "subtask_index=\"3\"", " 7"),
                ("flink_taskmanager_job_task_operator_numRecordsOut", "operator_name=\"Words\"", " 9"),
            ] {
                let start = format!("{name}{{{job}");
                let is_it =
                    |line: &&str| line.starts_with(&start) && line.contains(more) && line.ends_with(value);
                assert_eq!(answer.lines().filter(is_it).count(), 1, "{name} {more} in {answer}");
            }
        });
    }

    #[test]
    fn other_requests_are_refused_with_the_reason() {
        run(async {
            for (request, status) in [
                ("GET /jobs HTTP/1.1\r\n\r\n", "404"),
                ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
                ("hello", "400"),
                ("", "400"),
            ] {
                let answer = ask(Token::none(), request).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
                assert!(!answer.contains("word count"), "{answer}");
            }
            let endless = format!("GET /metrics HTTP/1.1\r\n{}", "x".repeat(REQUEST_BYTES_MAX - 23));
            assert!(ask(Token::none(), &endless).await.starts_with("HTTP/1.1 200 OK\r\n"));
        });
    }

    #[test]
    fn a_cluster_with_a_secret_wants_to_see_it() {
        run(async {
            let token = || Token::new("correct-horse").unwrap();
            let request = |header: &str| format!("GET /metrics HTTP/1.1\r\n{header}\r\n\r\n");
            let shown = ask(token(), &request("AUTHORIZATION: bearer correct-horse")).await;
            assert!(shown.starts_with("HTTP/1.1 200 OK\r\n"), "{shown}");
            for header in
                ["host: x", "authorization: Bearer wrong-horse", "authorization: Basic correct-horse"]
            {
                let answer = ask(token(), &request(header)).await;
                assert!(answer.starts_with("HTTP/1.1 401 "), "{header}: {answer}");
            }
        });
    }
}
