use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::sink::{Committer, Sink, SinkWriter};

use super::{Buckets, Encoder, FileSink, FileWriter, SingleFile};
use crate::files::Compression;
use crate::test_kit::context;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The files under a folder by their paths, hidden ones included or not.
fn files(folder: &Path, hidden: bool) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if hidden || !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn expect(folder: &Path, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(name, content)| (name.to_string(), content.to_string())).collect();
    assert_eq!(files(folder, true), expected);
}

fn writer<T: Record, E: Encoder<T>>(sink: &FileSink<T, E>, subtask: u32) -> FileWriter<T, E> {
    let ctx = context(subtask, subtask + 1);
    sink.check().unwrap();
    sink.writer(&ctx).unwrap()
}

/// Prepares and commits, the committables going over the wire.
fn commit<T: Record, S: Sink<T>>(sink: &S, writer: &mut S::Writer, end_of_input: bool) {
    let committables = writer.prepare_commit(end_of_input).unwrap();
    let mut bytes = Vec::new();
    encode_value(&committables, &mut bytes).unwrap();
    let mut committer = sink.committer(&context(0, 1)).unwrap();
    committer.commit(decode_value(&bytes).unwrap()).unwrap();
    // Once more, as after a failure between the commit and its confirmation.
    committer.commit(committables).unwrap();
}

#[test]
fn nothing_is_visible_before_the_commit_and_everything_after() {
    let folder = folder();
    let sink = FileSink::lines(folder.path().join("out/deep")).commit_when_rolled(false).roll_at_bytes(4);
    let mut writer = writer(&sink, 3);
    writer.write(Batch::of(vec!["one", "two"].into_iter().map(String::from).collect())).unwrap();
    writer.write(Batch::of(vec!["three".to_string()])).unwrap();
    assert_eq!(files(folder.path(), false), BTreeMap::new());
    assert_eq!(files(folder.path(), true).len(), 2, "both are there, hidden");
    commit(&sink, &mut writer, false);
    let expected = [("out/deep/part-3-0", "one\ntwo\n"), ("out/deep/part-3-1", "three\n")];
    expect(folder.path(), &expected);
    commit(&sink, &mut writer, true);
    writer.close().unwrap();
    expect(folder.path(), &expected);
}

#[test]
fn what_was_not_prepared_leaves_no_trace() {
    let folder = folder();
    let sink = FileSink::lines(folder.path()).commit_when_rolled(false).roll_at_bytes(1);
    for by_close in [true, false] {
        let mut writer = writer(&sink, 0);
        writer.write(Batch::of(vec![1, 2])).unwrap();
        writer.rolling.max_bytes = u64::MAX;
        writer.write(Batch::of(vec![3])).unwrap();
        assert_eq!(files(folder.path(), true).len(), 2, "one complete, one in progress");
        if by_close {
            writer.close().unwrap();
        } else {
            drop(writer);
        }
        expect(folder.path(), &[]);
    }
}

#[test]
fn a_prepared_file_outlives_its_writer_and_can_be_committed_later() {
    let folder = folder();
    let sink = FileSink::lines(folder.path()).commit_when_rolled(false);
    let mut old = writer(&sink, 0);
    old.write(Batch::of(vec![1])).unwrap();
    let pending = old.prepare_commit(false).unwrap();
    old.close().unwrap();
    // The job restarts: the new writer writes before the old files are committed.
    let mut new = writer(&sink, 0);
    new.write(Batch::of(vec![2])).unwrap();
    sink.committer(&context(0, 1)).unwrap().commit(pending.clone()).unwrap();
    commit(&sink, &mut new, true);
    expect(folder.path(), &[("part-0-0", "1\n"), ("part-0-1", "2\n")]);
    // Whoever reads the files takes them away; a commit that is repeated is none the worse.
    fs::remove_file(folder.path().join("part-0-0")).unwrap();
    let mut committer = sink.committer(&context(0, 1)).unwrap();
    committer.commit_restored(pending.clone()).unwrap();
    expect(folder.path(), &[("part-0-1", "2\n")]);
    let mut elsewhere = pending.clone();
    elsewhere[0].finished = folder.path().join("gone").join("part-0-0");
    elsewhere[0].in_progress = folder.path().join("gone").join(".part-0-0.inprogress");
    let error = committer.commit_restored(elsewhere).unwrap_err().to_string();
    assert!(error.contains("do all workers see that folder"), "{error}");
    // Of what has just been written, it means that it is lost.
    let error = committer.commit(pending).unwrap_err().to_string();
    assert!(error.contains("part-0-0' is lost"), "{error}");
}

