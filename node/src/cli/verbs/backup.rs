//! `cluster backup|restore|recover`: the whole cluster as a file, and back; and what is left of one without a quorum.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use argon2::Argon2;
use prost::Message;
use quorumgate_model::command::RefoundCause;
use quorumgate_proto::admin::v1::{BackupChunk, BackupRequest};
use quorumgate_raft_store::{
    Salvaged,
    backup::{self, Backup, BackupHead},
};
use serde_json::{Value, json};

use crate::{
    cli::{
        args::{Budgets, Global, Recover, Restore},
        client::Client,
        failure::{Exit, Failure, Outcome},
        input, local,
        output::Answer,
        shape, status,
    },
    pki::{self, ClusterKey, Keys},
    refound::{self, Legacy, Made},
    settings::Settings,
};

const KEY_PURPOSE: &str = "cluster key in a backup";
const SALT_BYTES: usize = 16;

pub async fn save(global: &Global, client: &Client, file: &Path, passphrase: Option<&Path>, stale: bool) -> Outcome {
    let passphrase = passphrase.map(input::secret).transpose()?;
    if file.exists() {
        let found = format!("{}: there is such a file already", file.display());
        return Err(Failure::usage(found).help("give another name, or remove it first"));
    }
    let mut chunks = client.maintenance().backup(client.ask(BackupRequest { stale })).await?.into_inner();
    let cut = || Failure::new(Exit::Unavailable, "the node ended the backup early; nothing was saved");
    // The rest takes as long as it takes: it grows with the state.
    let first = tokio::time::timeout(global.timeout(), chunks.message());
    let late = |_| Failure::new(Exit::Deadline, "the node sent nothing within the deadline; nothing was saved");
    let first = first.await.map_err(late)?.map_err(status::ended)?.ok_or_else(cut)?;
    let mut head = BackupHead::decode(&*first.head).map_err(Failure::internal)?;
    if let Some(passphrase) = &passphrase {
        seal(&mut head, passphrase)?;
    }
    let mut part = Part::create(file)?;
    part.write(&backup::preamble(&head))?;
    let mut told = first.checksum;
    let mut records = blake3::Hasher::new();
    while told.is_empty() {
        let BackupChunk { records: bytes, checksum, .. } =
            chunks.message().await.map_err(status::ended)?.ok_or_else(cut)?;
        records.update(&bytes);
        part.write(&bytes)?;
        told = checksum;
    }
    if records.finalize().as_bytes().as_slice() != told {
        return Err(Failure::new(Exit::Internal, "the backup was damaged on its way; nothing was saved"));
    }
    part.end()?;
    // From the disk, as a restore will read it.
    let read = backup::read(file).map_err(Failure::internal)?;
    print(global, file, &read, &["saved and read back"])
}

pub fn inspect(global: &Global, file: &Path) -> Outcome {
    print(global, file, &read(file)?, &[])
}

pub fn restore(global: &Global, verb: Restore) -> Outcome {
    let settings = local::settings_of(&verb.node)?;
    let dir = &verb.node.data_dir;
    let Backup { head, state, past, .. } = read(&verb.file)?;
    let keys = open(&head, verb.passphrase_file.as_deref())?;
    let preview = format!(
        "{} is to become a new cluster from revision {} of {} ({}). Every node of the old cluster is shut out of it: stop \
         them, or clients may be served by both.",
        dir.display(),
        head.revision,
        head.cluster_name,
        time_of(head.wall_ms),
    );
    input::confirm(global, &preview)?;
    let reset_budgets = verb.budgets == Budgets::Reset;
    let bump = if verb.bump_revision { refound::BUMP } else { 0 };
    let legacy = Legacy { state, past, keys, cause: RefoundCause::Restored, reset_budgets, bump };
    let made = legacy.settle(dir, &settings).map_err(local::refused)?;
    eprintln!("restored in {}", dir.display());
    if verb.bump_revision {
        eprintln!("state_hash is the backup's, as `inspect` prints it: the state's of before its index was raised");
    }
    eprintln!("what the nodes of the old cluster held of the limits is void: budgets come back as their windows pass");
    match verb.budgets {
        Budgets::Spent => {
            eprintln!("calendar periods that have begun count as spent; `limit reset` makes an exception")
        }
        Budgets::Reset => eprintln!("calendar periods that have begun count as unspent: they may be spent twice"),
    }
    if verb.run {
        return local::run_in(dir.clone(), settings);
    }
    eprintln!("run it: quorumgate run --data-dir {}; let others join with new join tokens", dir.display());
    shown(global, &made, json!({}))
}

