//! Both forms are frozen, read what they wrote, and refuse everything else.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Side {
    Left,
    Right,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Point(i32),
    Pair(u8, u8),
    Named { name: String },
}

/// One of each kind of value that has a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plain {
    number: u64,
    signed: i32,
    small: (i8, u8, i16, u16),
    wide: (u128, i128),
    real: f64,
    short: f32,
    flag: bool,
    letter: char,
    side: Side,
    text: String,
    unit: (),
}

fn plain(number: u64) -> Plain {
    let signed = number as i32 - 2;
    Plain {
        number: number * 1000,
        signed,
        small: (signed as i8, 7, (signed as i16).wrapping_mul(300), number as u16),
        wide: (u128::from(number) << 100, -(i128::from(number) << 70)),
        real: number as f64 / 4.0,
        short: -0.5,
        flag: number.is_multiple_of(2),
        letter: 'ü',
        side: if number.is_multiple_of(3) { Side::Left } else { Side::Right },
        text: "a".repeat(number as usize % 5),
        unit: (),
    }
}

fn texts() -> Batch<(u64, String)> {
    let mut batch = Batch::default();
    batch.push((1, "one".to_string()), 10);
    batch.push((300, String::new()), 20);
    batch
}

fn plains(count: u64) -> Batch<Plain> {
    let mut batch = Batch::default();
    (0..count).for_each(|number| batch.push(plain(number), 1_000_000 + number as i64 / 3));
    batch
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded<T: Record>(batch: &Batch<T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_rows(batch, &mut bytes).unwrap();
    bytes
}

/// Encodes and decodes; gives the version that was chosen.
fn survives<T: Record + PartialEq + std::fmt::Debug>(batch: &Batch<T>) -> u8 {
    let bytes = encoded(batch);
    assert_eq!(decode_rows::<T>(&bytes).unwrap(), *batch);
    bytes[0]
}

#[test]
fn version_1_is_frozen_and_still_read() {
    let mut bytes = Vec::new();
    encode_each(&texts(), &mut bytes).unwrap();
    assert_eq!(hex(&bytes), include_str!("../../samples/rows_v1.hex").trim());
    assert_eq!(decode_rows::<(u64, String)>(&bytes).unwrap(), texts());
}

#[test]
fn version_2_is_frozen() {
    let samples = [hex(&encoded(&texts())), hex(&encoded(&plains(5)))];
    assert_eq!(samples.join("\n"), include_str!("../../samples/rows_v2.hex").trim());
}

#[test]
fn rows_of_plain_values_go_in_columns_whatever_their_number() {
    for count in [1, 2, 1023, 1024, 1025, 3000] {
        assert_eq!(survives(&plains(count)), 2, "{count} rows");
    }
    assert_eq!(survives(&Batch::of(vec![(); 5])), 2);
    assert_eq!(survives(&Batch::of(vec![[1u8, 2, 3]; 5])), 2);
    assert_eq!(survives(&Batch::of(vec![Some(1), Some(2)])), 2);
    assert_eq!(survives(&Batch::of(vec![Shape::Pair(1, 2), Shape::Pair(3, 4)])), 2);
    assert_eq!(survives(&Batch::of(vec![Shape::Point(1), Shape::Named { name: "n".into() }])), 2);
}

#[test]
fn rows_that_differ_in_their_values_go_one_after_the_other() {
    assert_eq!(survives(&Batch::<u64>::default()), 1);
    assert_eq!(survives(&Batch::of(vec![vec![1], vec![1, 2]])), 1);
    assert_eq!(survives(&Batch::of(vec![BTreeMap::from([(1, 2)])])), 1);
    assert_eq!(survives(&Batch::of(vec![Some(1), None])), 1);
    assert_eq!(survives(&Batch::of(vec![Shape::Nothing, Shape::Point(-1)])), 1);
    assert_eq!(survives(&Batch::of(vec![[0u8; 32]])), 2);
    assert_eq!(survives(&Batch::of(vec![([0u8; 32], 1)])), 1);
    // A row that shows it in the second block only.
    let mut late = vec![Some(1); 1025];
    late[1024] = None;
    assert_eq!(survives(&Batch::of(late)), 1);
    assert_eq!(survives(&Batch::of(vec![7u8; columns::ROWS_MAX])), 2);
    assert_eq!(survives(&Batch::of(vec![7u8; columns::ROWS_MAX + 1])), 1);
}

#[test]
fn columns_are_hardly_longer_than_rows_of_varints() {
    let batch = Batch::of((0..1024u64).map(|number| (number * 9, number % 5000)).collect());
    let mut rows = Vec::new();
    encode_each(&batch, &mut rows).unwrap();
    let columns = encoded(&batch);
    assert!(columns.len() <= rows.len() + rows.len() / 16, "{} bytes against {}", columns.len(), rows.len());
    let one = Batch::of(vec![(1u64, 2u64)]);
    assert!(encoded(&one).len() <= 24);
}

#[test]
fn rows_that_are_all_alike_take_a_byte_each() {
    let length = encoded(&Batch::of(vec![(7u64, 9u8); 1000])).len();
    assert!((1000..1100).contains(&length), "{length} bytes");
    assert_eq!(survives(&Batch::of(vec![(7u64, 9u8); 3000])), 2);
}

#[test]
fn more_rows_than_there_may_be_take_no_memory() {
    // A constant column: four thousand million rows in a few bytes.
    let mut bytes = encoded(&Batch::of(vec![7u64; 3]));
    bytes[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = decode_rows::<u64>(&bytes).unwrap_err().to_string();
    assert!(error.contains("4294967295 rows"), "{error}");
}

#[test]
fn values_outside_their_type_are_refused() {
    assert!(decode_rows::<(u32,)>(&encoded(&Batch::of(vec![(1u64 << 40,)]))).is_err());
    assert!(decode_rows::<(bool,)>(&encoded(&Batch::of(vec![(2u8,)]))).is_err());
    assert!(decode_rows::<(char,)>(&encoded(&Batch::of(vec![(0xd800u32,)]))).is_err());
    assert!(decode_rows::<(Option<u8>,)>(&encoded(&Batch::of(vec![(2u8, 1u8)]))).is_err());
    assert!(decode_rows::<Side>(&encoded(&Batch::of(vec![2u8]))).is_err());
    assert!(decode_rows::<(u8, u8)>(&encoded(&Batch::of(vec![1u8]))).is_err());
    assert!(decode_rows::<u8>(&encoded(&Batch::of(vec![(1u8, 2u8)]))).is_err());
    assert!(decode_rows::<u8>(&encoded(&Batch::of(vec!["text".to_string()]))).is_err());
}

proptest! {
    #[test]
    fn batches_survive_the_wire(records: Vec<(u32, Option<String>, i8)>, same: bool) {
        let mut batch = Batch::default();
        for (index, record) in records.into_iter().enumerate() {
            batch.push(record, if same { 3 } else { index as i64 });
        }
        survives(&batch);
    }

    #[test]
    fn columns_survive_the_wire(records: Vec<(u64, String, i64, f32, char, Vec<u8>)>, timestamps: Vec<i64>) {
        let mut batch = Batch::default();
        for (index, (a, b, c, d, e, _)) in records.into_iter().enumerate() {
            batch.push((a, b, c, d.to_bits(), e), timestamps.get(index).copied().unwrap_or(0));
        }
        let version = survives(&batch);
        prop_assert_eq!(version == 2, !batch.is_empty());
    }

    #[test]
    fn no_input_makes_the_decoder_panic(mut bytes: Vec<u8>, version in 0u8..4) {
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let _ = decode_rows::<(u64, String)>(&bytes);
    }

    #[test]
    fn no_changed_byte_makes_the_decoder_panic(at: prop::sample::Index, to: u8) {
        let mut bytes = encoded(&plains(5));
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = decode_rows::<Plain>(&bytes);
    }

    #[test]
    fn a_truncated_batch_is_refused(cut: prop::sample::Index) {
        let bytes = encoded(&texts());
        prop_assert!(decode_rows::<(u64, String)>(&bytes[..cut.index(bytes.len())]).is_err());
        let mut bytes = Vec::new();
        encode_each(&texts(), &mut bytes).unwrap();
        prop_assert!(decode_rows::<(u64, String)>(&bytes[..cut.index(bytes.len())]).is_err());
    }
}
