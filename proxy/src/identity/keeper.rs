//! Keeps the keys of every issuer at hand: fetched regularly, out of turn for an unknown key id, kept while the
//! provider is down, and handed out so that other nodes have them too.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, header};
use quorumgate_model::resource::Name;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    discovery::{DiscoveryError, discover},
    egress::Reach,
    fetch::{self, Ask, Endpoint, FetchError, Fetcher},
    jwks::{JWKS_BYTES_MAX, JwksError, KeySet},
    schedule::{Schedule, Timing, Unknown},
};

/// Requests that wait for the keys of one issuer; more are answered at once.
const WAITERS_MAX: usize = 1024;
/// How long one waits: discovery and the keys.
const WAIT_MAX: Duration = fetch::TIMEOUT.saturating_mul(2);

/// Where the keys of an issuer come from. Auths that say the same share what is fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub issuer: String,
    pub location: Location,
    pub reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    Url(String),
    Discovery,
}

/// An auth whose keys are to be kept, with those that the cluster saw last.
pub struct Wanted {
    pub auth: Name,
    pub source: Source,
    pub last_good: Option<Bytes>,
}

/// Called with keys that differ from the cluster's: the auth and the document. Must not block.
pub type OnJwks = Arc<dyn Fn(&Name, &Bytes) + Send + Sync>;

pub struct Keeper {
    fetcher: Fetcher,
    timing: Timing,
    on_jwks: OnJwks,
    slots: Mutex<Slots>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Slots {
    by_source: BTreeMap<Source, Arc<Slot>>,
    by_auth: HashMap<Name, Arc<Slot>>,
}

/// The keys of one issuer, as they are now.
pub struct Slot {
    source: Source,
    timing: Timing,
    keys: ArcSwapOption<KeySet>,
    inner: Mutex<Inner>,
    /// There is something to fetch before the time.
    wake: Notify,
    /// Fetches that have ended.
    rounds: watch::Sender<u64>,
    waiters: AtomicUsize,
}

struct Inner {
    schedule: Schedule,
    /// The document that `keys` are, and since when nobody has confirmed it.
    body: Bytes,
    confirmed: Instant,
    /// What the cluster has of each auth.
    replicated: BTreeMap<Name, Option<Bytes>>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error(transparent)]
    Jwks(#[from] JwksError),
}

impl Keeper {
    pub fn new(fetcher: Fetcher, timing: Timing, on_jwks: OnJwks) -> Self {
        Self { fetcher, timing, on_jwks, slots: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Takes on new sources, lets go of gone ones, leaves the rest alone.
    pub fn publish(&self, wanted: impl IntoIterator<Item = Wanted>) {
        let mut replicated: BTreeMap<Source, BTreeMap<Name, Option<Bytes>>> = BTreeMap::new();
        for Wanted { auth, source, last_good } in wanted {
            replicated.entry(source).or_default().insert(auth, last_good);
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *slots).by_source;
        for (source, replicated) in replicated {
            let slot = match before.remove(&source) {
                Some(slot) => slot,
                None => Arc::new(Slot::new(source.clone(), self.timing)),
            };
            slot.replicated(replicated.clone());
            slots.by_auth.extend(replicated.into_keys().map(|auth| (auth, slot.clone())));
            slots.by_source.insert(source, slot);
        }
        drop(slots);
        self.changed.send_replace(());
    }

    /// The keys of an auth that was published.
    pub fn slot(&self, auth: &Name) -> Option<Arc<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).by_auth.get(auth).cloned()
    }

    /// One task for each source, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut changed = self.changed.subscribe();
        let mut running = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            changed.mark_unchanged();
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner).by_source.clone();
            let mut before = std::mem::take(&mut running);
            for (source, slot) in slots {
                let task = match before.remove(&source) {
                    Some((same, task)) if Arc::ptr_eq(&same, &slot) => task,
                    _ => tasks.spawn(slot.clone().keep(self.fetcher.clone(), self.on_jwks.clone())),
                };
                running.insert(source, (slot, task));
            }
            before.into_values().for_each(|(_, task)| task.abort());
            // Aborted tasks are collected here; a panic in one is not to be lost.
            while let Some(ended) = tasks.try_join_next() {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
            let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await else { return };
        }
    }
}

