//! Counts the words of a file or folder.
//!
//! A word is a run of letters and digits, in lower case. What is written is `word<TAB>count`, largest count first, ties by word.
//! Streaming and batch execution give the same; a count is final when all input has been read.
//!
//! `cargo run --release --example word_count -- --input docs --top 20`

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use flott::connectors::bad_record::Undecodable;
use flott::connectors::files::{Decoded, Files, Line, LineDecoder, LineFormat};
use flott::prelude::*;

/// Counts the words of a file or folder.
#[derive(Parser)]
struct Arguments {
    /// A file, or a folder of files; `.gz` and `.zst` are decompressed
    #[arg(long, value_name = "PATH")]
    input: PathBuf,

    /// Where to write the counts [default: the standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Writes the N most frequent words only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    top: Option<u64>,

    /// How to execute the job [default: as configured]
    #[arg(long)]
    mode: Option<Mode>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Streaming,
    Batch,
}

fn main() -> flott::Result<()> {
    let arguments = Arguments::parse();
    let env = flott::env()?;
    match arguments.mode {
        Some(Mode::Streaming) => env.set_runtime_mode(RuntimeMode::Streaming),
        Some(Mode::Batch) => env.set_runtime_mode(RuntimeMode::Batch),
        None => &env,
    };
    let counts = env
        .add_source(Files::with_format(arguments.input, Text), "Text Files")
        .flat_map(|line, out| words(&line).for_each(|word| out.collect(word)))
        .name("Words")
        .key_by_ref(|word: &String| word)
        .count();
    let ranking = counts
        .sort_partition_by(|(word, count), (other, others)| others.cmp(count).then_with(|| word.cmp(other)))
        .parallelism(1);
    let ranking = match arguments.top {
        Some(top) => ranking.first_n(usize::try_from(top).unwrap_or(usize::MAX)),
        None => ranking,
    };
    let lines = ranking.map(|(word, count)| format!("{word}\t{count}")).parallelism(1);
    match arguments.output {
        Some(file) => lines.write_text_file(file),
        None => lines.print().parallelism(1),
    };
    env.execute("word count")?;
    Ok(())
}

/// The runs of letters and digits of a line, in lower case.
fn words(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// Lines of any file: bytes that are not UTF-8 are no letters, so they separate words.
#[derive(Clone)]
struct Text;

impl LineFormat for Text {
    type Record = String;
    type Decoder = Text;

    fn decoder(&self) -> Text {
        Text
    }
}

impl LineDecoder for Text {
    type Record = String;

    fn decode(&mut self, line: Line<'_>) -> Result<Decoded<String>, Undecodable> {
        Ok(Decoded::Record(String::from_utf8_lossy(line.bytes).into_owned()))
    }
}
