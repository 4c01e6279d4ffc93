//! Runs the scripts in `testdata/`: after each event the effects and the state it led to. `UPDATE=1` rewrites them.
//!
//! Above the first event, `graph NAME streaming|batch: VERTEX PARALLELISM, ...; EDGE, ...` names graphs, and
//! `restart NAME none | fixed ATTEMPTS DELAY | rate MAX INTERVAL DELAY | exponential INITIAL MAX MULTIPLIER RESET ATTEMPTS [all] [overlap]`
//! restart strategies; with `overlap` two snapshots may be taken at once. Events: `> register w1 SLOTS`, `> lost w1`, `> submit j1 GRAPH [STRATEGY]`,
//! `> task j1 VERTEX/SUBTASK[#ATTEMPT] STATE [CAUSE]` (the current attempt where none is given;
//! a cause that begins with `configuration:`, `graph:` or `resources:` is of that kind, with `damaged:` one of the snapshot that the task starts from),
//! `> all j1 VERTEX STATE` (one report for each subtask), `> cancel j1`, `> expire j1 [NUMBER]`, `> delay j1 [NUMBER]`. Time is ten milliseconds an event;
//! `> returned w1 [j1 VERTEX/SUBTASK[#ATTEMPT] STATE, ...]` is a worker that is back with these tasks;
//! `> checkpoint j1`, `> savepoint j1 FOLDER`, `> stop j1 FOLDER`, `> drain j1 FOLDER`, `> save_and_cancel j1 FOLDER`,
//! `> rescale j1 VERTEX=N ...` ask for snapshots, each with an operation of a number of its own; `> complete j1 ID`,
//! `> fail j1 ID [counts] REASON`, `> last j1 VERTEX/SUBTASK`, `> dispose FOLDER`; `> snapshots j1` is a question.
//! `> pass MS` lets more go by. `> times j1` is a question and no event. Lines below an event, and only these, are output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use flott_schema::control::{CheckpointOrder, Placement, PrepareOrder, RunningTask, TaskFailure, TaskState};
use flott_schema::error::ErrorKind;
use flott_schema::graph::{ExecutionMode, JobGraph};
use flott_schema::ids::{AttemptId, JobId, OperatorId, SlotId, TaskId, WorkerId};
use flott_schema::job::{CheckpointSettings, JobSettings, JobSpec, RestartStrategy};
use flott_schema::snapshot::{AfterBarrier, Alignment, SavepointFormat, SnapshotKind};

use super::simulation::last_of;
use super::{graph, offering};
use crate::machine::{
    CheckpointRecord, CheckpointRequest, CheckpointStats, ClusterState, Effect, Event, JobOutcome, JobRecord,
    JobState, Limits, OperationId, Purpose, apply, check_invariants,
};

#[test]
fn scripts_lead_to_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).expect("testdata is there").map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", folder.display());
    let mut failed = Vec::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = Player::default().play(&script);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &played).unwrap();
        } else if played != script {
            let line = played.lines().zip(script.lines()).position(|(is, was)| is != was);
            let line = line.unwrap_or(played.lines().count().min(script.lines().count()));
            failed.push(format!(
                "{}, line {}:\n  expected: {}\n  played:   {}",
                path.file_name().unwrap().display(),
                line + 1,
                script.lines().nth(line).unwrap_or("(end)"),
                played.lines().nth(line).unwrap_or("(end)"),
            ));
        }
    }
    assert!(failed.is_empty(), "{}\nUPDATE=1 rewrites the scripts", failed.join("\n"));
}

struct Player {
    graphs: BTreeMap<String, JobGraph>,
    strategies: BTreeMap<String, JobSettings>,
    state: ClusterState,
    now_ms: u64,
}

impl Default for Player {
    fn default() -> Self {
        Player {
            graphs: BTreeMap::new(),
            strategies: BTreeMap::new(),
            state: ClusterState::new(Limits { ended_jobs_max: 3, exceptions_max: 2 }),
            now_ms: 0,
        }
    }
}

