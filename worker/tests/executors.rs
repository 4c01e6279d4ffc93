//! Executors as processes: started, ended, killed, limited, and never left behind.

mod support;

use std::time::Duration;

use flott_schema::control::{TaskReport, TaskState};
use flott_schema::error::ErrorKind;
use flott_worker::supervisor::machine::Deadlines;

use support::{Worker, ended, executors_of, message, run, with_executor_gone};

#[test]
fn a_job_runs_to_its_end_and_its_executor_goes_with_it() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let target = worker.folder().join("tally");
            let job = worker.deploy(&["counts", target.to_str().unwrap()]).await;
            let reports = worker.until(|reports| ended(reports, job).len() == 4).await;
            assert!(
                ended(&reports, job).iter().all(|report| report.state == TaskState::Finished),
                "{reports:?}"
            );
            let tally = |subtask| -> u64 {
                let text = std::fs::read_to_string(format!("{}.{subtask}", target.display())).unwrap();
                text.parse().unwrap()
            };
            assert_eq!(tally(0) + tally(1), 1000);
            assert_eq!(executors_of(job).len(), 1);
            worker.release(job).await;
            with_executor_gone(job).await;
            let out = worker.log(job, "out");
            assert!(out.contains("records"), "{out}");
        },
    );
}

#[test]
fn an_executor_that_was_started_ahead_runs_the_tasks_that_come_and_goes_if_none_does() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let target = worker.folder().join("tally");
            let arguments = ["counts", target.to_str().unwrap()];
            let job = worker.prepare(&arguments).await;
            let executors = executors_of(job);
            worker.deploy_again(job, &arguments).await;
            let reports = worker.until(|reports| ended(reports, job).len() == 4).await;
            let is_finished = |report: &&TaskReport| report.state == TaskState::Finished;
            assert_eq!(ended(&reports, job).iter().filter(|one| is_finished(one)).count(), 4, "{reports:?}");
            assert_eq!(executors_of(job), executors, "it was there before");
            worker.release(job).await;
            with_executor_gone(job).await;

            let other = worker.prepare(&arguments).await;
            worker.release(other).await;
            with_executor_gone(other).await;
        },
    );
}

#[test]
fn results_that_are_lost_with_a_killed_executor_are_reported() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let target = worker.folder().join("tally");
            let job = worker.deploy(&["counts", target.to_str().unwrap()]).await;
            worker.until(|reports| ended(reports, job).len() == 4).await;
            // Nobody has released the job: a later stage may want to read what these tasks have made.
            support::kill(executors_of(job)[0]);
            let lost = |report: &TaskReport| report.state == TaskState::Failed;
            let reports = worker.until(|reports| ended(reports, job).iter().all(lost)).await;
            let message = message(&reports, job);
            assert!(message.contains("executor ended by signal 9 (SIGKILL)"), "{message}");
        },
    );
}

#[test]
fn an_executor_that_exits_fails_its_tasks_with_its_status_and_its_last_words() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy(&["exits"]).await;
            let reports = worker.until_failed(job).await;
            let message = message(&reports, job);
            assert!(message.contains("executor ended with exit status 3"), "{message}");
            assert!(message.contains("giving up"), "{message}");
        },
    );
}

#[test]
fn an_executor_that_aborts_fails_its_tasks_with_the_signal() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy(&["aborts"]).await;
            let message = message(&worker.until_failed(job).await, job);
            assert!(message.contains("executor ended by signal 6 (SIGABRT)"), "{message}");
        },
    );
}

#[test]
fn a_panic_fails_the_task_and_leaves_the_executor_alive() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy(&["panics"]).await;
            let failed = |reports: &[TaskReport]| ended(reports, job).iter().any(is_failed);
            let message = message(&worker.until(failed).await, job);
            assert!(message.contains("no rule for"), "{message}");
            assert_eq!(executors_of(job).len(), 1);
        },
    );
}

#[test]
fn a_killed_executor_leaves_the_executors_of_other_jobs_alone_and_another_takes_its_place() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let killed = worker.deploy(&["endless"]).await;
            let other = worker.deploy(&["endless"]).await;
            worker.until_running(killed).await;
            worker.until_running(other).await;
            let others = executors_of(other);
            support::kill(executors_of(killed)[0]);
            let reports = worker.until_failed(killed).await;
            let message = message(&reports, killed);
            assert!(message.contains("executor ended by signal 9 (SIGKILL)"), "{message}");
            assert!(ended(&reports, other).is_empty(), "{reports:?}");
            assert_eq!(executors_of(other), others);
            worker.deploy_again(killed, &["endless"]).await;
            worker.until_running(killed).await;
            assert_eq!(executors_of(killed).len(), 1);
        },
    );
}

#[test]
fn an_executor_that_is_frozen_is_killed_and_its_tasks_fail() {
    let quick = |options| flott_worker::supervisor::Options {
        deadlines: Deadlines { silence_ms: 3_000, ..Deadlines::default() },
        ..options
    };
    run(quick, async |worker: &mut Worker| {
        let job = worker.deploy(&["endless"]).await;
        worker.until_running(job).await;
        support::signal("STOP", executors_of(job)[0]);
        let reports = worker.until_failed(job).await;
        let message = message(&reports, job);
        assert!(message.contains("said nothing for 3000 ms"), "{message}");
        with_executor_gone(job).await;
    });
}

#[test]
fn a_cancelled_job_ends_and_keeps_its_executor_until_it_is_released() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy(&["endless"]).await;
            worker.until_running(job).await;
            worker.cancel(job).await;
            let reports = worker.until(|reports| ended(reports, job).len() == 4).await;
            assert!(
                ended(&reports, job).iter().all(|report| report.state == TaskState::Canceled),
                "{reports:?}"
            );
            assert_eq!(executors_of(job).len(), 1);
            worker.release(job).await;
            with_executor_gone(job).await;
        },
    );
}

