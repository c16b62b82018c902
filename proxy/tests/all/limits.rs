//! Limits as clients meet them, with a ledger of one node driven by the test.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::support::{Gateway, settings, state};
use quorumgate_model::{
    ledger::{
        Ledger,
        command::{Key, Kind, LedgerCommand, Mode, NoQuorum, Rule},
        holder::{Holder, Outgoing},
    },
    resource::Every,
    ruleset::Ruleset,
    state::State,
};
use quorumgate_proxy::{Limits, freshness::boottime_ns, limits::Keys};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub struct Answer {
    pub status: u16,
    pub fields: HashMap<String, String>,
    pub body: String,
}

pub async fn ask(gateway: &Gateway, path: &str, fields: &str) -> Answer {
    let asking = async {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = crate::support::soon("an answer", asking).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Answer { status, fields, body: body.to_owned() }
}

fn words(limits: Value) -> Value {
    let names: Vec<_> = limits.as_array().unwrap().iter().map(|limit| limit["name"].clone()).collect();
    json!({
        "limits": limits,
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "respond": {"status": 200}, "limits": names}],
    })
}

pub fn gateway(state: &State) -> Gateway {
    let rules = Arc::new(Ruleset::compile(state, None));
    // Known before a port is open: the first request meets them.
    let limits = Arc::<Limits>::default();
    limits.publish(state);
    Gateway::with_limits(settings(), rules, limits)
}

/// A cluster of one: what the holder says is applied at once.
fn lead(limits: Arc<Limits>, ledger: Ledger) {
    lead_by(limits, ledger, 3_600);
}

/// The same, with periods of so many seconds.
pub fn lead_by(limits: Arc<Limits>, mut ledger: Ledger, period_s: u64) {
    let now_us = || boottime_ns() / 1_000;
    ledger.apply(now_us(), &LedgerCommand::ShareEpoch { divisor: 1 });
    limits.attach(Holder::start(1, [1; 16], 5_000_000, &ledger, now_us()));
    tokio::spawn(async move {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            let command = match limits.poll() {
                None => LedgerCommand::Tick,
                Some(Outgoing::Open(open)) => LedgerCommand::OpenSession(open),
                Some(Outgoing::Batch(batch)) => LedgerCommand::Batches(Arc::new([batch])),
            };
            ledger.apply(now_us(), &command);
            let wall_s = ledger.wall_us().unwrap_or_default() / 1_000_000;
            let number = wall_s / period_s * period_s;
            let ended: Vec<_> = ledger.ended_periods(wall_s * 1_000_000).map(|limit| limit.id).collect();
            for limit in ended {
                let ends_us = (number + period_s) * 1_000_000;
                ledger.apply(now_us(), &LedgerCommand::RollPeriod { limit, period: number, ends_us });
            }
            limits.applied(&ledger);
        }
    });
}

pub fn define(state: &mut State, name: &str, kind: Kind, mode: Mode) {
    let rule = Rule { name: name.parse().unwrap(), kind, mode, on_no_quorum: NoQuorum::Deny };
    state.ledger.apply(0, &LedgerCommand::DefineLimit(rule));
}

pub async fn with_session(gateway: &Gateway) {
    let limits = gateway.proxy.limits();
    crate::support::until("a session", || (limits.spends_until_us() > 0).then_some(())).await;
}

