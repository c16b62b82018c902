//! Small files that must be whole or absent: written to a temporary name, synced, renamed, the directory synced.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Below the data directory.
pub const TLS_DIR: &str = "tls";
pub const CLUSTER_KEY: &str = "cluster.key";

pub fn write_atomic(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_mode(file, bytes, 0o644)
}

/// Readable by the owner alone.
pub fn write_private(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_mode(file, bytes, 0o600)
}

/// Refuses a secret that others may read.
pub fn read_private(file: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let mode = fs::metadata(file)?.permissions().mode() & 0o777;
    anyhow::ensure!(mode & 0o077 == 0, "{} is readable by others (mode {mode:o}); allowed: 0600", file.display());
    Ok(bytes)
}

fn write_mode(file: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let directory = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let mut temporary = file.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        // A left-over of a crash may have another mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&temporary, file)?;
        File::open(directory)?.sync_all()
    };
    write().with_context(|| format!("writing {}", file.display()))
}
