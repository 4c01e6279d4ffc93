//! The command line.
//!
//! What lives here: one file a command; each gives clap its arguments and has a `run`. Who may call it: `main`. What must
//! never happen here: work of the engine; a command hands over to the library, and prints.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flott::{Error, ErrorKind};

/// Distributed, stateful stream processing: Flink's model in one binary, without a JVM.
#[derive(Parser)]
#[command(name = "flott", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  flott run target/release/my_job            run a job in an embedded cluster
  flott run -p 4 target/release/my_job in/   the same with four tasks for each operator";

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
}

/// Parses the command line, obeys it, and gives the exit code.
pub fn main() -> ExitCode {
    // Clap prints mistakes itself, names the nearest command, and ends with code 2.
    let result = match CommandLine::parse().command {
        Command::Run(arguments) => arguments.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("flott: {error}");
        exit_code(&error)
    })
}

fn exit_code(error: &Error) -> ExitCode {
    match error.kind() {
        ErrorKind::Configuration => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}
