use std::fs;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use flott_dataflow::context::Settings;
use flott_dataflow::harness::HarnessBuilder;
use flott_dataflow::operator::OutputTag;

use super::{JsonEncoder, JsonLines, ParseJson, Rejected};
use crate::bad_record::OnBadRecord;
use crate::file_sink::Encoder;
use crate::test_kit::{Driver, drain, read_by};

#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
struct Click {
    user: String,
    count: Option<i64>,
}

#[test]
fn values_are_read_line_by_line_and_blank_lines_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clicks.jsonl");
    fs::write(&path, "{\"user\":\"a\\nb\",\"count\":1}\r\n\n  \n{\"count\":null,\"user\":\"\"}").unwrap();
    let read: Vec<Click> = drain(&JsonLines::new(path), 10).into_iter().map(|(click, _)| click).collect();
    let expected =
        [Click { user: "a\nb".into(), count: Some(1) }, Click { user: String::new(), count: None }];
    assert_eq!(read, expected);
}

#[test]
fn a_bad_value_is_named_with_line_byte_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clicks.jsonl");
    fs::write(&path, "{\"user\":\"a\"}\n{\"user\":7}\n{\"user\"\n").unwrap();
    let source = JsonLines::<Click>::new(&path);
    let error = Driver::new(&source, 1).try_drain(10).unwrap_err().to_string();
    let expected = "clicks.jsonl: line 2 (byte 13): column 9: invalid type: integer `7`, expected a string: \
                    \"{\\\"user\\\":7}\"";
    assert!(error.ends_with(expected), "{error}");
    let source = source.on_bad_record(OnBadRecord::SkipAndCount);
    let mut driver = Driver::new(&source, 1);
    assert_eq!(driver.try_drain(10).unwrap().len(), 1);
    assert_eq!(driver.contexts[0].metrics.undecodable_records.load(Ordering::Relaxed), 2);
}

proptest! {
    #[test]
    fn what_the_encoder_writes_is_read_back(
        rows: Vec<(String, Option<i64>)>,
        split_bytes in 1u64..500,
        readers in 1u32..4,
    ) {
        let mut rows: Vec<Click> = rows.into_iter().map(|(user, count)| Click { user, count }).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clicks.jsonl");
        let mut bytes = Vec::new();
        JsonEncoder.encode(&rows, true, &mut bytes).unwrap();
        fs::write(&path, bytes).unwrap();
        let mut read = read_by(&JsonLines::<Click>::new(path).split_bytes(split_bytes), readers, 5).concat();
        read.sort_by(|a, b| a.partial_cmp(b).unwrap());
        rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        prop_assert_eq!(read, rows);
    }
}

#[test]
fn a_stream_of_lines_is_parsed_and_rejects_go_aside() {
    let tag = OutputTag::<Rejected>::new("rejects");
    let mut parser = HarnessBuilder::new(Settings::default())
        .side(&tag)
        .one_input(|ctx| Ok(ParseJson::<u32>::with_rejects(tag.clone(), ctx)))
        .unwrap();
    parser.push_all([("1", 10), ("x", 20), ("3", 30)].map(|(line, time)| (line.to_string(), time))).unwrap();
    assert_eq!(parser.take(), [(1, 10), (3, 30)]);
    let rejected = Rejected { text: "x".into(), error: "column 1: expected value".into() };
    assert_eq!(parser.take_side(&tag), [(rejected, 20)]);
    assert_eq!(parser.context().metrics.undecodable_records.load(Ordering::Relaxed), 1);
}

#[test]
fn a_stream_of_lines_fails_on_a_bad_one_by_default() {
    let mut parser = flott_dataflow::harness::Harness::one_input(|ctx| {
        Ok(ParseJson::<u32>::new(OnBadRecord::default(), ctx))
    })
    .unwrap();
    let error = parser.push("-1".to_string(), 0).unwrap_err().to_string();
    assert!(error.starts_with("operator '") && error.contains("column 2: invalid value"), "{error}");
}
