//! A row out of the lanes of its block.

use std::fmt::Display;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, SeqAccess, VariantAccess, Visitor,
};

use super::lanes::{STRIDE, unzigzag};

/// Reads the values of one row, each from its column.
pub(super) struct RowReader<'a, 'de> {
    pub lanes: &'a [u64],
    pub heap: &'de [u8],
    /// Where the next value is: its column times the stride, and its row.
    pub at: usize,
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(Box<str>);

impl Error for Unreadable {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Unreadable(message.to_string().into())
    }
}

#[cold]
fn ends_early() -> Unreadable {
    Error::custom("a row ends early")
}

#[cold]
fn out_of_range(lane: u64) -> Unreadable {
    Error::custom(format_args!("{lane:#x} is outside the range of its type"))
}

#[cold]
fn not_described() -> Unreadable {
    Error::custom("the form does not describe itself: a type must ask for what it has written")
}

impl<'de> RowReader<'_, 'de> {
    #[inline(always)]
    fn next(&mut self) -> Result<u64, Unreadable> {
        let lane = *self.lanes.get(self.at).ok_or_else(ends_early)?;
        self.at += STRIDE;
        Ok(lane)
    }

    #[inline(always)]
    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Unreadable> {
        let lane = self.next()?;
        T::try_from(lane).map_err(|_| out_of_range(lane))
    }

    #[inline(always)]
    fn signed<T: TryFrom<i64>>(&mut self) -> Result<T, Unreadable> {
        let lane = self.next()?;
        T::try_from(unzigzag(lane)).map_err(|_| out_of_range(lane))
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8], Unreadable> {
        let length = usize::try_from(self.next()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.heap.split_at_checked(length).ok_or_else(ends_early)?;
        self.heap = rest;
        Ok(bytes)
    }

    fn wide(&mut self) -> Result<u128, Unreadable> {
        Ok(u128::from(self.next()?) | u128::from(self.next()?) << 64)
    }
}

macro_rules! values_of {
    ($($method:ident = |$reader:ident| $visit:ident($value:expr);)*) => {
        $(
            #[inline(always)]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
                let $reader = self;
                visitor.$visit($value)
            }
        )*
    };
}

macro_rules! refused {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unreadable> {
                Err(not_described())
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &mut RowReader<'_, 'de> {
    type Error = Unreadable;

    values_of! {
        deserialize_u8 = |row| visit_u8(row.small()?);
        deserialize_u16 = |row| visit_u16(row.small()?);
        deserialize_u32 = |row| visit_u32(row.small()?);
        deserialize_u64 = |row| visit_u64(row.next()?);
        deserialize_u128 = |row| visit_u128(row.wide()?);
        deserialize_i8 = |row| visit_i8(row.signed()?);
        deserialize_i16 = |row| visit_i16(row.signed()?);
        deserialize_i32 = |row| visit_i32(row.signed()?);
        deserialize_i64 = |row| visit_i64(unzigzag(row.next()?));
        deserialize_i128 = |row| visit_i128(row.wide()? as i128);
        deserialize_f32 = |row| visit_f32(f32::from_bits(row.small()?));
        deserialize_f64 = |row| visit_f64(f64::from_bits(row.next()?));
        deserialize_bytes = |row| visit_borrowed_bytes(row.bytes()?);
        deserialize_byte_buf = |row| visit_borrowed_bytes(row.bytes()?);
    }

    refused! { deserialize_any deserialize_seq deserialize_map deserialize_identifier deserialize_ignored_any }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.next()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            other => Err(out_of_range(other)),
        }
    }

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let code: u32 = self.small()?;
        visitor.visit_char(char::from_u32(code).ok_or_else(|| out_of_range(u64::from(code)))?)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_borrowed_str(std::str::from_utf8(self.bytes()?).map_err(Error::custom)?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.next()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            other => Err(out_of_range(other)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_seq(Parts { row: self, left: len })
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_enum(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The parts of a tuple or struct.
struct Parts<'r, 'a, 'de> {
    row: &'r mut RowReader<'a, 'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, '_, 'de> {
    type Error = Unreadable;

    #[inline(always)]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unreadable> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                seed.deserialize(&mut *self.row).map(Some)
            }
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> EnumAccess<'de> for &mut RowReader<'_, 'de> {
    type Error = Unreadable;
    type Variant = Self;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Unreadable> {
        let index: u32 = self.small()?;
        let variant = seed.deserialize(IntoDeserializer::<Unreadable>::into_deserializer(index))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for &mut RowReader<'_, 'de> {
    type Error = Unreadable;

    #[inline]
    fn unit_variant(self) -> Result<(), Unreadable> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unreadable> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}
