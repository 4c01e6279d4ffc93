//! The `flott` command and the end of jobs, as a user sees them.

mod process;

use std::time::{Duration, Instant};

use process::{Started, example_text, flott, run};
use serde_json::Value;

/// `flott run FLAGS test_job HOW`
fn run_job(flags: &[&str], how: &[&str]) -> std::process::Command {
    let program = example_text("test_job");
    flott(&[&["run"], flags, &[program.as_str()], how].concat())
}

#[test]
fn a_finished_job_ends_with_a_summary_and_code_0() {
    let ended = run(&mut run_job(&["-p", "2", "-n", "numbers"], &["finish", "1000"]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, "after the job\n");
    let lines: Vec<Vec<&str>> = ended.stderr.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(ended.stderr.starts_with("job 'numbers' finished in "), "{}", ended.stderr);
    assert_eq!(lines[1], ["vertex", "tasks", "records", "in", "records", "out", "busy", "s"]);
    assert_eq!(lines[2][..5], ["Source:", "Sequence", "2", "1,000", "1,000"]);
    assert_eq!(lines[3][..6], ["Sum", "->", "Sink:", "Blackhole", "2", "1,000"]);
    assert_eq!(lines[4][..3], ["1,000", "events", "read,"]);
}

#[test]
fn the_summary_is_also_to_be_had_as_json() {
    let stdout = run(&mut run_job(&["--json", "-p", "1", "-n", "numbers"], &["finish", "1000"])).succeeded();
    let summary: Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    assert_eq!(summary["name"], "numbers");
    assert_eq!(summary["state"], "FINISHED");
    assert_eq!(summary["source_records"], 1000);
    assert!(summary["events_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(summary["vertices"][0]["records_out"], 1000);
    assert_eq!(summary["vertices"][1]["records_in"], 1000);
    assert_eq!(summary["vertices"][1]["tasks"], 1);
}

#[test]
fn a_panic_fails_the_job_with_vertex_subtask_message_and_backtrace() {
    let stderr = run(&mut run_job(&["-p", "2"], &["panic"])).failed_with(1);
    let first = stderr.lines().next().unwrap();
    assert!(
        first.starts_with(
            "Error: user code: job 'test job' failed: task 'Source: Sequence -> Rules -> Sink: Blackhole' (subtask "
        ),
        "{first}"
    );
    assert!(first.contains(" of 2): panicked at tests/programs/job.rs:"), "{first}");
    assert!(first.ends_with(": no rule for 500"), "{first}");
    assert!(stderr.contains("test_job::rule"), "no backtrace: {stderr}");
}

#[test]
fn an_error_of_user_code_fails_the_job_with_vertex_subtask_and_message() {
    let stderr = run(&mut run_job(&["-p", "1"], &["error"])).failed_with(1);
    assert_eq!(
        stderr,
        "Error: user code: job 'test job' failed: task 'Source: Sequence -> Rules -> Sink: Blackhole' \
         (subtask 1 of 1): rules.txt: no rule for 500\n"
    );
}

#[test]
fn mistakes_on_the_command_line_are_usage_errors_that_say_what_to_do() {
    let program = example_text("test_job");
    let (folder, missing) = (env!("CARGO_MANIFEST_DIR"), format!("{}x", &program[..program.len() - 1]));
    for (arguments, wanted) in [
        (&["rum", "job"][..], "similar subcommand exists: 'run'"),
        (&["run"], "<PROGRAM>"),
        (&["run", "--detached", &program], "-d submits a job to a cluster, but none is named"),
        (&["run", "--allow-non-restored-state", &program], "--from-savepoint <PATH>"),
        (&["run", "-s", "/savepoint", "--claim-mode", "clam", &program], "the nearest is `CLAIM`"),
        (&["stop", "3f9a"], "no cluster is named: say -m HOST:PORT"),
        (&["savepoint"], "<JOB>"),
        (&["rescale", "3f9a"], "--parallelism <N>"),
        (&["list"], "no cluster is named: say -m HOST:PORT"),
        (&["list", "-m", "host:0"], "the port is no number from 1 to 65535"),
        (&["run", &missing], "did you mean"),
        (&["run", folder], "is a folder; build the job with `cargo build --release`"),
        (&["run", "-D", "paralelism.default=2", &program], "the nearest known key is `parallelism.default`"),
        (&["run", "-p", "0", &program], "expected a whole number from 1 to 32768"),
    ] {
        let ended = run(&mut flott(arguments));
        assert_eq!(ended.stdout, "", "{arguments:?}: nothing was started");
        let stderr = ended.failed_with(2);
        assert!(stderr.contains(wanted), "{arguments:?}: {stderr}");
    }
}

#[test]
fn help_shows_an_example_of_every_command() {
    let commands = [
        "run",
        "list",
        "info",
        "cancel",
        "stop",
        "savepoint",
        "savepoint inspect",
        "savepoint dispose",
        "checkpoint",
        "rescale",
        "cluster status",
        "coordinator",
        "worker",
        "completions",
    ];
    for command in commands {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let stdout = run(&mut flott(&arguments)).succeeded();
        assert!(stdout.contains(&format!("Examples:\n  flott {command} ")), "{stdout}");
    }
    assert!(run(&mut flott(&["--help"])).succeeded().contains("Examples:\n  flott run "));
    let version = run(&mut flott(&["--version"])).succeeded();
    assert_eq!(version, format!("flott {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_the_command_line_sets_goes_over_the_environment() {
    let name_of = |flags: &[&str]| {
        let mut command = run_job(&[&["--json"], flags].concat(), &["finish", "10"]);
        let stdout = run(command.env("FLOTT_CONF_PIPELINE_NAME", "from environment")).succeeded();
        let summary: Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
        summary["name"].as_str().unwrap().to_string()
    };
    assert_eq!(name_of(&[]), "from environment");
    assert_eq!(name_of(&["-D", "pipeline.name=from -D"]), "from -D");
    assert_eq!(name_of(&["-n", "from -n", "-D", "pipeline.name=from -D"]), "from -n");
}

#[test]
fn an_old_name_on_the_command_line_goes_over_the_new_one_in_the_environment() {
    let run_with = |flags: &[&str]| {
        let mut command = run_job(&[&["-p", "2"], flags].concat(), &["finish", "10"]);
        run(command.env("FLOTT_CONF_WORKER_SLOTS", "1"))
    };
    let stderr = run_with(&[]).failed_with(1);
    assert!(stderr.contains("slots"), "{stderr}");
    run_with(&["-D", "taskmanager.numberOfTaskSlots=2"]).succeeded();
}

#[test]
fn the_exit_code_is_the_programs_or_1() {
    for (script, code) in [("exit 0", 0), ("exit 1", 1), ("exit 2", 2), ("exit 101", 1)] {
        assert_eq!(run(&mut flott(&["run", "sh", "-c", script])).code, Some(code), "{script}");
    }
    let stderr = run(&mut flott(&["run", "sh", "-c", "kill -KILL $$"])).failed_with(1);
    assert!(stderr.contains("was killed"), "{stderr}");
}

#[test]
fn ctrl_c_cancels_the_job_and_leaves_no_half_written_file() {
    let folder = tempfile::tempdir().unwrap();
    let job = Started::new(&mut run_job(&[], &["endless", folder.path().to_str().unwrap()]));
    job.next_line();
    // A terminal interrupts the command and the program at once; that is one Ctrl-C.
    job.signal_group(libc::SIGINT);
    let stderr = job.wait().failed_with(1);
    assert!(stderr.contains("cancelling job 'test job'"), "{stderr}");
    assert!(stderr.ends_with("Error: cancelled: job 'test job' was cancelled\n"), "{stderr}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn sigterm_cancels_the_job_also_through_flott_run() {
    let through_flott = run_job(&[], &["endless"]);
    let mut alone = std::process::Command::new(example_text("test_job"));
    alone.arg("endless");
    for mut command in [through_flott, alone] {
        let job = Started::new(&mut command);
        job.next_line();
        job.signal(libc::SIGTERM);
        let stderr = job.wait().failed_with(1);
        assert!(stderr.ends_with("Error: cancelled: job 'test job' was cancelled\n"), "{stderr}");
    }
}

#[test]
fn a_second_ctrl_c_ends_a_job_whose_code_never_returns() {
    let job = Started::new(&mut run_job(&["-p", "1"], &["stuck"]));
    assert_eq!(job.next_line(), "stuck");
    job.signal_group(libc::SIGINT);
    // Far enough apart for two; the first alone would leave the job hanging.
    std::thread::sleep(Duration::from_secs(1));
    let pressed = Instant::now();
    job.signal_group(libc::SIGINT);
    let stderr = job.wait().failed_with(1);
    assert!(stderr.ends_with("interrupted: ending at once\n"), "{stderr}");
    assert!(pressed.elapsed() < Duration::from_secs(10), "{:?}", pressed.elapsed());
}
