//! Folders of the file system: what is there is whole, and what is not as it was written is named.

use std::fs;
use std::sync::atomic::AtomicBool;

use super::*;

fn folder() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    (folder, storage)
}

fn names(storage: &Storage) -> Vec<String> {
    storage.list().unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn what_is_put_is_read_back() {
    let (_folder, storage) = folder();
    let file = storage.put_atomic("keyed-1/000012.sst", b"123456789").unwrap();
    let expected = SnapshotFile {
        name: "keyed-1/000012.sst".into(),
        path: "keyed-1/000012.sst".into(),
        size: 9,
        crc32c: 0xe306_9283,
    };
    assert_eq!(file, expected);
    assert_eq!(storage.read(&file).unwrap(), b"123456789");
    assert_eq!(storage.get(&file.path).unwrap(), b"123456789");
    assert_eq!(storage.read_at(&file, 3, 4).unwrap(), b"4567");
    storage.verify(&file).unwrap();
    let again = storage.put_atomic("keyed-1/000012.sst", b"other").unwrap();
    assert_eq!(storage.read(&again).unwrap(), b"other");
    assert_eq!(names(&storage), ["keyed-1"]);
    assert_eq!(
        storage.folder("keyed-1").unwrap().list().unwrap(),
        [Entry { name: "000012.sst".into(), size: 5, is_folder: false }]
    );
}

#[test]
fn files_go_in_and_out_as_links_or_copies_and_are_checked() {
    let (root, storage) = folder();
    let bytes: Vec<u8> = (0..600_000_u32).map(|at| (at * 11) as u8).collect();
    let source = root.path().join("source");
    fs::write(&source, &bytes).unwrap();
    let folder = storage.folder("chk-1").unwrap();
    folder.create().unwrap();
    let file = folder.put_file("state.sst", &source).unwrap();
    assert_eq!(file.size, bytes.len() as u64);
    // The link that was renamed is not left behind under its first name.
    assert_eq!(fs::read_dir(root.path().join("chk-1")).unwrap().count(), 1);
    let again = folder.put_file("state.sst", &source).unwrap();
    assert_eq!(again, file);
    assert_eq!(fs::read_dir(root.path().join("chk-1")).unwrap().count(), 1);

    let (copied, linked) = (root.path().join("copied"), root.path().join("linked"));
    let stop = AtomicBool::new(true);
    assert!(folder.get_file(&file, &copied, &stop).is_err(), "nobody waits for it");
    assert!(!copied.exists());
    let wanted = AtomicBool::new(false);
    folder.get_file(&file, &copied, &wanted).unwrap();
    assert!(!folder.link_file(&file, &linked, &wanted).unwrap(), "a link is not read");
    assert!(fs::read(&copied).unwrap() == bytes && fs::read(&linked).unwrap() == bytes);
    // A copy can be changed; what the snapshot holds stays as it is.
    fs::write(&copied, b"changed").unwrap();
    folder.verify(&file).unwrap();
}

#[test]
fn snapshots_share_files_that_stand_beside_their_folders_and_can_be_moved_with_them() {
    let (root, storage) = folder();
    for name in ["job/shared", "job/chk-2"] {
        storage.folder(name).unwrap().create().unwrap();
    }
    let mut file = storage.folder("job/shared").unwrap().put_atomic("a-1.sst", b"rows").unwrap();
    file.path = format!("../shared/{}", file.name);
    assert_eq!(storage.folder("job/chk-2").unwrap().read(&file).unwrap(), b"rows");
    fs::rename(root.path().join("job"), root.path().join("moved")).unwrap();
    let moved = storage.folder("moved/chk-2").unwrap();
    assert_eq!(moved.read(&file).unwrap(), b"rows");
    assert_eq!(moved.uri(), format!("{}/moved/chk-2", storage.uri()));
}

#[test]
fn damage_is_named_with_the_file() {
    let (root, storage) = folder();
    let file = storage.put_atomic("part", b"0123456789").unwrap();
    let path = root.path().join("part");
    let target = root.path().join("target");
    let refusals = |file: &SnapshotFile| {
        let errors = [
            storage.read(file).unwrap_err(),
            storage.verify(file).unwrap_err(),
            storage.get_file(file, &target, &AtomicBool::new(false)).unwrap_err(),
            // A link is checked when it is read.
            storage
                .link_file(file, &target, &AtomicBool::new(false))
                .and_then(|_| storage.verify(file))
                .unwrap_err(),
        ];
        let linked = fs::metadata(&target).map_or(file.size, |metadata| metadata.len());
        assert_eq!(linked, file.size, "what is cut short must not be seen");
        let _ = fs::remove_file(&target);
        for error in &errors {
            assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        errors.map(|error| error.to_string()).join("\n")
    };
    fs::write(&path, b"0123456x89").unwrap();
    assert!(refusals(&file).contains("its checksum is not that of what was written"));
    fs::write(&path, b"01234").unwrap();
    assert!(refusals(&file).contains("it has 5 bytes where 10 were written"));
    let short = storage.read_at(&file, 0, 10).unwrap_err().to_string();
    assert!(short.contains("missing or cut short"), "{short}");
    fs::remove_file(&path).unwrap();
    assert!(refusals(&file).contains("a file of the snapshot is missing"));
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing_behind_and_says_where() {
    let (root, storage) = folder();
    // A folder stands where the file is to be: the last step fails.
    fs::create_dir_all(root.path().join("taken/inside")).unwrap();
    let source = root.path().join("source");
    fs::write(&source, b"bytes").unwrap();
    let errors =
        [storage.put_atomic("taken", b"bytes").unwrap_err(), storage.put_file("taken", &source).unwrap_err()];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(&root.path().join("taken").display().to_string()), "{error}");
    }
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");

    // A file stands where a folder is to be.
    let error = storage.put_atomic("source/part", b"bytes").unwrap_err().to_string();
    assert!(error.contains(&source.display().to_string()), "{error}");
    let error = storage.folder("source/folder").unwrap().create().unwrap_err().to_string();
    assert!(error.contains(&source.display().to_string()), "{error}");
}

#[test]
fn a_folder_that_has_vanished_is_not_made_again_in_silence() {
    let (root, storage) = folder();
    let shared = storage.folder("shared").unwrap();
    shared.create().unwrap();
    shared.put_atomic("a", b"a").unwrap();
    fs::remove_dir_all(root.path().join("shared")).unwrap();
    for error in [shared.put_atomic("b", b"b").unwrap_err(), shared.put_atomic("c/d", b"d").unwrap_err()] {
        assert!(error.to_string().contains("No such file or directory"), "{error}");
    }
    assert!(shared.list().is_err());
    assert!(!root.path().join("shared").exists());
}

#[test]
fn a_file_that_is_not_whole_is_not_listed() {
    let (root, storage) = folder();
    fs::write(root.path().join(".unfinished-1-1"), b"half").unwrap();
    storage.put_atomic("whole", b"whole").unwrap();
    assert_eq!(names(&storage), ["whole"]);
}

#[test]
fn deleting_what_is_not_there_is_no_error() {
    let (root, storage) = folder();
    storage.put_atomic("chk-1/part", b"rows").unwrap();
    assert!(storage.exists("chk-1/part").unwrap());
    assert!(storage.delete("chk-1/part").unwrap());
    assert!(!storage.exists("chk-1/part").unwrap());
    assert!(!storage.delete("chk-1/part").unwrap());
    let folder = storage.folder("chk-1").unwrap();
    assert!(folder.delete_tree().unwrap());
    assert!(!folder.delete_tree().unwrap());
    assert!(root.path().exists());
}

#[test]
fn names_stay_in_the_folder_where_files_are_written_or_deleted() {
    let (_root, storage) = folder();
    for name in ["", "/etc/passwd", "../part", "a/../../part", "."] {
        assert_eq!(storage.put_atomic(name, b"rows").unwrap_err().kind(), ErrorKind::BadInput, "{name}");
        assert_eq!(storage.delete(name).unwrap_err().kind(), ErrorKind::BadInput, "{name}");
    }
    let absolute = SnapshotFile { name: "a".into(), path: "/etc/passwd".into(), size: 0, crc32c: 0 };
    assert_eq!(storage.read(&absolute).unwrap_err().kind(), ErrorKind::BadInput);
    let everything = Storage::open("/").unwrap().delete_tree().unwrap_err().to_string();
    assert!(everything.contains("is the whole file system"), "{everything}");
}
