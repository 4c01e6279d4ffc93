//! Files of list states that are too large to stand in the manifest.
//!
//! Their form: the magic `FLOTTLST`, the version 1 (32 bits) and the number of items (32 bits), then each item as its length (32 bits) and its
//! bytes; all numbers in little-endian order. The checksum stands in the manifest.

use flott_schema::error::ErrorKind;
use flott_schema::snapshot::{ListSnapshot, Manifest};
use flott_schema::{Error, Result};

use crate::storage::Storage;

const MAGIC: [u8; 8] = *b"FLOTTLST";
const VERSION: u32 = 1;

/// The bytes of a file with these items.
pub fn encode(items: &[Vec<u8>]) -> Result<Vec<u8>> {
    let length = |count: usize| {
        u32::try_from(count).map_err(|_| {
            Error::new(
                ErrorKind::Resources,
                "a list state has more than four billion items, or an item as many bytes",
            )
        })
    };
    let mut bytes = Vec::with_capacity(16 + items.iter().map(|item| 4 + item.len()).sum::<usize>());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length(items.len())?.to_le_bytes());
    for item in items {
        bytes.extend_from_slice(&length(item.len())?.to_le_bytes());
        bytes.extend_from_slice(item);
    }
    Ok(bytes)
}

/// The items in the bytes of a file. An error says what is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let damaged =
        |reason: &str| Error::new(ErrorKind::BadInput, format!("the file of a list state {reason}"));
    let mut rest = bytes;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count).ok_or_else(|| damaged("is cut short"))?;
        rest = left;
        Ok::<&[u8], Error>(taken)
    };
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    if take(8)? != MAGIC {
        return Err(damaged("does not begin as one does"));
    }
    match number(take(4)?) {
        VERSION => {}
        version => {
            let text =
                format!("is of version {version}, and this Flott reads version {VERSION}: use a newer Flott");
            return Err(damaged(&text));
        }
    }
    let count = number(take(4)?) as usize;
    // Each takes four bytes at least, whatever the number says.
    let mut items = Vec::with_capacity(count.min(bytes.len() / 4));
    for _ in 0..count {
        let length = number(take(4)?) as usize;
        items.push(take(length)?.to_vec());
    }
    if rest.is_empty() { Ok(items) } else { Err(damaged("goes on behind its last item")) }
}

/// The items of a list state of the snapshot in the folder, wherever they are.
pub fn items(folder: &Storage, list: &ListSnapshot) -> Result<Vec<Vec<u8>>> {
    match &list.file {
        None => Ok(list.items.clone()),
        Some(file) => {
            decode(&folder.read(file)?).map_err(|error| error.at(format!("{folder}/{}", file.path)))
        }
    }
}

/// Reads all items into the manifest of the snapshot in the folder, to look at them.
pub fn bring_in(folder: &Storage, manifest: &mut Manifest) -> Result<()> {
    let operators = manifest.tasks.iter_mut().flat_map(|task| &mut task.operators);
    for list in operators.flat_map(|operator| &mut operator.lists).filter(|list| list.file.is_some()) {
        list.items = items(folder, list)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use flott_schema::snapshot::ListMode;

    use super::*;

    fn some() -> Vec<Vec<u8>> {
        vec![vec![1, 2, 3], vec![], vec![255; 300]]
    }

    /// `UPDATE=1` writes a sample that is missing, and changes none.
    #[test]
    fn a_file_of_the_first_version_is_read_for_ever() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/list-1.bin");
        if std::env::var_os("UPDATE").is_some() && !path.exists() {
            std::fs::write(&path, encode(&some()).unwrap()).unwrap();
        }
        let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(decode(&stored).unwrap(), some());
        assert_eq!(stored, encode(&some()).unwrap());
    }

    #[test]
    fn whatever_is_wrong_with_a_file_is_said() {
        let whole = encode(&some()).unwrap();
        for cut in 0..whole.len() {
            assert!(decode(&whole[..cut]).unwrap_err().to_string().contains("cut short"), "{cut}");
        }
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            decode(&bytes).unwrap_err().to_string()
        };
        assert!(refused(&|bytes| bytes.push(0)).contains("goes on behind"));
        assert!(refused(&|bytes| bytes[0] = 0).contains("does not begin"));
        assert!(refused(&|bytes| bytes[8] = 2).contains("version 2, and this Flott reads version 1"));
        assert!(refused(&|bytes| bytes[12..16].fill(255)).contains("cut short"));
    }

    #[test]
    fn items_are_found_in_the_manifest_and_in_files() {
        let root = tempfile::tempdir().unwrap();
        let folder = Storage::open(root.path().to_str().unwrap()).unwrap();
        let (name, mode) = ("splits".to_string(), ListMode::Split);
        let inline = ListSnapshot { name, mode, item_type: String::new(), items: some(), file: None };
        assert_eq!(items(&folder, &inline).unwrap(), some());
        let file = folder.put_atomic("list", &encode(&some()).unwrap()).unwrap();
        let stored = ListSnapshot { items: vec![], file: Some(file), ..inline };
        assert_eq!(items(&folder, &stored).unwrap(), some());
        folder.put_atomic("list", b"other").unwrap();
        let error = items(&folder, &stored).unwrap_err().to_string();
        assert!(error.contains("list of the snapshot is damaged"), "{error}");
    }
}
