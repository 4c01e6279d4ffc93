//! The store of one coordinator: a folder of files named by their SHA-256.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flott_schema::answer::FilePart;
use flott_schema::error::Result;
use flott_schema::job::ProgramDigest;
use flott_schema::stable_hash::stable_hash;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex as AsyncMutex;

use super::error::ProgramError;
use super::replicate::ProgramPeers;
use super::upload::Upload;
use crate::rpc::ReadProgram;

/// The end of the names of files that are not complete.
const PART: &str = ".part";
/// Programs that other members may be sending at once; the one of which nothing came for longest gives way.
const INCOMING_MAX: usize = 8;
/// Bytes given out at once at most.
pub(super) const READ_BYTES_MAX: u32 = 4 << 20;

/// A program in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredProgram {
    /// SHA-256 of the file.
    pub digest: ProgramDigest,
    /// Its length.
    pub size_bytes: u64,
}

/// The store. Clones share it.
#[derive(Clone, Debug)]
pub struct Programs {
    inner: Arc<Inner>,
}

impl ReadProgram for Programs {
    fn read(&self, digest: ProgramDigest, offset: u64, length_max: u32) -> Result<FilePart> {
        let read = Programs::read(self, digest, offset, length_max);
        let (bytes, size) = read.map_err(ProgramError::into_error)?;
        Ok(FilePart { bytes, size })
    }

    fn is_here(&self, digest: ProgramDigest) -> bool {
        self.contains(digest)
    }

    fn fetch(&self, digest: ProgramDigest) -> BoxFuture<'static, ()> {
        let programs = self.clone();
        Box::pin(async move {
            if let Err(error) = Programs::fetch(&programs, digest).await {
                tracing::warn!(%digest, %error, "a program that is wanted is not here");
            }
        })
    }
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    max_bytes: u64,
    peers: ProgramPeers,
    uploads: AtomicU64,
    /// What other members are sending.
    incoming: Mutex<Incoming>,
    /// One at a time sends a program to the others, or gets it from them.
    turns: Mutex<BTreeMap<ProgramDigest, Weak<AsyncMutex<()>>>>,
}

/// Uploads by the number of the sender and what is sent, each with the number of its latest part.
#[derive(Debug, Default)]
struct Incoming {
    uploads: BTreeMap<(u64, ProgramDigest), (u64, Upload)>,
    parts: u64,
}

impl Programs {
    /// Opens the store in `directory`, or makes one. What was not complete when the process ended is removed. A program
    /// may have `max_bytes` at most.
    pub fn open(
        directory: impl Into<PathBuf>,
        max_bytes: u64,
        peers: ProgramPeers,
    ) -> Result<Self, ProgramError> {
        let directory = directory.into();
        let disk = |reason| ProgramError::Disk { path: directory.clone(), reason };
        fs::create_dir_all(&directory).map_err(disk)?;
        for entry in fs::read_dir(&directory).map_err(disk)? {
            let entry = entry.map_err(disk)?;
            if entry.file_name().to_string_lossy().ends_with(PART) {
                fs::remove_file(entry.path()).map_err(disk)?;
            }
        }
        let inner = Inner {
            directory,
            max_bytes,
            peers,
            uploads: AtomicU64::new(0),
            incoming: Mutex::default(),
            turns: Mutex::default(),
        };
        Ok(Programs { inner: Arc::new(inner) })
    }

    pub(super) fn peers(&self) -> &ProgramPeers {
        &self.inner.peers
    }

    pub(super) fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The file of a program, whether it is there or not.
    pub fn path(&self, digest: ProgramDigest) -> PathBuf {
        self.inner.directory.join(digest.to_string())
    }

    /// Begins to store a program.
    pub fn upload(&self) -> Result<Upload, ProgramError> {
        let number = self.inner.uploads.fetch_add(1, Ordering::Relaxed);
        Upload::begin(self.inner.directory.join(format!("{number}{PART}")), self.inner.max_bytes)
    }

    /// Whether the program is stored here.
    pub fn contains(&self, digest: ProgramDigest) -> bool {
        self.path(digest).is_file()
    }

