//! Founds a cluster: prepares a data directory so that `run` starts its single voter.

use std::{path::Path, time::Duration};

use crate::settings::Settings;

/// Fills an empty (or half-prepared) directory: CA, identity, certificates, store, settings. Returns the cluster's id.
pub fn init(_dir: &Path, _settings: &Settings, _max_rtt: Duration) -> anyhow::Result<[u8; 16]> {
    todo!("H6")
}
