//! The documented defaults, from which the shipped `conf/flott.yaml` is made.

use std::fmt::Write;
use std::time::Duration;

use super::list::Directories;
use super::memory_size::MemorySize;
use super::option::AnyOption;
use super::options;
use super::value::ConfigValue;

const HEAD: &str = "\
Flott's configuration. Every key below shows its default; remove the `#` in front of it to change it.
A key without a value is not set. Sections may be nested, as in any YAML file, or dotted, as here.
The environment (`FLOTT_CONF_PARALLELISM_DEFAULT=4`) goes over this file, `-D key=value` over both.
Flink's keys are accepted as they are. A key that neither Flott nor Flink knows is refused.";

const WIDTH: usize = 110;

/// A YAML text that explains every option of Flott and shows its default as a comment `#key: value`.
pub fn documented_defaults() -> String {
    let mut text = String::new();
    HEAD.lines().for_each(|line| wrapped(&mut text, line));
    for group in options::groups() {
        let title = format!("---- {} ", group.title);
        let _ = write!(text, "\n# {title:-<width$}\n", width = WIDTH - 2);
        for option in group.options {
            text.push('\n');
            document(&mut text, *option);
        }
    }
    text
}

fn document(text: &mut String, option: &dyn AnyOption) {
    let mut about = option.doc().trim().to_string();
    let expected = option.expected();
    if !is_obvious(&expected, option.default_text().is_some()) {
        about.push_str(&format!(" Expects {expected}."));
    }
    let names = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if !option.also().is_empty() {
        about.push_str(&format!(" Also read: {}.", names(option.also())));
    }
    if !option.deprecated().is_empty() {
        about.push_str(&format!(" Old names: {}.", names(option.deprecated())));
    }
    if !option.fallback().is_empty() {
        about.push_str(&format!(" Not set: {}.", names(option.fallback())));
    }
    wrapped(text, &about);
    let default = option.default_text().map(|value| format!(" {}", scalar(value))).unwrap_or_default();
    let _ = writeln!(text, "#{}:{default}", option.key());
}

/// Whether a reader sees from the option's meaning, or from its default, which form a value has.
fn is_obvious(expected: &str, has_default: bool) -> bool {
    let always = [String::expected(), bool::expected(), u32::expected()];
    let by_default = [Duration::expected(), MemorySize::expected(), Directories::expected()];
    always.iter().any(|form| form == expected)
        || (has_default && by_default.iter().any(|form| form == expected))
}

/// The value so that YAML reads the same text back.
fn scalar(value: &str) -> String {
    let special = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '/' | '-' | '_'));
    let plain = !value.is_empty()
        && !value.starts_with([' ', '-'])
        && !value.ends_with(' ')
        && !value.contains(special);
    // A number may begin with its sign.
    if plain || value.parse::<f64>().is_ok() {
        value.into()
    } else {
        format!("'{}'", value.replace('\'', "''"))
    }
}

/// The sentence as comment lines of at most [`WIDTH`] characters. What stands between backticks is not divided.
fn wrapped(text: &mut String, sentence: &str) {
    let mut line = String::from("#");
    let mut quoting = false;
    let mut word = String::new();
    for part in sentence.split_whitespace() {
        quoting ^= part.matches('`').count() % 2 == 1;
        word.push(' ');
        word.push_str(part);
        if quoting {
            continue;
        }
        if line.chars().count() + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        line.push_str(&word);
        word.clear();
    }
    let _ = writeln!(text, "{line}{word}");
}
