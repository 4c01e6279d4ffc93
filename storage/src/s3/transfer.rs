//! Objects in parts: a few on their way at a time, so that memory is bounded whatever their size.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flott_schema::{Error, Result};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use super::client::{Answer, run, start};
use crate::sum::Sum;

/// Bytes of a part, unless there would be too many.
pub(super) const PART_BYTES: u64 = 8 << 20;
/// S3 takes no more parts than 10,000.
const PARTS_MAX: u64 = 9_000;
/// Parts of one object on their way.
const UNDER_WAY_MAX: usize = 4;
/// Parts on their way in the process, beyond the first of each object: many objects at a time take no more memory than this.
const MORE_PARTS_MAX: usize = 4;

/// The room of a part beyond the first of its object.
struct MoreRoom;

static MORE_PARTS: AtomicUsize = AtomicUsize::new(0);

impl MoreRoom {
    fn take() -> Option<Self> {
        let more = |taken| (taken < MORE_PARTS_MAX).then_some(taken + 1);
        MORE_PARTS.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok().then_some(MoreRoom)
    }
}

impl Drop for MoreRoom {
    fn drop(&mut self) {
        MORE_PARTS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Parts of an object on their way, from old to young.
struct UnderWay<T>(VecDeque<(Answer<T>, Option<MoreRoom>)>);

impl<T> UnderWay<T> {
    fn new() -> Self {
        UnderWay(VecDeque::new())
    }

    /// Room for one more; none: the oldest is to be waited for first.
    fn room(&self) -> Option<Option<MoreRoom>> {
        match self.0.len() {
            0 => Some(None),
            UNDER_WAY_MAX.. => None,
            _ => MoreRoom::take().map(Some),
        }
    }

    fn push(&mut self, answer: Answer<T>, room: Option<MoreRoom>) {
        self.0.push_back((answer, room));
    }

    /// Waits for the oldest; none are left without an answer.
    fn wait(&mut self, place: &str) -> Option<Result<T>> {
        self.0.pop_front().map(|(answer, _)| answer.wait(place))
    }
}

/// Why an object could not be put.
pub(super) enum PutError {
    /// Its content could not be read.
    Source(std::io::Error),
    /// The object could not be written.
    Target(Error),
}

/// Puts what there is to read, about `size` bytes.
pub(super) fn put(
    client: &Arc<AmazonS3>,
    place: &str,
    key: &Path,
    size: u64,
    mut source: impl Read,
) -> std::result::Result<Sum, PutError> {
    let part_bytes = PART_BYTES.max(size.div_ceil(PARTS_MAX));
    let mut sum = Sum::default();
    let mut next = || {
        let mut part = Vec::with_capacity(part_bytes.min(size.max(1)) as usize);
        (&mut source).take(part_bytes).read_to_end(&mut part).map_err(PutError::Source)?;
        sum.add(&part);
        Ok(part)
    };
    let first = next()?;
    if (first.len() as u64) < part_bytes {
        put_bytes(client, place, key, first).map_err(PutError::Target)?;
        return Ok(sum);
    }
    let (store, at) = (client.clone(), key.clone());
    let begun = run(place, async move { store.put_multipart(&at).await });
    let mut upload = begun.map_err(PutError::Target)?;
    if let Err(error) = send(&mut upload, place, first, next) {
        abort(place, async move { upload.abort().await });
        return Err(error);
    }
    // Its own as long as it is completed, whether somebody waits for that or not.
    let upload = Arc::new(tokio::sync::Mutex::new(upload));
    let completing = upload.clone();
    let completed = run(place, async move { completing.lock().await.complete().await });
    completed.map(drop).map_err(|error| {
        abort(place, async move { upload.lock().await.abort().await });
        PutError::Target(error)
    })?;
    Ok(sum)
}

/// Parts of what is never completed are of no use; where this fails too, rules of the bucket are to delete them.
fn abort(place: &str, aborted: impl Future<Output = object_store::Result<()>> + Send + 'static) {
    if let Err(left) = run(place, aborted) {
        tracing::warn!(place, error = %left, "parts of an object that was not completed stay in the bucket");
    }
}

/// Sends parts until `next` gives an empty one.
fn send(
    upload: &mut Box<dyn MultipartUpload>,
    place: &str,
    first: Vec<u8>,
    mut next: impl FnMut() -> std::result::Result<Vec<u8>, PutError>,
) -> std::result::Result<(), PutError> {
    let mut under_way = UnderWay::new();
    let mut part = first;
    while !part.is_empty() {
        let room = loop {
            match under_way.room() {
                Some(room) => break room,
                None => under_way.wait(place).transpose().map_err(PutError::Target)?,
            };
        };
        under_way.push(start(upload.put_part(part.into())).map_err(PutError::Target)?, room);
        part = next()?;
    }
    while let Some(put) = under_way.wait(place) {
        put.map_err(PutError::Target)?;
    }
    Ok(())
}

/// Puts a small object.
pub(super) fn put_bytes(client: &Arc<AmazonS3>, place: &str, key: &Path, bytes: Vec<u8>) -> Result<()> {
    let (store, at) = (client.clone(), key.clone());
    run(place, async move { store.put(&at, PutPayload::from(bytes)).await.map(drop) })
}

/// Gives the bytes of an object in order. `size` is what it should have, if that is known; what it has counts.
pub(super) fn get(
    client: &Arc<AmazonS3>,
    place: &str,
    key: &Path,
    size: Option<u64>,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let size = match size {
        Some(size) if size > 0 => size,
        // Of nothing no range can be asked for.
        _ => {
            let (store, at) = (client.clone(), key.clone());
            match run(place, async move { store.head(&at).await })?.size {
                0 => return Ok(()),
                size => size,
            }
        }
    };
    let part = |from: u64, to: u64| {
        let (store, at) = (client.clone(), key.clone());
        let options = GetOptions { range: Some((from..to).into()), ..GetOptions::default() };
        start(async move {
            let answer = store.get_opts(&at, options).await?;
            let total = answer.meta.size;
            Ok((answer.bytes().await?, total))
        })
    };
    let first_end = size.min(PART_BYTES);
    let (bytes, total) = part(0, first_end)?.wait(place)?;
    take(&bytes)?;
    let mut asked = bytes.len() as u64;
    let mut taken = asked;
    let mut under_way = UnderWay::new();
    loop {
        while asked < total
            && let Some(room) = under_way.room()
        {
            let end = total.min(asked + PART_BYTES);
            under_way.push(part(asked, end)?, room);
            asked = end;
        }
        let Some(next) = under_way.wait(place) else { return Ok(()) };
        let (bytes, _) = next?;
        if bytes.len() as u64 != PART_BYTES.min(total - taken) {
            return Err(cut_short(place));
        }
        taken += bytes.len() as u64;
        take(&bytes)?;
    }
}

/// A piece of an object.
pub(super) fn get_piece(
    client: &Arc<AmazonS3>,
    place: &str,
    key: &Path,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>> {
    if length == 0 {
        return Ok(Vec::new());
    }
    let (store, at) = (client.clone(), key.clone());
    let range = offset..offset.saturating_add(length as u64);
    let bytes = run(place, async move { store.get_range(&at, range).await })?;
    if bytes.len() == length { Ok(bytes.into()) } else { Err(cut_short(place)) }
}

fn cut_short(place: &str) -> Error {
    Error::io(place, std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the object is cut short"))
}