#[test]
fn a_task_that_never_returns_is_killed_with_its_executor_when_it_is_cancelled() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy(&["never returns"]).await;
            // Its two `sleep` processes are there as well, once the tasks are stuck.
            support::eventually(|| executors_of(job).len() == 3).await;
            worker.cancel(job).await;
            let reports = worker.until(|reports| ended(reports, job).len() == 4).await;
            // The sources may have come to their end before; what they made is lost with the executor then.
            let finished = |attempt| {
                reports.iter().any(|report| report.attempt == attempt && report.state == TaskState::Finished)
            };
            let unfinished: Vec<_> =
                ended(&reports, job).into_iter().filter(|report| !finished(report.attempt)).collect();
            let canceled = unfinished.iter().filter(|report| report.state == TaskState::Canceled).count();
            assert!(canceled >= 2 && canceled == unfinished.len(), "{reports:?}");
            with_executor_gone(job).await;
        },
    );
}

#[test]
fn an_executor_that_takes_too_much_memory_ends_and_another_job_goes_on() {
    let limited = |options| flott_worker::supervisor::Options { slot_memory_bytes: 128 << 20, ..options };
    run(limited, async |worker: &mut Worker| {
        let other = worker.deploy(&["endless"]).await;
        worker.until_running(other).await;
        let job = worker.deploy(&["takes all memory"]).await;
        let reports = worker.until_failed(job).await;
        let message = message(&reports, job);
        assert!(message.contains("worker.slot.memory"), "{message}");
        let kinds = ended(&reports, job).into_iter().filter_map(|report| report.failure.map(|f| f.kind));
        assert!(kinds.into_iter().any(|kind| kind == ErrorKind::Resources), "{reports:?}");
        assert!(ended(&reports, other).is_empty(), "{reports:?}");
        assert_eq!(executors_of(other).len(), 1);
    });
}

#[test]
fn a_program_that_builds_another_graph_is_refused() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy(&["builds another graph"]).await;
            let message = message(&worker.until_failed(job).await, job);
            assert!(message.contains("the program builds another job graph here"), "{message}");
        },
    );
}

#[test]
fn a_program_that_never_executes_its_job_is_refused() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy(&["never executes"]).await;
            let reports = worker.until_failed(job).await;
            let message = message(&reports, job);
            assert!(message.contains("ended with exit status 0 without coming to execution 0"), "{message}");
        },
    );
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy(&["exits early"]).await;
            let message = message(&worker.until_failed(job).await, job);
            assert!(message.contains("ended with exit status 4"), "{message}");
            assert!(message.contains("there is nothing to do"), "{message}");
        },
    );
}

#[test]
fn a_program_that_says_no_hello_in_time_is_killed() {
    let hasty = |options| flott_worker::supervisor::Options {
        deadlines: Deadlines { hello_ms: 300, ..Deadlines::default() },
        ..options
    };
    run(hasty, async |worker: &mut Worker| {
        let job = worker.deploy(&["hangs"]).await;
        let message = message(&worker.until_failed(job).await, job);
        assert!(message.contains("did not come to execution 0 within 300 ms"), "{message}");
        with_executor_gone(job).await;
    });
}

#[test]
fn a_program_that_cannot_be_fetched_fails_the_tasks_with_the_reason() {
    run(
        |options| options,
        async |worker: &mut Worker| {
            let job = worker.deploy_unknown_program().await;
            let message = message(&worker.until_failed(job).await, job);
            assert!(
                message.contains("could not be started") && message.contains("no such program"),
                "{message}"
            );
        },
    );
}

#[test]
fn a_worker_that_stops_takes_its_executors_along() {
    let mut jobs = Vec::new();
    run(
        |options| options,
        async |worker: &mut Worker| {
            for behaviour in ["endless", "endless"] {
                let job = worker.deploy(&[behaviour]).await;
                worker.until_running(job).await;
                jobs.push(job);
            }
            jobs.push(worker.deploy(&["hangs"]).await);
            let hanging = jobs[2];
            support::eventually(|| !executors_of(hanging).is_empty()).await;
        },
    );
    for job in jobs {
        assert!(executors_of(job).is_empty());
    }
}

#[test]
fn a_killed_worker_takes_its_executors_along() {
    // The worker is this test binary, started to run the test below alone.
    let mut worker = support::start_worker_process("inner_worker_that_waits_to_be_killed");
    let jobs = worker.jobs(2);
    let executors: Vec<u32> = jobs.iter().flat_map(|job| executors_of(*job)).collect();
    assert_eq!(executors.len(), 2);
    worker.kill();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while jobs.iter().any(|job| !executors_of(*job).is_empty()) {
        assert!(std::time::Instant::now() < deadline, "executors outlive their worker");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does nothing unless the test above starts it: a worker with two jobs, one of which is stuck.
#[test]
fn inner_worker_that_waits_to_be_killed() {
    if !support::is_worker_process() {
        return;
    }
    run(
        |options| options,
        async |worker: &mut Worker| {
            let endless = worker.deploy(&["endless"]).await;
            worker.until_running(endless).await;
            let hanging = worker.deploy(&["hangs"]).await;
            support::eventually(|| executors_of(hanging).len() == 1).await;
            support::announce(&[endless, hanging]);
            std::future::pending::<()>().await;
        },
    );
}

fn is_failed(report: &TaskReport) -> bool {
    report.state == TaskState::Failed
}
