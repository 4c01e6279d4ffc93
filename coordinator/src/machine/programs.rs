//! The programs that the cluster stores, as a list: the files themselves are kept outside of the machine.

use std::collections::BTreeMap;

use flott_schema::job::ProgramDigest;

use super::state::ClusterState;
use super::step::Step;

/// A stored program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProgram {
    /// Its file name, for people: that of its latest upload.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was stored (milliseconds since 1970).
    pub stored_ms: u64,
}

impl ClusterState {
    /// The stored programs.
    pub fn programs(&self) -> &BTreeMap<ProgramDigest, StoredProgram> {
        &self.programs
    }

    /// Whether the file of a program has to be kept: it is listed, or a job that is not over may have to start it again.
    pub fn needs_program(&self, digest: &ProgramDigest) -> bool {
        let names = |job: &super::JobRecord| {
            job.spec.program.as_ref().is_some_and(|program| program.digest == *digest)
        };
        self.programs.contains_key(digest) || self.open.iter().any(|job| names(&self.jobs[job]))
    }
}

impl ClusterState {
    /// The programs, longest unused first, without which the rest takes at most `total_max_bytes`: of those that no open
    /// job names, and that were neither stored nor run since `unused_since_ms`.
    pub fn programs_to_shed(&self, total_max_bytes: u64, unused_since_ms: u64) -> Vec<ProgramDigest> {
        let mut total = self.programs.values().map(|program| program.size).fold(0, u64::saturating_add);
        if total <= total_max_bytes {
            return Vec::new();
        }
        let mut used: BTreeMap<ProgramDigest, Option<u64>> =
            self.programs.iter().map(|(digest, program)| (*digest, Some(program.stored_ms))).collect();
        for job in self.jobs() {
            let named = job.spec().program.as_ref().and_then(|program| used.get_mut(&program.digest));
            if let Some(last) = named {
                // Nothing: in use.
                *last = match job.state().is_terminal() {
                    true => {
                        last.map(|last| job.entered_ms(job.state()).map_or(last, |ended| ended.max(last)))
                    }
                    false => None,
                };
            }
        }
        let last_used = |(digest, last): (ProgramDigest, Option<u64>)| last.map(|last| (last, digest));
        let mut unused: Vec<_> =
            used.into_iter().filter_map(last_used).filter(|(last, _)| *last < unused_since_ms).collect();
        unused.sort_unstable();
        let mut shed = Vec::new();
        for (_, digest) in unused {
            if total <= total_max_bytes {
                break;
            }
            total = total.saturating_sub(self.programs[&digest].size);
            shed.push(digest);
        }
        shed
    }
}

impl Step<'_> {
    pub(super) fn store_program(&mut self, digest: ProgramDigest, name: String, size: u64) {
        let stored_ms = self.state.programs.get(&digest).map(|program| program.stored_ms);
        let stored_ms = stored_ms.unwrap_or(self.state.now_ms);
        self.state.programs.insert(digest, StoredProgram { name, size, stored_ms });
    }

    pub(super) fn remove_program(&mut self, digest: ProgramDigest) {
        if self.state.programs.remove(&digest).is_none() {
            self.state.ignored.unknown_program += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use flott_schema::ids::JobId;
    use flott_schema::job::{JobSpec, ProgramRef};

    use crate::machine::tests::graph::streaming;
    use crate::machine::{Event, Limits, apply};

    use super::*;

    fn digest(number: u8) -> ProgramDigest {
        ProgramDigest([number; 32])
    }

    #[test]
    fn beyond_the_budget_the_programs_longest_unused_go_and_none_that_is_needed() {
        let mut state = ClusterState::new(Limits::default());
        for number in 1..=5 {
            let (digest, at_ms) = (digest(number), u64::from(number) * 100);
            apply(&mut state, Event::ProgramStored { digest, name: "job".into(), size: 10, at_ms });
        }
        // The first runs, the second has run.
        for (number, at_ms) in [(1, 600), (2, 700)] {
            let program = ProgramRef {
                digest: digest(number),
                name: "job".into(),
                arguments: Vec::new(),
                execution: 0,
                configuration: Vec::new(),
            };
            let graph = streaming("job", &[("source", 1)], &[]);
            let spec = JobSpec { program: Some(program), ..JobSpec::embedded(graph) };
            let job = JobId(number.into());
            apply(&mut state, Event::JobSubmitted { job, spec: spec.into(), at_ms });
        }
        apply(&mut state, Event::CancelRequested { job: JobId(2), at_ms: 800 });
        assert_eq!(state.programs_to_shed(50, 10_000), vec![]);
        assert_eq!(state.programs_to_shed(49, 10_000), vec![digest(3)]);
        assert_eq!(state.programs_to_shed(20, 10_000), vec![digest(3), digest(4), digest(5)]);
        assert_eq!(state.programs_to_shed(0, 10_000), [3, 4, 5, 2].map(digest).to_vec());
        // What was used lately stays, whatever the budget.
        assert_eq!(state.programs_to_shed(0, 400), vec![digest(3)]);
    }
}
