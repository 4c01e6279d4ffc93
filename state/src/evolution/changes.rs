//! What differs between two types of which values of one become values of the other, in words for people.

use flott_dataflow::types::{Shape, VariantShape};

/// Every change with its place in the type, in the order of the type; none if only names of types differ.
pub(super) fn between(from: &Shape, to: &Shape) -> Vec<String> {
    let mut changes = Changes { path: Vec::new(), found: Vec::new() };
    changes.value(from, to);
    changes.found
}

struct Changes {
    path: Vec<String>,
    found: Vec<String>,
}

impl Changes {
    fn note(&mut self, what: String) {
        let place = match self.path.is_empty() {
            true => String::new(),
            false => format!("{}: ", self.path.join(".")),
        };
        self.found.push(format!("{place}{what}"));
    }

    fn at(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        self.path.push(name.to_owned());
        look(self);
        self.path.pop();
    }

    fn value(&mut self, from: &Shape, to: &Shape) {
        match (from, to) {
            (Shape::Option(from), Shape::Option(to)) => self.value(from, to),
            (_, Shape::Option(inner)) => {
                self.note("optional now".into());
                self.value(from, inner);
            }
            (Shape::Seq(from), Shape::Seq(to)) => self.at("[]", |changes| changes.value(from, to)),
            (Shape::Map(key, value), Shape::Map(key_now, value_now)) => {
                self.at("key", |changes| changes.value(key, key_now));
                self.at("value", |changes| changes.value(value, value_now));
            }
            (Shape::NewtypeStruct { inner, .. }, _) => self.value(inner, to),
            (_, Shape::NewtypeStruct { inner, .. }) => self.value(from, inner),
            (
                Shape::Tuple(from) | Shape::TupleStruct { elements: from, .. },
                Shape::Tuple(to) | Shape::TupleStruct { elements: to, .. },
            ) if from.len() == to.len() => self.elements(from, to),
            (Shape::Struct { fields, .. }, Shape::Struct { fields: now, .. }) => self.fields(fields, now),
            (Shape::Enum { variants, .. }, Shape::Enum { variants: now, .. }) => self.variants(variants, now),
            _ if from == to => {}
            _ => self.note(format!("{from} -> {to}")),
        }
    }

    fn elements(&mut self, from: &[Shape], to: &[Shape]) {
        for (index, (from, to)) in from.iter().zip(to).enumerate() {
            self.at(&index.to_string(), |changes| changes.value(from, to));
        }
    }

    fn fields(&mut self, from: &[(String, Shape)], to: &[(String, Shape)]) {
        let place =
            |name: &str, fields: &[(String, Shape)]| fields.iter().position(|(other, _)| other == name);
        for (name, now) in to {
            self.at(name, |changes| match place(name, from) {
                Some(stored) => changes.value(&from[stored].1, now),
                None => changes.note(format!("added, {now}")),
            });
        }
        for (name, _) in from.iter().filter(|(name, _)| place(name, to).is_none()) {
            self.at(name, |changes| changes.note("removed".into()));
        }
        self.order(names(from), names(to), "fields");
    }

    fn variants(&mut self, from: &[(String, VariantShape)], to: &[(String, VariantShape)]) {
        // A variant with several names stands under all of them.
        let same =
            |one: &str, other: &str| one.split('|').any(|one| other.split('|').any(|other| one == other));
        for (name, now) in to {
            let stored = from.iter().find(|(other, _)| same(name, other)).map(|(_, stored)| stored);
            self.at(name, |changes| match (stored, now) {
                (None, _) => changes.note("variant added".into()),
                (Some(VariantShape::Newtype(from)), VariantShape::Newtype(to)) => changes.value(from, to),
                (Some(VariantShape::Tuple(from)), VariantShape::Tuple(to)) => changes.elements(from, to),
                (Some(VariantShape::Struct(from)), VariantShape::Struct(to)) => changes.fields(from, to),
                _ => {}
            });
        }
        self.order(names(from), names(to), "variants");
    }

    /// Notes if what both have stands in another order: their bytes differ then.
    fn order(&mut self, mut from: Vec<&str>, mut to: Vec<&str>, what: &str) {
        let all_now = to.clone();
        to.retain(|name| from.contains(name));
        from.retain(|name| all_now.contains(name));
        if from != to {
            self.note(format!("{what} in another order"));
        }
    }
}

fn names<T>(parts: &[(String, T)]) -> Vec<&str> {
    parts.iter().map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(from: &str, to: &str) -> Vec<String> {
        between(&Shape::parse(from).unwrap(), &Shape::parse(to).unwrap())
    }

    #[test]
    fn every_change_is_told_with_its_place() {
        assert_eq!(changes("u32", "u64"), ["u32 -> u64"]);
        assert_eq!(changes("Old{a: u8}", "New{a: u8}"), [""; 0]);
        assert_eq!(
            changes(
                "Order{id: u32, note: str, lines: [Line{price: f32}]}",
                "Order{lines: [Line{price: f64, tax: f64}], id: u64?}"
            ),
            [
                "lines.[].price: f32 -> f64",
                "lines.[].tax: added, f64",
                "id: optional now",
                "id: u32 -> u64",
                "note: removed",
                "fields in another order",
            ]
        );
        assert_eq!(
            changes("map[str: enum Kind{A, B(u8)}]", "map[str: enum Kind{A, C, B(u16)}]"),
            ["value.C: variant added", "value.B: u8 -> u16"]
        );
        assert_eq!(changes("(u8, (i8, bool))", "(u8, (i64, bool))"), ["1.0: i8 -> i64"]);
    }
}