impl Slot {
    fn new(source: Source, timing: Timing) -> Self {
        let now = Instant::now();
        let inner = Inner {
            schedule: Schedule::new(timing, now),
            body: Bytes::new(),
            confirmed: now,
            replicated: BTreeMap::new(),
        };
        Self {
            source,
            timing,
            keys: ArcSwapOption::empty(),
            inner: Mutex::new(inner),
            wake: Notify::new(),
            rounds: watch::Sender::new(0),
            waiters: AtomicUsize::new(0),
        }
    }

    /// None until the first keys came, and again once the provider has been out of reach for too long.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Keys, for which it may wait until the first fetch is done.
    pub async fn first_keys(&self) -> Option<Arc<KeySet>> {
        let mut rounds = self.rounds.subscribe();
        let may_wait = *rounds.borrow_and_update() == 0;
        if let Some(keys) = self.keys() {
            return Some(keys);
        }
        if may_wait {
            self.wait(&mut rounds).await;
        }
        self.keys()
    }

    /// Keys that have the id, for which it may wait until they are fetched again.
    pub async fn keys_with(&self, kid: &str) -> Option<Arc<KeySet>> {
        let known = || self.keys().filter(|keys| keys.has(kid));
        // What is running may have been asked for before the key was there.
        for _ in 0..2 {
            let mut rounds = self.rounds.subscribe();
            if let Some(keys) = known() {
                return Some(keys);
            }
            if self.inner().schedule.unknown(kid, Instant::now()) == Unknown::Refused {
                return None;
            }
            self.wake.notify_one();
            if !self.wait(&mut rounds).await {
                return known();
            }
        }
        known()
    }

    /// False where it was not worth the wait.
    async fn wait(&self, rounds: &mut watch::Receiver<u64>) -> bool {
        struct Waiter<'a>(&'a AtomicUsize);
        impl Drop for Waiter<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiters.fetch_add(1, Ordering::Relaxed);
        let _waiter = Waiter(&self.waiters);
        before < WAITERS_MAX && matches!(timeout(WAIT_MAX, rounds.changed()).await, Ok(Ok(())))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster's last good keys are taken by a node that has none of its own, or whose provider does not answer.
    /// They count as confirmed now: whatever a node has fetched since was handed to the cluster too.
    fn replicated(&self, replicated: BTreeMap<Name, Option<Bytes>>) {
        let mut inner = self.inner();
        let needed = self.keys.load().is_none() || inner.schedule.is_failing();
        let fresh = replicated.iter().filter_map(|(auth, body)| {
            let body = body.as_ref()?;
            let seen = inner.replicated.get(auth).and_then(Option::as_ref) == Some(body);
            (!seen && *body != inner.body).then(|| body.clone())
        });
        let last_good = fresh.last();
        inner.replicated = replicated;
        let Some(body) = last_good.filter(|_| needed) else { return };
        match KeySet::parse(&body) {
            Ok(keys) => {
                (inner.body, inner.confirmed) = (body, Instant::now());
                self.keys.store(Some(Arc::new(keys)));
            }
            Err(error) => tracing::warn!(issuer = self.source.issuer, %error, "the cluster's keys of an issuer"),
        }
    }

