//! A cluster of processes on one host: how soon it is ready, how soon a job runs, what it takes while idle.
//!
//! `cargo build --release --bin flott --example test_job && cargo bench --bench cluster` prints the figures beside their
//! targets, with machine and settings. Ports are free ones, files are in a temporary folder, and nothing is left behind.

use std::error::Error;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Nothing here takes this long.
const DEADLINE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    println!("machine: {}", machine()?);
    let mut figures = Vec::new();

    println!("settings: one coordinator with a data directory, two workers of 2 slots; best of {ROUNDS}");
    let ready: Result<Vec<f64>> = (0..ROUNDS).map(|_| Ok(Cluster::start(2, 2)?.ready_ms)).collect();
    figures.push(Figure::new("script start to ready", best(&ready?), "ms", 1_000.0));

    let cluster = Cluster::start(2, 2)?;
    sleep(Duration::from_secs(5));
    for (what, file, target) in [("coordinator", "coordinator-1", 50.0), ("worker", "worker-1", 30.0)] {
        let resident = cluster.resident_mb(file)?;
        figures.push(Figure::new(format!("idle resident memory, {what}"), resident, "MB", target));
    }
    // The program is uploaded by the first submission.
    cluster.cancel(&cluster.submit(1, "endless")?.0)?;
    let mut running = Vec::new();
    for _ in 0..ROUNDS {
        let (job, started) = cluster.submit(1, "endless")?;
        running.push(cluster.until_running(&job, 1, started)?);
        cluster.cancel(&job)?;
    }
    figures.push(Figure::new("client start to RUNNING, program uploaded", best(&running), "ms", 300.0));
    drop(cluster);

    let cluster = Cluster::start(2, 100)?;
    let (job, started) = cluster.submit(200, "wide")?;
    let deployed = cluster.until_running(&job, 1_000, started)?;
    figures.push(Figure::new(
        "1,000 subtasks in 200 slots: client start to RUNNING",
        deployed,
        "ms",
        5_000.0,
    ));
    cluster.cancel(&job)?;
    drop(cluster);

    println!("{:<56} {:>10} {:>14}", "figure", "measured", "target");
    for figure in &figures {
        println!("{figure}");
    }
    Ok(())
}

/// A measured number beside what it should be below.
struct Figure {
    name: String,
    measured: f64,
    unit: &'static str,
    below: f64,
}

impl Figure {
    fn new(name: impl Into<String>, measured: f64, unit: &'static str, below: f64) -> Self {
        Figure { name: name.into(), measured, unit, below }
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.measured < self.below { "met" } else { "NOT met" };
        let Figure { name, measured, unit, below } = self;
        write!(f, "{name:<56} {measured:>7.0} {unit} {:>14} {verdict}", format!("< {below:.0} {unit}"))
    }
}

/// Started by the scripts; ends with the value.
struct Cluster {
    folder: PathBuf,
    address: String,
    flott: PathBuf,
    program: PathBuf,
    ready_ms: f64,
}

impl Cluster {
    fn start(workers: usize, slots: usize) -> Result<Self> {
        // target/release/deps/cluster-HASH
        let release = std::env::current_exe()?;
        let release = release.ancestors().nth(2).ok_or("the benchmark is not where cargo builds it")?;
        let (flott, program) = (release.join("flott"), release.join("examples/test_job"));
        for file in [&flott, &program] {
            if !file.exists() {
                let build = "cargo build --release --bin flott --example test_job";
                return Err(format!("{} is missing; run: {build}", file.display()).into());
            }
        }
        let (rest, control) = (free_port()?, free_port()?);
        let folder = std::env::temp_dir().join(format!("flott-bench-{}-{rest}", std::process::id()));
        fs::create_dir_all(folder.join("conf"))?;
        fs::create_dir_all(folder.join("tmp"))?;
        fs::write(folder.join("conf/coordinators"), "localhost\n")?;
        fs::write(folder.join("conf/workers"), "localhost\n".repeat(workers))?;
        let mut cluster =
            Cluster { folder, address: format!("127.0.0.1:{rest}"), flott, program, ready_ms: 0.0 };
        let folder = cluster.folder.display();
        let properties = [
            format!("coordinator.port={control}"),
            format!("rest.port={rest}"),
            format!("rest.bind-port={rest}"),
            format!("coordinator.data-dir={folder}/data"),
            format!("io.tmp.dirs={folder}/tmp"),
            format!("worker.slots={slots}"),
        ];
        let arguments: Vec<&str> = properties.iter().flat_map(|pair| ["-D", pair.as_str()]).collect();
        let started = Instant::now();
        cluster.script("start-cluster.sh", &arguments)?;
        cluster.ready_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(cluster)
    }

    fn script(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
        let mut command = Command::new(root.join(name));
        command
            .args(arguments)
            .env("FLOTT_BIN", &self.flott)
            .env("FLOTT_CONFIG_DIR", self.folder.join("conf"))
            .env("FLOTT_LOG_DIR", self.folder.join("log"))
            .env_remove("FLOTT_PID_DIR");
        text(command.output()?, name)
    }

    fn flott(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.flott);
        command.args(arguments).env("FLOTT_COORDINATOR", &self.address);
        text(command.output()?, arguments[0])
    }

    /// Submits the test job that ends as `how` says; its id, and when the client was started.
    fn submit(&self, parallelism: usize, how: &str) -> Result<(String, Instant)> {
        let started = Instant::now();
        let program = self.program.to_string_lossy();
        let said = self.flott(&["run", "-d", "--json", "-p", &parallelism.to_string(), &program, how])?;
        let summary: Value = serde_json::from_str(said.lines().next().ok_or("no summary")?)?;
        Ok((summary["job"].as_str().ok_or("a summary without job")?.to_string(), started))
    }

    /// Waits until so many tasks of a job run; milliseconds since `started`.
    fn until_running(&self, job: &str, tasks: u64, started: Instant) -> Result<f64> {
        loop {
            let overview: Value = serde_json::from_str(&self.flott(&["list", "-a", "--json"])?)?;
            let jobs = overview["jobs"].as_array().ok_or("no jobs")?;
            let found = jobs.iter().find(|known| known["jid"] == job).ok_or("the job is not known")?;
            if found["tasks"]["running"] == tasks {
                return Ok(started.elapsed().as_secs_f64() * 1e3);
            }
            if started.elapsed() > DEADLINE {
                return Err(format!("the job does not run: {found}").into());
            }
        }
    }

    fn cancel(&self, job: &str) -> Result<()> {
        self.flott(&["cancel", job]).map(drop)
    }

    /// Resident memory of a process of the scripts.
    fn resident_mb(&self, name: &str) -> Result<f64> {
        let process = fs::read_to_string(self.folder.join("log").join(format!("flott-{name}.pid")))?;
        let status = fs::read_to_string(format!("/proc/{}/status", process.trim()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.script("stop-cluster.sh", &[]) {
            eprintln!("the cluster in {} did not stop: {error}", self.folder.display());
            return;
        }
        // A folder that stays is no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn text(output: Output, what: &str) -> Result<String> {
    if !output.status.success() {
        return Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn machine() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(format!(
        "{} x {}, load {}",
        std::thread::available_parallelism()?,
        model.map_or("unknown processor", |(_, name)| name),
        load.split(' ').next().unwrap_or_default()
    ))
}
