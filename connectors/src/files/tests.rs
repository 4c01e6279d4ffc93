//! The file machinery, through the text format.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;

use flott_dataflow::source::{Assignment, Boundedness, Source, SplitEnumerator};
use flott_schema::ErrorKind;

use super::Compression;
use crate::bad_record::OnBadRecord;
use crate::test_kit::{Driver, Turn, check_runs, drain, read_by, read_resuming, runs};
use crate::text::TextFiles;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

fn lines(source: &TextFiles) -> Vec<String> {
    drain(source, 100).into_iter().map(|(line, _)| line).collect()
}

/// `content` as gzip or Zstandard, in `members` pieces one behind the other.
fn compressed(content: &[u8], compression: Compression, members: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in content.chunks(content.len().div_ceil(members).max(1)) {
        match compression {
            Compression::None => bytes.extend_from_slice(piece),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(piece).unwrap();
                bytes.extend(encoder.finish().unwrap());
            }
            Compression::Zstd => bytes.extend(zstd::encode_all(piece, 1).unwrap()),
        }
    }
    bytes
}

/// The lines of a text, as the standard library sees them.
fn expected(content: &str) -> Vec<String> {
    content.lines().map(String::from).collect()
}

fn content() -> impl Strategy<Value = String> {
    // Without `\r` before the last end, of which `str::lines` has another opinion.
    "([a-zä ]{0,12}(\n|\r\n)){0,40}[a-z]{0,5}"
}

proptest! {
    #[test]
    fn however_a_file_is_split_every_line_is_read_once(
        content in content(),
        split_bytes in 1u64..200,
        readers in 1u32..5,
        max in 1usize..20,
    ) {
        let folder = folder();
        let path = write(folder.path(), "f", &content);
        let mut read = read_by(&TextFiles::new(path).split_bytes(split_bytes), readers, max).concat();
        let mut all = expected(&content);
        if readers > 1 {
            read.sort();
            all.sort();
        }
        prop_assert_eq!(read, all);
    }

    #[test]
    fn a_resumed_reader_reads_exactly_the_rest(
        content in content(),
        split_bytes in 1u64..200,
        max in 1usize..10,
        batches in 0usize..12,
        kind in 0usize..3,
    ) {
        let folder = folder();
        let compression = [Compression::None, Compression::Gzip, Compression::Zstd][kind];
        let name = format!("f{}", compression.suffix());
        let path = write(folder.path(), &name, compressed(content.as_bytes(), compression, 3));
        let source = TextFiles::new(path).split_bytes(split_bytes);
        let (before, after) = read_resuming(&source, max, batches);
        prop_assert_eq!([before, after].concat(), expected(&content));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn every_line_of_a_folder_is_read_once_over_restarts(
        files in prop::collection::vec((content(), 0usize..3), 0..6),
        split_bytes in 1u64..200,
        runs in runs(),
    ) {
        let folder = folder();
        for (index, (content, kind)) in files.iter().enumerate() {
            let compression = [Compression::None, Compression::Gzip, Compression::Zstd][*kind];
            let name = format!("f{index}{}", compression.suffix());
            write(folder.path(), &name, compressed(content.as_bytes(), compression, 3));
        }
        check_runs(&TextFiles::new(folder.path()).split_bytes(split_bytes), &runs)?;
    }
}

#[test]
fn the_files_of_a_folder_are_read_in_order_whatever_their_compression() {
    let folder = folder();
    fs::create_dir(folder.path().join("b")).unwrap();
    write(folder.path(), "a.txt", "a1\na2");
    write(folder.path(), "b/1.gz", compressed(b"b1\nb2\nb3\n", Compression::Gzip, 2));
    write(folder.path(), "c.zst", compressed(b"c1\r\nc2", Compression::Zstd, 4));
    write(folder.path(), "empty.txt", "");
    write(folder.path(), "empty.gz", compressed(b"", Compression::Gzip, 1));
    write(folder.path(), "_SUCCESS", "not read");
    let source = TextFiles::new(folder.path());
    assert_eq!(source.boundedness(), Boundedness::Bounded);
    assert_eq!(lines(&source), ["a1", "a2", "b1", "b2", "b3", "c1", "c2"]);
}

#[test]
fn compression_can_be_said_and_a_byte_order_mark_is_no_text() {
    let folder = folder();
    let path = write(folder.path(), "log.1", compressed("\u{feff}ä\nö\n".as_bytes(), Compression::Gzip, 1));
    assert_eq!(lines(&TextFiles::new(path).compression(Compression::Gzip)), ["ä", "ö"]);
}

#[test]
fn an_empty_folder_has_no_lines() {
    assert_eq!(lines(&TextFiles::new(folder().path())), Vec::<String>::new());
}

#[test]
fn a_large_file_is_read_over_many_buffers_and_splits() {
    let folder = folder();
    let all: Vec<String> = (0..300_000).map(|n| format!("line number {n}")).collect();
    let path = write(folder.path(), "large", all.join("\n"));
    assert!(fs::metadata(&path).unwrap().len() > 5_000_000);
    assert!(lines(&TextFiles::new(&path).split_bytes(700_001)) == all);
}

#[test]
fn a_missing_path_is_refused_before_the_job_runs() {
    let error = TextFiles::new("/no/such/place").check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().starts_with("cannot read '/no/such/place': No such file"), "{error}");
    let folder = folder();
    let error = TextFiles::new(folder.path()).split_bytes(0).check().unwrap_err().to_string();
    assert_eq!(error, "split_bytes must be at least 1");
}

