//! Refuses key types that do not encode stably.
//!
//! A key is encoded to find its key group and its row in the state: equal keys must have equal bytes, in every process
//! and at every time. Floats break this (two zeros, many NaNs), hash maps do (their order is random), and of types
//! that decide by the data nothing can be said.
//!
//! A `HashSet` inside a key cannot be caught: serde presents it like a vector. Use a sorted vector or a `BTreeSet`.

use std::any::type_name;
use std::fmt::{self, Display, Formatter};

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::shape::{Shape, VariantShape};

/// A key type of which equal values may have different encodings, or whose structure cannot be known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: key type {key_type} is not stable{}: {problem}; use {}", At(path), problem.remedy())]
pub struct UnstableKey {
    /// Where the key is taken: the operator and its name.
    pub place: String,
    /// The Rust type of the key, without module paths.
    pub key_type: String,
    /// The way to the part inside the key: `.field`, `.0`, `[]` for elements, `::Variant`; empty for the key itself.
    pub path: String,
    pub problem: KeyProblem,
}

/// What makes a part of a key unstable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// `f32` or `f64`; holds the shape's text.
    Float(&'static str),
    Map,
    /// Holds the reason why nothing is known.
    Unknown(String),
}

impl KeyProblem {
    fn remedy(&self) -> &'static str {
        match self {
            KeyProblem::Float(_) => "an integer or a string",
            KeyProblem::Map => "a sorted vector of pairs",
            KeyProblem::Unknown(_) => {
                "a type of fixed structure: integers, strings, structs, enums tagged in serde's default way"
            }
        }
    }
}

impl Display for KeyProblem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            KeyProblem::Float(float) => write!(f, "{float} (a float has several encodings of zero and NaN)"),
            KeyProblem::Map => {
                f.write_str("a map (serde does not tell a HashMap, whose order is random, from a BTreeMap)")
            }
            KeyProblem::Unknown(reason) => write!(f, "a part of unknown structure ({reason})"),
        }
    }
}

/// ` at .path`, or nothing for the key itself.
struct At<'a>(&'a str);

impl Display for At<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " at {}", self.0) }
    }
}

/// Checks that equal values of the key type `K` have equal encodings. `place` names the operator for the error, as in
/// `key_by 'orders by price'`.
///
/// What is checked is the structure that `K`'s `Deserialize` asks for; a `Serialize` written by hand has to agree with
/// it and must not depend on anything but the value.
///
/// # Errors
/// [`UnstableKey`], with the first part that is unstable.
pub fn check_key_type<K: DeserializeOwned>(place: &str) -> Result<(), UnstableKey> {
    let mut path = String::new();
    check(&Shape::of::<K>(), &mut path).map_err(|problem| UnstableKey {
        place: place.to_owned(),
        key_type: short_type_name(type_name::<K>()),
        path,
        problem,
    })
}

/// On an error, `path` stays at the part in question.
fn check(shape: &Shape, path: &mut String) -> Result<(), KeyProblem> {
    match shape {
        Shape::F32 => Err(KeyProblem::Float("f32")),
        Shape::F64 => Err(KeyProblem::Float("f64")),
        Shape::Map(..) => Err(KeyProblem::Map),
        Shape::Unknown(reason) => Err(KeyProblem::Unknown(reason.clone())),
        Shape::Option(inner) => check(inner, path),
        Shape::Seq(element) => check_below(path, "[]", element),
        Shape::Tuple(elements) | Shape::TupleStruct { elements, .. } => check_elements(path, elements),
        Shape::NewtypeStruct { inner, .. } => check_below(path, ".0", inner),
        Shape::Struct { fields, .. } => check_fields(path, fields),
        Shape::Enum { variants, .. } => variants.iter().try_for_each(|(name, content)| {
            let length = path.len();
            path.push_str("::");
            path.push_str(name);
            match content {
                VariantShape::Unit => {}
                VariantShape::Newtype(inner) => check_below(path, ".0", inner)?,
                VariantShape::Tuple(elements) => check_elements(path, elements)?,
                VariantShape::Struct(fields) => check_fields(path, fields)?,
            }
            path.truncate(length);
            Ok(())
        }),
        // Checked where it is given in full.
        Shape::Recursive(_) => Ok(()),
        Shape::Unit
        | Shape::Bool
        | Shape::I8
        | Shape::I16
        | Shape::I32
        | Shape::I64
        | Shape::I128
        | Shape::U8
        | Shape::U16
        | Shape::U32
        | Shape::U64
        | Shape::U128
        | Shape::Char
        | Shape::Str
        | Shape::Bytes => Ok(()),
    }
}

