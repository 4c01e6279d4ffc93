//! [`Shape`]: the structure of a serde type, as data.

use std::fmt::{self, Display, Formatter, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::tracer;

/// The structure of a type as its `Deserialize` implementation asks for it in a binary format.
///
/// Equal shapes are encoded alike by a format that is not self-describing. Fields and variants keep their serde names
/// and their order, which such a format relies on. Fields left out by `#[serde(skip)]` are not part of a shape.
/// `usize` and `isize` are 64 bits wide in serde, whatever the machine.
///
/// The text (`Display`) is compact: `Order{id: u64, price: Price{cents: i64}?, tags: [str]}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// Nothing: `()`, a unit struct, `PhantomData`.
    Unit,
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    /// A byte string; a `Vec<u8>` without `serde_bytes` is a `Seq` of `U8`.
    Bytes,
    Option(Box<Shape>),
    /// Any number of elements; serde does not tell a vector from a set.
    Seq(Box<Shape>),
    /// A fixed number of elements: tuples and arrays.
    Tuple(Vec<Shape>),
    /// Keys and values; serde does not tell a `HashMap` from a `BTreeMap`.
    Map(Box<Shape>, Box<Shape>),
    /// Fields in the order of declaration. A field with aliases stands under its main name.
    Struct {
        name: String,
        fields: Vec<(String, Shape)>,
    },
    NewtypeStruct {
        name: String,
        inner: Box<Shape>,
    },
    TupleStruct {
        name: String,
        elements: Vec<Shape>,
    },
    /// Variants in the order of declaration. A variant with aliases stands under all its names, sorted and joined by
    /// `|`, because serde does not say which of them is the main one.
    Enum {
        name: String,
        variants: Vec<(String, VariantShape)>,
    },
    /// A type of a cycle, given in full further out or earlier in the same cycle. Holds its serde name, or `option`,
    /// `seq`, `map` or `tuple` where the cycle has no name in it.
    Recursive(String),
    /// A part whose structure cannot be known beforehand, and why.
    Unknown(String),
}

/// The content of one variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VariantShape {
    Unit,
    Newtype(Box<Shape>),
    Tuple(Vec<Shape>),
    Struct(Vec<(String, Shape)>),
}

impl Shape {
    /// Finds the shape of `T` by running its `Deserialize` implementation against sample values.
    ///
    /// Always ends, on recursive types too, and visits every variant of every enum. A part that decides by the data
    /// itself (`deserialize_any`: untagged and internally tagged enums, flattened structs, JSON values) is
    /// [`Shape::Unknown`]; so is a part that stands behind a value no sample could be found for. A panic inside
    /// `T::deserialize` is caught (the panic hook still reports it) unless the program is built with `panic = "abort"`.
    pub fn of<T: DeserializeOwned>() -> Shape {
        tracer::trace::<T>()
    }

