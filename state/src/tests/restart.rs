//! What tasks hand in, and what they start from at the same parallelism.

use std::sync::mpsc::sync_channel;

use flott_dataflow::snapshot::TaskState;
use flott_schema::ErrorKind;
use flott_schema::snapshot::{Barrier, SnapshotKind, SnapshotTimes};

use super::kit::*;
use crate::{Backend, ChannelFrames, FetchedTask, StateService, TaskBackend, TaskExtras};

const KINDS: [SnapshotKind; 4] = [SnapshotKind::Checkpoint, SnapshotKind::FullCheckpoint, CANONICAL, NATIVE];

fn fill(tasks: &mut [Task]) {
    for key in 0..100 {
        set(tasks, false, key, Some(&format!("value {key}")));
        set(tasks, true, key * 2, Some(&"long".repeat(key as usize)));
    }
    for key in 0..10 {
        set(tasks, false, key, None);
    }
}

#[test]
fn tasks_start_with_what_was_handed_in_for_every_kind_of_snapshot_and_backend() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        for kind in KINDS {
            let mut cluster = Cluster::new(backend);
            let mut tasks = cluster.tasks(2, None);
            assert!(!tasks[0].first.state.is_restored());
            fill(&mut tasks);
            let taken = cluster.take(&mut tasks, kind);
            let expected = all_rows(&tasks);
            // The tasks live on: those that start now must not disturb them.
            assert_eq!(cluster.restored(2, &taken), expected, "{backend:?} {kind:?}");
            let restored = cluster.tasks(2, Some(&taken));
            assert!(restored[0].first.state.is_restored());
            drop(tasks);
            assert_eq!(all_rows(&restored), expected);
        }
    }
}

#[test]
fn rows_that_do_not_fit_into_the_buffer_go_into_several_files() {
    for (backend, other) in [(Backend::HashMap, Backend::RocksDb), (Backend::RocksDb, Backend::HashMap)] {
        for kind in KINDS {
            let mut cluster = Cluster::with(backend, |options| options.buffer_bytes = 2_000);
            let mut tasks = cluster.tasks(2, None);
            fill(&mut tasks);
            let taken = cluster.take(&mut tasks, kind);
            let expected = all_rows(&tasks);
            let rows = files(&taken).into_iter().filter(|file| !file.name.starts_with("MANIFEST")).count();
            assert!(rows > 4 || (backend, kind) == (Backend::RocksDb, CANONICAL), "{rows} files");
            assert_eq!(cluster.restored(3, &taken), expected);
            drop(tasks);
            cluster.switch(other);
            assert_eq!(cluster.restored(2, &taken), expected, "{backend:?} {kind:?}");
        }
    }
}

#[test]
fn either_backend_starts_from_the_files_of_the_other() {
    for (from, to) in [(Backend::HashMap, Backend::RocksDb), (Backend::RocksDb, Backend::HashMap)] {
        for kind in KINDS {
            let mut cluster = Cluster::new(from);
            let mut tasks = cluster.tasks(2, None);
            fill(&mut tasks);
            let taken = cluster.take(&mut tasks, kind);
            let expected = all_rows(&tasks);
            drop(tasks);
            cluster.switch(to);
            assert_eq!(cluster.restored(2, &taken), expected, "{from:?} {kind:?}");
            assert_eq!(cluster.restored(3, &taken), expected, "{from:?} {kind:?}");
        }
    }
}

#[test]
fn an_empty_state_is_a_state() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(2, None);
        for kind in KINDS {
            let taken = cluster.take(&mut tasks, kind);
            assert_eq!(cluster.restored(2, &taken), Default::default());
            assert_eq!(cluster.restored(1, &taken), Default::default());
        }
    }
}

#[test]
fn what_a_task_hands_in_says_what_it_is_and_how_large() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    fill(&mut tasks);
    let task = cluster.take(&mut tasks, SnapshotKind::Checkpoint).manifest.tasks.remove(0);
    let keyed = task.operators.iter().find(|one| one.operator == Some(keyed_operator())).unwrap();
    let tables: Vec<_> =
        keyed.keyed[0].tables.iter().map(|table| (table.name.as_str(), table.number)).collect();
    assert_eq!(tables, [("first", 0), ("second", 1)]);
    assert_eq!(keyed.keyed[0].key_groups, tasks[0].key_groups);
    let files: u64 = task.files().map(|file| file.size).sum();
    assert_eq!(task.times.written_bytes, files);
    let lists = "0.0".len() as u64 * 6 + "all".len() as u64;
    assert_eq!(task.times.state_bytes, files + lists);
    assert!(!task.finished);
}

