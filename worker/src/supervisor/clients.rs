//! Programs run as clients: their main submits their jobs to the cluster, or gives their plans. So a program
//! that was uploaded can be run without running user code in a coordinator.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flott_schema::answer::ProgramRun;
use flott_schema::ids::JobId;
use flott_schema::job::ProgramRef;
use flott_schema::security::Token;
use flott_schema::{Error, ErrorKind, Result, variables};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::timeout;

use crate::supervisor::child::{Process, Start, describe, spawn};
use crate::supervisor::limits::ExecutorLimit;
use crate::supervisor::old_logs::remove_old;
use crate::supervisor::program_cache::{ProgramCache, ProgramSource};
use crate::supervisor::rotate::Rotation;

/// How long a program's main may take to submit all its jobs.
const DEADLINE: Duration = Duration::from_secs(300);
/// Most bytes of what a program notes.
const NOTES_BYTES_MAX: u64 = 16 << 20;
/// The variable of `security.token`.
const TOKEN_VARIABLE: &str = "FLOTT_CONF_SECURITY_TOKEN";

/// A wish to run a program.
pub struct ClientRun {
    /// The program.
    pub program: ProgramRef,
    /// Where it submits to.
    pub rest_address: String,
    /// Whether it gives its plan only.
    pub plan_only: bool,
    /// Who wants to know; the program is killed when nobody does any more.
    pub answer: oneshot::Sender<Result<ProgramRun>>,
}

/// What programs that are run as clients need of their worker.
#[derive(Clone)]
pub struct Clients {
    pub(super) programs: Rc<ProgramCache>,
    pub(super) source: Rc<dyn ProgramSource>,
    pub(super) folder: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) rotation: Rotation,
    pub(super) jobs_logged_max: usize,
    pub(super) token: Token,
}

/// Kills the process if it is dropped before that has ended.
struct Guard(Rc<Process>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Clients {
    /// Runs what is wished, each beside the others, until the wishes end.
    pub async fn serve(self, mut wishes: mpsc::Receiver<ClientRun>) {
        while let Some(ClientRun { program, rest_address, plan_only, mut answer }) = wishes.recv().await {
            let clients = self.clone();
            spawn_local(async move {
                let run = timeout(DEADLINE, clients.run(&program, &rest_address, plan_only));
                tokio::select! {
                    ran = run => {
                        let late = |_| {
                            let text = format!("its main did not end within {} s", DEADLINE.as_secs());
                            Err(Error::new(ErrorKind::UserCode, text))
                        };
                        let ran = ran.unwrap_or_else(late);
                        let place = || format!("program '{}'", program.name);
                        let _ = answer.send(ran.map_err(|error| error.at(place())));
                    }
                    () = answer.closed() => {}
                }
            });
        }
    }

    async fn run(&self, program: &ProgramRef, rest_address: &str, plan_only: bool) -> Result<ProgramRun> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let held = self.programs.acquire(program.digest, &*self.source).await?;
        let notes = tempfile::Builder::new().prefix("submitted-").tempfile_in(&self.folder);
        let notes = notes.map_err(|error| Error::io(self.folder.display(), error))?.into_temp_path();
        let address = match rest_address.contains("://") {
            true => rest_address.to_string(),
            false => format!("http://{rest_address}"),
        };
        let noted = notes.to_string_lossy();
        let mut given = vec![
            (variables::SUBMIT, address.as_str()),
            (variables::DETACHED, "1"),
            (variables::SUBMITTED, &noted),
        ];
        if plan_only {
            given.push((variables::PLAN_ONLY, "1"));
        }
        if !self.token.is_none() {
            given.push((TOKEN_VARIABLE, self.token.reveal()));
        }
        let start = Start {
            path: held.path(),
            program,
            variables: &given,
            limit: &ExecutorLimit::none(),
            log: &self.logs.join(format!("flott-client-{}-{number}", std::process::id())),
            rotation: self.rotation,
        };
        let running = spawn(start).await.map_err(|error| Error::io(held.path().display(), error))?;
        let guard = Guard(running.process());
        let (tell, told) = oneshot::channel();
        let (logs, jobs_max) = (self.logs.clone(), self.jobs_logged_max);
        // Of its own: one that is killed because nobody waits for it any more has to be waited for all the
        // same.
        spawn_local(async move {
            let ended = running.ended().await;
            drop(held);
            drop(spawn_blocking(move || remove_old(&logs, jobs_max)));
            let _ = tell.send(ended);
        });
        let ended = told.await.map_err(|_| Error::internal("nobody waits for a program's end"))?;
        let (status, tail) = ended.map_err(|error| Error::io("waiting for it", error))?;
        drop(guard);
        let size = std::fs::metadata(&notes).map_or(0, |metadata| metadata.len());
        if size > NOTES_BYTES_MAX {
            return Err(Error::new(ErrorKind::Resources, format!("its plans take {size} bytes")));
        }
        let text = std::fs::read_to_string(&notes).map_err(|error| Error::io("its notes", error))?;
        outcome(&text, plan_only, status, &tail)
    }
}

