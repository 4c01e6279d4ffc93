//! Hands out splits of files, once or for ever.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use flott_dataflow::codec::{decode_value, encode_value};
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

    /// What [`SplitEnumerator::snapshot`] holds; a frozen form.
    fn state(&self) -> FileEnumeratorState {
        let seen = self.watch.iter().flat_map(|watch| &watch.seen);
        let seen = seen.map(|(path, (length, modified_ns))| FileEntry {
            path: path.clone(),
            length: *length,
            modified_ns: *modified_ns,
        });
        FileEnumeratorState {
            cutter: self.cutter.clone(),
            files: self.files.as_slice().to_vec(),
            seen: seen.collect(),
        }
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

/// What is left to hand out, and what is known of a watched folder.
#[derive(Serialize, Deserialize)]
struct FileEnumeratorState {
    /// Of the file that is being handed out, what is left.
    cutter: Option<SplitCutter>,
    /// Files that are listed and not begun.
    files: Vec<FileEntry>,
    /// Files of a watched folder that were handed out, or are in `files`, as they were then.
    seen: Vec<FileEntry>,
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

    fn snapshot(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(&self.state(), &mut bytes)?;
        Ok(bytes)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let FileEnumeratorState { cutter, files, seen } = decode_value(state)?;
        (self.cutter, self.files) = (cutter, files.into_iter());
        if let Some(watch) = &mut self.watch {
            let seen = seen.into_iter().map(|entry| (entry.path, (entry.length, entry.modified_ns)));
            watch.seen = seen.collect();
        }
        Ok(())
    }
}
