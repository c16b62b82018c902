//! Which texts are surely not among the keys of a map: a look-up that finds nothing, as most do, then touches one word that
//! is likely to be at hand instead of a branch of the map that is not.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// Up to here the bits lie in the filter itself.
const FEW: usize = 16;
const FEW_WORDS: usize = 2;
/// Of a filter of many; more would find more absent keys and stay in the cache less.
const BITS_PER_KEY: usize = 16;

/// A Bloom filter with one bit a key (Bloom 1970). Keys that go stay in it until it is built anew.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    few: [u64; FEW_WORDS],
    /// Once there were more than few: a power of two of words.
    many: Vec<u64>,
    /// Keys since it was built, those among them that are gone too.
    added: usize,
}

impl Filter {
    /// Of these keys, with room for as many again.
    pub fn of(keys: usize, hashes: impl Iterator<Item = u64>) -> Self {
        let words = (2 * keys * BITS_PER_KEY).div_ceil(u64::BITS as usize).next_power_of_two();
        let many = if keys > FEW { vec![0; words] } else { Vec::new() };
        let mut filter = Self { few: Default::default(), many, added: 0 };
        hashes.for_each(|hash| filter.add(hash));
        filter
    }

    /// Whether so many were added that it is better built anew.
    pub fn is_full(&self) -> bool {
        self.added > FEW.max(self.many.len() * u64::BITS as usize / BITS_PER_KEY)
    }

    pub fn add(&mut self, hash: u64) {
        self.added += 1;
        let (word, bit) = self.place(hash);
        match self.many.is_empty() {
            true => self.few[word] |= bit,
            false => self.many[word] |= bit,
        }
    }

    /// False only for what was never added.
    pub fn may_have(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        let words = if self.many.is_empty() { &self.few[..] } else { &self.many };
        words[word] & bit != 0
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        let words = if self.many.is_empty() { FEW_WORDS } else { self.many.len() };
        // The low bits choose the branch of the map: here the others do.
        ((hash >> 38) as usize & (words - 1), 1 << (hash >> 32 & 63))
    }
}

pub type Build = BuildHasherDefault<Fold>;

pub fn hash(text: &str) -> u64 {
    Build::default().hash_one(text)
}

/// Of a text in parts: not the same as of the whole.
pub fn hash_parts<'t>(parts: impl Iterator<Item = &'t str>) -> u64 {
    let mut all = Fold::default();
    parts.for_each(|part| part.hash(&mut all));
    all.finish()
}

/// Eight bytes at a time by a multiplication of 128 bits whose halves are folded (as wyhash does). Not for keys that a
/// stranger chooses: these are the operators'.
#[derive(Debug, Clone, Default)]
pub struct Fold(u64);

impl Fold {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length tells texts apart that end in zeros.
        self.fold(u64::from_le_bytes(last) ^ (bytes.len() as u64).rotate_left(32));
    }

    fn write_u8(&mut self, byte: u8) {
        // What ends a text: the length has said where.
        self.0 ^= u64::from(byte);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.0 ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
        (product >> 64) as u64 ^ product as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_forgets_nothing_and_finds_most_absences() {
        for keys in [0, 1, FEW, FEW + 1, 1_000] {
            let text = |n: usize| hash(&format!("/svc{n}/api"));
            let mut filter = Filter::default();
            for n in 0..keys {
                filter.add(text(n));
                if filter.is_full() {
                    filter = Filter::of(n + 1, (0..=n).map(text));
                }
            }
            assert!((0..keys).all(|n| filter.may_have(text(n))), "{keys}");
            let wrong = (keys..keys + 1_000).filter(|n| filter.may_have(text(*n))).count();
            assert!(wrong < 250, "{keys} keys: {wrong} of 1000 others may be there");
        }
    }

    #[test]
    fn texts_that_differ_in_little_hash_apart() {
        let texts = ["", "\0", "\0\0", "/", "/a", "/a/", "/b", "/svc1/api/v1", "/svc2/api/v1", "/svc1/api/v1/"];
        for (i, a) in texts.iter().enumerate() {
            for b in &texts[i + 1..] {
                assert_ne!(hash(a), hash(b), "{a:?} {b:?}");
            }
        }
    }
}
