//! Rewrites values by a plan.

use flott_schema::Result;

use super::bytes::{put_varint, skip, take, take_length, take_varint, unreadable, zigzag};
use super::plan::{Field, Fields, Number, Plan};

impl Plan {
    /// Appends to `out` what becomes of a stored value. It may be followed by others, which are taken over.
    pub(crate) fn rewrite(&self, mut stored: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.one(&mut stored, out)?;
        if stored.is_empty() { Ok(()) } else { Err(unreadable()) }
    }

    fn one(&self, stored: &mut &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Plan::Same(shape) => {
                let before = *stored;
                skip(shape, stored)?;
                out.extend_from_slice(&before[..before.len() - stored.len()]);
            }
            Plan::Number(number) => rewrite_number(*number, stored, out)?,
            Plan::Some(inner) => {
                out.push(1);
                inner.one(stored, out)?;
            }
            Plan::Option(inner) => match take(stored, 1)? {
                [0] => out.push(0),
                [1] => {
                    out.push(1);
                    inner.one(stored, out)?;
                }
                _ => return Err(unreadable()),
            },
            Plan::Seq(element) => {
                let count = take_length(stored)?;
                put_varint(count as u128, out);
                for _ in 0..count {
                    element.one(stored, out)?;
                }
            }
            Plan::Map(key, value) => {
                let count = take_length(stored)?;
                put_varint(count as u128, out);
                for _ in 0..count {
                    key.one(stored, out)?;
                    value.one(stored, out)?;
                }
            }
            Plan::Fields(fields) => fields.rewrite(stored, out)?,
            Plan::Enum(variants) => {
                let index = usize::try_from(take_varint(stored)?).map_err(|_| unreadable())?;
                let (now, content) = variants.get(index).ok_or_else(unreadable)?;
                put_varint(u128::from(*now), out);
                content.one(stored, out)?;
            }
        }
        Ok(())
    }
}

impl Fields {
    fn rewrite(&self, stored: &mut &[u8], out: &mut Vec<u8>) -> Result<()> {
        // Where each stored field begins: they may have changed places.
        let mut begins = Vec::with_capacity(self.stored.len());
        for shape in &self.stored {
            begins.push(*stored);
            skip(shape, stored)?;
        }
        for field in &self.now {
            match field {
                Field::Stored(at, plan) => plan.one(&mut { begins[*at] }, out)?,
                Field::New(bytes) => out.extend_from_slice(bytes),
            }
        }
        Ok(())
    }
}

fn rewrite_number(number: Number, stored: &mut &[u8], out: &mut Vec<u8>) -> Result<()> {
    match number {
        Number::UnsignedByte => put_varint(u128::from(take(stored, 1)?[0]), out),
        Number::UnsignedByteToSigned => put_varint(zigzag(i128::from(take(stored, 1)?[0])), out),
        Number::SignedByte => put_varint(zigzag(i128::from(take(stored, 1)?[0] as i8)), out),
        Number::UnsignedToSigned => {
            let number = i128::try_from(take_varint(stored)?).map_err(|_| unreadable())?;
            put_varint(zigzag(number), out);
        }
        Number::Float => {
            let bytes = take(stored, 4)?.try_into().expect("four bytes");
            out.extend_from_slice(&f64::from(f32::from_le_bytes(bytes)).to_le_bytes());
        }
    }
    Ok(())
}
