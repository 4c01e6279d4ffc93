//! The sink of one file for a whole result.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::context::{OperatorContext, TaskContext};
use flott_dataflow::function::Function;
use flott_dataflow::sink::{Sink, SinkWriter};
use flott_dataflow::snapshot::Background;
use flott_schema::ids::JobId;
use flott_schema::{Error, Result};

use super::commit::{FileCommittable, FileCommitter, check_writable};
use super::encoder::{EncodeWith, Encoder, LineEncoder};
use super::lineage::{Lineage, remove_if_there, siblings};
use super::part_file::{PartFile, Persisted, unique_token};
use super::sink::check_utf8;
use super::unsynced::Unsynced;
use crate::csv::CsvEncoder;
use crate::files::Compression;
use crate::json::JsonEncoder;

/// Writes all records to one file, in the order in which they arrive; the sink must have parallelism 1.
///
/// The file appears as a whole when the input has ended, and then replaces one of that name. Without any record it is empty.
/// A name that ends in `.gz` or `.zst` is compressed. It is for jobs that end, or are stopped with `--drain`.
///
/// In a job that takes checkpoints each record is in the file exactly once: until the end all is in a hidden file beside it, and a
/// checkpoint holds how far that is written. A job that starts from a checkpoint goes on with a copy of that part. The hidden file
/// is not part of the checkpoint: a savepoint can be started from as long as nobody has removed it, which the job itself does when
/// its input has ended.
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

    /// How the names of the hidden files begin that the job of this task makes.
    fn hidden_start(&self, ctx: &OperatorContext) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        match &ctx.state {
            None => format!(".{name}.inprogress."),
            Some(_) => format!(".{name}.inprogress.{}.", Lineage::first(ctx).name),
        }
    }

    fn new_writer(&self, ctx: &OperatorContext) -> Result<SingleFileWriter<E>>
    where
        E: Clone,
    {
        let parallelism = ctx.task.parallelism;
        if parallelism != 1 {
            return Err(Error::graph(format!(
                "'{}' is one file and has {parallelism} writers; set parallelism(1) on its sink",
                self.path.display()
            )));
        }
        Ok(SingleFileWriter {
            sink: self.clone(),
            part: None,
            task: ctx.task.clone(),
            hidden_start: self.hidden_start(ctx),
            takes_snapshots: ctx.state.is_some(),
            persisted: None,
            unsynced: Unsynced::default(),
        })
    }
}

/// State of the writer; frozen.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SingleFileState {
    /// The job that wrote. Another one leaves its file alone.
    job: JobId,
    written: Persisted,
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
        let writer = self.new_writer(ctx)?;
        if ctx.state.is_some() {
            // What earlier attempts have left, which no snapshot knows.
            let left = siblings(&self.path, &writer.hidden_start)?;
            left.iter().try_for_each(|path| remove_if_there(path))?;
        }
        Ok(writer)
    }

    fn restore_writer(&self, ctx: &OperatorContext, state: Vec<Vec<u8>>) -> Result<SingleFileWriter<E>> {
        let mut writer = self.new_writer(ctx)?;
        let Some(item) = state.first() else { return Ok(writer) };
        let SingleFileState { job, written } = decode_value(item)?;
        let own = job == ctx.task.job;
        let mut committable = writer.committable();
        committable.superseded.extend(own.then(|| written.path.clone()));
        let kept = [written.path.clone(), committable.in_progress.clone()];
        let compression = Compression::of_path(&self.path);
        writer.part = Some(PartFile::resume(committable, compression, ctx.task.now_ms(), &written)?);
        for path in siblings(&self.path, &writer.hidden_start)? {
            if !kept.contains(&path) {
                remove_if_there(&path)?;
            }
        }
        Ok(writer)
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
    hidden_start: String,
    takes_snapshots: bool,
    /// As of the last barrier.
    persisted: Option<Persisted>,
    unsynced: Unsynced,
}

impl<E> SingleFileWriter<E> {
    fn committable(&self) -> FileCommittable {
        FileCommittable {
            in_progress: self.sink.path.with_file_name(format!("{}{}", self.hidden_start, unique_token())),
            finished: self.sink.path.clone(),
            replace: self.sink.replace,
            superseded: Vec::new(),
        }
    }

    /// The file, which is created when it is first needed.
    fn take_part(&mut self) -> Result<PartFile> {
        match self.part.take() {
            Some(part) => Ok(part),
            None => {
                let compression = Compression::of_path(&self.sink.path);
                PartFile::create(self.committable(), compression, self.task.now_ms())
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
        self.unsynced.check()?;
        self.persisted = None;
        if !end_of_input {
            if !self.takes_snapshots {
                return Err(Error::internal("a sink without state was asked to take part in a checkpoint"));
            }
            let persist = |part: &mut PartFile| part.persist(&self.unsynced);
            self.persisted = self.part.as_mut().map(persist).transpose()?;
            return Ok(Vec::new());
        }
        let finished = self.take_part()?.finish(&self.unsynced)?;
        finished.hidden.keep();
        Ok(vec![finished.committable])
    }

    fn unfinished(&mut self) -> Option<Background> {
        Some(self.unsynced.work())
    }

    fn snapshot(&mut self, _checkpoint: u64) -> Result<Vec<Vec<u8>>> {
        let Some(written) = self.persisted.clone() else { return Ok(Vec::new()) };
        let mut item = Vec::new();
        encode_value(&SingleFileState { job: self.task.job, written }, &mut item)?;
        Ok(vec![item])
    }

    fn close(&mut self) -> Result<()> {
        self.part = None;
        Ok(())
    }
}
