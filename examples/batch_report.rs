//! A report over two CSV files in batch execution: turnover by region, the best customers, and orders nobody placed.
//!
//! ```text
//! cargo run --release --example batch_report
//! ```

use flott::prelude::{Order as SortOrder, *};
use serde::{Deserialize, Serialize};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Customer {
    id: u32,
    name: String,
    region: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    id: u32,
    customer: u32,
    product: String,
    quantity: u64,
    unit_price_cents: u64,
}

impl Order {
    fn cents(&self) -> u64 {
        self.quantity * self.unit_price_cents
    }
}

/// A line of the report; the parts are printed in order of their number.
type Line = (u8, u64, String);

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn main() -> flott::Result<()> {
    let env = flott::env()?;
    env.set_runtime_mode(RuntimeMode::Batch);
    let customers = env.read_csv::<Customer>(format!("{DATA}/customers.csv"));
    let orders = env.read_csv::<Order>(format!("{DATA}/orders.csv"));
    let (by_id, by_customer) =
        (customers.key_by(|customer| customer.id), orders.key_by(|order| order.customer));

    let turnover = by_customer
        .join(&by_id)
        .with(|order, customer| (customer.region.clone(), order.cents()))
        .key_by_ref(|(region, _)| region)
        .sum(|(_, cents)| cents)
        .map(|(region, cents)| -> Line { (1, cents, format!("turnover {region}: {}", money(cents))) });
    let best = by_customer
        .join(&by_id)
        .with(|order, customer| (customer.name.clone(), order.cents()))
        .key_by_ref(|(name, _)| name)
        .sum(|(_, cents)| cents)
        .global()
        .sort_partition(|(_, cents)| *cents, SortOrder::Descending)
        .parallelism(1)
        .first_n(3)
        .map(|(name, cents)| -> Line { (2, cents, format!("among the best: {name}, {}", money(cents))) });
    let unknown = by_customer
        .left_outer_join(&by_id)
        .with(|order, customer| (order.id, customer.is_none()))
        .filter(|(_, unknown)| *unknown)
        .count()
        .map(|orders| -> Line { (3, orders, format!("orders of unknown customers: {orders}")) });

    turnover
        .union(&[&best, &unknown])
        .global()
        .sort_partition(
            |(part, number, text)| (*part, std::cmp::Reverse(*number), text.clone()),
            SortOrder::Ascending,
        )
        .parallelism(1)
        .map(|(_, _, text)| text)
        .parallelism(1)
        .print()
        .parallelism(1);
    env.execute("batch report")?;
    Ok(())
}