#[tokio::test]
async fn a_local_limit_admits_its_number_by_key_and_says_where_the_client_stands() {
    let limit = json!([{"name": "who", "per": {"header": "x-who"}, "limit": 2, "window": "60s", "mode": "local"}]);
    let gateway = gateway(&state(words(limit)));
    let first = ask(&gateway, "/", "x-who: a\r\n").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.fields["ratelimit-policy"], "\"who\";q=2;w=60");
    assert!(first.fields["ratelimit"].starts_with("\"who\";r=1;t="), "{}", first.fields["ratelimit"]);
    assert_eq!(ask(&gateway, "/", "x-who: a\r\n").await.status, 200);
    let over = ask(&gateway, "/", "x-who: a\r\n").await;
    assert_eq!(over.status, 429);
    assert_eq!(over.fields["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_str(&over.body).unwrap();
    assert_eq!(problem["code"], "rate_limited");
    assert_eq!(problem["violated-policies"], json!(["who"]));
    assert!(problem["type"].as_str().unwrap().ends_with("#quota-exceeded"));
    let wait: u64 = over.fields["retry-after"].parse().unwrap();
    assert!((55..=62).contains(&wait), "{wait}");
    assert!(over.fields["ratelimit"].starts_with("\"who\";r=0;t="));
    // Another has a budget of its own, and all who do not say share one.
    assert_eq!(ask(&gateway, "/", "x-who: b\r\n").await.status, 200);
    let statuses = [ask(&gateway, "/", "").await, ask(&gateway, "/", "").await, ask(&gateway, "/", "").await];
    assert_eq!(statuses.map(|it| it.status), [200, 200, 429]);
}

#[tokio::test]
async fn what_one_limit_refuses_no_limit_counts() {
    let limits = json!([
        {"name": "wide", "per": "global", "limit": 3, "window": "60s", "mode": "local"},
        {"name": "narrow", "per": {"header": "x-who"}, "limit": 1, "window": "60s", "mode": "local"},
    ]);
    let gateway = gateway(&state(words(limits)));
    assert_eq!(ask(&gateway, "/", "x-who: a\r\n").await.status, 200);
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "/", "x-who: a\r\n").await.status, 429);
    }
    assert_eq!(ask(&gateway, "/", "x-who: b\r\n").await.status, 200);
    assert_eq!(ask(&gateway, "/", "x-who: c\r\n").await.status, 200);
    assert_eq!(ask(&gateway, "/", "x-who: d\r\n").await.status, 429);
}

#[tokio::test]
async fn costs_soft_limits_and_other_statuses() {
    let limits = json!([
        {"name": "told", "per": "global", "limit": 1, "window": "60s", "mode": "local", "soft": true},
        {"name": "cost", "per": "global", "limit": 10, "window": "60s", "mode": "local", "exceeded_status": 403,
         "cost": {"request_header": "x-cost"}},
    ]);
    let gateway = gateway(&state(words(limits)));
    assert_eq!(ask(&gateway, "/", "x-cost: 7\r\n").await.status, 200);
    assert_eq!(ask(&gateway, "/", "x-cost: 4\r\n").await.status, 403);
    assert_eq!(ask(&gateway, "/", "x-cost: 3\r\n").await.status, 200);
    assert_eq!(ask(&gateway, "/", "").await.status, 403);
}

#[tokio::test]
async fn a_token_bucket_admits_its_burst_and_then_its_rate() {
    let limit = json!([{"name": "b", "kind": "bucket", "per": "global", "rate": 100, "window": "1s", "burst": 10,
                        "mode": "local"}]);
    let gateway = gateway(&state(words(limit)));
    let began = std::time::Instant::now();
    let mut admitted = 0;
    while admitted < 30 {
        admitted += u32::from(ask(&gateway, "/", "").await.status == 200);
    }
    // Ten at once, and the other twenty at 100 a second.
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_permit_goes_back_with_the_end_of_its_exchange() {
    let limit = json!([{"name": "few", "kind": "concurrency", "per": "global", "limit": 1, "mode": "local"}]);
    let gateway = gateway(&state(words(limit)));
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "/", "").await.status, 200);
    }
}

#[tokio::test]
async fn without_a_session_a_leased_limit_goes_by_on_no_quorum() {
    let limit =
        |word: &str| json!([{"name": "l", "per": "global", "limit": 100, "window": "60s", "on_no_quorum": word}]);
    for (word, status) in [("deny", 503), ("allow", 200)] {
        let mut state = state(words(limit(word)));
        define(&mut state, "l", Kind::Sliding { limit: 100, window_us: 60_000_000 }, Mode::Leased);
        let gateway = gateway(&state);
        lead_nobody(&gateway, &state);
        assert_eq!(ask(&gateway, "/", "").await.status, status, "{word}");
    }
}

