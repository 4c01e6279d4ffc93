//! The configuration itself: keys, texts and origins in layers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, Origin};
use super::known::{self, Meaning};
use super::load::bad_value;
use super::mask::masked_value;
use super::option::{AnyOption, ConfigOption};
use super::value::ConfigValue;

/// Known keys and their values, ordered by key. Layers go over one another; where an option has several names, the value of the
/// highest layer counts, and within a layer the option's own name before the others. What is shown of it has its secrets masked.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    entries: BTreeMap<String, Entry>,
    /// Number of the layer on top.
    layer: u32,
}

/// One value: its text, where it was written, and in which layer.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    text: String,
    origin: Origin,
    layer: u32,
}

impl Entry {
    /// The value as it was written, secrets included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it was written.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl Configuration {
    /// A configuration in which every option has its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lays `upper` over this one: its values replace those of the same option here.
    pub fn overlay(&mut self, upper: Configuration) {
        let base = self.layer + 1;
        for (key, entry) in upper.entries {
            self.entries.insert(key, Entry { layer: base + entry.layer, ..entry });
        }
        self.layer = base + upper.layer;
    }

    /// This one with `upper` laid over it.
    pub fn overlaid_with(mut self, upper: Configuration) -> Self {
        self.overlay(upper);
        self
    }

    /// The value of `option`, or its default.
    pub fn get<T: ConfigValue>(&self, option: &ConfigOption<T>) -> Result<T, ConfigError> {
        let (key, text, origin) = match self.find(option) {
            Some(found) => (found.key, found.text, found.origin),
            None => match option.default_text() {
                Some(text) => (option.key(), Cow::Borrowed(text), &Origin::Default),
                None => {
                    return T::absent().ok_or_else(|| ConfigError::Missing {
                        key: option.key(),
                        expected: option.expected(),
                    });
                }
            },
        };
        option.parse(&text).map_err(|reason| bad_value(option, key, &text, reason, origin.clone()))
    }

    /// Whether `option` is set, under any of its names.
    pub fn is_set(&self, option: &dyn AnyOption) -> bool {
        self.find(option).is_some()
    }

    /// Sets an option from code, over everything set before.
    pub fn set_option<T: ConfigValue>(
        &mut self,
        option: &ConfigOption<T>,
        value: T,
    ) -> Result<(), ConfigError> {
        self.set(option.key(), &value.render())
    }

    /// The text of `key`, under exactly that name and secrets included.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.entry(key).map(Entry::text)
    }

    /// Text and origin of `key`, under exactly that name.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Keys and entries in the order of the keys, secrets included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// Keys and values in the order of the keys, fit to be shown.
    pub fn masked(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.iter().map(|(key, entry)| (key, masked_value(key, entry.text())))
    }

    /// Keys and values, secrets included, that make an equal configuration when they are given as pairs of one layer: what a
    /// higher layer sets under another name of the same option is left out of the lower ones.
    pub fn flattened(&self) -> Vec<(String, String)> {
        let counts = |key: &str, entry: &Entry| {
            let Meaning::Option(option) = known::meaning(key) else { return true };
            let above = |name: &str| self.entries.get(name).is_some_and(|other| other.layer > entry.layer);
            !option.keys().any(above)
        };
        let counting =
            self.entries.iter().filter(|(key, entry)| counts(key, entry) && !self.is_replaced(key, entry));
        counting.map(|(key, entry)| (key.clone(), entry.text.clone())).collect()
    }

    /// Whether an entry of a map, set as a key of its own, lies below a layer that sets the whole map.
    fn is_replaced(&self, key: &str, entry: &Entry) -> bool {
        let sections = key.match_indices('.').map(|(at, _)| &key[..at]);
        let mut maps = sections.filter_map(|section| match known::meaning(section) {
            Meaning::Option(option) if option.is_map() => Some(option),
            _ => None,
        });
        maps.any(|map| {
            map.keys().any(|name| self.entries.get(name).is_some_and(|whole| whole.layer > entry.layer))
        })
    }

    /// What follows `prefix` in the keys that begin with it, and their values, secrets included: `below("s3.")` gives `access-key`.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter().filter_map(move |(key, entry)| Some((key.strip_prefix(prefix)?, entry.text())))
    }

    /// The keys that are set and known, but on which Flott does not act: to be said once at the start.
    pub fn ineffective_keys(&self) -> impl Iterator<Item = &str> {
        self.entries
            .keys()
            .map(String::as_str)
            .filter(|key| matches!(known::meaning(key), Meaning::Ineffective))
    }

    /// The keys that are set under an old name, and the new name (`None` where the key has no meaning any more).
    pub fn deprecated_keys(&self) -> impl Iterator<Item = (&str, Option<&'static str>)> {
        self.entries.keys().filter_map(|key| Some((key.as_str(), known::replacement(key)?)))
    }

    pub(super) fn insert(&mut self, key: &str, text: String, origin: Origin) {
        self.entries.insert(key.into(), Entry { text, origin, layer: self.layer });
    }

    /// The value that counts for `option`.
    fn find(&self, option: &dyn AnyOption) -> Option<Found<'_>> {
        let mut top: Option<(&'static str, &Entry)> = None;
        for key in option.keys() {
            if let Some(entry) = self.entries.get(key)
                && top.is_none_or(|(_, best)| entry.layer > best.layer)
            {
                top = Some((key, entry));
            }
        }
        // A fallback is an option of its own: it never outweighs a value that was given for this one.
        let fallback = || option.fallback().iter().find_map(|key| Some((*key, self.entries.get(*key)?)));
        let top = top.or_else(fallback);
        let found =
            top.map(|(key, entry)| Found { key, text: Cow::Borrowed(entry.text()), origin: &entry.origin });
        if option.is_map() {
            self.find_entries(option, found, top.map_or(0, |(_, entry)| entry.layer))
        } else {
            found
        }
    }

    /// The map `whole`, set in layer `floor`, with the entries that were set as keys of their own in that layer or above.
    fn find_entries<'a>(
        &'a self,
        option: &dyn AnyOption,
        whole: Option<Found<'a>>,
        floor: u32,
    ) -> Option<Found<'a>> {
        let mut single: Vec<(&str, &Entry)> = Vec::new();
        for name in option.keys() {
            let entry_name = |key: &'a str| key.strip_prefix(name)?.strip_prefix('.');
            single.extend(self.iter().filter_map(|(key, entry)| Some((entry_name(key)?, entry))));
        }
        single.retain(|(_, entry)| entry.layer >= floor);
        single.sort_by_key(|(_, entry)| entry.layer);
        let Some((_, last)) = single.last() else { return whole };
        let origin = &last.origin;
        let text = whole.map_or(Cow::Borrowed(""), |whole| whole.text);
        let Ok(mut map) = BTreeMap::<String, String>::parse(&text) else {
            // What cannot be read is reported as it is.
            return Some(Found { key: option.key(), text, origin });
        };
        map.extend(single.into_iter().map(|(name, entry)| (name.to_string(), entry.text.clone())));
        Some(Found { key: option.key(), text: Cow::Owned(map.render()), origin })
    }
}

/// The value of an option, and the name and place under which it was set.
struct Found<'a> {
    key: &'static str,
    text: Cow<'a, str>,
    origin: &'a Origin,
}

impl fmt::Display for Configuration {
    /// One `key: value` a line, secrets masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.masked().try_for_each(|(key, value)| writeln!(f, "{key}: {value}"))
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.masked()).finish()
    }
}

impl fmt::Debug for Entry {
    /// Where the value was written; the value itself may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("origin", &self.origin).finish_non_exhaustive()
    }
}