    /// What is stored here, by digest.
    pub fn list(&self) -> Result<Vec<StoredProgram>, ProgramError> {
        let disk = |reason| ProgramError::Disk { path: self.inner.directory.clone(), reason };
        let mut programs = Vec::new();
        for entry in fs::read_dir(&self.inner.directory).map_err(disk)? {
            let entry = entry.map_err(disk)?;
            let name = entry.file_name();
            let Ok(digest) = name.to_string_lossy().parse::<ProgramDigest>() else { continue };
            match entry.metadata() {
                Ok(metadata) => programs.push(StoredProgram { digest, size_bytes: metadata.len() }),
                // Removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(disk(error)),
            }
        }
        programs.sort_by_key(|program| program.digest);
        Ok(programs)
    }

    /// At most `length` bytes of a program from `offset` on (less than asked for at the end, and never more than a few
    /// megabytes), and its size.
    pub fn read(
        &self,
        digest: ProgramDigest,
        offset: u64,
        length: u32,
    ) -> Result<(Vec<u8>, u64), ProgramError> {
        let path = self.path(digest);
        let disk = |reason: io::Error| match reason.kind() {
            ErrorKind::NotFound => ProgramError::Unknown(digest),
            _ => ProgramError::Disk { path: path.clone(), reason },
        };
        let file = File::open(&path).map_err(disk)?;
        let size = file.metadata().map_err(disk)?.len();
        let length = u64::from(length.min(READ_BYTES_MAX)).min(size.saturating_sub(offset));
        let mut part = vec![0; length as usize];
        file.read_exact_at(&mut part, offset).map_err(disk)?;
        Ok((part, size))
    }

    /// Removes a program; whether it was there. That no job needs it, the caller has made sure.
    pub fn remove(&self, digest: ProgramDigest) -> Result<bool, ProgramError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(reason) => Err(ProgramError::Disk { path, reason }),
        }
    }

    /// The lock of a program on its way between members: who gets it looks again whether there is something to do.
    pub(super) fn turn(&self, digest: ProgramDigest) -> Arc<AsyncMutex<()>> {
        let mut turns = self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&digest).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(AsyncMutex::new(()));
        turns.insert(digest, Arc::downgrade(&turn));
        turn
    }

    /// A number that no other sending of a program has, of this member or another.
    pub(super) fn new_sender(&self, own_id: u64) -> u64 {
        let number = self.inner.uploads.fetch_add(1, Ordering::Relaxed);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        stable_hash(&(own_id, number, since_epoch.as_nanos() as u64))
    }

    /// Takes a part of a program that sender `from` sends; whether the program is complete now. The part with offset 0
    /// begins it anew.
    pub(crate) fn take_part(
        &self,
        from: u64,
        digest: ProgramDigest,
        offset: u64,
        data: &[u8],
        is_last: bool,
    ) -> Result<bool, ProgramError> {
        if self.contains(digest) {
            return Ok(true);
        }
        let key = (from, digest);
        let taken = self.lock().uploads.remove(&key);
        let mut upload = match taken {
            Some((_, upload)) if offset != 0 => upload,
            _ => self.upload()?,
        };
        let expected = upload.size_bytes();
        if offset != expected {
            return Err(ProgramError::OutOfOrder { digest, offset, expected });
        }
        upload.write(data)?;
        if is_last {
            return upload.finish_as(self, Some(digest)).map(|_| true);
        }
        let mut incoming = self.lock();
        while incoming.uploads.len() >= INCOMING_MAX {
            let latest = |(key, (part, _)): (&(u64, ProgramDigest), &(u64, Upload))| (*part, *key);
            if let Some((_, oldest)) = incoming.uploads.iter().map(latest).min() {
                incoming.uploads.remove(&oldest);
            }
        }
        incoming.parts += 1;
        let part = incoming.parts;
        incoming.uploads.insert(key, (part, upload));
        Ok(false)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Incoming> {
        // The map is whole at every moment, also where a holder of the lock panicked.
        self.inner.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
