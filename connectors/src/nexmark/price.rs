//! Prices: `round(10^(6 u) * 100)` cents for an even `u` in `0..1`, so as many between 1 and 10 as between 10 and 100.

use std::f64::consts::LN_10;

/// Powers kept in the table: the high bits of the draw pick one, a polynomial makes up the rest.
const STEPS: usize = 256;
/// Natural logarithm of the ratio of neighbouring table entries.
const STEP_LN: f64 = 6.0 * LN_10 / STEPS as f64;
/// Bits of the draw below those that pick the table entry.
const FRACTION_BITS: u32 = 44;

/// `100 * 10^(6 i / STEPS)`. Made of multiplications and additions alone, as is [`price`], so that every machine makes
/// the same prices; the pow of a system library need not.
static POWERS: [f64; STEPS] = powers();

const fn powers() -> [f64; STEPS] {
    let ratio = step_ratio();
    let mut table = [0.0; STEPS];
    let mut power = 100.0;
    let mut index = 0;
    while index < STEPS {
        table[index] = power;
        power *= ratio;
        index += 1;
    }
    table
}

/// `e^STEP_LN` to the last bits, by its Taylor series.
const fn step_ratio() -> f64 {
    let mut sum = 1.0;
    let mut term = 1.0;
    let mut degree = 1;
    while degree < 16 {
        term *= STEP_LN / degree as f64;
        sum += term;
        degree += 1;
    }
    sum
}

/// `e^x` for `0 <= x <= STEP_LN`: the Taylor polynomial of degree 5, off by less than 4e-11, which is a 200th of a cent of
/// the highest price. Its terms are summed in pairs (Estrin's scheme), as the processor can do at the same time.
#[inline]
fn exp_within_step(x: f64) -> f64 {
    let square = x * x;
    let high = (1.0 / 24.0) + x * (1.0 / 120.0);
    let middle = (1.0 / 2.0) + x * (1.0 / 6.0);
    (1.0 + x) + square * (middle + square * high)
}

/// The price for 64 random bits, in cents, between 100 and 100,000,000.
#[inline]
pub(super) fn price(word: u64) -> i64 {
    let index = (word >> (u64::BITS - STEPS.ilog2())) as usize;
    let fraction = (word >> (u64::BITS - STEPS.ilog2() - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1);
    let x = fraction as f64 * (STEP_LN / (1u64 << FRACTION_BITS) as f64);
    (POWERS[index] * exp_within_step(x) + 0.5) as i64
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn prices_follow_the_power_formula() {
        let mut random = Random::new(3, 0);
        for _ in 0..20_000 {
            let word = random.word();
            let uniform = (word >> 12) as f64 / (1u64 << 52) as f64;
            let exact = (10f64.powf(uniform * 6.0) * 100.0).round() as i64;
            assert!(price(word).abs_diff(exact) <= 1, "{word:x}: {} is not {exact}", price(word));
        }
    }

    #[test]
    fn the_range_is_one_to_a_million() {
        assert_eq!(price(0), 100);
        assert_eq!(price(u64::MAX), 100_000_000);
        assert_eq!(price(1 << 63), 100_000, "the median is 10^3");
    }
}
