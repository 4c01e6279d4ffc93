//! What a process does at its points.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::VARIABLE;
use crate::plan::{Action, Plan, Rule, When};

/// Passages by life of the plan and point.
static PASSAGES: Mutex<Option<HashMap<(u64, &'static str), u64>>> = Mutex::new(None);

/// Passes a point.
pub(crate) fn at(point: &'static str) -> io::Result<()> {
    static BASE: OnceLock<Option<Plan>> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let mut plan = Plan::default();
        plan.take(&text).unwrap_or_else(|error| refuse(&error));
        Some(plan)
    });
    match base {
        Some(base) => pass(base.clone(), point),
        None => Ok(()),
    }
}

fn pass(mut plan: Plan, point: &'static str) -> io::Result<()> {
    let more = plan.folder.as_ref().and_then(|folder| fs::read_to_string(folder.join("plan")).ok());
    if let Some(more) = more {
        plan.take(&more).unwrap_or_else(|error| refuse(&error));
    }
    let passage = {
        let mut passages = PASSAGES.lock().unwrap_or_else(PoisonError::into_inner);
        let passage = passages.get_or_insert_default().entry((plan.life, point)).or_default();
        *passage += 1;
        *passage
    };
    let role = role();
    let Some(rule) = plan.decide(role, point, passage) else { return Ok(()) };
    if !mark(&plan, rule, role) {
        return Ok(());
    }
    match rule.action {
        Action::Kill => {
            // SAFETY: touches no memory; a process may send itself any signal. This one is not survived.
            unsafe {
                libc::kill(libc::getpid(), libc::SIGKILL);
            }
            std::process::abort()
        }
        Action::Fail(error) => Err(io::Error::from_raw_os_error(error)),
        Action::Delay(delay) => {
            std::thread::sleep(delay);
            Ok(())
        }
    }
}

/// Leaves a mark of what is about to happen. False: it has happened already, in this process or in another one.
fn mark(plan: &Plan, rule: &Rule, role: &str) -> bool {
    let Some(folder) = &plan.folder else { return true };
    let Plan { life, .. } = plan;
    let point = &rule.point;
    if let When::Once(passage) = rule.when {
        let once = folder.join(format!("once-{life}-{point}-{passage}"));
        if OpenOptions::new().write(true).create_new(true).open(once).is_err() {
            return false;
        }
    }
    let line = format!("{life} {role} {} {point} {:?}\n", std::process::id(), rule.action);
    append(&folder.join("struck"), &line)
        .unwrap_or_else(|error| refuse(&format!("{}: {error}", folder.display())));
    true
}

/// In one piece, so that lines of several processes stay whole.
fn append(path: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
}

/// What this process is, by what it was started with.
fn role() -> &'static str {
    static ROLE: OnceLock<&str> = OnceLock::new();
    ROLE.get_or_init(|| match std::env::args().nth(1).as_deref() {
        _ if std::env::var_os("FLOTT_EXECUTOR").is_some() => "executor",
        Some("coordinator") => "coordinator",
        Some("worker") => "worker",
        _ => "program",
    })
}

/// A plan that cannot be followed is no plan: a test that believes in it would prove nothing.
fn refuse(error: &str) -> ! {
    eprintln!("flott: {VARIABLE}: {error}");
    std::process::exit(2)
}
