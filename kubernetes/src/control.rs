//! The loop: what changed is translated, applied as one, and told. It holds no truth of its own: started anew, or beside a
//! second one, it comes to the same.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use http::StatusCode;
use prost::Message;
use quorumgate_model::digest::Digest;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};

use crate::{
    admin::{Admin, Kept, Outcome},
    api::Kind,
    client::{Client, refusal},
    conditions::Told,
    snapshot::Snapshot,
    status::{self, Progress},
    translate::{Origin, Refusals, Settings, Translation, translate},
    watch::{self, Store},
};

/// What comes within this time of a change is applied with it.
const GATHER: Duration = Duration::from_millis(100);
/// While something is not everywhere, or could not be said.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// What was refused may be taken by now, and what others changed is put right.
const RESYNC: Duration = Duration::from_secs(300);
/// Objects that are refused one after another before the others are let wait.
const ROUNDS_MAX: usize = 1_000;

pub struct Controller {
    pub client: Client,
    pub admin: Admin,
    pub settings: Settings,
}

/// What is remembered from one turn to the next, until the next resync.
#[derive(Default)]
struct Memory {
    /// What was refused, of which bytes, and why: another object by the same name is asked about again.
    refused: BTreeMap<Origin, (Digest, String)>,
    kept: Kept,
    /// What every node serves.
    served: Option<Digest>,
}

impl Controller {
    /// Until the gateway does not know this caller any more.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { client, mut admin, settings } = self;
        let store = Store::default();
        tracing::info!(server = client.server(), "the controller of the Gateway API begins");
        let watches = join_all(Kind::ALL.map(|kind| watch::follow(kind, &client, &store)));
        tokio::select! {
            _ = watches => bail!("the watches have ended"),
            ended = control(&client, &mut admin, &settings, &store) => ended,
        }
    }
}

async fn control(client: &Client, admin: &mut Admin, settings: &Settings, store: &Store) -> anyhow::Result<()> {
    let mut changes = store.changes();
    let mut memory = Memory::default();
    let (mut retry, mut resync) = (RETRY_MIN, Instant::now() + RESYNC);
    loop {
        changes.mark_unchanged();
        let mut next = resync;
        if let Some(snapshot) = store.snapshot() {
            if Instant::now() >= resync {
                memory = Memory::default();
                resync = Instant::now() + RESYNC;
            }
            let settled = turn(client, admin, settings, store, &snapshot, &mut memory).await?;
            retry = if settled { RETRY_MIN } else { (retry * 2).min(RETRY_MAX) };
            next = if settled { resync } else { Instant::now() + retry };
        }
        tokio::select! {
            changed = changes.changed() => {
                changed.context("the watches have ended")?;
                sleep(GATHER).await;
            }
            () = sleep_until(next) => {}
        }
    }
}

/// Whether everything is as it should be.
async fn turn(
    client: &Client,
    admin: &mut Admin,
    settings: &Settings,
    store: &Store,
    snapshot: &Snapshot,
    memory: &mut Memory,
) -> anyhow::Result<bool> {
    let (translation, progress) = applied(admin, settings, snapshot, memory).await?;
    let told = tell(client, store, snapshot, &translation.told, &progress).await;
    Ok(told && progress == Progress::Everywhere)
}

