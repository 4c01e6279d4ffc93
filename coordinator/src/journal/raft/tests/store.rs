//! The database, and openraft's demands on a store.

use std::path::Path;
use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::error::JournalError;
use super::super::log_store::LogStore;
use super::super::record;
use super::super::state_machine::{Order, StateMachine};
use super::super::store::Store;
use super::super::types::{Entry, LogId, Proposal, StorageError, Types, Vote};
use crate::machine::{ClusterState, Limits};

/// Plays the service's loop, on a thread of its own.
fn obey(mut orders: mpsc::Receiver<Order>) {
    std::thread::spawn(move || {
        let mut state = ClusterState::new(Limits::default());
        while let Some(order) = orders.blocking_recv() {
            match order {
                Order::Apply { .. } => {}
                Order::Capture(reply) => drop(reply.send(state.clone())),
                Order::Restore(restored, done) => {
                    state = *restored;
                    let _ = done.send(());
                }
            }
        }
    });
}

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path()).unwrap();
        let (sender, orders) = mpsc::channel(4);
        obey(orders);
        let (machine, _) = StateMachine::open(store.clone(), sender).unwrap();
        Ok((directory, LogStore::new(store), machine))
    }
}

#[test]
fn it_is_a_store_as_openraft_wants_it() {
    Suite::test_all(Builder).unwrap();
}

fn entry(index: u64) -> Entry {
    let proposal = Proposal { proposer: 7, number: index + 1, events: vec![vec![index as u8; 100]] };
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(proposal) }
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(3, 1), index)
}

fn append(store: &Store, entries: impl IntoIterator<Item = Entry>) {
    let (done, saved) = tokio::sync::oneshot::channel();
    store.append(entries, super::super::flusher::Done::Saved(done)).unwrap();
    saved.blocking_recv().unwrap().unwrap();
}

fn open(directory: &Path) -> Result<Arc<Store>, JournalError> {
    Store::open(directory).map(|(store, _)| store)
}

#[test]
fn what_was_written_is_there_after_the_process_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    append(&store, (0..10).map(entry));
    store.save_vote(&Vote::new_committed(3, 1)).unwrap().blocking_recv().unwrap().unwrap();
    store.save_committed(Some(&log_id(8))).unwrap();
    store.purge(&log_id(3)).unwrap();
    store.truncate(9).unwrap();
    drop(store);
    let store = open(directory.path()).unwrap();
    assert_eq!(store.vote().unwrap(), Some(Vote::new_committed(3, 1)));
    assert_eq!(store.committed().unwrap(), Some(log_id(8)));
    assert_eq!(store.purged().unwrap(), Some(log_id(3)));
    assert_eq!(store.last().unwrap(), Some(log_id(8)));
    let entries = store.entries(0, None, usize::MAX).unwrap();
    assert_eq!(entries, (4..9).map(entry).collect::<Vec<_>>());
    // A reader that wants little gets an entry nevertheless, and the next ones later.
    assert_eq!(store.entries(5, Some(8), 0).unwrap(), vec![entry(5)]);
}

#[test]
fn a_damaged_record_is_named_and_the_log_is_not_used() {
    for (family, key, name) in [
        ("log", 4u64.to_be_bytes().to_vec(), "entry 4 of the coordinator's log"),
        ("meta", b"vote".to_vec(), "record 'meta/vote'"),
        ("meta", b"committed".to_vec(), "record 'meta/committed'"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).unwrap();
        append(&store, (0..10).map(entry));
        store.save_vote(&Vote::new(3, 1)).unwrap().blocking_recv().unwrap().unwrap();
        store.save_committed(Some(&log_id(8))).unwrap();
        drop(store);
        {
            let database = rocksdb::DB::open_cf(
                &rocksdb::Options::default(),
                directory.path(),
                ["log", "meta", "snapshot"],
            )
            .unwrap();
            let handle = database.cf_handle(family).unwrap();
            let mut value = database.get_cf(handle, &key).unwrap().unwrap();
            let middle = value.len() / 2;
            value[middle] ^= 1;
            database.put_cf(handle, &key, value).unwrap();
        }
        let error = open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert!(
            error.contains("checksum") && error.contains(&*directory.path().to_string_lossy()),
            "{error}"
        );
    }
}

#[test]
fn a_log_of_another_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    {
        let database =
            rocksdb::DB::open_cf(&rocksdb::Options::default(), directory.path(), ["log", "meta", "snapshot"])
                .unwrap();
        let newer = record::seal(b"format", &9u32.to_le_bytes());
        database.put_cf(database.cf_handle("meta").unwrap(), b"format", newer).unwrap();
    }
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("format 9, this one reads 1"), "{error}");
}

#[test]
fn a_record_in_the_wrong_place_is_damaged() {
    let sealed = record::seal(b"a", b"text");
    assert_eq!(record::open(b"a", &sealed, String::new).unwrap(), b"text");
    assert!(record::open(b"b", &sealed, String::new).is_err());
    assert!(record::open(b"a", &sealed[..3], String::new).is_err());
    assert!(record::open(b"a", b"", String::new).is_err());
}
