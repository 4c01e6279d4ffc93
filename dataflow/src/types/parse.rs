//! From the text of a shape back to the shape: what is stored with state is told to people by it.

use flott_schema::{Error, Result};

use super::shape::{Shape, VariantShape};

/// Shapes within each other at most; no type that a person writes comes near.
const DEPTH_MAX: usize = 128;

/// Elements of an array that are taken apart at most: its text says only how many there are.
const ARRAY_MAX: usize = 1 << 16;

impl Shape {
    /// The shape with this [`canonical_text`](Self::canonical_text).
    pub fn parse(text: &str) -> Result<Shape> {
        let mut parser = Parser { text, at: 0 };
        let shape = parser.shape(0)?;
        match parser.rest().is_empty() {
            true => Ok(shape),
            false => Err(parser.wrong("the end")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, wanted: &str) -> Error {
        Error::bad_input(format!(
            "'{}' is no text of a type: {wanted} is wanted at byte {}",
            self.text, self.at
        ))
    }

    fn eats(&mut self, token: &str) -> bool {
        let is_there = self.rest().starts_with(token);
        self.at += if is_there { token.len() } else { 0 };
        is_there
    }

    fn eat(&mut self, token: &str) -> Result<()> {
        if self.eats(token) { Ok(()) } else { Err(self.wrong(&format!("'{token}'"))) }
    }

    fn shape(&mut self, depth: usize) -> Result<Shape> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("a type of fewer levels"));
        }
        let mut shape = self.one(depth + 1)?;
        while self.eats("?") {
            shape = Shape::Option(Box::new(shape));
        }
        Ok(shape)
    }

    fn one(&mut self, depth: usize) -> Result<Shape> {
        if self.eats("[") {
            return self.elements_of_one_shape(depth);
        }
        if self.rest().starts_with('(') {
            return self.elements(depth).map(|(elements, _)| Shape::Tuple(elements));
        }
        if self.eats("map[") {
            let key = self.shape(depth)?;
            self.eat(": ")?;
            let value = self.shape(depth)?;
            self.eat("]")?;
            return Ok(Shape::Map(Box::new(key), Box::new(value)));
        }
        if self.eats("enum ") {
            return self.variants(depth);
        }
        if self.eats("^") {
            return self.name().map(Shape::Recursive);
        }
        let is_quoted = self.rest().starts_with('"');
        let name = self.name()?;
        match self.rest().bytes().next() {
            Some(b'{') => Ok(Shape::Struct { name, fields: self.fields(depth)? }),
            Some(b'(') => {
                let (mut elements, is_newtype) = self.elements(depth)?;
                Ok(match elements.pop() {
                    Some(inner) if is_newtype => Shape::NewtypeStruct { name, inner: Box::new(inner) },
                    last => {
                        elements.extend(last);
                        Shape::TupleStruct { name, elements }
                    }
                })
            }
            _ if is_quoted => Err(self.wrong("'{' or '('")),
            _ => plain(&name).ok_or_else(|| self.wrong("the name of a type in front, not")),
        }
    }

    /// A sequence or an array, behind its bracket.
    fn elements_of_one_shape(&mut self, depth: usize) -> Result<Shape> {
        let element = self.shape(depth)?;
        if self.eats("]") {
            return Ok(Shape::Seq(Box::new(element)));
        }
        self.eat("; ")?;
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let length: usize = self.rest()[..digits].parse().map_err(|_| self.wrong("a number"))?;
        if length > ARRAY_MAX {
            return Err(self.wrong("a shorter array"));
        }
        self.at += digits;
        self.eat("]")?;
        Ok(Shape::Tuple(vec![element; length]))
    }

    /// What stands in parentheses, and whether it is one thing without a comma behind it.
    fn elements(&mut self, depth: usize) -> Result<(Vec<Shape>, bool)> {
        self.eat("(")?;
        let mut elements = Vec::new();
        if self.eats(")") {
            return Ok((elements, false));
        }
        loop {
            elements.push(self.shape(depth)?);
            if self.eats(",)") {
                return Ok((elements, false));
            }
            if self.eats(")") {
                let is_newtype = elements.len() == 1;
                return Ok((elements, is_newtype));
            }
            self.eat(", ")?;
        }
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<(String, Shape)>> {
        self.eat("{")?;
        let mut fields = Vec::new();
        while !self.eats("}") {
            if !fields.is_empty() {
                self.eat(", ")?;
            }
            let name = self.name()?;
            self.eat(": ")?;
            fields.push((name, self.shape(depth)?));
        }
        Ok(fields)
    }

    fn variants(&mut self, depth: usize) -> Result<Shape> {
        let name = self.name()?;
        self.eat("{")?;
        let mut variants = Vec::new();
        while !self.eats("}") {
            if !variants.is_empty() {
                self.eat(", ")?;
            }
            let variant = self.name()?;
            let content = match self.rest().bytes().next() {
                Some(b'{') => VariantShape::Struct(self.fields(depth)?),
                Some(b'(') => {
                    let (mut elements, is_newtype) = self.elements(depth)?;
                    match elements.pop() {
                        Some(inner) if is_newtype => VariantShape::Newtype(Box::new(inner)),
                        last => {
                            elements.extend(last);
                            VariantShape::Tuple(elements)
                        }
                    }
                }
                _ => VariantShape::Unit,
            };
            variants.push((variant, content));
        }
        Ok(Shape::Enum { name, variants })
    }

    /// A plain word, or anything in quotes.
    fn name(&mut self) -> Result<String> {
        if self.eats("\"") {
            let mut name = String::new();
            let mut letters = self.rest().char_indices();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '"' => {
                        self.at += at + 1;
                        return Ok(name);
                    }
                    '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
                    other => name.push(other),
                }
            }
            return Err(self.wrong("a closing quote"));
        }
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '|');
        let end = self.rest().find(|letter| !is_plain(letter)).unwrap_or(self.rest().len());
        if end == 0 {
            return Err(self.wrong("a name"));
        }
        let name = self.rest()[..end].to_string();
        self.at += end;
        Ok(name)
    }
}