#[test]
fn a_task_that_had_finished_keeps_its_lists_alone() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let tasks = cluster.tasks(1, None);
    let checkpoint = cluster.next();
    tasks[0].backend.begin(&Barrier::of_checkpoint(checkpoint)).unwrap();
    let state = tasks[0].backend.operator(other_operator(), "other");
    state
        .set_list("split", flott_dataflow::snapshot::ListMode::Split, "str", vec![b"left".to_vec()])
        .unwrap();
    let (send, done) = sync_channel(1);
    let extras = TaskExtras { finished: true, ..TaskExtras::default() };
    let told = Box::new(move |result| send.send(result).unwrap());
    tasks[0].backend.passed(checkpoint, extras.finished);
    tasks[0].backend.end(checkpoint, cluster.target(checkpoint, SnapshotKind::Checkpoint), extras, told);
    let snapshot = wait(&done).unwrap();
    assert!(snapshot.finished && snapshot.files().count() == 0);
    let taken = cluster.manifest(checkpoint, SnapshotKind::Checkpoint, vec![snapshot]);
    for (parallelism, expected) in [(1, [b"left".to_vec()]), (2, [b"left".to_vec()])] {
        let task =
            TaskBackend::open(&cluster.service, identity(0, parallelism, 9), Some(&taken.from)).unwrap();
        assert!(task.had_finished());
        assert_eq!(task.operator(other_operator(), "other").list("split").unwrap(), expected);
    }
}

#[test]
fn records_in_flight_come_back_at_the_same_parallelism_and_are_refused_at_another() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    let checkpoint = cluster.begin(&mut tasks, SnapshotKind::Checkpoint);
    tasks[0].first.freeze();
    tasks[0].second.freeze();
    let channels = vec![
        ChannelFrames { edge: 0, source: 1, frames: b"one".to_vec() },
        ChannelFrames { edge: 2, source: 0, frames: b"".to_vec() },
    ];
    let enumerator = Some((other_operator(), b"splits".to_vec()));
    let times = SnapshotTimes { alignment_ms: 5, ..SnapshotTimes::default() };
    let extras = TaskExtras { channels: channels.clone(), enumerator, times, finished: false };
    let (send, done) = sync_channel(1);
    let told = Box::new(move |result| send.send(result).unwrap());
    tasks[0].backend.passed(checkpoint, extras.finished);
    tasks[0].backend.end(checkpoint, cluster.target(checkpoint, SnapshotKind::Checkpoint), extras, told);
    let snapshot = wait(&done).unwrap();
    assert_eq!((snapshot.times.persisted_bytes, snapshot.times.alignment_ms), (3, 5));
    let taken = cluster.manifest(checkpoint, SnapshotKind::Checkpoint, vec![snapshot]);
    assert_eq!(crate::enumerator_state(&taken.manifest, other_operator()), Some(&b"splits"[..]));
    let open =
        |parallelism| TaskBackend::open(&cluster.service, identity(0, parallelism, 9), Some(&taken.from));
    assert_eq!(open(1).unwrap().channel_state(), channels);
    let error = open(2).err().unwrap().to_string();
    assert!(error.contains("had 1 tasks and has 2 now") && error.contains(&taken.from.folder), "{error}");
}

#[test]
fn other_types_are_refused_with_the_names_of_both() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(1, None);
        let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let open = || TaskBackend::open(&cluster.service, identity(0, 1, 9), Some(&taken.from)).unwrap();
        let state = open().operator(keyed_operator(), "keyed");
        let mut other = spec("first");
        other.value_type = "i64".into();
        let error = state.table(other).unwrap_err().to_string();
        for part in ["operator 'keyed'", "table 'first'", "values of type str", "registered with i64"] {
            assert!(error.contains(part), "{error}");
        }
        let mut other = spec("first");
        other.key_type = "i32".into();
        let error = state.table(other).unwrap_err().to_string();
        assert!(error.contains("keys of type u32") && error.contains("registered with i32"), "{error}");
        // What would do for values does not for keys.
        let mut other = spec("first");
        other.key_type = "u32?".into();
        let error = state.table(other).unwrap_err().to_string();
        assert!(error.contains("the type of keys cannot change"), "{error}");
        let mut unknown = spec("first");
        unknown.value_type = String::new();
        assert_eq!(state.table(unknown).unwrap(), tasks[0].first.id);
    }
}

