//! `audit export`: the trail as lines of JSON in a file, each run going on where the one before ended.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    time::Duration,
};

use quorumgate_proto::admin::v1::{AuditEntry, ListAuditRequest, WatchAuditRequest};
use serde_json::{Value, json};

use crate::cli::{
    args::{AuditExport, Global},
    client::Client,
    failure::{Failure, Outcome},
    output::Answer,
    shape, status,
};

/// The most that one call lists.
const LISTED_MAX: u32 = 10_000;
/// A node that brings none of the older entries for so long has none of them.
const OLDER_WITHIN: Duration = Duration::from_secs(10);
/// What every line begins with.
const BEGINS: &[u8] = br#"{"index":"#;

pub async fn run(global: &Global, client: &Client, verb: &AuditExport) -> Outcome {
    let (last, half_from) = last_sequence(&verb.file)?;
    let file = OpenOptions::new().create(true).append(true).open(&verb.file).map_err(|it| unwritable(verb, &it))?;
    if let Some(half_from) = half_from {
        file.set_len(half_from).map_err(|it| unwritable(verb, &it))?;
        eprintln!("{}: the last line was half written and is cut off", verb.file.display());
    }
    let mut export = Export { verb, file, last, written: 0, missing: 0 };
    let request =
        ListAuditRequest { limit: LISTED_MAX, denials: verb.denials, access: verb.access, ..Default::default() };
    let entries = client.observe().list_audit(client.ask(request)).await?.into_inner().entries;
    let fresh: Vec<&AuditEntry> = entries.iter().rev().filter(|it| it.sequence > last).collect();
    if let Some(first) = fresh.first().filter(|_| fresh.len() >= LISTED_MAX as usize && !verb.access) {
        export.before(client, first.sequence).await?;
    }
    for entry in &fresh {
        export.take(entry)?;
    }
    export.file.sync_all().map_err(|it| unwritable(verb, &it))?;
    let (written, missing) = (export.written, export.missing);
    let mut notes = vec![format!("{written} entries written to {}", verb.file.display())];
    if missing > 0 {
        let why = match verb.access {
            true => {
                format!("are no longer kept, or were more than the {LISTED_MAX} that a run takes: export more often")
            }
            false => "are no longer kept: export more often, or with --follow".to_owned(),
        };
        notes.push(format!("{missing} before them {why}"));
    }
    let json = json!({ "file": verb.file, "written": written, "missing": missing, "last": export.last });
    Answer { names: vec![export.last.to_string()], notes, json, ..Answer::default() }.print(global.output)?;
    if verb.follow {
        let mut made = export.watch(client).await?;
        while let Some(entry) = made.message().await.map_err(status::ended)? {
            export.take(&entry)?;
            export.file.sync_data().map_err(|it| unwritable(verb, &it))?;
            if export.missing > missing {
                eprintln!("{} entries before {} are no longer kept", export.missing - missing, entry.sequence);
                export.missing = missing;
            }
        }
    }
    Ok(())
}

struct Export<'a> {
    verb: &'a AuditExport,
    file: File,
    last: u64,
    written: u64,
    /// Entries that came between those that were written.
    missing: u64,
}

impl Export<'_> {
    async fn watch(&self, client: &Client) -> Outcome<tonic::Streaming<AuditEntry>> {
        let request = WatchAuditRequest { since: Some(self.last), denials: self.verb.denials };
        Ok(client.observe().watch_audit(client.stream(request)).await?.into_inner())
    }

    /// What is kept of those before the oldest that a call lists.
    async fn before(&mut self, client: &Client, first: u64) -> Outcome {
        let mut older = self.watch(client).await?;
        while self.last + 1 < first {
            let Ok(next) = tokio::time::timeout(OLDER_WITHIN, older.message()).await else { break };
            match next.map_err(status::ended)? {
                Some(entry) if entry.sequence < first => self.take(&entry)?,
                _ => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: &AuditEntry) -> Outcome {
        // A line at a time: what a crash leaves half written is the last one alone.
        let line = format!("{}\n", shape::audit(entry));
        self.file.write_all(line.as_bytes()).map_err(|it| unwritable(self.verb, &it))?;
        self.missing += entry.sequence.saturating_sub(self.last + 1);
        (self.last, self.written) = (entry.sequence, self.written + 1);
        Ok(())
    }
}

/// Of the last whole line, 0 where there is none yet; and where a half one begins that a crash has left.
fn last_sequence(path: &Path) -> Outcome<(u64, Option<u64>)> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, None)),
        Err(error) => return Err(unreadable(error)),
    };
    let (mut last, mut at, mut line) = (0, 0, Vec::new());
    for number in 1_u64.. {
        line.clear();
        let read = file.read_until(b'\n', &mut line).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        // Of no other file anything is cut off.
        let is_begun = line.starts_with(BEGINS) || BEGINS.starts_with(&line);
        if !line.ends_with(b"\n") && is_begun {
            return Ok((last, Some(at)));
        }
        let sequence = serde_json::from_slice::<Value>(&line).ok().and_then(|it| it["sequence"].as_u64());
        last = sequence.ok_or_else(|| {
            Failure::usage(format!("{}: line {number} is no entry of an audit trail", path.display()))
                .help("name a file that an export has written, or a new one")
        })?;
        at += read as u64;
    }
    Ok((last, None))
}

fn unwritable(verb: &AuditExport, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", verb.file.display())).help("name a file that can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_goes_on_after_a_line_that_a_crash_left_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trail.jsonl");
        let line = |sequence| format!("{}\n", shape::audit(&AuditEntry { sequence, ..AuditEntry::default() }));
        let check = |text: &str, expected: Option<(u64, Option<u64>)>| {
            std::fs::write(&file, text).unwrap();
            assert_eq!(last_sequence(&file).ok(), expected, "{text:?}");
        };
        let [one, two] = [1, 2].map(line);
        let first = one.len() as u64;
        check("", Some((0, None)));
        check(&[&one[..], &two[..]].concat(), Some((2, None)));
        check(&[&one[..], &two[..5]].concat(), Some((1, Some(first))));
        check(&[&one[..], &two[..two.len() - 9]].concat(), Some((1, Some(first))));
        check(&[&one[..], two.trim_end()].concat(), Some((1, Some(first))));
        check(&[&one[..5], "\n", &two[..]].concat(), None);
        check("notes of mine", None);
    }
}