impl Player {
    fn play(mut self, script: &str) -> String {
        let mut played = String::new();
        let mut in_output = false;
        for line in script.lines() {
            let Some(command) = line.strip_prefix("> ") else {
                if let Some(text) = line.strip_prefix("graph ") {
                    self.define(text);
                }
                if let Some(text) = line.strip_prefix("restart ") {
                    self.define_strategy(text);
                }
                if in_output && line.starts_with('#') {
                    in_output = false;
                    played.push('\n');
                }
                if !in_output {
                    played += line;
                    played.push('\n');
                }
                continue;
            };
            if in_output {
                played.push('\n');
            }
            in_output = true;
            writeln!(played, "> {command}").unwrap();
            let words: Vec<&str> = command.split_whitespace().collect();
            if words[0] == "times" {
                self.print_times(self.state.job(job(words[1])).expect("the job is known"), &mut played);
                continue;
            }
            if words[0] == "snapshots" {
                print_snapshots(self.state.job(job(words[1])).expect("the job is known"), &mut played);
                continue;
            }
            if words[0] == "pass" {
                self.now_ms += words[1].parse::<u64>().unwrap();
                continue;
            }
            self.now_ms += 10;
            let before = self.state.clone();
            for event in self.events(&words) {
                for effect in apply(&mut self.state, event) {
                    print_effect(&self.state, &effect, &mut played);
                }
                check_invariants(&self.state).unwrap();
            }
            if self.state.ignored() != before.ignored() {
                let counters = difference(before.ignored(), self.state.ignored());
                writeln!(played, "  ignored: {counters}").unwrap();
            }
            self.print_state(&before, &mut played);
        }
        played
    }

    fn define(&mut self, text: &str) {
        let (head, body) = text.split_once(':').expect("a graph has a body");
        let (name, mode) = head.split_once(' ').expect("a graph has a name and a mode");
        let mode = match mode.trim() {
            "streaming" => ExecutionMode::Streaming,
            "batch" => ExecutionMode::Batch,
            other => panic!("no mode: {other}"),
        };
        let (vertices, edges) = body.split_once(';').unwrap_or((body, ""));
        let vertices: Vec<(&str, u32)> = vertices
            .split(',')
            .map(|vertex| vertex.trim().split_once(' ').expect("a vertex has a parallelism"))
            .map(|(vertex, parallelism)| (vertex, parallelism.trim().parse().unwrap()))
            .collect();
        let edges: Vec<&str> = edges.split(',').map(str::trim).filter(|edge| !edge.is_empty()).collect();
        self.graphs.insert(name.to_string(), graph::build(name, mode, &vertices, &edges));
    }

    fn define_strategy(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        let restart = match words[1] {
            "none" => RestartStrategy::None,
            "fixed" => RestartStrategy::FixedDelay { attempts: number(2) as u32, delay_ms: number(3) },
            "rate" => RestartStrategy::FailureRate {
                failures_max: number(2) as u32,
                interval_ms: number(3),
                delay_ms: number(4),
            },
            "exponential" => RestartStrategy::ExponentialDelay {
                initial_ms: number(2),
                max_ms: number(3),
                multiplier_milli: number(4) as u32 * 1_000,
                jitter_milli: 0,
                reset_ms: number(5),
                attempts: number(6) as u32,
            },
            other => panic!("no strategy: {other}"),
        };
        let restart_all = words.contains(&"all");
        let checkpoints = CheckpointSettings {
            num_retained: 2,
            tolerable_failures: 1,
            max_concurrent: if words.contains(&"overlap") { 2 } else { 1 },
            ..CheckpointSettings::default()
        };
        let settings = JobSettings { restart, restart_all, checkpoints, ..JobSettings::default() };
        self.strategies.insert(words[0].to_string(), settings);
    }

