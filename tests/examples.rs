//! The examples as a user runs them, against counts made another way.

mod process;

use std::collections::BTreeMap;
use std::path::Path;

use process::{example, example_text, flott, run};

/// Runs an example through `flott run`.
fn run_example(name: &str, flags: &[&str], arguments: &[&str]) -> process::Ended {
    let program = example_text(name);
    run(&mut flott(&[&["run"], flags, &[program.as_str()], arguments].concat()))
}

/// Counts words character by character, and ranks them.
fn ranking(text: &str) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_alphabetic() || c.is_numeric() {
            word.push(c);
        } else if !word.is_empty() {
            *counts.entry(word.to_lowercase()).or_default() += 1;
            word.clear();
        }
    }
    let mut ranked: Vec<(String, u64)> = counts.into_iter().collect();
    ranked.sort_by(|(word, count), (other, others)| (others, word).cmp(&(count, other)));
    ranked.into_iter().map(|(word, count)| format!("{word}\t{count}\n")).collect()
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn word_count_of_real_text_is_right_in_both_modes_at_any_parallelism() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut text = std::fs::read_to_string(docs.join("ARCHITECTURE.md")).unwrap();
    for entry in std::fs::read_dir(docs.join("book")).unwrap() {
        text += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
        text.push('\n');
    }
    let expected = ranking(&text);
    let docs = docs.to_str().unwrap();
    for mode in ["streaming", "batch"] {
        for parallelism in ["1", "3"] {
            let arguments = ["--input", docs, "--mode", mode];
            let counted = run_example("word_count", &["-p", parallelism], &arguments).succeeded();
            assert_eq!(counted, expected, "{mode} with parallelism {parallelism}");
        }
    }
    let first: String = expected.split_inclusive('\n').take(20).collect();
    let top = run_example("word_count", &[], &["--input", docs, "--top", "20"]).succeeded();
    assert_eq!(top, first);
}

#[test]
fn word_count_knows_letters_of_all_scripts_and_any_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let first = "Straße STRASSE straße, ΟΔΥΣΣΕΥΣ οδυσσευς!\n中文 中文-Ünïcode x2 X2 a_b don't\r\n";
    write(&folder.path().join("a.txt"), first);
    write(&folder.path().join("deep/er/b"), "x2 Ⅷ ١٢٣ tail without end");
    write(&folder.path().join("deep/empty.txt"), "");
    write(&folder.path().join(".hidden"), "hidden hidden hidden");
    write(&folder.path().join("latin1.txt"), b"caf\xe9 au\xff\xfelait\n");
    let expected = ranking(&format!("{first}\nx2 Ⅷ ١٢٣ tail without end\ncaf au lait"));
    assert!(expected.starts_with("x2\t3\n"), "{expected}");
    let input = folder.path().to_str().unwrap();
    for mode in ["streaming", "batch"] {
        let counted =
            run_example("word_count", &["-p", "2"], &["--input", input, "--mode", mode]).succeeded();
        assert_eq!(counted, expected, "{mode}");
    }
}

#[test]
fn word_count_writes_a_file_at_the_end_and_runs_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.txt"), folder.path().join("out.txt"));
    write(&input, "to be or not to be\n");
    let mut command = std::process::Command::new(example("word_count"));
    command.arg("--input").arg(&input).arg("--output").arg(&output).args(["--top", "3"]);
    let ended = run(&mut command);
    assert!(ended.stderr.contains("job 'word count' finished"), "{}", ended.stderr);
    assert_eq!(ended.succeeded(), "");
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "be\t2\nto\t2\nnot\t1\n");
    write(&input, "");
    run(&mut command).succeeded();
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "", "nothing to count is an empty file");
}

#[test]
fn word_count_refuses_what_it_cannot_do_before_it_starts() {
    let missing = run_example("word_count", &[], &["--input", "no/such/folder"]).failed_with(1);
    assert!(missing.contains("cannot read 'no/such/folder'"), "{missing}");
    let no_input = run_example("word_count", &[], &["--top", "3"]).failed_with(2);
    assert!(no_input.contains("--input <PATH>"), "{no_input}");
    let no_words = run_example("word_count", &[], &["--input", "docs", "--top", "0"]).failed_with(2);
    assert!(no_words.contains("--top <N>"), "{no_words}");
    let mode = run_example("word_count", &[], &["--input", "docs", "--mode", "steaming"]).failed_with(2);
    assert!(mode.contains("similar value exists: 'streaming'"), "{mode}");
}
