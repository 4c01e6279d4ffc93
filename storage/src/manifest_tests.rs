//! The form of the file is frozen, and whatever is broken in it is named.

use std::path::Path;

use flott_schema::ids::{JobId, OperatorId, TaskId, VertexId};
use flott_schema::key_group::KeyGroupRange;
use flott_schema::snapshot::{
    KeyedSnapshot, ListMode, ListSnapshot, ManifestOperator, ManifestVertex, OperatorSnapshot,
    SavepointFormat, SnapshotFile, SnapshotKind, SnapshotTimes, TaskSnapshot,
};
use proptest::prelude::*;

use super::*;

fn manifest() -> Manifest {
    let operator = OperatorId(0x1111_2222_3333_4444_5555_6666_7777_8888);
    let list = ListSnapshot {
        name: "splits".into(),
        mode: ListMode::Split,
        item_type: "u64".into(),
        items: vec![vec![1, 2, 3], vec![4]],
        file: None,
    };
    let task = TaskSnapshot {
        task: TaskId { vertex: VertexId(operator.0), subtask: 0 },
        finished: false,
        operators: vec![OperatorSnapshot {
            operator: Some(operator),
            lists: vec![list],
            ..OperatorSnapshot::default()
        }],
        channels: vec![],
        times: SnapshotTimes::default(),
    };
    let operators = vec![ManifestOperator { operator, uid: "source-1".into(), name: "source".into() }];
    let vertex = ManifestVertex {
        vertex: VertexId(operator.0),
        name: "source".into(),
        parallelism: 1,
        max_parallelism: 128,
        operators,
    };
    Manifest {
        job: JobId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210),
        job_name: "words".into(),
        checkpoint: 7,
        kind: SnapshotKind::Savepoint(SavepointFormat::Canonical),
        timestamp_ms: 1_790_000_000_000,
        vertices: vec![vertex],
        tasks: vec![task],
    }
}

fn folder() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    (folder, storage)
}

/// `UPDATE=1` writes a sample that is missing, and changes none.
#[test]
fn a_manifest_of_the_first_version_is_read_for_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/manifest-1.bin");
    if std::env::var_os("UPDATE").is_some() && !path.exists() {
        std::fs::write(&path, encode(&manifest()).unwrap()).unwrap();
    }
    let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(decode(&stored).unwrap(), manifest());
}

#[test]
fn a_manifest_that_names_files_of_lists_is_of_the_second_version_and_read_for_ever() {
    let mut manifest = manifest();
    let list = &mut manifest.tasks[0].operators[0].lists[0];
    list.items.clear();
    let (name, path) = ("list-0".to_string(), "list-0".to_string());
    list.file = Some(SnapshotFile { name, path, size: 30_000, crc32c: 7 });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/manifest-2.bin");
    if std::env::var_os("UPDATE").is_some() && !path.exists() {
        std::fs::write(&path, encode(&manifest).unwrap()).unwrap();
    }
    let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!((stored[8], decode(&stored).unwrap()), (2, manifest));
}

#[test]
fn a_snapshot_is_found_by_its_folder_and_by_its_manifest() {
    let (root, storage) = folder();
    let size = write(&storage, &manifest()).unwrap();
    assert_eq!(size, storage.list().unwrap()[0].size);
    for name in ["", "/", "/_metadata", "/_metadata/"] {
        let folder = folder_of(&format!("{}{name}", root.path().display())).unwrap();
        assert_eq!(read(&folder).unwrap(), manifest(), "{name}");
    }
}

#[test]
fn what_is_no_snapshot_is_told_from_what_is_not_there() {
    let (_root, storage) = folder();
    let error = read(&storage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert_eq!(error.to_string(), format!("'{storage}' holds no snapshot: there is no _metadata in it"));
    let error = read(&storage.folder("chk-1").unwrap()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("there is no snapshot in '{storage}/chk-1': ")), "{error}");
}

#[test]
fn a_manifest_of_another_kind_or_version_is_refused_with_the_reason() {
    let (root, storage) = folder();
    let refusal = |bytes: &[u8]| {
        std::fs::write(root.path().join(MANIFEST_FILE), bytes).unwrap();
        let error = read(&storage).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        let error = error.to_string();
        assert!(error.starts_with(&format!("{storage}/_metadata: the manifest cannot be read: ")), "{error}");
        error
    };
    let whole = encode(&manifest()).unwrap();
    assert!(refusal(b"").contains("it has 0 bytes"));
    assert!(refusal(&[b'x'; 100]).contains("does not begin as a manifest of Flott"));
    assert!(refusal(&[&[0x49, 0x60, 0x67, 0x2d][..], &[0; 100]].concat()).contains("it is one of Flink"));
    let mut newer = whole.clone();
    newer[8] = 3;
    assert!(refusal(&newer).contains("version 3, and this Flott reads versions 1 to 2"));
    assert!(refusal(&whole[..whole.len() - 1]).contains("bytes where"));
    let mut flipped = whole;
    *flipped.last_mut().unwrap() ^= 1;
    assert!(refusal(&flipped).contains("checksum"));
}

