//! Tests of [`Shape::of`], by the text of the shape.

use serde::de::DeserializeOwned;

use super::shape::Shape;

mod enums;
mod plain;
mod recursive;
mod self_describing;
mod stored;
mod structs;
mod validated;

#[track_caller]
fn check<T: DeserializeOwned>(expected: &str) {
    assert_eq!(Shape::of::<T>().canonical_text(), expected);
}
