//! Fraud alerts: a small charge that tries a stolen card, then a large one soon after. What "small", "large" and "soon"
//! mean is said by rules that are broadcast to all tasks while the job runs.
//!
//! Transactions come out of order. Each waits in keyed state for an event-time timer at its own time; when the timer
//! fires, everything before it has been seen, of the transactions and of the rules.
//!
//! ```text
//! cargo run --release --example fraud_alerts
//! ```

use flott::prelude::*;
use serde::{Deserialize, Serialize};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Transaction {
    account: String,
    at_ms: i64,
    amount_cents: i64,
}

/// In force for transactions at or after `from_ms`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rule {
    id: String,
    from_ms: i64,
    small_cents: i64,
    large_cents: i64,
    within_ms: i64,
}

#[derive(Clone)]
struct DetectFraud {
    rules: BroadcastState<String, Rule>,
    waiting: ListState<Transaction>,
    /// Transactions that a large one may follow.
    recent: ListState<Transaction>,
}

impl DetectFraud {
    fn new(rules: &BroadcastState<String, Rule>) -> Self {
        DetectFraud { rules: rules.clone(), waiting: ListState::default(), recent: ListState::default() }
    }
}

impl KeyedBroadcastProcessFunction<String, Transaction, Rule, String> for DetectFraud {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> flott::Result<()> {
        self.waiting = ctx.list_state("waiting")?;
        self.recent = ctx.list_state("recent")?;
        Ok(())
    }

    fn process(
        &mut self,
        transaction: Transaction,
        ctx: &mut KeyedReadOnlyContext<'_, String, String>,
    ) -> flott::Result<()> {
        ctx.register_event_timer(transaction.at_ms);
        self.waiting.add(ctx, transaction);
        Ok(())
    }

    fn process_broadcast(
        &mut self,
        rule: Rule,
        ctx: &mut KeyedBroadcastContext<'_, String, String>,
    ) -> flott::Result<()> {
        ctx.broadcast_state(&self.rules)?.put(rule.id.clone(), rule);
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: Timer,
        ctx: &mut KeyedReadOnlyContext<'_, String, String>,
    ) -> flott::Result<()> {
        let mut rules: Vec<Rule> =
            ctx.broadcast_state(&self.rules)?.iter().map(|(_, rule)| rule.clone()).collect();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        let longest_ms = rules.iter().map(|rule| rule.within_ms).max().unwrap_or(0);

        let (due, waiting): (Vec<_>, Vec<_>) = self
            .waiting
            .take(ctx)
            .into_iter()
            .partition(|transaction| transaction.at_ms <= timer.timestamp_ms);
        self.waiting.set(ctx, waiting);
        let mut recent = self.recent.take(ctx);
        recent.retain(|transaction| transaction.at_ms + longest_ms >= timer.timestamp_ms);
        for transaction in due {
            for rule in rules.iter().filter(|rule| rule.from_ms <= transaction.at_ms) {
                let tried = recent.iter().find(|before| {
                    before.amount_cents <= rule.small_cents
                        && before.at_ms >= rule.from_ms
                        && transaction.amount_cents >= rule.large_cents
                        && transaction.at_ms - before.at_ms <= rule.within_ms
                });
                if let Some(before) = tried {
                    ctx.collect(alert(rule, before, &transaction));
                }
            }
            recent.push(transaction);
        }
        self.recent.set(ctx, recent);
        Ok(())
    }
}

fn alert(rule: &Rule, small: &Transaction, large: &Transaction) -> String {
    let amount = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
    format!(
        "{}: {} at {} s, then {} at {} s ({})",
        large.account,
        amount(small.amount_cents),
        small.at_ms / 1000,
        amount(large.amount_cents),
        large.at_ms / 1000,
        rule.id,
    )
}

fn main() -> flott::Result<()> {
    let env = flott::env()?;
    let rules = BroadcastState::new("rules");
    let rule_stream = env
        .read_json::<Rule>(format!("{DATA}/fraud_rules.jsonl"))
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::monotonous().with_timestamp(|rule: &Rule| rule.from_ms),
        )
        .broadcast_state(&rules);
    let out_of_order = WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(10));
    env.read_json::<Transaction>(format!("{DATA}/transactions.jsonl"))
        .assign_timestamps_and_watermarks(
            out_of_order.with_timestamp(|transaction: &Transaction| transaction.at_ms),
        )
        .key_by_ref(|transaction| &transaction.account)
        .connect_broadcast(&rule_stream)
        .process(DetectFraud::new(&rules))
        .print();
    env.execute("fraud alerts")?;
    Ok(())
}
