//! Types that decide by the data what they are.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::check;
use crate::types::Shape;

#[test]
fn json_values_are_unknown_and_do_not_hide_their_neighbours() {
    check::<Value>("unknown");
    check::<(Value, u8)>("(unknown, u8)");
    let Shape::Unknown(reason) = Shape::of::<Value>() else { panic!("known") };
    assert!(reason.contains("asks the data"), "{reason}");
}

#[test]
fn enums_tagged_otherwise_are_unknown() {
    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Untagged {
        Number(u32),
        Text(String),
    }
    #[derive(Deserialize)]
    #[serde(tag = "type")]
    #[allow(dead_code)]
    enum Internal {
        A { x: u8 },
        B { y: u8 },
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Row {
        untagged: Untagged,
        internal: Internal,
        id: u64,
    }
    check::<Row>("Row{untagged: unknown, internal: unknown, id: u64}");
}

#[test]
fn the_content_of_an_adjacently_tagged_enum_is_unknown() {
    #[derive(Deserialize)]
    #[serde(tag = "t", content = "c")]
    #[allow(dead_code)]
    enum Adjacent {
        A(u8),
        B(String),
    }
    check::<Adjacent>("Adjacent{t: enum Adjacent{A, B}, c: unknown}");
}

#[test]
fn flattened_structs_are_maps_of_unknown_parts() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Flat {
        id: u64,
        #[serde(flatten)]
        rest: HashMap<String, Value>,
    }
    check::<(Flat, u8)>("(map[unknown: unknown], unknown)");
}
