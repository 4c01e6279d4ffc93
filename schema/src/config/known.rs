//! Which keys are known: Flott's options, all of Flink's keys, and Flink's keys with a variable part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::option::AnyOption;
use super::options;
use crate::nearest::edit_distance;

/// What a key means.
pub(super) enum Meaning {
    /// An option of Flott, under its own name or another one.
    Option(&'static dyn AnyOption),
    /// One entry of an option whose value is a map.
    Entry,
    /// A key of Flink on which Flott does not act.
    Ineffective,
    /// Nobody knows it.
    Unknown,
}

struct Known {
    /// By every name of an option.
    options: BTreeMap<&'static str, &'static dyn AnyOption>,
    /// Names of the options whose value is a map.
    maps: Vec<&'static str>,
    flink: BTreeSet<&'static str>,
    /// Old name -> new name, if there is one.
    old: BTreeMap<&'static str, Option<&'static str>>,
    patterns: Vec<Pattern>,
}

struct Pattern {
    text: &'static str,
    segments: Vec<&'static str>,
}

/// The lines of a table without comments and blank ones.
fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let named = || options::all().flat_map(|option| option.keys().map(move |key| (key, option)));
    Known {
        // Two options may share an old name; the first declared one explains it.
        options: named().collect::<Vec<_>>().into_iter().rev().collect(),
        maps: named().filter(|(_, option)| option.is_map()).map(|(key, _)| key).collect(),
        flink: lines(include_str!("flink_keys.txt")).collect(),
        old: lines(include_str!("flink_old_keys.txt"))
            .filter_map(|line| line.split_once(' '))
            .map(|(old, new)| (old, Some(new).filter(|new| *new != "-")))
            .collect(),
        patterns: lines(include_str!("flink_patterns.txt"))
            .map(|text| Pattern { text, segments: text.split('.').collect() })
            .collect(),
    }
});

/// What `key` means.
pub(super) fn meaning(key: &str) -> Meaning {
    if let Some(option) = KNOWN.options.get(key) {
        return Meaning::Option(*option);
    }
    let is_entry =
        |map: &&str| key.strip_prefix(*map).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'));
    if KNOWN.maps.iter().any(is_entry) {
        return Meaning::Entry;
    }
    let known = KNOWN.flink.contains(key) || KNOWN.old.contains_key(key);
    if known || KNOWN.patterns.iter().any(|pattern| pattern.matches(key)) {
        return Meaning::Ineffective;
    }
    Meaning::Unknown
}

/// Whether Flott accepts `key`, be it that nothing acts on it.
pub fn is_known_key(key: &str) -> bool {
    !matches!(meaning(key), Meaning::Unknown)
}

/// Whether known keys lie below `section`, which itself need not be one.
pub(super) fn is_section(section: &str) -> bool {
    let below = |key: &str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
    names().any(below) || KNOWN.patterns.iter().any(|pattern| below(pattern.text))
}

/// The name that replaces `key`, where that is an old one: `Some(None)` for one that was removed.
pub(super) fn replacement(key: &str) -> Option<Option<&'static str>> {
    match KNOWN.options.get(key) {
        Some(option) if option.deprecated().contains(&key) => Some(Some(option.key())),
        Some(_) => None,
        None => KNOWN.old.get(key).copied(),
    }
}

/// Every known key without a variable part.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.options.keys().chain(&KNOWN.flink).chain(KNOWN.old.keys()).copied()
}

/// The known key (or pattern of keys) that looks most like `key`. A key that only lacks sections in front or behind, or has some
/// too many, counts as near.
pub fn nearest_known_key(key: &str) -> &'static str {
    let length = key.chars().count();
    let mut best = (usize::MAX, usize::MAX, "");
    for name in names() {
        let cut_short = lacks_sections(key, name) || lacks_sections(name, key);
        // Distances are never below the difference of the lengths, which is quicker to compute.
        if cut_short || name.len().abs_diff(length) <= best.0 {
            let distance = edit_distance(key, name);
            let distance = if cut_short { distance.min(CUT_SHORT_DISTANCE) } else { distance };
            best = best.min((distance, name.len(), name));
        }
    }
    for pattern in &KNOWN.patterns {
        if let Some(filled) = pattern.filled_from(key) {
            let distance = edit_distance(key, &filled);
            if distance * 2 < pattern.fixed_length() {
                best = best.min((distance, pattern.text.len(), pattern.text));
            }
        }
    }
    best.2
}

/// How far a key counts that lacks sections or has too many.
const CUT_SHORT_DISTANCE: usize = 3;

/// Whether `short` is `long` without its first or last sections.
fn lacks_sections(short: &str, long: &str) -> bool {
    long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'))
        || long.strip_suffix(short).is_some_and(|rest| rest.ends_with('.'))
}

const REST: &str = "<rest>";

impl Pattern {
    fn matches(&self, key: &str) -> bool {
        self.filled_from(key).is_some_and(|filled| filled == key) && !key.split('.').any(str::is_empty)
    }

    /// Length of what is not variable.
    fn fixed_length(&self) -> usize {
        self.segments
            .iter()
            .filter(|segment| !segment.starts_with('<'))
            .map(|segment| segment.len() + 1)
            .sum()
    }

    /// The pattern with its variable parts taken from the same places of `key`, if that has enough segments.
    fn filled_from(&self, key: &str) -> Option<String> {
        let parts: Vec<&str> = key.split('.').collect();
        let mut filled = Vec::with_capacity(parts.len());
        for (index, segment) in self.segments.iter().enumerate() {
            let part = parts.get(index)?;
            match *segment {
                REST => filled.extend(&parts[index..]),
                variable if variable.starts_with('<') => filled.push(*part),
                fixed => filled.push(fixed),
            }
        }
        Some(filled.join("."))
    }
}