/// A type without parts.
fn plain(name: &str) -> Option<Shape> {
    Some(match name {
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
        // Its reason is not part of the text.
        "unknown" => Shape::Unknown(String::new()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    // Only their shapes matter.
    #[allow(dead_code)]
    #[derive(Deserialize)]
    struct Order {
        id: u64,
        #[serde(rename = "a: \"b\\")]
        price: Option<Option<Price>>,
        tags: Vec<String>,
        parts: (u8, bool),
        digest: [u8; 32],
        unit: (),
        one: (char,),
        counts: BTreeMap<String, i128>,
        kind: Kind,
        next: Option<Box<Order>>,
    }

    #[allow(dead_code)]
    #[derive(Deserialize)]
    struct Price(i64);

    #[allow(dead_code)]
    #[derive(Deserialize)]
    struct Pair(f32, f64);

    #[allow(dead_code)]
    #[derive(Deserialize)]
    enum Kind {
        Plain,
        #[serde(alias = "Other")]
        New(Pair),
        Both(u16, u32),
        Named {
            at: i16,
        },
    }

    fn comes_back<T: DeserializeOwned>() {
        let shape = Shape::of::<T>();
        assert_eq!(Shape::parse(&shape.canonical_text()).unwrap(), shape);
    }

    #[test]
    fn every_shape_comes_back_from_its_text() {
        comes_back::<Order>();
        comes_back::<Kind>();
        comes_back::<()>();
        comes_back::<(Vec<Option<u8>>, i8, i32)>();
        comes_back::<Result<String, Pair>>();
    }

    #[test]
    fn what_is_no_text_of_a_shape_is_refused_with_the_place() {
        for text in ["", "u65", "[u8", "[u8; 70000]", "(u8", "A{b u8}", "enum A{", "\"a\"", "u8 ", "map[u8]"]
        {
            let error = Shape::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}' is no text of a type")), "{error}");
        }
        assert!(Shape::parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_gives_a_shape_or_an_error(text in "[\\[\\](){}?^:;, a-zA-Z0-9\"\\\\é]{0,40}") {
            if let Ok(shape) = Shape::parse(&text) {
                prop_assert_eq!(Shape::parse(&shape.canonical_text()).unwrap(), shape);
            }
        }
    }
}
