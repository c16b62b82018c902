//! What the proxy has counted lately, in frames of some seconds: what charts are drawn from. The past of the whole gateway
//! reaches back an hour; that of single routes as far as its room does.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorumgate_proto::{admin::v1 as admin, peer::v1 as pb};
use quorumgate_proxy::{Proxy, RouteStats, Stats};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::publish::wall_ms;

/// How long a frame is.
const EVERY: Duration = Duration::from_secs(5);
/// An hour of them.
const FRAMES_MAX: usize = 720;
/// Of one frame, the busiest; all of them are in its total.
const FRAME_ROUTES_MAX: usize = 2_000;
/// For routes in frames; beyond, the oldest frames keep their totals alone. With the frames' totals and the counts of before
/// (16,384 routes are what the proxy counts apart) this stays below 16 MiB.
const ROUTES_BYTES_MAX: usize = 8 << 20;
/// What a line for a route sums up.
pub const SUMMED: Duration = Duration::from_secs(300);
/// A count of a duration lies in the low bits, the number of its bucket above.
const COUNT_BITS: u32 = 26;

#[derive(Default)]
pub struct Lately(Mutex<Past>);

#[derive(Default)]
struct Past {
    frames: VecDeque<Frame>,
    routes_bytes: usize,
    before: HashMap<Arc<str>, Before>,
    at_ms: u64,
}

struct Before {
    counted: RouteStats,
    last_hit_ms: u64,
}

struct Frame {
    at_ms: u64,
    span_ms: u32,
    in_flight: u32,
    total: Counts,
    durations: Box<[u32]>,
    /// In the order of their names.
    routes: Box<[Cell]>,
    packed: Box<[u32]>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    requests: u32,
    client_errors: u32,
    server_errors: u32,
}

/// One route in one frame.
struct Cell {
    route: Arc<str>,
    counts: Counts,
    /// Of its durations in `Frame::packed`, up to those of the next.
    first: u32,
}

/// What was counted of one route since the last frame.
struct Since {
    route: Arc<str>,
    counts: Counts,
    durations: Vec<u32>,
}