#[test]
fn a_file_that_goes_away_or_shrinks_after_the_listing_is_an_error_that_names_it() {
    let folder = folder();
    let path = write(folder.path(), "f", "a\nb\n");
    let source = TextFiles::new(folder.path());
    let mut driver = Driver::new(&source, 1);
    fs::write(&path, "a\n").unwrap();
    let error = driver.try_drain(10).unwrap_err().to_string();
    assert!(error.contains("f' has 2 bytes and had 4 when it was listed"), "{error}");
    let mut driver = Driver::new(&source, 1);
    fs::remove_file(&path).unwrap();
    let error = driver.try_drain(10).unwrap_err().to_string();
    assert!(error.contains("f': No such file"), "{error}");
}

#[test]
fn a_line_that_is_too_long_is_an_error_that_names_file_and_offset() {
    let folder = folder();
    let path = write(folder.path(), "f", "short\nmuch longer\n");
    let source = TextFiles::new(&path).max_line_bytes(8).on_bad_record(OnBadRecord::SkipAndCount);
    let error = Driver::new(&source, 1).try_drain(10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let text = error.to_string();
    assert!(text.contains("/f: the line at byte 6 is longer than 8 bytes; raise max_line_bytes"), "{text}");
}

#[test]
fn a_corrupt_or_cut_compressed_file_is_bad_input_that_names_it() {
    let folder = folder();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let content: Vec<u8> =
            (0..5000u32).flat_map(|n| format!("{}\n", n * 7919 % 5003).into_bytes()).collect();
        let mut bytes = compressed(&content, compression, 1);
        bytes.truncate(bytes.len() / 2);
        let path = write(folder.path(), &format!("cut{}", compression.suffix()), bytes);
        let error = Driver::new(&TextFiles::new(&path), 1).try_drain(10_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
        assert!(error.to_string().contains("cut."), "{error}");
        let path = write(folder.path(), &format!("no{}", compression.suffix()), "no archive at all");
        let error = Driver::new(&TextFiles::new(&path), 1).try_drain(10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    }
}

#[test]
fn bytes_that_are_no_text_are_dealt_with_as_configured() {
    let folder = folder();
    let path = write(folder.path(), "f", b"good\nb\xffd\nfine\n\xfe\n");
    let source = TextFiles::new(&path);
    let error = Driver::new(&source, 1).try_drain(10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let shown = format!("{}: line 2 (byte 5): column 2: not valid UTF-8: \"b\u{fffd}d\"", path.display());
    assert_eq!(error.to_string(), shown);

    let skipping = source.clone().on_bad_record(OnBadRecord::SkipAndCount);
    let mut driver = Driver::new(&skipping, 1);
    let read: Vec<String> = driver.try_drain(10).unwrap().into_iter().map(|(line, _)| line).collect();
    assert_eq!(read, ["good", "fine"]);
    assert_eq!(driver.contexts[0].metrics.undecodable_records.load(Ordering::Relaxed), 2);

    let dead = folder.path().join("dead.jsonl");
    assert_eq!(lines(&source.on_bad_record(OnBadRecord::DeadLetter(dead.clone()))), ["good", "fine"]);
    let letters = fs::read_to_string(dead).unwrap();
    let letters: Vec<serde_json::Value> =
        letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[1]["file"], path.to_str().unwrap());
    assert_eq!((&letters[1]["line"], &letters[1]["offset"]), (&4.into(), &14.into()));
    assert_eq!(letters[1]["hex"], "fe");
}

#[test]
fn line_numbers_are_right_after_a_resume_and_left_out_where_unknown() {
    let folder = folder();
    let content = b"1\n2\n3\n\xff\n";
    for name in ["f", "f.gz"] {
        let compression = Compression::of_path(Path::new(name));
        let path = write(folder.path(), name, compressed(content, compression, 1));
        let source = TextFiles::new(&path);
        let mut driver = Driver::new(&source, 1);
        let mut cx = Context::from_waker(Waker::noop());
        while !matches!(driver.turn(0, 2, &mut cx).unwrap(), Turn::Batch(_)) {}
        driver.restart(&source, 0);
        let error = driver.try_drain(2).unwrap_err().to_string();
        assert!(error.contains(": line 4 (byte 6): "), "{error}");
    }
    let source = TextFiles::new(folder.path().join("f")).split_bytes(4);
    let error = Driver::new(&source, 1).try_drain(10).unwrap_err().to_string();
    assert!(error.contains("/f: byte 6: "), "{error}");
}

#[test]
fn a_long_stretch_of_bad_lines_does_not_hold_up_the_task() {
    let folder = folder();
    let mut content = b"\xff\n".repeat(1000);
    content.extend_from_slice(b"end\n");
    let path = write(folder.path(), "f", content);
    let source = TextFiles::new(&path).on_bad_record(OnBadRecord::SkipAndCount);
    let mut driver = Driver::new(&source, 1);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(driver.turn(0, 10, &mut cx).unwrap(), Turn::GotSplit);
    for turn in 0..12 {
        assert_eq!(driver.turn(0, 10, &mut cx).unwrap(), Turn::Pending, "turn {turn}");
    }
    // What was skipped is not read again by whoever goes on from here.
    driver.restart(&source, 0);
    assert_eq!(driver.try_drain(10).unwrap().len(), 1);
    assert_eq!(driver.contexts[0].metrics.undecodable_records.load(Ordering::Relaxed), 1000);
}

/// The lines that a reader of a watched folder finds before it is told to wait, and for how long.
fn until_later(driver: &mut Driver<TextFiles>) -> (Vec<String>, u64) {
    let mut found = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match driver.turn(0, 10, &mut cx).unwrap() {
            Turn::Batch(batch) => found.extend(batch.into_iter().map(|(line, _)| line)),
            Turn::Later(ms) => return (found, ms),
            Turn::Ended => panic!("a watched folder has no end"),
            Turn::GotSplit | Turn::Pending => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watched_folder_gives_new_and_changed_files() {
    let folder = folder();
    write(folder.path(), "a", "a1\n");
    let source = TextFiles::new(folder.path()).monitor_continuously(Duration::from_secs(10));
    assert_eq!(source.boundedness(), Boundedness::Unbounded);
    let mut driver = Driver::new(&source, 1);
    assert_eq!(until_later(&mut driver), (vec!["a1".to_string()], 10_000));

    write(folder.path(), "b", "b1\n");
    write(folder.path(), ".c", "hidden\n");
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(until_later(&mut driver), (vec![], 6_000), "the next listing is not due yet");
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(until_later(&mut driver).0, ["b1"]);

    write(folder.path(), "a", "a1\na2\n");
    fs::rename(folder.path().join(".c"), folder.path().join("c")).unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(until_later(&mut driver).0, ["a1", "a2", "hidden"], "a changed file is read as a whole");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(until_later(&mut driver).0, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_watched_folder_goes_on_from_a_snapshot_without_reading_a_file_again() {
    let folder = folder();
    for name in ["a", "b", "c"] {
        write(folder.path(), name, format!("{name}1\n{name}2\n"));
    }
    let source = TextFiles::new(folder.path()).split_bytes(3).monitor_continuously(Duration::from_secs(10));
    let mut driver = Driver::new(&source, 1);
    let mut cx = Context::from_waker(Waker::noop());
    let mut found = Vec::new();
    while found.len() < 2 {
        if let Turn::Batch(batch) = driver.turn(0, 1, &mut cx).unwrap() {
            found.extend(batch.into_iter().map(|(line, _)| line));
        }
    }
    let snapshot = driver.snapshot();
    write(folder.path(), "c", "c1\nc2\nc3\n");
    write(folder.path(), "d", "d1\n");
    let mut restored = Driver::restored(&source, 1, &snapshot);
    found.extend(until_later(&mut restored).0);
    // What was listed with its old length is read up to there, and as a whole once more because it has changed.
    let expected = ["a1", "a2", "b1", "b2", "c1", "c2", "c1", "c2", "c3", "d1"];
    assert_eq!(found, expected);
    tokio::time::advance(Duration::from_secs(10)).await;
    let mut again = Driver::restored(&source, 1, &restored.snapshot());
    assert_eq!(until_later(&mut again).0, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_watched_folder_that_goes_away_is_an_error() {
    let folder = folder();
    let source = TextFiles::new(folder.path()).monitor_continuously(Duration::from_secs(1));
    let mut enumerator = source.enumerator(1).unwrap();
    assert_eq!(enumerator.next_split(0).unwrap(), Assignment::Later(1000));
    folder.close().unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(enumerator.next_split(0).unwrap_err().to_string().contains("cannot read"));
}
