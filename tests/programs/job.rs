//! A job that ends in the way its argument says, for the tests of `flott run` and of failures.

use std::fmt::Display;
use std::ops::Add;
use std::time::Duration;

use flott::connectors::generator::Generator;
use flott::dataflow::api::StreamSink;
use flott::dataflow::batch::Record;
use flott::prelude::*;

fn main() -> flott::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let env = flott::env()?;
    match arguments.as_slice() {
        ["finish", count] => env.sequence(1, count.parse()?).key_by(|n| n % 10).sum(|n| n).discard(),
        ["panic"] => env.sequence(1, 1000).map(rule).name("Rules").discard(),
        ["error"] => env.sequence(1, 1000).try_map(try_rule).name("Rules").discard(),
        ["stuck"] => env.sequence(1, 2).map(stuck).print(),
        ["endless"] => numbers(&env).print(),
        ["endless", folder] => {
            numbers(&env).print();
            numbers(&env).uid("more-numbers").write_text(*folder)
        }
        // Each number with how many of its last digit have come: whoever loses or repeats one, or its state, is found out.
        ["counted", folder] => counted::<u64>(&env, folder),
        // The same with a count of another type.
        ["counted-by-u8", folder] => counted::<u8>(&env, folder),
        ["counted-by-u128", folder] => counted::<u128>(&env, folder),
        // Five vertices, each task of which sends to one of the next.
        ["wide"] => {
            let step = |n: u64| n + 1;
            let chains = numbers(&env).map(step).disable_chaining().map(step).disable_chaining();
            chains.map(step).disable_chaining().discard()
        }
        other => return Err(flott::Error::configuration(format!("there is no way to end called {other:?}"))),
    };
    env.execute("test job")?;
    println!("after the job");
    Ok(())
}

fn counted<C>(env: &StreamEnv, folder: &str) -> StreamSink
where
    C: Record + Copy + From<u8> + Add<Output = C> + Display,
{
    numbers(env)
        .map(|n| (n, C::from(1)))
        .key_by(|(n, _)| n % 10)
        .reduce(|last, next| *last = (next.0, last.1 + next.1))
        .uid("counts")
        .map(|(n, count)| format!("{n} {count}"))
        .write_text(folder)
}

/// Numbers by the clock, without end.
fn numbers(env: &StreamEnv) -> DataStream<u64> {
    env.add_source(Generator::new(|n| n).rate_per_second(1000.0), "Numbers").uid("numbers")
}

fn rule(n: u64) -> u64 {
    assert!(n != 500, "no rule for {n}");
    n
}

fn try_rule(n: u64) -> flott::Result<u64> {
    if n == 500 { Err(flott::Error::user(format!("no rule for {n}")).at("rules.txt")) } else { Ok(n) }
}

fn stuck(n: u64) -> u64 {
    println!("stuck");
    std::thread::sleep(Duration::from_secs(3600));
    n
}
