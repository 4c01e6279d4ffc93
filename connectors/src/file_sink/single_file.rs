//! The sink of one file for a whole result.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::context::{OperatorContext, TaskContext};
use flott_dataflow::function::Function;
use flott_dataflow::sink::{Sink, SinkWriter};
use flott_schema::{Error, Result};

use super::commit::{FileCommittable, FileCommitter, check_writable};
use super::encoder::{EncodeWith, Encoder, LineEncoder};
use super::part_file::{PartFile, unique_token};
use super::sink::check_utf8;
use crate::csv::CsvEncoder;
use crate::files::Compression;
use crate::json::JsonEncoder;

/// Writes all records to one file, in the order in which they arrive; the sink must have parallelism 1.
///
/// The file appears as a whole when the input has ended, and then replaces one of that name. Without any record it is empty.
/// A name that ends in `.gz` or `.zst` is compressed. It is for jobs that end and take no checkpoints: a job that goes on
/// from a checkpoint would not have what it wrote before.
///
/// ```
/// use flott_connectors::file_sink::SingleFile;
/// let counts = SingleFile::lines("counts.txt");
/// let table = SingleFile::csv("counts.csv.gz").keep_existing();
/// ```
#[derive(Clone, Debug)]
pub struct SingleFile<E> {
    path: PathBuf,
    encoder: E,
    replace: bool,
}

impl SingleFile<LineEncoder> {
    /// A line for each record, as it displays itself.
    pub fn lines(path: impl Into<PathBuf>) -> Self {
        Self::new(path, LineEncoder)
    }
}

impl SingleFile<CsvEncoder> {
    /// Comma-separated values, with a header if records are structs.
    pub fn csv(path: impl Into<PathBuf>) -> Self {
        Self::new(path, CsvEncoder::default())
    }
}

impl SingleFile<JsonEncoder> {
    /// A JSON value on a line for each record.
    pub fn json(path: impl Into<PathBuf>) -> Self {
        Self::new(path, JsonEncoder)
    }
}

impl<F: Function> SingleFile<EncodeWith<F>> {
    /// What `encode` appends for each record.
    pub fn encode_with(path: impl Into<PathBuf>, encode: F) -> Self {
        Self::new(path, EncodeWith(encode))
    }
}

impl<E> SingleFile<E> {
    /// A file with an encoder of the caller's.
    pub fn new(path: impl Into<PathBuf>, encoder: E) -> Self {
        SingleFile { path: path.into(), encoder, replace: true }
    }

    /// Fails, before the job runs, if there is a file of that name.
    pub fn keep_existing(mut self) -> Self {
        self.replace = false;
        self
    }

    fn committable(&self) -> FileCommittable {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let in_progress = self.path.with_file_name(format!(".{name}.inprogress.{}", unique_token()));
        FileCommittable { in_progress, finished: self.path.clone(), replace: self.replace }
    }
}

impl<T: Record, E: Encoder<T>> Sink<T> for SingleFile<E> {
    type Committable = FileCommittable;
    type Writer = SingleFileWriter<E>;
    type Committer = FileCommitter;

    fn check(&self) -> Result<()> {
        check_utf8(&self.path)?;
        let path = self.path.display();
        if self.path.file_name().is_none() || self.path.is_dir() {
            return Err(Error::configuration(format!("output file '{path}' is a folder; name a file in it")));
        }
        // It would be replaced by a rename: right for a file, wrong for a device, a pipe or a link.
        if let Ok(there) = std::fs::symlink_metadata(&self.path)
            && !there.is_file()
        {
            return Err(Error::configuration(format!(
                "output file '{path}' is no regular file; name another"
            )));
        }
        if !self.replace && self.path.exists() {
            return Err(Error::configuration(format!(
                "output file '{path}' is there already; remove it first"
            )));
        }
        check_writable(self.path.parent().unwrap_or(Path::new("")))
    }

    fn writer(&self, ctx: &OperatorContext) -> Result<SingleFileWriter<E>> {
        let parallelism = ctx.task.parallelism;
        if parallelism != 1 {
            return Err(Error::graph(format!(
                "'{}' is one file and has {parallelism} writers; set parallelism(1) on its sink",
                self.path.display()
            )));
        }
        Ok(SingleFileWriter { sink: self.clone(), part: None, task: ctx.task.clone() })
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<FileCommitter> {
        Ok(FileCommitter)
    }
}

/// Writes the file.
pub struct SingleFileWriter<E> {
    sink: SingleFile<E>,
    part: Option<PartFile>,
    task: Rc<TaskContext>,
}

impl<E> SingleFileWriter<E> {
    /// The file, which is created when it is first needed.
    fn take_part(&mut self) -> Result<PartFile> {
        match self.part.take() {
            Some(part) => Ok(part),
            None => {
                let compression = Compression::of_path(&self.sink.path);
                PartFile::create(self.sink.committable(), compression, self.task.now_ms())
            }
        }
    }
}

impl<T, E: Encoder<T>> SinkWriter<T> for SingleFileWriter<E> {
    type Committable = FileCommittable;

    fn write(&mut self, batch: Batch<T>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let now_ms = self.task.now_ms();
        let mut part = self.take_part()?;
        part.write(&batch.records, &mut self.sink.encoder, now_ms)?;
        self.part = Some(part);
        Ok(())
    }

    fn prepare_commit(&mut self, end_of_input: bool) -> Result<Vec<FileCommittable>> {
        if !end_of_input {
            return Err(Error::configuration(format!(
                "'{}' is one file that appears at the end, which a checkpoint cannot hold; turn checkpoints off, or write \
                 part files with FileSink",
                self.sink.path.display()
            )));
        }
        let finished = self.take_part()?.finish()?;
        finished.hidden.keep();
        Ok(vec![finished.committable])
    }

    fn close(&mut self) -> Result<()> {
        self.part = None;
        Ok(())
    }
}