    fn events(&self, words: &[&str]) -> Vec<Event> {
        let at_ms = self.now_ms;
        let one = match words {
            ["register", w, slots] => Event::WorkerRegistered {
                worker: worker(w),
                profile: offering(slots.parse().unwrap()),
                at_ms,
            },
            ["lost", w] => Event::WorkerLost { worker: worker(w), at_ms },
            ["returned", w, tasks @ ..] => {
                let tasks = tasks.join(" ");
                let tasks = tasks.split(',').map(str::trim).filter(|task| !task.is_empty());
                let tasks = tasks.map(|task| self.running_task(task)).collect();
                Event::WorkerReturned { worker: worker(w), tasks, at_ms }
            }
            ["submit", j, name, strategy @ ..] => {
                let settings = strategy.first().map(|name| self.strategies[*name].clone());
                let graph = Arc::new(self.graphs[*name].clone());
                let spec = JobSpec { settings: settings.unwrap_or_default(), ..JobSpec::embedded(graph) };
                let spec = Arc::new(spec);
                Event::JobSubmitted { job: job(j), spec, at_ms }
            }
            ["task", j, task, state, cause @ ..] => {
                let (task, number) = task.split_once('#').map_or((*task, None), |(task, n)| (task, Some(n)));
                let (vertex, subtask) = task.split_once('/').expect("a task has an index");
                let number = number.map(|number| number.parse().unwrap());
                self.report(job(j), vertex, subtask.parse().unwrap(), number, state, cause)
            }
            ["all", j, vertex, state] => {
                let parallelism = self.state.job(job(j)).expect("the job is known");
                let parallelism =
                    parallelism.graph().vertex(OperatorId::of_uid(vertex).into()).unwrap().parallelism;
                return (0..parallelism)
                    .map(|subtask| self.report(job(j), vertex, subtask, None, state, &[]))
                    .collect();
            }
            ["checkpoint", j] => self.request(job(j), Purpose::GoOn, None),
            ["savepoint", j, folder] => self.request(job(j), Purpose::GoOn, Some(folder)),
            ["stop", j, folder] => self.request(job(j), Purpose::Stop, Some(folder)),
            ["drain", j, folder] => self.request(job(j), Purpose::Drain, Some(folder)),
            ["save_and_cancel", j, folder] => self.request(job(j), Purpose::Cancel, Some(folder)),
            ["rescale", j, vertices @ ..] => {
                let mut event = self.request(job(j), Purpose::Rescale, None);
                let Event::CheckpointRequested { request, .. } = &mut event else { unreachable!() };
                request.parallelism = vertices
                    .iter()
                    .map(|text| text.split_once('=').expect("a vertex has a parallelism"))
                    .map(|(vertex, number)| (OperatorId::of_uid(vertex).into(), number.parse().unwrap()))
                    .collect();
                event
            }
            ["complete", j, id] => {
                let stats = CheckpointStats::default();
                Event::CheckpointCompleted { job: job(j), checkpoint: id.parse().unwrap(), stats, at_ms }
            }
            ["fail", j, id, reason @ ..] => Event::CheckpointFailed {
                job: job(j),
                checkpoint: id.parse().unwrap(),
                reason: reason.join(" "),
                counts: reason.first() == Some(&"counts"),
                stats: CheckpointStats::default(),
                at_ms,
            },
            ["last", j, task] => match self.report(
                job(j),
                task.split_once('/').unwrap().0,
                task.split_once('/').unwrap().1.parse().unwrap(),
                None,
                "RUNNING",
                &[],
            ) {
                Event::TaskStateChanged { job, attempt, .. } => {
                    Event::LastSnapshot { job, attempt, snapshot: last_of(attempt), at_ms }
                }
                other => panic!("no report: {other:?}"),
            },
            ["dispose", folder] => Event::SavepointDisposed { folder: folder.to_string(), at_ms },
            ["cancel", j] => Event::CancelRequested { job: job(j), at_ms },
            ["expire", j] => {
                let wait = self.state.job(job(j)).and_then(JobRecord::slot_wait).expect("a wait in course");
                Event::SlotWaitExpired { job: job(j), wait: wait.number, at_ms }
            }
            ["delay", j] => {
                let restart = self.state.job(job(j)).and_then(JobRecord::pending_restart);
                let number = restart.expect("a restart on its way").number;
                Event::RestartDelayExpired { job: job(j), number, at_ms }
            }
            ["delay", j, number] => {
                Event::RestartDelayExpired { job: job(j), number: number.parse().unwrap(), at_ms }
            }
            ["expire", j, wait] => Event::SlotWaitExpired { job: job(j), wait: wait.parse().unwrap(), at_ms },
            _ => panic!("no event: {words:?}"),
        };
        vec![one]
    }

