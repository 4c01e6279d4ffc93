//! Temporary files for what does not fit into an operator's memory.
//!
//! A file is a row of blocks, each the wire form of a batch. Where a block lies and its CRC-32C stay in memory: the
//! file is worth nothing without its operator, and what stays in memory cannot be damaged with it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flott_schema::error::{Context as _, ErrorKind};
use flott_schema::{Error, Result};

use crate::batch::{Batch, Record};
use crate::codec::{decode_rows, encode_rows};
use crate::context::OperatorContext;

/// Numbers the files of this process.
static FILES: AtomicU64 = AtomicU64::new(0);

/// A temporary file, readable by its owner only and deleted when dropped.
pub struct SpillFile {
    file: File,
    path: PathBuf,
    len: u64,
    bytes: Vec<u8>,
}

/// Where a block lies in its file, and what it must contain.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    offset: u64,
    len: usize,
    checksum: u32,
}

impl Block {
    /// Bytes of the block in the file.
    pub fn len_bytes(&self) -> usize {
        self.len
    }
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    let full = matches!(error.kind(), IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded);
    let error = Error::io(format!("{doing} the temporary file {}", path.display()), error);
    if full { error.with_kind(ErrorKind::Resources) } else { error }
}

impl SpillFile {
    /// A new file in the scratch folder of the operator's task.
    pub fn create(ctx: &OperatorContext) -> Result<Self> {
        let scratch = &ctx.task.settings.scratch;
        std::fs::create_dir_all(scratch).map_err(|error| {
            Error::io(format!("creating the folder for temporary files {}", scratch.display()), error)
        })?;
        let name: String =
            ctx.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
        loop {
            let number = FILES.fetch_add(1, Ordering::Relaxed);
            let subtask = ctx.task.subtask;
            let path = scratch.join(format!("{name}-{subtask}-{}-{number}.spill", std::process::id()));
            let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            match opened {
                Ok(file) => return Ok(SpillFile { file, path, len: 0, bytes: Vec::new() }),
                // Left behind by a process of the same number that was killed.
                Err(error) if error.kind() == IoErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("creating", &path, error)),
            }
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the wire form of a batch.
    pub fn append<T: Record>(&mut self, batch: &Batch<T>) -> Result<Block> {
        self.bytes.clear();
        encode_rows(batch, &mut self.bytes)?;
        let block = Block { offset: self.len, len: self.bytes.len(), checksum: crc32c::crc32c(&self.bytes) };
        self.file.write_all(&self.bytes).map_err(|error| failed("writing", &self.path, error))?;
        self.len += self.bytes.len() as u64;
        Ok(block)
    }

    /// Reads a block.
    pub fn read<T: Record>(&self, block: Block) -> Result<Batch<T>> {
        let mut bytes = vec![0; block.len];
        self.file
            .read_exact_at(&mut bytes, block.offset)
            .map_err(|error| failed("reading", &self.path, error))?;
        let checksum = crc32c::crc32c(&bytes);
        if checksum != block.checksum {
            return Err(Error::new(
                ErrorKind::Io,
                format!(
                    "the temporary file {} is corrupt: the {} bytes at offset {} have checksum {checksum:08x} \
                     where {:08x} was written; check the disk, then run the job again",
                    self.path.display(),
                    block.len,
                    block.offset,
                    block.checksum
                ),
            ));
        }
        decode_rows(&bytes).at(|| format!("reading back {}", self.path.display()))
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot delete the temporary file {}: {error}", self.path.display());
        }
    }
}
