//! One kind of objects, listed and then watched: what is known of it is whole or not there at all, and follows the server.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use http::StatusCode;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    api::{Id, Kind, Meta},
    client::{Client, refusal},
    snapshot::{OBJECTS_MAX, Snapshot},
};

/// Objects on one page of a list.
const PAGE: usize = 500;
/// After so long the server ends a watch, which then goes on where it was.
const WATCH_S: u64 = 300;
/// A watch that says nothing for so long is dead: bookmarks come about every minute.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_S + 30);
const BACK_OFF_MIN: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// So often in a row a kind that was there must be unknown before its objects count as gone: an API server that starts does not
/// know all kinds at once, and nobody's routes are to go for that.
const UNKNOWN_MIN: u32 = 5;
/// How often a kind is looked for whose definition is not installed.
const ABSENT_RETRY: Duration = Duration::from_secs(30);

/// What all watches know together.
pub struct Store {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    /// The version that each kind was listed at; None: the cluster has no such kind.
    known: BTreeMap<Kind, Option<&'static str>>,
}

impl Default for Store {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// None: some kind is not known yet. On half of the objects nothing may be decided, least of all what is to go.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let state = self.state();
        let whole = Kind::ALL.iter().all(|kind| state.known.contains_key(kind));
        whole.then(|| state.snapshot.clone())
    }

    pub fn version(&self, kind: Kind) -> Option<&'static str> {
        self.state().known.get(&kind).copied().flatten()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changes.send_modify(|count| *count += 1);
    }
}

/// A watch that has to begin anew: the server has forgotten where it was.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the resourceVersion is too old")
    }
}

impl std::error::Error for Gone {}

/// For ever; dropped to be stopped.
pub async fn follow(kind: Kind, client: &Client, store: &Store) {
    let (mut back_off, mut unknown) = (BACK_OFF_MIN, 0);
    loop {
        match listed(kind, client, store).await {
            Ok(None) if store.version(kind).is_some() && unknown + 1 < UNKNOWN_MIN => {
                unknown += 1;
                tracing::warn!(%kind, unknown, "the cluster does not know the kind any more: it is asked again");
            }
            Ok(None) => {
                store.change(|state| {
                    state.snapshot.replace(kind, Snapshot::default());
                    state.known.insert(kind, None);
                });
                tracing::info!(%kind, "the cluster has no such kind");
                sleep(ABSENT_RETRY).await;
                continue;
            }
            Ok(Some((version, at))) => {
                unknown = 0;
                let error = watched(kind, version, at, client, store, &mut back_off).await;
                match error.is::<Gone>() || refusal(&error) == Some(StatusCode::GONE) {
                    true => tracing::info!(%kind, "a watch begins anew: its resourceVersion is too old"),
                    false => tracing::warn!(%kind, error = format!("{error:#}"), "a watch begins anew"),
                }
            }
            Err(error) => tracing::warn!(%kind, error = format!("{error:#}"), "cannot be listed"),
        }
        wait(&mut back_off).await;
    }
}

/// From half of it to the whole, so that those who failed together do not come back together.
async fn wait(back_off: &mut Duration) {
    let mut random = [0; 2];
    // Without random numbers all wait equally long.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX);
    sleep(back_off.mul_f64(0.5 + share / 2.0)).await;
    *back_off = (*back_off * 2).min(BACK_OFF_MAX);
}

