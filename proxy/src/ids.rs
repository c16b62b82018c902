//! Request and trace ids: unique, not secret. One generator per worker, seeded from the system, so that an id costs no
//! system call.

use std::{cell::Cell, time::SystemTime};

use uuid::Uuid;

pub(crate) struct Ids {
    state: Cell<u64>,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self { state: Cell::new(Uuid::new_v4().as_u128() as u64) }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    pub(crate) fn random(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// UUIDv7 (RFC 9562 5.7).
    pub(crate) fn request_id(&self) -> Uuid {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut tail = [0; 10];
        tail[..8].copy_from_slice(&self.random().to_be_bytes());
        tail[8..].copy_from_slice(&self.random().to_be_bytes()[..2]);
        uuid::Builder::from_unix_timestamp_millis(since.as_millis() as u64, &tail).into_uuid()
    }
}
