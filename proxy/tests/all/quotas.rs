//! Limits by the calendar, what requests cost, and whom a limit is for.

use crate::limits::{Answer, ask, define, gateway, lead_by, with_session};
use crate::support::{Gateway, state};
use quorumgate_model::{
    ledger::command::{Kind, Mode},
    resource::Every,
};
use serde_json::{Value, json};

/// A cluster just begun agrees on what time it is with its second renewal, some 2 s later.
const CALENDAR_MAX: &str = "20s";

/// A quota per hour in words and per `period_s` in truth.
pub async fn quota(limit: u64, mode: Mode, period_s: u64) -> Gateway {
    let words = json!({
        "limits": [{"name": "q", "kind": "calendar", "per": {"header": "x-who"}, "limit": limit, "every": "hour",
                    "grant_wait": CALENDAR_MAX}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "respond": {"status": 200}, "limits": ["q"]}],
    });
    let mut state = state(words);
    define(&mut state, "q", Kind::Calendar { limit, every: Every::Hour }, mode);
    let gateway = gateway(&state);
    lead_by(gateway.proxy.limits(), state.ledger.clone(), period_s);
    with_session(&gateway).await;
    gateway
}

#[tokio::test]
async fn a_quota_admits_its_number_and_says_when_it_begins_anew() {
    for mode in [Mode::Leased, Mode::Exact] {
        let gateway = quota(3, mode, 3_600).await;
        for left in [2, 1, 0] {
            let answer = ask(&gateway, "/", "x-who: a\r\n").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.fields["ratelimit-policy"], "\"q\";q=3;w=3600");
            // What was asked of the cluster at the last look may be told a moment late, and never less than there is.
            let standing = &answer.fields["ratelimit"];
            let told: u64 = standing.split(['=', ';']).nth(2).unwrap().parse().unwrap();
            assert!((left..=3).contains(&told), "{standing}, {left} left");
        }
        let over = ask(&gateway, "/", "x-who: a\r\n").await;
        let problem: Value = serde_json::from_str(&over.body).unwrap();
        assert_eq!((over.status, &problem["code"]), (429, &json!("quota_exceeded")));
        let wait: u64 = over.fields["retry-after"].parse().unwrap();
        assert!((1..=3_600).contains(&wait), "{wait}");
        assert_eq!(ask(&gateway, "/", "x-who: b\r\n").await.status, 200, "another's quota is its own");
    }
}

#[tokio::test]
async fn the_next_period_has_a_budget_of_its_own_and_no_more() {
    let gateway = quota(2, Mode::Leased, 1).await;
    let (mut admitted, mut refused) = (Vec::new(), 0);
    let began = std::time::Instant::now();
    while admitted.len() < 6 {
        let Answer { status, .. } = ask(&gateway, "/", "x-who: a\r\n").await;
        match status {
            200 => admitted.push(began.elapsed()),
            _ => refused += 1,
        }
    }
    // Six of two a second: at least one whole second lies between the first and the last.
    assert!(admitted[5] - admitted[0] >= std::time::Duration::from_millis(900), "{admitted:?}");
    assert!(refused > 0);
}

#[tokio::test]
async fn an_answer_that_costs_less_gives_back_and_one_that_costs_more_is_counted_in_full() {
    let respond = |units: &str| json!({"status": 200, "headers": {"x-units": units}});
    let route = |name: &str, units: &str| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "respond": respond(units), "limits": ["l"]});
    let cost = json!({"response_header": "x-units", "reserve": 4});
    for kind in ["sliding", "calendar"] {
        let mut limit = json!({"name": "l", "kind": kind, "per": "global", "limit": 10, "cost": cost});
        match kind {
            "sliding" => limit["window"] = json!("60s"),
            _ => (limit["every"], limit["grant_wait"]) = (json!("hour"), json!(CALENDAR_MAX)),
        }
        let routes = json!([route("less", "1"), route("more", "6"), route("silent", "no number"), route("far", "50")]);
        let mut state = state(json!({"limits": [limit], "routes": routes}));
        match kind {
            "sliding" => define(&mut state, "l", Kind::Sliding { limit: 10, window_us: 60_000_000 }, Mode::Leased),
            _ => define(&mut state, "l", Kind::Calendar { limit: 10, every: Every::Hour }, Mode::Leased),
        }
        let gateway = gateway(&state);
        lead_by(gateway.proxy.limits(), state.ledger.clone(), 3_600);
        with_session(&gateway).await;
        let status = async |path: &str| ask(&gateway, path, "").await.status;
        // 1 + 1 + 4 are spent; 4 are left for a reserve, and then none.
        assert_eq!([status("/less").await, status("/less").await, status("/silent").await], [200; 3], "{kind}");
        assert_eq!(status("/more").await, 200, "{kind}");
        assert_eq!(status("/less").await, 429, "{kind}: six of the last four are owed");
    }
}

#[tokio::test]
async fn what_a_header_says_it_costs_is_believed_within_reason() {
    let limit = json!({"name": "l", "per": "global", "limit": 10, "window": "60s", "mode": "local",
                       "cost": {"request_header": "x-cost"}});
    let words = json!({
        "limits": [limit],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "respond": {"status": 200}, "limits": ["l"]}],
    });
    let gateway = gateway(&state(words));
    let status = async |fields: &str| ask(&gateway, "/", fields).await.status;
    assert_eq!(status("x-cost: 11\r\n").await, 429, "more than there ever is");
    assert_eq!(
        status("x-cost: 99999999999999999999999\r\n").await,
        429,
        "a number beyond all numbers is not a small one"
    );
    assert_eq!(status("x-cost: 8\r\n").await, 200);
    assert_eq!([status("").await, status("x-cost: -5\r\n").await], [200, 200], "what is not said or no number costs 1");
    assert_eq!(status("x-cost: 0\r\n").await, 200, "nothing is free when it says so");
    assert_eq!(status("x-cost: 1\r\n").await, 429);
}

#[tokio::test]
async fn a_limit_for_plans_leaves_everybody_else_alone() {
    let limit = json!({"name": "l", "per": "global", "limit": 1, "window": "60s", "mode": "local", "plans": ["free"]});
    let words = json!({
        "limits": [limit],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "respond": {"status": 200}, "limits": ["l"]}],
    });
    let gateway = gateway(&state(words));
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "/", "").await.status, 200, "nobody's plan is not free");
    }
}

#[tokio::test]
async fn settling_survives_many_at_once() {
    let cost = json!({"response_header": "x-units", "reserve": 3});
    let words = json!({
        "limits": [{"name": "l", "per": "global", "limit": 60, "window": "60s", "mode": "local", "cost": cost}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "limits": ["l"],
                    "respond": {"status": 200, "headers": {"x-units": "2"}}}],
    });
    let gateway = gateway(&state(words));
    let answers = futures_util::future::join_all((0..40).map(|_| ask(&gateway, "/", ""))).await;
    let mut admitted = answers.iter().filter(|it| it.status == 200).count();
    while ask(&gateway, "/", "").await.status == 200 {
        admitted += 1;
    }
    // Thirty at two each but for a rest that no reserve fits into.
    assert_eq!(admitted, 29);
}
