//! A cluster of real processes, started and stopped through the scripts, in a temporary folder and on free ports.

// Each test binary uses its share of these.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Ended, flott, run};

/// Nothing that a test waits for takes this long, even on a machine that does other work.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Cluster {
    folder: TempDir,
    properties: Vec<String>,
    /// Of its processes.
    environment: Vec<(&'static str, String)>,
    pub address: String,
}

impl Cluster {
    /// Starts a coordinator, and this many workers of two slots each.
    pub fn start(workers: usize) -> Self {
        Cluster::start_with(workers, Vec::new())
    }

    /// The same with these variables in the environment of its processes.
    pub fn start_with(workers: usize, environment: Vec<(&'static str, String)>) -> Self {
        let mut cluster = Cluster::prepare(workers);
        cluster.environment = environment;
        let said = cluster.script("start-cluster.sh", &[]).succeeded();
        assert!(said.contains(&format!("REST API at http://{}", cluster.address)), "{said}");
        cluster
    }

    /// The configuration of such a cluster, which is not started yet.
    pub fn prepare(workers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (control, rest) = free_ports();
        let properties = [
            format!("coordinator.port={control}"),
            format!("rest.port={rest}"),
            format!("rest.bind-port={rest}"),
            format!("coordinator.data-dir={}", folder.path().join("data").display()),
            format!("io.tmp.dirs={}", folder.path().join("tmp").display()),
            "worker.slots=2".to_string(),
        ];
        let conf = folder.path().join("conf");
        std::fs::create_dir_all(&conf).unwrap();
        std::fs::create_dir_all(folder.path().join("tmp")).unwrap();
        std::fs::write(conf.join("coordinators"), "localhost\n").unwrap();
        std::fs::write(conf.join("workers"), "localhost\n".repeat(workers)).unwrap();
        let address = format!("127.0.0.1:{rest}");
        Cluster { folder, properties: properties.to_vec(), environment: Vec::new(), address }
    }

    /// Runs a script with the folders of this cluster.
    pub fn script(&self, name: &str, arguments: &[&str]) -> Ended {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("scripts").join(name));
        command.args(arguments);
        if !name.starts_with("stop") && arguments.first() != Some(&"stop") {
            command.args(self.properties.iter().flat_map(|pair| ["-D", pair]));
        }
        command
            .env("FLOTT_BIN", env!("CARGO_BIN_EXE_flott"))
            .env("FLOTT_CONFIG_DIR", self.folder.path().join("conf"))
            .env("FLOTT_LOG_DIR", self.folder.path().join("log"))
            .env_remove("FLOTT_PID_DIR")
            .env_remove("FLOTT_COORDINATOR")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        run(&mut command)
    }

    /// `flott ARGUMENTS`, asking this cluster.
    pub fn flott(&self, arguments: &[&str]) -> Command {
        let mut command = flott(arguments);
        command.env("FLOTT_COORDINATOR", &self.address);
        command
    }

    /// The jobs, as `flott list -a --json` has them.
    pub fn jobs(&self) -> Vec<Value> {
        let stdout = run(&mut self.flott(&["list", "-a", "--json"])).succeeded();
        let mut overview: Value = serde_json::from_str(&stdout).unwrap();
        std::mem::take(overview["jobs"].as_array_mut().unwrap())
    }

    /// Submits a job and gives its id.
    pub fn submit(&self, flags: &[&str], program: &[&str]) -> String {
        let stdout = run(&mut self.flott(&[&["run", "-d", "--json"], flags, program].concat())).succeeded();
        let summary: Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
        assert_eq!(summary["state"], "SUBMITTED");
        summary["job"].as_str().unwrap().to_string()
    }

    /// Waits until a job is in a state in which all its tasks are, for `RUNNING`.
    pub fn wait_for(&self, job: &str, state: &str) {
        let started = Instant::now();
        loop {
            let jobs = self.jobs();
            let found = jobs.iter().find(|known| known["jid"] == job).cloned().unwrap_or_default();
            let tasks = &found["tasks"];
            if found["state"] == state && (state != "RUNNING" || tasks["running"] == tasks["total"]) {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "job {job} is not {state}: {found}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process in a pid file of the scripts.
    pub fn process(&self, name: &str) -> i32 {
        std::fs::read_to_string(self.pid_file(name)).unwrap().trim().parse().unwrap()
    }

    /// The file in which the scripts keep the number of a process.
    pub fn pid_file(&self, name: &str) -> PathBuf {
        self.folder.path().join("log").join(format!("flott-{name}.pid"))
    }

    /// The log file of a process.
    pub fn log(&self, name: &str) -> String {
        let role = name.split('-').next().unwrap();
        let folder = self.folder.path().join("log").join(name);
        std::fs::read_to_string(folder.join(format!("flott-{role}.log"))).unwrap()
    }

    /// The executors of this cluster that live.
    pub fn executors(&self) -> Vec<i32> {
        self.processes()
            .into_iter()
            .filter(|(_, line)| line.starts_with(self.tmp().as_str()))
            .map(|(id, _)| id)
            .collect()
    }

    fn tmp(&self) -> String {
        self.folder.path().join("tmp").display().to_string()
    }

    /// Whether a process lives; a zombie does not.
    pub fn lives(&self, process: i32) -> bool {
        self.processes().iter().any(|(id, _)| *id == process)
    }

    /// Every process whose command line names this cluster's folder.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let folder = self.folder.path().display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            // A process may end while it is looked at; a zombie has no command line.
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&folder) {
                found.push((id, line));
            }
        }
        found
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < DEADLINE, "{what}: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the cluster; nothing of it may be left.
    pub fn stop(self) {
        self.script("stop-cluster.sh", &[]).succeeded();
        self.until("something is left", |cluster| cluster.processes().is_empty());
    }
}

impl Drop for Cluster {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        for (process, _) in self.processes() {
            kill(process);
        }
    }
}

/// What an HTTP server answers, head and body.
pub fn http_get(address: &str, path: &str) -> String {
    try_http_get(address, path).unwrap()
}

/// The same from one that may be gone.
pub fn try_http_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ends a process at once.
pub fn kill(process: i32) {
    // SAFETY: touches no memory. The number is that of a process of this test's own cluster.
    unsafe {
        libc::kill(process, libc::SIGKILL);
    }
}

/// Two ports that are free now.
fn free_ports() -> (u16, u16) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [control, rest] = listeners.map(|listener| listener.local_addr().unwrap().port());
    (control, rest)
}
