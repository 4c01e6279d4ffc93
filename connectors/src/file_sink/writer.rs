//! Writes the part files of one task.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flott_dataflow::batch::Batch;
use flott_dataflow::context::{OperatorContext, TaskContext};
use flott_dataflow::sink::SinkWriter;
use flott_dataflow::snapshot::Background;
use flott_schema::{Error, Result};

use super::buckets::{BucketRuns, Buckets};
use super::commit::{FileCommittable, failed};
use super::encoder::Encoder;
use super::lineage::Lineage;
use super::part_file::{FinishedFile, PartFile, unique_token};
use super::unsynced::Unsynced;
use crate::files::Compression;

/// Records written between two looks at a file's size.
const RECORDS_PER_LOOK: usize = 256;
/// Files open at a time. One more, and the one that was not written to for longest is complete.
const OPEN_FILES_MAX: usize = 256;
/// Buckets without an open file that are remembered.
const IDLE_BUCKETS_MAX: usize = 1024;

/// When a file is complete.
#[derive(Clone, Copy, Debug)]
pub struct Rolling {
    /// Bytes.
    pub max_bytes: u64,
    /// Since the first record.
    pub interval_ms: i64,
    /// Since the last record.
    pub inactivity_ms: i64,
}

impl Default for Rolling {
    fn default() -> Self {
        Rolling { max_bytes: 128 << 20, interval_ms: 60_000, inactivity_ms: 60_000 }
    }
}

impl Rolling {
    fn deadline_ms(&self, part: &PartFile) -> i64 {
        let by_age = part.opened_ms.saturating_add(self.interval_ms);
        by_age.min(part.written_ms.saturating_add(self.inactivity_ms))
    }
}

/// Writes records to the files of their buckets.
pub struct FileWriter<T, E> {
    folder: PathBuf,
    suffix: String,
    encoder: E,
    compression: Compression,
    runs: BucketRuns<T>,
    pub(super) rolling: Rolling,
    commit_when_rolled: bool,
    task: Rc<TaskContext>,
    token: String,
    /// Of a job that takes snapshots.
    lineage: Option<Lineage>,
    /// Files by bucket; `None` for a bucket that has none at the moment.
    parts: HashMap<String, Option<PartFile>>,
    open_count: usize,
    /// Number of the next file, in all buckets.
    next_number: u64,
    /// Complete and not committed.
    finished: Vec<FinishedFile>,
    unsynced: Unsynced,
    /// No file is due before.
    deadline_ms: i64,
}

impl<T, E: Encoder<T>> FileWriter<T, E> {
    /// A writer for one task. In a job that takes snapshots it gets its lineage, and files become visible by snapshots alone.
    pub fn new(
        folder: PathBuf,
        suffix: String,
        encoder: E,
        compression: Compression,
        buckets: Buckets<T>,
        rolling: Rolling,
        commit_when_rolled: bool,
        lineage: Option<Lineage>,
        ctx: &OperatorContext,
    ) -> Self {
        FileWriter {
            folder,
            suffix,
            encoder,
            compression,
            runs: BucketRuns::new(buckets),
            rolling,
            commit_when_rolled: commit_when_rolled && lineage.is_none(),
            task: ctx.task.clone(),
            token: unique_token(),
            lineage,
            parts: HashMap::new(),
            open_count: 0,
            next_number: 0,
            finished: Vec::new(),
            unsynced: Unsynced::default(),
            deadline_ms: i64::MAX,
        }
    }

    /// Writes records of the bucket that `runs` found last.
    fn write_run(&mut self, mut records: &[T], now_ms: i64) -> Result<()> {
        while !records.is_empty() {
            let (now, later) = records.split_at(records.len().min(RECORDS_PER_LOOK));
            if !matches!(self.parts.get(self.runs.name()), Some(Some(_))) {
                self.open(now_ms)?;
            }
            let Some(Some(part)) = self.parts.get_mut(self.runs.name()) else {
                return Err(Error::internal("a part file was opened and is not there"));
            };
            part.write(now, &mut self.encoder, now_ms)?;
            if part.byte_count() >= self.rolling.max_bytes {
                let bucket = self.runs.name().to_string();
                self.roll(&bucket)?;
            }
            records = later;
        }
        Ok(())
    }

