//! Files of snapshots in a bucket of a real S3 server. Where it cannot be had, the tests say why they are left out.

#[path = "../../tests/s3_server/mod.rs"]
mod s3_server;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flott_schema::ErrorKind;
use flott_schema::snapshot::SnapshotFile;
use flott_storage::{Entry, Storage, configure};
use s3_server::S3Server;

/// One test at a time: how S3 is reached is settled for the whole process.
static TURN: Mutex<()> = Mutex::new(());

struct Turn {
    server: S3Server,
    _turn: MutexGuard<'static, ()>,
}

fn server() -> Option<Turn> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = S3Server::start(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?;
    set(&server, &[]);
    Some(Turn { server, _turn: turn })
}

fn set(server: &S3Server, changes: &[(&str, &str)]) {
    let mut pairs = server.keys().map(|(key, value)| (key.to_string(), value)).to_vec();
    pairs.extend(changes.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    for (key, value) in changes {
        pairs.retain(|(known, of)| known != key || of == value);
    }
    configure(&pairs).unwrap();
}

fn folder(name: &str) -> Storage {
    Storage::open(&format!("s3://bucket/{name}")).unwrap()
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn what_is_put_is_read_back() {
    let Some(_turn) = server() else { return };
    let storage = folder("put/chk-1");
    storage.create().unwrap();
    let file = storage.put_atomic("keyed-1/000012.sst", b"123456789").unwrap();
    let (name, crc32c) = ("keyed-1/000012.sst".to_string(), 0xe306_9283);
    assert_eq!(file, SnapshotFile { name: name.clone(), path: name, size: 9, crc32c });
    assert_eq!(storage.read(&file).unwrap(), b"123456789");
    assert_eq!(storage.get(&file.path).unwrap(), b"123456789");
    assert_eq!(storage.read_at(&file, 3, 4).unwrap(), b"4567");
    storage.verify(&file).unwrap();
    let again = storage.put_atomic("keyed-1/000012.sst", b"other").unwrap();
    assert_eq!(storage.read(&again).unwrap(), b"other");

    let empty = storage.put_atomic("empty", b"").unwrap();
    assert_eq!((storage.read(&empty).unwrap(), storage.get("empty").unwrap()), (vec![], vec![]));
    let entry = |name: &str, size, is_folder| Entry { name: name.into(), size, is_folder };
    assert_eq!(storage.list().unwrap(), [entry("empty", 0, false), entry("keyed-1", 0, true)]);
    let inner = storage.folder("keyed-1").unwrap();
    assert_eq!(inner.uri(), "s3://bucket/put/chk-1/keyed-1");
    assert_eq!(inner.list().unwrap(), [entry("000012.sst", 5, false)]);
    // As a manifest names what checkpoints share.
    let shared = SnapshotFile { path: "../chk-1/keyed-1/000012.sst".into(), ..again };
    assert_eq!(folder("put/chk-2").read(&shared).unwrap(), b"other");
    assert!(storage.exists("empty").unwrap() && !storage.exists("full").unwrap());
}

#[test]
fn large_files_go_in_parts_and_are_checked_on_their_way_back() {
    let Some(Turn { server, _turn }) = server() else { return };
    let local = tempfile::tempdir().unwrap();
    let storage = folder("large");
    // Several parts of which the last is short; exactly two; exactly one.
    for (name, count) in [("many", (40 << 20) + 12_345), ("two", 16 << 20), ("one", 8 << 20)] {
        let content = bytes(count);
        let (source, target) = (local.path().join("source"), local.path().join(name));
        fs::write(&source, &content).unwrap();
        let file = storage.put_file(name, &source).unwrap();
        assert_eq!(file.size, count as u64, "{name}");
        storage.link_file(&file, &target, &AtomicBool::new(false)).unwrap();
        assert!(fs::read(&target).unwrap() == content, "{name}");
        assert!(storage.get(name).unwrap() == content, "{name}");
        storage.verify(&file).unwrap();
        let end = storage.read_at(&file, file.size - 5, 5).unwrap();
        assert_eq!(end, content[count - 5..], "{name}");
    }
    let content = bytes(20 << 20);
    let file = storage.put_atomic("bytes", &content).unwrap();
    assert!(storage.read(&file).unwrap() == content);

    // What cannot be read here is nothing there.
    let unreadable = storage.put_file("nothing", local.path()).unwrap_err().to_string();
    assert!(unreadable.contains(&local.path().display().to_string()), "{unreadable}");
    assert!(!storage.exists("nothing").unwrap());

    // A bit that flips in the middle is seen, and no file is left that has it.
    let object = server.object("large/many");
    let mut damaged = fs::read(&object).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&object, &damaged).unwrap();
    let file =
        SnapshotFile { name: "many".into(), path: "many".into(), size: damaged.len() as u64, crc32c: 0 };
    let target = local.path().join("damaged");
    let error = storage.get_file(&file, &target, &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("s3://bucket/large/many of the snapshot is damaged"), "{error}");
    assert!(!target.exists() && fs::read_dir(local.path()).unwrap().count() == 4);
}

#[test]
fn what_is_missing_or_cut_short_is_named() {
    let Some(Turn { server, _turn }) = server() else { return };
    let storage = folder("damage");
    for count in [1_000, 20 << 20] {
        let file = storage.put_atomic("file", &bytes(count)).unwrap();
        let object = fs::File::options().write(true).open(server.object("damage/file")).unwrap();
        for left in [count as u64 / 2, 0] {
            object.set_len(left).unwrap();
            for error in [storage.read(&file).unwrap_err(), storage.verify(&file).unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
                assert!(error.to_string().contains("s3://bucket/damage/file"), "{error}");
            }
            assert_eq!(storage.read_at(&file, count as u64 - 9, 9).unwrap_err().kind(), ErrorKind::BadInput);
        }
        storage.delete("file").unwrap();
        let error = storage.read(&file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert!(error.to_string().contains("s3://bucket/damage/file: there is no such object"), "{error}");
    }
    let elsewhere = Storage::open("s3://nobucket/a").unwrap();
    let error = elsewhere.put_atomic("file", b"1").unwrap_err().to_string();
    assert!(error.contains("s3://nobucket/a/file: there is no such bucket"), "{error}");
}

#[test]
fn a_wrong_key_is_refused_and_not_told() {
    let Some(Turn { server, _turn }) = server() else { return };
    let storage = folder("denied");
    set(&server, &[("s3.secret-key", "wrong-and-never-told")]);
    for error in [
        storage.put_atomic("file", b"1").unwrap_err(),
        storage.get("file").unwrap_err(),
        storage.list().unwrap_err(),
        storage.delete_tree().unwrap_err(),
        storage.delete_all(&["file"]).unwrap().1,
    ] {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
        assert!(text.contains("s3://bucket/denied") && text.contains("s3.secret-key"), "{text}");
        assert!(!text.contains("never-told"), "{text}");
    }
    set(&server, &[]);
    storage.put_atomic("file", b"1").unwrap();
}

#[test]
fn files_are_deleted_one_by_one_many_at_once_and_with_their_folder() {
    let Some(_turn) = server() else { return };
    let storage = folder("delete");
    storage.put_atomic("one", b"1").unwrap();
    assert_eq!((storage.delete("one").unwrap(), storage.delete("one").unwrap()), (true, false));
    let names: Vec<String> = (0..60).map(|number| format!("sub-{}/{number}", number % 7)).collect();
    for name in &names {
        storage.put_atomic(name, name.as_bytes()).unwrap();
    }
    let (some, rest) = names.split_at(50);
    // More than one request may name, most of which are not there.
    let absent: Vec<String> = (0..2_500).map(|number| format!("absent-{number}")).collect();
    let some: Vec<&str> = some.iter().chain(&absent).map(String::as_str).collect();
    assert!(storage.delete_all(&some).is_none());
    assert!(some.iter().take(50).all(|name| !storage.exists(name).unwrap()));
    assert!(rest.iter().all(|name| storage.exists(name).unwrap()));
    assert!(!storage.delete_if_empty().unwrap());
    // A folder whose name begins alike is another.
    let other = folder("delete-not");
    other.put_atomic("file", b"1").unwrap();
    assert_eq!((storage.delete_tree().unwrap(), storage.delete_tree().unwrap()), (true, false));
    assert!(storage.list().unwrap().is_empty() && storage.delete_if_empty().unwrap());
    assert!(other.exists("file").unwrap());
    let whole = Storage::open("s3://bucket").unwrap().delete_tree().unwrap_err().to_string();
    assert!(whole.contains("is the whole bucket"), "{whole}");
}