/// A holder whose messages nobody takes.
pub fn lead_nobody(gateway: &Gateway, state: &State) {
    gateway.proxy.limits().attach(Holder::start(1, [1; 16], 5_000_000, &state.ledger, boottime_ns() / 1_000));
}

#[tokio::test]
async fn a_tiny_leased_limit_waits_for_its_slots_and_admits_exactly_its_number() {
    let mut state = state(words(json!([{"name": "l", "per": "global", "limit": 5, "window": "60s"}])));
    define(&mut state, "l", Kind::Sliding { limit: 5, window_us: 60_000_000 }, Mode::Leased);
    let gateway = gateway(&state);
    lead(gateway.proxy.limits(), state.ledger.clone());
    with_session(&gateway).await;
    let asked: Vec<_> = (0..20).map(|_| ask(&gateway, "/", "")).collect();
    let answers = futures_util::future::join_all(asked).await;
    let count = |status| answers.iter().filter(|it| it.status == status).count();
    assert_eq!((count(200), count(429)), (5, 15));
}

/// Two routes, `/both` with the first two limits and `/one` with the first, by a ledger that lends one by one.
async fn two_routes(first: Value, second: Value) -> Gateway {
    let of = |limit: &Value| limit["limit"].as_u64().unwrap();
    let kind = |limit: &Value| Kind::Sliding { limit: of(limit), window_us: 60_000_000 };
    let route = |name: &str, limits: Value| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "respond": {"status": 200}, "limits": limits});
    let routes = [route("both", json!(["first", "second"])), route("one", json!(["first"]))];
    let mut state = state(json!({"limits": [first, second], "routes": routes}));
    define(&mut state, "first", kind(&first), Mode::Leased);
    define(&mut state, "second", kind(&second), Mode::Leased);
    let gateway = gateway(&state);
    lead(gateway.proxy.limits(), state.ledger.clone());
    with_session(&gateway).await;
    gateway
}

/// Those that the second refuses have waited for it for a round, in which the first sends home what is used of it here.
#[tokio::test]
async fn what_a_later_limit_refuses_after_a_wait_no_limit_counts() {
    let first = json!({"name": "first", "per": "global", "limit": 7, "window": "60s"});
    let gateway = two_routes(first, json!({"name": "second", "per": "global", "limit": 2, "window": "60s"})).await;
    let asked = (0..30).map(|_| ask(&gateway, "/both", ""));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|it| it.status == 200).count(), 2);
    let mut left = Vec::new();
    for _ in 0..6 {
        left.push(ask(&gateway, "/one", "").await.status);
    }
    assert_eq!(left, [200, 200, 200, 200, 200, 429]);
    let decisions = gateway.proxy.limits().usage("first", Keys::Top(1)).unwrap().decisions;
    assert_eq!(decisions.admitted, 7);
}

#[tokio::test]
async fn what_is_left_of_a_tiny_or_exact_limit_is_the_keys_and_not_the_nodes() {
    for (mode, word) in [(Mode::Leased, "leased"), (Mode::Exact, "exact")] {
        let limit = json!([{"name": "l", "per": "global", "limit": 3, "window": "60s", "mode": word}]);
        let mut state = state(words(limit));
        define(&mut state, "l", Kind::Sliding { limit: 3, window_us: 60_000_000 }, mode);
        let gateway = gateway(&state);
        lead(gateway.proxy.limits(), state.ledger.clone());
        with_session(&gateway).await;
        for (status, left) in [(200, 2), (200, 1), (200, 0), (429, 0)] {
            let answer = ask(&gateway, "/", "").await;
            let standing = &answer.fields["ratelimit"];
            assert_eq!(answer.status, status, "{word}");
            assert!(standing.starts_with(&format!("\"l\";r={left};t=")), "{word}: {standing}");
            assert!(!standing.ends_with("t=0"), "{word}: {standing}");
        }
    }
}

