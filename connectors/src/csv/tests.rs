use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use flott_dataflow::source::Source;

use super::{CsvEncoder, CsvFiles};
use crate::bad_record::OnBadRecord;
use crate::file_sink::Encoder;
use crate::test_kit::{Driver, check_runs_by, drain, read_by, read_resuming, runs};

#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
struct Order {
    id: u32,
    item: String,
    price: Option<f64>,
}

fn order(id: u32, item: &str, price: Option<f64>) -> Order {
    Order { id, item: item.to_string(), price }
}

fn file(content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.csv");
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn orders(source: &CsvFiles<Order>) -> Vec<Order> {
    drain(source, 100).into_iter().map(|(order, _)| order).collect()
}

fn error<T: flott_dataflow::batch::Record>(source: &CsvFiles<T>) -> String {
    Driver::new(source, 1).try_drain(100).err().expect("an error").to_string()
}

#[test]
fn columns_are_found_by_name_in_any_order() {
    let (_folder, path) = file("price,note,id,item\r\n1.5,x,1,\"a \"\"b\"\", c\"\r\n\r\n,y,2,d");
    let expected = [order(1, "a \"b\", c", Some(1.5)), order(2, "d", None)];
    assert_eq!(orders(&CsvFiles::new(path)), expected);
}

#[test]
fn without_header_fields_are_taken_in_order() {
    let (_folder, path) = file("1|a|2.5\n2|'b|c'|\n");
    let source =
        CsvFiles::<(u32, String, Option<f64>)>::new(&path).has_header(false).delimiter(b'|').quote(b'\'');
    let read: Vec<_> = drain(&source, 10).into_iter().map(|(record, _)| record).collect();
    assert_eq!(read, [(1, "a".to_string(), Some(2.5)), (2, "b|c".to_string(), None)]);
}

#[test]
fn a_bad_field_is_named_with_its_place() {
    let (_folder, path) = file("id,item,price\n1,a,2\n2,b,cheap\n");
    let text = error(&CsvFiles::<Order>::new(&path));
    let expected = "orders.csv: line 3 (byte 20): field 3 'price': invalid float literal: \"2,b,cheap\"";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_record_of_another_length_is_bad_unless_the_file_is_flexible() {
    let (_folder, path) = file("id,item,price\n1,a,2,more\n2,b\n");
    let text = error(&CsvFiles::<Order>::new(&path));
    assert!(text.contains("line 2 (byte 14): 4 fields where the header has 3: \"1,a,2,more\""), "{text}");
    assert_eq!(
        orders(&CsvFiles::new(&path).flexible(true)),
        [order(1, "a", Some(2.0)), order(2, "b", None)],
        "a column that is missing at the end is none"
    );
    let (_folder, path) = file("1,a\n2\n");
    let text = error(&CsvFiles::<(u32, Option<String>)>::new(&path).has_header(false));
    assert!(text.contains("line 2 (byte 4): 1 fields where the first line has 2"), "{text}");
}

#[test]
fn a_quote_that_is_not_closed_spoils_one_line_only() {
    let (_folder, path) = file("id,item,price\n1,\"a,2\n2,b,3\n");
    let text = error(&CsvFiles::<Order>::new(&path));
    assert!(
        text.contains("line 2") && text.contains("a quoted field is not closed; set multiline(true)"),
        "{text}"
    );
    let skipping = CsvFiles::new(&path).on_bad_record(OnBadRecord::SkipAndCount);
    assert_eq!(orders(&skipping), [order(2, "b", Some(3.0))]);
}

#[test]
fn fields_of_several_lines_keep_their_line_ends() {
    let (_folder, path) = file("id,\"item\",price\r\n1,\"two\r\nlines\n\nfour\",1\r\n2,b,\n");
    let source = CsvFiles::new(&path).multiline(true).split_bytes(3);
    assert_eq!(orders(&source), [order(1, "two\r\nlines\n\nfour", Some(1.0)), order(2, "b", None)]);
}

#[test]
fn a_header_may_have_several_lines_too() {
    let (_folder, path) = file("id,item,\"the\nprice\"\n1,a,2\n");
    let source = CsvFiles::<(u32, String, f64)>::new(&path).multiline(true);
    assert_eq!(drain(&source, 10)[0].0, (1, "a".to_string(), 2.0));
}

#[test]
fn a_missing_quote_in_multiline_files_is_found_at_the_end_or_at_the_bound() {
    let (_folder, path) = file("id,item,price\n1,a,2\n2,\"b,3\n3,c,4\n4,d,5\n");
    let source = CsvFiles::<Order>::new(&path).multiline(true);
    let text = error(&source);
    assert!(
        text.contains("line 3 (byte 20): the file ends inside a quoted field; is a quote missing?"),
        "{text}"
    );
    let text = error(&source.max_line_bytes(13));
    assert!(
        text.contains("line 3 (byte 20): the record is longer than 13 bytes; is a quote missing?"),
        "{text}"
    );
}

#[test]
fn a_header_that_is_no_text_is_an_error_whatever_the_policy() {
    let (_folder, path) = file(b"id,\xff\n1,a\n");
    let text = error(&CsvFiles::<Order>::new(&path).on_bad_record(OnBadRecord::SkipAndCount));
    assert!(text.contains("orders.csv: line 1 (byte 0): header: column"), "{text}");
}

#[test]
fn settings_that_make_no_sense_are_refused_beforehand() {
    let (_folder, path) = file("");
    let source = CsvFiles::<Order>::new(&path);
    for (source, word) in [
        (source.clone().delimiter(b'\n'), "delimiter"),
        (source.clone().quote(0xe4), "0xe4"),
        (source.clone().delimiter(b'"'), "same character"),
    ] {
        let text = source.check().unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    }
    source.check().unwrap();
}

fn table() -> impl Strategy<Value = Vec<Order>> {
    let item = "[a-c\",ä \n\r']{0,6}";
    proptest::collection::vec((any::<u32>(), item, proptest::option::of(-1e6..1e6f64)), 0..30)
        .prop_map(|rows| rows.iter().map(|(id, item, price)| order(*id, item, *price)).collect())
}

fn encode(rows: &[Order]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !rows.is_empty() {
        CsvEncoder::default().encode(rows, true, &mut bytes).unwrap();
    }
    bytes
}

proptest! {
    #[test]
    fn what_the_encoder_writes_is_read_back(rows in table(), max in 1usize..9, batches in 0usize..9) {
        let (_folder, path) = file(encode(&rows));
        let source = CsvFiles::<Order>::new(path).multiline(true);
        let (before, after) = read_resuming(&source, max, batches);
        prop_assert_eq!([before, after].concat(), rows);
    }

    #[test]
    fn each_record_is_read_once_over_restarts(rows in table(), gzip: bool, multiline: bool, runs in runs()) {
        let rows: Vec<Order> = match multiline {
            true => rows,
            false => rows.into_iter().map(|row| Order { item: row.item.replace(['\n', '\r'], ";"), ..row }).collect(),
        };
        let (folder, path) = file(encode(&rows));
        let path = if gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &encode(&rows)).unwrap();
            let path = folder.path().join("orders.gz");
            fs::write(&path, encoder.finish().unwrap()).unwrap();
            path
        } else {
            path
        };
        let source = CsvFiles::<Order>::new(path).multiline(multiline).split_bytes(40);
        check_runs_by(&source, &runs, |order| format!("{order:?}"))?;
    }

    #[test]
    fn every_split_knows_the_header(rows in table(), split_bytes in 1u64..100, readers in 1u32..4) {
        let rows: Vec<Order> =
            rows.into_iter().map(|row| Order { item: row.item.replace(['\n', '\r'], ";"), ..row }).collect();
        let (_folder, path) = file(encode(&rows));
        let source = CsvFiles::<Order>::new(path).split_bytes(split_bytes);
        let mut read = read_by(&source, readers, 7).concat();
        let mut rows = rows;
        read.sort_by(|a, b| a.partial_cmp(b).unwrap());
        rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn no_input_makes_the_decoder_panic(bytes: Vec<u8>, multiline: bool, flexible: bool) {
        let (_folder, path) = file(bytes);
        let source = CsvFiles::<(String, u8)>::new(path).multiline(multiline).flexible(flexible);
        let _ = Driver::new(&source.on_bad_record(OnBadRecord::SkipAndCount), 1).try_drain(10);
    }
}