    fn request(&self, job: JobId, purpose: Purpose, folder: Option<&str>) -> Event {
        let request = CheckpointRequest {
            kind: match folder {
                Some(_) => SnapshotKind::Savepoint(SavepointFormat::Canonical),
                None => SnapshotKind::Checkpoint,
            },
            purpose,
            alignment: Alignment::Aligned,
            folder: folder.map_or_else(|| format!("/checkpoints/j{}", job.0), str::to_string),
            operation: Some(OperationId(self.now_ms.into())),
            parallelism: BTreeMap::new(),
        };
        Event::CheckpointRequested { job, request, at_ms: self.now_ms }
    }

    fn report(
        &self,
        job: JobId,
        vertex: &str,
        subtask: u32,
        attempt: Option<u32>,
        state: &str,
        cause: &[&str],
    ) -> Event {
        let vertex_id = OperatorId::of_uid(vertex).into();
        let parallelism = self.state.job(job).and_then(|job| job.graph().vertex(vertex_id));
        let parallelism = parallelism.map_or(0, |vertex| vertex.parallelism);
        let state = TaskState::ALL
            .into_iter()
            .find(|known| known.word() == state)
            .unwrap_or_else(|| panic!("no task state: {state}"));
        let failure = TaskFailure {
            // The first word may be the kind: what only somebody can put right is not tried again.
            kind: match cause.first().copied() {
                Some("damaged:") => ErrorKind::Snapshot,
                Some("configuration:") => ErrorKind::Configuration,
                Some("graph:") => ErrorKind::Graph,
                Some("resources:") => ErrorKind::Resources,
                _ => ErrorKind::UserCode,
            },
            vertex: vertex.to_string(),
            subtask,
            parallelism,
            message: cause.join(" "),
            backtrace: None,
        };
        let task = TaskId { vertex: vertex_id, subtask };
        let current = self.state.job(job).and_then(|job| job.task(task)).map(|task| task.attempt());
        let current = current.unwrap_or(AttemptId { task, job_epoch: 0, attempt: 0 });
        Event::TaskStateChanged {
            job,
            attempt: AttemptId { attempt: attempt.unwrap_or(current.attempt), ..current },
            state,
            failure: (!cause.is_empty()).then_some(failure),
            at_ms: self.now_ms,
        }
    }

    fn running_task(&self, text: &str) -> RunningTask {
        let words: Vec<&str> = text.split_whitespace().collect();
        match &self.events(&["task", words[0], words[1], words[2]])[..] {
            [Event::TaskStateChanged { job, attempt, state, .. }] => {
                RunningTask { job: *job, attempt: *attempt, state: *state }
            }
            other => panic!("no task: {other:?}"),
        }
    }

