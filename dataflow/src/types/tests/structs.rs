//! Structs, newtypes and tuple structs.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::check;

#[derive(Deserialize)]
struct Marker;

#[derive(Deserialize)]
#[allow(dead_code)]
struct Id(u64);

#[derive(Deserialize)]
#[allow(dead_code)]
struct Pair(Id, String);

#[derive(Deserialize)]
#[allow(dead_code)]
struct Person {
    id: Id,
    pair: Pair,
    marker: Marker,
    home: Option<Address>,
    work: Option<Address>,
}

#[derive(Deserialize)]
#[serde(rename = "Addr")]
#[allow(dead_code)]
struct Address {
    #[serde(rename = "zip code")]
    zip: String,
    #[serde(default)]
    country: u16,
    #[serde(skip)]
    cached: Vec<u8>,
}

#[test]
fn fields_keep_names_and_order() {
    let address = r#"Addr{"zip code": str, country: u16}"#;
    check::<Address>(address);
    check::<Person>(&format!(
        "Person{{id: Id(u64), pair: Pair(Id(u64), str), marker: unit, home: {address}?, work: {address}?}}"
    ));
}

#[test]
fn generic_types_of_one_name_are_told_apart() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Wrapper<T> {
        inner: T,
        other: Option<Box<T>>,
    }
    check::<(Wrapper<u8>, Wrapper<Wrapper<String>>)>(
        "(Wrapper{inner: u8, other: u8?}, \
         Wrapper{inner: Wrapper{inner: str, other: str?}, other: Wrapper{inner: str, other: str?}?})",
    );
}

#[test]
fn a_field_with_aliases_stands_once_under_its_main_name() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Renamed {
        #[serde(alias = "a", alias = "z")]
        main: u8,
        plain: String,
        #[serde(rename = "last", alias = "final")]
        other: Option<bool>,
    }
    check::<Renamed>("Renamed{main: u8, plain: str, last: bool?}");
}

#[test]
fn transparent_and_converted_types_show_what_is_encoded() {
    #[derive(Deserialize)]
    #[serde(transparent)]
    #[allow(dead_code)]
    struct Thin {
        inner: u32,
    }
    #[derive(Deserialize)]
    #[serde(from = "(u8, u8)")]
    #[allow(dead_code)]
    struct Packed(u16);
    impl From<(u8, u8)> for Packed {
        fn from((high, low): (u8, u8)) -> Self {
            Packed(u16::from_be_bytes([high, low]))
        }
    }
    check::<(Thin, Packed)>("(u32, (u8, u8))");
}

#[test]
fn names_that_are_no_words_are_quoted() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Odd {
        #[serde(rename = "a: u8, b")]
        a: u8,
        #[serde(rename = "quo\"te\\")]
        b: u8,
        #[serde(rename = "")]
        c: u8,
    }
    check::<Odd>(r#"Odd{"a: u8, b": u8, "quo\"te\\": u8, "": u8}"#);
}

#[test]
fn a_struct_read_by_position_only_is_traced() {
    struct Point;
    impl<'de> Deserialize<'de> for Point {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct PointVisitor;
            impl<'de> Visitor<'de> for PointVisitor {
                type Value = Point;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("x and y")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Point, A::Error> {
                    let x = seq.next_element::<i32>()?;
                    let y = seq.next_element::<String>()?;
                    if x.is_some() && y.is_some() { Ok(Point) } else { Err(A::Error::custom("short")) }
                }
            }
            deserializer.deserialize_struct("Point", &["x", "y"], PointVisitor)
        }
    }
    check::<Vec<Point>>("[Point{x: i32, y: str}]");
}
