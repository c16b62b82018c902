//! Bytes of bodies that a worker holds for those who have not taken them yet, counted for as long as they are held: with
//! too many of them, no further request is let in.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::metrics::WorkerMetrics;

/// Bytes that are put together before they are a part of a body.
#[derive(Debug)]
pub(crate) struct Holding {
    bytes: u64,
    metrics: Arc<WorkerMetrics>,
}

impl Holding {
    pub(crate) fn new(bytes: u64, metrics: &Arc<WorkerMetrics>) -> Self {
        metrics.buffered_bytes.add(bytes);
        Self { bytes, metrics: metrics.clone() }
    }

    pub(crate) fn grow(&mut self, bytes: u64) {
        self.metrics.buffered_bytes.add(bytes);
        self.bytes += bytes;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.metrics.buffered_bytes.sub(self.bytes);
    }
}

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
