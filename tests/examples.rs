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

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn fraud_alerts_finds_the_three_frauds_in_the_data_whatever_the_parallelism() {
    for parallelism in ["1", "2", "3"] {
        let printed = run_example("fraud_alerts", &["-p", parallelism], &[]).succeeded();
        // With several tasks a line begins with the number of the task that printed it.
        let mut alerts: Vec<&str> =
            printed.lines().map(|line| line.split_once("> ").map_or(line, |(_, rest)| rest)).collect();
        alerts.sort_unstable();
        let expected = [
            "DE03: 0.50 at 120 s, then 620.00 at 150 s (test-charge)",
            "DE11: 15.00 at 700 s, then 3500.00 at 910 s (slow-drain)",
            "DE19: 0.99 at 900 s, then 500.01 at 959 s (test-charge)",
        ];
        assert_eq!(alerts, expected, "parallelism {parallelism}");
    }
}

#[test]
fn batch_report_agrees_with_the_sums_made_by_hand() {
    let customers = data("customers.csv");
    let of_customer: BTreeMap<&str, (&str, &str)> = customers
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (fields[0], (fields[1], fields[2]))
        })
        .collect();
    let (mut regions, mut names, mut unknown) = (BTreeMap::new(), BTreeMap::new(), 0);
    let orders = data("orders.csv");
    for line in orders.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let cents = fields[3].parse::<u64>().unwrap() * fields[4].parse::<u64>().unwrap();
        match of_customer.get(fields[1]) {
            Some((name, region)) => {
                *regions.entry(*region).or_insert(0u64) += cents;
                *names.entry(*name).or_insert(0u64) += cents;
            }
            None => unknown += 1,
        }
    }
    let ranked = |sums: BTreeMap<&str, u64>| {
        let mut ranked: Vec<(String, u64)> =
            sums.into_iter().map(|(name, cents)| (name.to_string(), cents)).collect();
        ranked.sort_by_key(|(_, cents)| std::cmp::Reverse(*cents));
        ranked
    };
    let money = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let turnover =
        ranked(regions).into_iter().map(|(region, cents)| format!("turnover {region}: {}", money(cents)));
    let best = ranked(names)
        .into_iter()
        .take(3)
        .map(|(name, cents)| format!("among the best: {name}, {}", money(cents)));
    let expected: Vec<String> =
        turnover.chain(best).chain([format!("orders of unknown customers: {unknown}")]).collect();
    for parallelism in ["1", "3"] {
        let printed = run_example("batch_report", &["-p", parallelism], &[]).succeeded();
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected, "parallelism {parallelism}");
    }
}

#[test]
fn page_views_counts_every_view_once_but_the_one_that_is_too_late() {
    let views = data("page_views.csv");
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for line in views.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let at_ms: i64 = fields[0].parse().unwrap();
        if at_ms != 1_700_000_000_000 {
            *expected.entry(format!("{} {}", at_ms / 60_000 % 60, fields[2])).or_default() += 1;
        }
    }
    for parallelism in ["1", "3"] {
        let printed = run_example("page_views", &["-p", parallelism], &[]).succeeded();
        let lines = printed.lines().map(|line| line.split_once("> ").map_or(line, |(_, rest)| rest));
        let (late, counts): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("too late"));
        assert_eq!(late, ["too late: 1700000000000 user5 /pricing"], "parallelism {parallelism}");
        // A minute that fires again prints its count again: the last one holds.
        let counted: BTreeMap<String, usize> = counts
            .iter()
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(window, count)| (window.to_string(), count.parse().unwrap()))
            .collect();
        assert_eq!(counts.len(), expected.len() + 1, "one minute fires twice, parallelism {parallelism}");
        assert_eq!(counted, expected, "parallelism {parallelism}");
    }
}

#[test]
fn hot_items_of_nexmark_agree_with_a_count_over_all_bids() {
    use flott::connectors::nexmark::{Generator, NexmarkConfig};
    let config =
        NexmarkConfig { event_count: 400_000, events_per_second: 100_000, ..NexmarkConfig::default() };
    let mut bids: BTreeMap<i64, BTreeMap<i64, u64>> = BTreeMap::new();
    for (at_ms, event) in Generator::reader(&config, 0, 1).unwrap() {
        if let Some(bid) = event.as_bid() {
            let first_end_ms = at_ms - at_ms.rem_euclid(2000) + 2000;
            for end_ms in (0..5).map(|n| first_end_ms + n * 2000) {
                *bids.entry(end_ms).or_default().entry(bid.auction).or_default() += 1;
            }
        }
    }
    let hottest = |counts: &BTreeMap<i64, u64>| {
        let hottest =
            counts.iter().max_by_key(|(auction, bids)| (**bids, std::cmp::Reverse(**auction))).unwrap();
        (*hottest.0, *hottest.1)
    };
    let mut expected: Vec<String> = bids
        .iter()
        .map(|(end_ms, counts)| (end_ms, hottest(counts)))
        .map(|(end_ms, (auction, bids))| format!("{} s: auction {auction} with {bids} bids", end_ms / 1000))
        .collect();
    expected.sort();
    for parallelism in ["1", "2"] {
        let printed =
            run_example("nexmark_windows", &["-p", parallelism], &["--events", "400000"]).succeeded();
        let mut lines: Vec<String> = printed
            .lines()
            .map(|line| line.split_once("> ").map_or(line, |(_, rest)| rest).to_string())
            .collect();
        lines.sort();
        assert_eq!(lines, expected, "parallelism {parallelism}");
    }
}
