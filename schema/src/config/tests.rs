//! Tests of the configuration as a whole. Cases are data in `samples/`; `UPDATE=1` writes what comes out into them.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{env, fs};

use proptest::prelude::*;

use super::*;
use crate::config::value::ConfigValue;

/// Compares `actual` with the file below the crate's root, or writes it there with `UPDATE=1`.
fn expect_file(path: &str, actual: &str) {
    let full = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    if env::var_os("UPDATE").is_some() {
        fs::write(&full, actual).expect("the file can be written");
    }
    let stored = fs::read_to_string(&full).unwrap_or_default();
    assert!(stored == actual, "{path} differs; this came out:\n{actual}");
}

/// Runs every case of a file of lines `input -> output`; other lines are kept.
fn check_lines(name: &str, run: impl Fn(&str) -> String) {
    let path = format!("src/config/samples/{name}");
    let stored =
        fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect("the samples are there");
    let mut cases = 0;
    let lines = stored.lines().map(|line| match line.split_once(" ->") {
        Some((input, _)) if !line.starts_with('#') => {
            cases += 1;
            format!("{input} -> {}\n", run(input)).replace("-> \n", "->\n")
        }
        _ => format!("{line}\n"),
    });
    let actual: String = lines.collect();
    assert!(cases > 0, "{path} has no case");
    expect_file(&path, &actual);
}

fn outcome(result: Result<String, String>) -> String {
    result.unwrap_or_else(|error| format!("error: {error}"))
}

fn canonical<T: ConfigValue>(text: &str) -> String {
    outcome(T::parse(text).map(|value| value.render()))
}

#[test]
fn values_are_read_in_flinks_forms() {
    check_lines("values.txt", |input| {
        let (kind, text) = input.split_once(' ').unwrap_or((input, ""));
        match kind {
            "duration" => canonical::<Duration>(text),
            "size" => canonical::<MemorySize>(text),
            "ports" => canonical::<PortRanges>(text),
            "directories" => canonical::<Directories>(text),
            "list" => canonical::<Vec<String>>(text),
            "numbers" => canonical::<Vec<u16>>(text),
            "map" => canonical::<BTreeMap<String, String>>(text),
            "bool" => canonical::<bool>(text),
            "u32" => canonical::<u32>(text),
            "i32" => canonical::<i32>(text),
            "f64" => canonical::<f64>(text),
            "strategy" => canonical::<options::RestartStrategyKind>(text),
            "claim" => canonical::<options::ClaimMode>(text),
            _ => panic!("unknown kind of value {kind}"),
        }
    });
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    check_lines("nearest.txt", |key| match is_known_key(key) {
        true => "(known)".into(),
        false => nearest_known_key(key).into(),
    });
}

#[test]
fn files_are_read_and_mistakes_pointed_at() {
    const CASE: &str = "=== ";
    const OUT: &str = "---- comes out as\n";
    let path = "src/config/samples/files.txt";
    let stored =
        fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect("the samples are there");
    let mut actual = String::new();
    for case in stored.split(CASE).skip(1) {
        let (title, rest) = case.split_once('\n').expect("a case has a title");
        let input = rest.split(OUT).next().unwrap_or_default();
        let output = match Configuration::from_yaml(input, "f.yaml") {
            Ok(config) => config
                .iter()
                .map(|(key, entry)| format!("{} {key} = {}\n", entry.origin(), entry.text()))
                .collect(),
            Err(error) => format!("{error}\n"),
        };
        actual.push_str(&format!("{CASE}{title}\n{input}{OUT}{output}"));
        if !actual.ends_with("\n\n") {
            actual.push('\n');
        }
    }
    expect_file(path, &actual);
}

fn shipped_path() -> &'static str {
    "../conf/flott.yaml"
}

#[test]
fn the_shipped_file_documents_every_option() {
    expect_file(shipped_path(), &documented_defaults());
}

