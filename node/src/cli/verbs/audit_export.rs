//! `audit export`: the trail as lines of JSON in a file, each run going on where the one before ended.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
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
/// What every line begins with.
const BEGINS: &[u8] = br#"{"index":"#;

pub async fn run(global: &Global, client: &Client, verb: &AuditExport) -> Outcome {
    let (mut last, half_from) = last_sequence(&verb.file)?;
    let mut file = OpenOptions::new().create(true).append(true).open(&verb.file).map_err(|it| unwritable(verb, &it))?;
    if let Some(half_from) = half_from {
        file.set_len(half_from).map_err(|it| unwritable(verb, &it))?;
        eprintln!("{}: the last line was half written and is cut off", verb.file.display());
    }
    let request =
        ListAuditRequest { limit: LISTED_MAX, denials: verb.denials, access: verb.access, ..Default::default() };
    let entries = client.observe().list_audit(client.ask(request)).await?.into_inner().entries;
    let fresh: Vec<&AuditEntry> = entries.iter().rev().filter(|it| it.sequence > last).collect();
    let missing = fresh.first().map_or(0, |it| it.sequence - last - 1);
    for entry in &fresh {
        write(&mut file, entry).map_err(|it| unwritable(verb, &it))?;
        last = entry.sequence;
    }
    file.sync_all().map_err(|it| unwritable(verb, &it))?;
    let mut notes = vec![format!("{} entries written to {}", fresh.len(), verb.file.display())];
    if missing > 0 {
        notes.push(format!("{missing} before them are no longer kept: export more often, or with --follow"));
    }
    let json = json!({ "file": verb.file, "written": fresh.len(), "missing": missing, "last": last });
    Answer { names: vec![last.to_string()], notes, json, ..Answer::default() }.print(global.output)?;
    if verb.follow {
        let request = client.stream(WatchAuditRequest { since: Some(last), denials: verb.denials });
        let mut made = client.observe().watch_audit(request).await?.into_inner();
        while let Some(entry) = made.message().await.map_err(status::ended)? {
            write(&mut file, &entry).and_then(|()| file.sync_data()).map_err(|it| unwritable(verb, &it))?;
        }
    }
    Ok(())
}

fn write(file: &mut File, entry: &AuditEntry) -> std::io::Result<()> {
    // A line at a time: what a crash leaves half written is the last one alone.
    file.write_all(format!("{}\n", shape::audit(entry)).as_bytes())
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
        check(&[&one[..], &two].concat(), Some((2, None)));
        check(&[&one[..], &two[..5]].concat(), Some((1, Some(first))));
        check(&[&one[..], &two[..two.len() - 9]].concat(), Some((1, Some(first))));
        check(&[&one[..], two.trim_end()].concat(), Some((1, Some(first))));
        check(&[&one[..5], "\n", &two].concat(), None);
        check("notes of mine", None);
    }
}
