//! `flott run`: runs a job's program with the configuration in its environment.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use clap::Args;
use flott::schema::config::{Configuration, options};
use flott::schema::nearest::nearest;
use flott::schema::variables;
use flott::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::connection::Target;
use super::operation::absolute;
use super::restore_plan;

/// Runs a job: a program built with the flott library, in an embedded cluster or in the one that -m names.
///
/// In a cluster the program is uploaded and started on the workers, with the same arguments and settings; paths in them are paths
/// of the workers, and what the job prints is in the workers' log folders. The program reads its configuration from its environment; what is given here goes over FLOTT_CONF_* and FLOTT_PROPERTIES, and
/// what the program sets itself goes over that. Ctrl-C cancels the job, a second one ends the program at once.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,

    /// Submits the job to the cluster and does not wait for its end
    #[arg(short, long)]
    detached: bool,

    /// Number of parallel tasks of an operator for which the job gives none [default: number of cores, in a cluster parallelism.default]
    #[arg(short, long, value_name = "N")]
    parallelism: Option<u32>,

    /// Name of the job, in place of the one the program gives
    #[arg(short, long)]
    name: Option<String>,

    /// Sets a configuration key; may be given several times (conf/flott.yaml lists the keys)
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    properties: Vec<String>,

    /// Starts the job from this savepoint or checkpoint: its folder, as the hosts of the cluster see it
    #[arg(short = 's', long = "from-savepoint", value_name = "PATH")]
    savepoint: Option<String>,

    /// Drops state of the savepoint that no operator of the job claims; else such a savepoint is refused
    #[arg(long, requires = "savepoint")]
    allow_non_restored_state: bool,

    /// To whom the snapshot belongs afterwards: no-claim leaves it to you; with claim it is one of the job's own checkpoints, and is
    /// deleted when newer ones have taken its place
    #[arg(long, value_name = "MODE", requires = "savepoint")]
    claim_mode: Option<String>,

    /// Runs nothing: shows what becomes of each state of the savepoint, and what would be refused. Exit code 1 if the job would be
    #[arg(long, requires = "savepoint", conflicts_with = "detached")]
    plan: bool,

    /// Prints the job's summary as one line of JSON on the standard output as well; with --plan the plan
    #[arg(long)]
    json: bool,

    /// The program: a path, or a name to be looked for in PATH
    program: PathBuf,

    /// Arguments of the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

const EXAMPLES: &str = "Examples:
  flott run target/release/examples/word_count --input docs --top 20
  flott run -p 4 -n nightly -D execution.runtime-mode=BATCH target/release/my_job --date 2026-11-22
  flott run -s /savepoints/savepoint-3f9a1c-0123456789ab target/release/my_job
  flott run -s /savepoints/savepoint-3f9a1c-0123456789ab --plan target/release/my_job
  flott run -m localhost:8081 -d target/release/my_job /shared/input
  flott run --json target/release/my_job | tail -n 1 | jq .events_per_second";

impl Arguments {
    /// Runs the program to its end. The exit code is the program's where it is one of ours, else 1.
    pub fn run(self) -> Result<ExitCode> {
        if self.detached && self.target.addresses().is_none() {
            return Err(Error::configuration(
                "-d submits a job to a cluster, but none is named: say -m HOST:PORT, or set FLOTT_COORDINATOR",
            ));
        }
        let properties = self.all_properties()?;
        // Refused here, before anything has started.
        flott::process_configuration()?;
        Configuration::from_pairs(&properties)?;
        let program = find_program(&self.program)?;
        let mut command = Command::new(&program);
        command.args(&self.arguments);
        if !properties.is_empty() {
            command.env(variables::DYNAMIC_PROPERTIES, serde_json::to_string(&properties)?);
        }
        if self.json {
            command.env(variables::SUMMARY, "json");
        }
        if self.plan {
            return self.plan_restore(command, &program);
        }
        let Some(addresses) = self.target.addresses() else {
            // Not even if this command was started by a client.
            for name in [variables::SUBMIT, variables::DETACHED, variables::SUBMITTED] {
                command.env_remove(name);
            }
            end_with_this_process(&mut command);
            return Ok(ended(&program, supervise(command, &program)?));
        };
        let notes = Notes::new()?;
        command.env(variables::SUBMIT, addresses.to_string()).env(variables::SUBMITTED, &notes.path);
        command.env(variables::DETACHED, if self.detached { "1" } else { "0" });
        let status = supervise(command, &program)?;
        if status.success() && notes.are_empty() {
            return Err(Error::user(format!(
                "{} ended without submitting a job: it is no Flott job, or built with a Flott that knows no clusters, or does not \
                 come to `execute`",
                program.display()
            )));
        }
        Ok(ended(&program, status))
    }