pub fn recover(global: &Global, verb: &Recover) -> Outcome {
    let dir = &verb.data_dir;
    let settings = Settings::read(dir).map_err(|error| Failure::new(Exit::Settings, format!("{error:#}")))?;
    if refound::is_half_recovered(dir) {
        refound::take_over(dir).map_err(Failure::internal)?;
        eprintln!("the recovery that was begun in {} is ended; run it", dir.display());
        return Ok(());
    }
    refound::may_recover(dir).map_err(|error| {
        Failure::new(Exit::Conflict, format!("{error:#}"))
            .help("run the node; to recover once more, move that away first")
    })?;
    let salvaged = quorumgate_raft_store::salvage(dir).map_err(|error| {
        Failure::new(Exit::Conflict, format!("{error:#}")).help("the node must be stopped, and its log readable")
    })?;
    let report = report(&salvaged);
    for line in text(&report) {
        eprintln!("{line}");
    }
    input::confirm(global, "A cluster of this node alone is made; the others can only come back as new members.")?;
    let made = refound::recover(dir, &settings, salvaged).map_err(Failure::internal)?;
    let shown_dir = dir.display();
    eprintln!("what was there before lies in {shown_dir}/before-recovery");
    eprintln!("run it: quorumgate run --data-dir {shown_dir}; wipe the others and let them join again");
    shown(global, &made, report)
}

/// What is certain and what is not: a node cannot know what others acknowledged without it.
fn report(salvaged: &Salvaged) -> Value {
    let Salvaged { identity, state, committed, unconfirmed, voters, .. } = salvaged;
    let lost: Vec<_> = voters.iter().filter(|(id, _)| *id != identity.node).map(|(_, node)| &node.name).collect();
    let unconfirmed: Vec<_> =
        unconfirmed.iter().map(|(index, what)| json!({ "index": index, "command": what })).collect();
    json!({
        "lost_voters": lost,
        "voters": voters.len(),
        "last_index": state.index,
        "last_entry_time": time_of(state.wall_ms),
        "committed_index": committed,
        "unconfirmed": unconfirmed,
        "writes_after_last_index": "lost",
    })
}

