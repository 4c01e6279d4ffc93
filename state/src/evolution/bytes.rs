//! Values in postcard's format (<https://postcard.jamesmunns.com/wire-format>): how long they are, and
//! numbers.

use flott_dataflow::types::{Shape, VariantShape};
use flott_schema::{Error, Result};

/// Bytes that are not what the type says.
pub(super) fn unreadable() -> Error {
    Error::bad_input("a stored value is not of the type that its table names; the snapshot is damaged")
}

/// Takes bytes off the front.
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(length).ok_or_else(unreadable)?;
    *bytes = rest;
    Ok(front)
}

/// Takes a number of varying length, with as many bits as any has.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u128> {
    let mut number: u128 = 0;
    for shift in (0..u128::BITS).step_by(7) {
        let [byte] = take(bytes, 1)? else { return Err(unreadable()) };
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(unreadable())
}

pub(super) fn put_varint(mut number: u128, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Signed numbers with the sign in the lowest bit.
pub(super) fn zigzag(number: i128) -> u128 {
    ((number << 1) ^ (number >> 127)) as u128
}

fn take_count(bytes: &mut &[u8]) -> Result<usize> {
    usize::try_from(take_varint(bytes)?).map_err(|_| unreadable())
}

/// Takes the number of elements that follow. Elements without bytes are no reason to count for long.
pub(super) fn take_length(bytes: &mut &[u8]) -> Result<usize> {
    let count = take_count(bytes)?;
    if count > u32::MAX as usize { Err(unreadable()) } else { Ok(count) }
}

/// Skips a value.
pub(super) fn skip(shape: &Shape, bytes: &mut &[u8]) -> Result<()> {
    match shape {
        Shape::Unit => {}
        Shape::Bool | Shape::I8 | Shape::U8 => drop(take(bytes, 1)?),
        Shape::F32 => drop(take(bytes, 4)?),
        Shape::F64 => drop(take(bytes, 8)?),
        Shape::I16 | Shape::I32 | Shape::I64 | Shape::I128 => drop(take_varint(bytes)?),
        Shape::U16 | Shape::U32 | Shape::U64 | Shape::U128 => drop(take_varint(bytes)?),
        Shape::Char | Shape::Str | Shape::Bytes => {
            let length = take_count(bytes)?;
            take(bytes, length)?;
        }
        Shape::Option(inner) => match take(bytes, 1)? {
            [0] => {}
            [1] => skip(inner, bytes)?,
            _ => return Err(unreadable()),
        },
        Shape::Seq(element) => {
            for _ in 0..take_length(bytes)? {
                skip(element, bytes)?;
            }
        }
        Shape::Map(key, value) => {
            for _ in 0..take_length(bytes)? {
                skip(key, bytes)?;
                skip(value, bytes)?;
            }
        }
        Shape::Tuple(elements) | Shape::TupleStruct { elements, .. } => {
            elements.iter().try_for_each(|element| skip(element, bytes))?;
        }
        Shape::Struct { fields, .. } => fields.iter().try_for_each(|(_, field)| skip(field, bytes))?,
        Shape::NewtypeStruct { inner, .. } => skip(inner, bytes)?,
        Shape::Enum { variants, .. } => {
            let index = take_count(bytes)?;
            match variants.get(index).map(|(_, content)| content).ok_or_else(unreadable)? {
                VariantShape::Unit => {}
                VariantShape::Newtype(inner) => skip(inner, bytes)?,
                VariantShape::Tuple(elements) => {
                    elements.iter().try_for_each(|element| skip(element, bytes))?
                }
                VariantShape::Struct(fields) => {
                    fields.iter().try_for_each(|(_, field)| skip(field, bytes))?
                }
            }
        }
        Shape::Recursive(_) | Shape::Unknown(_) => return Err(unreadable()),
    }
    Ok(())
}

/// Appends the least value of a type; false if it has none.
pub(super) fn put_least(shape: &Shape, out: &mut Vec<u8>) -> bool {
    match shape {
        Shape::Unit => {}
        Shape::F32 => out.extend_from_slice(&[0; 4]),
        Shape::F64 => out.extend_from_slice(&[0; 8]),
        // The text of the character 0.
        Shape::Char => out.extend_from_slice(&[1, 0]),
        Shape::Tuple(elements) | Shape::TupleStruct { elements, .. } => {
            return elements.iter().all(|element| put_least(element, out));
        }
        Shape::Struct { fields, .. } => return fields.iter().all(|(_, field)| put_least(field, out)),
        Shape::NewtypeStruct { inner, .. } => return put_least(inner, out),
        Shape::Enum { .. } | Shape::Recursive(_) | Shape::Unknown(_) => return false,
        // A number, none, or nothing of many.
        _ => out.push(0),
    }
    true
}
