//! Stored values for people: bytes in postcard's format, read by the shape of their type.

use std::collections::HashMap;

use flott::dataflow::types::{Shape, VariantShape};
use serde_json::{Map, Value, json};

/// Values within each other at most.
const DEPTH_MAX: usize = 128;

/// Reads values of one type.
pub struct Reader {
    shape: Option<Shape>,
}

impl Reader {
    /// For values of the type with this text; one that is not known is shown as bytes.
    pub fn new(type_text: &str) -> Self {
        Reader { shape: Shape::parse(type_text).ok() }
    }

    /// The value, or, if the bytes are not one of the type, they themselves in hexadecimal digits.
    pub fn show(&self, bytes: &[u8]) -> Value {
        let value = self.shape.as_ref().and_then(|shape| {
            let mut named = HashMap::new();
            name(shape, &mut named);
            let mut read = Read { rest: bytes, named };
            read.value(shape, 0).filter(|_| read.rest.is_empty())
        });
        value.unwrap_or_else(|| json!({"bytes": hex(bytes)}))
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Notes the types with a name, to which recursive ones point.
fn name<'s>(shape: &'s Shape, named: &mut HashMap<&'s str, &'s Shape>) {
    if let Shape::Struct { name, .. }
    | Shape::NewtypeStruct { name, .. }
    | Shape::TupleStruct { name, .. }
    | Shape::Enum { name, .. } = shape
    {
        named.entry(name).or_insert(shape);
    }
    match shape {
        Shape::Option(inner) | Shape::Seq(inner) | Shape::NewtypeStruct { inner, .. } => name(inner, named),
        Shape::Map(key, value) => [key, value].into_iter().for_each(|shape| name(shape, named)),
        Shape::Tuple(elements) | Shape::TupleStruct { elements, .. } => {
            elements.iter().for_each(|shape| name(shape, named));
        }
        Shape::Struct { fields, .. } => fields.iter().for_each(|(_, shape)| name(shape, named)),
        Shape::Enum { variants, .. } => {
            for (_, content) in variants {
                match content {
                    VariantShape::Unit => {}
                    VariantShape::Newtype(inner) => name(inner, named),
                    VariantShape::Tuple(elements) => elements.iter().for_each(|shape| name(shape, named)),
                    VariantShape::Struct(fields) => fields.iter().for_each(|(_, shape)| name(shape, named)),
                }
            }
        }
        _ => {}
    }
}

/// A place in bytes. Nothing where they are not what the shape says.
struct Read<'b, 's> {
    rest: &'b [u8],
    named: HashMap<&'s str, &'s Shape>,
}

impl<'s> Read<'_, 's> {
    fn value(&mut self, shape: &'s Shape, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        let depth = depth + 1;
        Some(match shape {
            Shape::Unit => Value::Null,
            Shape::Bool => match self.byte()? {
                0 => false.into(),
                1 => true.into(),
                _ => return None,
            },
            Shape::I8 => (self.byte()? as i8).into(),
            Shape::U8 => self.byte()?.into(),
            Shape::I16 | Shape::I32 | Shape::I64 => i64::try_from(self.signed(64)?).ok()?.into(),
            Shape::U16 | Shape::U32 | Shape::U64 => u64::try_from(self.unsigned(64)?).ok()?.into(),
            // JSON's numbers have no such size.
            Shape::I128 => self.signed(128)?.to_string().into(),
            Shape::U128 => self.unsigned(128)?.to_string().into(),
            Shape::F32 => f32::from_le_bytes(self.take(4)?.try_into().ok()?).into(),
            Shape::F64 => f64::from_le_bytes(self.take(8)?.try_into().ok()?).into(),
            Shape::Char | Shape::Str => {
                let length = self.length()?;
                std::str::from_utf8(self.take(length)?).ok()?.into()
            }
            Shape::Bytes => {
                let length = self.length()?;
                hex(self.take(length)?).into()
            }
            Shape::Option(inner) => match self.byte()? {
                0 => Value::Null,
                1 => self.value(inner, depth)?,
                _ => return None,
            },
            Shape::Seq(element) => {
                let length = self.length()?;
                (0..length).map(|_| self.value(element, depth)).collect::<Option<Vec<_>>>()?.into()
            }
            Shape::Tuple(elements) | Shape::TupleStruct { elements, .. } => self.values(elements, depth)?,
            Shape::Map(key, value) => {
                let length = self.length()?;
                let entry = |_| Some(json!([self.value(key, depth)?, self.value(value, depth)?]));
                (0..length).map(entry).collect::<Option<Vec<_>>>()?.into()
            }
            Shape::Struct { fields, .. } => self.fields(fields, depth)?,
            Shape::NewtypeStruct { inner, .. } => self.value(inner, depth)?,
            Shape::Enum { variants, .. } => {
                let index = usize::try_from(self.unsigned(32)?).ok()?;
                let (variant, content) = variants.get(index)?;
                let content = match content {
                    VariantShape::Unit => return Some(variant.as_str().into()),
                    VariantShape::Newtype(inner) => self.value(inner, depth)?,
                    VariantShape::Tuple(elements) => self.values(elements, depth)?,
                    VariantShape::Struct(fields) => self.fields(fields, depth)?,
                };
                json!({variant.as_str(): content})
            }
            Shape::Recursive(name) => {
                let shape: &'s Shape = self.named.get(name.as_str())?;
                self.value(shape, depth)?
            }
            Shape::Unknown(_) => return None,
        })
    }

