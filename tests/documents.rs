//! README and book say what is so: links lead somewhere, keys and commands exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flott::schema::config::{Configuration, is_known_key, options};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document for people, with its text.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut documents = BTreeMap::new();
    let mut folders = vec![root().join("docs")];
    documents.insert(root().join("README.md"), std::fs::read_to_string(root().join("README.md")).unwrap());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                documents.insert(path.clone(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(documents.len() >= 5, "documents are missing: {:?}", documents.keys());
    documents
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

fn has_anchor(path: &Path, wanted: &str) -> bool {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| anchor(line.trim_start_matches('#')) == wanted)
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for (path, text) in documents() {
        for (_, rest) in text.match_indices("](").map(|(at, found)| (at, &text[at + found.len()..])) {
            let target = rest.split(')').next().unwrap();
            if target.starts_with("https://") {
                continue;
            }
            checked += 1;
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let leads_to = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            if !leads_to.exists() || (!fragment.is_empty() && !has_anchor(&leads_to, fragment)) {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(checked > 5, "no links were found");
    assert!(broken.is_empty(), "broken links: {broken:#?}");
}

#[test]
fn the_keys_of_the_book_are_known_and_have_the_defaults_it_says() {
    let text = std::fs::read_to_string(root().join("docs/book/configuration.md")).unwrap();
    let rows: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            Some((cells.next()?.trim_end_matches('`'), cells.next()?))
        })
        .collect();
    assert!(rows.len() >= 10, "the table is not found: {rows:?}");
    for (key, default) in rows {
        assert!(is_known_key(key), "{key}");
        let option = options::all().find(|option| option.key() == key);
        let option = option.unwrap_or_else(|| panic!("{key} is no option that Flott reads"));
        let declared = option.default_text();
        // A sentence stands for a default that is worked out, by the embedded cluster or from other settings.
        let is_sentence = default.contains("the") || default.contains("number");
        assert!(
            is_sentence || declared == Some(default),
            "{key}: the book says {default}, it is {declared:?}"
        );
        if !is_sentence {
            Configuration::from_pairs([format!("{key}={default}")]).unwrap();
        }
    }
}

#[test]
fn the_readme_names_scripts_that_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for script in ["scripts/quickstart.sh", "scripts/test.sh"] {
        assert!(readme.contains(script));
        let mode = std::fs::metadata(root().join(script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not executable");
    }
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("scripts/test.sh"), "{ci}");
}

#[test]
fn the_job_of_the_readme_has_twenty_lines() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let code = readme.split("```rust,no_run\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(code.lines().filter(|line| !line.trim().is_empty()).count() <= 20, "{code}");
}