#[test]
fn the_shipped_file_shows_known_keys_with_their_defaults_and_sets_nothing() {
    let shipped = fs::read_to_string(format!("{}/{}", env!("CARGO_MANIFEST_DIR"), shipped_path()))
        .expect("it is shipped");
    assert_eq!(Configuration::from_yaml(&shipped, "flott.yaml").expect("it is valid"), Configuration::new());

    let shown: String = shipped
        .lines()
        .filter_map(|line| {
            line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let config = Configuration::from_yaml(&shown, "flott.yaml").unwrap_or_else(|error| panic!("{error}"));
    for option in options::all() {
        let (key, shown_text) = (option.key(), config.text(option.key()));
        assert!(shown.contains(&format!("{key}:")), "{key} is not shown");
        let value = |text: &str| option.canonical(text).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(shown_text.map(value), option.default_text().map(value), "{key}");
    }
    assert_eq!(
        config.iter().count(),
        options::all().filter(|option| option.default_text().is_some()).count()
    );
}

#[test]
fn every_default_is_valid_and_written_in_its_canonical_form() {
    for option in options::all() {
        if let Some(text) = option.default_text() {
            assert_eq!(option.canonical(text).as_deref(), Ok(text), "{}", option.key());
        }
        assert!(option.doc().trim().ends_with('.'), "{} has no sentence of documentation", option.key());
    }
}

#[test]
fn no_two_options_share_a_name_except_for_old_ones() {
    let mut seen = BTreeMap::new();
    for option in options::all() {
        for key in std::iter::once(option.key()).chain(option.also().iter().copied()) {
            assert_eq!(seen.insert(key, option.key()), None, "{key} is declared twice");
        }
    }
    for option in options::all() {
        for old in option.deprecated() {
            assert!(!seen.contains_key(old), "{old} is an option and an old name of {}", option.key());
        }
        for fallback in option.fallback() {
            let known = options::all()
                .any(|other| other.key() != option.key() && other.keys().any(|key| key == *fallback));
            assert!(known, "{fallback}, on which {} falls back, is no option", option.key());
        }
    }
}

#[test]
fn own_keys_name_a_role_or_the_token_and_all_others_are_flinks() {
    let flink: Vec<&str> = include_str!("flink_keys.txt").lines().collect();
    for option in options::all() {
        let own = ["coordinator.", "worker.", "security.token"]
            .iter()
            .any(|prefix| option.key().starts_with(prefix));
        // Flink's too, but for the name of a reporter, which its users choose.
        let of_flink = flink.contains(&option.key()) || option.key().starts_with("metrics.reporter.prom.");
        assert!(own != of_flink, "{}", option.key());
        for key in option.also() {
            assert!(flink.contains(key), "{key}, another name of {}, is none of Flink's", option.key());
        }
    }
}

#[test]
fn flinks_keys_are_sorted_once_and_known_and_old_names_lead_to_known_ones() {
    let lines = |table: &'static str| table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<&str> = lines(include_str!("flink_keys.txt")).collect();
    assert!(keys.len() > 950 && keys.is_sorted_by(|a, b| a < b));
    assert!(keys.iter().all(|key| is_known_key(key)));
    let mut old_keys = Vec::new();
    for line in lines(include_str!("flink_old_keys.txt")) {
        let (old, new) = line.split_once(' ').expect("two names a line");
        assert!(new == "-" || keys.contains(&new), "{old} became {new}, which is not known");
        assert!(
            !keys.contains(&old) && !options::all().any(|option| option.keys().any(|key| key == old)),
            "{old}"
        );
        old_keys.push(old);
    }
    assert!(old_keys.is_sorted_by(|a, b| a < b));
}

#[test]
fn higher_layers_win_under_whatever_name() {
    let yaml = |text| Configuration::from_yaml(text, "f.yaml").expect("it is valid");
    let flags = |pairs: &[&str]| Configuration::from_pairs(pairs).expect("they are valid");
    let config = yaml("worker.slots: 2\nparallelism.default: 3")
        .overlaid_with(flags(&["taskmanager.numberOfTaskSlots=4"]));
    assert_eq!(config.get(&options::WORKER_SLOTS), Ok(4));
    assert_eq!(config.get(&options::PARALLELISM_DEFAULT), Ok(3));
    assert_eq!(config.get(&options::WORKER_BATCH_SIZE), Ok(1024));

    let both = yaml("taskmanager.numberOfTaskSlots: 4\nworker.slots: 2");
    assert_eq!(both.get(&options::WORKER_SLOTS), Ok(2));

    let mut config =
        yaml("state.checkpoints.dir: /a").overlaid_with(flags(&["execution.checkpointing.dir=/b"]));
    assert_eq!(config.get(&options::CHECKPOINTING_DIR), Ok(Some("/b".into())));
    config.set("state.checkpoints.dir", "/c").expect("an old name can be set");
    assert_eq!(config.get(&options::CHECKPOINTING_DIR), Ok(Some("/c".into())));
    config.set_option(&options::CHECKPOINTING_DIR, Some("/d".into())).expect("it can be set");
    assert_eq!(config.get(&options::CHECKPOINTING_DIR), Ok(Some("/d".into())));
}

#[test]
fn a_fallback_never_outweighs_the_option_itself() {
    let bind_ports = |pairs: &[&str]| {
        let config = Configuration::from_yaml("rest.bind-port: 9000-9010", "f.yaml").expect("it is valid");
        let flags = Configuration::from_pairs(pairs).expect("they are valid");
        (
            flags.get(&options::REST_BIND_PORT).map(|p| p.render()),
            config.overlaid_with(flags).get(&options::REST_BIND_PORT).map(|p| p.render()),
        )
    };
    assert_eq!(bind_ports(&["rest.port=9100"]), (Ok("9100".into()), Ok("9000-9010".into())));
    assert_eq!(bind_ports(&[]), (Ok("8081".into()), Ok("9000-9010".into())));
}

#[test]
fn entries_of_a_map_may_be_keys_of_their_own() {
    let map = |config: &Configuration| {
        config.get(&options::PIPELINE_GLOBAL_JOB_PARAMETERS).expect("it is a map").render()
    };
    let file = Configuration::from_yaml("pipeline.global-job-parameters: {a: 1, b.c: 2}", "f.yaml")
        .expect("it is valid");
    assert_eq!(map(&file), "{a: 1, b.c: 2}");
    assert!(file.is_set(&options::PIPELINE_GLOBAL_JOB_PARAMETERS));
    let one = Configuration::from_pairs(["pipeline.global-job-parameters.a=5"]).expect("it is valid");
    assert_eq!(map(&file.clone().overlaid_with(one)), "{a: 5, b.c: 2}");
    let whole = Configuration::from_pairs(["pipeline.global-job-parameters=x:7,y:8"]).expect("it is valid");
    assert_eq!(map(&file.clone().overlaid_with(whole)), "{x: 7, y: 8}");
    assert_eq!(file.ineffective_keys().count(), 0);
}

#[test]
fn pairs_and_variables_name_themselves_in_errors() {
    let error = |result: Result<Configuration, ConfigError>| result.expect_err("it is wrong").to_string();
    assert_eq!(
        error(Configuration::from_pairs(["worker.slot=2"])),
        "-D: unknown key `worker.slot`; the nearest known key is `worker.slots`"
    );
    assert_eq!(
        error(Configuration::from_pairs(["worker.slot"])),
        "-D worker.slot: a setting is KEY=VALUE; the nearest known key is `worker.slots`"
    );
    assert_eq!(
        error(Configuration::from_pairs(["worker.slots=0"])),
        "-D: bad value `0` for `worker.slots`: out of bounds; expected a whole number of at least 1"
    );
    assert_eq!(
        error(Configuration::from_environment([("FLOTT_CONF_WORKER_SLOT", "2"), ("PATH", "/bin")])),
        "environment variable FLOTT_CONF_WORKER_SLOT: unknown key `worker.slot`; the nearest known key is `worker.slots`"
    );
    assert_eq!(
        error(Configuration::from_environment([(PROPERTIES_VARIABLE, "\nworker.slots: x")])),
        "FLOTT_PROPERTIES:2: bad value `x` for `worker.slots`: not a whole number; expected a whole number of at least 1"
    );
}

#[test]
fn pairs_keep_what_follows_the_first_equals_sign_and_the_last_one_counts() {
    let pairs = ["pipeline.name=a=b", "parallelism.default=2", "parallelism.default=3", "web.submit.enable"];
    let config = Configuration::from_pairs(pairs).expect("they are valid");
    assert_eq!(config.get(&options::PIPELINE_NAME), Ok(Some("a=b".into())));
    assert_eq!(config.get(&options::PARALLELISM_DEFAULT), Ok(3));
    assert_eq!(config.get(&options::WEB_SUBMIT_ENABLE), Ok(true));
}

#[test]
fn single_variables_go_over_the_variable_that_holds_a_file() {
    let variables = [
        ("FLOTT_CONF_TASKMANAGER_NUMBEROFTASKSLOTS", "5"),
        ("FLOTT_PROPERTIES", "worker.slots: 3\nexecution.checkpointing.min-pause: 1 s"),
        ("FLOTT_CONF_EXECUTION_CHECKPOINTING_TIMEOUT", "20 s"),
        ("FLOTT_COORDINATOR", "a:8081"),
    ];
    let config = Configuration::from_environment(variables).expect("they are valid");
    assert_eq!(config.get(&options::WORKER_SLOTS), Ok(5));
    assert_eq!(config.get(&options::CHECKPOINTING_MIN_PAUSE), Ok(Duration::from_secs(1)));
    assert_eq!(config.get(&options::CHECKPOINTING_TIMEOUT), Ok(Duration::from_secs(20)));
    let origin = config.entry("execution.checkpointing.timeout").expect("it is set").origin().to_string();
    assert_eq!(origin, "environment variable FLOTT_CONF_EXECUTION_CHECKPOINTING_TIMEOUT");
}

#[test]
fn every_option_has_a_variable_of_its_own() {
    for option in options::all() {
        let Some(default) = option.default_text() else { continue };
        let variable = format!("{VARIABLE_PREFIX}{}", option.key().to_uppercase().replace(['.', '-'], "_"));
        let config =
            Configuration::from_environment([(variable, default)]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.text(option.key()), Some(default));
    }
}

#[test]
fn a_file_of_another_kind_is_refused_without_end() {
    let text: String = (0..40_000).map(|number| format!("k{number}: v\n")).collect();
    let Err(ConfigError::Several(mistakes)) = Configuration::from_yaml(&text, "f.yaml") else {
        panic!("it is wrong")
    };
    assert_eq!(mistakes.len(), 100);
    let deep = "[".repeat(100_000);
    assert!(Configuration::from_yaml(&deep, "f.yaml").is_err());
    let deep: String = (0..1000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let error = Configuration::from_yaml(&deep, "f.yaml").expect_err("it is too deep");
    assert_eq!(error.to_string(), "f.yaml:33:33: nested deeper than 32 levels");
    let laughs: String =
        (1..20).map(|n| format!("k{n}: &a{n} [*a{p}, *a{p}, *a{p}, *a{p}]\n", p = n - 1)).collect();
    let error =
        Configuration::from_yaml(&format!("k0: &a0 [x]\n{laughs}"), "f.yaml").expect_err("it is too much");
    assert!(error.to_string().ends_with("more than 100000 values"), "{error}");
}

#[test]
fn keys_without_effect_and_old_keys_can_be_named() {
    let text = "env.java.opts.all: -Xmx1g\nworker.slots: 1\nstate.backend: rocksdb\njobmanager.heap.size: 1g\n\
                metrics.reporter.jmx.port: 8789\nstate.backend.async: true";
    let config = Configuration::from_yaml(text, "f.yaml").expect("Flink's keys are accepted");
    assert_eq!(
        config.ineffective_keys().collect::<Vec<_>>(),
        ["env.java.opts.all", "jobmanager.heap.size", "metrics.reporter.jmx.port", "state.backend.async"]
    );
    assert_eq!(
        config.deprecated_keys().collect::<Vec<_>>(),
        [
            ("jobmanager.heap.size", Some("jobmanager.memory.process.size")),
            ("state.backend", Some("state.backend.type")),
            ("state.backend.async", None)
        ]
    );
}

#[test]
fn secrets_are_never_shown() {
    let text = "s3: {access-key: KEY1, secret-key: KEY2, endpoint: http://e}\nfs.azure.account.key.x.net: KEY3\n\
                pipeline.global-job-parameters: 'user:u,db.password:KEY4'\nsecurity.ssl.rest.key-password: KEY5";
    let config = Configuration::from_yaml(text, "f.yaml").expect("it is valid");
    let shown = format!("{config}{config:?}{:?}", config.iter().collect::<Vec<_>>());
    assert!(!shown.contains("KEY"), "{shown}");
    assert!(
        config.to_string().contains("s3.endpoint: http://e\n") && config.to_string().contains("user: u"),
        "{shown}"
    );
    assert_eq!(
        config.below("s3.").collect::<Vec<_>>(),
        [("access-key", "KEY1"), ("endpoint", "http://e"), ("secret-key", "KEY2")]
    );

    let error = Configuration::from_pairs(["pipeline.global-job-parameters={password: KEY6"])
        .expect_err("it is wrong");
    assert!(!error.to_string().contains("KEY"), "{error}");
}

#[test]
fn a_configuration_survives_being_sent() {
    let config = Configuration::from_yaml("worker.slots: 2\ns3.secret-key: k", "f.yaml")
        .and_then(|file| Ok(file.overlaid_with(Configuration::from_pairs(["worker.slots=3"])?)))
        .expect("it is valid");
    let sent = serde_json::to_string(&config).expect("it can be written");
    let received: Configuration = serde_json::from_str(&sent).expect("it can be read");
    assert_eq!(received, config);
    assert_eq!(received.get(&options::WORKER_SLOTS), Ok(3));
}

#[test]
fn a_required_option_that_is_missing_says_what_it_expects() {
    static REQUIRED: ConfigOption<u16> = ConfigOption::new("worker.required");
    let error = Configuration::new().get(&REQUIRED).expect_err("it is not set");
    assert_eq!(error.to_string(), "`worker.required` is not set; expected a whole number");
}

proptest! {
    #[test]
    fn any_text_comes_back_out_of_a_list_or_map(texts in prop::collection::vec(any::<String>(), 0..5)) {
        prop_assert_eq!(Vec::<String>::parse(&texts.render()), Ok(texts.clone()));
        let map: BTreeMap<String, String> = texts.iter().rev().cloned().zip(texts.clone()).collect();
        prop_assert_eq!(BTreeMap::parse(&map.render()), Ok(map));
    }

    #[test]
    fn a_duration_comes_back_as_it_was_written(seconds in 0..u64::MAX, nanos in 0u32..1_000_000_000, coarse in 0u32..10) {
        let duration = Duration::new(seconds, nanos / 10u32.pow(coarse) * 10u32.pow(coarse));
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a-z:{}\\[\\]&*#'\"| \n\t<>!%,0-9.]{0,60}") {
        let _ = Configuration::from_yaml(&text, "f.yaml");
        let _ = Configuration::from_pairs([&text]);
    }
}

#[test]
fn a_flattened_configuration_gives_the_same_values_in_one_layer() {
    let lower =
        ["worker.slots=1", "pipeline.name=a", "pipeline.global-job-parameters.x=1", "parallelism.default=3"];
    let upper =
        ["taskmanager.numberOfTaskSlots=2", "pipeline.global-job-parameters={y: 2}", "parallelism.default=4"];
    let layered =
        Configuration::from_pairs(lower).unwrap().overlaid_with(Configuration::from_pairs(upper).unwrap());
    let pairs = layered.flattened().into_iter().map(|(key, value)| format!("{key}={value}"));
    let flat = Configuration::from_pairs(pairs).unwrap();
    assert_eq!(flat.get(&options::WORKER_SLOTS).unwrap(), 2);
    assert_eq!(flat.get(&options::PARALLELISM_DEFAULT).unwrap(), 4);
    assert_eq!(flat.get(&options::PIPELINE_NAME).unwrap().as_deref(), Some("a"));
    let parameters = flat.get(&options::PIPELINE_GLOBAL_JOB_PARAMETERS).unwrap();
    assert_eq!(parameters, layered.get(&options::PIPELINE_GLOBAL_JOB_PARAMETERS).unwrap());
    assert_eq!(parameters.into_iter().collect::<Vec<_>>(), [("y".to_string(), "2".to_string())]);
    assert_eq!(flat.iter().count(), 4);
}
