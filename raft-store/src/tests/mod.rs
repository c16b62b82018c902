//! What no single module can promise by itself: openraft's own suite, crashes, damage and power cuts.

mod suite;

use crate::{Identity, Options};

pub(crate) const IDENTITY: Identity = Identity { cluster: [7; 16], node: 3, incarnation: [9; 16] };

/// Segments so small that every test rolls over them.
pub(crate) fn small() -> Options {
    Options { segment_bytes: 4096, ..Options::default() }
}
