//! How fast the sources and the file sink are on one core. Run it in release:
//!
//! `cargo run --release -p flott-connectors --example source_rate [MILLION RECORDS]`
//!
//! Each line is one source or sink, driven batch by batch as a task would, the dropping of the batches included.

use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use flott_connectors::collection::Collection;
use flott_connectors::csv::CsvFiles;
use flott_connectors::file_sink::{FileSink, SingleFile};
use flott_connectors::generator::Generator;
use flott_connectors::json::JsonLines;
use flott_connectors::nexmark::{NexmarkConfig, NexmarkSource};
use flott_connectors::sequence::Sequence;
use flott_connectors::text::TextFiles;
use flott_dataflow::batch::Batch;
use flott_dataflow::context::{OperatorContext, Settings, TaskContext};
use flott_dataflow::sink::{Committer, Sink, SinkWriter};
use flott_dataflow::source::{Assignment, Source, SourceReader, SplitEnumerator};
use flott_schema::Result;

type Row = (u64, String, f64);

fn main() -> Result<()> {
    let millions: u64 = match std::env::args().nth(1) {
        Some(word) => word.parse()?,
        None => 5,
    };
    let count = millions * 1_000_000;
    let folder = std::env::temp_dir().join(format!("flott-source-rate-{}", std::process::id()));
    let result = measure(count, &folder);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn measure(count: u64, folder: &Path) -> Result<()> {
    println!("{:<28} {:>9} {:>9}", format!("{count} records"), "M/s", "MB/s");
    let row = |n: u64| (n, format!("customer {}", n % 1000), n as f64 / 7.0);
    let path = |name: &str| folder.join(name);

    for name in ["text", "text.gz", "text.zst"] {
        write(name, &SingleFile::lines(path(name)), &path(name), count, |n| {
            format!("line {n} of a text like any other")
        })?;
    }
    write("part files", &FileSink::lines(path("parts")), &path("parts"), count, |n| n)?;
    write("csv", &SingleFile::csv(path("csv")), &path("csv"), count, row)?;
    write("json", &SingleFile::json(path("json")), &path("json"), count, row)?;
    for name in ["text", "text.gz", "text.zst"] {
        read(name, &TextFiles::new(path(name)), size(&path(name))?)?;
    }
    read("csv", &CsvFiles::<Row>::new(path("csv")).has_header(false), size(&path("csv"))?)?;
    read("json", &JsonLines::<Row>::new(path("json")), size(&path("json"))?)?;
    read("sequence", &Sequence::new(1, count), 0)?;
    read("generator", &Generator::new(|n| n * 2).count(count), 0)?;
    read("collection", &Collection::new((0..count).collect()), 0)?;
    let config = NexmarkConfig { event_count: count, ..NexmarkConfig::default() };
    read("nexmark", &NexmarkSource::new(config), 0)
}

fn context() -> OperatorContext {
    let task = TaskContext::new("rate", "rate", 0, 1, 128, Settings::default());
    OperatorContext::new(Rc::new(task), "rate", "rate")
}

fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

fn report(name: &str, records: u64, bytes: u64, spent: Duration) {
    let rate = |amount: u64| amount as f64 / spent.as_secs_f64() / 1e6;
    println!("{name:<28} {:>9.2} {:>9.1}", rate(records), rate(bytes));
}

fn read<S: Source>(name: &str, source: &S, bytes: u64) -> Result<()> {
    let start = Instant::now();
    let mut enumerator = source.enumerator(1)?;
    let mut reader = source.reader(&context())?;
    let mut cx = Context::from_waker(Waker::noop());
    let mut records = 0;
    loop {
        match reader.read(1024, &mut cx)? {
            Poll::Ready(Some(batch)) => records += batch.len() as u64,
            Poll::Pending => {}
            Poll::Ready(None) => match enumerator.next_split(0)? {
                Assignment::Split(split) => reader.add_split(split)?,
                _ => break,
            },
        }
    }
    report(&format!("read {name}"), records, bytes, start.elapsed());
    Ok(())
}

fn write<T, S>(name: &str, sink: &S, path: &Path, count: u64, make: impl Fn(u64) -> T) -> Result<()>
where
    T: flott_dataflow::batch::Record,
    S: Sink<T>,
{
    let template: Vec<T> = (0..1024).map(make).collect();
    let ctx = context();
    sink.check()?;
    let mut writer = sink.writer(&ctx)?;
    let mut spent = Duration::ZERO;
    for _ in 0..count / 1024 {
        // Copies are the price of the measurement, not of the sink.
        let batch = Batch::of(template.clone());
        let start = Instant::now();
        writer.write(batch)?;
        spent += start.elapsed();
    }
    let start = Instant::now();
    let committables = writer.prepare_commit(true)?;
    sink.committer(&ctx)?.commit(committables)?;
    spent += start.elapsed();
    let bytes = match path.is_dir() {
        false => size(path)?,
        true => {
            let entries: std::io::Result<Vec<_>> = std::fs::read_dir(path)?.collect();
            entries?.iter().map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
        }
    };
    report(&format!("write {name}"), count / 1024 * 1024, bytes, spent);
    Ok(())
}
