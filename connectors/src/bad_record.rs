//! What to do with input that cannot be decoded.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use flott_dataflow::context::{OperatorMetrics, count};
use flott_schema::{Error, ErrorKind, Result};

/// Characters of a bad record that an error shows.
const EXCERPT_CHARS: usize = 200;

/// What to do with a record that cannot be decoded. Whatever is chosen, it is never silently lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnBadRecord {
    /// Fail the job with an error that names the place.
    #[default]
    Fail,
    /// Leave it out, and count it in `undecodable_records`.
    SkipAndCount,
    /// Count it, and append it to this file as one line of JSON: `file`, `line`, `offset`, `error`, `text`; for text that
    /// is not UTF-8 also `hex`. All tasks may share the file. After a restart from a checkpoint a record may be in it
    /// twice.
    DeadLetter(PathBuf),
}

impl OnBadRecord {
    /// Refuses a dead-letter file that cannot be written.
    pub fn check(&self) -> Result<()> {
        let OnBadRecord::DeadLetter(path) = self else { return Ok(()) };
        if path.is_dir() {
            return Err(Error::configuration(format!(
                "dead-letter file '{}' is a folder; name a file in it",
                path.display()
            )));
        }
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match parent.is_dir() {
            true => Ok(()),
            false => Err(Error::configuration(format!(
                "dead-letter file '{}' cannot be written: there is no folder '{}'; create it",
                path.display(),
                parent.display()
            ))),
        }
    }
}

/// Where a record came from.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A path, an address, the name of an operator.
    pub origin: &'a str,
    /// Line number from 1, where it is known.
    pub line: Option<u64>,
    /// Offset of its first byte in the (decompressed) input, where it is known.
    pub offset: Option<u64>,
}

impl Place<'_> {
    /// An error about the record at this place.
    pub fn error(&self, what: &str) -> Error {
        let place = match (self.line, self.offset) {
            (Some(line), Some(offset)) => format!("{}: line {line} (byte {offset})", self.origin),
            (Some(line), None) => format!("{}: line {line}", self.origin),
            (None, Some(offset)) => format!("{}: byte {offset}", self.origin),
            (None, None) => self.origin.to_string(),
        };
        Error::bad_input(what).at(place)
    }
}

/// Why a record could not be decoded: lower case, with the column or field where it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);

impl Undecodable {
    /// Bytes that are no text.
    pub fn not_utf8(error: std::str::Utf8Error) -> Self {
        Undecodable(format!("column {}: not valid UTF-8", error.valid_up_to() + 1))
    }
}

/// Carries out [`OnBadRecord`] in one task.
pub struct BadRecords {
    policy: OnBadRecord,
    metrics: Arc<OperatorMetrics>,
    file: Option<File>,
    /// Whole lines for the dead-letter file; written once per batch.
    lines: Vec<u8>,
    skipped: usize,
}

#[derive(Serialize)]
struct DeadLetter<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    error: &'a str,
    text: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl BadRecords {
    /// For a task with these counters.
    pub fn new(policy: OnBadRecord, metrics: Arc<OperatorMetrics>) -> Self {
        BadRecords { policy, metrics, file: None, lines: Vec::new(), skipped: 0 }
    }

    /// Deals with one bad record, or fails.
    #[cold]
    pub fn reject(&mut self, place: Place<'_>, why: &Undecodable, raw: &[u8]) -> Result<()> {
        match self.policy {
            OnBadRecord::Fail => return Err(place.error(&format!("{}: {}", why.0, excerpt(raw)))),
            OnBadRecord::SkipAndCount => {}
            OnBadRecord::DeadLetter(_) => {
                let text = String::from_utf8_lossy(raw);
                let hex = matches!(text, std::borrow::Cow::Owned(_)).then(|| to_hex(raw));
                let (line, offset) = (place.line, place.offset);
                let letter = DeadLetter { file: place.origin, line, offset, error: &why.0, text, hex };
                serde_json::to_writer(&mut self.lines, &letter)
                    .map_err(|error| Error::internal(format!("a dead letter cannot be written: {error}")))?;
                self.lines.push(b'\n');
            }
        }
        self.skipped += 1;
        Ok(())
    }

    /// Writes and counts what was rejected; called once per batch.
    #[inline]
    pub fn flush(&mut self) -> Result<()> {
        if self.skipped == 0 { Ok(()) } else { self.write_out() }
    }

    #[cold]
    fn write_out(&mut self) -> Result<()> {
        if let OnBadRecord::DeadLetter(path) = &self.policy {
            let failed = |error| {
                Error::io(format!("dead-letter file '{}'", path.display()), error).with_kind(ErrorKind::Io)
            };
            let file = match &mut self.file {
                Some(file) => file,
                None => {
                    let opened = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
                    self.file.insert(opened)
                }
            };
            // One call for whole lines: appends of several tasks do not mix.
            file.write_all(&self.lines).map_err(failed)?;
            self.lines.clear();
        }
        count(&self.metrics.undecodable_records, self.skipped);
        self.skipped = 0;
        Ok(())
    }
}

