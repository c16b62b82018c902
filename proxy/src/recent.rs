//! What each worker remembers of the exchanges that it served last, for `explain request`, and whom it shows them to as
//! they end, for `tap`. It is asked through a queue, so that an exchange locks nothing.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Method, Version};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    anomaly::{Question, Row},
    record::{Logged, protocol},
};

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
    /// Answered by the worker itself.
    Seen(Arc<Question>, oneshot::Sender<Vec<Row>>),
}

#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) filter: Filter,
    pub(crate) shown: mpsc::Sender<Exchange>,
    pub(crate) dropped: Arc<AtomicU64>,
}

/// What is remembered of one exchange, in the memory that most of them need: all requests write here in turn, and what is
/// large pushes what is needed again out of the processor's caches.
pub(crate) struct Brief {
    pub(crate) request_id: Uuid,
    pub(crate) ended_ms: u64,
    pub(crate) revision: u64,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) client_ip: IpAddr,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) tls: bool,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) gateway: Duration,
    pub(crate) connect: Option<Duration>,
    pub(crate) ttfb: Option<Duration>,
    pub(crate) total: Duration,
    pub(crate) upstream: Option<Arc<str>>,
    pub(crate) attempts: u32,
    /// None: it has nothing of all that.
    pub(crate) more: Option<Box<More>>,
}

/// What only some exchanges have; as in `Exchange`.
#[derive(Clone, Default)]
pub(crate) struct More {
    pub(crate) traced: Traced,
    pub(crate) detail: &'static str,
    pub(crate) consumer: Option<Arc<str>>,
    pub(crate) credential: Option<Arc<str>>,
    pub(crate) auth_method: Option<&'static str>,
    pub(crate) phase: &'static str,
    pub(crate) policy: Option<Arc<str>>,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) shadow: Vec<Box<str>>,
    pub(crate) numbers: Vec<(&'static str, u64)>,
}

struct Entry {
    /// Host, path and trace id, one behind the other.
    text: String,
    host_bytes: usize,
    path_bytes: usize,
    brief: Brief,
}

/// The last of one kind; what is oldest is written over in place.
struct Ring {
    entries: Vec<Entry>,
    max: usize,
    /// Where the next one goes, once it is full.
    next: usize,
}

/// Of one worker.
pub(crate) struct Recent {
    well: RefCell<Ring>,
    ill: RefCell<Ring>,
    #[expect(clippy::vec_box, reason = "the boxes themselves are handed on")]
    spares: RefCell<Vec<Box<Logged>>>,
    taps: RefCell<Vec<(Watcher, u32)>>,
    is_tapped: Cell<bool>,
}

impl Filter {
    fn takes(&self, it: &Brief) -> bool {
        let more = it.more.as_deref();
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|it| Some(it) == found);
        (!self.sampled_only || more.is_some_and(|more| more.traced.sampled))
            && (self.status.0..=self.status.1).contains(&it.status)
            && is(&self.route, it.route.as_deref())
            && is(&self.code, Some(it.code))
            && is(&self.consumer, more.and_then(|more| more.consumer.as_deref()))
    }
}

impl Brief {
    fn is_ill(&self) -> bool {
        !self.code.is_empty() || self.status >= 400
    }

    fn shown(&self, host: &str, path: &str, trace_id: &str) -> Exchange {
        let more = self.more.as_deref().cloned().unwrap_or_default();
        Exchange {
            request_id: self.request_id,
            trace_id: trace_id.into(),
            traced: more.traced,
            ended_ms: self.ended_ms,
            revision: self.revision,
            route: self.route.clone(),
            client_ip: self.client_ip,
            method: self.method.clone(),
            host: host.into(),
            path: path.into(),
            protocol: protocol(self.version),
            tls: self.tls,
            status: self.status,
            code: self.code,
            detail: more.detail,
            consumer: more.consumer,
            credential: more.credential,
            auth_method: more.auth_method,
            phase: more.phase,
            policy: more.policy,
            rule: more.rule,
            shadow: more.shadow,
            numbers: more.numbers,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            gateway: self.gateway,
            connect: self.connect,
            ttfb: self.ttfb,
            total: self.total,
            upstream: self.upstream.clone(),
            attempts: self.attempts,
        }
    }
}

impl Entry {
    fn new(brief: Brief, texts: [&str; 3]) -> Self {
        Self { text: texts.concat(), host_bytes: texts[0].len(), path_bytes: texts[1].len(), brief }
    }

    fn write(&mut self, brief: Brief, [host, path, trace_id]: [&str; 3]) {
        self.brief = brief;
        self.text.clear();
        [host, path, trace_id].into_iter().for_each(|part| self.text.push_str(part));
        (self.host_bytes, self.path_bytes) = (host.len(), path.len());
    }

    fn shown(&self) -> Exchange {
        let (host, rest) = self.text.split_at(self.host_bytes);
        let (path, trace_id) = rest.split_at(self.path_bytes);
        self.brief.shown(host, path, trace_id)
    }
}

impl Ring {
    fn of(max: usize) -> RefCell<Self> {
        RefCell::new(Self { entries: Vec::new(), max, next: 0 })
    }

    fn push(&mut self, brief: Brief, texts: [&str; 3]) {
        if self.entries.len() < self.max {
            return self.entries.push(Entry::new(brief, texts));
        }
        self.entries[self.next].write(brief, texts);
        self.next = (self.next + 1) % self.max;
    }