/// What a program that has ended came to.
fn outcome(notes: &str, plan_only: bool, status: ExitStatus, tail: &str) -> Result<ProgramRun> {
    let failed = |what: &str| {
        let mut text = format!("{} {what}", describe(status));
        if !tail.is_empty() {
            text.push_str(&format!("; the last lines of its standard error:\n{tail}"));
        }
        Err(Error::new(ErrorKind::UserCode, text))
    };
    let mut lines = notes.lines().filter(|line| !line.trim().is_empty());
    if plan_only {
        return match lines.next() {
            Some(plan) => Ok(ProgramRun::Plan(plan.to_string())),
            None => failed("without coming to a job"),
        };
    }
    let jobs: Result<Vec<JobId>> = lines.map(|line| line.trim().parse()).collect();
    match jobs? {
        jobs if jobs.is_empty() => failed("without submitting a job"),
        jobs if status.code() != Some(0) || status.signal().is_some() => {
            failed(&format!("after it had submitted {} jobs", jobs.len()))
        }
        jobs => Ok(ProgramRun::Submitted(jobs)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use flott_schema::job::ProgramDigest;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::supervisor::program_cache::ProgramPart;

    /// Tells its process id, and never ends.
    const ENDLESS: &[u8] = b"#!/bin/sh\necho $$ > \"$1\"\nexec sleep 3600\n";

    struct Endless;

    impl ProgramSource for Endless {
        fn read(&self, _: ProgramDigest, offset: u64, _: u32) -> ProgramPart {
            Box::pin(async move { Ok((ENDLESS[offset as usize..].to_vec(), ENDLESS.len() as u64)) })
        }
    }

    #[test]
    fn a_program_that_nobody_waits_for_any_more_is_killed_and_leaves_no_zombie() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let folder = tempfile::tempdir().unwrap();
            let programs = ProgramCache::open(folder.path().join("programs"), 0, Duration::ZERO).unwrap();
            let (wishes, wished) = mpsc::channel(1);
            let clients = Clients {
                programs,
                source: Rc::new(Endless),
                folder: folder.path().to_path_buf(),
                logs: folder.path().to_path_buf(),
                rotation: Rotation::default(),
                jobs_logged_max: 1,
                token: Token::none(),
            };
            spawn_local(clients.serve(wished));
            let noted = folder.path().join("process");
            let program = ProgramRef {
                digest: ProgramDigest(Sha256::digest(ENDLESS).into()),
                name: "endless".into(),
                arguments: vec![noted.to_string_lossy().into_owned()],
                execution: 0,
                configuration: Vec::new(),
            };
            let (answer, answered) = oneshot::channel();
            let wish = ClientRun { program, rest_address: "localhost:1".into(), plan_only: true, answer };
            wishes.send(wish).await.unwrap();
            let began = Instant::now();
            let process = loop {
                let text = std::fs::read_to_string(&noted).unwrap_or_default();
                if let Some(process) = text.strip_suffix('\n') {
                    break process.to_string();
                }
                assert!(began.elapsed() < Duration::from_secs(60), "the program does not start");
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            drop(answered);
            // One that has ended and was not waited for is still listed there.
            while std::path::Path::new("/proc").join(&process).exists() {
                assert!(began.elapsed() < Duration::from_secs(120), "process {process} is still there");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    #[test]
    fn what_a_program_noted_is_what_it_came_to_if_it_ended_well() {
        let (well, badly) = (ExitStatus::from_raw(0), ExitStatus::from_raw(1 << 8));
        let job = JobId(7);
        let notes = format!("{job}\n{}\n", JobId(8));
        let submitted = ProgramRun::Submitted(vec![job, JobId(8)]);
        assert_eq!(outcome(&notes, false, well, "").unwrap(), submitted);
        assert_eq!(outcome("{}\n", true, well, "").unwrap(), ProgramRun::Plan("{}".into()));
        let error = outcome("", false, well, "no input given").unwrap_err().to_string();
        assert!(error.contains("without submitting a job") && error.contains("no input given"), "{error}");
        assert!(outcome(&notes, false, badly, "").unwrap_err().to_string().contains("submitted 2 jobs"));
        assert!(outcome("", true, badly, "").is_err());
        assert!(outcome("nonsense", false, well, "").is_err());
    }
}