    /// A number that is equal for equal canonical texts, and stays the same over versions of Flott and of Rust.
    ///
    /// FNV-1a with 64 bits (offset basis `0xcbf29ce484222325`, prime `0x100000001b3`) over the UTF-8 bytes of
    /// [`canonical_text`](Self::canonical_text).
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv1a(0xcbf2_9ce4_8422_2325);
        // The hasher's write never fails.
        let _ = self.write_text(&mut hash, false);
        hash.0
    }

    /// The text of `Display` without the reasons of unknown parts; part of stored formats, so it never changes.
    pub fn canonical_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _ = self.write_text(&mut text, false);
        text
    }

    fn write_text<W: Write>(&self, out: &mut W, reasons: bool) -> fmt::Result {
        match self {
            Shape::Unit => out.write_str("unit"),
            Shape::Bool => out.write_str("bool"),
            Shape::I8 => out.write_str("i8"),
            Shape::I16 => out.write_str("i16"),
            Shape::I32 => out.write_str("i32"),
            Shape::I64 => out.write_str("i64"),
            Shape::I128 => out.write_str("i128"),
            Shape::U8 => out.write_str("u8"),
            Shape::U16 => out.write_str("u16"),
            Shape::U32 => out.write_str("u32"),
            Shape::U64 => out.write_str("u64"),
            Shape::U128 => out.write_str("u128"),
            Shape::F32 => out.write_str("f32"),
            Shape::F64 => out.write_str("f64"),
            Shape::Char => out.write_str("char"),
            Shape::Str => out.write_str("str"),
            Shape::Bytes => out.write_str("bytes"),
            Shape::Option(inner) => {
                inner.write_text(out, reasons)?;
                out.write_char('?')
            }
            Shape::Seq(element) => {
                out.write_char('[')?;
                element.write_text(out, reasons)?;
                out.write_char(']')
            }
            Shape::Tuple(elements) => write_tuple(out, elements, reasons),
            Shape::Map(key, value) => {
                out.write_str("map[")?;
                key.write_text(out, reasons)?;
                out.write_str(": ")?;
                value.write_text(out, reasons)?;
                out.write_char(']')
            }
            Shape::Struct { name, fields } => {
                write_name(out, name)?;
                write_fields(out, fields, reasons)
            }
            Shape::NewtypeStruct { name, inner } => {
                write_name(out, name)?;
                write_newtype(out, inner, reasons)
            }
            Shape::TupleStruct { name, elements } => {
                write_name(out, name)?;
                write_elements(out, elements, reasons)
            }
            Shape::Enum { name, variants } => {
                out.write_str("enum ")?;
                write_name(out, name)?;
                out.write_char('{')?;
                for (index, (variant, content)) in variants.iter().enumerate() {
                    out.write_str(if index > 0 { ", " } else { "" })?;
                    write_name(out, variant)?;
                    match content {
                        VariantShape::Unit => {}
                        VariantShape::Newtype(inner) => write_newtype(out, inner, reasons)?,
                        VariantShape::Tuple(elements) => write_elements(out, elements, reasons)?,
                        VariantShape::Struct(fields) => write_fields(out, fields, reasons)?,
                    }
                }
                out.write_char('}')
            }
            Shape::Recursive(name) => {
                out.write_char('^')?;
                write_name(out, name)
            }
            Shape::Unknown(reason) if reasons => write!(out, "unknown({reason})"),
            Shape::Unknown(_) => out.write_str("unknown"),
        }
    }
}

impl Display for Shape {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_text(f, true)
    }
}

/// Arrays of four and more read as `[u8; 16]`; anything shorter or mixed as `(u8, str)`.
fn write_tuple<W: Write>(out: &mut W, elements: &[Shape], reasons: bool) -> fmt::Result {
    if elements.len() >= 4 && elements.iter().all(|element| *element == elements[0]) {
        out.write_char('[')?;
        elements[0].write_text(out, reasons)?;
        return write!(out, "; {}]", elements.len());
    }
    write_elements(out, elements, reasons)
}

fn write_newtype<W: Write>(out: &mut W, inner: &Shape, reasons: bool) -> fmt::Result {
    out.write_char('(')?;
    inner.write_text(out, reasons)?;
    out.write_char(')')
}

/// A single element ends in a comma, which tells a tuple of one from a newtype.
fn write_elements<W: Write>(out: &mut W, elements: &[Shape], reasons: bool) -> fmt::Result {
    out.write_char('(')?;
    for (index, element) in elements.iter().enumerate() {
        out.write_str(if index > 0 { ", " } else { "" })?;
        element.write_text(out, reasons)?;
    }
    out.write_str(if elements.len() == 1 { ",)" } else { ")" })
}

fn write_fields<W: Write>(out: &mut W, fields: &[(String, Shape)], reasons: bool) -> fmt::Result {
    out.write_char('{')?;
    for (index, (name, shape)) in fields.iter().enumerate() {
        out.write_str(if index > 0 { ", " } else { "" })?;
        write_name(out, name)?;
        out.write_str(": ")?;
        shape.write_text(out, reasons)?;
    }
    out.write_char('}')
}

/// Names that are no plain words (`#[serde(rename = "a: b")]`) are quoted, so that no two shapes share a text.
fn write_name<W: Write>(out: &mut W, name: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '|');
    if !name.is_empty() && name.chars().all(plain) {
        return out.write_str(name);
    }
    out.write_char('"')?;
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            out.write_char('\\')?;
        }
        out.write_char(c)?;
    }
    out.write_char('"')
}

struct Fnv1a(u64);

impl Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
