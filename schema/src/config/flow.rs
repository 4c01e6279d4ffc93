//! Lists and maps as one line of YAML, the form in which a configuration keeps them.

use std::collections::BTreeMap;

use super::yaml::{self, Content, Node};

/// Reads `[a, b]`; elements that are lists or maps themselves stay text.
pub(super) fn parse_list(text: &str) -> Result<Vec<String>, String> {
    match parse(text)? {
        Content::Sequence(items) => Ok(items.iter().map(render).collect()),
        _ => Err("not a list".into()),
    }
}

/// Reads `{a: 1, b: 2}`; values that are lists or maps themselves stay text.
pub(super) fn parse_map(text: &str) -> Result<BTreeMap<String, String>, String> {
    let Content::Mapping(entries) = parse(text)? else {
        return Err("not a map".into());
    };
    let mut map = BTreeMap::new();
    for entry in &entries {
        if map.insert(entry.key.clone(), render(&entry.value)).is_some() {
            return Err(format!("`{}` stands twice", entry.key));
        }
    }
    Ok(map)
}

fn parse(text: &str) -> Result<Content, String> {
    let node = yaml::parse(text).map_err(|error| format!("{} at column {}", error.reason, error.column))?;
    Ok(node.map_or(Content::Null, |node| node.content))
}

/// A scalar as it is, a list or map as one line.
pub(super) fn render(node: &Node) -> String {
    match &node.content {
        Content::Null => String::new(),
        Content::Scalar(text) => text.clone(),
        Content::Sequence(_) | Content::Mapping(_) => nested(node),
    }
}

/// The list as one line.
pub(super) fn render_list(elements: impl Iterator<Item = String>) -> String {
    format!("[{}]", elements.map(|element| quoted(&element)).collect::<Vec<_>>().join(", "))
}

/// The map as one line.
pub(super) fn render_map(map: &BTreeMap<String, String>) -> String {
    let entries: Vec<String> =
        map.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
    format!("{{{}}}", entries.join(", "))
}

fn nested(node: &Node) -> String {
    match &node.content {
        Content::Null => "null".into(),
        Content::Scalar(text) => quoted(text),
        Content::Sequence(items) => format!("[{}]", items.iter().map(nested).collect::<Vec<_>>().join(", ")),
        Content::Mapping(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|entry| format!("{}: {}", quoted(&entry.key), nested(&entry.value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// The scalar so that a YAML reader gets the same text back inside a list or map.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '@' | '+' | '-');
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.'));
    if starts_plain && text.chars().all(plain) && !text.starts_with("...") && !yaml::is_null(text) {
        return text.into();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            _ if character.is_alphanumeric() || (' '..='~').contains(&character) => quoted.push(character),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(character))),
        }
    }
    quoted.push('"');
    quoted
}
