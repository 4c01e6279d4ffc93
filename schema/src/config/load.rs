//! Building a configuration out of YAML, `-D` pairs and environment variables. Keys and values are checked here, all of them, so
//! that a bad file is refused with every mistake in it before anything starts.

use std::collections::{BTreeMap, BTreeSet};

use super::configuration::Configuration;
use super::error::{BadValue, ConfigError, Origin};
use super::flow;
use super::known::{self, Meaning};
use super::mask::{is_secret, masked_value};
use super::option::AnyOption;
use super::yaml::{self, Content, Node};

/// `FLOTT_CONF_PARALLELISM_DEFAULT=4` sets `parallelism.default`: the key in capitals, `_` for `.` and `-`.
pub const VARIABLE_PREFIX: &str = "FLOTT_CONF_";

/// A variable that holds a whole YAML text, as `FLINK_PROPERTIES` does for Flink's images.
pub const PROPERTIES_VARIABLE: &str = "FLOTT_PROPERTIES";

impl Configuration {
    /// Reads a YAML text: nested sections, dotted keys, or both. `file` names it in errors. A key without a value is not set.
    pub fn from_yaml(text: &str, file: &str) -> Result<Self, ConfigError> {
        let mut loader = Loader::default();
        loader.take_yaml(text, file);
        loader.finish()
    }

    /// Reads pairs `key=value` as `-D` gives them; a bare `key` means `key=true`. Of a key given twice the last one counts.
    pub fn from_pairs<S: AsRef<str>>(pairs: impl IntoIterator<Item = S>) -> Result<Self, ConfigError> {
        let mut loader = Loader::default();
        for pair in pairs {
            match pair.as_ref().split_once('=') {
                Some((key, value)) => loader.put(key.trim(), Some(value.trim()), Origin::CommandLine, true),
                None => loader.put_word(pair.as_ref().trim()),
            }
        }
        loader.finish()
    }

    /// Reads the environment's variables: [`PROPERTIES_VARIABLE`], and over it those that begin with [`VARIABLE_PREFIX`]. Others
    /// are not looked at.
    pub fn from_environment<K: AsRef<str>, V: AsRef<str>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let (mut properties, mut single) = (Loader::default(), Loader::default());
        let mut sorted = BTreeMap::new();
        for (variable, value) in variables {
            let variable = variable.as_ref();
            if variable == PROPERTIES_VARIABLE {
                properties.take_yaml(value.as_ref(), PROPERTIES_VARIABLE);
            } else if variable.starts_with(VARIABLE_PREFIX) {
                sorted.insert(variable.to_string(), value.as_ref().to_string());
            }
        }
        for (variable, value) in sorted {
            single.take_variable(variable, &value);
        }
        properties.problems.append(&mut single.problems);
        Ok(properties.finish()?.overlaid_with(single.config))
    }

    /// Sets one key from code, over everything set before.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let mut loader = Loader::default();
        loader.put(key, Some(value), Origin::Program, true);
        self.overlay(loader.finish()?);
        Ok(())
    }
}

/// Mistakes after which no more are looked for: a text with more is some other kind of file.
const PROBLEMS_MAX: usize = 100;

/// One layer in the making.
#[derive(Default)]
struct Loader {
    config: Configuration,
    problems: Vec<ConfigError>,
}

impl Loader {
    fn finish(self) -> Result<Configuration, ConfigError> {
        ConfigError::from_problems(self.problems)?;
        Ok(self.config)
    }

    fn take_yaml(&mut self, text: &str, file: &str) {
        match yaml::parse(text) {
            Ok(None) => {}
            Ok(Some(Node { content: Content::Null, .. })) => {}
            Ok(Some(root @ Node { content: Content::Mapping(_), .. })) => self.flatten("", root, file),
            Ok(Some(root)) => self.problems.push(ConfigError::Syntax {
                file: file.into(),
                line: root.line,
                column: 1,
                reason: "a configuration consists of `key: value` lines".into(),
            }),
            Err(error) => self.problems.push(ConfigError::Syntax {
                file: file.into(),
                line: error.line,
                column: error.column,
                reason: error.reason,
            }),
        }
    }

