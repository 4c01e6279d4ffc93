//! What Flott is to reach, and whether it did.

use serde::Serialize;

use crate::engine::Role;
use crate::results::Row;
use crate::workload::Case;

struct Target {
    case: Case,
    goal: Goal,
}

enum Goal {
    /// Throughput of at least this share of the best among those.
    AtLeast {
        share: f64,
        of: Among,
    },
    /// Cost of a record of at most so many times its own cost in another case.
    CostAtMost {
        times: f64,
        other: Case,
    },
    LatencyBelow {
        p99_us: f64,
    },
    GrowthBelow {
        bytes: u64,
    },
}

enum Among {
    Role(Role),
    Named(&'static str),
}

const TARGETS: &[Target] = &[
    Target { case: Case::MapFilterMap, goal: Goal::AtLeast { share: 0.8, of: Among::Role(Role::Bound) } },
    Target { case: Case::RollingSmall, goal: Goal::AtLeast { share: 1.0, of: Among::Role(Role::Peer) } },
    Target { case: Case::RollingLarge, goal: Goal::AtLeast { share: 1.0, of: Among::Role(Role::Peer) } },
    Target { case: Case::TotalsSmall, goal: Goal::AtLeast { share: 1.0, of: Among::Named("renoir") } },
    Target { case: Case::TotalsLarge, goal: Goal::AtLeast { share: 1.0, of: Among::Named("renoir") } },
    Target { case: Case::WordCount, goal: Goal::AtLeast { share: 1.0, of: Among::Named("renoir") } },
    Target { case: Case::WindowSliding, goal: Goal::CostAtMost { times: 1.5, other: Case::WindowTumbling } },
    Target { case: Case::Latency, goal: Goal::LatencyBelow { p99_us: 1_000.0 } },
    Target { case: Case::FullLoad, goal: Goal::AtLeast { share: 0.9, of: Among::Role(Role::Variant) } },
    // The growth counted begins when the queues are full: what is left is the allocator's and the clock's.
    Target { case: Case::StalledSink, goal: Goal::GrowthBelow { bytes: 4 << 20 } },
];

/// What the share of a goal is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    EventsPerCpuSecond,
    EventsPerWallSecond,
    CpuNanosecondsPerEvent,
    P99Microseconds,
    GrowthBytes,
}

impl Measure {
    fn of(self, row: &Row) -> Option<f64> {
        match self {
            Self::EventsPerCpuSecond => Some(row.per_cpu_second()),
            Self::EventsPerWallSecond => Some(row.per_wall_second()),
            Self::CpuNanosecondsPerEvent => Some(1e9 / row.per_cpu_second()),
            Self::P99Microseconds => row.latency().map(|latency| latency.p99_us),
            Self::GrowthBytes => row.growth_bytes().map(|bytes| bytes as f64),
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Self::EventsPerCpuSecond | Self::EventsPerWallSecond)
    }
}

/// One target at one number of threads, by one measure.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub case: &'static str,
    pub threads: usize,
    pub measure: Measure,
    /// Whose figure, or what rule, the bound comes from.
    pub against: String,
    pub bound: f64,
    /// What the subject has; `None` if it was not measured.
    pub got: Option<f64>,
    pub met: Option<bool>,
}

impl Verdict {
    fn new(
        case: Case,
        threads: usize,
        measure: Measure,
        against: String,
        bound: f64,
        got: Option<f64>,
    ) -> Self {
        let met = got.map(|got| if measure.more_is_better() { got >= bound } else { got <= bound });
        Self { case: case.name(), threads, measure, against, bound, got, met }
    }
}

/// Every target whose bound is known from the rows (or fixed), where the case was measured at all.
pub fn check(rows: &[Row]) -> Vec<Verdict> {
    let mut threads: Vec<_> = rows.iter().map(|row| row.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let mut verdicts = Vec::new();
    for target in TARGETS {
        for threads in threads.iter().copied() {
            let rows_of = |case| rows.iter().filter(move |row| row.case == case && row.threads == threads);
            check_one(target, threads, &rows_of, &mut verdicts);
        }
    }
    verdicts
}

fn check_one<'a, I: Iterator<Item = &'a Row>>(
    target: &Target,
    threads: usize,
    rows_of: &impl Fn(Case) -> I,
    verdicts: &mut Vec<Verdict>,
) {
    let case = target.case;
    if rows_of(case).next().is_none() {
        return;
    }
    let subject = |case| rows_of(case).find(|row| row.engine.role == Role::Subject);
    let mut push = |measure: Measure, against: String, bound: f64| {
        let got = subject(case).and_then(|row| measure.of(row));
        verdicts.push(Verdict::new(case, threads, measure, against, bound, got));
    };
    match &target.goal {
        Goal::AtLeast { share, of } => {
            for measure in [Measure::EventsPerCpuSecond, Measure::EventsPerWallSecond] {
                let best = rows_of(case)
                    .filter(|row| match of {
                        Among::Role(role) => row.engine.role == *role,
                        Among::Named(name) => row.engine.name == *name,
                    })
                    .filter_map(|row| Some((measure.of(row)?, row.engine.name)))
                    .max_by(|left, right| left.0.total_cmp(&right.0));
                if let Some((figure, name)) = best {
                    push(measure, format!("{share} x {name}"), share * figure);
                }
            }
        }
        Goal::CostAtMost { times, other } => {
            let measure = Measure::CpuNanosecondsPerEvent;
            if let Some(cost) = subject(*other).and_then(|row| measure.of(row)) {
                push(measure, format!("{times} x its {}", other.name()), times * cost);
            }
        }
        Goal::LatencyBelow { p99_us } => push(Measure::P99Microseconds, "fixed".to_owned(), *p99_us),
        Goal::GrowthBelow { bytes } => push(Measure::GrowthBytes, "fixed".to_owned(), *bytes as f64),
    }
}
