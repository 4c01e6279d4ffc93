//! Enums and their variants.

use std::collections::HashMap;

use serde::de::{EnumAccess, Error as _, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::check;
use crate::types::{Shape, VariantShape};

#[derive(Deserialize)]
#[allow(dead_code)]
enum Event {
    Opened,
    Named(String),
    Moved(i32, i32),
    Sent { to: Inner, size: u64 },
    Nested(Inner),
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Inner {
    First(u8),
    #[serde(rename = "2nd")]
    Second(Option<Deep>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code)]
enum Deep {
    OneThing,
    OtherThing((u8, char)),
}

const INNER: &str = "enum Inner{First(u8), 2nd(enum Deep{one_thing, other_thing((u8, char))}?)}";

#[test]
fn every_variant_is_visited() {
    check::<Event>(&format!(
        "enum Event{{Opened, Named(str), Moved(i32, i32), Sent{{to: {INNER}, size: u64}}, Nested({INNER})}}"
    ));
    check::<HashMap<String, Vec<Inner>>>(&format!("map[str: [{INNER}]]"));
}

#[test]
fn variants_are_kept_as_data() {
    let Shape::Enum { name, variants } = Shape::of::<Event>() else { panic!("not an enum") };
    assert_eq!(name, "Event");
    assert_eq!(variants[0], ("Opened".to_owned(), VariantShape::Unit));
    assert_eq!(variants[2].1, VariantShape::Tuple(vec![Shape::I32, Shape::I32]));
}

#[test]
fn a_variant_with_aliases_stands_once_under_all_its_names() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Status {
        #[serde(alias = "open", alias = "Begun")]
        New,
        Done(u8),
        #[serde(other, alias = "odd")]
        Other,
    }
    check::<Status>("enum Status{Begun|New|open, Done(u8), Other|odd}");
}

#[test]
fn an_enum_without_variants_has_none() {
    #[derive(Deserialize)]
    enum Never {}
    check::<Vec<Never>>("[enum Never{}]");
}

#[test]
fn variants_known_by_index_only_are_traced() {
    #[derive(Deserialize)]
    #[serde(from = "Result<u8, ByIndex>")]
    struct Outer;
    impl From<Result<u8, ByIndex>> for Outer {
        fn from(_: Result<u8, ByIndex>) -> Self {
            Outer
        }
    }
    struct ByIndex;
    impl<'de> Deserialize<'de> for ByIndex {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct IndexVisitor;
            impl<'de> Visitor<'de> for IndexVisitor {
                type Value = ByIndex;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a variant")
                }
                fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<ByIndex, A::Error> {
                    match access.variant::<u32>()? {
                        (0, content) => content.unit_variant().map(|()| ByIndex),
                        (1, content) => content.newtype_variant::<u16>().map(|_| ByIndex),
                        _ => Err(A::Error::custom("no such variant")),
                    }
                }
            }
            deserializer.deserialize_enum("ByIndex", &["None", "One"], IndexVisitor)
        }
    }
    check::<Outer>("enum Result{Ok(u8), Err(enum ByIndex{None, One(u16)})}");
}