#[test]
fn values_become_what_their_type_has_become() {
    for (backend, then) in [
        (Backend::HashMap, Backend::HashMap),
        (Backend::RocksDb, Backend::RocksDb),
        (Backend::RocksDb, Backend::HashMap),
        (Backend::HashMap, Backend::RocksDb),
    ] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(2, None);
        fill(&mut tasks);
        let first = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let expected = all_rows(&tasks).0;
        cluster.switch(then);
        // The texts of these tests are taken for arrays of bytes.
        let typed = |cluster: &Cluster, taken: &Taken, value_type: &str| -> Vec<(Task, Rows)> {
            let open = |subtask| {
                let task = identity(subtask, 2, 20 + taken.from.checkpoint as u32);
                let backend = TaskBackend::open(&cluster.service, task, Some(&taken.from)).unwrap();
                let state = backend.operator(keyed_operator(), "keyed");
                let mut first = spec("first");
                first.value_type = value_type.into();
                let id = state.table(first).unwrap();
                let mut rows = Rows::new();
                let mut load = |key: &[u8], value: &[u8]| {
                    let key = u32::from_be_bytes(key.try_into().unwrap());
                    rows.insert(key, String::from_utf8(value.to_vec()).unwrap());
                    Ok(())
                };
                state.load(id, &mut load).unwrap();
                let task = Task::of(backend, state, id, rows.clone());
                (task, rows)
            };
            (0..2).map(open).collect()
        };
        let stored_as = |value_type: &str| {
            let mut taken = first.clone();
            let operators = taken.manifest.tasks.iter_mut().flat_map(|task| &mut task.operators);
            for table in
                operators.flat_map(|operator| &mut operator.keyed).flat_map(|keyed| &mut keyed.tables)
            {
                if table.name == "first" {
                    table.value_type = value_type.into();
                }
            }
            write_manifest(&taken.from.folder, &taken.manifest);
            taken
        };
        assert!(expected.values().all(|value| value.len() == 8));
        let taken = stored_as("A{a: [u8; 7], b: u8}");
        cluster.switch(then);
        let mut tasks = Vec::new();
        for (task, rows) in typed(&cluster, &taken, "B{b: u8?, new: u64, a: [u8; 7]}") {
            for (key, value) in rows {
                let (a, b) = expected[&key].split_at(7);
                assert_eq!(value, format!("\u{1}{b}\0{a}"), "{backend:?} {then:?}");
            }
            tasks.push(task);
        }
        assert_eq!(tasks.iter().map(|task| task.first.rows.len()).sum::<usize>(), expected.len());
        // The next snapshot has them as they are now.
        let second = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let again = typed(&cluster, &second, "B{b: u8?, new: u64, a: [u8; 7]}");
        assert_eq!(again.iter().map(|(_, rows)| rows.len()).sum::<usize>(), expected.len());
        assert!(again.iter().all(|(_, rows)| rows.values().all(|value| value.len() == 10)));
    }
}

#[test]
fn tables_that_nobody_registers_are_refused_or_dropped() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(1, None);
        fill(&mut tasks);
        let mut taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let open = |cluster: &Cluster, taken: &Taken| {
            let task = TaskBackend::open(&cluster.service, identity(0, 1, 9), Some(&taken.from)).unwrap();
            let state = task.operator(keyed_operator(), "keyed");
            (task, state)
        };
        let (task, state) = open(&cluster, &taken);
        state.table(spec("second")).unwrap();
        state.table(spec("frist")).unwrap();
        let error = task.check_claimed().unwrap_err().to_string();
        assert!(error.contains("a table 'first'") && error.contains("it has a 'frist'"), "{error}");

        taken.from.ignore_unclaimed = true;
        let (task, state) = open(&cluster, &taken);
        let second = state.table(spec("second")).unwrap();
        let new = state.table(spec("new")).unwrap();
        task.check_claimed().unwrap();
        let count = |table| {
            let mut count = 0;
            state
                .load(table, &mut |_, _| {
                    count += 1;
                    Ok(())
                })
                .unwrap();
            count
        };
        assert_eq!((count(second), count(new)), (100, 0));
        let all = flott_dataflow::snapshot::TableId(0);
        if backend == Backend::RocksDb {
            assert_eq!(count(all), 0, "the rows of the dropped table are gone");
        }
    }
}

#[test]
fn state_of_an_operator_that_the_job_does_not_have_is_refused_unless_it_may_be_dropped() {
    let mut cluster = Cluster::new(Backend::HashMap);
    let mut tasks = cluster.tasks(1, None);
    let mut taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let both = [(keyed_operator(), "keyed"), (other_operator(), "other")];
    crate::check_operators(&taken.from, &taken.manifest, both).unwrap();
    let renamed = [(flott_schema::ids::OperatorId::of_uid("keyd"), "keyd"), both[1]];
    let error = crate::check_operators(&taken.from, &taken.manifest, renamed).unwrap_err().to_string();
    assert!(error.contains("uid 'keyed'") && error.contains("an operator 'keyd'"), "{error}");
    taken.from.ignore_unclaimed = true;
    crate::check_operators(&taken.from, &taken.manifest, renamed).unwrap();
}