    /// Has the program say what would become of the snapshot, and shows it. What the program prints itself is not mixed with that.
    fn plan_restore(&self, mut command: Command, program: &Path) -> Result<ExitCode> {
        let notes = Notes::new()?;
        command.env(variables::RESTORE_PLAN, &notes.path).env_remove(variables::SUMMARY);
        match self.target.addresses() {
            Some(addresses) => command.env(variables::SUBMIT, addresses.to_string()),
            None => command.env_remove(variables::SUBMIT),
        };
        let aside = std::io::stderr().as_fd().try_clone_to_owned()?;
        command.stdout(aside);
        end_with_this_process(&mut command);
        let status = supervise(command, program)?;
        let planned = notes.read()?;
        if planned.is_empty() && status.success() {
            return Err(Error::user(format!(
                "{} ended without a plan: it is no Flott job, or built with a Flott that knows no plans, or does not come to `execute`",
                program.display()
            )));
        }
        let refused = restore_plan::show(&planned, self.json)?;
        Ok(if refused { ExitCode::FAILURE } else { ended(program, status) })
    }

    /// The pairs of `-D`, and those that the other flags stand for: they are more particular, so they come last.
    fn all_properties(&self) -> Result<Vec<String>> {
        let mut properties = self.properties.clone();
        if let Some(path) = &self.savepoint {
            properties.push(format!("{}={}", options::RECOVERY_PATH.key(), absolute(path)?));
            let ignore = options::RECOVERY_IGNORE_UNCLAIMED.key();
            properties.push(format!("{ignore}={}", self.allow_non_restored_state));
            let mode = self.claim_mode.as_deref().unwrap_or("NO_CLAIM");
            properties.push(format!("{}={mode}", options::RECOVERY_CLAIM_MODE.key()));
        }
        properties.extend(self.parallelism.map(|n| format!("{}={n}", options::PARALLELISM_DEFAULT.key())));
        properties.extend(self.name.as_ref().map(|name| format!("{}={name}", options::PIPELINE_NAME.key())));
        Ok(properties)
    }
}

/// A file in which the program notes what it has submitted.
struct Notes {
    path: PathBuf,
}

