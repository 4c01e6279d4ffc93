//! Frozen samples: messages as they were written once, in a file of hexadecimal digits, one a line. Every later version reads
//! them to the same values and writes the same bytes. `UPDATE=1` adds the samples that are missing; none is ever overwritten.
//!
//! Another crate takes this in by `#[path]` and keeps a file of its own. A message that gets a field keeps its sample, whose
//! value has the new field at its default, and gets a second one.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use capnp::message::Builder;

use flott_schema::wire::{Wire, from_bytes};

/// A message: its name, its bytes now, and what is wrong with older bytes.
pub struct Sample<'a> {
    name: &'static str,
    bytes: Vec<u8>,
    check: Box<dyn Fn(&[u8]) -> Result<(), String> + 'a>,
}

/// The sample of a message with this value.
pub fn sample<'a, T: Wire + PartialEq + Debug>(name: &'static str, value: &'a T) -> Sample<'a> {
    let check = move |bytes: &[u8]| match from_bytes::<T>(bytes) {
        Ok(read) if read == *value => Ok(()),
        Ok(read) => Err(format!("is read as {read:?}, not as {value:?}")),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    Sample { name, bytes: canonical(value), check: Box::new(check) }
}

/// The value as a message of one segment in canonical form, which depends on nothing but value and schema.
fn canonical<T: Wire>(value: &T) -> Vec<u8> {
    let mut message = Builder::new_default();
    value.write(message.init_root()).unwrap();
    let words = message.into_reader().canonicalize().unwrap();
    let mut bytes = vec![0; 4];
    bytes.extend((words.len() as u32).to_le_bytes());
    bytes.extend_from_slice(capnp::Word::words_to_bytes(&words));
    bytes
}

/// Compares `samples` with those in `file`.
pub fn check(file: &Path, samples: &[Sample<'_>]) {
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    let mut frozen = parse(&kept);
    let missing: Vec<&Sample> = samples.iter().filter(|sample| !frozen.contains_key(sample.name)).collect();
    if std::env::var_os("UPDATE").is_some() {
        let lines = missing.iter().map(|sample| format!("{} {}\n", sample.name, to_hex(&sample.bytes)));
        std::fs::write(file, kept.clone() + &lines.collect::<String>()).unwrap();
    } else {
        let names: Vec<&str> = missing.iter().map(|sample| sample.name).collect();
        assert!(names.is_empty(), "no samples of {names:?} in {}; UPDATE=1 adds them", file.display());
    }
    for sample in samples {
        let bytes = frozen.remove(sample.name).unwrap_or_else(|| sample.bytes.clone());
        if let Err(wrong) = (sample.check)(&bytes) {
            panic!("the frozen message '{}' {wrong}", sample.name);
        }
        assert!(
            bytes == sample.bytes,
            "the message '{}' is written differently from how it was frozen:\n  frozen  {}\n  written {}",
            sample.name,
            to_hex(&bytes),
            to_hex(&sample.bytes)
        );
    }
    assert!(frozen.is_empty(), "frozen messages that nothing reads any more: {:?}", frozen.keys());
}

fn parse(text: &str) -> BTreeMap<String, Vec<u8>> {
    let mut frozen = BTreeMap::new();
    for line in text.lines() {
        let (name, digits) = line.split_once(' ').expect("a name and hexadecimal digits");
        let bytes =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        assert!(frozen.insert(name.into(), bytes.collect()).is_none(), "'{name}' stands twice");
    }
    frozen
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
