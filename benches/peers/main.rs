//! `cargo bench --bench peers [-- OPTIONS]`: the same work on Flott, on its peers and as hand-written loops.
//!
//! What lives here: the work (`workload`, `text`), the sinks (`tally`), one file for each engine, the measuring of each run in
//! a process of its own (`measure`), and the report (`results`, `targets`, `table`, `machine`). Nothing calls it but cargo.
//! What must never happen here: work that an engine does and another leaves out, or two runs measured at the same time.

mod engine;
mod error;
mod flott;
mod hand;
mod machine;
mod measure;
mod renoir;
mod results;
mod table;
mod tally;
mod targets;
mod text;
mod timely;
mod workload;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use crate::engine::{Engine, engines};
use crate::error::BenchError;
use crate::machine::Machine;
use crate::results::{Disturbance, Row, RowRecord, Watch, check_same_work};
use crate::targets::Verdict;
use crate::workload::{Case, Size};

/// The same work on Flott, on its peers and as hand-written loops.
#[derive(Debug, Parser)]
#[command(name = "peers", after_help = "Example: cargo bench --bench peers -- --only a,b --json peers.json")]
struct Arguments {
    /// Write all figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Run these groups of cases only.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_parser = PossibleValuesParser::new(Case::GROUPS))]
    only: Vec<String>,

    /// Run these engines only.
    #[arg(long, value_name = "ENGINES", value_delimiter = ',', value_parser = engine_names())]
    engine: Vec<String>,

    /// Run with these numbers of threads.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2")]
    threads: Vec<NonZeroUsize>,

    /// How often to run each; the table has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Less work: to see that it runs, not how fast.
    #[arg(long)]
    quick: bool,

    /// Run this one case here, on the one engine and number of threads given, and print the sample as JSON.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Case::ALL.map(Case::name)))]
    case: Option<String>,

    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn engine_names() -> PossibleValuesParser {
    PossibleValuesParser::new(engines().map(|engine| engine.name))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let size = if arguments.quick { Size::QUICK } else { Size::FULL };
    let done = match arguments.case.as_deref().and_then(Case::named) {
        Some(case) => sample_here(&arguments, case, &size),
        None => compare(&arguments, &size),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn sample_here(arguments: &Arguments, case: Case, size: &Size) -> Result<(), BenchError> {
    let engine = engines()
        .find(|engine| arguments.engine == [engine.name])
        .ok_or(BenchError::Usage("--case needs --engine with one engine"))?;
    let &[threads] = arguments.threads.as_slice() else {
        return Err(BenchError::Usage("--case needs --threads with one number"));
    };
    prepare(case, size)?;
    let sample = measure::run_here(engine, case, threads.get(), size)?;
    println!("{}", serde_json::to_string(&sample).map_err(BenchError::Json)?);
    Ok(())
}

fn prepare(case: Case, size: &Size) -> Result<(), BenchError> {
    if case == Case::WordCount { text::ensure(size.text_bytes) } else { Ok(()) }
}

fn compare(arguments: &Arguments, size: &Size) -> Result<(), BenchError> {
    // Now, so that a path that cannot be written costs no measuring.
    let json = match &arguments.json {
        Some(path) => Some(File::create(path).map_err(BenchError::file("create", path))?),
        None => None,
    };
    let machine = Machine::describe();
    println!("{machine}");
    let mut rows = Vec::new();
    let mut disturbances = Vec::new();
    for case in Case::ALL {
        if arguments.only.is_empty() || arguments.only.iter().any(|group| group == case.group()) {
            prepare(case, size)?;
            let watch = Watch::start(case);
            let rows_before = rows.len();
            compare_case(arguments, case, &mut rows)?;
            if rows.len() > rows_before {
                disturbances.extend(watch.stop());
            }
        }
    }
    let verdicts = targets::check(&rows);
    print!("{}{}", table::render_rows(&rows, &disturbances), table::render_verdicts(&verdicts));
    let Some(file) = json else { return Ok(()) };
    let report = Report {
        machine: &machine,
        load_after: machine::load(),
        rounds: arguments.rounds,
        quick: arguments.quick,
        disturbances: &disturbances,
        rows: rows.iter().map(RowRecord::from).collect(),
        targets: &verdicts,
    };
    let mut writer = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut writer, &report).map_err(BenchError::Json)?;
    writer.flush().map_err(|source| BenchError::System { what: "the JSON file to be written", source })?;
    // Cargo starts a benchmark in its package's folder: say where a relative path led.
    if let Some(path) = arguments.json.as_deref().and_then(|path| path.canonicalize().ok()) {
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// All engines on one case, round by round, so that what disturbs the machine for a while disturbs them all; each round
/// begins with another engine.
fn compare_case(arguments: &Arguments, case: Case, rows: &mut Vec<Row>) -> Result<(), BenchError> {
    for threads in arguments.threads.iter().map(|threads| threads.get()) {
        let mut chosen: Vec<&'static Engine> = engines()
            .filter(|engine| (engine.supports)(case, threads))
            .filter(|engine| {
                arguments.engine.is_empty() || arguments.engine.iter().any(|name| name == engine.name)
            })
            .collect();
        let first_row = rows.len();
        for round in 1..=arguments.rounds {
            for engine in chosen.iter().copied() {
                let sample = measure::run_in_child(engine, case, threads, arguments.quick)?;
                eprintln!("{}, {threads} thread(s), {}, round {round}: {sample}", case.name(), engine.name);
                check_same_work(rows, case, engine, threads, &sample)?;
                match rows[first_row..].iter_mut().find(|row| row.engine.name == engine.name) {
                    Some(row) => row.samples.push(sample),
                    None => rows.push(Row { case, engine, threads, samples: vec![sample] }),
                }
            }
            if !chosen.is_empty() {
                chosen.rotate_left(1);
            }
        }
    }
    Ok(())
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    load_after: String,
    rounds: u32,
    quick: bool,
    disturbances: &'a [Disturbance],
    rows: Vec<RowRecord<'a>>,
    targets: &'a [Verdict],
}