fn text(report: &Value) -> Vec<String> {
    let lost: Vec<_> = report["lost_voters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let unconfirmed = report["unconfirmed"].as_array().map_or(0, Vec::len);
    vec![
        "LOSS REPORT".to_owned(),
        format!("  given up: {} of {} voters: {}", lost.len(), report["voters"], lost.join(", ")),
        format!("  kept:     everything up to index {} ({})", report["last_index"], report["last_entry_time"]),
        format!(
            "  unsure:   {unconfirmed} entries after index {} are kept that may never have been committed",
            report["committed_index"]
        ),
        format!(
            "  LOST:     every write after index {} that the others acknowledged without this node; how many is not",
            report["last_index"]
        ),
        "            known here. A node with a higher last index has lost less: recover that one.".to_owned(),
    ]
}

fn shown(global: &Global, made: &Made, report: Value) -> Outcome {
    let mut json = json!({
        "cluster": uuid::Uuid::from_bytes(made.cluster).to_string(),
        "node_id": made.node,
        "index": made.index,
        "revision": made.revision,
        "state_hash": made.hash.to_string(),
    });
    if let (Some(object), Some(more)) = (json.as_object_mut(), report.as_object()) {
        object.extend(more.clone());
    }
    fields(json).print(global.output)
}

fn print(global: &Global, file: &Path, backup: &Backup, notes: &[&str]) -> Outcome {
    let Backup { head, state, past, records, bytes } = backup;
    let json = json!({
        "file": file.display().to_string(),
        "cluster": data_encoding::HEXLOWER.encode(&head.cluster_id),
        "cluster_name": head.cluster_name,
        "node": head.node,
        "version": head.version,
        "time": time_of(head.wall_ms),
        "index": head.index,
        "revision": head.revision,
        "state_hash": state.hash().to_string(),
        "sealed": !head.passphrase_salt.is_empty(),
        "resources": state.resources.len(),
        "credentials": state.credentials.len(),
        "revocations": state.revocations.len(),
        "nodes": state.nodes.len(),
        "revisions": past.diffs.len(),
        "audit_entries": past.audit.len(),
        "records": records,
        "bytes": bytes,
    });
    let mut answer = fields(json);
    answer.notes = notes.iter().map(|it| (*it).to_owned()).collect();
    if head.passphrase_salt.is_empty() {
        answer.notes.push("it holds the cluster's key in the clear: keep it like one".to_owned());
    }
    answer.print(global.output)
}

/// A table of fields and values.
fn fields(json: Value) -> Answer {
    let rows = json.as_object().into_iter().flatten().map(|(field, value)| vec![field.clone(), shape::cell(value)]);
    Answer { header: vec!["field", "value"], rows: rows.collect(), json, ..Answer::default() }
}

fn read(file: &Path) -> Outcome<Backup> {
    backup::read(file).map_err(|error| match file.exists() {
        true => Failure::new(Exit::Invalid, format!("{error:#}")),
        false => Failure::usage(format!("{error:#}")),
    })
}

fn time_of(wall_ms: u64) -> Value {
    let (seconds, millis) = (wall_ms / 1_000, wall_ms % 1_000);
    shape::time(Some(&prost_types::Timestamp { seconds: seconds as i64, nanos: millis as i32 * 1_000_000 }))
}

fn seal(head: &mut BackupHead, passphrase: &str) -> Outcome {
    let salt: [u8; SALT_BYTES] = pki::random().map_err(Failure::internal)?;
    head.cluster_key = derived(passphrase, &salt)?.seal(KEY_PURPOSE, &head.cluster_key).map_err(Failure::internal)?;
    head.passphrase_salt = salt.to_vec();
    Ok(())
}

fn open(head: &BackupHead, passphrase: Option<&Path>) -> Outcome<Keys> {
    let keys = match (head.passphrase_salt.is_empty(), passphrase) {
        (true, _) => head.cluster_key.clone(),
        (false, None) => {
            return Err(Failure::usage("the backup's key is sealed").help("give its passphrase with --passphrase-file"));
        }
        (false, Some(file)) => {
            let wrong = |_| Failure::new(Exit::Forbidden, "the passphrase does not open this backup");
            derived(&input::secret(file)?, &head.passphrase_salt)?
                .open(KEY_PURPOSE, &head.cluster_key)
                .map_err(wrong)?
        }
    };
    Keys::from_bytes(&keys).map_err(Failure::internal)
}

fn derived(passphrase: &str, salt: &[u8]) -> Outcome<ClusterKey> {
    let mut key = [0; 32];
    let made = Argon2::default().hash_password_into(passphrase.as_bytes(), salt, &mut key);
    made.map_err(|error| Failure::new(Exit::Internal, format!("the passphrase cannot be used: {error}")))?;
    ClusterKey::from_bytes(&key).map_err(Failure::internal)
}

/// The file while it is written: beside its name, readable by the owner alone, gone unless it was ended.
struct Part {
    path: PathBuf,
    file: Option<File>,
    to: PathBuf,
    hasher: blake3::Hasher,
}

impl Part {
    fn create(to: &Path) -> Outcome<Self> {
        let mut path = to.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        Ok(Self { path, file: Some(file), to: to.to_owned(), hasher: blake3::Hasher::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.hasher.update(bytes);
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(Failure::internal)
    }

    fn end(mut self) -> Outcome {
        let checksum = *self.hasher.finalize().as_bytes();
        self.write(&checksum)?;
        let Some(file) = self.file.take() else { return Ok(()) };
        let ended = file.sync_all().and_then(|()| fs::rename(&self.path, &self.to));
        ended.map_err(Failure::internal)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
