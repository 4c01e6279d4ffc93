//! The text of the word count: words drawn by Zipf's law from a made-up vocabulary, the same bytes on every machine.
//! Written once to the temporary directory and kept there.

use std::collections::HashSet;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process;

use crate::error::BenchError;
use crate::workload::{mix, reduce};

/// Raise when the text changes, so that an old file is not taken for the new one.
const VERSION: u32 = 1;
const VOCABULARY_WORDS: u64 = 100_000;
const WORDS_A_LINE: u64 = 12;
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Where the text of (at least) `bytes` bytes lives.
pub fn path(bytes: u64) -> PathBuf {
    env::temp_dir().join(format!("flott-bench-text-v{VERSION}-{bytes}.txt"))
}

/// Writes the text unless it is there already.
pub fn ensure(bytes: u64) -> Result<(), BenchError> {
    let path = path(bytes);
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension(format!("unfinished-{}", process::id()));
    let file = File::create(&unfinished).map_err(BenchError::file("create", &unfinished))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    write_text(&mut writer, bytes)
        .and_then(|()| writer.flush())
        .map_err(BenchError::file("write", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(BenchError::file("rename", &unfinished))
}

fn write_text(writer: &mut impl Write, bytes: u64) -> std::io::Result<()> {
    let words = vocabulary();
    // Zipf's law with exponent 1: the word of rank r has the weight 1/r.
    let mut cumulative = Vec::with_capacity(words.len());
    let mut weight = 0.0_f64;
    for rank in 0..words.len() {
        weight += 1.0 / (rank + 1) as f64;
        cumulative.push(weight);
    }
    let mut written = 0_u64;
    let mut draw = 0_u64;
    while written < bytes {
        for position in 0..WORDS_A_LINE {
            // The upper 53 bits as a fraction of the whole weight.
            let point = (mix(draw) >> 11) as f64 / (1_u64 << 53) as f64 * weight;
            draw += 1;
            let rank = cumulative.partition_point(|sum| *sum <= point).min(words.len() - 1);
            let word = words[rank].as_bytes();
            writer.write_all(word)?;
            writer.write_all(if position + 1 == WORDS_A_LINE { b"\n" } else { b" " })?;
            written += word.len() as u64 + 1;
        }
    }
    Ok(())
}

/// Distinct words by rank: the frequent ones short, as in a language.
fn vocabulary() -> Vec<String> {
    let mut seen = HashSet::new();
    let mut words = Vec::with_capacity(VOCABULARY_WORDS as usize);
    for rank in 0..VOCABULARY_WORDS {
        let mut length = 2 + (rank + 1).ilog(4) as u64;
        let mut seed = rank << 16;
        loop {
            let word: String =
                (0..length).map(|letter| (b'a' + reduce(mix(seed | letter), 26) as u8) as char).collect();
            if seen.insert(word.clone()) {
                words.push(word);
                break;
            }
            // Taken: other letters, and in time more of them, so this ends.
            seed += 1 << 8;
            length += u64::from(seed & 0x300 == 0);
        }
    }
    words
}

/// Calls `each` with every line (without its end) of part `index` of `peers` of the file: the lines that begin in the part,
/// or exactly at its end. Every line belongs to one part.
pub fn for_each_line(
    path: &Path,
    index: u64,
    peers: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<(), BenchError> {
    let mut file = File::open(path).map_err(BenchError::file("open", path))?;
    let bytes = file.metadata().map_err(BenchError::file("look at", path))?.len();
    let part = bytes / peers;
    let end = if index + 1 == peers { bytes } else { part * (index + 1) };
    let mut position = part * index;
    file.seek(SeekFrom::Start(position)).map_err(BenchError::file("seek in", path))?;
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
    let mut line = Vec::new();
    if index > 0 {
        position += read_line(&mut reader, &mut line, path)?;
    }
    while position <= end {
        let read = read_line(&mut reader, &mut line, path)?;
        if read == 0 {
            break;
        }
        position += read;
        each(line.strip_suffix(b"\n").unwrap_or(&line));
    }
    Ok(())
}

fn read_line(reader: &mut BufReader<impl Read>, line: &mut Vec<u8>, path: &Path) -> Result<u64, BenchError> {
    line.clear();
    reader.read_until(b'\n', line).map(|read| read as u64).map_err(BenchError::file("read", path))
}

/// The words of a line.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

/// What the sink of the word count adds to its checksum for one word (FNV-1a of the word, mixed, times its count).
pub fn word_check(word: &[u8], count: u64) -> u64 {
    let hash = word.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash).wrapping_mul(count)
}
