//! The command line.
//!
//! What lives here: one file a command; each gives clap its arguments and has a `run`. Who may call it: `main`. What must
//! never happen here: work of the engine; a command hands over to the library, and prints.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

mod cancel;
mod checkpoint;
mod cluster;
mod completions;
mod connection;
mod coordinator;
mod info;
mod list;
mod operation;
mod process;
mod rescale;
mod restore_plan;
mod run;
mod savepoint;
mod stop;
mod table;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use flott::{Error, ErrorKind};

/// Distributed, stateful stream processing: Flink's model in one binary, without a JVM.
#[derive(Parser)]
#[command(name = "flott", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  flott run target/release/my_job                     run a job in an embedded cluster
  flott run -p 4 target/release/my_job in/            the same with four tasks for each operator
  flott run -m localhost:8081 target/release/my_job   run it in a cluster that scripts/start-cluster.sh has started
  flott list -m localhost:8081                        list the jobs of a cluster";

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    List(list::Arguments),
    Info(info::Arguments),
    Cancel(cancel::Arguments),
    Stop(stop::Arguments),
    Savepoint(savepoint::Arguments),
    Checkpoint(checkpoint::Arguments),
    Rescale(rescale::Arguments),
    Cluster(cluster::Arguments),
    Coordinator(coordinator::Arguments),
    Worker(worker::Arguments),
    Completions(completions::Arguments),
}

/// Parses the command line, obeys it, and gives the exit code.
pub fn main() -> ExitCode {
    // Clap prints mistakes itself, names the nearest command, and ends with code 2.
    let command = CommandLine::parse().command;
    if matches!(command, Command::List(_) | Command::Info(_) | Command::Cluster(_) | Command::Completions(_))
    {
        end_with_the_reader();
    }
    let result = match command {
        Command::Run(arguments) => arguments.run(),
        Command::List(arguments) => arguments.run(),
        Command::Info(arguments) => arguments.run(),
        Command::Cancel(arguments) => arguments.run(),
        Command::Cluster(arguments) => arguments.run(),
        Command::Coordinator(arguments) => arguments.run(),
        Command::Worker(arguments) => arguments.run(),
        Command::Completions(arguments) => arguments.run(CommandLine::command()),
        Command::Stop(arguments) => arguments.run(),
        Command::Savepoint(arguments) => arguments.run(),
        Command::Checkpoint(arguments) => arguments.run(),
        Command::Rescale(arguments) => arguments.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("flott: {error}");
        exit_code(&error)
    })
}

/// `flott list | head` ends without a word when `head` has seen enough. Only for commands that print and end: to what runs on, a
/// reader that is gone is an error like others.
fn end_with_the_reader() {
    // SAFETY: no other thread runs yet, and the default action needs no handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

fn exit_code(error: &Error) -> ExitCode {
    match error.kind() {
        ErrorKind::Configuration => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}
