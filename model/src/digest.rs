//! 32-byte hashes, shown as hex, and the order-free sum of them that stands for a set.

use std::fmt;

/// A BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// None unless there are exactly 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// None unless the text is 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| Self::from_bytes(&bytes))
    }

    /// The set's hash with one more member: sum modulo 2^256 (AdHash, Bellare and Micciancio 1997).
    /// It tells damage and divergence; it does not withstand members chosen to collide.
    pub fn plus(self, other: Self) -> Self {
        let mut carry = 0u16;
        let mut sum = [0u8; 32];
        for ((sum, a), b) in sum.iter_mut().zip(self.0).zip(other.0) {
            let total = u16::from(a) + u16::from(b) + carry;
            *sum = total as u8;
            carry = total >> 8;
        }
        Self(sum)
    }

    /// The set's hash with one member less.
    pub fn minus(self, other: Self) -> Self {
        let mut borrow = 0i16;
        let mut rest = [0u8; 32];
        for ((rest, a), b) in rest.iter_mut().zip(self.0).zip(other.0) {
            let total = i16::from(a) - i16::from(b) - borrow;
            *rest = total.rem_euclid(256) as u8;
            borrow = i16::from(total < 0);
        }
        Self(rest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_forgets_order_and_undoes_itself() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        assert_eq!(a.plus(b).plus(c), c.plus(a).plus(b));
        assert_eq!(a.plus(b).minus(b), a);
        assert_eq!(Digest::default().minus(a).plus(a), Digest::default());
        assert_eq!(Digest::from_hex(&a.to_string()), Some(a));
    }
}