    fn values(&mut self, shapes: &'s [Shape], depth: usize) -> Option<Value> {
        let values = shapes.iter().map(|shape| self.value(shape, depth));
        values.collect::<Option<Vec<_>>>().map(Value::Array)
    }

    fn fields(&mut self, fields: &'s [(String, Shape)], depth: usize) -> Option<Value> {
        let fields = fields.iter().map(|(name, shape)| Some((name.clone(), self.value(shape, depth)?)));
        fields.collect::<Option<Map<_, _>>>().map(Value::Object)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// A length; one that is longer than all that follows is none, since an element takes a byte at least. Those of nothing do not,
    /// and are not shown either where there are so many.
    fn length(&mut self) -> Option<usize> {
        let length = usize::try_from(self.unsigned(64)?).ok()?;
        (length <= self.rest.len()).then_some(length)
    }

    /// A number of varying length: seven bits a byte, the low ones first.
    fn unsigned(&mut self, bits: u32) -> Option<u128> {
        let mut number = 0;
        for shift in (0..bits).step_by(7) {
            let byte = self.byte()?;
            number |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self, bits: u32) -> Option<i128> {
        let number = self.unsigned(bits)?;
        Some((number >> 1) as i128 ^ -((number & 1) as i128))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_by_the_shape_of_their_type() {
        // Bytes as postcard writes them.
        for (type_text, bytes, expected) in [
            ("u64", &[0xac, 0x02][..], json!(300)),
            ("i32", &[0x03], json!(-2)),
            ("i64", &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], json!(i64::MAX)),
            ("i64", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], json!(i64::MIN)),
            ("i8", &[0xff], json!(-1)),
            ("u128", &[0x80, 0x01], json!("128")),
            ("f64", &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], json!(1.5)),
            ("str", b"\x05hello", json!("hello")),
            ("str?", &[0], Value::Null),
            ("[u8]", &[2, 7, 9], json!([7, 9])),
            ("(u8, bool)", &[7, 1], json!([7, true])),
            ("map[str: u8]", b"\x01\x01a\x05", json!([["a", 5]])),
            ("Order{id: u64, tags: [str]}", b"\x05\x01\x01x", json!({"id": 5, "tags": ["x"]})),
            ("enum Kind{Plain, New(u8), At{x: u8}}", &[0], json!("Plain")),
            ("enum Kind{Plain, New(u8), At{x: u8}}", &[1, 4], json!({"New": 4})),
            ("enum Kind{Plain, New(u8), At{x: u8}}", &[2, 4], json!({"At": {"x": 4}})),
            ("Node{n: u8, next: ^Node?}", &[1, 1, 2, 0], json!({"n": 1, "next": {"n": 2, "next": null}})),
            ("unit", &[], Value::Null),
        ] {
            assert_eq!(Reader::new(type_text).show(bytes), expected, "{type_text}");
        }
    }

    #[test]
    fn bytes_that_are_no_value_of_the_type_are_shown_as_they_are() {
        for (type_text, bytes) in [
            ("u64", &[0xff][..]),
            ("u8", &[1, 2]),
            ("str", &[9, b'a']),
            ("bool", &[2]),
            ("[unit]", &[0xff, 0xff, 0xff, 0x7f]),
            ("unknown", &[1]),
            ("", &[1]),
            ("enum A{B}", &[1]),
        ] {
            assert_eq!(Reader::new(type_text).show(bytes), json!({"bytes": hex(bytes)}), "{type_text}");
        }
    }
}
