//! Programs on this worker's disk: a file a program, named by its SHA-256, fetched once and checked,
//! executable.
//!
//! A file is complete when it has its name: it is written under another one and renamed. Programs that nobody
//! uses go when the cache is over its size, those unused for longest first; files of earlier processes count
//! from the time they were written.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{File, Permissions};
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use flott_schema::job::ProgramDigest;
use flott_schema::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// A part of a program and the size of the whole.
pub type ProgramPart = Pin<Box<dyn Future<Output = Result<(Vec<u8>, u64)>>>>;

/// Where programs come from: the leading coordinator.
pub trait ProgramSource {
    /// At most `length` bytes from `offset`. Calls are made one after the other. An error of the kind `Io`
    /// says that the coordinator could not be asked; any other is its answer.
    fn read(&self, digest: ProgramDigest, offset: u64, length: u32) -> ProgramPart;
}

/// Bytes fetched by one call.
const PART_BYTES: u32 = 1 << 20;
/// Pause after the first read that reached no coordinator, and the longest one after further ones.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Largest program.
const PROGRAM_BYTES_MAX: u64 = 4 << 30;

/// The cache.
pub struct ProgramCache {
    folder: PathBuf,
    bytes_max: u64,
    patience: Duration,
    /// One fetch at a time; a second wish for the same program finds it there.
    fetching: Mutex<()>,
    used: RefCell<HashMap<ProgramDigest, Use>>,
    /// Programs whose files this process has read or written in full.
    checked: RefCell<HashSet<ProgramDigest>>,
}

/// A program that is used, and so stays in the cache.
pub struct HeldProgram {
    cache: Rc<ProgramCache>,
    digest: ProgramDigest,
    path: PathBuf,
}

impl HeldProgram {
    /// The executable file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for HeldProgram {
    fn drop(&mut self) {
        self.cache.release(self.digest);
    }
}

struct Use {
    holders: u32,
    last: SystemTime,
}

