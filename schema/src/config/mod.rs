//! The configuration: one YAML file, environment variables and `-D key=value`, laid over the defaults.
//!
//! What lives here: [`Configuration`] (dotted key -> text, with the place each value came from), typed [`ConfigOption`]s, the
//! [`options`] that Flott reads, and the names of all of Flink's keys, so that a Flink file is accepted as it is and a
//! mistyped key is an error that names the nearest known one. Who may call it: every room; an option is declared in
//! [`options`] and nowhere else, because a key that is not declared is refused. What must never happen here: reading a file
//! or the environment (the caller hands in text and pairs), a global configuration, or a secret in a message.
//!
//! ```
//! use flott_schema::config::{Configuration, options};
//!
//! let file = Configuration::from_yaml("parallelism.default: 4\nexecution: {checkpointing: {interval: 3 min}}", "flott.yaml")?;
//! let flags = Configuration::from_pairs(["parallelism.default=8"])?;
//! let config = file.overlaid_with(flags);
//! assert_eq!(config.get(&options::PARALLELISM_DEFAULT)?, 8);
//! assert_eq!(config.get(&options::CHECKPOINTING_INTERVAL)?, Some(std::time::Duration::from_secs(180)));
//! # Ok::<(), flott_schema::config::ConfigError>(())
//! ```

mod configuration;
mod document;
mod duration;
mod error;
mod flow;
mod known;
mod list;
mod load;
mod mask;
mod memory_size;
mod option;
pub mod options;
mod ports;
mod value;
mod words;
mod yaml;

#[cfg(test)]
mod tests;

pub use configuration::{Configuration, Entry};
pub use document::documented_defaults;
pub use duration::{format_duration, parse_duration};
pub use error::{BadValue, ConfigError, Origin};
pub use known::{is_known_key, nearest_known_key};
pub use list::Directories;
pub use load::{PROPERTIES_VARIABLE, VARIABLE_PREFIX};
pub use mask::{MASKED, is_secret, masked_value};
pub use memory_size::MemorySize;
pub use option::{AnyOption, ConfigOption};
pub use ports::{PortRanges, PortsOrOff};
pub use value::ConfigValue;