#[test]
fn another_number_of_key_groups_is_refused() {
    let mut cluster = Cluster::new(Backend::RocksDb);
    let mut tasks = cluster.tasks(1, None);
    let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
    let mut other = identity(0, 1, 9);
    other.max_parallelism = 16;
    let error = TaskBackend::open(&cluster.service, other, Some(&taken.from)).err().unwrap().to_string();
    assert!(error.contains("has 8 key groups, and the job has 16; set its max parallelism to 8"), "{error}");
}

#[test]
fn a_restart_from_the_local_backup_needs_no_files_of_the_snapshot() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::with(backend, |options| {
            options.local_backup = true;
            options.recover_from_local = true;
        });
        let mut tasks = cluster.tasks(2, None);
        fill(&mut tasks);
        cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        set(&mut tasks, false, 1, Some("later"));
        let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let expected = all_rows(&tasks);
        // The move to the backup is the last piece of work on files.
        let service = cluster.service.clone();
        let kept = |service: &StateService| {
            tasks.iter().all(|task| {
                let identity = identity(task.subtask, 2, 0);
                let backup =
                    service.backup(JOB, identity.attempt.task, keyed_operator(), identity.key_groups());
                backup.join(taken.from.checkpoint.to_string()).exists()
            })
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !kept(&service) {
            assert!(std::time::Instant::now() < deadline, "no backup is kept");
            std::thread::yield_now();
        }
        drop(tasks);
        for file in files(&taken) {
            std::fs::remove_file(std::path::Path::new(&taken.from.folder).join(&file.path)).unwrap();
        }
        assert_eq!(cluster.restored(2, &taken), expected);
        cluster.service.release(JOB).unwrap();
        assert!(cluster.try_task(0, 2, Some(&taken)).is_err(), "without it the files are missed");
    }
}

#[test]
fn an_operator_that_was_not_named_when_its_task_was_opened_gets_its_state_too() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::new(backend);
        let mut tasks = cluster.tasks(1, None);
        fill(&mut tasks);
        let taken = cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let mut task = identity(0, 1, 9);
        task.operators.clear();
        let opened = TaskBackend::open(&cluster.service, task.clone(), Some(&taken.from)).unwrap();
        let state = opened.operator(keyed_operator(), "keyed");
        let table = state.table(spec("first")).unwrap();
        let mut count = 0;
        state
            .load(table, &mut |_, _| {
                count += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(count, tasks[0].first.rows.len());
        assert_eq!(opened.operator(other_operator(), "other").list("split").unwrap().len(), 3);
        task.max_parallelism = 16;
        let opened = TaskBackend::open(&cluster.service, task, Some(&taken.from)).unwrap();
        let error = opened.operator(keyed_operator(), "keyed").table(spec("first")).unwrap_err();
        assert!(error.to_string().contains("set its max parallelism to 8"), "{error}");
    }
}

#[test]
fn working_files_go_with_their_task_and_their_service() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let mut cluster = Cluster::with(backend, |options| options.local_backup = true);
        let mut tasks = cluster.tasks(2, None);
        fill(&mut tasks);
        cluster.take(&mut tasks, SnapshotKind::Checkpoint);
        let work = cluster.directory.path().join("work");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let wait_for = |there: &dyn Fn() -> bool, what: &str| {
            while !there() {
                assert!(std::time::Instant::now() < deadline, "{what}");
                std::thread::yield_now();
            }
        };
        drop(tasks);
        let is_empty = || std::fs::read_dir(work.join("work")).unwrap().count() == 0;
        wait_for(&is_empty, "files of the tasks stay behind");
        cluster.service.release(JOB).unwrap();
        let other = tempfile::tempdir().unwrap();
        cluster.service = StateService::start(options(backend, other.path())).unwrap();
        wait_for(&|| !work.exists(), "files of the service stay behind");
    }
}

#[test]
fn a_task_that_is_gone_fetches_no_further_file() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        for kind in [SnapshotKind::Checkpoint, CANONICAL] {
            let mut cluster = Cluster::new(backend);
            let mut tasks = cluster.tasks(1, None);
            fill(&mut tasks);
            let taken = cluster.take(&mut tasks, kind);
            let gone = identity(0, 1, 7);
            gone.cancelled.store(true, std::sync::atomic::Ordering::Release);
            let fetched = FetchedTask::fetch(&cluster.service, gone, Some(&taken.from));
            let error = fetched.err().expect("nobody waits for it");
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{backend:?} {kind:?}: {error}");
        }
    }
}
