//! The stable hash: decides the key group of a key, so it never changes (version 1).
//!
//! A key is hashed through its serde form, fed value by value into a folded-multiply mixer (the construction of
//! wyhash, <https://github.com/wangyi-fudan/wyhash>), so the result depends neither on the platform, nor on the Rust
//! version, nor on `std::hash::Hash`. Sequences and strings end with their length, variants begin with their index,
//! so that no two keys of a type feed the same values. Low bits choose the key group; tables index by the high bits.

use std::fmt;

use serde::Serialize;
use serde::ser;

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const STEP: u64 = 0xa076_1d64_78bd_642f;

/// The stable hash of a key.
///
/// # Panics
/// If the key's own `Serialize` returns an error: such a type cannot be a key.
#[inline]
pub fn stable_hash<K: Serialize + ?Sized>(key: &K) -> u64 {
    let mut hasher = StableHasher(SEED);
    if let Err(Refused(message)) = key.serialize(&mut hasher) {
        panic!("the key cannot be hashed, its Serialize says: {message}");
    }
    // Every key but the unit ends with a word that was mixed in, so there is nothing left to finish.
    hasher.0
}

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

struct StableHasher(u64);

impl StableHasher {
    #[inline]
    fn word(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word, STEP);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(u64::from_le_bytes(chunk.try_into().expect("chunks of eight")));
        }
        let rest = chunks.remainder();
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length separates "a" from "a\0" and one string from two.
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64 | 1 << 63);
    }
}

/// A `Serialize` implementation refused to serialise.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Refused(message.to_string())
    }
}

/// Counts the elements of a sequence or map, and hashes the count behind them.
struct Counted<'a> {
    hasher: &'a mut StableHasher,
    count: u64,
}

macro_rules! words {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), Refused> {
            self.word(value as u64);
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for &'a mut StableHasher {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Counted<'a>;
    type SerializeTuple = &'a mut StableHasher;
    type SerializeTupleStruct = &'a mut StableHasher;
    type SerializeTupleVariant = &'a mut StableHasher;
    type SerializeMap = Counted<'a>;
    type SerializeStruct = &'a mut StableHasher;
    type SerializeStructVariant = &'a mut StableHasher;

    words!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_char: char
    );

    fn serialize_i128(self, value: i128) -> Result<(), Refused> {
        self.serialize_u128(value as u128)
    }

    fn serialize_u128(self, value: u128) -> Result<(), Refused> {
        self.word(value as u64);
        self.word((value >> 64) as u64);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Refused> {
        self.word(u64::from(value.to_bits()));
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Refused> {
        self.word(value.to_bits());
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        self.bytes(value.as_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refused> {
        self.bytes(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.word(0);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.word(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), Refused> {
        self.word(u64::from(index));
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.word(u64::from(index));
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Counted<'a>, Refused> {
        Ok(Counted { hasher: self, count: 0 })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.word(u64::from(index));
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Counted<'a>, Refused> {
        Ok(Counted { hasher: self, count: 0 })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Refused> {
        self.word(u64::from(index));
        Ok(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl ser::SerializeSeq for Counted<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.count += 1;
        value.serialize(&mut *self.hasher)
    }

    fn end(self) -> Result<(), Refused> {
        self.hasher.word(self.count);
        Ok(())
    }
}

impl ser::SerializeMap for Counted<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.count += 1;
        key.serialize(&mut *self.hasher)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(&mut *self.hasher)
    }

    fn end(self) -> Result<(), Refused> {
        self.hasher.word(self.count);
        Ok(())
    }
}

macro_rules! fields {
    ($($trait:ident :: $method:ident $(($name:ty))?),*) => {$(
        impl ser::$trait for &mut StableHasher {
            type Ok = ();
            type Error = Refused;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), Refused> {
                value.serialize(&mut **self)
            }

            #[inline]
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        }
    )*};
}

fields!(
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
    SerializeStruct::serialize_field(&'static str),
    SerializeStructVariant::serialize_field(&'static str)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_frozen() {
        // State and key groups in savepoints depend on these values: never change them.
        let seen = format!(
            "{:016x}\n{:016x}\n{:016x}\n{:016x}\n{:016x}\n",
            stable_hash(&0u64),
            stable_hash(&1u64),
            stable_hash(&-1i32),
            stable_hash("flott"),
            stable_hash(&("a", Some(7u8), vec![1u16, 2], 'x', true)),
        );
        assert_eq!(seen, include_str!("../samples/stable_hash.txt"));
    }

    #[test]
    fn owned_and_borrowed_forms_hash_alike() {
        assert_eq!(stable_hash("word"), stable_hash(&String::from("word")));
        assert_eq!(stable_hash(&(1u64, "a")), stable_hash(&(1u64, String::from("a"))));
    }

    #[test]
    fn neighbours_do_not_collide() {
        let pairs = [("ab", "c"), ("a", "bc"), ("", "abc"), ("a\0", "bc"), ("abc", "")];
        let mut hashes: Vec<u64> = pairs.iter().map(stable_hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), pairs.len());
    }

    #[test]
    fn sequential_keys_spread_over_low_and_high_bits() {
        let (mut low, mut high) = ([0u32; 128], [0u32; 128]);
        for key in 0..128_000u64 {
            let hash = stable_hash(&key);
            low[(hash & 127) as usize] += 1;
            high[(hash >> 57) as usize] += 1;
        }
        for count in low.iter().chain(&high) {
            assert!((800..1200).contains(count), "uneven: {count}");
        }
    }
}
