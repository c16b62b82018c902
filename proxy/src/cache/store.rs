//! Answers that a node keeps, all workers together, in a bounded part of its memory: the longest unused go first.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use quorumgate_model::mutants::{self, Mutant};

/// What a node keeps of answers, with what it takes to find them.
pub const CACHE_BYTES_MAX: usize = 128 << 20;
/// So that workers seldom wait for each other.
const SHARDS: usize = 16;
/// So that what changes one URL seldom keeps answers to others out.
const CHANGES: usize = 4096;
/// Answers to one question that differ by what `Vary` names.
const VARIANTS_MAX: usize = 32;
/// Bytes of answers that are on their way into the store, of all workers.
const FILLING_BYTES_MAX: usize = 32 << 20;
/// Of an answer beside its body and fields.
const OVERHEAD_BYTES: usize = 512;

/// An answer that is whole.
#[derive(Debug)]
pub(crate) struct Stored {
    /// `Question::way`
    pub(super) way: Box<str>,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What `Vary` names, with what the request had there.
    pub(super) vary: Vec<(HeaderName, Option<Bytes>)>,
    /// When it came, or was last said to be good still.
    pub(super) since: Instant,
    pub(super) age_then: Duration,
    pub(super) lifetime: Duration,
    /// Never without asking the upstream.
    pub(super) ask_first: bool,
    /// How long it may be used once it is stale; nothing where it forbids that.
    pub(super) while_revalidate: Duration,
    pub(super) if_error: Duration,
    pub(super) may_be_stale: bool,
}

impl Stored {
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.age_then + now.saturating_duration_since(self.since)
    }

    /// Past its lifetime by this; None: it is fresh.
    pub(super) fn staleness(&self, now: Instant) -> Option<Duration> {
        let age = self.age(now);
        (age >= self.lifetime).then(|| age - self.lifetime)
    }

    fn answers(&self, way: &str, headers: &HeaderMap) -> bool {
        let same = |(name, value): &(HeaderName, Option<Bytes>)| selecting(headers, name) == *value;
        *self.way == *way && (self.vary.iter().all(same) || mutants::is(Mutant::VaryIgnored))
    }

    fn cost(&self) -> usize {
        let fields: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        let vary = |(_, value): &(HeaderName, Option<Bytes>)| value.as_ref().map_or(0, Bytes::len) + 64;
        OVERHEAD_BYTES + self.way.len() + self.body.len() + fields + self.vary.iter().map(vary).sum::<usize>()
    }
}

/// What a request has in a field that answers vary on: all of its values as one.
pub(super) fn selecting(headers: &HeaderMap, name: &HeaderName) -> Option<Bytes> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes().trim_ascii();
    let mut all = first.to_vec();
    for value in values {
        all.extend_from_slice(b", ");
        all.extend_from_slice(value.as_bytes().trim_ascii());
    }
    Some(Bytes::from(all))
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Arc<str>, Entry>,
    /// By their last use.
    order: BTreeMap<u64, Arc<str>>,
    bytes: usize,
    turn: u64,
}

struct Entry {
    variants: Vec<Arc<Stored>>,
    turn: u64,
    bytes: usize,
}

/// One for all workers of a node.
pub(crate) struct Store {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    evicted: AtomicU64,
    /// How often something was purged, and of how many URLs.
    purges: AtomicU64,
    purged_urls: AtomicU64,
    /// How often a URL was changed, one of those with its hash.
    changes: Vec<AtomicU64>,
    filling: AtomicUsize,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            evicted: AtomicU64::new(0),
            purges: AtomicU64::new(0),
            purged_urls: AtomicU64::new(0),
            changes: (0..CHANGES).map(|_| AtomicU64::new(0)).collect(),
            filling: AtomicUsize::new(0),
        }
    }
}

impl Store {
    fn shard(&self, url: &str) -> MutexGuard<'_, Shard> {
        let place = self.hasher.hash_one(url) as usize % SHARDS;
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest answer to this question, as far as the request's fields go.
    pub(super) fn find(&self, url: &str, way: &str, headers: &HeaderMap) -> Option<Arc<Stored>> {
        let mut shard = self.shard(url);
        let shard = &mut *shard;
        shard.turn += 1;
        let (name, _) = shard.entries.get_key_value(url)?;
        let name = name.clone();
        let entry = shard.entries.get_mut(url)?;
        let found = entry.variants.iter().rev().find(|it| it.answers(way, headers)).cloned()?;
        shard.order.remove(&std::mem::replace(&mut entry.turn, shard.turn));
        shard.order.insert(shard.turn, name);
        Some(found)
    }

