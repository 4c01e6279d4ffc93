//! The rules of the house that a compiler does not check. What each one is for: docs/ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The arrows between rooms: who may depend on whom, in tests too. A new room is entered here and in ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("flott-faults", &[]),
    ("flott-schema", &[]),
    ("flott-dataflow", &["flott-faults", "flott-schema"]),
    ("flott-connectors", &["flott-faults", "flott-schema", "flott-dataflow"]),
    ("flott-storage", &["flott-faults", "flott-schema"]),
    ("flott-state", &["flott-faults", "flott-schema", "flott-dataflow", "flott-storage"]),
    ("flott-worker", &["flott-faults", "flott-schema", "flott-dataflow", "flott-storage", "flott-state"]),
    ("flott-coordinator", &["flott-faults", "flott-schema", "flott-storage"]),
    (
        "flott",
        &[
            "flott-faults",
            "flott-schema",
            "flott-dataflow",
            "flott-connectors",
            "flott-storage",
            "flott-state",
            "flott-worker",
            "flott-coordinator",
        ],
    ),
    ("flott-benches", &["flott"]),
];

/// The longest a file may be, without its tests.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with the reason.
const LONGER: &[(&str, &str)] = &[];

/// Parts of the worker that know actix; the rest could run on anything that polls futures.
const KNOW_ACTIX: &[&str] = &["slot.rs", "subtask.rs", "enumerator.rs", "service.rs", "executor/run.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project, relative to its root, with its text.
fn rust_files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                // What a compiler made is held by its own test.
                if !name.starts_with('.') && name != "target" && name != "generated" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.insert(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text);
            }
        }
    }
    assert!(files.len() > 100, "the walk over the tree has lost its way: {} files", files.len());
    files
}

/// The files that make up crates, without those that are tests through and through.
fn source_files() -> BTreeMap<String, String> {
    let is_test = |path: &str| {
        let path = Path::new(path);
        let stem = path.file_stem().unwrap().to_string_lossy();
        path.iter().any(|part| part == "tests") || stem == "tests" || stem.ends_with("_tests")
    };
    let mut files = rust_files();
    files.retain(|path, _| (path.starts_with("src/") || path.contains("/src/")) && !is_test(path));
    files
}

/// The text in front of the tests at its end.
fn without_tests(text: &str) -> &str {
    let is_inline = |at: &usize| {
        let mut lines = text[*at..].lines().skip(1).map(str::trim);
        lines
            .find(|line| !line.starts_with("#["))
            .is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let mut starts = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at);
    starts.find(is_inline).map_or(text, |at| &text[..at])
}

/// The places where one of `words` stands in one of `files`.
fn places(files: &BTreeMap<String, String>, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn refuse(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs: it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn dependencies_between_rooms_run_one_way() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let metadata = metadata();
    let mut found = Vec::new();
    let mut rooms = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        rooms.insert(name);
        let Some(allowed) = arrows.get(name) else {
            found.push(format!("{name}: enter it in ARROWS and say in docs/ARCHITECTURE.md who needed it"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let is_room = on == "flott" || on.starts_with("flott-");
            if is_room && !allowed.contains(&on) {
                let kind = dependency["kind"].as_str().unwrap_or("normal");
                found.push(format!("{name} -> {on} ({kind} dependency)"));
            }
        }
    }
    found.extend(arrows.keys().filter(|room| !rooms.contains(*room)).map(|room| format!("{room} is gone")));
    refuse("arrows that run the wrong way", found);
}

#[test]
fn only_tests_inject_faults() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let dependencies = packages.flat_map(|package| {
        let name = package["name"].as_str().unwrap();
        package["dependencies"].as_array().unwrap().iter().map(move |dependency| (name, dependency))
    });
    let on_faults = dependencies.filter(|(_, dependency)| dependency["name"] == "flott-faults");
    let (tests, others): (Vec<_>, Vec<_>) =
        on_faults.partition(|(_, dependency)| !dependency["features"].as_array().unwrap().is_empty());
    assert!(tests.iter().any(|(name, _)| *name == "flott"), "the tests of the whole do not inject faults");
    assert!(others.len() > 3, "the rooms have no points any more");
    let found =
        tests.iter().filter(|(_, dependency)| dependency["kind"] != "dev").map(|(name, _)| name.to_string());
    refuse("only a dev-dependency may have faults injected", found.collect());
}

#[test]
fn no_file_is_long() {
    let mut found = Vec::new();
    for (path, text) in source_files() {
        let lines = without_tests(&text).lines().count();
        let allowed = LONGER.iter().any(|(longer, _)| path == *longer);
        match lines > LINES_MAX {
            true if !allowed => found.push(format!("{path}: {lines} lines without tests")),
            false if allowed => found.push(format!("{path}: {lines} lines; take it off LONGER")),
            _ => {}
        }
    }
    refuse(&format!("a file has one subject and at most {LINES_MAX} lines; split it"), found);
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [
        concat!("to", "do!("),
        concat!("unim", "plemented!("),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
    ];
    refuse("leftovers", places(&rust_files(), &words));
}

#[test]
fn every_queue_has_a_bound() {
    let words =
        [concat!("unbounded", "_channel"), concat!("mpsc::", "unbounded"), concat!("Unbounded", "Sender")];
    refuse("queues without a bound", places(&rust_files(), &words));
}

#[test]
fn few_parts_of_the_worker_know_actix() {
    let mut files = source_files();
    files.retain(|path, _| path.strip_prefix("worker/src/").is_some_and(|file| !KNOW_ACTIX.contains(&file)));
    assert!(files.len() > 5, "the worker's files are not found");
    let words = ["use actix", "actix::", "actix_rt"];
    refuse("only the actors and what starts them may know actix", places(&files, &words));
}

#[test]
fn the_job_state_machine_knows_no_runtime_clock_or_disk() {
    let mut files = source_files();
    files.retain(|path, _| path.starts_with("coordinator/src/machine/"));
    assert!(files.len() > 5, "the machine's files are not found");
    let words =
        ["tokio", "actix", "std::time", "std::fs", "std::net", "std::thread", "rand::", "HashMap", "HashSet"];
    refuse("the machine decides from its state and the event alone", places(&files, &words));
}

#[test]
fn every_module_says_at_its_head_what_lives_there() {
    let files = source_files();
    let found = files.iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path.clone());
    refuse("files that do not open with `//!`", found.collect());
}

#[test]
fn tests_behind_the_code_are_told_from_it() {
    let text = "a\n#[cfg(test)]\nmod outside;\nb\n#[cfg(test)]\n#[rustfmt::skip]\nmod tests {\nc\n}\n";
    assert_eq!(without_tests(text), "a\n#[cfg(test)]\nmod outside;\nb\n");
    assert_eq!(without_tests("a\n"), "a\n");
}
