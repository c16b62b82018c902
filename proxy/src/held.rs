//! Bytes of bodies that a worker holds for those who have not taken them yet, counted for as long as they are held: with
//! too many of them, no further request is let in.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::metrics::WorkerMetrics;

/// A part of a body. Stays on its worker's thread, like the counter.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Bytes,
    counted: u64,
    metrics: Arc<WorkerMetrics>,
}

impl Held {
    pub(crate) fn new(bytes: Bytes, metrics: &Arc<WorkerMetrics>) -> Self {
        let counted = bytes.len() as u64;
        metrics.buffered_bytes.add(counted);
        Self { bytes, counted, metrics: metrics.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.buffered_bytes.sub(self.counted);
    }
}

impl Buf for Held {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