    /// In the place of those that it answers instead of; not if something was purged since `purged` was read, for this
    /// may be what was meant.
    pub(super) fn put(&self, url: &str, stored: Stored, purged: u64) {
        let most = CACHE_BYTES_MAX / SHARDS;
        if stored.cost() + url.len() > most {
            return;
        }
        let mut shard = self.shard(url);
        // Under the lock: a purge counts first and looks into the shards then.
        if self.purged(url) != purged {
            return;
        }
        let shard = &mut *shard;
        shard.turn += 1;
        let turn = shard.turn;
        let name: Arc<str> = match shard.entries.get_key_value(url) {
            Some((name, _)) => name.clone(),
            None => url.into(),
        };
        let entry =
            shard.entries.entry(name.clone()).or_insert_with(|| Entry { variants: Vec::new(), turn: 0, bytes: 0 });
        let before = entry.bytes;
        entry.variants.retain(|it| it.vary != stored.vary || it.way != stored.way);
        entry.variants.push(Arc::new(stored));
        entry.count(url);
        while entry.variants.len() > VARIANTS_MAX || entry.bytes > most {
            entry.variants.remove(0);
            entry.count(url);
        }
        shard.bytes = shard.bytes - before + entry.bytes;
        shard.order.remove(&std::mem::replace(&mut entry.turn, turn));
        shard.order.insert(turn, name);
        while shard.bytes > most {
            let Some((_, oldest)) = shard.order.pop_first() else { return };
            if let Some(gone) = shard.entries.remove(&oldest) {
                shard.bytes -= gone.bytes;
                self.evicted.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether anything was there.
    pub(super) fn forget(&self, url: &str) -> bool {
        let mut shard = self.shard(url);
        let Some(gone) = shard.entries.remove(url) else { return false };
        shard.bytes -= gone.bytes;
        shard.order.remove(&gone.turn);
        true
    }

    /// How many URLs went.
    pub(super) fn forget_where(&self, matches: impl Fn(&str, &[Arc<Stored>]) -> bool) -> u64 {
        let mut count = 0;
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let shard = &mut *shard;
            shard.entries.retain(|url, entry| {
                if !matches(url, &entry.variants) {
                    return true;
                }
                shard.bytes -= entry.bytes;
                shard.order.remove(&entry.turn);
                count += 1;
                false
            });
        }
        count
    }

    /// Grows whenever something is purged, or this URL changes.
    pub(super) fn purged(&self, url: &str) -> u64 {
        self.purges.load(SeqCst) + self.changes(url).load(SeqCst)
    }

    fn changes(&self, url: &str) -> &AtomicU64 {
        &self.changes[self.hasher.hash_one(url) as usize % CHANGES]
    }

    /// Its answers are no longer true, those on their way neither.
    pub(super) fn changed(&self, url: &str) {
        self.changes(url).fetch_add(1, SeqCst);
        self.forget(url);
    }

    pub(super) fn purge_begins(&self) {
        self.purges.fetch_add(1, SeqCst);
    }

    pub(super) fn count_purged(&self, urls: u64) {
        self.purged_urls.fetch_add(urls, Relaxed);
    }

    pub(super) fn purged_urls(&self) -> u64 {
        self.purged_urls.load(Relaxed)
    }

    /// Bytes, and URLs.
    pub(super) fn size(&self) -> (usize, usize) {
        let size = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (shard.bytes, shard.entries.len())
        };
        self.shards.iter().map(size).fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Whether there is room for so much more of what is not whole yet; then it is to be given back.
    pub(super) fn fills(&self, bytes: usize) -> bool {
        let fits = |filling: usize| filling.checked_add(bytes).filter(|sum| *sum <= FILLING_BYTES_MAX);
        self.filling.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    pub(super) fn filled(&self, bytes: usize) {
        self.filling.fetch_sub(bytes, Relaxed);
    }
}

impl Entry {
    fn count(&mut self, url: &str) {
        self.bytes = url.len() + self.variants.iter().map(|it| it.cost()).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    fn stored(size: usize, vary: &[(&'static str, Option<&'static str>)]) -> Stored {
        let value = |value: &Option<&'static str>| value.map(|it| Bytes::from_static(it.as_bytes()));
        Stored {
            way: "way".into(),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from(vec![0; size]),
            vary: vary.iter().map(|(name, it)| (HeaderName::from_static(name), value(it))).collect(),
            since: Instant::now(),
            age_then: Duration::ZERO,
            lifetime: Duration::from_secs(1),
            ask_first: false,
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            may_be_stale: true,
        }
    }

    #[test]
    fn memory_is_bounded_and_the_longest_unused_go_first() {
        let store = Store::default();
        let none = HeaderMap::new();
        for n in 0..400 {
            store.put(&format!("key {n}"), stored(1 << 20, &[]), 0);
            assert!(store.find("key 0", "way", &none).is_some(), "what is used stays");
        }
        let (bytes, urls) = store.size();
        assert!(bytes <= CACHE_BYTES_MAX && bytes > CACHE_BYTES_MAX / 2, "{bytes}");
        assert!(urls > 60, "{urls}");
        assert!(store.evicted() > 200);
        store.put("too large", stored(CACHE_BYTES_MAX / SHARDS, &[]), 0);
        assert!(store.find("too large", "way", &none).is_none());
        assert!(store.forget_where(|key, _| key.starts_with("key ")) > 0);
        assert_eq!(store.size(), (0, 0));
    }

    #[test]
    fn variants_answer_their_own_requests_only() {
        let store = Store::default();
        store.put("k", stored(1, &[("accept-language", Some("de"))]), 0);
        store.put("k", stored(2, &[("accept-language", None)]), 0);
        let german = HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, HeaderValue::from_static("de"))]);
        let french = HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, HeaderValue::from_static("fr"))]);
        let size = |headers: &HeaderMap| store.find("k", "way", headers).map(|it| it.body.len());
        assert_eq!((size(&german), size(&HeaderMap::new()), size(&french)), (Some(1), Some(2), None));
        store.put("k", stored(3, &[("accept-language", Some("de"))]), 0);
        assert_eq!(size(&german), Some(3));
        for n in 0..100 {
            let mut one = stored(1, &[]);
            one.vary = vec![(header::ACCEPT, Some(Bytes::from(n.to_string())))];
            store.put("k", one, 0);
        }
        assert!(store.size().0 < (VARIANTS_MAX + 1) * (OVERHEAD_BYTES + 80));
        assert!(store.find("k", "another way", &german).is_none());
        assert!(store.forget("k") && !store.forget("k"));
        assert_eq!((store.size(), size(&german)), ((0, 0), None));
    }
    #[test]
    fn variants_that_are_large_push_out_their_own_kind_alone() {
        let store = Store::default();
        let of = |n: usize| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from(n))]);
        for n in 0..10 {
            let mut one = stored(3 << 20, &[]);
            one.vary = vec![(header::ACCEPT, Some(Bytes::from(n.to_string())))];
            store.put("k", one, 0);
        }
        assert!(store.size().0 <= CACHE_BYTES_MAX / SHARDS);
        assert!(store.find("k", "way", &of(9)).is_some() && store.find("k", "way", &of(0)).is_none());
        assert_eq!(store.evicted(), 0);
    }

    #[test]
    fn what_was_asked_before_a_purge_is_not_kept_after_it() {
        let store = Store::default();
        let before = store.purged("k");
        store.purge_begins();
        store.put("k", stored(1, &[]), before);
        assert_eq!(store.size(), (0, 0));
        let between = store.purged("k");
        store.put("k", stored(1, &[]), between);
        assert_eq!(store.size().1, 1);
        store.changed("k");
        store.put("k", stored(1, &[]), between);
        assert_eq!(store.size(), (0, 0), "nor after a change");
        store.put("k", stored(1, &[]), store.purged("k"));
        assert_eq!(store.size().1, 1);
    }

    #[test]
    fn what_is_on_its_way_is_bounded() {
        let store = Store::default();
        assert!(store.fills(FILLING_BYTES_MAX) && !store.fills(1));
        store.filled(1);
        assert!(store.fills(1));
    }
}
