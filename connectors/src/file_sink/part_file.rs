//! A file that is being written, under a name that hides it.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;

use flott_schema::Result;

use super::commit::{FileCommittable, create_folder, failed};
use super::encoder::Encoder;
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

/// A file complete on disk, still hidden.
pub struct FinishedFile {
    /// Deletes it unless it is kept.
    pub hidden: Hidden,
    /// For its commit.
    pub committable: FileCommittable,
}

/// A file that is being written. Dropping it deletes it.
pub struct PartFile {
    output: Output,
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
    fn new(file: File, compression: Compression) -> io::Result<Self> {
        let file = Counted { file, bytes: 0 };
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
            Output::Plain(file) => file.write_all(bytes),
            Output::Gzip(encoder) => encoder.write_all(bytes),
            Output::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn byte_count(&self) -> u64 {
        match self {
            Output::Plain(file) => file.bytes,
            Output::Gzip(encoder) => encoder.get_ref().bytes,
            Output::Zstd(encoder) => encoder.get_ref().bytes,
        }
    }

    fn finish(self) -> io::Result<File> {
        Ok(match self {
            Output::Plain(file) => file,
            Output::Gzip(encoder) => encoder.finish()?,
            Output::Zstd(encoder) => encoder.finish()?,
        }
        .file)
    }
}

impl PartFile {
    /// Creates the file that `committable` hides, and its folder.
    pub fn create(committable: FileCommittable, compression: Compression, now_ms: i64) -> Result<Self> {
        let path = &committable.in_progress;
        create_folder(path.parent().unwrap_or(Path::new("")))?;
        let file = File::create_new(path).map_err(|error| failed(path, error))?;
        let hidden = Hidden { path: path.clone(), kept: false };
        let output = Output::new(file, compression).map_err(|error| failed(path, error))?;
        Ok(PartFile {
            output,
            buffer: Vec::with_capacity(WRITE_BYTES),
            is_empty: true,
            opened_ms: now_ms,
            written_ms: now_ms,
            hidden,
            committable,
        })
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

    /// Completes the file and has it written to disk.
    pub fn finish(mut self) -> Result<FinishedFile> {
        self.write_buffer()?;
        let PartFile { output, hidden, committable, .. } = self;
        let synced = output.finish().and_then(|file| file.sync_all());
        synced.map_err(|error| failed(&committable.in_progress, error))?;
        Ok(FinishedFile { hidden, committable })
    }
}
