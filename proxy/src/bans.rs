//! Whom the cluster has banned, as requests meet it: one atomic load while there is nobody, a look-up in a hash table for each
//! length of network that is in it else.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use imbl::OrdMap;
use ipnet::IpNet;
use quorumgate_model::{
    ban::{Ban, BanSubject},
    mutants::{self, Mutant},
};

use crate::identity::Caller;

type Entries = OrdMap<BanSubject, Arc<Ban>>;

#[derive(Debug, Default)]
pub struct Bans {
    count: AtomicUsize,
    table: ArcSwap<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// What it was made from.
    entries: Entries,
    v4: Vec<(u8, HashMap<u32, Arc<Ban>>)>,
    v6: Vec<(u8, HashMap<u128, Arc<Ban>>)>,
    consumers: HashMap<Box<str>, Arc<Ban>>,
    credentials: HashMap<Arc<str>, Arc<Ban>>,
}

impl Bans {
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The longest network that shuts this address out at this instant of the log clock; the clock is asked only where
    /// there is any.
    pub fn of_address(&self, address: IpAddr, now_us: impl Fn() -> u64) -> Option<Arc<Ban>> {
        if self.is_empty() {
            return None;
        }
        let table = self.table.load();
        let holds = |ban: &&Arc<Ban>| ban.expires_at_us > now_us() && !mutants::is(Mutant::BannedLetIn);
        match address.to_canonical() {
            IpAddr::V4(it) => {
                let masked = |length: u8| it.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                table.v4.iter().find_map(|(length, nets)| nets.get(&masked(*length)).filter(holds)).cloned()
            }
            IpAddr::V6(it) => {
                let masked = |length: u8| it.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                table.v6.iter().find_map(|(length, nets)| nets.get(&masked(*length)).filter(holds)).cloned()
            }
        }
    }

    /// What shuts the caller out, by its consumer or its credential.
    pub fn of_caller(&self, caller: &Caller, now_us: impl Fn() -> u64) -> Option<Arc<Ban>> {
        if self.is_empty() {
            return None;
        }
        let consumer = caller.consumer.as_ref().map(|it| &*it.name);
        let credential = caller.credential.as_ref().map(|it| &*it.id);
        self.of_names(consumer, credential, now_us)
    }

    /// The same, for whoever knows the names alone.
    pub fn of_names(
        &self,
        consumer: Option<&str>,
        credential: Option<&str>,
        now_us: impl Fn() -> u64,
    ) -> Option<Arc<Ban>> {
        let table = self.table.load();
        let found =
            [consumer.and_then(|name| table.consumers.get(name)), credential.and_then(|id| table.credentials.get(id))];
        found.into_iter().flatten().find(|ban| ban.expires_at_us > now_us()).cloned()
    }

    /// Makes the table say what the state says; nothing to do where that is what it says.
    pub(crate) fn publish(&self, entries: &Entries) {
        if self.table.load().entries.ptr_eq(entries) {
            return;
        }
        self.table.store(Arc::new(Table::of(entries)));
        self.count.store(entries.len(), Ordering::Release);
    }
}

impl Table {
    fn of(entries: &Entries) -> Self {
        let mut table = Self { entries: entries.clone(), ..Self::default() };
        for ban in entries.values() {
            match &ban.subject {
                BanSubject::Net(IpNet::V4(net)) => {
                    of_length(&mut table.v4, net.prefix_len()).insert(net.network().to_bits(), ban.clone());
                }
                BanSubject::Net(IpNet::V6(net)) => {
                    of_length(&mut table.v6, net.prefix_len()).insert(net.network().to_bits(), ban.clone());
                }
                BanSubject::Consumer(name) => drop(table.consumers.insert((**name).into(), ban.clone())),
                BanSubject::Credential(id) => drop(table.credentials.insert(id.clone(), ban.clone())),
            }
        }
        table.v4.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        table.v6.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        table
    }
}

fn of_length<T>(lengths: &mut Vec<(u8, HashMap<T, Arc<Ban>>)>, length: u8) -> &mut HashMap<T, Arc<Ban>> {
    let at = lengths.iter().position(|(it, _)| *it == length).unwrap_or_else(|| {
        lengths.push((length, HashMap::new()));
        lengths.len() - 1
    });
    &mut lengths[at].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_ban_that_holds_is_found() {
        let bans = Bans::default();
        let entry = |text: &str, expires_at_us| {
            let subject: BanSubject = text.parse().unwrap();
            let (reason, actor) = ("".into(), "".into());
            (subject.clone(), Arc::new(Ban { subject, expires_at_us, index: 1, wall_ms: 0, reason, actor }))
        };
        let all = [("10.0.0.0/8", 100), ("10.1.2.3", 50), ("2001:db8::/32", 100), ("2001:db8::1", 100)];
        let names = [("consumer:acme", 100), ("credential:00ff", 100)];
        let entries: Entries = all.into_iter().chain(names).map(|(text, end)| entry(text, end)).collect();
        assert!(bans.is_empty());
        bans.publish(&entries);
        for (address, now, expected) in [
            ("10.1.2.3", 0, "10.1.2.3"),
            ("::ffff:10.1.2.3", 0, "10.1.2.3"),
            ("10.1.2.3", 50, "10.0.0.0/8"),
            ("10.1.2.3", 100, ""),
            ("11.0.0.0", 0, ""),
            ("2001:db8::1", 0, "2001:db8::1"),
            ("2001:db8:1::", 0, "2001:db8::/32"),
            ("2001:db9::", 0, ""),
        ] {
            let found = bans.of_address(address.parse().unwrap(), || now).map(|it| it.subject.to_string());
            assert_eq!(found.unwrap_or_default(), expected, "{address} at {now}");
        }
        let named = |consumer, credential, now| bans.of_names(consumer, credential, || now).is_some();
        assert!(named(Some("acme"), None, 0) && named(Some("b"), Some("00ff"), 0));
        assert!(!named(Some("acme"), None, 100) && !named(Some("00ff"), Some("acme"), 0));
        bans.publish(&Entries::new());
        assert!(bans.is_empty() && bans.of_address("10.1.2.3".parse().unwrap(), || 0).is_none());
    }
}
