//! Whether values of one shape can become values of another, and how.

use flott_dataflow::types::{Shape, VariantShape};

use super::bytes::put_least;

/// How a value becomes one of another shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plan {
    /// It is one: its bytes are taken over.
    Same(Shape),
    /// Another number of the same value.
    Number(Number),
    /// It becomes optional.
    Some(Box<Plan>),
    Option(Box<Plan>),
    Seq(Box<Plan>),
    Map(Box<Plan>, Box<Plan>),
    Fields(Fields),
    /// For each variant, its new number and what becomes of its content.
    Enum(Vec<(u32, Plan)>),
}

/// Numbers whose bytes differ though their values are the same. Those of 16 bits and more have the same bytes
/// in all widths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// A byte becomes a number of varying length.
    UnsignedByte,
    UnsignedByteToSigned,
    SignedByte,
    UnsignedToSigned,
    Float,
}

/// Fields one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fields {
    /// The stored ones in their order.
    pub(super) stored: Vec<Shape>,
    pub(super) now: Vec<Field>,
}

/// A field as it is now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    /// That stored field.
    Stored(usize, Plan),
    /// A new one, with these bytes.
    New(Vec<u8>),
}

impl Fields {
    /// Whether all are what and where they were.
    fn is_same(&self) -> bool {
        let same = |(at, field): (usize, &Field)| match field {
            Field::Stored(stored, plan) => *stored == at && plan.is_same(),
            Field::New(_) => false,
        };
        self.stored.len() == self.now.len() && self.now.iter().enumerate().all(same)
    }
}

type Planned = Result<Plan, String>;

fn place(path: &[String]) -> String {
    if path.is_empty() { "the value".into() } else { format!("'{}'", path.join(".")) }
}

/// Bits of an integer, and whether it has a sign.
fn integer(shape: &Shape) -> Option<(u32, bool)> {
    Some(match shape {
        Shape::I8 => (8, true),
        Shape::I16 => (16, true),
        Shape::I32 => (32, true),
        Shape::I64 => (64, true),
        Shape::I128 => (128, true),
        Shape::U8 => (8, false),
        Shape::U16 => (16, false),
        Shape::U32 => (32, false),
        Shape::U64 => (64, false),
        Shape::U128 => (128, false),
        _ => return None,
    })
}

impl Plan {
    /// Whether nothing has to be done.
    pub(super) fn is_same(&self) -> bool {
        matches!(self, Plan::Same(_))
    }

    /// The plan from one shape to another, or why there is none; `path` leads to the place in the type.
    pub(super) fn of(from: &Shape, to: &Shape, path: &mut Vec<String>) -> Planned {
        let plan = Self::changed(from, to, path)?;
        // Where no part changes, the bytes of the whole are the same.
        let is_same = match &plan {
            Plan::Option(inner) | Plan::Seq(inner) => inner.is_same(),
            Plan::Map(key, value) => key.is_same() && value.is_same(),
            Plan::Fields(fields) => fields.is_same(),
            Plan::Enum(variants) => {
                variants.iter().enumerate().all(|(at, (now, plan))| *now as usize == at && plan.is_same())
            }
            _ => false,
        };
        Ok(if is_same { Plan::Same(from.clone()) } else { plan })
    }

