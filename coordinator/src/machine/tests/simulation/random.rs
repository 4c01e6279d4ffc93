//! Chance from a seed, and what is chosen by it.

use flott_schema::graph::{ExecutionMode, JobGraph};
use flott_schema::job::RestartStrategy;

use crate::machine::tests::graph;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(super) fn pick<T: Copy>(&mut self, from: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = from.into_iter().collect();
        if all.is_empty() { None } else { Some(all[self.below(all.len())]) }
    }

    pub(super) fn strategy(&mut self, endless: bool) -> RestartStrategy {
        let delay_ms = self.below(100) as u64;
        let attempts = if endless { u32::MAX } else { self.below(4) as u32 };
        match self.below(4) {
            0 => RestartStrategy::None,
            1 => RestartStrategy::FixedDelay { attempts, delay_ms },
            2 => RestartStrategy::FailureRate {
                failures_max: 1 + self.below(3) as u32,
                interval_ms: if endless { 200 } else { u64::MAX },
                delay_ms,
            },
            _ => RestartStrategy::ExponentialDelay {
                initial_ms: delay_ms,
                max_ms: 300,
                multiplier_milli: 1_500,
                jitter_milli: 100,
                reset_ms: 1_000_000,
                attempts,
            },
        }
    }

    pub(super) fn graph(&mut self) -> JobGraph {
        let names = ["a", "b", "c", "d", "e"];
        let count = 1 + self.below(names.len());
        let vertices: Vec<(String, u32)> = names[..count]
            .iter()
            .map(|name| {
                let group = if self.percent(20) { "@other" } else { "" };
                (format!("{name}{group}"), 1 + self.below(4) as u32)
            })
            .collect();
        let vertices: Vec<(&str, u32)> =
            vertices.iter().map(|(name, parallelism)| (name.as_str(), *parallelism)).collect();
        let mut edges = Vec::new();
        for target in 1..count {
            for source in 0..target {
                if source + 1 == target || self.percent(20) {
                    let arrow = if self.percent(60) { ">>" } else { ">" };
                    edges.push(format!("{} {arrow} {}", names[source], names[target]));
                }
            }
        }
        let edges: Vec<&str> = edges.iter().map(String::as_str).collect();
        let mode = if self.percent(50) { ExecutionMode::Batch } else { ExecutionMode::Streaming };
        graph::build("random", mode, &vertices, &edges)
    }
}
