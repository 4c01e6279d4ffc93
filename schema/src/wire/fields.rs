//! Fields one at a time. What cannot be read or written is an error that names the field.

use std::fmt::Display;

use capnp::traits::Owned;
use capnp::{NotInSchema, data, data_list, struct_list, text, text_list};

use super::{Wire, broken, unreadable};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that a text may have at most.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// Bytes that a piece of data may have at most.
pub const DATA_BYTES_MAX: usize = 64 << 20;

/// Elements that a list may have at most.
pub const LIST_LENGTH_MAX: usize = 1 << 20;

/// A struct that has to be there.
pub fn required<T: Wire>(
    field: &'static str,
    is_there: bool,
    form: capnp::Result<<T::Form as Owned>::Reader<'_>>,
) -> Result<T> {
    optional(field, is_there, form)?.ok_or_else(|| unreadable("the field is missing").at(field))
}

/// A struct that may be left out.
pub fn optional<T: Wire>(
    field: &'static str,
    is_there: bool,
    form: capnp::Result<<T::Form as Owned>::Reader<'_>>,
) -> Result<Option<T>> {
    if !is_there {
        return Ok(None);
    }
    form.map_err(broken).and_then(T::read).map(Some).map_err(|error| error.at(field))
}

/// A list of structs; one that is left out is empty.
pub fn list<T: Wire>(
    field: &'static str,
    forms: capnp::Result<struct_list::Reader<'_, T::Form>>,
) -> Result<Vec<T>> {
    let forms = forms.map_err(|error| broken(error).at(field))?;
    let mut values = Vec::new();
    for index in 0..forms.len() {
        values.push(T::read(forms.get(index)).map_err(|error| error.at(format!("{field}[{index}]")))?);
    }
    Ok(values)
}

/// Writes a list of structs into the one that `init` makes, which is told its length.
pub fn write_list<'a, 'v, T: Wire + 'v>(
    field: &'static str,
    values: impl IntoIterator<Item = &'v T, IntoIter: ExactSizeIterator>,
    init: impl FnOnce(u32) -> struct_list::Builder<'a, T::Form>,
) -> Result<()>
where
    T::Form: 'a,
{
    let values = values.into_iter();
    let mut forms = init(list_length(field, values.len())?);
    for (index, value) in (0..).zip(values) {
        value.write(forms.reborrow().get(index)).map_err(|error| error.at(format!("{field}[{index}]")))?;
    }
    Ok(())
}

/// The length of a list to write, if it is not too long.
pub fn list_length(field: &'static str, length: usize) -> Result<u32> {
    match u32::try_from(length) {
        Ok(fits) if length <= LIST_LENGTH_MAX => Ok(fits),
        _ => Err(too_long(field, length, "elements", LIST_LENGTH_MAX)),
    }
}

/// A text to write, if it is not too long.
pub fn text_to_write<'a>(field: &'static str, text: &'a str) -> Result<&'a str> {
    match text.len() > TEXT_BYTES_MAX {
        true => Err(too_long(field, text.len(), "bytes", TEXT_BYTES_MAX)),
        false => Ok(text),
    }
}

/// A text; one that is left out is empty.
pub fn text(field: &'static str, text: capnp::Result<text::Reader<'_>>) -> Result<String> {
    let text = text.map_err(|error| broken(error).at(field))?;
    text.to_string().map_err(|error| unreadable(error).at(field))
}

/// A list of texts; one that is left out is empty.
pub fn texts(field: &'static str, list: capnp::Result<text_list::Reader<'_>>) -> Result<Vec<String>> {
    let list = list.map_err(|error| broken(error).at(field))?;
    (0..list.len()).map(|index| text(field, list.get(index))).collect()
}

/// Bytes to write, if there are not too many.
pub fn data_to_write<'a>(field: &'static str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    match bytes.len() > DATA_BYTES_MAX {
        true => Err(too_long(field, bytes.len(), "bytes", DATA_BYTES_MAX)),
        false => Ok(bytes),
    }
}

/// Bytes; none if they are left out.
pub fn bytes(field: &'static str, bytes: capnp::Result<data::Reader<'_>>) -> Result<Vec<u8>> {
    bytes.map(<[u8]>::to_vec).map_err(|error| broken(error).at(field))
}

/// A list of pieces of data; one that is left out is empty.
pub fn pieces(field: &'static str, list: capnp::Result<data_list::Reader<'_>>) -> Result<Vec<Vec<u8>>> {
    let list = list.map_err(|error| broken(error).at(field))?;
    (0..list.len()).map(|index| bytes(field, list.get(index))).collect()
}

/// Bytes of which there are always as many.
pub fn array<const N: usize>(field: &'static str, bytes: capnp::Result<data::Reader<'_>>) -> Result<[u8; N]> {
    let bytes = bytes.map_err(|error| broken(error).at(field))?;
    let wrong = |_| unreadable(format!("{} bytes where {N} are wanted", bytes.len())).at(field);
    bytes.try_into().map_err(wrong)
}

/// A word of an enum, or the choice of a union, that this version knows.
pub fn known<F, T: From<F>>(field: &'static str, value: std::result::Result<F, NotInSchema>) -> Result<T> {
    match value {
        Ok(value) => Ok(T::from(value)),
        Err(NotInSchema(number)) => Err(unreadable(format!(
            "value {number} is not known; a newer version of Flott wrote it, so this process must be upgraded"
        ))
        .at(field)),
    }
}

fn too_long(field: &'static str, length: usize, unit: impl Display, length_max: usize) -> Error {
    let message = format!("{length} {unit} are too many for a message; it takes up to {length_max}");
    Error::new(ErrorKind::BadInput, message).at(field)
}
