//! Texts, fingerprints and stored shapes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::Shape;

#[derive(Deserialize)]
#[allow(dead_code)]
struct Person {
    name: String,
    age: Option<u32>,
}

#[test]
fn texts_and_fingerprints_stay_as_they_are() {
    let shape = Shape::of::<Person>();
    assert_eq!(shape.to_string(), "Person{name: str, age: u32?}");
    assert_eq!(shape.fingerprint(), fnv1a(b"Person{name: str, age: u32?}"));
    // Published values of FNV-1a with 64 bits.
    assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn fingerprints_tell_shapes_apart_and_ignore_reasons() {
    let shapes = [
        Shape::of::<Person>(),
        Shape::of::<(String, Option<u32>)>(),
        Shape::of::<Vec<u8>>(),
        Shape::of::<[u8; 4]>(),
        Shape::of::<()>(),
        Shape::of::<(u8,)>(),
        Shape::of::<u8>(),
        Shape::of::<Value>(),
    ];
    let fingerprints: BTreeSet<u64> = shapes.iter().map(Shape::fingerprint).collect();
    assert_eq!(fingerprints.len(), shapes.len());
    let other_reason = Shape::Unknown("another reason".to_owned());
    assert_eq!(other_reason.fingerprint(), Shape::of::<Value>().fingerprint());
}

#[derive(Serialize, Deserialize)]
struct Saved {
    shape: Shape,
}

#[test]
fn shapes_survive_storing() {
    let shape = Shape::of::<(Shape, Person, Value)>();
    let bytes = postcard::to_allocvec(&Saved { shape: shape.clone() }).unwrap();
    assert_eq!(postcard::from_bytes::<Saved>(&bytes).unwrap().shape, shape);
    let text = serde_json::to_string(&shape).unwrap();
    assert_eq!(serde_json::from_str::<Shape>(&text).unwrap(), shape);
}