impl Notes {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("flott-run-{}", std::process::id()));
        // Created here, so that nobody else's file of that name is written to.
        let _ = std::fs::remove_file(&path);
        let created = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
        created.map_err(|error| Error::io(path.display(), error))?;
        Ok(Notes { path })
    }

    fn read(&self) -> Result<String> {
        std::fs::read_to_string(&self.path).map_err(|error| Error::io(self.path.display(), error))
    }

    fn are_empty(&self) -> bool {
        std::fs::metadata(&self.path).map_or(true, |metadata| metadata.len() == 0)
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The executable file that `program` names.
fn find_program(program: &Path) -> Result<PathBuf> {
    let bare = program.components().count() == 1 && !program.starts_with(".");
    let found = match std::fs::metadata(program) {
        Ok(_) => Some(program.to_path_buf()),
        Err(_) if bare => search_path(program),
        Err(_) => None,
    };
    let Some(found) = found else {
        return Err(Error::configuration(format!(
            "there is no program {}{}",
            program.display(),
            advice_for_missing(program)
        )));
    };
    let metadata = std::fs::metadata(&found).map_err(|error| Error::io(found.display(), error))?;
    if metadata.is_dir() {
        return Err(Error::configuration(format!(
            "{} is a folder; build the job with `cargo build --release` and name the program, such as \
             target/release/NAME",
            found.display()
        )));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        let advice = match found.extension() {
            Some(extension) if extension == "rs" => {
                "it is source code: build it with `cargo build --release` and name the program, such as \
                 target/release/NAME"
                    .to_string()
            }
            _ => format!("if it is a program, say `chmod +x {}`", found.display()),
        };
        return Err(Error::configuration(format!("{} is not executable; {advice}", found.display())));
    }
    // Without a separator in it, a name would be looked for in PATH again.
    Ok(if found.components().count() == 1 { Path::new(".").join(found) } else { found })
}

fn search_path(name: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(is_program)
}

/// What may help: a neighbour of nearly the same name, or a word on how to build.
fn advice_for_missing(program: &Path) -> String {
    let folder = match program.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    let wanted = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match nearest(wanted, names.iter().map(String::as_str)) {
        Some(name) => format!("; did you mean {}?", folder.join(name).display()),
        None => "; build the job first (`cargo build --release`) and name the program, such as \
                 target/release/NAME"
            .to_string(),
    }
}

/// Has the program told to end when this process is gone, however: an embedded cluster that nobody sees would write on beside the next run.
fn end_with_this_process(command: &mut Command) {
    let prepare = || {
        // SAFETY: prctl with these arguments takes numbers only.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Starts the program and waits for it, with the standard streams and the process group of this process.
fn supervise(mut command: Command, program: &Path) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Listens before the program starts, so that no signal ends this process alone.
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let child = command.spawn().map_err(|error| Error::io(program.display(), error))?;
        let id = child.id();
        let mut ended = wait_aside(child)?;
        loop {
            tokio::select! {
                status = &mut ended => {
                    let status = status.map_err(|_| Error::internal("the wait for the program ended early"))?;
                    return Ok(status?);
                }
                // The terminal has given the program its Ctrl-C already; it takes both for one.
                _ = interrupt.recv() => pass_on(libc::SIGINT, id),
                _ = terminate.recv() => pass_on(libc::SIGTERM, id),
            }
        }
    })
}

/// Waits for the program on a thread of its own.
fn wait_aside(mut child: Child) -> Result<oneshot::Receiver<std::io::Result<ExitStatus>>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("flott-wait".into()).spawn(move || sender.send(child.wait()))?;
    Ok(receiver)
}

fn pass_on(signal: i32, process: u32) {
    let Ok(process) = libc::pid_t::try_from(process) else { return };
    // SAFETY: `kill` touches no memory. The process is a child that has not been waited for as far as this thread knows;
    // should it have ended this moment, its number has not been given to another one yet.
    unsafe {
        libc::kill(process, signal);
    }
}

/// The exit code for what became of the program.
fn ended(program: &Path, status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code @ 0..=2), _) => ExitCode::from(code as u8),
        (Some(_), _) => ExitCode::FAILURE,
        (None, signal) => {
            let name = program.display();
            match signal {
                Some(libc::SIGKILL) => {
                    eprintln!("flott: {name} was killed; if nobody did, memory has run out (see `dmesg`)")
                }
                Some(signal) => eprintln!("flott: {name} was ended by signal {signal}"),
                None => eprintln!("flott: {name} ended without an exit code"),
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_name_the_nearest_neighbour_or_how_to_build() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("word_count"), "").unwrap();
        let missing = |name: &str| find_program(&folder.path().join(name)).unwrap_err().to_string();
        assert!(missing("wordcount").contains("did you mean"), "{}", missing("wordcount"));
        assert!(missing("wordcount").contains("/word_count?"), "{}", missing("wordcount"));
        assert!(missing("other").contains("cargo build --release"), "{}", missing("other"));
    }

    #[test]
    fn what_is_no_program_is_refused_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        for (name, advice) in [("job.rs", "cargo build"), ("job", "chmod +x")] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            let error = find_program(&path).unwrap_err().to_string();
            assert!(error.contains("not executable") && error.contains(advice), "{error}");
        }
        let error = find_program(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is a folder"), "{error}");
    }

    #[test]
    fn a_bare_name_is_found_in_path() {
        assert!(find_program(Path::new("sh")).unwrap().ends_with("sh"));
        assert!(find_program(Path::new("./sh")).is_err());
    }
}
