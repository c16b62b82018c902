//! DNS: names of targets are looked up when they are new, and again when their records' time is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Registry,
    names::{Found, Resolver},
};
use crate::identity::egress::Reach;

/// A name is looked up no more often than this, whatever its records say, and no more seldom.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(600);
/// For addresses that came without a time, as those of the system's own ways do.
const TTL_UNKNOWN: Duration = Duration::from_secs(30);
/// After a look-up that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// A look-up is made later by up to this share, so that nodes and names drift apart.
const JITTER_PERCENT: u32 = 10;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOKUPS_AT_ONCE_MAX: usize = 32;
/// Addresses kept of one name.
const ADDRESSES_MAX: usize = 64;
/// Of one name it is said no more often that it has addresses which are not gone to.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// While nothing is due.
const FAR: Duration = Duration::from_secs(3_600);

/// When each name is due; none of those that are being looked up.
#[derive(Default)]
struct Calendar {
    due: BTreeMap<String, Instant>,
    under_way: BTreeSet<String>,
    /// When it was last said of a name that it has addresses which are not gone to.
    warned: BTreeMap<String, Instant>,
    random: RandomState,
}

/// A look-up that fails keeps the last good addresses; one that never succeeded leaves the target without any.
pub(super) async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let mut changes = registry.changes();
    let mut calendar = Calendar::default();
    let mut resolver = Resolver::new(registry.name_servers());
    let mut lookups = FuturesUnordered::new();
    loop {
        changes.mark_unchanged();
        let names = registry.names();
        calendar.follow(names.keys());
        let now = Instant::now();
        while lookups.len() < LOOKUPS_AT_ONCE_MAX
            && let Some(name) = calendar.take_due(now)
        {
            let known = names.get(&name).cloned().flatten().unwrap_or_default();
            lookups.push(look_up(resolver.current(), name, known));
        }
        let next = if lookups.len() < LOOKUPS_AT_ONCE_MAX { calendar.next() } else { None };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            Some(first) = lookups.next(), if !lookups.is_empty() => {
                let mut found = vec![first];
                // All that came at once are one change.
                while let Some(Some(more)) = lookups.next().now_or_never() {
                    found.push(more);
                }
                for it in &found {
                    calendar.is_done(&it.name, it.again_after);
                    if !it.shut_out.is_empty() && calendar.warns_of(&it.name, Instant::now()) {
                        let (name, addresses) = (&it.name, &it.shut_out);
                        tracing::warn!(name, ?addresses, "link-local and metadata addresses of a target's name are not used");
                    }
                }
                registry.resolved(found.into_iter().map(|it| (it.name, it.addresses)).collect());
            }
            () = sleep_until(next.unwrap_or(now + FAR)) => (),
        }
    }
}

impl Calendar {
    /// New names are due at once; those that are gone never.
    fn follow<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        let names: BTreeSet<&String> = names.collect();
        self.due.retain(|name, _| names.contains(name));
        self.warned.retain(|name, _| names.contains(name));
        for name in names {
            if !self.under_way.contains(name) && !self.due.contains_key(name) {
                self.due.insert(name.clone(), Instant::now());
            }
        }
    }

    fn take_due(&mut self, now: Instant) -> Option<String> {
        let name = self.due.iter().filter(|(_, at)| **at <= now).min_by_key(|(_, at)| **at)?.0.clone();
        self.due.remove(&name);
        self.under_way.insert(name.clone());
        Some(name)
    }

    fn warns_of(&mut self, name: &str, now: Instant) -> bool {
        let is_new = self.warned.get(name).is_none_or(|at| now >= *at + WARN_INTERVAL);
        if is_new {
            self.warned.insert(name.to_owned(), now);
        }
        is_new
    }

    fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    fn is_done(&mut self, name: &str, again_after: Duration) {
        self.under_way.remove(name);
        let longest = again_after * JITTER_PERCENT / 100;
        let later = longest.mul_f64(self.random.hash_one((name, Instant::now())) as f64 / u64::MAX as f64);
        self.due.insert(name.to_owned(), Instant::now() + again_after + later);
    }
}

/// What came of a look-up.
struct LookedUp {
    name: String,
    /// In a fixed order, so that a mere rotation changes nothing.
    addresses: Vec<IpAddr>,
    /// Those that no name may lead to.
    shut_out: Vec<IpAddr>,
    again_after: Duration,
}

async fn look_up(resolver: Resolver, name: String, known: Vec<IpAddr>) -> LookedUp {
    let found = timeout(LOOKUP_TIMEOUT, resolver.look_up(&name)).await;
    match found.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {LOOKUP_TIMEOUT:?}"))) {
        Ok(Found { addresses, ttl }) => {
            // Who writes the records of a name does not always own what is beside this node: an address that is written in
            // the configuration may be any.
            let (mut addresses, shut_out): (Vec<_>, Vec<_>) =
                addresses.into_iter().partition(|address| Reach::Private.takes(*address));
            addresses.sort_unstable();
            addresses.dedup();
            addresses.truncate(ADDRESSES_MAX);
            // An answer of nothing else takes no addresses away, like one that fails.
            if addresses.is_empty() && !shut_out.is_empty() {
                return LookedUp { name, addresses: known, shut_out, again_after: RETRY_INTERVAL };
            }
            let again_after = ttl.map_or(TTL_UNKNOWN, |ttl| ttl.clamp(TTL_MIN, TTL_MAX));
            LookedUp { name, addresses, shut_out, again_after }
        }
        Err(error) => {
            tracing::warn!(name, error = format!("{error:#}"), kept = known.len(), "name not resolved");
            LookedUp { name, addresses: known, shut_out: Vec::new(), again_after: RETRY_INTERVAL }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_due_when_its_time_is_over_and_never_while_it_is_looked_up() {
        let mut calendar = Calendar::default();
        let names = ["a".to_owned(), "b".to_owned()];
        calendar.follow(names.iter());
        let now = Instant::now();
        assert_eq!(
            [calendar.take_due(now), calendar.take_due(now), calendar.take_due(now)],
            [Some("a".to_owned()), Some("b".to_owned()), None]
        );
        calendar.follow(names.iter());
        assert_eq!(calendar.next(), None, "both are under way");
        calendar.is_done("a", Duration::from_secs(10));
        let due = calendar.next().unwrap() - now;
        assert!(due >= Duration::from_secs(10) && due < Duration::from_secs(12), "{due:?}");
        assert_eq!(calendar.take_due(now + Duration::from_secs(9)), None);
        assert_eq!(calendar.take_due(now + Duration::from_secs(12)).as_deref(), Some("a"));
        calendar.is_done("a", Duration::from_secs(10));
        calendar.follow(names[1..].iter());
        assert_eq!(calendar.next(), None, "nobody asks for it any more");
    }

    #[test]
    fn what_is_not_used_of_a_name_is_told_once_a_minute() {
        let mut calendar = Calendar::default();
        let now = Instant::now();
        let told = [0, 1, 59, 60, 61].map(|after| calendar.warns_of("a", now + Duration::from_secs(after)));
        assert_eq!(told, [true, false, false, true, false]);
        assert!(calendar.warns_of("b", now));
    }
}
