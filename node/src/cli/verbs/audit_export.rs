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

pub async fn run(global: &Global, client: &Client, verb: &AuditExport) -> Outcome {
    let mut last = last_sequence(&verb.file)?;
    let mut file = OpenOptions::new().create(true).append(true).open(&verb.file).map_err(|it| unwritable(verb, &it))?;
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

/// Of the last line; 0 where there is no file yet.
fn last_sequence(path: &Path) -> Outcome<u64> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Failure::usage(format!("{}: {error}", path.display()))),
    };
    let mut last = 0;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let sequence = serde_json::from_str::<Value>(&line).ok().and_then(|it| it["sequence"].as_u64());
        last = sequence.ok_or_else(|| {
            Failure::usage(format!("{}: line {} is no entry of an audit trail", path.display(), number + 1))
                .help("name a file that an export has written, or a new one")
        })?;
    }
    Ok(last)
}

fn unwritable(verb: &AuditExport, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", verb.file.display())).help("name a file that can be written")
}