impl ProgramCache {
    /// A cache in `folder`, which is made where it is missing. Programs that nobody uses take `bytes_max` at
    /// most. A fetch goes on where it was when no coordinator was to be asked for less than `patience`: the
    /// next one gives the rest.
    pub fn open(folder: impl Into<PathBuf>, bytes_max: u64, patience: Duration) -> Result<Rc<Self>> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(|error| Error::io(folder.display(), error))?;
        let cache = ProgramCache {
            folder,
            bytes_max,
            patience,
            fetching: Mutex::new(()),
            used: RefCell::default(),
            checked: RefCell::default(),
        };
        cache.remove_fragments();
        Ok(Rc::new(cache))
    }

    /// A program, which stays there as long as what is given; fetched where it is missing.
    pub async fn acquire(
        self: &Rc<Self>,
        digest: ProgramDigest,
        source: &dyn ProgramSource,
    ) -> Result<HeldProgram> {
        let path = self.folder.join(digest.to_string());
        let now = SystemTime::now();
        self.used.borrow_mut().entry(digest).or_insert(Use { holders: 0, last: now }).holders += 1;
        let held = HeldProgram { cache: self.clone(), digest, path };
        let _one_at_a_time = self.fetching.lock().await;
        if !self.is_there(&held).await {
            let fetched = self.fetch(digest, source, &held.path).await;
            fetched.map_err(|error| error.at(format!("program {digest}")))?;
        }
        Ok(held)
    }

    /// Whether the file is there. One that another process has written is read once: a disk may have lost a
    /// part of it.
    async fn is_there(&self, held: &HeldProgram) -> bool {
        if !held.path.is_file() {
            return false;
        }
        if self.checked.borrow().contains(&held.digest) {
            return true;
        }
        let path = held.path.clone();
        let found = tokio::task::spawn_blocking(move || digest_of_file(&path)).await;
        let is_whole = matches!(found, Ok(Ok(found)) if found == held.digest);
        if is_whole {
            self.checked.borrow_mut().insert(held.digest);
        }
        is_whole
    }

    fn release(&self, digest: ProgramDigest) {
        if let Some(held) = self.used.borrow_mut().get_mut(&digest) {
            held.holders = held.holders.saturating_sub(1);
            held.last = SystemTime::now();
        }
        self.evict();
    }

    async fn fetch(&self, digest: ProgramDigest, source: &dyn ProgramSource, path: &Path) -> Result<()> {
        let fragment = tempfile::Builder::new().prefix("fetching-").tempfile_in(&self.folder);
        let mut fragment = fragment.map_err(|error| Error::io(self.folder.display(), error))?;
        let mut hash = Sha256::new();
        let mut offset = 0;
        loop {
            let (part, size) = self.read_part(digest, source, offset).await?;
            if size > PROGRAM_BYTES_MAX {
                let message = format!("it has {size} bytes, {PROGRAM_BYTES_MAX} at most are taken");
                return Err(Error::new(ErrorKind::Resources, message));
            }
            hash.update(&part);
            let written = fragment.as_file_mut().write_all(&part);
            written.map_err(|error| Error::io(self.folder.display(), error))?;
            offset += part.len() as u64;
            if offset >= size {
                break;
            }
            if part.is_empty() {
                let message = format!("the coordinator gave {offset} of {size} bytes");
                return Err(Error::new(ErrorKind::Io, message));
            }
        }
        let found = ProgramDigest(hash.finalize().into());
        if found != digest {
            let message = format!("what the coordinator gave has another SHA-256: {found}");
            return Err(Error::new(ErrorKind::Io, message));
        }
        let path = path.to_path_buf();
        let finished = tokio::task::spawn_blocking(move || finish(fragment, &path)).await;
        let finished = finished.map_err(|error| Error::internal(format!("writing a program: {error}")))?;
        finished.map_err(|error| Error::io(self.folder.display(), error))?;
        self.checked.borrow_mut().insert(digest);
        Ok(())
    }

    async fn read_part(
        &self,
        digest: ProgramDigest,
        source: &dyn ProgramSource,
        offset: u64,
    ) -> Result<(Vec<u8>, u64)> {
        let deadline = Instant::now() + self.patience;
        let mut pause = RETRY;
        loop {
            match source.read(digest, offset, PART_BYTES).await {
                Err(error) if error.kind() == ErrorKind::Io && Instant::now() + pause < deadline => {
                    tracing::debug!(%digest, offset, "reading a program is tried again: {error}");
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                answer => return answer,
            }
        }
    }

    /// Removes unused programs, longest unused first, until the unused ones are within the bound.
    fn evict(&self) {
        let mut unused = Vec::new();
        let mut bytes = 0;
        let used = self.used.borrow();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.parse::<ProgramDigest>().ok());
            let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) else { continue };
            let last = match used.get(&digest) {
                Some(held) if held.holders > 0 => continue,
                Some(held) => held.last,
                None => metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            };
            bytes += metadata.len();
            unused.push((last, entry.path(), metadata.len()));
        }
        unused.sort();
        for (_, path, size) in unused {
            if bytes <= self.bytes_max {
                break;
            }
            // A file that stays is tried again next time.
            let _ = std::fs::remove_file(path);
            bytes -= size;
        }
    }

    /// Removes what a process that was killed has left half-fetched; another worker of this folder may be
    /// fetching, so only old ones.
    fn remove_fragments(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let is_fragment = entry.file_name().to_str().is_some_and(|name| name.starts_with("fetching-"));
            let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
            let is_old = age.is_ok_and(|age| age.is_ok_and(|age| age.as_secs() > 3600));
            if is_fragment && is_old {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn digest_of_file(path: &Path) -> std::io::Result<ProgramDigest> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(ProgramDigest(hash.finalize().into()))
}

/// Makes a complete file executable, forces it to disk and gives it its name.
fn finish(fragment: tempfile::NamedTempFile, path: &Path) -> std::io::Result<()> {
    fragment.as_file().set_permissions(Permissions::from_mode(0o755))?;
    fragment.as_file().sync_all()?;
    // The file must not be open for writing when it is executed, so it is closed here.
    let written = fragment.into_temp_path();
    written.persist(path).map_err(|error| error.error)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Programs of a coordinator, given in parts of `part` bytes.
    struct Programs {
        bytes: Rc<Vec<u8>>,
        part: usize,
        calls: Rc<Cell<u32>>,
        size: u64,
        /// Calls that reach no coordinator, from the third on.
        lost: Cell<u32>,
    }

    impl Programs {
        fn of(bytes: &[u8], part: usize) -> Self {
            Programs {
                bytes: Rc::new(bytes.to_vec()),
                part,
                calls: Rc::default(),
                size: bytes.len() as u64,
                lost: Cell::new(0),
            }
        }
    }

    impl ProgramSource for Programs {
        fn read(&self, _digest: ProgramDigest, offset: u64, length: u32) -> ProgramPart {
            self.calls.set(self.calls.get() + 1);
            if self.calls.get() > 2 && self.lost.get() > 0 {
                self.lost.set(self.lost.get() - 1);
                return Box::pin(async { Err(Error::new(ErrorKind::Io, "the connection broke")) });
            }
            let rest = &self.bytes[(offset as usize).min(self.bytes.len())..];
            let part = rest[..rest.len().min(self.part).min(length as usize)].to_vec();
            let size = self.size;
            Box::pin(async move { Ok((part, size)) })
        }
    }

    const PATIENCE: Duration = Duration::from_secs(120);

    fn digest_of(bytes: &[u8]) -> ProgramDigest {
        ProgramDigest(Sha256::digest(bytes).into())
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_program_is_fetched_in_parts_once_and_is_executable() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ProgramCache::open(folder.path().join("cache"), 1 << 20, PATIENCE).unwrap();
        let script = b"#!/bin/sh\necho hello\n";
        let programs = Programs::of(script, 5);
        let held = run(cache.acquire(digest_of(script), &programs)).unwrap();
        let output = std::process::Command::new(held.path()).output().unwrap();
        assert_eq!(output.stdout, b"hello\n");
        let calls = programs.calls.get();
        let again = run(cache.acquire(digest_of(script), &programs)).unwrap();
        assert_eq!(again.path(), held.path());
        assert_eq!(programs.calls.get(), calls);
        assert_eq!(std::fs::read_dir(folder.path().join("cache")).unwrap().count(), 1);
    }

    #[test]
    fn a_fetch_goes_on_where_it_was_when_the_coordinator_changes_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ProgramCache::open(folder.path(), 1 << 20, PATIENCE).unwrap();
        let programs = Programs { lost: Cell::new(2), ..Programs::of(b"0123456789", 3) };
        let held = run(cache.acquire(digest_of(b"0123456789"), &programs)).unwrap();
        assert_eq!(std::fs::read(held.path()).unwrap(), b"0123456789");
        assert_eq!(programs.calls.get(), 4 + 2);
        let cache = ProgramCache::open(folder.path(), 1 << 20, Duration::ZERO).unwrap();
        let programs = Programs { lost: Cell::new(u32::MAX), ..Programs::of(b"another one", 3) };
        let error = run(cache.acquire(digest_of(b"another one"), &programs)).err().unwrap();
        assert!(error.to_string().contains("the connection broke"), "{error}");
        assert_eq!(programs.calls.get(), 3);
    }

    #[test]
    fn a_file_of_an_earlier_process_is_fetched_again_if_it_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(digest_of(b"whole").to_string());
        std::fs::write(&path, b"who").unwrap();
        let cache = ProgramCache::open(folder.path(), 1 << 20, PATIENCE).unwrap();
        let held = run(cache.acquire(digest_of(b"whole"), &Programs::of(b"whole", 100))).unwrap();
        assert_eq!(std::fs::read(held.path()).unwrap(), b"whole");
        let later = ProgramCache::open(folder.path(), 1 << 20, PATIENCE).unwrap();
        let programs = Programs::of(b"whole", 100);
        run(later.acquire(digest_of(b"whole"), &programs)).unwrap();
        assert_eq!(programs.calls.get(), 0);
    }

    #[test]
    fn a_program_with_another_hash_or_an_early_end_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ProgramCache::open(folder.path(), 1 << 20, PATIENCE).unwrap();
        let programs = Programs::of(b"other", 100);
        let error = run(cache.acquire(digest_of(b"wanted"), &programs)).err().unwrap();
        assert!(error.to_string().contains("another SHA-256"), "{error}");
        let programs = Programs { size: 10, ..Programs::of(b"wanted", 100) };
        let error = run(cache.acquire(digest_of(b"wanted"), &programs)).err().unwrap();
        assert!(error.to_string().contains("6 of 10 bytes"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn unused_programs_go_when_the_cache_is_over_its_size_and_used_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ProgramCache::open(folder.path(), 10, PATIENCE).unwrap();
        let texts: [&[u8]; 3] = [b"first 7", b"second 8", b"third 7"];
        let [first, second, _third] =
            texts.map(|text| run(cache.acquire(digest_of(text), &Programs::of(text, 100))).unwrap());
        let there = || texts.map(|text| folder.path().join(digest_of(text).to_string()).is_file());
        drop(first);
        assert_eq!(there(), [true, true, true]);
        drop(second);
        assert_eq!(there(), [false, true, true]);
    }
}
