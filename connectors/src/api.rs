//! Short forms: the connectors as methods of environments and streams.
//!
//! Who may call it: job authors, who bring the two traits into scope. What must never happen here: a connector that can be
//! had no other way.

use std::fmt::{Debug, Display};
use std::path::PathBuf;

use serde::Serialize;

use flott_dataflow::api::{DataStream, StreamEnv, StreamSink};
use flott_dataflow::batch::Record;
use flott_dataflow::operator::OutputTag;

use crate::bad_record::OnBadRecord;
use crate::blackhole::Blackhole;
use crate::collect::Collected;
use crate::collection::Collection;
use crate::csv::CsvFiles;
use crate::file_sink::{FileSink, SingleFile};
use crate::json::{JsonLines, ParseJson, Rejected};
use crate::print::Print;
use crate::sequence::Sequence;
use crate::socket::SocketText;
use crate::text::TextFiles;

/// Sources with their default settings, without timestamps; for others see [`StreamEnv::from_source`].
// `from_collection` is Flink's word.
#[allow(clippy::wrong_self_convention)]
pub trait Connectors {
    /// The lines of a file, or of all files under a folder.
    fn read_text(&self, path: impl Into<PathBuf>) -> DataStream<String>;
    /// The records of CSV files with headers.
    fn read_csv<T: Record>(&self, path: impl Into<PathBuf>) -> DataStream<T>;
    /// The records of files of JSON lines.
    fn read_json<T: Record>(&self, path: impl Into<PathBuf>) -> DataStream<T>;
    /// The values of a vector, read by one task, in order.
    fn from_collection<T: Record>(&self, records: Vec<T>) -> DataStream<T>;
    /// Values with event times, epoch milliseconds, read by one task, in order.
    fn from_timestamped<T: Record>(&self, records: Vec<(T, i64)>) -> DataStream<T>;
    /// The numbers `first` to `last`.
    fn sequence(&self, first: u64, last: u64) -> DataStream<u64>;
    /// The lines that `host:port` sends, read by one task.
    fn socket_text(&self, host: &str, port: u16) -> DataStream<String>;
}

impl Connectors for StreamEnv {
    fn read_text(&self, path: impl Into<PathBuf>) -> DataStream<String> {
        self.add_source(TextFiles::new(path), "Text Files")
    }

    fn read_csv<T: Record>(&self, path: impl Into<PathBuf>) -> DataStream<T> {
        self.add_source(CsvFiles::<T>::new(path), "CSV Files")
    }

    fn read_json<T: Record>(&self, path: impl Into<PathBuf>) -> DataStream<T> {
        self.add_source(JsonLines::<T>::new(path), "JSON Files")
    }

    fn from_collection<T: Record>(&self, records: Vec<T>) -> DataStream<T> {
        self.add_source(Collection::new(records), "Collection").parallelism(1)
    }

    fn from_timestamped<T: Record>(&self, records: Vec<(T, i64)>) -> DataStream<T> {
        self.add_source(Collection::with_timestamps(records), "Collection").parallelism(1)
    }

    fn sequence(&self, first: u64, last: u64) -> DataStream<u64> {
        self.add_source(Sequence::new(first, last), "Sequence")
    }

    fn socket_text(&self, host: &str, port: u16) -> DataStream<String> {
        self.add_source(SocketText::new(host, port), "Socket").parallelism(1)
    }
}

/// Sinks with their default settings; for others see [`DataStream::sink_to`].
pub trait SinkConnectors<T: Record> {
    /// Prints each record as it displays itself.
    fn print(&self) -> StreamSink
    where
        T: Display;
    /// Prints each record as its `Debug` shows it.
    fn print_debug(&self) -> StreamSink
    where
        T: Debug;
    /// Writes part files of lines to a folder.
    fn write_text(&self, folder: impl Into<PathBuf>) -> StreamSink
    where
        T: Display;
    /// Writes part files of CSV to a folder.
    fn write_csv(&self, folder: impl Into<PathBuf>) -> StreamSink
    where
        T: Serialize;
    /// Writes part files of JSON lines to a folder.
    fn write_json(&self, folder: impl Into<PathBuf>) -> StreamSink
    where
        T: Serialize;
    /// Writes one file of lines, by one task, at the end of the input.
    fn write_text_file(&self, path: impl Into<PathBuf>) -> StreamSink
    where
        T: Display;
    /// Drops all records.
    fn discard(&self) -> StreamSink;
    /// Gathers the records in memory.
    fn collect_into(&self, collected: &Collected<T>) -> StreamSink;
}

impl<T: Record> SinkConnectors<T> for DataStream<T> {
    fn print(&self) -> StreamSink
    where
        T: Display,
    {
        self.sink_to(Print::display(), "Print")
    }

    fn print_debug(&self) -> StreamSink
    where
        T: Debug,
    {
        self.sink_to(Print::debug(), "Print")
    }

    fn write_text(&self, folder: impl Into<PathBuf>) -> StreamSink
    where
        T: Display,
    {
        self.sink_to(FileSink::lines(folder), "Text Files")
    }

    fn write_csv(&self, folder: impl Into<PathBuf>) -> StreamSink {
        self.sink_to(FileSink::csv(folder), "CSV Files")
    }

    fn write_json(&self, folder: impl Into<PathBuf>) -> StreamSink {
        self.sink_to(FileSink::json(folder), "JSON Files")
    }

    fn write_text_file(&self, path: impl Into<PathBuf>) -> StreamSink
    where
        T: Display,
    {
        self.sink_to(SingleFile::lines(path), "Text File").parallelism(1)
    }

    fn discard(&self) -> StreamSink {
        self.sink_to(Blackhole::new(), "Blackhole")
    }

    fn collect_into(&self, collected: &Collected<T>) -> StreamSink {
        self.sink_to(collected.sink(), "Collect")
    }
}

/// Parsers of streams of lines.
pub trait LineParsers {
    /// Parses each line as JSON; blank ones are bad records too.
    fn parse_json<T: Record>(&self, on_bad_record: OnBadRecord) -> DataStream<T>;
    /// Parses each line as JSON; bad ones are counted and go to a side output.
    fn parse_json_or<T: Record>(&self, rejects: &OutputTag<Rejected>) -> DataStream<T>;
}

impl LineParsers for DataStream<String> {
    fn parse_json<T: Record>(&self, on_bad_record: OnBadRecord) -> DataStream<T> {
        self.transform("Parse JSON", move |ctx| {
            on_bad_record.check()?;
            Ok(ParseJson::new(on_bad_record.clone(), ctx))
        })
    }

    fn parse_json_or<T: Record>(&self, rejects: &OutputTag<Rejected>) -> DataStream<T> {
        let rejects = rejects.clone();
        self.transform("Parse JSON", move |ctx| Ok(ParseJson::with_rejects(rejects.clone(), ctx)))
    }
}
