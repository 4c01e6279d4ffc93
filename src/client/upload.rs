//! Programs on their way to a cluster.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use flott_schema::job::ProgramDigest;
use flott_schema::{Error, Result};

use super::error::ClientError;
use super::transport::{Body, Client};
use super::views::{Programs, Uploaded};

/// Stands between the parts of an upload; no program holds it at the start of a line.
const BOUNDARY: &str = "----flott-4f6b1d9a2c7e4e0fb1a3";

impl Client {
    /// Whether the cluster has the program of this digest.
    pub fn has_program(&self, digest: ProgramDigest) -> Result<bool, ClientError> {
        let digest = digest.to_string();
        let programs: Programs = self.get("/jars")?;
        Ok(programs.files.iter().any(|file| file.id.starts_with(&digest)))
    }

    /// Uploads a program under a name, and gives its id.
    pub fn upload_program(&self, path: &Path, name: &str) -> Result<String, ClientError> {
        let form = Form { path: path.to_path_buf(), name: plain_name(name) };
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let uploaded: Uploaded = self.post_stream("/jars/upload", &content_type, &form)?;
        // The whole path where the coordinator keeps it, as Flink says it.
        Ok(uploaded.filename.rsplit('/').next().unwrap_or_default().to_string())
    }
}

/// A form of one file.
struct Form {
    path: PathBuf,
    name: String,
}

impl Body for Form {
    fn open(&self) -> Result<(Box<dyn Read + Send>, u64)> {
        let unreadable = |error| Error::io(self.path.display(), error);
        let file = File::open(&self.path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            self.name
        );
        let tail = format!("\r\n--{BOUNDARY}--\r\n");
        let length = size + (head.len() + tail.len()) as u64;
        let body = Cursor::new(head).chain(file.take(size)).chain(Cursor::new(tail));
        Ok((Box::new(body), length))
    }
}

/// A name that needs no quoting in a header and none in a path.
fn plain_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).take(128).collect();
    if name.trim_matches('.').is_empty() { "program".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_as_long_as_it_says_and_holds_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\x7fELF").unwrap();
        let form = Form { path: file.path().into(), name: plain_name("word count\"") };
        let (mut reader, length) = form.open().unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, length);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("filename=\"word_count_\"\r\n"), "{text}");
        assert!(text.contains("\r\n\r\n\x7fELF\r\n--"), "{text}");
    }

    #[test]
    fn names_are_made_plain() {
        assert_eq!(plain_name("../a b"), ".._a_b");
        assert_eq!(plain_name(".."), "program");
        assert_eq!(plain_name(""), "program");
    }
}