proptest! {
    #[test]
    fn no_damage_goes_unnoticed(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let whole = encode(&manifest()).unwrap();
        let at = at.index(whole.len());
        let mut flipped = whole.clone();
        flipped[at] ^= flip;
        prop_assert!(decode(&flipped).is_err());
        prop_assert!(decode(&whole[..at]).is_err());
    }

    #[test]
    fn any_bytes_give_a_manifest_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = encode(&manifest()).unwrap();
        bytes.truncate(HEADER_BYTES);
        bytes[12..16].copy_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes[16..].copy_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend(&body);
        let _ = decode(&bytes);
    }
}

#[test]
fn disposing_of_a_savepoint_leaves_the_files_of_others_alone() {
    let parent = tempfile::tempdir().unwrap();
    let place = parent.path().join("savepoint");
    let folder = Storage::open(place.to_str().unwrap()).unwrap();
    folder.create().unwrap();
    let mut content = manifest();
    content.tasks[0].operators[0].keyed.push(KeyedSnapshot {
        key_groups: KeyGroupRange { start: 0, end: 128 },
        format: "rows-1".into(),
        tables: vec![],
        files: vec![folder.put_atomic("rows", b"rows").unwrap()],
    });
    write(&folder, &content).unwrap();
    std::fs::write(place.join("thesis.txt"), "mine").unwrap();
    std::fs::create_dir(place.join("photos")).unwrap();
    dispose(&folder).unwrap();
    let mut left: Vec<_> = folder.list().unwrap().into_iter().map(|entry| entry.name).collect();
    left.sort();
    assert_eq!(left, ["photos", "thesis.txt"]);
    assert!(dispose(&folder).unwrap_err().to_string().contains("holds no snapshot"));

    // With nothing of others in it, the folder goes too.
    let other = Storage::open(parent.path().join("other").to_str().unwrap()).unwrap();
    other.create().unwrap();
    write(&other, &manifest()).unwrap();
    dispose(&other).unwrap();
    assert!(!parent.path().join("other").exists());
    let checkpoint = Manifest { kind: SnapshotKind::Checkpoint, ..manifest() };
    other.create().unwrap();
    write(&other, &checkpoint).unwrap();
    assert!(dispose(&other).unwrap_err().to_string().contains("is a checkpoint of job"));
    assert!(other.exists(MANIFEST_FILE).unwrap());
}

#[test]
fn a_manifest_that_is_no_regular_file_is_refused_at_once() {
    let (root, storage) = folder();
    let path = root.path().join(MANIFEST_FILE);
    // To open a pipe that nobody writes to would wait for ever.
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let error = read(&storage).unwrap_err().to_string();
    assert!(error.contains("no regular file") && error.contains(MANIFEST_FILE), "{error}");
    std::fs::remove_file(&path).unwrap();
    // It has no end.
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(read(&storage).unwrap_err().to_string().contains("no regular file"));
}

#[test]
fn a_savepoint_that_is_named_by_a_link_goes_and_what_links_in_it_lead_to_stays() {
    let parent = tempfile::tempdir().unwrap();
    let place = parent.path().join("savepoint");
    let folder = Storage::open(place.to_str().unwrap()).unwrap();
    folder.create().unwrap();
    std::fs::create_dir(parent.path().join("mine")).unwrap();
    std::fs::write(parent.path().join("mine/rows"), "mine").unwrap();
    let mut content = manifest();
    let file = SnapshotFile { name: "rows".into(), path: "linked/rows".into(), size: 4, crc32c: 0 };
    let key_groups = KeyGroupRange { start: 0, end: 128 };
    let keyed = KeyedSnapshot { key_groups, format: "rows-1".into(), tables: vec![], files: vec![file] };
    content.tasks[0].operators[0].keyed.push(keyed);
    write(&folder, &content).unwrap();
    std::os::unix::fs::symlink(parent.path().join("mine"), place.join("linked")).unwrap();
    let link = parent.path().join("link");
    std::os::unix::fs::symlink(&place, &link).unwrap();
    let by_link = Storage::open(link.to_str().unwrap()).unwrap();
    let error = dispose(&by_link).unwrap_err().to_string();
    assert!(error.contains("'linked/rows'") && error.contains("nothing was deleted"), "{error}");
    assert!(read(&folder).is_ok() && parent.path().join("mine/rows").exists());

    std::fs::remove_file(place.join("linked")).unwrap();
    dispose(&by_link).unwrap();
    assert!(!place.exists(), "the folder that the link led to is what was meant");

    // A manifest of somebody else says nothing of the files here.
    let other = parent.path().join("other");
    std::fs::create_dir(&other).unwrap();
    write(&Storage::open(other.to_str().unwrap()).unwrap(), &manifest()).unwrap();
    folder.create().unwrap();
    std::os::unix::fs::symlink(other.join(MANIFEST_FILE), place.join(MANIFEST_FILE)).unwrap();
    assert!(dispose(&folder).unwrap_err().to_string().contains("is a link"));
    assert!(other.join(MANIFEST_FILE).exists());
}
