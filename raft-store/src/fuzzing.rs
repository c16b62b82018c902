//! Doors for the crate `fuzz` into the frames of the log; nothing here decides anything.

use crate::wal::record::{Kind, Record};

/// The length of the record that these bytes begin with, and the bytes that it would be written as.
pub fn record(bytes: &[u8], salt: u32) -> Option<(usize, Vec<u8>)> {
    let record = Record::decode(bytes, salt)?;
    let mut again = Vec::new();
    record.encode(salt, &mut again);
    Some((record.framed_bytes(), again))
}

/// A record of that kind, as the log writes it.
pub fn framed(kind: u8, body: &[u8], salt: u32) -> Vec<u8> {
    let kind = Kind::from_byte(kind).expect("the target asks for known kinds");
    let mut framed = Vec::new();
    Record::new(kind, 0, body).encode(salt, &mut framed);
    framed
}