    /// Jobs that are not over or have just ended, and all slots.
    fn print_state(&self, before: &ClusterState, out: &mut String) {
        for forgotten in before.jobs().filter(|job| self.state.job(job.id()).is_none()) {
            writeln!(out, "  j{} forgotten", forgotten.id().0).unwrap();
        }
        let same = |job: &JobRecord| before.job(job.id()) == Some(job);
        for job in self.state.jobs().filter(|job| !job.state().is_terminal() || !same(job)) {
            write!(out, "  j{} {}", job.id().0, job.state().word()).unwrap();
            if job.restarts() > 0 {
                write!(out, ", {} restarts", job.restarts()).unwrap();
            }
            if let Some(wait) = job.slot_wait() {
                write!(out, ", waits for {} slots", wait.needed).unwrap();
            }
            for (vertex, record) in job.graph().vertices.iter().zip(job.vertices()) {
                let states = record.tasks().iter().map(|task| task.state().word()).collect::<Vec<_>>();
                let same = states.iter().all(|state| *state == states[0]);
                let states = if same { states[0].to_string() } else { states.join(" ") };
                write!(out, "; {} {states}", vertex.name).unwrap();
            }
            out.push('\n');
        }
        for (worker, record) in self.state.workers() {
            let owners = record.owners().iter().map(|owner| match owner {
                Some(owner) if self.state.job(owner.job).unwrap().graph().mode == ExecutionMode::Batch => {
                    format!("j{}.{}", owner.job.0, owner.region)
                }
                Some(owner) => format!("j{}", owner.job.0),
                None => "-".to_string(),
            });
            writeln!(out, "  w{}: {}", worker.0, owners.collect::<Vec<_>>().join(" ")).unwrap();
        }
    }

    fn print_times(&self, job: &JobRecord, out: &mut String) {
        let times: Vec<String> = JobState::ALL
            .iter()
            .filter_map(|state| Some(format!("{} {}", state.word(), job.entered_ms(*state)?)))
            .collect();
        writeln!(out, "  j{}: {}", job.id().0, times.join(", ")).unwrap();
        for (vertex, record) in job.graph().vertices.iter().zip(job.vertices()) {
            for (subtask, task) in record.tasks().iter().enumerate() {
                let times: Vec<String> = TaskState::ALL
                    .iter()
                    .filter_map(|state| Some(format!("{} {}", state.word(), task.entered_ms(*state)?)))
                    .collect();
                writeln!(out, "  {}/{subtask}: {}", vertex.name, times.join(", ")).unwrap();
            }
        }
        for exception in job.exceptions().latest() {
            let fate = if exception.restarted { "restarted" } else { "failed" };
            writeln!(out, "  exception at {}, {fate}: {}", exception.at_ms, exception.cause.to_error())
                .unwrap();
            for failed in &exception.concurrent {
                writeln!(out, "    concurrent: {}", failed.failure.to_error()).unwrap();
            }
        }
    }
}

