//! What the nodes' logs say of a round: a WARN or an ERROR that is not on the list, or a line that is none of ours (a panic),
//! fails it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::Value;

/// In which rounds a line is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// A disk was full or could not be written to.
    Disk,
    /// Somebody was removed, or has left.
    Members,
}

/// Every warning and error that faults of ours may cause, and why it is no sign of more.
const EXPECTED: &[(&str, When)] = &[
    // Nodes die, stop and are cut off.
    ("a peer is out of reach", When::Always),
    // The tail of a log whose process was killed in the middle of a write.
    ("cut an unfinished write off the end of the log", When::Always),
    // No leader for longer than a session.
    ("this node has no session: limits go by their on_no_quorum", When::Always),
    // The limit is used up on purpose.
    ("a key has come near its limit", When::Always),
    // SIGTERM while exchanges or the quorum hang.
    ("exchanges were cut off after the grace", When::Always),
    // Up to a minute after a disk had no room, which may be some rounds ago; that it had none was told then.
    ("are written down again", When::Always),
    ("the disk is full: nothing is acknowledged until there is room", When::Disk),
    ("the log has no room: nothing is acknowledged until there is", When::Disk),
    ("the log cannot be written any more", When::Disk),
    ("the journal is degraded: audit entries and old revisions are not kept here", When::Disk),
    ("the journal cannot be read", When::Disk),
    ("the journal cannot be opened and is set aside", When::Disk),
    ("the journal starts empty", When::Disk),
    ("the journal's audit entries do not meet the state's chain: dropped", When::Disk),
    ("cannot be written down", When::Disk),
    ("a control task ended: leaving", When::Disk),
    ("consensus has stopped on this node; the proxy goes on", When::Members),
];

/// What a round was, as far as logs go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    pub disk: bool,
    pub members: bool,
}

/// Reads each log from where it was read to before.
#[derive(Default)]
pub struct Logs {
    read: BTreeMap<PathBuf, u64>,
    /// Expected lines, by their message.
    pub expected: BTreeMap<&'static str, u64>,
}

impl Logs {
    /// The lines that were not expected.
    pub fn check(&mut self, log: &Path, facts: Facts) -> anyhow::Result<Vec<String>> {
        let from = self.read.entry(log.to_owned()).or_default();
        let mut text = Vec::new();
        let mut file = File::open(log).with_context(|| log.display().to_string())?;
        file.seek(SeekFrom::Start(*from))?;
        file.read_to_end(&mut text)?;
        // The rest of a line that is being written comes the next time.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        *from += whole as u64;
        let text = String::from_utf8_lossy(&text[..whole]).into_owned();
        Ok(text.lines().filter(|line| !self.is_fine(line, facts)).map(str::to_owned).collect())
    }

    fn is_fine(&mut self, line: &str, facts: Facts) -> bool {
        // A start that came to nothing says why in words of the command line.
        let Ok(json) = serde_json::from_str::<Value>(line) else {
            return facts.disk && line.starts_with("error[") && line.contains("os error");
        };
        if !matches!(json["level"].as_str(), Some("WARN" | "ERROR")) {
            return json["level"].is_string();
        }
        let message = json["message"].as_str().unwrap_or_default();
        let fits = |when: When| match when {
            When::Always => true,
            When::Disk => facts.disk,
            When::Members => facts.members,
        };
        match EXPECTED.iter().find(|(words, when)| message.starts_with(words) && fits(*when)) {
            Some((words, _)) => {
                *self.expected.entry(words).or_default() += 1;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_that_is_not_on_the_list_is_told_once() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut logs = Logs::default();
        let line = |level: &str, message: &str| format!("{{\"level\":\"{level}\",\"message\":\"{message}\"}}\n");
        let full = "the disk is full: nothing is acknowledged until there is room";
        let mut check = |text: &str, facts, unexpected: usize| {
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(logs.check(file.path(), facts).unwrap().len(), unexpected, "{text}");
        };
        let disk = Facts { disk: true, ..Facts::default() };
        check(&line("INFO", "anything"), Facts::default(), 0);
        check(&line("WARN", "a peer is out of reach"), Facts::default(), 0);
        check(&line("WARN", "something else"), disk, 1);
        check(&line("ERROR", full), disk, 0);
        check(&line("ERROR", full), Facts::default(), 1);
        check("error[settings]: Read-only file system (os error 30)\n", disk, 0);
        check("error[settings]: Read-only file system (os error 30)\n", Facts::default(), 1);
        check("thread 'main' panicked at", Facts::default(), 0);
        check(" src/main.rs:1\n", Facts::default(), 1);
    }
}
