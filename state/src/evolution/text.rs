//! The shape of a type from its text, as `Shape::canonical_text` writes it.

use flott_dataflow::types::{Shape, VariantShape};
use flott_schema::{Error, Result};

/// A text that nests deeper is not one of ours.
const DEPTH_MAX: usize = 128;

/// The shape that has this text.
pub(super) fn parse(text: &str) -> Result<Shape> {
    let mut parser = Parser { rest: text, depth: 0 };
    let shape = parser.shape();
    match shape {
        Some(shape) if parser.rest.is_empty() => Ok(shape),
        _ => Err(Error::bad_input(format!(
            "'{text}' is not understood as a type from its character {}",
            text.len() - parser.rest.len() + 1
        ))),
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn takes(&mut self, word: &str) -> bool {
        self.take(word).is_some()
    }

    fn name(&mut self) -> Option<String> {
        if self.takes("\"") {
            let mut name = String::new();
            let mut characters = self.rest.char_indices();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        self.rest = &self.rest[at + 1..];
                        return Some(name);
                    }
                    '\\' => name.push(characters.next()?.1),
                    other => name.push(other),
                }
            }
            return None;
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '|');
        let end = self.rest.find(|c| !is_plain(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn shape(&mut self) -> Option<Shape> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let mut shape = self.plain()?;
        while self.takes("?") {
            shape = Shape::Option(Box::new(shape));
        }
        self.depth -= 1;
        Some(shape)
    }

    fn plain(&mut self) -> Option<Shape> {
        if self.takes("[") {
            let element = self.shape()?;
            if self.takes("; ") {
                let count: usize = self.name()?.parse().ok()?;
                // No array that is encoded element by element is longer.
                let elements = (count <= 1 << 16).then(|| vec![element; count])?;
                self.take("]")?;
                return Some(Shape::Tuple(elements));
            }
            self.take("]")?;
            return Some(Shape::Seq(Box::new(element)));
        }
        if self.rest.starts_with('(') {
            return self.elements().map(|(elements, _)| Shape::Tuple(elements));
        }
        if self.takes("map[") {
            let key = self.shape()?;
            self.take(": ")?;
            let value = self.shape()?;
            self.take("]")?;
            return Some(Shape::Map(Box::new(key), Box::new(value)));
        }
        if self.takes("enum ") {
            return self.variants();
        }
        if self.takes("^") {
            return self.name().map(Shape::Recursive);
        }
        let is_word = !self.rest.starts_with('"');
        let name = self.name()?;
        if self.rest.starts_with('{') {
            return Some(Shape::Struct { name, fields: self.fields()? });
        }
        if self.rest.starts_with('(') {
            let (mut elements, is_one) = self.elements()?;
            return Some(match is_one {
                true => Shape::NewtypeStruct { name, inner: Box::new(elements.pop()?) },
                false => Shape::TupleStruct { name, elements },
            });
        }
        if is_word { word(&name) } else { None }
    }

    /// Elements in brackets; whether it is one alone, without the comma that makes it a tuple.
    fn elements(&mut self) -> Option<(Vec<Shape>, bool)> {
        self.take("(")?;
        let mut elements = Vec::new();
        if self.takes(")") {
            return Some((elements, false));
        }
        loop {
            elements.push(self.shape()?);
            if self.takes(",)") {
                return Some((elements, false));
            }
            if self.takes(")") {
                let is_one = elements.len() == 1;
                return Some((elements, is_one));
            }
            self.take(", ")?;
        }
    }

    fn fields(&mut self) -> Option<Vec<(String, Shape)>> {
        self.take("{")?;
        let mut fields = Vec::new();
        if self.takes("}") {
            return Some(fields);
        }
        loop {
            let name = self.name()?;
            self.take(": ")?;
            fields.push((name, self.shape()?));
            if self.takes("}") {
                return Some(fields);
            }
            self.take(", ")?;
        }
    }

    fn variants(&mut self) -> Option<Shape> {
        let name = self.name()?;
        self.take("{")?;
        let mut variants = Vec::new();
        if self.takes("}") {
            return Some(Shape::Enum { name, variants });
        }
        loop {
            let variant = self.name()?;
            let content = if self.rest.starts_with('{') {
                VariantShape::Struct(self.fields()?)
            } else if self.rest.starts_with('(') {
                let (mut elements, is_one) = self.elements()?;
                match is_one {
                    true => VariantShape::Newtype(Box::new(elements.pop()?)),
                    false => VariantShape::Tuple(elements),
                }
            } else {
                VariantShape::Unit
            };
            variants.push((variant, content));
            if self.takes("}") {
                return Some(Shape::Enum { name, variants });
            }
            self.take(", ")?;
        }
    }
}

fn word(word: &str) -> Option<Shape> {
    Some(match word {
        "unit" => Shape::Unit,
        "bool" => Shape::Bool,
        "i8" => Shape::I8,
        "i16" => Shape::I16,
        "i32" => Shape::I32,
        "i64" => Shape::I64,
        "i128" => Shape::I128,
        "u8" => Shape::U8,
        "u16" => Shape::U16,
        "u32" => Shape::U32,
        "u64" => Shape::U64,
        "u128" => Shape::U128,
        "f32" => Shape::F32,
        "f64" => Shape::F64,
        "char" => Shape::Char,
        "str" => Shape::Str,
        "bytes" => Shape::Bytes,
        "unknown" => Shape::Unknown(String::new()),
        _ => return None,
    })
}