    /// Opens a file in the bucket that `runs` found last.
    fn open(&mut self, now_ms: i64) -> Result<()> {
        if self.open_count >= OPEN_FILES_MAX {
            self.roll_idlest()?;
        }
        let bucket = self.runs.name().to_string();
        let folder = if bucket.is_empty() { self.folder.clone() } else { self.folder.join(&bucket) };
        let subtask = self.task.subtask;
        if !self.parts.contains_key(&bucket) {
            if self.lineage.is_none() {
                self.next_number = self.next_number.max(next_free_number(&folder, subtask)?);
            }
            if self.parts.len() > IDLE_BUCKETS_MAX {
                self.parts.retain(|_, part| part.is_some());
            }
        }
        let (name, mark) = match &mut self.lineage {
            // No other writer has this token, so that no name is given twice, whatever is started from which snapshot.
            Some(lineage) => {
                let name = format!("part-{subtask}-{}-{}", &self.token[..8], lineage.next_number);
                lineage.next_number += 1;
                (name, &lineage.name)
            }
            None => {
                let name = format!("part-{subtask}-{}", self.next_number);
                self.next_number += 1;
                (name, &self.token)
            }
        };
        let committable = FileCommittable {
            in_progress: folder.join(format!(".{name}.inprogress.{mark}")),
            finished: folder.join(format!("{name}{}", self.suffix)),
            replace: false,
            superseded: Vec::new(),
        };
        let part = PartFile::create(committable, self.compression, now_ms)?;
        self.deadline_ms = self.deadline_ms.min(self.rolling.deadline_ms(&part));
        self.open_count += 1;
        self.parts.insert(bucket, Some(part));
        Ok(())
    }

    /// Completes the file of a bucket.
    fn roll(&mut self, bucket: &str) -> Result<()> {
        let Some(part) = self.parts.get_mut(bucket).and_then(Option::take) else { return Ok(()) };
        self.open_count -= 1;
        let finished = part.finish(&self.unsynced)?;
        if self.commit_when_rolled {
            self.unsynced.sync()?;
            finished.committable.commit(false)?;
            finished.hidden.keep();
        } else {
            self.finished.push(finished);
        }
        Ok(())
    }

    fn roll_where(&mut self, due: impl Fn(&PartFile) -> bool) -> Result<()> {
        let open = self.parts.iter().filter_map(|(bucket, part)| Some((bucket, part.as_ref()?)));
        let mut buckets: Vec<String> =
            open.filter(|(_, part)| due(part)).map(|(bucket, _)| bucket.clone()).collect();
        buckets.sort();
        buckets.iter().try_for_each(|bucket| self.roll(bucket))
    }

    fn roll_idlest(&mut self) -> Result<()> {
        let open = self.parts.iter().filter_map(|(bucket, part)| Some((part.as_ref()?.written_ms, bucket)));
        match open.min().map(|(_, bucket)| bucket.clone()) {
            Some(bucket) => self.roll(&bucket),
            None => Ok(()),
        }
    }
}

/// The number behind those of all files, finished or not, that subtasks of this index have written to `folder`.
fn next_free_number(folder: &Path, subtask: u32) -> Result<u64> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(folder, error)),
    };
    let start = format!("part-{subtask}-");
    let mut next = 0;
    for entry in entries {
        let name = entry.map_err(|error| failed(folder, error))?.file_name();
        let name = name.to_string_lossy();
        let name = name.strip_prefix('.').unwrap_or(&name);
        let Some(rest) = name.strip_prefix(&start) else { continue };
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        if let Ok(number) = rest[..digits].parse::<u64>() {
            next = next.max(number.saturating_add(1));
        }
    }
    Ok(next)
}

impl<T: 'static, E: Encoder<T>> SinkWriter<T> for FileWriter<T, E> {
    type Committable = FileCommittable;

    fn write(&mut self, batch: Batch<T>) -> Result<()> {
        let now_ms = self.task.now_ms();
        let Batch { records, timestamps } = batch;
        let mut start = 0;
        while start < records.len() {
            let end = self.runs.run_end(&records, &timestamps, start, now_ms)?;
            self.write_run(&records[start..end], now_ms)?;
            start = end;
        }
        Ok(())
    }

    fn next_deadline_ms(&self) -> i64 {
        self.deadline_ms
    }

    fn on_deadline(&mut self, now_ms: i64) -> Result<()> {
        let rolling = self.rolling;
        self.roll_where(|part| rolling.deadline_ms(part) <= now_ms)?;
        let open = self.parts.values().flatten();
        self.deadline_ms = open.map(|part| rolling.deadline_ms(part)).min().unwrap_or(i64::MAX);
        Ok(())
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<FileCommittable>> {
        self.unsynced.check()?;
        self.roll_where(|_| true)?;
        self.deadline_ms = i64::MAX;
        let finished = std::mem::take(&mut self.finished).into_iter();
        Ok(finished
            .map(|file| {
                file.hidden.keep();
                file.committable
            })
            .collect())
    }

    fn unfinished(&mut self) -> Option<Background> {
        Some(self.unsynced.work())
    }

    fn snapshot(&mut self, _checkpoint: u64) -> Result<Vec<Vec<u8>>> {
        self.lineage.iter().map(Lineage::encoded).collect()
    }

    fn close(&mut self) -> Result<()> {
        // Dropping them deletes them.
        self.parts.clear();
        self.finished.clear();
        self.open_count = 0;
        Ok(())
    }
}
