//! The sink of part files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flott_dataflow::batch::Record;
use flott_dataflow::context::OperatorContext;
use flott_dataflow::function::Function;
use flott_dataflow::sink::{GlobalCommitter, Sink};
use flott_schema::{Error, Result};

use super::buckets::Buckets;
use super::commit::{FileCommittable, FileCommitter, check_writable};
use super::encoder::{EncodeWith, Encoder, LineEncoder};
use super::lineage::Lineage;
use super::manifests::ManifestCommitter;
use super::writer::{FileWriter, Rolling};
use crate::csv::CsvEncoder;
use crate::files::Compression;
use crate::json::JsonEncoder;

/// Writes records to files `part-<task>-<number><suffix>` in a folder, or in folders below it.
///
/// A file is written under a hidden name, `.part-<task>-<number>.inprogress.<token>`, and is renamed when it is complete,
/// on disk, and committed; so whoever reads the folder sees whole files only. What an earlier run has written stays: new
/// files get higher numbers.
///
/// A file is complete when it is large or old enough, when nothing has come for a while, at the end of the input, and at every
/// checkpoint.
///
/// In a job that takes checkpoints, each record is in visible files exactly once: a file gets its name when the checkpoint that it
/// belongs to is complete, and after a failure what was not committed is removed and written again. Names are then
/// `part-<task>-<token>-<number><suffix>`, with a token for each start of a task.
///
/// ```
/// use std::time::Duration;
/// use flott_connectors::file_sink::{Buckets, FileSink};
/// use flott_connectors::files::Compression;
/// let sink = FileSink::json("out/clicks")
///     .buckets(Buckets::by(|click: &(String, u64)| format!("user={}", click.0)))
///     .compression(Compression::Zstd)
///     .roll_at_bytes(64 << 20)
///     .roll_after(Duration::from_secs(600));
/// ```
pub struct FileSink<T, E> {
    folder: PathBuf,
    encoder: E,
    suffix: String,
    compression: Compression,
    buckets: Buckets<T>,
    rolling: Rolling,
    commit_when_rolled: bool,
    manifests: bool,
}

impl<T, E: Clone> Clone for FileSink<T, E> {
    fn clone(&self) -> Self {
        FileSink {
            folder: self.folder.clone(),
            encoder: self.encoder.clone(),
            suffix: self.suffix.clone(),
            buckets: self.buckets.clone(),
            ..*self
        }
    }
}

impl<T> FileSink<T, LineEncoder> {
    /// A line for each record, as it displays itself.
    pub fn lines(folder: impl Into<PathBuf>) -> Self {
        Self::new(folder, LineEncoder, "")
    }
}

impl<T> FileSink<T, CsvEncoder> {
    /// Comma-separated values, with a header if records are structs. Names end in `.csv`.
    pub fn csv(folder: impl Into<PathBuf>) -> Self {
        Self::new(folder, CsvEncoder::default(), ".csv")
    }
}

impl<T> FileSink<T, JsonEncoder> {
    /// A JSON value on a line for each record. Names end in `.jsonl`.
    pub fn json(folder: impl Into<PathBuf>) -> Self {
        Self::new(folder, JsonEncoder, ".jsonl")
    }
}

impl<T, F: FnMut(&T, &mut Vec<u8>) -> Result<()> + Function> FileSink<T, EncodeWith<F>> {
    /// What `encode` appends for each record.
    pub fn encode_with(folder: impl Into<PathBuf>, encode: F) -> Self {
        Self::new(folder, EncodeWith(encode), "")
    }
}

impl<T, E> FileSink<T, E> {
    /// Files in `folder` with an encoder of the caller's, and names that end in `suffix`.
    pub fn new(folder: impl Into<PathBuf>, encoder: E, suffix: &str) -> Self {
        FileSink {
            folder: folder.into(),
            encoder,
            suffix: suffix.to_string(),
            compression: Compression::None,
            buckets: Buckets::None,
            rolling: Rolling::default(),
            commit_when_rolled: true,
            manifests: false,
        }
    }

    /// The end of the files' names, with its dot; that of the compression comes behind it.
    pub fn suffix(mut self, suffix: &str) -> Self {
        self.suffix = suffix.to_string();
        self
    }

    /// Compresses the files. Default: no.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Shares records out over folders. Default: all in one.
    pub fn buckets(mut self, buckets: Buckets<T>) -> Self {
        self.buckets = buckets;
        self
    }

