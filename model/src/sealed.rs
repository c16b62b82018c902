//! The outside of sealed bytes: under which key they are. What is inside only nodes can tell.

/// The first byte of what the key that a cluster was founded with has sealed: nonce, then body and tag.
pub const UNNUMBERED: u8 = 1;
/// Of what any later key has sealed: its number (8 bytes, little-endian), then the same.
pub const NUMBERED: u8 = 2;
/// Nonce and tag of AES-256-GCM.
const AROUND_BYTES: usize = 12 + 16;

/// The number of the key that it is sealed under; 0 is the one that the cluster was founded with.
pub fn key_number(sealed: &[u8]) -> u64 {
    match sealed.split_first() {
        Some((&NUMBERED, rest)) if rest.len() >= 8 + AROUND_BYTES => {
            u64::from_le_bytes(rest[..8].try_into().expect("8 bytes"))
        }
        _ => 0,
    }
}
