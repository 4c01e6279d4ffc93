//! Objects in parts: a few on their way at a time, so that memory is bounded whatever their size.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

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
/// Parts on their way.
const UNDER_WAY_MAX: usize = 4;

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
        // Parts of what is never completed are of no use; where this fails too, rules of the bucket are to delete them.
        if let Err(left) = run(place, async move { upload.abort().await }) {
            tracing::warn!(place, error = %left, "parts of an object that was not completed stay in the bucket");
        }
        return Err(error);
    }
    let completed = run(place, async move {
        let completed = upload.complete().await;
        if completed.is_err() {
            // The first error says more.
            let _ = upload.abort().await;
        }
        completed.map(drop)
    });
    completed.map_err(PutError::Target)?;
    Ok(sum)
}

/// Sends parts until `next` gives an empty one.
fn send(
    upload: &mut Box<dyn MultipartUpload>,
    place: &str,
    first: Vec<u8>,
    mut next: impl FnMut() -> std::result::Result<Vec<u8>, PutError>,
) -> std::result::Result<(), PutError> {
    let mut under_way: VecDeque<Answer<()>> = VecDeque::new();
    let mut part = first;
    while !part.is_empty() {
        if under_way.len() == UNDER_WAY_MAX
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.wait(place).map_err(PutError::Target)?;
        }
        under_way.push_back(start(upload.put_part(part.into())).map_err(PutError::Target)?);
        part = next()?;
    }
    under_way.into_iter().try_for_each(|part| part.wait(place)).map_err(PutError::Target)
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
    let mut under_way = VecDeque::new();
    loop {
        while under_way.len() < UNDER_WAY_MAX && asked < total {
            let end = total.min(asked + PART_BYTES);
            under_way.push_back((part(asked, end)?, end - asked));
            asked = end;
        }
        let Some((next, wanted)) = under_way.pop_front() else { return Ok(()) };
        let (bytes, _) = next.wait(place)?;
        if bytes.len() as u64 != wanted {
            return Err(cut_short(place));
        }
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
