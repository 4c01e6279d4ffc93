//! What would become of a snapshot, for people: the output of `flott run --plan`.

use std::collections::BTreeMap;

use flott::state::{Fate, OperatorPlan, RestorePlan};
use flott::{Error, PlannedRestore, Result};

use super::table::{Table, bytes};

/// Prints what a program has noted, a line of JSON for each of its jobs. True: one of them would be refused.
pub fn show(noted: &str, as_json: bool) -> Result<bool> {
    let mut refused = false;
    for line in noted.lines() {
        let planned: PlannedRestore = serde_json::from_str(line).map_err(|error| {
            Error::user(format!(
                "the plan of the program is not understood, it is built with another Flott: {error}"
            ))
        })?;
        refused |= !planned.refused.is_empty();
        match as_json {
            true => println!("{line}"),
            false => print!("{}", described(&planned)),
        }
    }
    Ok(refused)
}

fn described(planned: &PlannedRestore) -> String {
    let PlannedRestore { job, path, plan, refused } = planned;
    let RestorePlan { checkpoint, job_name, operators, .. } = plan;
    let mut text = format!("job '{job}' from snapshot {checkpoint} of job '{job_name}'\n  {path}\n");
    for operator in operators {
        text.push('\n');
        text.push_str(&of_operator(operator));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for state in operators.iter().flat_map(|operator| &operator.states) {
        *counts.entry(state.fate.word()).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    if !counts.is_empty() {
        text.push_str(&format!("\nstates: {}\n", counts.join(", ")));
    }
    match refused.is_empty() {
        true => text.push_str("the job can start from it\n"),
        false => {
            text.push_str("the job would be refused:\n");
            text.extend(refused.iter().map(|reason| format!("  {reason}\n")));
        }
    }
    text
}

fn of_operator(operator: &OperatorPlan) -> String {
    let OperatorPlan { uid, name, keyed_bytes, states } = operator;
    let keyed = match keyed_bytes {
        0 => String::new(),
        size => format!(", {} of keyed state", bytes(*size)),
    };
    let mut text = format!("operator '{name}' (uid {uid}){keyed}\n");
    let mut table = Table::new(&["  state", "becomes", "kind", "type", "size"], &[4]);
    for state in states {
        let one = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
        let types = match (&state.stored_type, &state.type_now) {
            (Some(stored), Some(now)) if stored != now => vec![stored.clone(), format!("now {now}")],
            (None, None) => vec![String::new()],
            (Some(_), _) => vec![one(&state.stored_type)],
            (None, Some(_)) => vec![one(&state.type_now)],
        };
        let size = state.bytes.map(bytes).unwrap_or_default();
        table.row([
            format!("  {}", state.name),
            state.fate.word().into(),
            state.kind.clone(),
            types[0].clone(),
            size,
        ]);
        let more = types.into_iter().skip(1);
        more.for_each(|line| table.row([String::new(), String::new(), String::new(), line, String::new()]));
        // Reasons stand in full below the table of all operators.
        if state.fate != Fate::Refused {
            let details = state.details.iter().cloned();
            details.for_each(|line| {
                table.row([String::new(), String::new(), String::new(), line, String::new()])
            });
        }
    }
    text.push_str(&table.to_string());
    text
}
