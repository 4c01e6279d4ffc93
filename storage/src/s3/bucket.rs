//! A folder in a bucket.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path as LocalPath;
use std::sync::Arc;

use flott_schema::{Error, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::client::{client, run};
use super::transfer::{self, PutError};
use crate::storage::Entry;
use crate::sum::Sum;

/// Objects listed and deleted in one go.
const DELETED_AT_ONCE: usize = 2_000;

/// A folder in a bucket: what the keys of its objects begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    bucket: String,
    /// Without a slash at either end; empty: the whole bucket.
    key: String,
}

impl Bucket {
    /// The folder that the part of a URI behind `s3://` names. An error says what is wrong with it.
    pub(crate) fn parse(rest: &str) -> std::result::Result<Self, String> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || b"-._".contains(&letter);
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_letter) {
            return Err(format!("'{bucket}' is no name of a bucket; write s3://BUCKET/PATH"));
        }
        let root = Bucket { bucket: bucket.to_string(), key: String::new() };
        root.folder(key).ok_or_else(|| "its path leads out of the bucket".to_string())
    }

    /// The folder by its path from this one; `..` leads upwards. Nothing if it leads out of the bucket.
    pub(crate) fn folder(&self, path: &str) -> Option<Self> {
        let mut parts: Vec<&str> = self.key.split('/').filter(|part| !part.is_empty()).collect();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        Some(Bucket { bucket: self.bucket.clone(), key: parts.join("/") })
    }

    /// Its URI, the same for all ways of writing it.
    pub(crate) fn uri(&self) -> String {
        let slash = if self.key.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.key)
    }

    /// Whether it is the whole bucket.
    pub(crate) fn is_root(&self) -> bool {
        self.key.is_empty()
    }

    /// The client, and the key of what this names.
    fn open(&self) -> Result<(Arc<AmazonS3>, Path)> {
        let key = Path::parse(&self.key).map_err(|error| {
            Error::bad_input(format!("'{}' is no name of an object: {error}", self.uri()))
        })?;
        Ok((client(&self.bucket)?, key))
    }

    /// Writes the object that this names.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<()> {
        let (client, key) = self.open()?;
        if bytes.len() as u64 <= transfer::PART_BYTES {
            return transfer::put_bytes(&client, &self.uri(), &key, bytes.to_vec());
        }
        match transfer::put(&client, &self.uri(), &key, bytes.len() as u64, bytes) {
            Ok(_) => Ok(()),
            Err(PutError::Target(error)) => Err(error),
            Err(PutError::Source(error)) => Err(Error::io(self.uri(), error)),
        }
    }

    /// The same from a local file.
    pub(crate) fn put_file(&self, source: &LocalPath) -> Result<Sum> {
        let (client, key) = self.open()?;
        let unreadable = |error: io::Error| Error::io(source.display(), error);
        let file = File::open(source).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        transfer::put(&client, &self.uri(), &key, size, file).map_err(|error| match error {
            PutError::Source(error) => unreadable(error),
            PutError::Target(error) => error,
        })
    }

    /// Gives the bytes of the object in order; `size` is what it should have, if that is known.
    pub(crate) fn get(&self, size: Option<u64>, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (client, key) = self.open()?;
        transfer::get(&client, &self.uri(), &key, size, take)
    }

    /// A piece of the object; one that ends before is an error.
    pub(crate) fn get_piece(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let (client, key) = self.open()?;
        transfer::get_piece(&client, &self.uri(), &key, offset, length)
    }

    /// What stands in the folder, in the order of the names. Nothing if it is not there: a folder is there while something is in it.
    pub(crate) fn list(&self) -> Result<Vec<Entry>> {
        let (client, key) = self.open()?;
        let listed = run(&self.uri(), async move { client.list_with_delimiter(Some(&key)).await })?;
        let name = |path: &Path| path.filename().unwrap_or_default().to_string();
        let folders = listed.common_prefixes.iter();
        let folders = folders.map(|path| Entry { name: name(path), size: 0, is_folder: true });
        let files = listed.objects.iter();
        let files = files.map(|one| Entry { name: name(&one.location), size: one.size, is_folder: false });
        let mut entries: Vec<Entry> = folders.chain(files).collect();
        entries.sort();
        Ok(entries)
    }

    /// Whether there is an object of this name.
    pub(crate) fn exists(&self) -> Result<bool> {
        let (client, key) = self.open()?;
        run(&self.uri(), async move {
            match client.head(&key).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Deletes the object; says whether there was one.
    pub(crate) fn delete(&self) -> Result<bool> {
        if !self.exists()? {
            return Ok(false);
        }
        let (client, key) = self.open()?;
        run(&self.uri(), async move { client.delete(&key).await })?;
        Ok(true)
    }

    /// Deletes objects by their names below the folder. Gives those that may still be there, with the first reason.
    pub(crate) fn delete_all<'a>(&self, names: &[&'a str]) -> Option<(Vec<&'a str>, Error)> {
        let mut kept: Option<(Vec<&str>, Error)> = None;
        for names in names.chunks(DELETED_AT_ONCE) {
            if let Err((left, error)) = self.delete_some(names) {
                kept.get_or_insert_with(|| (Vec::new(), error)).0.extend(left);
            }
        }
        kept
    }

    fn delete_some<'a>(&self, names: &[&'a str]) -> std::result::Result<(), (Vec<&'a str>, Error)> {
        let all = |error| (names.to_vec(), error);
        let (client, _) = self.open().map_err(all)?;
        let keys = names.iter().map(|name| self.folder(name).map(|one| one.key).unwrap_or_default());
        let keys: Vec<String> = keys.collect();
        let paths: std::result::Result<Vec<Path>, _> = keys.iter().map(Path::parse).collect();
        let paths = paths.map_err(|error| all(Error::bad_input(format!("in '{}': {error}", self.uri()))))?;
        let deleted = run(&self.uri(), async move { Ok(delete(&client, paths).await) }).map_err(all)?;
        let Some(error) = deleted.failed else { return Ok(()) };
        let left = names.iter().zip(&keys).filter(|(_, key)| !deleted.gone.contains(*key));
        Err((left.map(|(name, _)| *name).collect(), super::failure::failed(&self.uri(), &error)))
    }

    /// Deletes all objects in the folder; says whether there was one.
    pub(crate) fn delete_tree(&self) -> Result<bool> {
        let mut was_there = false;
        loop {
            let (client, key) = self.open()?;
            let found = run(&self.uri(), async move {
                let some = client.list(Some(&key)).take(DELETED_AT_ONCE).map_ok(|one| one.location);
                let paths: Vec<Path> = some.try_collect().await?;
                let count = paths.len();
                match delete(&client, paths).await.failed {
                    None => Ok(count),
                    Some(error) => Err(error),
                }
            })?;
            if found == 0 {
                return Ok(was_there);
            }
            was_there = true;
        }
    }
}

