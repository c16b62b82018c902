//! What each worker remembers of the exchanges that it served last, for `explain request`, and whom it shows them to as
//! they end, for `tap`. It is asked through a queue, so that an exchange locks nothing.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::Method;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::record::Logged;

/// How many a worker remembers: of those that went well, and of those that did not, which nothing pushes out but others of
/// their kind.
const WELL_MAX: usize = 1_024;
const ILL_MAX: usize = 4_096;
/// Of a path and of a host.
const TEXT_BYTES_MAX: usize = 512;
/// Text buffers that are kept for the next exchanges.
const SPARES_MAX: usize = 64;
/// Questions that wait for a worker.
pub(crate) const ASKS_MAX: usize = 64;
/// Taps at a time.
const TAPS_MAX: usize = 16;

/// What an exchange is in its trace; all of it zero while traces are not sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traced {
    pub span_id: u64,
    /// None: the trace begins here.
    pub parent_id: Option<u64>,
    pub sampled: bool,
}

/// One exchange that has ended, for people.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub request_id: Uuid,
    pub trace_id: String,
    pub traced: Traced,
    /// Milliseconds since 1970 at its end.
    pub ended_ms: u64,
    pub revision: u64,
    pub route: Option<Arc<str>>,
    pub client_ip: IpAddr,
    pub method: Method,
    pub host: String,
    pub path: String,
    pub protocol: &'static str,
    pub tls: bool,
    pub status: u16,
    /// "" where nothing was refused, cut or left.
    pub code: &'static str,
    pub detail: &'static str,
    pub consumer: Option<Arc<str>>,
    pub credential: Option<Arc<str>>,
    pub auth_method: Option<&'static str>,
    /// Which phase decided, by what; "" where none had to.
    pub phase: &'static str,
    pub policy: Option<Arc<str>>,
    pub rule: Option<Arc<str>>,
    pub shadow: Vec<Box<str>>,
    /// What was compared, and other numbers of the decision.
    pub numbers: Vec<(&'static str, u64)>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Until it was handed to the upstream, or to the end.
    pub gateway: Duration,
    pub connect: Option<Duration>,
    pub ttfb: Option<Duration>,
    pub total: Duration,
    pub upstream: Option<Arc<str>>,
    pub attempts: u32,
}

/// Which exchanges a tap shows.
#[derive(Debug, Clone)]
pub struct Filter {
    pub route: Option<String>,
    /// Both ends belong to it.
    pub status: (u16, u16),
    pub code: Option<String>,
    pub consumer: Option<String>,
    /// Of those that match, every so-manieth; at least 1.
    pub every: u32,
    /// Those alone whose trace is sampled.
    pub sampled_only: bool,
}

/// One who watches. Both queue and number of taps are bounded: what does not fit is counted and not shown.
pub struct Tap {
    pub exchanges: mpsc::Receiver<Exchange>,
    pub dropped: Arc<AtomicU64>,
}

/// A question to a worker.
pub(crate) enum Ask {
    Find(Uuid, oneshot::Sender<Option<Exchange>>),
    Tap(Watcher),
}

#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) filter: Filter,
    pub(crate) shown: mpsc::Sender<Exchange>,
    pub(crate) dropped: Arc<AtomicU64>,
}

/// What is remembered of one exchange; host, path and trace id lie in its buffer.
pub(crate) struct Entry {
    pub(crate) text: Box<Logged>,
    pub(crate) rest: Exchange,
}

/// Of one worker.
#[derive(Default)]
pub(crate) struct Recent {
    well: RefCell<VecDeque<Entry>>,
    ill: RefCell<VecDeque<Entry>>,
    #[expect(clippy::vec_box, reason = "the boxes themselves are handed on")]
    spares: RefCell<Vec<Box<Logged>>>,
    taps: RefCell<Vec<(Watcher, u32)>>,
    is_tapped: Cell<bool>,
}

impl Exchange {
    fn is_ill(&self) -> bool {
        !self.code.is_empty() || self.status >= 400
    }
}

impl Filter {
    fn takes(&self, it: &Exchange) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|it| Some(it) == found);
        (it.traced.sampled || !self.sampled_only)
            && (self.status.0..=self.status.1).contains(&it.status)
            && is(&self.route, it.route.as_deref())
            && is(&self.code, Some(it.code))
            && is(&self.consumer, it.consumer.as_deref())
    }
}

impl Entry {
    fn shown(&self) -> Exchange {
        let Logged { host, path, trace_id } = &*self.text;
        Exchange { host: host.clone(), path: path.clone(), trace_id: trace_id.clone(), ..self.rest.clone() }
    }
}

