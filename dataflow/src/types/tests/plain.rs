//! Scalars, containers and types of the standard library.

use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::num::{NonZeroI8, NonZeroU32};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::check;

#[test]
fn scalars_have_their_own_shapes() {
    check::<(bool, char, String, ())>("(bool, char, str, unit)");
    check::<(i8, i16, i32, i64, i128, isize)>("(i8, i16, i32, i64, i128, i64)");
    check::<(u8, u16, u32, u64, u128, usize)>("(u8, u16, u32, u64, u128, u64)");
    check::<(f32, f64)>("(f32, f64)");
}

#[test]
fn containers_show_what_they_contain() {
    check::<Vec<Option<u8>>>("[u8?]");
    check::<Option<Option<String>>>("str??");
    check::<HashMap<String, Vec<i64>>>("map[str: [i64]]");
    check::<BTreeSet<u16>>("[u16]");
    check::<Box<(Rc<str>, PhantomData<f64>)>>("(str, unit)");
    check::<[u8; 3]>("(u8, u8, u8)");
    check::<[u8; 4]>("[u8; 4]");
    check::<[Option<[u32; 8]>; 2]>("([u32; 8]?, [u32; 8]?)");
    check::<(u8,)>("(u8,)");
}

#[test]
fn types_of_the_standard_library_are_traced_in_their_binary_form() {
    check::<NonZeroU32>("u32");
    check::<(NonZeroI8, NonZeroI8)>("(i8, i8)");
    check::<Duration>("Duration{secs: u64, nanos: u32}");
    check::<SystemTime>("SystemTime{secs_since_epoch: u64, nanos_since_epoch: u32}");
    check::<IpAddr>("enum IpAddr{V4([u8; 4]), V6([u8; 16])}");
    check::<Result<u8, String>>("enum Result{Ok(u8), Err(str)}");
    check::<std::ops::Range<i32>>("Range{start: i32, end: i32}");
    check::<std::ops::Bound<i32>>("enum Bound{Unbounded, Included(i32), Excluded(i32)}");
}

#[test]
fn byte_strings_differ_from_vectors_of_bytes() {
    struct Blob;
    impl<'de> Deserialize<'de> for Blob {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct BlobVisitor;
            impl Visitor<'_> for BlobVisitor {
                type Value = Blob;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("eight bytes")
                }
                fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                    if bytes.len() == 8 { Ok(Blob) } else { Err(E::custom("not eight bytes")) }
                }
            }
            deserializer.deserialize_byte_buf(BlobVisitor)
        }
    }
    check::<(Blob, Vec<u8>)>("(bytes, [u8])");
}
