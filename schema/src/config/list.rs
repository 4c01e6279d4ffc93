//! Values that are lists, maps or directories.

use std::collections::BTreeMap;

use super::flow;
use super::value::ConfigValue;

/// Elements of a list: a YAML list, else divided at `;`, else at `,` where there is no `;`.
fn elements(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim();
    if text.starts_with('[') {
        return flow::parse_list(text);
    }
    let separator = if text.contains(';') { ';' } else { ',' };
    Ok(text.split(separator).map(str::trim).filter(|element| !element.is_empty()).map(String::from).collect())
}

impl<T: ConfigValue> ConfigValue for Vec<T> {
    fn expected() -> String {
        format!("a list `[A, B]` or `A;B` where each is {}", T::expected())
    }

    fn parse(text: &str) -> Result<Self, String> {
        elements(text)?
            .iter()
            .map(|element| T::parse(element).map_err(|reason| format!("`{element}`: {reason}")))
            .collect()
    }

    fn render(&self) -> String {
        flow::render_list(self.iter().map(T::render))
    }
}

impl ConfigValue for BTreeMap<String, String> {
    const IS_MAP: bool = true;

    fn expected() -> String {
        "a map `{a: 1, b: 2}` or `a:1,b:2`".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with('{') {
            return flow::parse_map(text);
        }
        let mut map = BTreeMap::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (key, value) = entry.split_once(':').ok_or_else(|| format!("`{entry}` has no `:`"))?;
            if map.insert(key.trim().to_string(), value.trim().to_string()).is_some() {
                return Err(format!("`{}` stands twice", key.trim()));
            }
        }
        Ok(map)
    }

    fn render(&self) -> String {
        flow::render_map(self)
    }
}

/// Directories in the order given: a YAML list, or divided at `,`, `|` or `:` (but not at the `:` of a `scheme://`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories(pub Vec<String>);

impl ConfigValue for Directories {
    fn expected() -> String {
        "one or more directories divided by `,` or `:`".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let mut directories = Vec::new();
        if text.starts_with('[') {
            directories = flow::parse_list(text)?;
        } else {
            let mut start = 0;
            for (index, character) in text.char_indices() {
                let rest = &text[index + character.len_utf8()..];
                if matches!(character, ',' | '|') || (character == ':' && !rest.starts_with("//")) {
                    directories.push(text[start..index].to_string());
                    start = index + 1;
                }
            }
            directories.push(text[start..].to_string());
        }
        let directories: Vec<String> = directories
            .iter()
            .map(|directory| directory.trim())
            .filter(|d| !d.is_empty())
            .map(String::from)
            .collect();
        if directories.is_empty() { Err("names no directory".into()) } else { Ok(Directories(directories)) }
    }

    fn render(&self) -> String {
        let joined = self.0.join(",");
        if Self::parse(&joined).as_ref() == Ok(self) {
            joined
        } else {
            flow::render_list(self.0.iter().cloned())
        }
    }
}