impl Recent {
    /// Empty texts with room in them.
    pub(crate) fn spare(&self) -> Box<Logged> {
        self.spares.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn remember(&self, mut entry: Entry) {
        let Logged { host, path, .. } = &mut *entry.text;
        [host, path].into_iter().for_each(shorten);
        if self.is_tapped.get() {
            self.show(&entry);
        }
        let (ring, max) = match entry.rest.is_ill() {
            true => (&self.ill, ILL_MAX),
            false => (&self.well, WELL_MAX),
        };
        let mut ring = ring.borrow_mut();
        let oldest = if ring.len() >= max { ring.pop_front() } else { None };
        ring.push_back(entry);
        drop(ring);
        let mut spares = self.spares.borrow_mut();
        if let Some(Entry { mut text, .. }) = oldest.filter(|_| spares.len() < SPARES_MAX) {
            text.clear();
            spares.push(text);
        }
    }

    pub(crate) fn answer(&self, ask: Ask) {
        match ask {
            // Nobody waits any more: fine.
            Ask::Find(id, answer) => drop(answer.send(self.find(id))),
            Ask::Tap(watcher) => {
                let mut taps = self.taps.borrow_mut();
                taps.retain(|(tap, _)| !tap.shown.is_closed());
                if taps.len() < TAPS_MAX {
                    taps.push((watcher, 0));
                }
                self.is_tapped.set(true);
            }
        }
    }

    /// The newest under that id: a client that a proxy is trusted with may send one id twice.
    fn find(&self, id: Uuid) -> Option<Exchange> {
        let newest = |ring: &VecDeque<Entry>| ring.iter().rev().find(|it| it.rest.request_id == id).map(Entry::shown);
        let found = [newest(&self.ill.borrow()), newest(&self.well.borrow())];
        found.into_iter().flatten().max_by_key(|it| it.ended_ms)
    }

    fn show(&self, entry: &Entry) {
        let mut taps = self.taps.borrow_mut();
        taps.retain_mut(|(tap, seen)| {
            if tap.shown.is_closed() {
                return false;
            }
            if tap.filter.takes(&entry.rest) {
                *seen += 1;
                if *seen >= tap.filter.every {
                    *seen = 0;
                    if tap.shown.try_send(entry.shown()).is_err() {
                        tap.dropped.fetch_add(1, Relaxed);
                    }
                }
            }
            true
        });
        self.is_tapped.set(!taps.is_empty());
    }
}

/// What is longer lies in the access log.
fn shorten(text: &mut String) {
    if text.len() <= TEXT_BYTES_MAX {
        return;
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text.shrink_to_fit();
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u128, status: u16, path: &str) -> Entry {
        let text = Box::new(Logged { host: "shop.test".into(), path: path.into(), trace_id: String::new() });
        Entry { text, rest: blank(Uuid::from_u128(id), status) }
    }

    fn blank(request_id: Uuid, status: u16) -> Exchange {
        Exchange {
            request_id,
            trace_id: String::new(),
            traced: Traced::default(),
            ended_ms: 1,
            revision: 7,
            route: Some("orders".into()),
            client_ip: IpAddr::from([127, 0, 0, 1]),
            method: Method::GET,
            host: String::new(),
            path: String::new(),
            protocol: "HTTP/1.1",
            tls: false,
            status,
            code: if status >= 400 { "no_route" } else { "" },
            detail: "",
            consumer: None,
            credential: None,
            auth_method: None,
            phase: "",
            policy: None,
            rule: None,
            shadow: Vec::new(),
            numbers: Vec::new(),
            received_bytes: 0,
            sent_bytes: 0,
            gateway: Duration::ZERO,
            connect: None,
            ttfb: None,
            total: Duration::ZERO,
            upstream: None,
            attempts: 0,
        }
    }

    fn find(recent: &Recent, id: u128) -> Option<Exchange> {
        let (told, mut heard) = oneshot::channel();
        recent.answer(Ask::Find(Uuid::from_u128(id), told));
        heard.try_recv().unwrap()
    }

    #[test]
    fn a_flood_of_good_exchanges_does_not_push_out_a_bad_one() {
        let recent = Recent::default();
        recent.remember(entry(1, 404, "/lost"));
        for id in 2..WELL_MAX as u128 + 3 {
            recent.remember(entry(id, 200, "/"));
        }
        assert_eq!(find(&recent, 1).map(|it| (it.status, it.path)), Some((404, "/lost".into())));
        assert!(find(&recent, 2).is_none(), "the oldest good one is forgotten");
        assert!(find(&recent, 3).is_some());
    }

    #[test]
    fn long_paths_are_cut_and_take_no_more_room() {
        let recent = Recent::default();
        recent.remember(entry(1, 200, &"ä".repeat(10_000)));
        assert_eq!(find(&recent, 1).unwrap().path.len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn a_tap_shows_what_it_asks_for_and_counts_what_does_not_fit() {
        let recent = Recent::default();
        let (shown, mut seen) = mpsc::channel(1);
        let dropped = Arc::<AtomicU64>::default();
        let filter =
            Filter { route: None, status: (500, 599), code: None, consumer: None, every: 1, sampled_only: false };
        recent.answer(Ask::Tap(Watcher { filter, shown, dropped: dropped.clone() }));
        for (id, status) in [(1, 200), (2, 500), (3, 503), (4, 404)] {
            recent.remember(entry(id, status, "/"));
        }
        assert_eq!(seen.try_recv().unwrap().request_id, Uuid::from_u128(2));
        assert!(seen.try_recv().is_err());
        assert_eq!(dropped.load(Relaxed), 1);
        drop(seen);
        recent.remember(entry(5, 500, "/"));
        assert!(!recent.is_tapped.get(), "nobody watches any more");
    }

    #[test]
    fn one_of_so_many_is_shown() {
        let recent = Recent::default();
        let (shown, mut seen) = mpsc::channel(8);
        let (route, sampled_only) = (Some("orders".into()), false);
        let filter = Filter { route, status: (0, 999), code: None, consumer: None, every: 3, sampled_only };
        recent.answer(Ask::Tap(Watcher { filter, shown, dropped: Arc::default() }));
        (1..=7).for_each(|id| recent.remember(entry(id, 200, "/")));
        let ids: Vec<_> = std::iter::from_fn(|| seen.try_recv().ok()).map(|it| it.request_id.as_u128()).collect();
        assert_eq!(ids, [3, 6]);
    }
}
