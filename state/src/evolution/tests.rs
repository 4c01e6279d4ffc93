//! Stored values against what serde makes of the new type.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::types::Shape;

use super::plan;

fn shape<T: DeserializeOwned>() -> String {
    Shape::of::<T>().canonical_text()
}

/// What becomes of `stored` as a `To`.
fn become_as<From: Serialize + DeserializeOwned, To: DeserializeOwned + 'static>(stored: &From) -> To {
    let mut bytes = Vec::new();
    encode_value(stored, &mut bytes).unwrap();
    let mut rewritten = Vec::new();
    match plan(&shape::<From>(), &shape::<To>()).unwrap() {
        Some(plan) => plan.rewrite(&bytes, &mut rewritten).unwrap(),
        None => rewritten = bytes,
    }
    decode_value(&rewritten).unwrap()
}

fn refusal<From: DeserializeOwned, To: DeserializeOwned>() -> String {
    plan(&shape::<From>(), &shape::<To>()).unwrap_err().to_string()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Price(u32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Small,
    Named(String),
    Both(u8, i8),
    Full { price: Price, rate: f32 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    id: u16,
    gone: Vec<String>,
    kind: Kind,
    tags: BTreeMap<String, Option<u8>>,
    place: (i8, f32, [u8; 5]),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum NewKind {
    Added,
    Full { rate: f64, price: Price, note: String },
    Both(i64, i16),
    Named(Option<String>),
    Small,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nested {
    a: f64,
    b: Option<Box<NewKind>>,
    c: (bool, char),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct New {
    kind: NewKind,
    added: Nested,
    place: (i32, f64, [u8; 5]),
    id: i64,
    tags: BTreeMap<String, Option<u64>>,
    more: Vec<u8>,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Small),
        ".*".prop_map(Kind::Named),
        any::<(u8, i8)>().prop_map(|(a, b)| Kind::Both(a, b)),
        (any::<u32>(), -1e9f32..1e9).prop_map(|(price, rate)| Kind::Full { price: Price(price), rate }),
    ]
}

fn old() -> impl Strategy<Value = Old> {
    let tags = proptest::collection::btree_map(".{0,5}", any::<Option<u8>>(), 0..4);
    let place = (any::<i8>(), -1e9f32..1e9, any::<[u8; 5]>());
    (any::<u16>(), proptest::collection::vec(".{0,9}", 0..4), kind(), tags, place)
        .prop_map(|(id, gone, kind, tags, place)| Old { id, gone, kind, tags, place })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn values_keep_what_both_types_have(old in old()) {
        let new: New = become_as(&old);
        prop_assert_eq!(new.kind, match old.kind {
            Kind::Small => NewKind::Small,
            Kind::Named(name) => NewKind::Named(Some(name)),
            Kind::Both(a, b) => NewKind::Both(a.into(), b.into()),
            Kind::Full { price, rate } => NewKind::Full { rate: rate.into(), price, note: String::new() },
        });
        prop_assert_eq!(new.id, i64::from(old.id));
        prop_assert_eq!(new.place, (old.place.0.into(), old.place.1.into(), old.place.2));
        let tags: BTreeMap<_, _> = old.tags.into_iter().map(|(key, tag)| (key, tag.map(u64::from))).collect();
        prop_assert_eq!(new.tags, tags);
        prop_assert_eq!(new.added, Nested { a: 0.0, b: None, c: (false, '\0') });
        prop_assert!(new.more.is_empty());
    }

    #[test]
    fn integers_get_wider(a: u8, b: i8, c: u32, d: i32, e: u64) {
        prop_assert_eq!(become_as::<_, (u16, i16)>(&(a, b)), (a.into(), b.into()));
        prop_assert_eq!(become_as::<_, (i32, i128)>(&(a, b)), (a.into(), b.into()));
        prop_assert_eq!(become_as::<_, (u64, i64)>(&(c, d)), (c.into(), d.into()));
        prop_assert_eq!(become_as::<_, (i64, i128)>(&(c, e)), (c.into(), e.into()));
        prop_assert_eq!(become_as::<_, Option<u128>>(&e), Some(e.into()));
    }

    #[test]
    fn bytes_of_another_type_are_refused_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let plan = plan(&shape::<Old>(), &shape::<New>()).unwrap().unwrap();
        let mut rewritten = Vec::new();
        if plan.rewrite(&bytes, &mut rewritten).is_ok() {
            // Texts are taken over as they are, whether or not they are texts.
            let _ = decode_value::<New>(&rewritten);
        }
    }
}

#[test]
fn texts_of_shapes_are_understood() {
    #[derive(Serialize, Deserialize)]
    struct Unit;
    #[derive(Serialize, Deserialize)]
    struct Empty {}
    #[derive(Serialize, Deserialize)]
    #[serde(rename = "a \"b\": {c}")]
    struct Odd {
        #[serde(rename = "x, y")]
        x: u8,
        u8: Option<Option<String>>,
    }
    #[derive(Serialize, Deserialize)]
    struct Tree {
        children: Vec<Tree>,
    }
    #[derive(Serialize, Deserialize)]
    struct Pair(u8, Vec<Price>);
    #[derive(Serialize, Deserialize)]
    enum Never {}
    fn check<T: DeserializeOwned>() {
        let text = shape::<T>();
        assert_eq!(Shape::parse(&text).unwrap().canonical_text(), text);
        assert!(plan(&text, &text).unwrap().is_none());
    }
    check::<Old>();
    check::<New>();
    check::<Unit>();
    check::<Empty>();
    check::<Odd>();
    check::<Tree>();
    check::<Pair>();
    check::<Never>();
    check::<(u8,)>();
    check::<()>();
    check::<[[u64; 3]; 20]>();
    check::<BTreeMap<(u8, String), Vec<Option<bool>>>>();
    for wrong in ["", "u7", "[u8", "(u8, )", "A{a: u8", "A{a u8}", "u8 ", "enum A{B(}", "map[u8]", "\"a"] {
        let error = Shape::parse(wrong).unwrap_err().to_string();
        assert!(error.contains("is no text of a type"), "{error}");
    }
    assert!(Shape::parse(&"[".repeat(100_000)).is_err());
}

#[test]
fn names_of_types_say_nothing() {
    #[derive(Serialize, Deserialize)]
    struct One {
        a: u8,
    }
    #[derive(Serialize, Deserialize)]
    struct Other {
        a: u8,
    }
    assert!(plan(&shape::<One>(), &shape::<Other>()).unwrap().is_none());
    assert!(plan(&shape::<Price>(), &shape::<u32>()).unwrap().is_none());
    assert!(plan(&shape::<u32>(), &shape::<u64>()).unwrap().is_none(), "their bytes are the same");
}

#[test]
fn what_has_no_rule_is_refused_with_its_place() {
    #[derive(Serialize, Deserialize)]
    struct A {
        inner: (u8, Inner),
    }
    #[derive(Serialize, Deserialize)]
    struct Inner {
        price: i64,
    }
    #[derive(Serialize, Deserialize)]
    struct B {
        inner: (u8, InnerNow),
    }
    #[derive(Serialize, Deserialize)]
    struct InnerNow {
        price: i32,
    }
    assert_eq!(refusal::<A, B>(), "'inner.1.price' was i64, and values of that type cannot become i32");
    assert_eq!(refusal::<i64, u64>(), "the value was i64, and values of that type cannot become u64");
    assert_eq!(refusal::<Option<u8>, u8>(), "the value was u8?, and values of that type cannot become u8");
    #[derive(Serialize, Deserialize)]
    struct WithKind {
        price: i64,
        kind: Kind,
    }
    assert!(refusal::<Inner, WithKind>().contains("'kind' is new, and enum Kind"));
    #[derive(Serialize, Deserialize)]
    enum Fewer {
        Small,
    }
    assert!(refusal::<Kind, Fewer>().contains("variant 'Named' is gone"));
    #[derive(Serialize, Deserialize)]
    struct Tree {
        children: Vec<Tree>,
    }
    #[derive(Serialize, Deserialize)]
    struct LargerTree {
        children: Vec<LargerTree>,
        size: u8,
    }
    assert!(refusal::<Tree, LargerTree>().contains("refers to itself"));
}
