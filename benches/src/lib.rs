//! The benchmarks of Flott live beside this file: `peers/` is `cargo bench --bench peers`, Flott and its peers on the same work.
//! The library itself is empty, because a package must have one.