/// All of them, and the version of the whole; None: the cluster has no such kind.
async fn listed(kind: Kind, client: &Client, store: &Store) -> anyhow::Result<Option<(&'static str, String)>> {
    for version in kind.versions() {
        match list(kind, version, client).await {
            Ok((snapshot, at)) => {
                store.change(|state| {
                    state.snapshot.replace(kind, snapshot);
                    state.known.insert(kind, Some(version));
                });
                return Ok(Some((version, at)));
            }
            Err(error) if refusal(&error) == Some(StatusCode::NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
    }
    match kind.is_optional() {
        true => Ok(None),
        false => bail!("the API server does not know it"),
    }
}

async fn list(kind: Kind, version: &str, client: &Client) -> anyhow::Result<(Snapshot, String)> {
    let mut snapshot = Snapshot::default();
    let mut page = String::new();
    // A server may not go on for ever.
    for _ in 0..=OBJECTS_MAX / PAGE {
        let path = format!("{}?limit={PAGE}{}{page}", kind.path(version), kind.selector());
        let mut answer = client.get(&path).await?;
        if let Value::Array(items) = answer["items"].take() {
            for item in items {
                take(kind, item, &mut snapshot);
            }
        }
        let meta = &answer["metadata"];
        match meta["continue"].as_str().filter(|it| !it.is_empty()) {
            Some(token) => {
                let token = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
                page = format!("&continue={token}");
            }
            None => return Ok((snapshot, meta["resourceVersion"].as_str().unwrap_or_default().to_owned())),
        }
    }
    bail!("there are more than {OBJECTS_MAX} of them")
}

/// One that cannot be read counts as not there: it is nobody else's trouble.
fn take(kind: Kind, object: Value, snapshot: &mut Snapshot) {
    let id = id_of(&object);
    if let Err(why) = snapshot.put(kind, object) {
        tracing::warn!(%kind, object = %id, why, "an object cannot be read");
        snapshot.remove(kind, &id);
    }
}

fn id_of(object: &Value) -> Id {
    let word = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    Id::new(word("namespace"), word("name"))
}

/// Until something is wrong.
async fn watched(
    kind: Kind,
    version: &str,
    mut at: String,
    client: &Client,
    store: &Store,
    back_off: &mut Duration,
) -> anyhow::Error {
    loop {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={at}{}",
            kind.path(version),
            kind.selector()
        );
        let mut lines = match client.watch(&path).await {
            Ok(lines) => lines,
            // The connection, not what was asked: it goes on where it was.
            Err(error) if refusal(&error).is_none_or(|it| it.is_server_error()) => {
                tracing::warn!(%kind, error = format!("{error:#}"), "a watch cannot go on yet");
                wait(back_off).await;
                continue;
            }
            Err(error) => return error,
        };
        loop {
            let event = match timeout(SILENCE_MAX, lines.next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    tracing::info!(%kind, error = format!("{error:#}"), "a watch was cut");
                    break;
                }
                Err(_) => break,
            };
            match entered(kind, event, store) {
                Ok(now_at) => at = now_at,
                Err(error) => return error,
            }
            *back_off = BACK_OFF_MIN;
        }
        wait(back_off).await;
    }
}

/// Takes an event in; the version that it brings.
fn entered(kind: Kind, mut event: Value, store: &Store) -> anyhow::Result<String> {
    let object = event["object"].take();
    let what = event["type"].as_str().unwrap_or_default().to_owned();
    if what == "ERROR" {
        match object["code"].as_u64() {
            Some(410) => return Err(Gone.into()),
            _ => bail!("the API server says: {}", object["message"].as_str().unwrap_or_default()),
        }
    }
    let meta = Meta {
        resource_version: object["metadata"]["resourceVersion"].as_str().unwrap_or_default().into(),
        ..Meta::default()
    };
    let at = Some(meta.resource_version).filter(|it| !it.is_empty()).context("an event without a resourceVersion")?;
    match what.as_str() {
        "ADDED" | "MODIFIED" => store.change(|state| take(kind, object, &mut state.snapshot)),
        "DELETED" => store.change(|state| state.snapshot.remove(kind, &id_of(&object))),
        // It says how far we are.
        "BOOKMARK" => {}
        other => bail!("an event of type {other:?}"),
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, at: &str) -> Value {
        json!({ "metadata": { "name": name, "namespace": "n", "resourceVersion": at } })
    }

    fn event(kind: &str, object: Value) -> Value {
        json!({ "type": kind, "object": object })
    }

    #[test]
    fn events_are_taken_in_and_say_how_far_we_are() {
        let store = Store::default();
        let names = || {
            let state = store.state();
            state.snapshot.services.keys().map(|id| id.name.clone()).collect::<Vec<_>>()
        };
        let enter = |it| entered(Kind::Service, it, &store);
        assert_eq!(enter(event("ADDED", service("a", "5"))).unwrap(), "5");
        assert_eq!(enter(event("ADDED", service("b", "6"))).unwrap(), "6");
        assert_eq!(enter(event("MODIFIED", service("b", "7"))).unwrap(), "7");
        assert_eq!(names(), ["a", "b"]);
        let changes = *store.changes().borrow();
        assert_eq!(enter(event("BOOKMARK", json!({ "metadata": { "resourceVersion": "9" } }))).unwrap(), "9");
        assert_eq!(*store.changes().borrow(), changes, "a bookmark changes nothing");
        assert_eq!(enter(event("DELETED", service("a", "10"))).unwrap(), "10");
        assert_eq!(names(), ["b"]);
        // One that cannot be read any more is gone, and the rest stands.
        let mut bad = service("b", "11");
        bad["spec"] = json!({ "ports": 1 });
        assert_eq!(enter(event("MODIFIED", bad)).unwrap(), "11");
        assert!(names().is_empty());
        assert!(enter(event("ERROR", json!({ "code": 410 }))).unwrap_err().is::<Gone>());
        assert!(!enter(event("ERROR", json!({ "code": 500, "message": "no" }))).unwrap_err().is::<Gone>());
        assert!(enter(json!({})).is_err());
    }

    #[test]
    fn nothing_is_known_until_everything_is() {
        let store = Store::default();
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert!(store.snapshot().is_none(), "{place} of them are known");
            store.change(|state| _ = state.known.insert(kind, Some("v1")));
        }
        assert!(store.snapshot().is_some());
    }
}
