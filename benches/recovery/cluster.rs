//! A cluster of processes in a temporary folder, started and stopped by the scripts, and its REST API.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;

/// Nothing here takes this long.
pub const DEADLINE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

/// Ends with the value.
pub struct Cluster {
    pub folder: PathBuf,
    address: String,
    flott: PathBuf,
}

impl Cluster {
    pub fn start(workers: usize, slots: usize, folder: Option<&Path>) -> Result<Self> {
        // target/release/deps/recovery-HASH
        let built = std::env::current_exe()?;
        let built = built.ancestors().nth(2).ok_or("the benchmark is not where cargo builds it")?;
        let flott = built.join("flott");
        if !flott.exists() {
            return Err(
                format!("{} is missing; run: cargo build --release --bin flott", flott.display()).into()
            );
        }
        let (rest, control) = (free_port()?, free_port()?);
        let above = folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let folder = above.join(format!("flott-bench-{}-{rest}", std::process::id()));
        fs::create_dir_all(folder.join("conf"))?;
        fs::create_dir_all(folder.join("tmp"))?;
        fs::write(folder.join("conf/coordinators"), "localhost\n")?;
        fs::write(folder.join("conf/workers"), "localhost\n".repeat(workers))?;
        let cluster = Cluster { folder, address: format!("127.0.0.1:{rest}"), flott };
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
        cluster.script("start-cluster.sh", &arguments)?;
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

    pub fn flott(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.flott);
        command.args(arguments).env("FLOTT_COORDINATOR", &self.address);
        text(command.output()?, arguments[0])
    }

    /// Submits this program with these arguments; gives the job's id.
    pub fn submit(&self, parallelism: u32, properties: &[String], arguments: &[String]) -> Result<String> {
        let (parallelism, program) = (parallelism.to_string(), std::env::current_exe()?);
        let program = program.display().to_string();
        let mut all = vec!["run", "-d", "--json", "-p", &parallelism];
        all.extend(properties.iter().flat_map(|pair| ["-D", pair.as_str()]));
        all.push(&program);
        all.extend(arguments.iter().map(String::as_str));
        let said = self.flott(&all)?;
        let summary: Value = serde_json::from_str(said.lines().next().ok_or("no summary")?)?;
        Ok(summary["job"].as_str().ok_or("a summary without job")?.to_string())
    }

    /// The statistics of the checkpoints of a job.
    pub fn checkpoints(&self, job: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(format!("GET /jobs/{job}/checkpoints HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(serde_json::from_str(answer.split_once("\r\n\r\n").ok_or("no answer")?.1)?)
    }

    /// Waits for `count` more checkpoints.
    pub fn await_checkpoints(&self, job: &str, count: u64) -> Result<()> {
        let completed =
            || -> Result<u64> { Ok(self.checkpoints(job)?["counts"]["completed"].as_u64().unwrap_or(0)) };
        let wanted = completed()? + count;
        until("a checkpoint is complete", || Ok(completed()? >= wanted))
    }

    /// The executors that live.
    pub fn executors(&self) -> Result<Vec<i32>> {
        let own = self.folder.join("tmp").display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).starts_with(&own) {
                found.push(id);
            }
        }
        Ok(found)
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so()? {
        if started.elapsed() > DEADLINE {
            return Err(format!("waited for {DEADLINE:?}, in vain, until {what}").into());
        }
        sleep(POLL);
    }
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.script("stop-cluster.sh", &[]) {
            eprintln!("the cluster in {} did not stop: {error}", self.folder.display());
            return;
        }
        if std::env::var_os("FLOTT_BENCH_KEEP").is_none() {
            // A folder that stays is no harm.
            let _ = fs::remove_dir_all(&self.folder);
        }
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