    /// Turns nested sections into dotted keys and lists into one line of text.
    fn flatten(&mut self, section: &str, node: Node, file: &str) {
        let Content::Mapping(entries) = node.content else { return };
        for entry in entries {
            let key = if section.is_empty() { entry.key } else { format!("{section}.{}", entry.key) };
            let origin = Origin::File { name: file.into(), line: entry.line };
            match &entry.value.content {
                Content::Mapping(entries) if entries.is_empty() && is_map(&key) => {
                    self.put(&key, Some("{}"), origin, false)
                }
                Content::Mapping(_) => self.flatten(&key, entry.value, file),
                Content::Null => self.put(&key, None, origin, false),
                _ => self.put(&key, Some(&flow::render(&entry.value)), origin, false),
            }
        }
    }

    fn take_variable(&mut self, variable: String, value: &str) {
        let name = &variable[VARIABLE_PREFIX.len()..];
        let mut candidates: BTreeSet<&str> =
            known::names().filter(|key| variable_name(key) == name).collect();
        if candidates.iter().any(|key| known::replacement(key).is_none()) {
            candidates.retain(|key| known::replacement(key).is_none());
        }
        match candidates.len() {
            0 => {
                let key = name.to_lowercase().replace('_', ".");
                let nearest = known::nearest_known_key(&key).into();
                self.problems.push(ConfigError::UnknownKey {
                    key,
                    origin: Origin::Environment(variable),
                    nearest,
                });
            }
            1 => {
                let key = candidates.first().copied().unwrap_or_default();
                self.put(key, Some(value), Origin::Environment(variable), true);
            }
            _ => self.problems.push(ConfigError::AmbiguousVariable {
                variable,
                candidates: candidates.into_iter().map(String::from).collect(),
            }),
        }
    }

    /// Checks key and value and keeps them. `replace` says whether the key may have been set before in this layer.
    fn put(&mut self, key: &str, value: Option<&str>, origin: Origin, replace: bool) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let meaning = known::meaning(key);
        let unknown = matches!(meaning, Meaning::Unknown);
        if unknown && !(value.is_none() && known::is_section(key)) {
            let nearest = known::nearest_known_key(key).into();
            return self.problems.push(ConfigError::UnknownKey { key: key.into(), origin, nearest });
        }
        let Some(value) = value else { return };
        match meaning {
            Meaning::Option(option) => match option.canonical(value) {
                Ok(_) => self.keep(key, value.into(), origin, replace),
                Err(reason) => self.refuse(option, key, value, reason, origin),
            },
            Meaning::Entry | Meaning::Ineffective | Meaning::Unknown => {
                self.keep(key, value.into(), origin, replace)
            }
        }
    }

    /// A word without a value: a key means `true`.
    fn put_word(&mut self, word: &str) {
        match known::meaning(word) {
            Meaning::Unknown => {
                let nearest = known::nearest_known_key(word).into();
                self.problems.push(ConfigError::NoPair { word: word.into(), nearest });
            }
            _ => self.put(word, Some("true"), Origin::CommandLine, true),
        }
    }

    fn keep(&mut self, key: &str, value: String, origin: Origin, replace: bool) {
        match self.config.entry(key).filter(|_| !replace) {
            Some(entry) => {
                let first = entry.origin().clone();
                self.problems.push(ConfigError::Duplicate { key: key.into(), origin, first });
            }
            None => self.config.insert(key, value, origin),
        }
    }

    fn refuse(&mut self, option: &dyn AnyOption, key: &str, value: &str, reason: String, origin: Origin) {
        self.problems.push(bad_value(option, key, value, reason, origin));
    }
}

/// The error for a value that `option` cannot read.
pub(super) fn bad_value(
    option: &dyn AnyOption,
    key: &str,
    value: &str,
    reason: String,
    origin: Origin,
) -> ConfigError {
    let shown = masked_value(key, value).into_owned();
    // The reason may quote what must not be shown.
    let reason = if is_secret(key) || shown != value { "cannot be read".into() } else { reason };
    let bad = BadValue { key: key.into(), value: shown, reason, expected: option.expected() };
    ConfigError::BadValue { origin, bad: Box::new(bad) }
}

fn is_map(key: &str) -> bool {
    matches!(known::meaning(key), Meaning::Option(option) if option.is_map())
}

fn variable_name(key: &str) -> String {
    key.to_uppercase().replace(['.', '-'], "_")
}