/// What became of objects that were to be deleted.
struct Deleted {
    gone: BTreeSet<String>,
    failed: Option<object_store::Error>,
}

/// Deletes objects, many with one request; those that are gone already count as deleted.
async fn delete(client: &AmazonS3, paths: Vec<Path>) -> Deleted {
    let mut deleted = Deleted { gone: BTreeSet::new(), failed: None };
    let mut answers = client.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(path) => drop(deleted.gone.insert(path.into())),
            Err(object_store::Error::NotFound { path, .. }) => drop(deleted.gone.insert(path)),
            Err(error) => drop(deleted.failed.get_or_insert(error)),
        }
    }
    deleted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_bucket_has_one_name() {
        let uri = |rest: &str| Bucket::parse(rest).map(|bucket| bucket.uri());
        for rest in ["bucket/a/b", "bucket//a/b/", "bucket/./a/c/../b"] {
            assert_eq!(uri(rest).unwrap(), "s3://bucket/a/b", "{rest}");
        }
        assert_eq!(uri("bucket").unwrap(), "s3://bucket");
        assert!(Bucket::parse("bucket/").unwrap().is_root());
        assert!(uri("bucket/../other").unwrap_err().contains("out of the bucket"));
        for rest in ["", "/a", "b/a", "name of it/a", "host:80/a"] {
            assert!(uri(rest).unwrap_err().contains("no name of a bucket"), "{rest}");
        }
        let chk = Bucket::parse("bucket/job/chk-1").unwrap();
        assert_eq!(chk.folder("../shared/x").unwrap().uri(), "s3://bucket/job/shared/x");
    }
}
