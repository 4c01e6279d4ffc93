//! What an executor writes to its standard output and error: into log files, and the last lines into memory
//! for failure messages.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::supervisor::rotate::RotatingFile;

/// Bytes of the end that are kept in memory.
const TAIL_BYTES_MAX: usize = 4 << 10;
/// Lines of it that a failure message shows.
const TAIL_LINES: usize = 10;
const STACK_BYTES: usize = 128 << 10;

/// The end of a stream.
#[derive(Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let over = (kept.len() + bytes.len()).saturating_sub(TAIL_BYTES_MAX);
        kept.drain(..over);
        kept.extend(bytes);
    }

    /// The last lines.
    pub fn lines(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// Copies a stream into a file until it ends, on a thread of its own, so that an executor that writes much
/// holds up itself alone. The receiver resolves at the end.
pub fn copy(
    mut stream: impl Read + Send + 'static,
    mut file: RotatingFile,
    tail: Tail,
) -> std::io::Result<oneshot::Receiver<()>> {
    let (ended, at_end) = oneshot::channel();
    let thread = std::thread::Builder::new().name("flott-output".into()).stack_size(STACK_BYTES);
    thread.spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        let mut failed = false;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    tail.push(&buffer[..read]);
                    // A full disk must not stop the job; what is written later appears if there is room
                    // again.
                    let written = file.write_all(&buffer[..read]);
                    if let (Err(error), false) = (&written, failed) {
                        tracing::warn!("{}: {error}", file.path().display());
                    }
                    failed = written.is_err();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = ended.send(());
    })?;
    Ok(at_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::rotate::Rotation;

    #[test]
    fn all_goes_to_the_file_and_the_last_lines_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("executor.log");
        let text: String = (0..5000).map(|line| format!("line {line}\n")).collect();
        let tail = Tail::default();
        let file = RotatingFile::open(&path, Rotation::default()).unwrap();
        let ended = copy(std::io::Cursor::new(text.clone()), file, tail.clone()).unwrap();
        ended.blocking_recv().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(
            tail.lines(),
            (4990..5000).map(|line| format!("line {line}")).collect::<Vec<_>>().join("\n")
        );
    }
}