#[tokio::test]
async fn a_leased_limit_outgrows_its_share_and_admits_its_whole_budget() {
    let mut state = state(words(json!([{"name": "l", "per": "global", "limit": 100, "window": "60s"}])));
    define(&mut state, "l", Kind::Sliding { limit: 100, window_us: 60_000_000 }, Mode::Leased);
    let gateway = gateway(&state);
    lead(gateway.proxy.limits(), state.ledger.clone());
    with_session(&gateway).await;
    let mut admitted = 0;
    // Whoever comes back after a moment gets what the share had not.
    crate::support::until("the whole budget", || (gateway.proxy.limits().spends_until_us() > 0).then_some(())).await;
    for _ in 0..400 {
        admitted += u32::from(ask(&gateway, "/", "").await.status == 200);
        if admitted == 100 {
            break;
        }
    }
    assert_eq!(admitted, 100);
    for _ in 0..20 {
        assert_eq!(ask(&gateway, "/", "").await.status, 429);
    }
}

#[tokio::test]
async fn a_soft_limit_refuses_nobody_without_a_session_and_does_not_wait() {
    for (kind, words_of) in [
        (Kind::Sliding { limit: 5, window_us: 60_000_000 }, json!({"limit": 5, "window": "60s"})),
        (Kind::Sliding { limit: 500, window_us: 60_000_000 }, json!({"limit": 500, "window": "60s"})),
        (Kind::Calendar { limit: 5, every: Every::Hour }, json!({"kind": "calendar", "limit": 5, "every": "hour"})),
    ] {
        let mut limit = json!({"name": "l", "per": "global", "soft": true, "grant_wait": "30s"});
        limit.as_object_mut().unwrap().extend(words_of.as_object().unwrap().clone());
        let mut state = state(words(json!([limit])));
        define(&mut state, "l", kind, Mode::Leased);
        let gateway = gateway(&state);
        lead_nobody(&gateway, &state);
        assert_eq!(ask(&gateway, "/", "").await.status, 200, "{kind:?}");
    }
}

/// A ledger of one node that has a session and goes on when the test says so.
struct Paused {
    limits: Arc<Limits>,
    ledger: Ledger,
}

impl Paused {
    fn lead(gateway: &Gateway, state: &State) -> Self {
        let (limits, mut ledger) = (gateway.proxy.limits(), state.ledger.clone());
        let now_us = boottime_ns() / 1_000;
        ledger.apply(now_us, &LedgerCommand::ShareEpoch { divisor: 1 });
        limits.attach(Holder::start(1, [1; 16], 5_000_000, &ledger, now_us));
        let mut paused = Self { limits, ledger };
        paused.go_on();
        assert!(paused.limits.spends_until_us() > 0);
        paused
    }

    /// What the holder has to say now is applied at once.
    fn go_on(&mut self) {
        let command = match self.limits.poll() {
            None => LedgerCommand::Tick,
            Some(Outgoing::Open(open)) => LedgerCommand::OpenSession(open),
            Some(Outgoing::Batch(batch)) => LedgerCommand::Batches(Arc::new([batch])),
        };
        self.ledger.apply(boottime_ns() / 1_000, &command);
        self.limits.applied(&self.ledger);
    }
}

#[tokio::test]
async fn a_soft_limit_of_which_nothing_is_known_yet_is_not_told_as_used_up() {
    let limit = json!([{"name": "l", "per": "global", "limit": 5, "window": "60s", "soft": true}]);
    let mut state = state(words(limit));
    define(&mut state, "l", Kind::Sliding { limit: 5, window_us: 60_000_000 }, Mode::Leased);
    let gateway = gateway(&state);
    let _paused = Paused::lead(&gateway, &state);
    let first = ask(&gateway, "/", "").await;
    assert_eq!((first.status, first.fields.get("ratelimit")), (200, None));
}