/// Applied without those objects that the gateway does not take.
async fn applied(
    admin: &mut Admin,
    settings: &Settings,
    snapshot: &Snapshot,
    memory: &mut Memory,
) -> anyhow::Result<(Translation, Progress)> {
    let mut rounds = 0;
    // What is refused is left out of the next translation; held against the whole one, so that what has changed since is
    // asked about again.
    let whole = translate(snapshot, settings, &Refusals::new());
    let digests = digests(&whole);
    memory.refused.retain(|origin, (digest, _)| digests.get(origin) == Some(digest));
    loop {
        let refusals: Refusals =
            memory.refused.iter().map(|(origin, (_, why))| (origin.clone(), why.clone())).collect();
        let translation = translate(snapshot, settings, &refusals);
        rounds += 1;
        // A status that was written changes an object, and nothing that is to be applied.
        let wanted = digest(&translation, &memory.kept);
        if memory.served == Some(wanted) {
            return Ok((translation, Progress::Everywhere));
        }
        memory.served = None;
        let waiting = |why: &str| Progress::Waiting(format!("the gateway does not answer: {why}"));
        match admin.apply(&translation, &memory.kept).await {
            Outcome::Applied { revision, progress } => {
                tracing::info!(revision, objects = translation.objects.len(), ?progress, "applied");
                memory.served = Some(wanted).filter(|_| progress == Progress::Everywhere);
                return Ok((translation, progress));
            }
            Outcome::Refused(origins) if rounds < ROUNDS_MAX => {
                let mut is_new = false;
                for (origin, why) in origins {
                    tracing::warn!(?origin, why, "the gateway refuses an object; the others go on");
                    let digest = digests.get(&origin).copied().unwrap_or(Digest::of(b""));
                    is_new |= memory.refused.insert(origin, (digest, why)).is_none();
                }
                if !is_new {
                    return Ok((translation, waiting("it refuses what is left out already")));
                }
            }
            Outcome::InUse(names) if rounds < ROUNDS_MAX => {
                tracing::warn!(?names, "objects that are to go are used by others': they stay");
                let mut wanted: Vec<(String, String)> = memory.kept.keys().cloned().collect();
                let before = wanted.len();
                wanted.extend(names.into_iter().filter(|it| !memory.kept.contains_key(it)));
                match admin.stored(&wanted).await {
                    Ok(stored) if stored.len() > before => memory.kept = stored,
                    Ok(_) => return Ok((translation, waiting("what is in use is not there"))),
                    Err(status) => return failed(translation, &status),
                }
            }
            Outcome::Refused(_) | Outcome::InUse(_) => {
                return Ok((translation, waiting("it refuses too many objects")));
            }
            Outcome::Failed(status) => return failed(translation, &status),
        }
    }
}

fn failed(translation: Translation, status: &Status) -> anyhow::Result<(Translation, Progress)> {
    if status.code() == Code::Unauthenticated {
        bail!("the gateway does not know this controller: {}", status.message());
    }
    tracing::error!(code = ?status.code(), message = status.message(), "cannot be applied");
    Ok((translation, Progress::Waiting(format!("the gateway does not answer: {}", status.message()))))
}

fn digest(translation: &Translation, kept: &Kept) -> Digest {
    let mut bytes = Vec::new();
    for object in translation.objects.iter().map(|(_, object)| object).chain(kept.values()) {
        object.encode_length_delimited(&mut bytes).expect("a Vec grows as needed");
    }
    Digest::of(&bytes)
}

/// Of all that goes back to one origin.
fn digests(translation: &Translation) -> HashMap<Origin, Digest> {
    let mut bytes: HashMap<Origin, Vec<u8>> = HashMap::new();
    for (origin, object) in &translation.objects {
        bytes.entry(origin.clone()).or_default().extend(object.encode_to_vec());
    }
    bytes.into_iter().map(|(origin, bytes)| (origin, Digest::of(&bytes))).collect()
}

/// Whether everything was said that had to be.
async fn tell(client: &Client, store: &Store, snapshot: &Snapshot, told: &[Told], progress: &Progress) -> bool {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let now = now.format(&Rfc3339).unwrap_or_default();
    let mut all = true;
    for it in told {
        let Some(object) = snapshot.get(it.kind, &it.id) else { continue };
        let Some(status) = status::update(it, &object.status, progress, &now) else { continue };
        let Some(version) = store.version(it.kind) else { continue };
        let path = it.kind.status_path(version, &it.id);
        // Of this version of the object: what somebody wrote since comes by the watch, and is told then.
        let patch = json!({ "metadata": { "resourceVersion": object.metadata.resource_version }, "status": status });
        match client.patch(&path, &patch).await {
            Ok(_) => tracing::debug!(kind = %it.kind, object = %it.id, "its status is written"),
            Err(error) => match refusal(&error) {
                Some(StatusCode::CONFLICT | StatusCode::NOT_FOUND) => all = false,
                _ => {
                    tracing::warn!(kind = %it.kind, object = %it.id, error = format!("{error:#}"), "no status written");
                    all = false;
                }
            },
        }
    }
    all
}
