//! The manifest: the file that makes a folder a snapshot. It is written last.
//!
//! Its form: the magic `FLOTTSNP`, the version (1, or 2 where list states are in files) and the CRC-32C of the body (32 bits each), the length of the body (64 bits), all in
//! little-endian order; then the body, a Cap'n Proto message of `schema/capnp/snapshot.capnp`.

use flott_schema::error::ErrorKind;
use flott_schema::snapshot::{MANIFEST_FILE, Manifest};
use flott_schema::wire::{from_bytes, to_bytes};
use flott_schema::{Error, Result};

use crate::storage::Storage;

const MAGIC: [u8; 8] = *b"FLOTTSNP";
/// Where all list states stand in it, so that an older Flott reads it too.
const VERSION_INLINE: u32 = 1;
/// Where some are in files: an older Flott would take them to be empty.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 24;
/// How Flink's manifests begin.
const FLINK_MAGIC: [u8; 4] = 0x4960_672d_u32.to_be_bytes();

/// Writes the manifest into the folder of its snapshot, whose files are all there. Gives its size in bytes.
pub fn write(folder: &Storage, manifest: &Manifest) -> Result<u64> {
    let bytes = encode(manifest).map_err(|error| error.at(place(folder)))?;
    folder.put_atomic(MANIFEST_FILE, &bytes).map(|file| file.size)
}

/// Reads the manifest of the snapshot in the folder.
pub fn read(folder: &Storage) -> Result<Manifest> {
    if !folder.exists(MANIFEST_FILE)? {
        let text = match folder.list() {
            Ok(_) => format!("'{folder}' holds no snapshot: there is no {MANIFEST_FILE} in it"),
            Err(error) => format!("there is no snapshot in '{folder}': {error}"),
        };
        return Err(Error::bad_input(text));
    }
    let bytes = folder.get(MANIFEST_FILE)?;
    decode(&bytes).map_err(|error| error.at(place(folder)))
}

/// Deletes a savepoint: its manifest, so that it is none any more should the rest take long or fail, then the files that the manifest names, then
/// the folder, if nothing else is in it. Files of others in the folder stay, and so does what links lead to. A checkpoint is refused: its files may be shared,
/// and its job deletes it.
pub fn dispose(folder: &Storage) -> Result<()> {
    let manifest = read(folder)?;
    // By a link to the folder the folder itself is meant; links in it lead to what is not the savepoint's.
    let folder = &folder.resolved()?;
    let own = |name: &str| match folder.is_own(name)? {
        true => Ok(()),
        false => Err(Error::bad_input(format!(
            "'{name}' in '{folder}' is a link or lies behind one: what it leads to may be another's; nothing was deleted"
        ))),
    };
    own(MANIFEST_FILE)?;
    if !manifest.kind.is_savepoint() {
        return Err(Error::bad_input(format!(
            "'{folder}' is a checkpoint of job {}, not a savepoint; it is the job's to delete",
            manifest.job
        )));
    }
    // A savepoint shares nothing, whatever somebody has written into its manifest.
    let named = manifest.tasks.iter().flat_map(|task| task.files()).map(|file| file.path.as_str());
    let named: Vec<&str> = named.filter(|path| !path.contains("..")).collect();
    named.iter().try_for_each(|path| own(path))?;
    folder.delete(MANIFEST_FILE)?;
    if let Some((_, error)) = folder.delete_all(&named) {
        return Err(error);
    }
    folder.delete_if_empty().map(drop)
}

/// The folder of the snapshot that a user names by its folder or by its manifest.
pub fn folder_of(uri: &str) -> Result<Storage> {
    let folder = uri.trim_end_matches('/');
    Storage::open(folder.strip_suffix(MANIFEST_FILE).filter(|rest| rest.ends_with('/')).unwrap_or(uri))
}

/// The bytes of the file.
pub fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    let body = to_bytes(manifest)?;
    let operators = manifest.tasks.iter().flat_map(|task| &task.operators);
    let has_files = operators.flat_map(|operator| &operator.lists).any(|list| list.file.is_some());
    let version = if has_files { VERSION } else { VERSION_INLINE };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The manifest in the bytes of the file. An error says what is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<Manifest> {
    if bytes.starts_with(&FLINK_MAGIC) {
        return Err(damaged("it is one of Flink, whose snapshots Flott does not read"));
    }
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(damaged(&format!("it has {} bytes, less than any manifest", bytes.len())));
    };
    if header[..8] != MAGIC {
        return Err(damaged("it does not begin as a manifest of Flott does"));
    }
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    match number(8) {
        VERSION_INLINE..=VERSION => {}
        version => {
            return Err(damaged(&format!(
                "it is of version {version}, and this Flott reads versions {VERSION_INLINE} to {VERSION}: use a newer Flott"
            )));
        }
    }
    let length = u64::from_le_bytes(header[16..].try_into().expect("eight bytes"));
    if body.len() as u64 != length {
        return Err(damaged(&format!("it holds {} bytes where {length} were written", body.len())));
    }
    if crc32c::crc32c(body) != number(12) {
        return Err(damaged("its checksum is not that of what was written"));
    }
    from_bytes(body)
}

fn damaged(reason: &str) -> Error {
    Error::new(ErrorKind::BadInput, format!("the manifest cannot be read: {reason}"))
}

fn place(folder: &Storage) -> String {
    format!("{folder}/{MANIFEST_FILE}")
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
