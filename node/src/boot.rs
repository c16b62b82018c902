//! Starts and stops the daemon.

use std::path::PathBuf;

use crate::settings::Settings;

/// What `run` was asked to do.
pub struct Run {
    pub dir: PathBuf,
    pub settings: Settings,
}

/// Runs until a signal, a removal from the cluster, or the end of a control task (which is an error).
pub fn run(_options: Run) -> anyhow::Result<()> {
    todo!("lead")
}
