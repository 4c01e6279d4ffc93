//! Compressed files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, of one member or more.
    Gzip,
    /// Zstandard, of one frame or more.
    Zstd,
}

impl Compression {
    /// By the end of the file's name: `.gz`, `.gzip`, `.zst`, `.zstd`.
    pub fn of_path(path: &Path) -> Self {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("gz" | "gzip") => Compression::Gzip,
            Some("zst" | "zstd") => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The usual end of a file's name, with the dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }
}

/// A file's content, decompressed.
pub enum Input {
    /// As it is.
    Plain(File),
    /// gzip.
    Gzip(Box<MultiGzDecoder<File>>),
    /// Zstandard.
    Zstd(Box<zstd::stream::read::Decoder<'static, io::BufReader<File>>>),
}

impl Input {
    /// The content of `file`, from its beginning.
    pub fn new(file: File, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Input::Plain(file),
            Compression::Gzip => Input::Gzip(Box::new(MultiGzDecoder::new(file))),
            Compression::Zstd => Input::Zstd(Box::new(zstd::stream::read::Decoder::new(file)?)),
        })
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Input::Plain(file) => file.read(buffer),
            Input::Gzip(decoder) => decoder.read(buffer),
            Input::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_follows_from_the_name() {
        for (name, expected) in [
            ("a.gz", Compression::Gzip),
            ("a.csv.GZ", Compression::Gzip),
            ("a.zst", Compression::Zstd),
            ("a.txt", Compression::None),
            ("gz", Compression::None),
        ] {
            assert_eq!(Compression::of_path(Path::new(name)), expected, "{name}");
        }
    }
}