    /// A file is complete when it has about so many bytes. Default 128 MiB.
    pub fn roll_at_bytes(mut self, bytes: u64) -> Self {
        self.rolling.max_bytes = bytes;
        self
    }

    /// A file is complete this long after its first record. Default 60 seconds.
    pub fn roll_after(mut self, interval: Duration) -> Self {
        self.rolling.interval_ms = millis(interval);
        self
    }

    /// A file is complete when nothing was written to it for this long. Default 60 seconds.
    pub fn roll_after_inactivity(mut self, interval: Duration) -> Self {
        self.rolling.inactivity_ms = millis(interval);
        self
    }

    /// Whether a file is made visible as soon as it is complete, in a job without checkpoints; with `false`, all become visible at the
    /// end of the input. What a failed job has made visible is written again by its next attempt. A job with checkpoints does not
    /// look at this: there, files become visible with the checkpoint. Default: yes.
    pub fn commit_when_rolled(mut self, yes: bool) -> Self {
        self.commit_when_rolled = yes;
        self
    }

    /// Whether the files of all tasks that become visible with a checkpoint are listed in a file `_manifests/<checkpoint>-<job>.json`, which
    /// is written when all of them are there: see [`Manifest`](super::Manifest). They are then committed by one task, the global committer.
    /// A job without checkpoints makes its files visible at the end of the input, with one manifest. Default: no.
    pub fn manifests(mut self, yes: bool) -> Self {
        self.manifests = yes;
        self
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// Refuses paths that no committable can hold.
pub fn check_utf8(path: &Path) -> Result<()> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(Error::configuration(format!("output path '{}' is not UTF-8", path.display()))),
    }
}

impl<T: Record, E: Encoder<T>> Sink<T> for FileSink<T, E> {
    type Committable = FileCommittable;
    type Writer = FileWriter<T, E>;
    type Committer = FileCommitter;

    fn check(&self) -> Result<()> {
        check_utf8(&self.folder)?;
        if self.suffix.contains('/') {
            return Err(Error::configuration(format!(
                "suffix '{}' of output files has a '/' in it",
                self.suffix
            )));
        }
        check_writable(&self.folder)
    }

    fn writer(&self, ctx: &OperatorContext) -> Result<FileWriter<T, E>> {
        let Some(state) = &ctx.state else { return Ok(self.writer_with(None, ctx)) };
        let lineage = if state.is_restored() { Lineage::fresh(ctx) } else { Lineage::first(ctx) };
        self.remove_leftovers(&lineage)?;
        Ok(self.writer_with(Some(lineage), ctx))
    }

    fn restore_writer(&self, ctx: &OperatorContext, state: Vec<Vec<u8>>) -> Result<FileWriter<T, E>> {
        let found: Vec<Lineage> = state.iter().map(|item| Lineage::decoded(item)).collect::<Result<_>>()?;
        let own: Vec<Lineage> = found.into_iter().filter(|lineage| lineage.job == ctx.task.job).collect();
        own.iter().try_for_each(|lineage| self.remove_leftovers(lineage))?;
        if let Some(lineage) = own.into_iter().next() {
            return Ok(self.writer_with(Some(lineage), ctx));
        }
        let lineage = Lineage::first(ctx);
        self.remove_leftovers(&lineage)?;
        Ok(self.writer_with(Some(lineage), ctx))
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<FileCommitter> {
        Ok(FileCommitter)
    }

    fn global_committer(&self) -> Option<Box<dyn GlobalCommitter<Committable = FileCommittable>>> {
        self.manifests.then(|| Box::new(ManifestCommitter::new(self.folder.clone())) as Box<_>)
    }
}

impl<T: Record, E: Encoder<T>> FileSink<T, E> {
    fn remove_leftovers(&self, lineage: &Lineage) -> Result<()> {
        lineage.remove_leftovers(&self.folder, !matches!(self.buckets, Buckets::None))
    }

    fn writer_with(&self, lineage: Option<Lineage>, ctx: &OperatorContext) -> FileWriter<T, E> {
        let suffix = format!("{}{}", self.suffix, self.compression.suffix());
        FileWriter::new(
            self.folder.clone(),
            suffix,
            self.encoder.clone(),
            self.compression,
            self.buckets.clone(),
            self.rolling,
            self.commit_when_rolled && !self.manifests,
            lineage,
            ctx,
        )
    }
}
