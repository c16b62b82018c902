//! The listeners that the cluster's resources ask for: opened, changed and closed on every worker while they serve. One
//! that this node cannot open is reported and tried again; the others stand.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorumgate_model::{
    digest::Digest,
    resource::{self, Certificate, Key, Kind, Name, Resource, Resources, Stored},
};
use rustls::sign::CertifiedKey;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    identity::directory::Opened,
    listener,
    metrics::escape,
    reception::{Keys, Open, Reception},
    tls::Shown,
};

/// Orders that may wait for a worker, which takes them at once unless it has broken down.
pub(crate) const ORDERS_MAX: usize = 4_096;
/// How often what could not be opened is tried again; at first sooner: the address may be one that was closed just now.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(2);

/// What a worker is asked to do.
pub(crate) enum Order {
    Accept(TcpListener, Arc<Open>),
    /// Drive a QUIC socket.
    #[cfg(feature = "http3")]
    Quic(crate::http3::Opened),
    /// Serve a connection that came in by one.
    #[cfg(feature = "http3")]
    Connect(Box<crate::http3::Incoming>, Arc<Open>),
    /// Of this listener's connections those that were let in by other rules are asked to go.
    Recheck(Arc<Open>),
}

pub struct Listeners {
    workers: Vec<mpsc::Sender<Order>>,
    keys: Keys,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// What the listeners were made from.
    resources: Resources,
    opened: Arc<Opened>,
    listeners: BTreeMap<SocketAddr, Entry>,
    /// The certificates that listeners show, with the state of the resource that each was read from.
    shown: BTreeMap<Name, (Digest, Arc<Certificate>, Shown)>,
}

#[derive(Default)]
struct Entry {
    /// Always there, once it is made.
    name: Option<Name>,
    /// Of everything that it was made from.
    made_of: Vec<Digest>,
    open: Option<Arc<Open>>,
    /// Closes its QUIC socket.
    quic: Option<CancellationToken>,
    /// Why it is not open, or not as it should be.
    failure: Option<String>,
}

/// A listener that does not stand on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub listener: Name,
    pub address: SocketAddr,
    pub why: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener {} ({}): {}", self.listener, self.address, self.why)
    }
}