    /// The newest under that id: a client that a proxy is trusted with may send one id twice.
    fn find(&self, id: Uuid) -> Option<Exchange> {
        let (newer, older) = self.entries.split_at(self.next);
        newer.iter().rev().chain(older.iter().rev()).find(|it| it.brief.request_id == id).map(Entry::shown)
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            well: Ring::of(WELL_MAX),
            ill: Ring::of(ILL_MAX),
            spares: RefCell::default(),
            taps: RefCell::default(),
            is_tapped: Cell::default(),
        }
    }
}

impl Recent {
    /// Empty texts with room in them: those that were used last.
    pub(crate) fn spare(&self) -> Box<Logged> {
        self.spares.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes texts back.
    pub(crate) fn spared(&self, mut text: Box<Logged>) {
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARES_MAX && text.holds_at_most(TEXT_BYTES_MAX) {
            text.clear();
            spares.push(text);
        }
    }

    pub(crate) fn remember(&self, brief: Brief, text: &Logged) {
        let texts = [short(&text.host), short(&text.path), &*text.trace_id];
        if self.is_tapped.get() {
            self.show(&brief, texts);
        }
        let ring = if brief.is_ill() { &self.ill } else { &self.well };
        ring.borrow_mut().push(brief, texts);
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
            Ask::Seen(..) => {}
        }
    }

    fn find(&self, id: Uuid) -> Option<Exchange> {
        let found = [self.ill.borrow().find(id), self.well.borrow().find(id)];
        found.into_iter().flatten().max_by_key(|it| it.ended_ms)
    }

    fn show(&self, brief: &Brief, [host, path, trace_id]: [&str; 3]) {
        let mut taps = self.taps.borrow_mut();
        taps.retain_mut(|(tap, seen)| {
            if tap.shown.is_closed() {
                return false;
            }
            if tap.filter.takes(brief) {
                *seen += 1;
                if *seen >= tap.filter.every {
                    *seen = 0;
                    if tap.shown.try_send(brief.shown(host, path, trace_id)).is_err() {
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
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(recent: &Recent, id: u128, status: u16, path: &str) {
        let text = Logged { host: "shop.test".into(), path: path.into(), trace_id: "t".into() };
        let brief = Brief {
            request_id: Uuid::from_u128(id),
            ended_ms: 1,
            revision: 7,
            route: Some("orders".into()),
            client_ip: IpAddr::from([127, 0, 0, 1]),
            method: Method::GET,
            version: Version::HTTP_11,
            tls: false,
            status,
            code: if status >= 400 { "no_route" } else { "" },
            received_bytes: 0,
            sent_bytes: 0,
            gateway: Duration::ZERO,
            connect: None,
            ttfb: None,
            total: Duration::ZERO,
            upstream: None,
            attempts: 0,
            more: None,
        };
        recent.remember(brief, &text);
    }

    fn find(recent: &Recent, id: u128) -> Option<Exchange> {
        let (told, mut heard) = oneshot::channel();
        recent.answer(Ask::Find(Uuid::from_u128(id), told));
        heard.try_recv().unwrap()
    }

    #[test]
    fn a_flood_of_good_exchanges_does_not_push_out_a_bad_one() {
        let recent = Recent::default();
        ended(&recent, 1, 404, "/lost");
        for id in 2..WELL_MAX as u128 + 3 {
            ended(&recent, id, 200, "/");
        }
        assert_eq!(find(&recent, 1).map(|it| (it.status, it.path)), Some((404, "/lost".into())));
        assert!(find(&recent, 2).is_none(), "the oldest good one is forgotten");
        assert!(find(&recent, 3).is_some());
    }

    #[test]
    fn what_is_written_over_is_gone_and_the_newest_of_one_id_is_found() {
        let recent = Recent::default();
        (0..WELL_MAX as u128).for_each(|id| ended(&recent, id, 200, "/a-path-that-is-longer"));
        ended(&recent, WELL_MAX as u128, 200, "/b");
        ended(&recent, 500, 200, "/newer");
        let found = |id| find(&recent, id).map(|it| (it.host, it.path, it.trace_id));
        let texts = |path: &str| Some(("shop.test".into(), path.into(), "t".into()));
        assert_eq!((found(0), found(1)), (None, None));
        assert_eq!(found(WELL_MAX as u128), texts("/b"));
        assert_eq!(found(500), texts("/newer"));
        assert_eq!(found(2), texts("/a-path-that-is-longer"));
    }

    #[test]
    fn long_paths_are_cut_and_take_no_more_room() {
        let recent = Recent::default();
        ended(&recent, 1, 200, &"ä".repeat(10_000));
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
            ended(&recent, id, status, "/");
        }
        assert_eq!(seen.try_recv().unwrap().request_id, Uuid::from_u128(2));
        assert!(seen.try_recv().is_err());
        assert_eq!(dropped.load(Relaxed), 1);
        drop(seen);
        ended(&recent, 5, 500, "/");
        assert!(!recent.is_tapped.get(), "nobody watches any more");
    }

    #[test]
    fn one_of_so_many_is_shown() {
        let recent = Recent::default();
        let (shown, mut seen) = mpsc::channel(8);
        let (route, sampled_only) = (Some("orders".into()), false);
        let filter = Filter { route, status: (0, 999), code: None, consumer: None, every: 3, sampled_only };
        recent.answer(Ask::Tap(Watcher { filter, shown, dropped: Arc::default() }));
        (1..=7).for_each(|id| ended(&recent, id, 200, "/"));
        let ids: Vec<_> = std::iter::from_fn(|| seen.try_recv().ok()).map(|it| it.request_id.as_u128()).collect();
        assert_eq!(ids, [3, 6]);
    }
}
