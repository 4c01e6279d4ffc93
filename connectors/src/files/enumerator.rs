//! Hands out splits of files, once or for ever.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use flott_dataflow::source::{Assignment, SplitEnumerator};
use flott_schema::Result;

use super::compression::Compression;
use super::listing::{FileEntry, list_files};
use super::split::{FileSplit, SplitCutter};

/// The enumerator of files under one path.
pub struct FileEnumerator {
    root: PathBuf,
    /// `None` goes by the name of each file.
    compression: Option<Compression>,
    /// `None` does not cut files.
    split_bytes: Option<u64>,
    files: std::vec::IntoIter<FileEntry>,
    cutter: Option<SplitCutter>,
    watch: Option<Watch>,
}

/// A folder that is listed again and again.
struct Watch {
    interval: Duration,
    due: Instant,
    /// Length and time of change of the files handed out; those that are gone are forgotten.
    seen: HashMap<PathBuf, (u64, u128)>,
}

impl FileEnumerator {
    /// Lists `root`; with an interval, lists it again whenever that has passed, and hands out what is new or changed.
    pub fn new(
        root: PathBuf,
        compression: Option<Compression>,
        split_bytes: Option<u64>,
        interval: Option<Duration>,
    ) -> Result<Self> {
        let watch = interval.map(|interval| Watch {
            interval: interval.max(Duration::from_millis(1)),
            due: Instant::now(),
            seen: HashMap::new(),
        });
        let files = if watch.is_some() { Vec::new() } else { list_files(&root)? };
        Ok(FileEnumerator { root, compression, split_bytes, files: files.into_iter(), cutter: None, watch })
    }

    fn next_known(&mut self) -> Option<FileSplit> {
        loop {
            if let Some(split) = self.cutter.as_mut().and_then(Iterator::next) {
                return Some(split);
            }
            let entry = self.files.next()?;
            let compression = self.compression.unwrap_or_else(|| Compression::of_path(&entry.path));
            self.cutter = Some(SplitCutter::new(entry, compression, self.split_bytes));
        }
    }
}

impl Watch {
    fn new_files(&mut self, listed: Vec<FileEntry>) -> Vec<FileEntry> {
        let mut known = std::mem::take(&mut self.seen);
        let mut new = Vec::new();
        for entry in listed {
            let state = (entry.length, entry.modified_ns);
            if known.remove(&entry.path) != Some(state) {
                new.push(entry.clone());
            }
            self.seen.insert(entry.path, state);
        }
        new
    }
}

impl SplitEnumerator for FileEnumerator {
    type Split = FileSplit;

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<FileSplit>> {
        if let Some(split) = self.next_known() {
            return Ok(Assignment::Split(split));
        }
        let Some(watch) = &mut self.watch else { return Ok(Assignment::NoMore) };
        let now = Instant::now();
        if now >= watch.due {
            let new = watch.new_files(list_files(&self.root)?);
            watch.due = now + watch.interval;
            self.files = new.into_iter();
            if let Some(split) = self.next_known() {
                return Ok(Assignment::Split(split));
            }
        }
        let due = self.watch.as_ref().map_or(now, |watch| watch.due);
        Ok(Assignment::Later(due.duration_since(now).as_millis().max(1) as u64))
    }
}