    fn changed(from: &Shape, to: &Shape, path: &mut Vec<String>) -> Planned {
        let refused = |path: &[String]| {
            Err(format!("{} was {from}, and values of that type cannot become {to}", place(path)))
        };
        if is_unknown(from) || is_unknown(to) {
            return Err(format!(
                "{} refers to itself or has a part of which nothing is known, beside parts that have changed",
                place(path)
            ));
        }
        if let (Some((bits, signed)), Some((bits_now, signed_now))) = (integer(from), integer(to)) {
            if from == to {
                return Ok(Plan::Same(from.clone()));
            }
            if bits_now <= bits || (signed && !signed_now) {
                return refused(path);
            }
            return Ok(match (bits, signed, signed_now) {
                (8, false, false) => Plan::Number(Number::UnsignedByte),
                (8, false, true) => Plan::Number(Number::UnsignedByteToSigned),
                (8, true, _) => Plan::Number(Number::SignedByte),
                (_, false, true) => Plan::Number(Number::UnsignedToSigned),
                _ => Plan::Same(from.clone()),
            });
        }
        match (from, to) {
            (Shape::Option(from), Shape::Option(to)) => Ok(Plan::Option(Box::new(Plan::of(from, to, path)?))),
            (_, Shape::Option(to)) => Ok(Plan::Some(Box::new(Plan::of(from, to, path)?))),
            (Shape::Seq(from), Shape::Seq(to)) => Ok(Plan::Seq(Box::new(Plan::of(from, to, path)?))),
            (Shape::Map(key, value), Shape::Map(key_now, value_now)) => {
                let key = Plan::of(key, key_now, path)?;
                Ok(Plan::Map(Box::new(key), Box::new(Plan::of(value, value_now, path)?)))
            }
            (Shape::F32, Shape::F64) => Ok(Plan::Number(Number::Float)),
            (Shape::NewtypeStruct { inner, .. }, _) => Plan::of(inner, to, path),
            (_, Shape::NewtypeStruct { inner, .. }) => Plan::of(from, inner, path),
            (
                Shape::Tuple(from) | Shape::TupleStruct { elements: from, .. },
                Shape::Tuple(to) | Shape::TupleStruct { elements: to, .. },
            ) if from.len() == to.len() => elements(from, to, path),
            (Shape::Struct { fields, .. }, Shape::Struct { fields: now, .. }) => named(fields, now, path),
            (Shape::Enum { variants, .. }, Shape::Enum { variants: now, .. }) => {
                enumerated(variants, now, path)
            }
            _ if from == to => Ok(Plan::Same(from.clone())),
            _ => refused(path),
        }
    }
}

/// Whether the shape says too little to find where a value ends.
fn is_unknown(shape: &Shape) -> bool {
    matches!(shape, Shape::Recursive(_) | Shape::Unknown(_))
}

fn elements(from: &[Shape], to: &[Shape], path: &mut Vec<String>) -> Planned {
    let mut now = Vec::with_capacity(to.len());
    for (at, (from, to)) in from.iter().zip(to).enumerate() {
        path.push(at.to_string());
        now.push(Field::Stored(at, Plan::of(from, to, path)?));
        path.pop();
    }
    Ok(Plan::Fields(Fields { stored: from.to_vec(), now }))
}

fn named(from: &[(String, Shape)], to: &[(String, Shape)], path: &mut Vec<String>) -> Planned {
    let mut now = Vec::with_capacity(to.len());
    for (name, shape) in to {
        path.push(name.clone());
        let stored = from.iter().position(|(stored, _)| stored == name);
        now.push(match stored {
            Some(at) => Field::Stored(at, Plan::of(&from[at].1, shape, path)?),
            None => {
                let mut bytes = Vec::new();
                if !put_least(shape, &mut bytes) {
                    return Err(format!(
                        "{} is new, and {shape} has no least value to begin with; make it optional",
                        place(path)
                    ));
                }
                Field::New(bytes)
            }
        });
        path.pop();
    }
    Ok(Plan::Fields(Fields { stored: from.iter().map(|(_, shape)| shape.clone()).collect(), now }))
}

fn enumerated(
    from: &[(String, VariantShape)],
    to: &[(String, VariantShape)],
    path: &mut Vec<String>,
) -> Planned {
    let mut variants = Vec::with_capacity(from.len());
    for (name, content) in from {
        path.push(name.clone());
        // A variant with several names stands under all of them.
        let is_it = |now: &str| now.split('|').any(|now| name.split('|').any(|name| name == now));
        let Some(at) = to.iter().position(|(now, _)| is_it(now)) else {
            return Err(format!("variant {} is gone, and values of it may be stored", place(path)));
        };
        let plan = match (content, &to[at].1) {
            (VariantShape::Unit, VariantShape::Unit) => Plan::Same(Shape::Unit),
            (VariantShape::Newtype(from), VariantShape::Newtype(to)) => Plan::of(from, to, path)?,
            (VariantShape::Tuple(from), VariantShape::Tuple(to)) if from.len() == to.len() => {
                whole(elements(from, to, path)?, from)
            }
            (VariantShape::Struct(from), VariantShape::Struct(to)) => {
                let shapes: Vec<Shape> = from.iter().map(|(_, shape)| shape.clone()).collect();
                whole(named(from, to, path)?, &shapes)
            }
            _ => return Err(format!("variant {} holds something of another kind now", place(path))),
        };
        path.pop();
        variants.push((at as u32, plan));
    }
    Ok(Plan::Enum(variants))
}

/// A list of fields of which none has changed is taken over as a tuple.
fn whole(plan: Plan, stored: &[Shape]) -> Plan {
    let same = matches!(&plan, Plan::Fields(fields) if fields.is_same());
    if same { Plan::Same(Shape::Tuple(stored.to_vec())) } else { plan }
}
