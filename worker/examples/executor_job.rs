//! Not an example for people: the program that the tests of executors start. Its first argument says how it behaves.

use std::io::Write;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use flott_dataflow::api::StreamEnv;
use flott_dataflow::batch::Batch;
use flott_dataflow::context::OperatorContext;
use flott_dataflow::sink::{NothingToCommit, Sink, SinkWriter};
use flott_dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott_schema::Result;
use flott_schema::config::Configuration;
use flott_worker::executor;
use flott_worker::supervisor::{self, WorkerProcess};

/// Prints the graph instead of running it.
const GRAPH_ONLY: &str = "EXECUTOR_JOB_GRAPH_ONLY";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let behaviour = arguments.first().cloned().unwrap_or_default();
    if behaviour == "is a worker" {
        let configuration = Configuration::from_pairs(&arguments[1..])?;
        return supervisor::run(WorkerProcess::from_configuration(&configuration)?);
    }
    let graph_only = std::env::var_os(GRAPH_ONLY).is_some();
    let environment = executor::environment()?;
    if !graph_only {
        match behaviour.as_str() {
            "exits early" => {
                eprintln!("there is nothing to do");
                std::process::exit(4)
            }
            "never executes" => return Ok(()),
            "hangs" => sleep_for_ever(),
            _ => {}
        }
    }
    let env = StreamEnv::new();
    env.set_parallelism(2);
    if behaviour == "builds another graph" && environment.is_some() {
        env.set_parallelism(1);
    }
    let numbers = Numbers { count: 1000, is_endless: behaviour == "endless" };
    let target = PathBuf::from(arguments.get(1).cloned().unwrap_or_default());
    let numbers = env.add_source(numbers, "Numbers");
    let sums = numbers.key_by(|n| n % 10).sum(|n| n);
    sums.map(move |n| behave(&behaviour, n)).sink_to(Tally(target), "Tally");
    let program = env.compile("executor job")?;
    if graph_only {
        println!("{}", serde_json::to_string(&program.graph)?);
        return Ok(());
    }
    match environment {
        Some(environment) => executor::run(environment, program),
        None => Err(flott_schema::Error::configuration("this program is started by tests only")),
    }
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn behave(behaviour: &str, n: u64) -> u64 {
    match behaviour {
        "exits" => {
            eprintln!("giving up");
            std::process::exit(3)
        }
        "aborts" => std::process::abort(),
        "panics" => panic!("no rule for {n}"),
        "never returns" => {
            // A process of its own, which must not be left behind either.
            let _ = std::process::Command::new("sleep").arg("3600").spawn();
            sleep_for_ever()
        }
        "takes all memory" => take_all_memory(),
        _ => n,
    }
}

/// Takes 4 GiB at most, if nothing stops it.
fn take_all_memory() -> u64 {
    let mut taken = Vec::new();
    for _ in 0..256 {
        taken.push(vec![1u8; 16 << 20]);
    }
    println!("{} MiB taken", taken.len() * 16);
    std::process::exit(5)
}

/// Numbers from 0; an endless source says nothing at all.
#[derive(Clone)]
struct Numbers {
    count: u64,
    is_endless: bool,
}

impl Source for Numbers {
    type Record = u64;
    type Split = u32;
    type Enumerator = Shares;
    type Reader = Reader;

    fn boundedness(&self) -> Boundedness {
        match self.is_endless {
            true => Boundedness::Unbounded,
            false => Boundedness::Bounded,
        }
    }

    fn enumerator(&self, parallelism: u32) -> Result<Shares> {
        Ok(Shares { given: 0, parallelism })
    }

    fn reader(&self, ctx: &OperatorContext) -> Result<Reader> {
        let (count, is_endless) = (self.count, self.is_endless);
        Ok(Reader { count, is_endless, parallelism: ctx.task.parallelism, splits: Vec::new() })
    }
}

/// A share of the numbers for each task.
struct Shares {
    given: u32,
    parallelism: u32,
}

impl SplitEnumerator for Shares {
    type Split = u32;

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<u32>> {
        if self.given == self.parallelism {
            return Ok(Assignment::NoMore);
        }
        self.given += 1;
        Ok(Assignment::Split(self.given - 1))
    }
}

struct Reader {
    count: u64,
    is_endless: bool,
    parallelism: u32,
    splits: Vec<u32>,
}

impl SourceReader for Reader {
    type Record = u64;
    type Split = u32;

    fn add_split(&mut self, split: u32) -> Result<()> {
        self.splits.push(split);
        Ok(())
    }

    fn read(&mut self, _max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<u64>> {
        let Some(split) = self.splits.pop() else {
            return Ok(match self.is_endless {
                true => Poll::Pending,
                false => Poll::Ready(None),
            });
        };
        let share = (0..self.count).filter(|n| n % u64::from(self.parallelism) == u64::from(split));
        Ok(Poll::Ready(Some(Batch::of(share.collect()))))
    }

    fn snapshot(&self) -> Vec<u32> {
        self.splits.clone()
    }
}

/// Writes how many records a task had, at the end, to a file of its own.
#[derive(Clone)]
struct Tally(PathBuf);

impl Sink<u64> for Tally {
    type Committable = ();
    type Writer = TallyWriter;
    type Committer = NothingToCommit;

    fn writer(&self, ctx: &OperatorContext) -> Result<TallyWriter> {
        let mut path = self.0.clone().into_os_string();
        path.push(format!(".{}", ctx.task.subtask));
        Ok(TallyWriter { path: path.into(), records: 0 })
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<NothingToCommit> {
        Ok(NothingToCommit)
    }
}

struct TallyWriter {
    path: PathBuf,
    records: usize,
}

impl SinkWriter<u64> for TallyWriter {
    type Committable = ();

    fn write(&mut self, batch: Batch<u64>) -> Result<()> {
        self.records += batch.len();
        Ok(())
    }

    fn prepare_commit(&mut self, end_of_input: bool) -> Result<Vec<()>> {
        if end_of_input {
            std::fs::File::create(&self.path)?.write_all(self.records.to_string().as_bytes())?;
            println!("{} records", self.records);
        }
        Ok(Vec::new())
    }
}
