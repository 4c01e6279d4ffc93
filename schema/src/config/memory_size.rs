//! Memory sizes in Flink's forms: a whole number and a binary unit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value::ConfigValue;

/// A number of bytes, written `64mb` or `1 gb`. All units are powers of 1,024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemorySize(u64);

/// Units from the largest to the smallest: names in lower case (the first is the one written), bytes.
const UNITS: &[(&[&str], u64)] = &[
    (&["tb", "t", "tebibytes"], 1 << 40),
    (&["gb", "g", "gibibytes"], 1 << 30),
    (&["mb", "m", "mebibytes"], 1 << 20),
    (&["kb", "k", "kibibytes"], 1 << 10),
    (&["bytes", "b"], 1),
];

impl MemorySize {
    /// That many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        MemorySize(bytes)
    }

    /// That many mebibytes.
    pub const fn from_mebibytes(mebibytes: u64) -> Self {
        MemorySize(mebibytes << 20)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in bytes as a length; the largest length where it does not fit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for MemorySize {
    type Err = String;

    /// Reads `64mb`, `1 gb`, `32k`; a bare number counts bytes, as in Flink.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        if digits.is_empty() {
            return Err("does not start with a number".into());
        }
        let unit = unit.trim().to_lowercase();
        let unit = if unit.is_empty() { "b" } else { unit.as_str() };
        let bytes_of_unit = UNITS
            .iter()
            .find(|(names, _)| names.contains(&unit))
            .map(|(_, bytes)| *bytes)
            .ok_or_else(|| format!("unknown unit `{unit}`, the units are b, kb, mb, gb, tb"))?;
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(bytes_of_unit))
            .map(MemorySize)
            .ok_or_else(|| "too large".into())
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, unit) = UNITS
            .iter()
            .find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit))
            .unwrap_or(&UNITS[UNITS.len() - 1]);
        write!(f, "{} {}", self.0 / unit, names[0])
    }
}

impl ConfigValue for MemorySize {
    fn expected() -> String {
        "a memory size such as `64 mb` or `1 gb`".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn render(&self) -> String {
        self.to_string()
    }
}