#[tokio::test]
async fn what_another_limit_refuses_a_soft_limit_does_not_count() {
    let limits = json!([
        {"name": "l", "per": "global", "limit": 5, "window": "60s", "soft": true},
        {"name": "hard", "per": "global", "limit": 2, "window": "60s", "mode": "local"},
    ]);
    let mut state = state(words(limits));
    define(&mut state, "l", Kind::Sliding { limit: 5, window_us: 60_000_000 }, Mode::Leased);
    let gateway = gateway(&state);
    let mut paused = Paused::lead(&gateway, &state);
    for status in [200, 200, 429, 429, 429, 429] {
        assert_eq!(ask(&gateway, "/", "").await.status, status);
    }
    // What it let in it owes, and that is taken as soon as there is something.
    let key = Key { limit: paused.ledger.names.values().next().copied().unwrap(), who: "".into() };
    let look = || {
        paused.go_on();
        paused.ledger.pool(&key).map(|pool| pool.free).filter(|free| *free < 5)
    };
    let free = crate::support::until("something is lent", look).await;
    assert_eq!(free, 3);
}

#[tokio::test]
async fn who_leaves_while_a_later_limit_waits_no_limit_counts() {
    let limits = json!([
        {"name": "first", "per": "global", "limit": 3, "window": "60s", "mode": "local"},
        {"name": "l", "per": "global", "limit": 5, "window": "60s", "grant_wait": "60s"},
    ]);
    let mut state = state(words(limits));
    define(&mut state, "l", Kind::Sliding { limit: 5, window_us: 60_000_000 }, Mode::Leased);
    let gateway = gateway(&state);
    // Nothing is lent.
    let paused = Paused::lead(&gateway, &state);
    let used = || paused.limits.usage("first", Keys::Top(1)).unwrap().keys.first().map(|it| it.used);
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let waits = || paused.limits.usage("l", Keys::Top(1)).unwrap().decisions.waited;
    crate::support::until("it waits", || (waits() == 1).then_some(())).await;
    assert_eq!(used(), Some(1));
    drop(client);
    crate::support::until("it is as if it had not come", || (used() == Some(0)).then_some(())).await;
}

/// Counted once its slots have come, though it did not wait for them.
#[tokio::test]
async fn a_soft_limit_counts_what_it_let_in() {
    let limit = json!([{"name": "l", "per": "global", "limit": 5, "window": "60s", "soft": true}]);
    let mut state = state(words(limit));
    define(&mut state, "l", Kind::Sliding { limit: 5, window_us: 60_000_000 }, Mode::Leased);
    let gateway = gateway(&state);
    lead(gateway.proxy.limits(), state.ledger.clone());
    with_session(&gateway).await;
    let limits = gateway.proxy.limits();
    for _ in 0..1_000 {
        assert_eq!(ask(&gateway, "/", "").await.status, 200);
        if limits.usage("l", Keys::Top(1)).unwrap().decisions.let_through > 0 {
            return;
        }
    }
    panic!("nothing of a thousand was over a limit of five");
}

/// A cluster that answers and has nothing is not one that cannot be asked.
#[tokio::test]
async fn a_period_that_an_answer_used_up_is_429_and_not_503() {
    let limit = json!([{"name": "l", "per": "global", "kind": "calendar", "limit": 30, "every": "hour",
                        "cost": {"response_header": "x-units", "reserve": 10}}]);
    let mut limits = words(limit);
    limits["routes"][0]["respond"]["headers"] = json!({"x-units": "100"});
    let mut state = state(limits);
    define(&mut state, "l", Kind::Calendar { limit: 30, every: Every::Hour }, Mode::Leased);
    let gateway = gateway(&state);
    lead(gateway.proxy.limits(), state.ledger.clone());
    with_session(&gateway).await;
    assert_eq!(ask(&gateway, "/", "").await.status, 200);
    for _ in 0..3 {
        let over = ask(&gateway, "/", "").await;
        assert_eq!(over.status, 429, "{}", over.body);
        assert!(over.fields["retry-after"].parse::<u64>().unwrap() > 1);
    }
}