impl Listeners {
    pub(crate) fn new(workers: Vec<mpsc::Sender<Order>>, keys: Keys) -> Self {
        Self { workers, keys, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether these are not the ones that were published last.
    pub fn differ_from(&self, resources: &Resources, opened: &Arc<Opened>) -> bool {
        let table = self.table();
        !(table.resources.ptr_eq(resources) && Arc::ptr_eq(&table.opened, opened))
    }

    /// When this returns, what could be opened takes connections on every worker, and each new handshake is by the new
    /// certificates. Nothing that did not change is touched.
    pub fn publish(&self, resources: &Resources, opened: &Arc<Opened>) {
        let mut table = self.table();
        if !opened.ticket_keys.is_empty() && table.opened.ticket_keys != opened.ticket_keys {
            self.keys.tickets.set(&opened.ticket_keys);
        }
        table.resources = resources.clone();
        table.opened = opened.clone();
        table.read_certificates();
        let wanted = of_kind(resources, Kind::Listener).filter_map(|stored| match &stored.resource {
            Resource::Listener(it) => Some((it.clone(), stored.etag)),
            _ => None,
        });
        let wanted: BTreeMap<SocketAddr, (Arc<resource::Listener>, Digest)> =
            wanted.map(|(it, etag)| (it.address, (it, etag))).collect();
        // First what goes: its address may be a part of what comes.
        table.listeners.retain(|address, entry| {
            let stays = wanted.contains_key(address);
            if let Some(open) = entry.open.as_ref().filter(|_| !stays) {
                open.close.cancel();
                tracing::info!(listener = entry.name.as_deref(), %address, "listener closed");
            }
            stays
        });
        for (address, (listener, etag)) in wanted {
            let made_of = table.made_of(&listener, etag);
            match table.listeners.get(&address) {
                Some(entry) if entry.made_of == made_of => continue,
                _ => self.make(&mut table, &listener, made_of),
            }
        }
    }

    /// Changes an open listener in place, or opens it.
    fn make(&self, table: &mut Table, listener: &resource::Listener, made_of: Vec<Digest>) {
        let address = listener.address;
        let mut entry = table.listeners.remove(&address).unwrap_or_default();
        let known = entry.failure.take();
        entry.name = Some(listener.name.clone());
        entry.made_of = made_of;
        entry.failure = match table.reception(listener, &self.keys) {
            Ok((reception, lacks)) => self.follow(&mut entry, address, reception).err().or(lacks),
            Err(error) => Some(format!("{error:#}")),
        };
        // Said once, however often it is tried again.
        if let Some(why) = entry.failure.as_ref().filter(|why| known.as_ref() != Some(*why)) {
            tracing::error!(listener = %listener.name, %address, why, "a listener does not stand on this node");
        }
        table.listeners.insert(address, entry);
    }

    fn follow(&self, entry: &mut Entry, address: SocketAddr, reception: Reception) -> Result<(), String> {
        let listener = entry.name.as_deref();
        match &entry.open {
            Some(open) => {
                let before = open.reception.swap(Arc::new(reception));
                if !open.reception.load().lets_stay(&before) {
                    self.workers.iter().for_each(|worker| drop(worker.try_send(Order::Recheck(open.clone()))));
                }
                tracing::info!(listener, %address, "listener changed");
            }
            None => {
                let open = self.open(address, reception).map_err(|error| format!("cannot listen: {error}"))?;
                tracing::info!(listener, %address, "listener opened");
                entry.open = Some(open);
            }
        }
        #[cfg(feature = "http3")]
        self.follow_http3(entry, address).map_err(|error| format!("cannot listen for HTTP/3: {error}"))?;
        Ok(())
    }

    fn open(&self, address: SocketAddr, reception: Reception) -> std::io::Result<Arc<Open>> {
        let (sockets, _) = listener::bind(address, self.workers.len())?;
        let open = Open::new(reception);
        for (worker, socket) in self.workers.iter().zip(sockets) {
            // A worker that takes nothing has broken down, which ends the process.
            let _ = worker.try_send(Order::Accept(socket, open.clone()));
        }
        Ok(open)
    }

    /// Opens the QUIC socket that the reception asks for, or closes one that it has no use for any more.
    #[cfg(feature = "http3")]
    fn follow_http3(&self, entry: &mut Entry, address: SocketAddr) -> std::io::Result<()> {
        let Some(open) = &entry.open else { return Ok(()) };
        match (open.reception.load().has_http3(), &entry.quic) {
            (true, None) => {
                let socket = crate::http3::bind(address)?;
                let close = open.close.child_token();
                // Each has one worker that drives it, by its port, so that several have several.
                let worker = &self.workers[usize::from(address.port()) % self.workers.len()];
                let (open, workers) = (open.clone(), self.workers.clone());
                let _ =
                    worker.try_send(Order::Quic(crate::http3::Opened { socket, open, close: close.clone(), workers }));
                entry.quic = Some(close);
            }
            (false, Some(close)) => {
                close.cancel();
                entry.quic = None;
            }
            _ => {}
        }
        open.quic.store(entry.quic.is_some(), std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// All that could be read, for whoever else shows them.
    pub fn certificates(&self) -> BTreeMap<Name, Arc<CertifiedKey>> {
        let table = self.table();
        table.shown.iter().map(|(name, (_, _, shown))| (name.clone(), shown.key.clone())).collect()
    }

    /// Tries again what could not be opened.
    fn retry(&self) {
        let mut table = self.table();
        let fallen = table.listeners.values().filter(|entry| !entry.stands());
        let names: Vec<Name> = fallen.filter_map(|entry| entry.name.clone()).collect();
        for name in names {
            let found = table.resources.get(&Key { kind: Kind::Listener, name }).cloned();
            let Some(Stored { resource: Resource::Listener(listener), etag }) = found else { continue };
            let made_of = table.made_of(&listener, etag);
            self.make(&mut table, &listener, made_of);
        }
    }

    /// Until `stop`: what cannot be opened now may be able to later. `tell` hears of those that do not stand, whenever they
    /// are others than before.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, mut tell: impl FnMut(&[Failed])) {
        let mut pause = RETRY_FIRST;
        let mut told = Vec::new();
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let waits = self.table().listeners.values().any(|entry| !entry.stands());
            if waits {
                self.retry();
            }
            pause = if waits { (pause * 2).min(RETRY) } else { RETRY_FIRST };
            let failed = self.failed();
            if failed != told {
                tell(&failed);
                told = failed;
            }
        }
    }

    /// Those that do not stand, or not as they should.
    pub fn failed(&self) -> Vec<Failed> {
        let table = self.table();
        let failed = table.listeners.iter().filter_map(|(address, entry)| {
            let why = entry.failure.clone()?;
            Some(Failed { listener: entry.name.clone()?, address: *address, why })
        });
        failed.collect()
    }

    /// Appends the Prometheus text of `quorumgate_listener_up` and `quorumgate_tls_cert_not_after_seconds`.
    pub(crate) fn metrics(&self, out: &mut String) {
        let table = self.table();
        let _ = writeln!(out, "# HELP quorumgate_listener_up 1 where a configured listener takes connections.");
        let _ = writeln!(out, "# TYPE quorumgate_listener_up gauge");
        for entry in table.listeners.values() {
            let up = u8::from(entry.open.is_some());
            let _ = writeln!(
                out,
                "quorumgate_listener_up{{listener=\"{}\"}} {up}",
                escape(entry.name.as_deref().unwrap_or_default())
            );
        }
        let _ = writeln!(
            out,
            "# HELP quorumgate_tls_cert_not_after_seconds Until when a certificate is good, seconds since 1970.\n\
             # TYPE quorumgate_tls_cert_not_after_seconds gauge"
        );
        for (name, (_, _, shown)) in &table.shown {
            let until = shown.not_after_s;
            let _ = writeln!(out, "quorumgate_tls_cert_not_after_seconds{{certificate=\"{}\"}} {until}", escape(name));
        }
    }
}

impl Entry {
    fn stands(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.reception.load().has_http3() || self.quic.is_some())
    }
}

impl Table {
    /// Reads the certificates that have changed.
    fn read_certificates(&mut self) {
        let mut known = std::mem::take(&mut self.shown);
        for Stored { resource, etag } in of_kind(&self.resources, Kind::Certificate) {
            let Resource::Certificate(it) = resource else { continue };
            if let Some(known) = known.remove(&it.name).filter(|(before, ..)| before == etag) {
                self.shown.insert(it.name.clone(), known);
                continue;
            }
            let key = it.key.fingerprint().and_then(|fingerprint| self.opened.of_resource(fingerprint));
            let read = match key {
                Some(key) => Shown::read(it, key).map_err(|invalid| invalid.to_string()),
                None => Err("its key cannot be opened on this node".to_owned()),
            };
            match read {
                Ok(shown) => drop(self.shown.insert(it.name.clone(), (*etag, it.clone(), shown))),
                Err(why) => tracing::error!(certificate = %it.name, why, "a certificate cannot be shown"),
            }
        }
    }

