//! serde's `Deserializer` at one edge: notes what is asked for, answers with a sample or a smallest value.

use std::any::type_name;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Visitor};

use super::access::{ElementsAccess, EntriesAccess, VariantsAccess, visit_fields};
use super::error::TraceError;
use super::grammar::{Key, Kind, Target};
use super::{Place, Tracer, samples};
use crate::types::shape::Shape;

/// Reason of a part that decides by the data what it is.
const SELF_DESCRIBING: &str =
    "it asks the data what it is, as untagged and tagged enums, flattened structs and JSON values do";
/// Reason of a part that reads names and is not a struct's or an enum's own.
const IDENTIFIER: &str = "it reads names of fields that are only known from the data";
/// Reason of a part that the type skips.
const IGNORED: &str = "its content is ignored";

pub(super) struct Tracing<'t> {
    pub tracer: &'t mut Tracer,
    pub place: Place,
}

impl Tracing<'_> {
    /// Notes a scalar; answers with the variation and the number of the scalar, which choose the sample.
    fn leaf(self, shape: Shape) -> Result<(u32, u32), TraceError> {
        if self.tracer.stopped {
            return Err(TraceError::Stop);
        }
        self.tracer.record(self.place.edge, Target::Leaf(shape));
        self.tracer.leaves += 1;
        Ok((self.place.variation, self.tracer.leaves))
    }

    fn integer(self, shape: Shape) -> Result<u8, TraceError> {
        let (variation, leaf) = self.leaf(shape)?;
        Ok(samples::integer(variation, leaf))
    }

    fn unknown<'de, V: Visitor<'de>>(self, reason: &str, visitor: V) -> Result<V::Value, TraceError> {
        let (variation, _) = self.leaf(Shape::Unknown(reason.to_owned()))?;
        match variation % 6 {
            0 => visitor.visit_unit(),
            1 => visitor.visit_borrowed_str("a"),
            2 => visitor.visit_u64(1),
            3 => visitor.visit_bool(true),
            4 => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<u8>())),
            _ => visitor.visit_map(MapDeserializer::new(std::iter::empty::<(u8, u8)>())),
        }
    }
}

fn key<V>(kind: Kind, name: &'static str, names: &'static [&'static str], slots: usize) -> Key {
    Key { kind, visitor: type_name::<V>(), name, names, slots, owner: None }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $shape:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
            visitor.$visit(<$type>::from(self.integer(Shape::$shape)?))
        }
    )*};
}

impl<'de> Deserializer<'de> for Tracing<'_> {
    type Error = TraceError;

    /// As the engine's own encoding of state and keys.
    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_u8 visit_u8 U8 u8;
        deserialize_u16 visit_u16 U16 u16;
        deserialize_u32 visit_u32 U32 u32;
        deserialize_u64 visit_u64 U64 u64;
        deserialize_u128 visit_u128 U128 u128;
        deserialize_i16 visit_i16 I16 i16;
        deserialize_i32 visit_i32 I32 i32;
        deserialize_i64 visit_i64 I64 i64;
        deserialize_i128 visit_i128 I128 i128;
        deserialize_f32 visit_f32 F32 f32;
        deserialize_f64 visit_f64 F64 f64;
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        // The samples are at most 127.
        visitor.visit_i8(self.integer(Shape::I8)? as i8)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        visitor.visit_bool(self.integer(Shape::Bool)? % 2 == 1)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        let (variation, leaf) = self.leaf(Shape::Char)?;
        visitor.visit_char(samples::character(variation, leaf))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        let (variation, leaf) = self.leaf(Shape::Str)?;
        visitor.visit_borrowed_str(samples::text(variation, leaf))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        let (variation, leaf) = self.leaf(Shape::Bytes)?;
        visitor.visit_borrowed_bytes(samples::bytes(variation, leaf))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        self.leaf(Shape::Unit)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TraceError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        self.unknown(SELF_DESCRIBING, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        self.unknown(IGNORED, visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        self.leaf(Shape::Unknown(IDENTIFIER.to_owned()))?;
        visitor.visit_borrowed_str("a")
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        let Tracing { tracer, place } = self;
        let frame = tracer.enter(place, key::<V>(Kind::Option, "option", &[], 1))?;
        let finite = tracer.is_buildable((frame.node, 0));
        let some = tracer.wants_content(frame) || (finite && frame.variation % 2 == 1);
        let result = if some {
            tracer.visit_edge(frame, 0, |inner| visitor.visit_some(inner))
        } else {
            visitor.visit_none()
        };
        tracer.leave();
        result
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        let Tracing { tracer, place } = self;
        let frame = tracer.enter(place, key::<V>(Kind::Seq, "seq", &[], 1))?;
        let count = tracer.choose_length(frame);
        let result = visitor.visit_seq(ElementsAccess::repeated(tracer, frame, count));
        tracer.leave();
        result
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        let Tracing { tracer, place } = self;
        let frame = tracer.enter(place, key::<V>(Kind::Map, "map", &[], 2))?;
        let count = tracer.choose_length(frame);
        let result = visitor.visit_map(EntriesAccess { tracer, frame, left: count });
        tracer.leave();
        result
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, TraceError> {
        let Tracing { tracer, place } = self;
        let frame = tracer.enter(place, key::<V>(Kind::Tuple, "tuple", &[], len))?;
        let result = visitor.visit_seq(ElementsAccess::distinct(tracer, frame, len));
        tracer.leave();
        result
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TraceError> {
        let Tracing { tracer, place } = self;
        let frame = tracer.enter(place, key::<V>(Kind::Newtype, name, &[], 1))?;
        let result = tracer.visit_edge(frame, 0, |inner| visitor.visit_newtype_struct(inner));
        tracer.leave();
        result
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, TraceError> {
        let Tracing { tracer, place } = self;
        let frame = tracer.enter(place, key::<V>(Kind::TupleStruct, name, &[], len))?;
        let result = visitor.visit_seq(ElementsAccess::distinct(tracer, frame, len));
        tracer.leave();
        result
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TraceError> {
        let Tracing { tracer, place } = self;
        let frame = tracer.enter(place, key::<V>(Kind::Struct, name, fields, fields.len()))?;
        let result = visit_fields(tracer, frame, fields, visitor);
        tracer.leave();
        result
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TraceError> {
        let Tracing { tracer, place } = self;
        let frame = tracer.enter(place, key::<V>(Kind::Enum, name, variants, variants.len()))?;
        // An enum without variants has no values.
        let Some(slot) = tracer.choose_variant(frame) else { return Err(tracer.stop()) };
        let result = visitor.visit_enum(VariantsAccess { tracer, frame, slot, name: variants[slot] });
        tracer.leave();
        result
    }
}