impl Lately {
    pub async fn run(self: Arc<Self>, proxy: Arc<Proxy>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.past().take(wall_ms(), proxy.stats());
        }
        Ok(())
    }

    /// As peers and the page ask for it.
    pub fn told(&self, asked: &pb::TrafficRequest, node: &str, region: &str) -> admin::NodeTraffic {
        let past = self.past();
        admin::NodeTraffic {
            node: node.to_owned(),
            region: region.to_owned(),
            frames: past.told(&asked.route, asked.since_ms),
            routes: if asked.routes { past.routes() } else { Vec::new() },
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    /// What was counted since the last time becomes a frame.
    fn take(&mut self, at_ms: u64, stats: Stats) {
        let span_ms = if self.at_ms == 0 { EVERY.as_millis() as u64 } else { at_ms.saturating_sub(self.at_ms) };
        let mut total = Counts::default();
        let mut durations = vec![0u32; stats.bounds_us.len() + 1];
        let mut moved = Vec::new();
        let mut now = HashMap::with_capacity(stats.routes.len());
        for counted in stats.routes {
            let before = self.before.remove(&counted.route);
            let mut last_hit_ms = before.as_ref().map_or(0, |it| it.last_hit_ms);
            let since = since(before.as_ref().map(|it| &it.counted), &counted);
            if since.counts.requests > 0 {
                last_hit_ms = at_ms;
                total.add(since.counts);
                durations.iter_mut().zip(&since.durations).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
                moved.push(since);
            }
            now.insert(counted.route.clone(), Before { counted, last_hit_ms });
        }
        self.before = now;
        self.at_ms = at_ms;
        if moved.len() > FRAME_ROUTES_MAX {
            moved.sort_by(|a, b| b.counts.requests.cmp(&a.counts.requests).then_with(|| a.route.cmp(&b.route)));
            moved.truncate(FRAME_ROUTES_MAX);
            moved.sort_by(|a, b| a.route.cmp(&b.route));
        }
        let (routes, packed) = pack(moved);
        let in_flight = stats.in_flight.min(u64::from(u32::MAX)) as u32;
        let durations = if total.requests == 0 { Box::default() } else { durations.into_boxed_slice() };
        self.keep(Frame { at_ms, span_ms: span_ms as u32, in_flight, total, durations, routes, packed });
    }

    fn keep(&mut self, frame: Frame) {
        self.routes_bytes += frame.routes_bytes();
        self.frames.push_back(frame);
        if self.frames.len() > FRAMES_MAX
            && let Some(oldest) = self.frames.pop_front()
        {
            self.routes_bytes -= oldest.routes_bytes();
        }
        let mut oldest = self.frames.iter_mut();
        while self.routes_bytes > ROUTES_BYTES_MAX
            && let Some(frame) = oldest.next()
        {
            self.routes_bytes -= frame.routes_bytes();
            (frame.routes, frame.packed) = Default::default();
        }
    }

    fn told(&self, route: &str, since_ms: u64) -> Vec<admin::Frame> {
        let wanted = self.frames.iter().filter(|frame| frame.at_ms > since_ms);
        wanted.map(|frame| if route.is_empty() { frame.total() } else { frame.of(route) }).collect()
    }

    /// Every route that is counted, summed over the last frames.
    fn routes(&self) -> Vec<admin::RouteTraffic> {
        let from_ms = self.at_ms.saturating_sub(SUMMED.as_millis() as u64);
        let mut sums: HashMap<&str, admin::RouteTraffic> = HashMap::with_capacity(self.before.len());
        for (route, before) in &self.before {
            let empty = admin::RouteTraffic {
                route: route.to_string(),
                last_hit_ms: before.last_hit_ms,
                durations: vec![0; before.counted.durations.len()],
                ..Default::default()
            };
            sums.insert(route, empty);
        }
        for frame in self.frames.iter().filter(|frame| frame.at_ms > from_ms) {
            for at in 0..frame.routes.len() {
                let Some(sum) = sums.get_mut(&*frame.routes[at].route) else { continue };
                let counts = frame.routes[at].counts;
                sum.requests += u64::from(counts.requests);
                sum.client_errors += u64::from(counts.client_errors);
                sum.server_errors += u64::from(counts.server_errors);
                for (bucket, count) in frame.durations_at(at) {
                    if let Some(slot) = sum.durations.get_mut(bucket) {
                        *slot += u64::from(count);
                    }
                }
            }
        }
        let mut routes: Vec<_> = sums.into_values().collect();
        routes.sort_by(|a, b| a.route.cmp(&b.route));
        routes
    }
}

impl Frame {
    fn routes_bytes(&self) -> usize {
        size_of_val(&*self.routes) + size_of_val(&*self.packed)
    }

    fn total(&self) -> admin::Frame {
        let durations = self.durations.to_vec();
        admin::Frame { durations, in_flight: self.in_flight, ..self.shown(self.total) }
    }

    fn of(&self, route: &str) -> admin::Frame {
        let Ok(at) = self.routes.binary_search_by(|cell| (*cell.route).cmp(route)) else {
            return self.shown(Counts::default());
        };
        let mut durations = Vec::new();
        for (bucket, count) in self.durations_at(at) {
            durations.resize(bucket + 1, 0);
            durations[bucket] = count;
        }
        admin::Frame { durations, ..self.shown(self.routes[at].counts) }
    }

    fn shown(&self, counts: Counts) -> admin::Frame {
        let Counts { requests, client_errors, server_errors } = counts;
        let (at_ms, span_ms) = (self.at_ms, self.span_ms);
        admin::Frame { at_ms, span_ms, requests, client_errors, server_errors, durations: Vec::new(), in_flight: 0 }
    }

    /// Bucket and count, in the order of the buckets.
    fn durations_at(&self, at: usize) -> impl Iterator<Item = (usize, u32)> {
        let end = self.routes.get(at + 1).map_or(self.packed.len(), |next| next.first as usize);
        let packed = &self.packed[self.routes[at].first as usize..end];
        packed.iter().map(|it| ((it >> COUNT_BITS) as usize, it & ((1 << COUNT_BITS) - 1)))
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.client_errors = self.client_errors.saturating_add(other.client_errors);
        self.server_errors = self.server_errors.saturating_add(other.server_errors);
    }
}

/// A route that was deleted and made again counts from zero.
fn since(before: Option<&RouteStats>, now: &RouteStats) -> Since {
    let before = before.filter(|before| before.requests <= now.requests);
    let less = |now: u64, before: Option<u64>| now.saturating_sub(before.unwrap_or(0)).min(u64::from(u32::MAX)) as u32;
    let counts = Counts {
        requests: less(now.requests, before.map(|it| it.requests)),
        client_errors: less(now.client_errors, before.map(|it| it.client_errors)),
        server_errors: less(now.server_errors, before.map(|it| it.server_errors)),
    };
    let old = |slot: usize| before.and_then(|it| it.durations.get(slot)).copied();
    let durations = now.durations.iter().enumerate().map(|(slot, count)| less(*count, old(slot))).collect();
    Since { route: now.route.clone(), counts, durations }
}

fn pack(moved: Vec<Since>) -> (Box<[Cell]>, Box<[u32]>) {
    let mut packed = Vec::new();
    let mut routes = Vec::with_capacity(moved.len());
    for it in moved {
        routes.push(Cell { route: it.route, counts: it.counts, first: packed.len() as u32 });
        let counted = it.durations.iter().enumerate().filter(|(_, count)| **count > 0);
        packed.extend(counted.map(|(slot, count)| (slot as u32) << COUNT_BITS | count.min(&((1 << COUNT_BITS) - 1))));
    }
    (routes.into(), packed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[u64] = &[1_000, 2_000];

    fn stats(routes: &[(&str, u64, u64, [u64; 3])]) -> Stats {
        let route = |(route, requests, server_errors, durations): &(&str, u64, u64, [u64; 3])| RouteStats {
            route: (*route).into(),
            requests: *requests,
            client_errors: 0,
            server_errors: *server_errors,
            durations: durations.to_vec(),
        };
        Stats { routes: routes.iter().map(route).collect(), bounds_us: BOUNDS, ..Stats::default() }
    }

    #[test]
    fn a_frame_holds_what_was_counted_since_the_one_before() {
        let mut past = Past::default();
        past.take(5_000, stats(&[("a", 10, 0, [10, 0, 0]), ("b", 1, 1, [0, 0, 1])]));
        past.take(10_000, stats(&[("a", 14, 2, [11, 0, 3]), ("b", 1, 1, [0, 0, 1])]));
        let told = |route: &str, since| -> Vec<_> {
            let frames = past.told(route, since);
            frames.into_iter().map(|it| (it.at_ms, it.requests, it.server_errors, it.durations)).collect()
        };
        assert_eq!(told("", 0), [(5_000, 11, 1, vec![10, 0, 1]), (10_000, 4, 2, vec![1, 0, 3])]);
        assert_eq!(told("a", 5_000), [(10_000, 4, 2, vec![1, 0, 3])]);
        assert_eq!(told("b", 0), [(5_000, 1, 1, vec![0, 0, 1]), (10_000, 0, 0, vec![])]);
        assert_eq!(told("unknown", 5_000), [(10_000, 0, 0, vec![])]);
    }

    #[test]
    fn a_route_has_its_last_hit_and_the_sum_of_the_last_minutes() {
        let mut past = Past::default();
        past.take(5_000, stats(&[("a", 10, 1, [10, 0, 0]), ("idle", 0, 0, [0; 3])]));
        past.take(10_000, stats(&[("a", 10, 1, [10, 0, 0]), ("idle", 0, 0, [0; 3])]));
        let shown: Vec<_> =
            past.routes().into_iter().map(|it| (it.route, it.requests, it.last_hit_ms, it.durations[0])).collect();
        assert_eq!(shown, [("a".to_owned(), 10, 5_000, 10), ("idle".to_owned(), 0, 0, 0)]);
        past.take(400_000, stats(&[("a", 11, 1, [11, 0, 0])]));
        let shown: Vec<_> = past.routes().into_iter().map(|it| (it.requests, it.last_hit_ms)).collect();
        assert_eq!(shown, [(1, 400_000)], "what is gone is not shown, what is old not summed");
    }

    #[test]
    fn a_route_that_was_made_again_counts_from_zero() {
        let mut past = Past::default();
        past.take(5_000, stats(&[("a", 10, 0, [10, 0, 0])]));
        past.take(10_000, stats(&[("a", 3, 0, [3, 0, 0])]));
        assert_eq!(past.told("a", 5_000)[0].requests, 3);
    }

    #[test]
    fn the_past_of_many_busy_routes_stays_within_its_room_and_the_totals_stay() {
        let mut past = Past::default();
        let names: Vec<String> = (0..FRAME_ROUTES_MAX + 50).map(|number| format!("r{number:05}")).collect();
        for round in 1..=200u64 {
            let routes: Vec<_> = names.iter().map(|name| (name.as_str(), round, 0, [0, round, 0])).collect();
            past.take(round * 5_000, stats(&routes));
            assert!(past.routes_bytes <= ROUTES_BYTES_MAX);
        }
        let held: usize = past.frames.iter().map(Frame::routes_bytes).sum();
        assert_eq!(held, past.routes_bytes);
        assert!(past.frames.iter().all(|frame| frame.total.requests as usize == names.len()));
        assert_eq!(past.frames.back().map(|frame| frame.routes.len()), Some(FRAME_ROUTES_MAX));
        assert_eq!(past.frames.front().map(|frame| frame.routes.len()), Some(0));
    }

    #[test]
    fn an_hour_is_kept() {
        let mut past = Past::default();
        (1..=FRAMES_MAX as u64 + 9)
            .for_each(|round| past.take(round * 5_000, stats(&[("a", round, 0, [round, 0, 0])])));
        assert_eq!(past.frames.len(), FRAMES_MAX);
        assert_eq!(past.told("", 0).first().map(|it| it.at_ms), Some(50_000));
    }
}
