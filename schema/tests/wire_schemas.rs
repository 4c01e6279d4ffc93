//! No field of a schema is ever renumbered, retyped, moved or removed: each stands as a line in `compat/`, and a line that stands
//! there stays true. `UPDATE=1` adds the lines of new fields, and changes none.

use std::collections::BTreeSet;
use std::path::Path;

/// One line for each thing of a schema on which other processes and stored files rely: the id of the file, and number and type
/// of every field, enumerant, method, parameter and result.
fn lines(schema: &str) -> Vec<String> {
    let text: String =
        schema.lines().map(|line| format!("{} ", line.split('#').next().unwrap_or_default())).collect();
    let mut lines = Vec::new();
    let mut scopes: Vec<String> = Vec::new();
    let mut statement = String::new();
    for letter in text.chars() {
        match letter {
            '{' => scopes.push(scope(&words(&statement))),
            '}' => {
                assert!(statement.trim().is_empty(), "'{}' has no end", statement.trim());
                scopes.pop().expect("as many ends as beginnings");
            }
            ';' => lines.extend(describe(&scopes, &words(&statement))),
            _ => {
                statement.push(letter);
                continue;
            }
        }
        statement.clear();
    }
    assert!(scopes.is_empty() && statement.trim().is_empty(), "the schema ends within {scopes:?}");
    lines
}

/// The words of a statement, with one space between them.
fn words(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name under which the fields of a struct, enum, interface, group or union stand.
fn scope(head: &str) -> String {
    match head.split(' ').collect::<Vec<_>>()[..] {
        ["struct" | "enum" | "interface", name] => name.into(),
        ["union"] => "union".into(),
        [name, ":group"] => name.into(),
        [name, ":union"] => format!("{name}.union"),
        _ => panic!("what does '{head}' begin? teach it to this test"),
    }
}

/// The lines for a statement that ends in a semicolon.
fn describe(scopes: &[String], statement: &str) -> Vec<String> {
    if statement.starts_with("using ") {
        return Vec::new();
    }
    if let Some(id) = statement.strip_prefix("@0x") {
        return vec![format!("file @0x{id}")];
    }
    let (name, rest) = statement.split_once(" @").unwrap_or_else(|| panic!("'{statement}' has no number"));
    let place = format!("{}.{name}", scopes.join("."));
    match rest.split_once(" (") {
        // A method: its parameters, and behind the arrow its results, are numbered by their order.
        Some((number, signature)) => {
            let (parameters, results) = signature
                .trim_end_matches(')')
                .split_once(") -> (")
                .unwrap_or_else(|| panic!("'{statement}' is no method that this test understands"));
            let all = |direction: &str, fields: &str| -> Vec<String> {
                let fields = fields.split(", ").filter(|field| !field.is_empty());
                (0..).zip(fields).map(|(at, field)| line(&place, direction, at, field)).collect()
            };
            let mut lines = vec![format!("{place} @{number}")];
            lines.extend(all("parameter", parameters));
            lines.extend(all("result", results));
            lines
        }
        None => vec![format!("{place} @{rest}")],
    }
}

fn line(place: &str, direction: &str, at: usize, field: &str) -> String {
    let (name, kind) = field.split_once(' ').unwrap_or_else(|| panic!("'{field}' has no type"));
    format!("{place} {direction} {name} @{at} {kind}")
}

/// The lines that stood once and are not true any more.
fn lost<'a>(frozen: &'a str, now: &[String]) -> Vec<&'a str> {
    let now: BTreeSet<&str> = now.iter().map(String::as_str).collect();
    frozen.lines().filter(|line| !now.contains(line)).collect()
}

#[test]
fn fields_keep_their_numbers_and_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stems = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into()).collect()
    };
    let update = std::env::var_os("UPDATE").is_some();
    if update {
        std::fs::create_dir_all(root.join("compat")).unwrap();
    }
    for stem in stems("capnp").union(&stems("compat")) {
        let schema = std::fs::read_to_string(root.join("capnp").join(format!("{stem}.capnp")));
        let now = schema.map(|schema| lines(&schema)).unwrap_or_default();
        let file = root.join("compat").join(format!("{stem}.txt"));
        let frozen = std::fs::read_to_string(&file).unwrap_or_default();
        let lost = lost(&frozen, &now);
        assert!(
            lost.is_empty(),
            "{stem}.capnp lost or changed what others rely on; only append:\n  {}",
            lost.join("\n  ")
        );
        let text: String = now.iter().map(|line| format!("{line}\n")).collect();
        if update {
            std::fs::write(&file, text).unwrap();
        } else {
            assert!(
                text == frozen,
                "{stem}.capnp has new fields; UPDATE=1 freezes them in {}",
                file.display()
            );
        }
    }
}

const SAMPLE: &str = "@0xdf9c; using Common = import \"common.capnp\";
    struct Order { term @0 :UInt64; # of the leader; {
      union { deploy :group { job @1 :Common.Id; } release @2 :Void; }
      wait :union { none @3 :Void; ms @4 :List(UInt64); } }
    enum State { created @0; running @1; }
    interface Worker { order @0 (order :Order, part :Data) -> (size :UInt64); ping @1 () -> (); }";

#[test]
fn a_line_says_where_a_field_stands_its_number_and_its_type() {
    let expected = "file @0xdf9c
Order.term @0 :UInt64
Order.union.deploy.job @1 :Common.Id
Order.union.release @2 :Void
Order.wait.union.none @3 :Void
Order.wait.union.ms @4 :List(UInt64)
State.created @0
State.running @1
Worker.order @0
Worker.order parameter order @0 :Order
Worker.order parameter part @1 :Data
Worker.order result size @0 :UInt64
Worker.ping @1";
    assert_eq!(lines(SAMPLE).join("\n"), expected);
}

#[test]
fn what_breaks_older_messages_is_noticed_and_what_is_appended_is_not() {
    let frozen: String = lines(SAMPLE).iter().map(|line| format!("{line}\n")).collect();
    let lost_by = |from: &str, to: &str| {
        assert!(SAMPLE.contains(from), "{from}");
        lost(&frozen, &lines(&SAMPLE.replacen(from, to, 1))).len()
    };
    assert_eq!(lost_by("term @0 :UInt64", "term @5 :UInt64"), 1, "renumbered");
    assert_eq!(lost_by("term @0 :UInt64", "term @0 :UInt32"), 1, "retyped");
    assert_eq!(lost_by("created @0; running @1", "running @0; created @1"), 2, "exchanged");
    assert_eq!(lost_by(" release @2 :Void;", ""), 1, "removed");
    assert_eq!(lost_by(" release @2 :Void; }", " } release @2 :Void;"), 1, "moved out of its union");
    assert_eq!(lost_by("order :Order, part :Data", "part :Data, order :Order"), 2, "parameters exchanged");
    assert_eq!(lost_by("0xdf9c", "0xdf9d"), 1, "file id");
    assert_eq!(lost_by("running @1;", "running @1; finished @2;"), 0, "appended");
    assert_eq!(lost_by("part :Data)", "part :Data, offset :UInt64)"), 0, "parameter appended");
}
