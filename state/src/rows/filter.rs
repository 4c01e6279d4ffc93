//! Which rows a sorted run may have: a Bloom filter whose bits for a row are in one word (Putze, Sanders, Singler: *Cache-,
//! Hash- and Space-Efficient Bloom Filters*, 2007), so that a lookup in several runs looks at one line of memory for most.

/// Bits a row has at least. With three of them set, about one in fifty lookups is in vain.
const BITS_A_ROW: usize = 12;

#[derive(Debug)]
pub(super) struct Filter {
    /// A power of two in number.
    words: Vec<u64>,
}

/// What a filter knows of a row: from its prefix, and what of its key is not in that.
pub(super) fn hash_of(prefix: u128, rest: &[u8]) -> u64 {
    // Multiplied and folded, as in wyhash (Wang Yi).
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ (product >> 64) as u64
    };
    let mut hash = fold(prefix as u64 ^ 0xa076_1d64_78bd_642f, (prefix >> 64) as u64 ^ 0xe703_7ed1_a0b4_28db);
    for part in rest.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        hash = fold(hash ^ u64::from_le_bytes(bytes), 0x8ebc_6af0_9c88_c6e3 ^ part.len() as u64);
    }
    hash
}

/// The bits of a row in its word.
fn bits_of(hash: u64) -> u64 {
    1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63)
}

impl Filter {
    pub(super) fn of(rows: usize, hashes: impl Iterator<Item = u64>) -> Self {
        let mut filter = Filter { words: vec![0; (rows * BITS_A_ROW / 64 + 1).next_power_of_two()] };
        for hash in hashes {
            let word = filter.word_of(hash);
            filter.words[word] |= bits_of(hash);
        }
        filter
    }

    fn word_of(&self, hash: u64) -> usize {
        (hash >> 18) as usize & (self.words.len() - 1)
    }

    pub(super) fn may_have(&self, hash: u64) -> bool {
        let bits = bits_of(hash);
        self.words[self.word_of(hash)] & bits == bits
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.words.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_and_few_others_are() {
        let hash = |number: u32| hash_of(u128::from(number % 7) << 112, &number.to_be_bytes());
        let filter = Filter::of(10_000, (0..10_000).map(hash));
        assert!((0..10_000).all(|number| filter.may_have(hash(number))));
        let others = (10_000..110_000).filter(|number| filter.may_have(hash(*number))).count();
        assert!(others < 5_000, "{others} of 100000");
        assert!(filter.memory_bytes() <= 10_000 * 4, "{} bytes", filter.memory_bytes());
        assert!(!Filter::of(0, std::iter::empty()).may_have(hash(1)));
    }
}
