//! The values that are tried, in order. A type that refuses one gets the next; common formats of text are among them.

const INTEGERS: [u8; 8] = [1, 0, 2, 10, 100, 7, 64, 127];

const CHARS: [char; 4] = ['a', '0', 'Z', ' '];

const TEXTS: [&str; 16] = [
    "a",
    "1",
    "",
    "1970-01-01T00:00:00Z",
    "1970-01-01",
    "00:00:00",
    "1970-01-01T00:00:00",
    "127.0.0.1",
    "::1",
    "127.0.0.1:80",
    "00000000-0000-0000-0000-000000000000",
    "http://localhost/",
    "a@example.com",
    "USD",
    "true",
    "1.5",
];

const ZEROS: [u8; 64] = [0; 64];
const BYTES_LENGTHS: [usize; 8] = [16, 0, 1, 4, 8, 12, 32, 64];

/// A small number that fits every integer type.
pub(super) fn integer(variation: u32, leaf: u32) -> u8 {
    INTEGERS[pick(variation, leaf, INTEGERS.len())]
}

pub(super) fn character(variation: u32, leaf: u32) -> char {
    CHARS[pick(variation, leaf, CHARS.len())]
}

pub(super) fn text(variation: u32, leaf: u32) -> &'static str {
    TEXTS[pick(variation, leaf, TEXTS.len())]
}

pub(super) fn bytes(variation: u32, leaf: u32) -> &'static [u8] {
    &ZEROS[..BYTES_LENGTHS[pick(variation, leaf, BYTES_LENGTHS.len())]]
}

/// First the samples in order, the same for every scalar of a value; then mixed by the scalar's number in the run, for
/// types that want their parts to differ (a start before an end).
fn pick(variation: u32, leaf: u32, count: usize) -> usize {
    if (variation as usize) < count {
        return variation as usize;
    }
    // Finaliser of SplitMix64.
    let mut mixed = (u64::from(variation) << 32) | u64::from(leaf);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % count as u64) as usize
}