    /// Ends by being aborted.
    async fn keep(self: Arc<Self>, fetcher: Fetcher, on_jwks: OnJwks) {
        loop {
            let due = self.inner().schedule.due();
            if due > Instant::now() {
                // A wake-up changes `due`, which is looked at again.
                let _ = timeout_at(due, self.wake.notified()).await;
                continue;
            }
            self.inner().schedule.started();
            let outcome = self.fetch(&fetcher).await;
            let handed_out = match outcome {
                Ok((body, max_age, keys)) => self.took(body, max_age, keys),
                Err(error) => {
                    self.failed(&error);
                    None
                }
            };
            self.rounds.send_modify(|rounds| *rounds += 1);
            for (auth, body) in handed_out.into_iter().flatten() {
                on_jwks(&auth, &body);
            }
        }
    }

    async fn fetch(&self, fetcher: &Fetcher) -> Result<(Bytes, Option<Duration>, KeySet), Failure> {
        let reach = self.source.reach;
        let endpoint = match &self.source.location {
            Location::Url(url) => Endpoint::parse(url)?,
            Location::Discovery => discover(fetcher, &self.source.issuer, reach).await?.jwks,
        };
        let answer = fetcher.fetch(&endpoint, &Ask::get(reach, JWKS_BYTES_MAX)).await?;
        let keys = KeySet::parse(&answer.body)?;
        Ok((answer.body, max_age(&answer.headers), keys))
    }

    /// Whom the cluster has other keys for.
    fn took(&self, body: Bytes, max_age: Option<Duration>, keys: KeySet) -> Option<Vec<(Name, Bytes)>> {
        let now = Instant::now();
        let mut inner = self.inner();
        if inner.schedule.is_failing() {
            tracing::info!(issuer = self.source.issuer, "the issuer's keys are there again");
        }
        inner.schedule.succeeded(now, max_age, |kid| keys.has(kid));
        inner.confirmed = now;
        // The same set stays where the keys have not changed, and with it what was verified by it. A provider of several
        // machines may list them in another order each time.
        let marks = keys.marks();
        if self.keys().is_none_or(|before| before.marks() != marks) {
            tracing::info!(
                issuer = self.source.issuer,
                keys = keys.len(),
                skipped = keys.skipped(),
                "new keys of an issuer"
            );
            self.keys.store(Some(Arc::new(keys)));
        }
        inner.body = body.clone();
        let has = |stored: &Bytes| *stored == body || KeySet::parse(stored).is_ok_and(|stored| stored.marks() == marks);
        let lacking = inner.replicated.iter().filter(|(_, stored)| !stored.as_ref().is_some_and(has));
        let told: Vec<_> = lacking.map(|(auth, _)| (auth.clone(), body.clone())).collect();
        (!told.is_empty()).then_some(told)
    }

    fn failed(&self, error: &Failure) {
        let now = Instant::now();
        let mut inner = self.inner();
        if !inner.schedule.is_failing() {
            tracing::warn!(issuer = self.source.issuer, %error, "the issuer's keys are not to be had");
        }
        inner.schedule.failed(now);
        if now.duration_since(inner.confirmed) >= self.timing.stale && self.keys.swap(None).is_some() {
            inner.body = Bytes::new();
            tracing::error!(issuer = self.source.issuer, %error, "the issuer's keys are too old; its tokens are refused");
        }
    }
}

/// `max-age` of a Cache-Control; zero for `no-cache` and `no-store` (RFC 9111 §5.2.2).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut found = None;
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            match directive.split_once('=') {
                Some(("max-age", seconds)) => {
                    found = found.or(seconds.trim_matches('"').parse().ok().map(Duration::from_secs));
                }
                None if directive == "no-cache" || directive == "no-store" => return Some(Duration::ZERO),
                _ => {}
            }
        }
    }
    found
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cache_control_is_read_as_a_time() {
        let check = |value: &'static str, expected: Option<u64>| {
            let headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(value))]);
            assert_eq!(max_age(&headers).map(|it| it.as_secs()), expected, "{value}");
        };
        check("public, max-age=600, must-revalidate", Some(600));
        check("Max-Age=\"600\"", Some(600));
        check("max-age=600, no-store", Some(0));
        check("no-cache", Some(0));
        check("public", None);
        check("max-age=x", None);
        check("max-age=-1", None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