#[test]
fn without_checkpoints_a_file_is_visible_when_it_is_complete() {
    let folder = folder();
    let sink = FileSink::lines(folder.path()).roll_at_bytes(1000);
    let mut writer = writer(&sink, 0);
    for n in 0..10 {
        writer.write(Batch::of(vec![n; 100])).unwrap();
    }
    let visible = files(folder.path(), false);
    assert_eq!(visible.len(), 2, "{visible:?}");
    assert!(visible.values().all(|content| content.len() >= 1000));
    commit(&sink, &mut writer, true);
    let all: Vec<String> = files(folder.path(), true).into_values().collect();
    let expected: String = (0..10).map(|n| format!("{n}\n").repeat(100)).collect();
    assert_eq!(all.concat(), expected);
}

#[test]
fn files_roll_by_age_and_by_inactivity() {
    let folder = folder();
    let sink = FileSink::lines(folder.path())
        .roll_after(Duration::from_millis(1000))
        .roll_after_inactivity(Duration::from_millis(300));
    let ctx = context(0, 1);
    let mut writer = sink.writer(&ctx).unwrap();
    let mut rolled_at = Vec::new();
    let mut visible = 0;
    for now_ms in (5000..8000).step_by(100) {
        ctx.task.set_now_ms(now_ms);
        if now_ms >= writer.next_deadline_ms() {
            writer.on_deadline(now_ms).unwrap();
        }
        if files(folder.path(), false).len() > visible {
            visible += 1;
            rolled_at.push(now_ms);
        }
        // Records every 100 ms, and a pause.
        if !(6500..7500).contains(&now_ms) {
            writer.write(Batch::of(vec![now_ms])).unwrap();
        }
    }
    assert_eq!(rolled_at, [6000, 6700], "a second after the first record, 300 ms after the last");
    commit(&sink, &mut writer, true);
    assert_eq!(<FileWriter<i64, _> as SinkWriter<i64>>::next_deadline_ms(&writer), i64::MAX);
    let lines: usize = files(folder.path(), true).values().map(|content| content.lines().count()).sum();
    assert_eq!(lines, 20);
}

#[test]
fn files_of_an_earlier_run_are_not_written_over() {
    let folder = folder();
    let sink = FileSink::lines(folder.path()).suffix(".txt");
    for run in 0..3 {
        let mut writer = writer(&sink, 1);
        writer.write(Batch::of(vec![run])).unwrap();
        commit(&sink, &mut writer, true);
    }
    fs::remove_file(folder.path().join("part-1-0.txt")).unwrap();
    let mut next = writer(&sink, 1);
    next.write(Batch::of(vec![3])).unwrap();
    commit(&sink, &mut next, true);
    expect(folder.path(), &[("part-1-1.txt", "1\n"), ("part-1-2.txt", "2\n"), ("part-1-3.txt", "3\n")]);
}

#[test]
fn two_jobs_that_meet_in_one_folder_get_an_error_and_lose_nothing() {
    let folder = folder();
    let sink = FileSink::lines(folder.path());
    let (mut one, mut two) = (writer(&sink, 0), writer(&sink, 0));
    one.write(Batch::of(vec![1])).unwrap();
    fs::rename(folder.path(), folder.path().with_extension("away")).unwrap();
    fs::create_dir(folder.path()).unwrap();
    two.write(Batch::of(vec![2])).unwrap();
    commit(&sink, &mut two, true);
    // Now the first one's files come back, beside a file of the same number.
    let away = folder.path().with_extension("away");
    for entry in fs::read_dir(&away).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    fs::remove_dir(away).unwrap();
    let error = one.prepare_commit(true).unwrap_err().to_string();
    assert!(error.contains("part-0-0' is there already and is not written over"), "{error}");
    assert_eq!(files(folder.path(), false)["part-0-0"], "2\n");
}

#[test]
fn buckets_are_folders() {
    let folder = folder();
    let sink = FileSink::lines(folder.path()).buckets(Buckets::by(|n: &i32| format!("even={}/", n % 2 == 0)));
    let mut writer = writer(&sink, 0);
    writer.write(Batch::of((0..6).collect())).unwrap();
    commit(&sink, &mut writer, true);
    let expected = [("even=false/part-0-1", "1\n3\n5\n"), ("even=true/part-0-0", "0\n2\n4\n")];
    expect(folder.path(), &expected);

    let sink = FileSink::lines(folder.path().join("hours")).buckets(Buckets::EventTime { hourly: true });
    let mut writer = self::writer(&sink, 0);
    let mut batch = Batch::default();
    for hour in [0, 1, 0] {
        batch.push(hour, hour * 3_600_000);
    }
    writer.write(batch).unwrap();
    commit(&sink, &mut writer, true);
    let expected = [("1970-01-01--00/part-0-0", "0\n0\n"), ("1970-01-01--01/part-0-1", "1\n")];
    expect(&folder.path().join("hours"), &expected);
}

