//! What can be wrong with a configuration, and where it was written.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The default of the option.
    Default,
    /// A YAML text.
    File {
        /// Its name, as the caller gave it.
        name: String,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable of that name.
    Environment(String),
    /// `-D key=value`.
    CommandLine,
    /// Code that called [`set`](crate::config::Configuration::set).
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::CommandLine => f.write_str("-D"),
            Origin::Program => f.write_str("program"),
        }
    }
}

/// A value that its option cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// The key as it was written.
    pub key: String,
    /// The value, masked if the key is that of a secret.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
    /// The form the option expects.
    pub expected: String,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The text is not YAML, or uses YAML in a way that means nothing here.
    #[error("{file}:{line}:{column}: {reason}")]
    Syntax {
        /// Name of the text.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A key that neither Flott nor Flink knows.
    #[error("{origin}: unknown key `{key}`; the nearest known key is `{nearest}`")]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// Where.
        origin: Origin,
        /// The known key that looks most like it.
        nearest: String,
    },
    /// A word after `-D` that is no known key and no pair.
    #[error("-D {word}: a setting is KEY=VALUE; the nearest known key is `{nearest}`")]
    NoPair {
        /// The word.
        word: String,
        /// The known key that looks most like it.
        nearest: String,
    },
    /// A key that stands twice in one text.
    #[error("{origin}: `{key}` is set twice, first at {first}; keep one of the two")]
    Duplicate {
        /// The key.
        key: String,
        /// The second place.
        origin: Origin,
        /// The first place.
        first: Origin,
    },
    /// A value that its option cannot read.
    #[error("{origin}: bad value `{}` for `{}`: {}; expected {}", bad.value, bad.key, bad.reason, bad.expected)]
    BadValue {
        /// Where.
        origin: Origin,
        /// Key, value and what is wrong with it.
        bad: Box<BadValue>,
    },
    /// An environment variable that could mean several keys.
    #[error("environment variable {variable} could mean any of {}; set it in the file or with -D", candidates.join(", "))]
    AmbiguousVariable {
        /// Name of the variable.
        variable: String,
        /// The keys it could mean.
        candidates: Vec<String>,
    },
    /// An option without a default that has to be set.
    #[error("`{key}` is not set; expected {expected}")]
    Missing {
        /// Its key.
        key: &'static str,
        /// The form of its value.
        expected: String,
    },
    /// Several of the above, in the order in which they were found.
    #[error("{} mistakes in the configuration:{}", .0.len(), .0.iter().map(|one| format!("\n  {one}")).collect::<String>())]
    Several(Vec<ConfigError>),
}

impl ConfigError {
    /// One error out of the problems found while loading, or none.
    pub(super) fn from_problems(mut problems: Vec<ConfigError>) -> Result<(), ConfigError> {
        match problems.len() {
            0 => Ok(()),
            1 => Err(problems.remove(0)),
            _ => Err(ConfigError::Several(problems)),
        }
    }
}