fn check_below(path: &mut String, step: &str, shape: &Shape) -> Result<(), KeyProblem> {
    let length = path.len();
    path.push_str(step);
    check(shape, path)?;
    path.truncate(length);
    Ok(())
}

fn check_elements(path: &mut String, elements: &[Shape]) -> Result<(), KeyProblem> {
    let mut elements = elements.iter().enumerate();
    elements.try_for_each(|(index, element)| check_below(path, &format!(".{index}"), element))
}

fn check_fields(path: &mut String, fields: &[(String, Shape)]) -> Result<(), KeyProblem> {
    fields.iter().try_for_each(|(name, shape)| check_below(path, &format!(".{name}"), shape))
}

/// `alloc::vec::Vec<shop::Order>` -> `Vec<Order>`.
fn short_type_name(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    let mut word = 0;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ':' && rest.peek() == Some(&':') {
            rest.next();
            short.truncate(word);
            continue;
        }
        short.push(c);
        if !c.is_alphanumeric() && c != '_' {
            word = short.len();
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Price {
        amount: f64,
        currency: String,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Order {
        id: u64,
        price: Price,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Place {
        Nowhere,
        Named(String),
        At { point: (i32, Option<f32>) },
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Comment {
        text: String,
        replies: Vec<Comment>,
        scores: Vec<BTreeMap<String, u32>>,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Either {
        Number(u32),
        Text(String),
    }

    fn refusal<K: DeserializeOwned>() -> String {
        check_key_type::<K>("key_by 'orders by price'").unwrap_err().to_string()
    }

    #[test]
    fn stable_keys_are_accepted() {
        check_key_type::<u64>("key_by 'a'").unwrap();
        check_key_type::<usize>("key_by 'a'").unwrap();
        check_key_type::<isize>("key_by 'a'").unwrap();
        check_key_type::<()>("key_by 'a'").unwrap();
        check_key_type::<(String, Option<i32>, [u8; 16])>("key_by 'a'").unwrap();
        check_key_type::<Vec<(bool, char)>>("key_by 'a'").unwrap();
        check_key_type::<Result<u8, std::net::IpAddr>>("key_by 'a'").unwrap();
        check_key_type::<std::time::Duration>("key_by 'a'").unwrap();
    }

    #[test]
    fn a_float_inside_a_struct_is_refused_with_its_path() {
        assert_eq!(
            refusal::<Order>(),
            "key_by 'orders by price': key type Order is not stable at .price.amount: f64 (a float has several \
             encodings of zero and NaN); use an integer or a string"
        );
    }

    #[test]
    fn a_key_that_is_a_float_itself_has_no_path() {
        assert_eq!(
            refusal::<f32>(),
            "key_by 'orders by price': key type f32 is not stable: f32 (a float has several encodings of zero and \
             NaN); use an integer or a string"
        );
    }

    #[test]
    fn a_float_inside_a_variant_is_refused_with_its_path() {
        let error = check_key_type::<(u8, Place)>("key_by 'a'").unwrap_err();
        assert_eq!(error.path, ".1::At.point.1");
        assert_eq!(error.key_type, "(u8, Place)");
        assert_eq!(error.problem, KeyProblem::Float("f32"));
    }

    #[test]
    fn maps_are_refused_whatever_their_order() {
        assert_eq!(
            refusal::<HashMap<String, u32>>(),
            "key_by 'orders by price': key type HashMap<String, u32> is not stable: a map (serde does not tell a \
             HashMap, whose order is random, from a BTreeMap); use a sorted vector of pairs"
        );
        assert_eq!(check_key_type::<BTreeMap<u8, u8>>("a").unwrap_err().problem, KeyProblem::Map);
    }

    #[test]
    fn a_map_behind_a_recursion_is_found() {
        assert_eq!(check_key_type::<Comment>("a").unwrap_err().path, ".scores[]");
    }

    #[test]
    fn self_describing_types_are_refused() {
        let error = check_key_type::<(u8, serde_json::Value)>("a").unwrap_err();
        assert_eq!(error.path, ".1");
        assert!(matches!(error.problem, KeyProblem::Unknown(_)));
        assert!(matches!(check_key_type::<Either>("a").unwrap_err().problem, KeyProblem::Unknown(_)));
        assert!(refusal::<Either>().contains("key type Either is not stable: a part of unknown structure"));
    }

    #[test]
    fn type_names_lose_their_module_paths() {
        assert_eq!(short_type_name("alloc::vec::Vec<shop::Order>"), "Vec<Order>");
        assert_eq!(short_type_name("(a::B, [c::d::E; 4], &str)"), "(B, [E; 4], &str)");
        assert_eq!(short_type_name("u8"), "u8");
    }
}
