//! A file that is being written, under a name that hides it.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use flott_schema::{Error, Result};

use super::commit::{FileCommittable, create_folder, failed};
use super::encoder::Encoder;
use super::unsynced::Unsynced;
use crate::files::Compression;

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// A word that no other writer uses, so that two runs never share a hidden file.
pub fn unique_token() -> String {
    // The standard library seeds every `RandomState` from the system's random numbers.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Deletes a file that nobody will commit.
pub struct Hidden {
    path: PathBuf,
    kept: bool,
}

impl Hidden {
    /// From here on whoever commits the file is responsible for it.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(file = %self.path.display(), "an unfinished file cannot be removed: {error}");
        }
    }
}

/// A file that is complete and still hidden.
pub struct FinishedFile {
    /// Deletes it unless it is kept.
    pub hidden: Hidden,
    /// For its commit.
    pub committable: FileCommittable,
}

/// A file that is being written. Dropping it deletes it, unless it was persisted.
pub struct PartFile {
    output: Output,
    compression: Compression,
    /// Encoded and not yet written.
    buffer: Vec<u8>,
    is_empty: bool,
    /// Processing time of the first write.
    pub opened_ms: i64,
    /// Processing time of the last write.
    pub written_ms: i64,
    hidden: Hidden,
    committable: FileCommittable,
}

enum Output {
    /// None any more: a write has failed.
    Lost,
    Plain(Counted),
    Gzip(Box<GzEncoder<Counted>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Counted>>),
}

/// A file and how many bytes were written to it.
struct Counted {
    file: File,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Output {
    fn new(file: Counted, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Output::Plain(file),
            Compression::Gzip => Output::Gzip(Box::new(GzEncoder::new(file, flate2::Compression::default()))),
            Compression::Zstd => {
                let level = zstd::DEFAULT_COMPRESSION_LEVEL;
                Output::Zstd(Box::new(zstd::stream::write::Encoder::new(file, level)?))
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Lost => Err(lost()),
            Output::Plain(file) => file.write_all(bytes),
            Output::Gzip(encoder) => encoder.write_all(bytes),
            Output::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn byte_count(&self) -> u64 {
        match self {
            Output::Lost => 0,
            Output::Plain(file) => file.bytes,
            Output::Gzip(encoder) => encoder.get_ref().bytes,
            Output::Zstd(encoder) => encoder.get_ref().bytes,
        }
    }

    /// Completes what is compressed.
    fn finish(self) -> io::Result<Counted> {
        match self {
            Output::Lost => Err(lost()),
            Output::Plain(file) => Ok(file),
            Output::Gzip(encoder) => encoder.finish(),
            Output::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("an earlier write has failed")
}

/// How far a file was written when it was persisted; in snapshots, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    /// The hidden file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// Whether no record had been written.
    pub is_empty: bool,
}

impl PartFile {
    /// Creates the file that `committable` hides, and its folder.
    pub fn create(committable: FileCommittable, compression: Compression, now_ms: i64) -> Result<Self> {
        let path = &committable.in_progress;
        create_folder(path.parent().unwrap_or(Path::new("")))?;
        let file = File::create_new(path).map_err(|error| failed(path, error))?;
        let hidden = Hidden { path: path.clone(), kept: false };
        let output =
            Output::new(Counted { file, bytes: 0 }, compression).map_err(|error| failed(path, error))?;
        Ok(PartFile {
            output,
            compression,
            buffer: Vec::with_capacity(WRITE_BYTES),
            is_empty: true,
            opened_ms: now_ms,
            written_ms: now_ms,
            hidden,
            committable,
        })
    }

    /// Creates the file and begins it with what was persisted of another, which stays as it is: whoever wrote it may still be at it.
    pub fn resume(
        committable: FileCommittable,
        compression: Compression,
        now_ms: i64,
        from: &Persisted,
    ) -> Result<Self> {
        let mut part = Self::create(committable, compression, now_ms)?;
        let source = File::open(&from.path).map_err(|error| {
            Error::io(format!("the snapshot needs '{}', which cannot be read", from.path.display()), error)
        })?;
        let copied = match &mut part.output {
            Output::Plain(file) => io::copy(&mut source.take(from.length), file),
            Output::Gzip(encoder) => io::copy(&mut source.take(from.length), encoder.get_mut()),
            Output::Zstd(encoder) => io::copy(&mut source.take(from.length), encoder.get_mut()),
            Output::Lost => Err(lost()),
        };
        let copied = copied.map_err(|error| failed(&part.hidden.path, error))?;
        if copied < from.length {
            return Err(Error::new(
                flott_schema::ErrorKind::Io,
                format!(
                    "'{}' has {copied} bytes, and had {} when the snapshot was taken; what was written is lost",
                    from.path.display(),
                    from.length
                ),
            ));
        }
        part.is_empty = from.is_empty;
        Ok(part)
    }

    /// Writes all there is, so that a later writer can go on behind it once it is on the disk. From now on the file is not deleted.
    pub fn persist(&mut self, unsynced: &Unsynced) -> Result<Persisted> {
        self.write_buffer()?;
        let output = std::mem::replace(&mut self.output, Output::Lost);
        let again = output.finish().and_then(|counted| {
            let (length, file) = (counted.bytes, counted.file.try_clone()?);
            // What is compressed goes on as another member.
            Ok((Output::new(counted, self.compression)?, length, file))
        });
        let (output, length, file) = again.map_err(|error| failed(&self.committable.in_progress, error))?;
        self.output = output;
        unsynced.add(file, self.committable.in_progress.clone())?;
        self.hidden.kept = true;
        Ok(Persisted { path: self.hidden.path.clone(), length, is_empty: self.is_empty })
    }

    /// Bytes in the file; what is still in a compressor or a buffer counts as it is.
    pub fn byte_count(&self) -> u64 {
        self.output.byte_count() + self.buffer.len() as u64
    }

    /// Appends records; there must be one at least.
    pub fn write<T, E: Encoder<T>>(&mut self, records: &[T], encoder: &mut E, now_ms: i64) -> Result<()> {
        encoder.encode(records, self.is_empty, &mut self.buffer)?;
        self.is_empty = false;
        self.written_ms = now_ms;
        if self.buffer.len() >= WRITE_BYTES { self.write_buffer() } else { Ok(()) }
    }

    fn write_buffer(&mut self) -> Result<()> {
        let written = self.output.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|error| failed(&self.committable.in_progress, error))
    }

    /// Completes the file, which must be on the disk before it is committed.
    pub fn finish(mut self, unsynced: &Unsynced) -> Result<FinishedFile> {
        self.write_buffer()?;
        let PartFile { output, hidden, committable, .. } = self;
        let counted = output.finish().map_err(|error| failed(&committable.in_progress, error))?;
        unsynced.add(counted.file, committable.in_progress.clone())?;
        Ok(FinishedFile { hidden, committable })
    }
}
