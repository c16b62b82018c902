//! A file system of its own for one node's data: it can be filled, and it can be made one that nothing is written to.
//! In memory, so that a node's fsyncs cost nothing; root alone can mount it.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

const BLOCK_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that has not ended yet keeps it until it has.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
    }
}

impl Disk {
    /// Why there can be none on this machine.
    pub fn missing() -> Option<String> {
        let at = tempfile::tempdir().ok()?;
        Self::mount(at.path(), 1).err().map(|error| format!("{error:#}"))
    }

    pub fn mount(at: &Path, mib: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(at)?;
        mount(&["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "quorumgate-disk"], at)?;
        Ok(Self { at: at.to_owned() })
    }

    /// To the last block.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = File::create(self.ballast())?;
        loop {
            match ballast.write_all(&[0; BLOCK_BYTES]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("filling the disk"),
            }
        }
    }

    /// What `fill` took is free again.
    pub fn empty(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Refused while a process has a file open for writing.
    pub fn set_read_only(&self, read_only: bool) -> anyhow::Result<()> {
        mount(&["-o", if read_only { "remount,ro" } else { "remount,rw" }], &self.at)
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

fn mount(words: &[&str], at: &Path) -> anyhow::Result<()> {
    let output = Command::new("mount").args(words).arg(at).output().context("mount")?;
    ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