    /// Equal where a listener would be the same.
    fn made_of(&self, listener: &resource::Listener, etag: Digest) -> Vec<Digest> {
        let ca = listener.client_ca.as_ref().and_then(|ca| {
            let key = Key { kind: Kind::CertificateAuthority, name: ca.clone() };
            self.resources.get(&key).map(|stored| stored.etag)
        });
        let certificates = listener.certificates.iter().filter_map(|name| self.shown.get(name).map(|(etag, ..)| *etag));
        [etag].into_iter().chain(ca).chain(certificates).collect()
    }

    /// With what it lacks on this node, in words.
    fn reception(&self, listener: &resource::Listener, keys: &Keys) -> anyhow::Result<(Reception, Option<String>)> {
        let ca = listener.client_ca.as_ref().map(|name| {
            let key = Key { kind: Kind::CertificateAuthority, name: name.clone() };
            match self.resources.get(&key).map(|stored| &stored.resource) {
                Some(Resource::CertificateAuthority(ca)) => Ok(ca.clone()),
                _ => Err(anyhow::anyhow!("{key} does not exist")),
            }
        });
        let ca = ca.transpose()?;
        let (mut certificates, mut lacking) = (Vec::new(), Vec::new());
        for name in &listener.certificates {
            match self.shown.get(name) {
                Some((_, certificate, shown)) => certificates.push((certificate.clone(), shown.clone())),
                None => lacking.push(name.to_string()),
            }
        }
        let reception = Reception::of_resource(listener, &certificates, ca.as_deref(), keys)?;
        let lacks = (!lacking.is_empty()).then(|| format!("cannot show certificate {}", lacking.join(", ")));
        Ok((reception, lacks))
    }
}

/// Without a look at the others, of which there may be a million.
fn of_kind(resources: &Resources, kind: Kind) -> impl Iterator<Item = &Stored> {
    let first: Name = "0".parse().expect("the least of all names is one");
    let objects = resources.range(Key { kind, name: first }..).take_while(move |(key, _)| key.kind == kind);
    objects.map(|(_, stored)| stored)
}