/// The beginning of a record for people: quoted, on one line.
pub fn excerpt(raw: &[u8]) -> String {
    // A character has at most four bytes; an invalid one becomes one replacement character or more.
    let head = String::from_utf8_lossy(&raw[..raw.len().min(EXCERPT_CHARS * 4)]);
    let text: String = head.chars().take(EXCERPT_CHARS).collect();
    let cut = if text.len() < raw.len() { " (cut)" } else { "" };
    format!("{text:?}{cut}")
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    const PLACE: Place<'static> = Place { origin: "in.csv", line: Some(7), offset: Some(120) };

    fn why() -> Undecodable {
        Undecodable("column 3: no number".into())
    }

    #[test]
    fn the_default_is_to_fail_naming_place_reason_and_the_beginning_of_the_text() {
        let mut bad = BadRecords::new(OnBadRecord::default(), Arc::default());
        let error = bad.reject(PLACE, &why(), "ä".repeat(300).as_bytes()).unwrap_err();
        let shown = format!("\"{}\" (cut)", "ä".repeat(200));
        assert_eq!(error.to_string(), format!("in.csv: line 7 (byte 120): column 3: no number: {shown}"));
        assert_eq!(error.kind(), ErrorKind::BadInput);
    }

    #[test]
    fn skipped_records_are_counted() {
        let metrics: Arc<OperatorMetrics> = Arc::default();
        let mut bad = BadRecords::new(OnBadRecord::SkipAndCount, metrics.clone());
        bad.reject(PLACE, &why(), b"x").unwrap();
        bad.reject(PLACE, &why(), b"y").unwrap();
        bad.flush().unwrap();
        assert_eq!(metrics.undecodable_records.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn dead_letters_are_appended_as_json_and_keep_bytes_that_are_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.jsonl");
        for raw in [&b"a \"b\""[..], b"\xff\x00"] {
            // Another task, or the same after a restart.
            let mut bad = BadRecords::new(OnBadRecord::DeadLetter(path.clone()), Arc::default());
            bad.reject(PLACE, &why(), raw).unwrap();
            bad.flush().unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        let common = r#""file":"in.csv","line":7,"offset":120,"error":"column 3: no number""#;
        let expected = format!(
            "{{{common},\"text\":\"a \\\"b\\\"\"}}\n{{{common},\"text\":\"\u{fffd}\\u0000\",\"hex\":\"ff00\"}}\n"
        );
        assert_eq!(written, expected);
    }

    #[test]
    fn a_dead_letter_file_that_cannot_be_written_is_refused_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("none/dead.jsonl");
        let error = OnBadRecord::DeadLetter(nowhere).check().unwrap_err().to_string();
        assert!(error.contains("none/dead.jsonl") && error.contains("create it"), "{error}");
        let error = OnBadRecord::DeadLetter(folder.path().into()).check().unwrap_err().to_string();
        assert!(error.contains("is a folder"), "{error}");
        OnBadRecord::DeadLetter(folder.path().join("dead.jsonl")).check().unwrap();
    }
}
