//! What is to happen where.
//!
//! A plan is a list of words, divided by commas or white space:
//!
//! ```text
//! seed=7                    what chances come from; default 0
//! life=3                    names the plan: faults that strike once do so once in each life
//! folder=/tmp/faults        marks are left there, and further words are read from the file `plan` in it, at each point
//! [ROLE/]POINT=ACTION@N     at the N-th passage of a process, in one process alone if there is a folder
//! [ROLE/]POINT=ACTION:P     with this probability at each passage
//! ```
//!
//! Roles: `coordinator`, `worker`, `executor`, `program`. Actions: `kill` (SIGKILL), `enospc` and `eio` (a write that fails so), `delay` and a number of
//! milliseconds.

use std::path::PathBuf;
use std::time::Duration;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Kill,
    /// A write fails with this error of the operating system.
    Fail(i32),
    Delay(Duration),
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// At this passage, from 1.
    Once(u64),
    Chance(f64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    role: Option<String>,
    pub(crate) point: String,
    pub(crate) action: Action,
    pub(crate) when: When,
}

/// What is to happen where.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) life: u64,
    pub(crate) folder: Option<PathBuf>,
    rules: Vec<Rule>,
}

/// The errors of Linux that a disk gives; the same on all its platforms.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl Plan {
    /// Takes words in addition to those taken before. An error names the word that makes no sense.
    pub(crate) fn take(&mut self, text: &str) -> Result<(), String> {
        for word in text.split([',', ' ', '\n']).filter(|word| !word.is_empty()) {
            let wrong = |why: &str| format!("'{word}' in the plan of faults: {why}");
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| wrong("NAME=VALUE is wanted, such as upload.begin=kill@1"))?;
            let number = || value.parse().map_err(|_| wrong("a number is wanted"));
            match name {
                "seed" => self.seed = number()?,
                "life" => self.life = number()?,
                "folder" => self.folder = Some(value.into()),
                _ => self.rules.push(rule(name, value).map_err(|why| wrong(&why))?),
            }
        }
        Ok(())
    }

    /// What happens at the given passage of a point, from 1, in a process of this role.
    pub(crate) fn decide(&self, role: &str, point: &str, passage: u64) -> Option<&Rule> {
        self.rules.iter().enumerate().find_map(|(index, rule)| {
            let is_meant = rule.point == point && rule.role.as_deref().is_none_or(|meant| meant == role);
            let strikes = match rule.when {
                When::Once(at) => at == passage,
                When::Chance(chance) => self.chance(index, role, point, passage) < chance,
            };
            (is_meant && strikes).then_some(rule)
        })
    }

    /// A number from 0 to 1 that depends on the arguments alone.
    fn chance(&self, index: usize, role: &str, point: &str, passage: u64) -> f64 {
        let mut mixed = mix(self.seed ^ mix(self.life) ^ mix(index as u64 + 1));
        for byte in role.bytes().chain([0]).chain(point.bytes()) {
            mixed = mix(mixed ^ u64::from(byte));
        }
        (mix(mixed ^ passage) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The mixing step of a generator (Vigna: *SplitMix64*).
fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn rule(name: &str, value: &str) -> Result<Rule, String> {
    let (role, point) = match name.split_once('/') {
        Some((role, point)) => (Some(role.to_string()), point),
        None => (None, name),
    };
    let (action, when) = match (value.split_once('@'), value.split_once(':')) {
        (Some((action, passage)), None) => {
            let passage = passage.parse().ok().filter(|passage| *passage > 0);
            (action, When::Once(passage.ok_or("the number of a passage is wanted behind '@', from 1")?))
        }
        (None, Some((action, chance))) => {
            let chance = chance.parse().ok().filter(|chance| (0.0..=1.0).contains(chance));
            (action, When::Chance(chance.ok_or("a probability from 0 to 1 is wanted behind ':'")?))
        }
        _ => return Err("ACTION@PASSAGE or ACTION:PROBABILITY is wanted".into()),
    };
    let action = match action {
        "kill" => Action::Kill,
        "enospc" => Action::Fail(ENOSPC),
        "eio" => Action::Fail(EIO),
        other => match other.strip_prefix("delay").and_then(|delay_ms| delay_ms.parse().ok()) {
            Some(delay_ms) => Action::Delay(Duration::from_millis(delay_ms)),
            None => return Err("actions are kill, enospc, eio and delayMILLISECONDS".into()),
        },
    };
    Ok(Rule { role, point: point.to_string(), action, when })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        let mut plan = Plan::default();
        plan.take(text).unwrap();
        plan
    }

    /// The actions at the first passages of point `a` in an executor.
    fn actions(plan: &Plan) -> Vec<Option<Action>> {
        (1..=4).map(|passage| plan.decide("executor", "a", passage).map(|rule| rule.action)).collect()
    }

    #[test]
    fn a_rule_strikes_at_its_passage_of_its_point_in_its_role() {
        let once = plan("seed=7,folder=/marks\nexecutor/a=kill@2,a=enospc@3 coordinator/a=kill@1 b=eio@4");
        assert_eq!((once.seed, once.folder.as_deref()), (7, Some("/marks".as_ref())));
        assert_eq!(actions(&once), [None, Some(Action::Kill), Some(Action::Fail(ENOSPC)), None]);
        let always = plan("a=delay20:1 b=eio:1");
        assert_eq!(actions(&always), [Some(Action::Delay(Duration::from_millis(20))); 4]);
        assert_eq!(actions(&plan("a=kill:0")), [None; 4]);
    }

    #[test]
    fn chances_come_from_the_seed_and_from_nothing_else() {
        let struck = |text: &str| -> Vec<u64> {
            let plan = plan(text);
            (1..=1000).filter(|passage| plan.decide("executor", "a", *passage).is_some()).collect()
        };
        let some = struck("seed=7,a=eio:0.2");
        assert!((150..250).contains(&some.len()), "{}", some.len());
        assert_eq!(some, struck("seed=7,a=eio:0.2"));
        assert_ne!(some, struck("seed=8,a=eio:0.2"));
        assert_ne!(some, struck("seed=7,life=1,a=eio:0.2"));
    }

    #[test]
    fn a_word_that_makes_no_sense_is_named() {
        for (word, says) in [
            ("a", "NAME=VALUE"),
            ("seed=x", "a number"),
            ("a=kill", "ACTION@PASSAGE"),
            ("a=kill@0", "from 1"),
            ("a=kill:2", "from 0 to 1"),
            ("a=explode@1", "actions are"),
            ("a=delay@1", "actions are"),
        ] {
            let error = Plan::default().take(word).unwrap_err();
            assert!(error.contains(says) && error.contains(&format!("'{word}'")), "{error}");
        }
    }
}
