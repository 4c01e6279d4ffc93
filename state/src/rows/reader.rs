//! Reads a file of rows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flott_schema::key_group::KeyGroupRange;
use flott_schema::{Context, Error, Result};

use super::format::{
    BLOCK_HEAD_BYTES, END_MAGIC, ENTRY_BYTES, FOOTER_BYTES, Fields, HEADER_BYTES, LZ4, MAGIC, PLAIN, VERSION,
    damaged, rows_of,
};

/// A file of rows, of which the head and the index have been read.
#[derive(Debug)]
pub(crate) struct RowsFile {
    path: PathBuf,
    file: File,
    blocks: Vec<Block>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    offset: u64,
    end: u64,
    /// Key group and table of the first row.
    first: (u16, u16),
}

impl RowsFile {
    /// Opens a file, and checks head, end and index.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::read(path).at(|| path.display().to_string())
    }

    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let too_short = || damaged(format!("{size} bytes are too few for one"));
        let footer_at = size.checked_sub(FOOTER_BYTES as u64).ok_or_else(too_short)?;
        let mut header = [0; HEADER_BYTES];
        let mut footer = [0; FOOTER_BYTES];
        if footer_at < HEADER_BYTES as u64 {
            return Err(too_short());
        }
        file.read_exact_at(&mut header, 0)?;
        file.read_exact_at(&mut footer, footer_at)?;
        if header[..8] != *MAGIC {
            return Err(damaged("it does not begin like one"));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(Error::bad_input(format!(
                "the file of rows has version {version}, and this Flott reads version {VERSION}; use a newer one"
            )));
        }
        if footer[FOOTER_BYTES - 8..] != *END_MAGIC {
            return Err(damaged("it does not end like one; was it cut?"));
        }
        let (body, checksum) = footer[..FOOTER_BYTES - 8].split_at(FOOTER_BYTES - 12);
        if crc32c::crc32c(body).to_le_bytes() != *checksum {
            return Err(damaged("the checksum of its end is wrong"));
        }
        let mut fields = Fields(body);
        let cut = || damaged("its end is too short");
        let index_at = fields.u64().ok_or_else(cut)?;
        let count = fields.u32().ok_or_else(cut)?;
        let index_checksum = fields.u32().ok_or_else(cut)?;
        let index_bytes = u64::from(count) * ENTRY_BYTES as u64;
        if index_at.checked_add(index_bytes) != Some(footer_at) {
            return Err(damaged("its index is not where it should be"));
        }
        let mut index = vec![0; index_bytes as usize];
        file.read_exact_at(&mut index, index_at)?;
        if crc32c::crc32c(&index) != index_checksum {
            return Err(damaged("the checksum of its index is wrong"));
        }
        let mut blocks = Vec::with_capacity(count as usize);
        let mut fields = Fields(&index);
        while let (Some(offset), Some(group), Some(table)) = (fields.u64(), fields.u16(), fields.u16()) {
            blocks.push(Block { offset, end: index_at, first: (group, table) });
        }
        for next in (1..blocks.len()).rev() {
            blocks[next - 1].end = blocks[next].offset;
        }
        let least = BLOCK_HEAD_BYTES as u64;
        if blocks.iter().any(|block| block.end > index_at || block.end.saturating_sub(block.offset) < least) {
            return Err(damaged("its index names places outside of it"));
        }
        Ok(RowsFile { path: path.into(), file, blocks })
    }

    /// Gives the rows (key group, table, key, value) of these key groups, and of one table if one is named,
    /// in their order.
    pub(crate) fn each(
        &self,
        key_groups: KeyGroupRange,
        table: Option<u16>,
        row: &mut dyn FnMut(u16, u16, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut stored = Vec::new();
        let mut raw = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            // Rows up to and including those at the place where the next block begins may be in this one.
            let last = self.blocks.get(index + 1).map_or((u16::MAX, u16::MAX), |next| next.first);
            if !may_hold(block.first, last, key_groups, table) {
                continue;
            }
            self.read_block(*block, &mut stored, &mut raw)
                .and_then(|rows| {
                    let wanted = |group: u16, of: u16| {
                        key_groups.contains(group.into()) && table.is_none_or(|table| table == of)
                    };
                    let found = rows_of(&raw, wanted, &mut *row)?;
                    if found == rows {
                        Ok(())
                    } else {
                        Err(damaged("a block holds another number of rows than it says"))
                    }
                })
                .at(|| format!("{} at byte {}", self.path.display(), block.offset))?;
        }
        Ok(())
    }

    /// Reads a block's payload into `raw`; gives the number of its rows.
    fn read_block(&self, block: Block, stored: &mut Vec<u8>, raw: &mut Vec<u8>) -> Result<u32> {
        stored.resize((block.end - block.offset) as usize, 0);
        self.file.read_exact_at(stored, block.offset)?;
        let (head, payload) = stored.split_at(BLOCK_HEAD_BYTES);
        let mut fields = Fields(head);
        let cut = || damaged("a block is too short");
        let payload_bytes = fields.u32().ok_or_else(cut)?;
        let raw_bytes = fields.u32().ok_or_else(cut)?;
        let rows = fields.u32().ok_or_else(cut)?;
        let compression = fields.take(1).ok_or_else(cut)?[0];
        let checksum = fields.u32().ok_or_else(cut)?;
        if payload_bytes as usize != payload.len() {
            return Err(damaged("a block has another length than it says"));
        }
        if crc32c::crc32c_append(crc32c::crc32c(&head[..13]), payload) != checksum {
            return Err(damaged("the checksum of a block is wrong"));
        }
        raw.clear();
        match compression {
            PLAIN => raw.extend_from_slice(payload),
            LZ4 => {
                // LZ4 makes at most 255 bytes of one.
                if raw_bytes as usize > payload.len().saturating_mul(256) {
                    return Err(damaged("a block says that it holds more than it can"));
                }
                *raw = lz4_flex::block::decompress(payload, raw_bytes as usize)
                    .map_err(|error| damaged(format!("a block cannot be decompressed ({error})")))?;
            }
            other => {
                return Err(Error::bad_input(format!(
                    "a block is compressed in way {other}, which this Flott does not know; use a newer one"
                )));
            }
        }
        if raw.len() != raw_bytes as usize {
            return Err(damaged("a block has another uncompressed length than it says"));
        }
        Ok(rows)
    }
}

/// Whether rows from `first` to `last` (key group, table), both included, can be of these key groups and this
/// table.
fn may_hold(first: (u16, u16), last: (u16, u16), key_groups: KeyGroupRange, table: Option<u16>) -> bool {
    let from = u32::from(first.0).max(key_groups.start);
    let to = u32::from(last.0).min(key_groups.end.saturating_sub(1));
    if key_groups.start >= key_groups.end || from > to {
        return false;
    }
    let Some(table) = table else { return true };
    // Whole key groups lie between, or the place in one of the groups at the ends is in reach.
    (from..=to).any(|group| {
        let place = (group as u16, table);
        (first..=last).contains(&place)
    })
}