#[test]
fn the_number_of_open_files_is_bounded() {
    let folder = folder();
    let sink = FileSink::lines(folder.path()).buckets(Buckets::by(|n: &u32| format!("b{n}")));
    let mut writer = writer(&sink, 0);
    writer.write(Batch::of((0..300).collect())).unwrap();
    assert_eq!(files(folder.path(), false).len(), 300 - 256);
    commit(&sink, &mut writer, true);
    assert_eq!(files(folder.path(), true).len(), 300);
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    id: u32,
    name: String,
}

fn rows() -> Vec<Row> {
    vec![Row { id: 1, name: "a,b".into() }, Row { id: 2, name: "c".into() }]
}

#[test]
fn every_csv_file_has_a_header_and_json_has_a_line_for_each_record() {
    let folder = folder();
    let sink = FileSink::csv(folder.path().join("csv"));
    let mut writer = writer(&sink, 0);
    for _ in 0..2 {
        for row in rows() {
            writer.write(Batch::of(vec![row])).unwrap();
        }
        commit(&sink, &mut writer, false);
    }
    let content = "id,name\n1,\"a,b\"\n2,c\n";
    expect(&folder.path().join("csv"), &[("part-0-0.csv", content), ("part-0-1.csv", content)]);

    let sink = FileSink::json(folder.path().join("json"));
    let mut writer = self::writer(&sink, 0);
    writer.write(Batch::of(rows())).unwrap();
    commit(&sink, &mut writer, true);
    let content = "{\"id\":1,\"name\":\"a,b\"}\n{\"id\":2,\"name\":\"c\"}\n";
    expect(&folder.path().join("json"), &[("part-0-0.jsonl", content)]);
}

#[test]
fn compressed_files_are_whole_and_named_so() {
    let folder = folder();
    let records: Vec<u32> = (0..100_000).collect();
    let expected: String = records.iter().map(|n| format!("{n};")).collect();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let encode = |n: &u32, bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(format!("{n};").as_bytes());
            Ok(())
        };
        let sink = FileSink::encode_with(folder.path(), encode).compression(compression);
        let mut writer = writer(&sink, 0);
        writer.write(Batch::of(records.clone())).unwrap();
        commit(&sink, &mut writer, true);
    }
    let mut text = String::new();
    let gzip = fs::File::open(folder.path().join("part-0-0.gz")).unwrap();
    flate2::read::GzDecoder::new(gzip).read_to_string(&mut text).unwrap();
    assert!(text == expected);
    let zstd = fs::File::open(folder.path().join("part-0-1.zst")).unwrap();
    assert!(zstd::decode_all(zstd).unwrap() == expected.as_bytes());
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_beforehand() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Sink::<u8>::check(&FileSink::lines(&path)).unwrap_err().to_string();
        assert!(error.contains("file' is no folder"), "{error}");
    }
    Sink::<u8>::check(&FileSink::lines(folder.path().join("a/b"))).unwrap();
    assert_eq!(files(folder.path(), true).len(), 1, "the check leaves nothing behind");
}

#[test]
fn a_single_file_appears_as_a_whole_and_replaces_the_old_one() {
    let folder = folder();
    let path = folder.path().join("result.txt");
    fs::write(&path, "old").unwrap();
    let sink = SingleFile::lines(&path);
    Sink::<String>::check(&sink).unwrap();
    let mut writer = Sink::<String>::writer(&sink, &context(0, 1)).unwrap();
    writer.write(Batch::of(vec!["b".to_string(), "a".to_string()])).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    commit::<String, _>(&sink, &mut writer, true);
    SinkWriter::<String>::close(&mut writer).unwrap();
    expect(folder.path(), &[("result.txt", "b\na\n")]);

    let error = Sink::<String>::check(&SingleFile::lines(&path).keep_existing()).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
}

#[test]
fn a_single_file_without_records_is_empty_and_a_failed_job_leaves_none() {
    let folder = folder();
    let path = folder.path().join("result.json");
    let sink = SingleFile::json(&path);
    let mut failed = Sink::<u8>::writer(&sink, &context(0, 1)).unwrap();
    failed.write(Batch::of(vec![1u8])).unwrap();
    drop(failed);
    expect(folder.path(), &[]);
    let mut writer = Sink::<u8>::writer(&sink, &context(0, 1)).unwrap();
    commit::<u8, _>(&sink, &mut writer, true);
    expect(folder.path(), &[("result.json", "")]);
}

#[test]
fn a_single_file_has_one_writer() {
    let sink = SingleFile::lines("result.txt");
    let error = Sink::<u8>::writer(&sink, &context(0, 2)).err().unwrap().to_string();
    assert!(error.contains("has 2 writers; set parallelism(1)"), "{error}");
    let error = Sink::<u8>::check(&SingleFile::lines("/tmp")).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
}