fn print_effect(state: &ClusterState, effect: &Effect, out: &mut String) {
    let name = |job: JobId, attempt: &AttemptId| {
        let Some(job) = state.job(job) else { return format!("unknown/{}", attempt.task.subtask) };
        let vertex = job.graph().vertex(attempt.task.vertex).unwrap();
        let number = if attempt.attempt == 0 { String::new() } else { format!("#{}", attempt.attempt) };
        format!("{}/{}{number}", vertex.name, attempt.task.subtask)
    };
    let text = match effect {
        Effect::Deploy { worker, job, tasks, peers, restore, .. } => {
            let task = |Placement { attempt, slot: SlotId { index, .. } }: &Placement| {
                format!("{} in {index}", name(*job, attempt))
            };
            let tasks = tasks.iter().map(task).collect::<Vec<_>>().join(", ");
            let from = restore.as_ref().map_or_else(String::new, |restore| format!(", from {restore}"));
            format!("deploy j{} on w{}: {tasks}; {} peers{from}", job.0, worker.0, peers.len())
        }
        Effect::Cancel { worker, job, attempts } => {
            let tasks = attempts.iter().map(|attempt| name(*job, attempt)).collect::<Vec<_>>().join(", ");
            format!("cancel j{} on w{}: {tasks}", job.0, worker.0)
        }
        Effect::Prepare { worker, order: PrepareOrder { job, tasks, .. } } => {
            let tasks = tasks.iter().map(|task| name(*job, &task.attempt)).collect::<Vec<_>>().join(", ");
            format!("prepare j{} on w{} for {tasks}", job.0, worker.0)
        }
        Effect::Checkpoint { worker, order: CheckpointOrder { job, barrier, folder, attempts, .. } } => {
            let tasks = attempts.iter().map(|attempt| name(*job, attempt)).collect::<Vec<_>>().join(", ");
            let after = match barrier.after {
                AfterBarrier::GoOn => "",
                AfterBarrier::Suspend => ", then suspend",
                AfterBarrier::Drain => ", then drain",
            };
            let (id, kind) = (barrier.checkpoint, barrier.kind.word());
            format!("take j{} on w{}: {kind} {id} of {tasks} in {folder}{after}", job.0, worker.0)
        }
        Effect::CheckpointEnded { worker, job, checkpoint, completed, attempts } => {
            let tasks = attempts.iter().map(|attempt| name(*job, attempt)).collect::<Vec<_>>().join(", ");
            let fate = if *completed { "is complete" } else { "was given up" };
            format!("tell j{} on w{}: {checkpoint} {fate}, {tasks}", job.0, worker.0)
        }
        Effect::Release { worker, job } => format!("release j{} on w{}", job.0, worker.0),
        Effect::StartSlotWait { job, wait } => format!("start slot wait {wait} of j{}", job.0),
        Effect::StartRestartDelay { job, number, delay_ms } => {
            format!("start restart delay {number} of j{}: {delay_ms} ms", job.0)
        }
        Effect::JobStateChanged { job, state, at_ms } => format!("j{} is {} at {at_ms}", job.0, state.word()),
        Effect::JobEnded { job, outcome } => match outcome {
            JobOutcome::Finished => format!("j{} ended: finished", job.0),
            JobOutcome::Canceled => format!("j{} ended: canceled", job.0),
            JobOutcome::Failed(failure) => {
                let error = failure.to_error();
                format!("j{} ended: failed ({}): {error}", job.0, error.kind().word())
            }
        },
    };
    writeln!(out, "  {text}").unwrap();
}

fn print_snapshots(job: &JobRecord, out: &mut String) {
    let checkpoints = job.checkpoints();
    let ids = |records: Vec<&CheckpointRecord>| {
        let ids: Vec<String> = records.iter().map(|one| one.id.to_string()).collect();
        if ids.is_empty() { "none".to_string() } else { ids.join(" ") }
    };
    writeln!(
        out,
        "  j{}: {} completed, {} failed, {} restored; pending {}; retained {}; savepoints {}",
        job.id().0,
        checkpoints.completed(),
        checkpoints.failed(),
        checkpoints.restores(),
        ids(checkpoints.pending().collect()),
        ids(checkpoints.retained().collect()),
        ids(checkpoints.savepoints().collect()),
    )
    .unwrap();
    for operation in &checkpoints.operations {
        let result = match &operation.result {
            None => "under way".to_string(),
            Some(Ok(folder)) => format!("in {folder}"),
            Some(Err(reason)) => format!("failed: {reason}"),
        };
        writeln!(out, "  {:?} asked for at {}: {result}", operation.purpose, operation.at_ms).unwrap();
    }
}

/// The counters that rose, from the derived debug text of both.
fn difference(before: crate::machine::Ignored, after: crate::machine::Ignored) -> String {
    let (before, after) = (format!("{before:?}"), format!("{after:?}"));
    let changed = before.split(", ").zip(after.split(", ")).filter(|(before, after)| before != after);
    let words = changed.map(|(_, after)| {
        let word = after.trim_start_matches("Ignored { ").split(':').next();
        word.expect("a counter has a name").replace('_', " ")
    });
    words.collect::<Vec<_>>().join(", ")
}

fn worker(word: &str) -> WorkerId {
    WorkerId(word.strip_prefix('w').expect("a worker").parse().unwrap())
}

fn job(word: &str) -> JobId {
    JobId(word.strip_prefix('j').expect("a job").parse().unwrap())
}
