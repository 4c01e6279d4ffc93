//! A row into the lanes of its block.

use std::fmt::{Display, Formatter};

use serde::Serialize;
use serde::ser::{
    Error, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use super::lanes::{STRIDE, zigzag};

/// Writes the values of one row, each into its column.
pub(super) struct RowWriter<'a> {
    pub lanes: &'a mut [u64],
    pub heap: &'a mut Vec<u8>,
    /// Where the next value goes: its column times the stride, and its row.
    pub at: usize,
}

/// The row does not fit into columns, or cannot be serialised at all: the row form says which.
#[derive(Debug)]
pub(super) struct NotColumns;

impl Display for NotColumns {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("the row does not fit into columns")
    }
}

impl std::error::Error for NotColumns {}

impl Error for NotColumns {
    fn custom<T: Display>(_: T) -> Self {
        NotColumns
    }
}

type Written = Result<(), NotColumns>;

impl RowWriter<'_> {
    #[inline(always)]
    fn put(&mut self, lane: u64) -> Written {
        *self.lanes.get_mut(self.at).ok_or(NotColumns)? = lane;
        self.at += STRIDE;
        Ok(())
    }
}

macro_rules! lanes_of {
    ($($method:ident($type:ty) = |$value:ident| $lane:expr;)*) => {
        $(
            #[inline(always)]
            fn $method(self, $value: $type) -> Written {
                self.put($lane)
            }
        )*
    };
}

impl Serializer for &mut RowWriter<'_> {
    type Ok = ();
    type Error = NotColumns;
    type SerializeSeq = serde::ser::Impossible<(), NotColumns>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = serde::ser::Impossible<(), NotColumns>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    lanes_of! {
        serialize_bool(bool) = |value| u64::from(value);
        serialize_u8(u8) = |value| u64::from(value);
        serialize_u16(u16) = |value| u64::from(value);
        serialize_u32(u32) = |value| u64::from(value);
        serialize_u64(u64) = |value| value;
        serialize_i8(i8) = |value| zigzag(i64::from(value));
        serialize_i16(i16) = |value| zigzag(i64::from(value));
        serialize_i32(i32) = |value| zigzag(i64::from(value));
        serialize_i64(i64) = |value| zigzag(value);
        serialize_f32(f32) = |value| u64::from(value.to_bits());
        serialize_f64(f64) = |value| value.to_bits();
        serialize_char(char) = |value| u64::from(u32::from(value));
    }

    #[inline(always)]
    fn serialize_u128(self, value: u128) -> Written {
        self.put(value as u64)?;
        self.put((value >> 64) as u64)
    }

    #[inline(always)]
    fn serialize_i128(self, value: i128) -> Written {
        self.serialize_u128(value as u128)
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Written {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Written {
        self.heap.extend_from_slice(value);
        self.put(value.len() as u64)
    }

    #[inline]
    fn serialize_none(self) -> Written {
        self.put(0)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        self.put(1)?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Written {
        self.put(u64::from(index))
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Written {
        self.put(u64::from(index))?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, NotColumns> {
        Err(NotColumns)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, NotColumns> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, NotColumns> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotColumns> {
        self.put(u64::from(index))?;
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotColumns> {
        Err(NotColumns)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, NotColumns> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotColumns> {
        self.put(u64::from(index))?;
        Ok(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! parts_of {
    ($($kind:ident: $method:ident($($key:ty)?);)*) => {
        $(
            impl $kind for &mut RowWriter<'_> {
                type Ok = ();
                type Error = NotColumns;

                #[inline]
                fn $method<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Written {
                    value.serialize(&mut **self)
                }

                #[inline]
                fn end(self) -> Written {
                    Ok(())
                }
            }
        )*
    };
}

parts_of! {
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(&'static str);
    SerializeStructVariant: serialize_field(&'static str);
}
