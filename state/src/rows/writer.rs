//! Writes a file of rows.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flott_schema::key_group::KeyGroupRange;
use flott_schema::{Error, Result};

use super::format::{BLOCK_BYTES, BLOCK_HEAD_BYTES, END_MAGIC, HEADER_BYTES, LZ4, MAGIC, PLAIN, VERSION};

/// A file of rows being written.
pub(crate) struct RowsWriter {
    path: PathBuf,
    file: BufWriter<File>,
    key_groups: KeyGroupRange,
    compress: bool,
    offset: u64,
    index: Vec<u8>,
    blocks: u32,
    rows: u64,
    block: Vec<u8>,
    block_rows: u32,
    block_first: (u16, u16),
    /// Key group and table of the last section of the block, and where its number of rows stands.
    section: Option<((u16, u16), usize)>,
    compressed: Vec<u8>,
}

impl RowsWriter {
    /// A new file at `path` for rows of these key groups.
    pub(crate) fn create(path: &Path, key_groups: KeyGroupRange, compress: bool) -> Result<Self> {
        let file = File::create(path).map_err(|error| Error::io(path.display(), error))?;
        let mut writer = RowsWriter {
            path: path.into(),
            file: BufWriter::with_capacity(1 << 18, file),
            key_groups,
            compress,
            offset: 0,
            index: Vec::new(),
            blocks: 0,
            rows: 0,
            block: Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4),
            block_rows: 0,
            block_first: (0, 0),
            section: None,
            compressed: Vec::new(),
        };
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        writer.write(&header)?;
        Ok(writer)
    }

    /// Adds a row. They must come in order, each key once.
    pub(crate) fn row(&mut self, key_group: u16, table: u16, key: &[u8], value: &[u8]) -> Result<()> {
        debug_assert!(self.key_groups.contains(key_group.into()));
        let place = (key_group, table);
        // What a payload's length counts must fit into 32 bits.
        if self.block.len() + key.len() + value.len() > u32::MAX as usize / 2 {
            self.end_block()?;
            if key.len() + value.len() > u32::MAX as usize / 2 {
                return Err(Error::user(format!(
                    "a row of keyed state has {} bytes; a snapshot takes less than 2 GiB",
                    key.len() + value.len()
                )));
            }
        }
        if self.block_rows == 0 {
            self.block_first = place;
        }
        let count_at = match self.section {
            Some((last, at)) if last == place => at,
            _ => {
                self.block.extend_from_slice(&key_group.to_le_bytes());
                self.block.extend_from_slice(&table.to_le_bytes());
                let at = self.block.len();
                self.block.extend_from_slice(&[0; 4]);
                self.section = Some((place, at));
                at
            }
        };
        let count = &mut self.block[count_at..count_at + 4];
        let rows = u32::from_le_bytes((&*count).try_into().expect("four bytes")) + 1;
        count.copy_from_slice(&rows.to_le_bytes());
        self.block.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.block_rows += 1;
        self.rows += 1;
        if self.block.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    /// Writes what is left; gives the number of rows.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.end_block()?;
        let index = std::mem::take(&mut self.index);
        let index_offset = self.offset;
        self.write(&index)?;
        let mut footer = Vec::new();
        footer.extend_from_slice(&index_offset.to_le_bytes());
        footer.extend_from_slice(&self.blocks.to_le_bytes());
        footer.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        footer.extend_from_slice(&self.rows.to_le_bytes());
        footer.extend_from_slice(&self.key_groups.start.to_le_bytes());
        footer.extend_from_slice(&self.key_groups.end.to_le_bytes());
        footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        footer.extend_from_slice(END_MAGIC);
        self.write(&footer)?;
        self.file.flush().map_err(|error| Error::io(self.path.display(), error))?;
        Ok(self.rows)
    }

    fn end_block(&mut self) -> Result<()> {
        if self.block_rows == 0 {
            return Ok(());
        }
        self.compressed.clear();
        let mut compression = PLAIN;
        if self.compress {
            self.compressed = lz4_flex::block::compress(&self.block);
            if self.compressed.len() < self.block.len() {
                compression = LZ4;
            }
        }
        let payload = if compression == LZ4 { &self.compressed } else { &self.block };
        let mut head = [0; BLOCK_HEAD_BYTES];
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&(self.block.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&self.block_rows.to_le_bytes());
        head[12] = compression;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..13]), payload);
        head[13..].copy_from_slice(&checksum.to_le_bytes());
        self.index.extend_from_slice(&self.offset.to_le_bytes());
        self.index.extend_from_slice(&self.block_first.0.to_le_bytes());
        self.index.extend_from_slice(&self.block_first.1.to_le_bytes());
        self.blocks += 1;
        let payload_bytes = payload.len();
        self.file
            .write_all(&head)
            .and_then(|()| {
                self.file.write_all(if compression == LZ4 { &self.compressed } else { &self.block })
            })
            .map_err(|error| Error::io(self.path.display(), error))?;
        self.offset += (BLOCK_HEAD_BYTES + payload_bytes) as u64;
        self.block.clear();
        self.block_rows = 0;
        self.section = None;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io(self.path.display(), error))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}
