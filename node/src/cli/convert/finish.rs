//! What was made becomes what `validate` takes: each object is checked by the code that checks files, and what it refuses
//! is left out and told. A route of which something cannot be had comes out closed, never open: were it left out, its
//! requests would go to another route, which may ask for less.

use std::collections::{HashMap, HashSet};

use quorumgate_model::{
    invalid::Invalid,
    resource::{Action, AuthorizeRule, Condition, Effect, Kind, PathPattern, Resource, Route},
    ruleset,
};
use serde_json::{Map, Value as Json, json};

use super::{
    effects::CLOSED,
    order::{self, Near, Ordered},
    out::{Draft, Made, Out},
    reader::Item,
};
use crate::cli::config;

/// How often something of one route is given up before the whole of it is.
const REPAIRS_MAX: usize = 12;
/// Fields whose values may be secrets, and are not repeated.
const HIDDEN: [&str; 6] =
    ["rewrite.headers", "rewrite.query", "respond", "match.headers", "match.query", "match.cookies"];
/// Fields without which a route still does what it is for.
const SPARE: [&str; 8] = ["labels", "description", "cors", "cache", "compression", "body", "timeouts", "retries"];

struct Settled<'d> {
    from: Item<'d>,
    route: Route,
    order: Vec<i64>,
    protects: bool,
    takes_more: bool,
    beyond: Option<Map<String, Json>>,
    below: Option<Map<String, Json>>,
    /// It takes more than it should, and is closed.
    is_widened: bool,
    /// It is closed for more than its match.
    is_shut: bool,
}

pub fn finish(out: Out<'_>) -> Vec<Resource> {
    let mut dropped = HashSet::new();
    let mut resources = Vec::new();
    let Out { mut objects, routes, .. } = out;
    // Those that others name come first.
    objects.sort_by_key(|it| it.kind != Kind::CertificateAuthority && it.kind != Kind::Certificate);
    for it in objects {
        let name = it.words["name"].as_str().unwrap_or_default().to_owned();
        match object(&it, &dropped) {
            Ok(resource) => resources.push(resource),
            Err(why) => {
                it.from.left_out(format!("the {} {name} cannot be had: {why}", it.kind));
                dropped.insert((it.kind, name));
            }
        }
    }
    let mut settled: Vec<Settled<'_>> = routes.into_iter().filter_map(|it| settle(it, &dropped)).collect();
    below(&mut settled, &dropped);
    let beyond = beyond(&mut settled, &dropped);
    settled.extend(beyond);
    more(&mut settled);
    let mut settled = alone(settled);
    let ordered: Vec<Ordered<'_>> = settled.iter().map(|it| Ordered { route: &it.route, order: &it.order }).collect();
    if let Some(priorities) = order::priorities(&ordered) {
        settled.iter_mut().zip(priorities).for_each(|(it, priority)| it.route.priority = priority);
        if let Some(first) = settled.first() {
            first.from.note(
                "and other routes: the other gateway would ask them in another order than ours, so each route has a \
                 priority, which goes before everything else",
            );
        }
    }
    resources.extend(settled.into_iter().map(|it| Resource::Route(it.route.into())));
    resources
}

fn object(it: &Made<'_>, dropped: &HashSet<(Kind, String)>) -> Result<Resource, Invalid> {
    for (place, kind) in [("ca", Kind::CertificateAuthority), ("client_certificate", Kind::Certificate)] {
        let named = it.words.get("tls").and_then(|tls| tls[place].as_str());
        if let Some(name) = named.filter(|name| dropped.contains(&(kind, (*name).to_owned()))) {
            return Err(Invalid::field(format!("tls.{place}")).found(name).allowed("one that there is"));
        }
    }
    config::resource(it.kind, Json::Object(it.words.clone()))
}

fn settle<'d>(draft: Draft<'d>, dropped: &HashSet<(Kind, String)>) -> Option<Settled<'d>> {
    let Draft { from, mut words, order, protects, takes_more, beyond, below } = draft;
    let mut must_be_closed = is_closed(&words);
    must_be_closed |= without_dropped(&from, &mut words, dropped);
    let (mut is_widened, mut is_shut) = (false, must_be_closed);
    for _ in 0..REPAIRS_MAX {
        let invalid = match config::resource(Kind::Route, Json::Object(words.clone())) {
            Ok(Resource::Route(route)) => {
                let mut route = (*route).clone();
                shut(&from, &mut route, protects, must_be_closed || is_widened);
                return Some(Settled { from, route, order, protects, takes_more, beyond, below, is_widened, is_shut });
            }
            Ok(_) => break,
            Err(invalid) if HIDDEN.iter().any(|it| invalid.field.starts_with(it)) => {
                Invalid { found: "a value that is not shown".to_owned(), ..invalid }
            }
            Err(invalid) => invalid,
        };
        let field = invalid.field.split(['.', '[']).next().unwrap_or_default().to_owned();
        let is_gone = match field.as_str() {
            "match" if !protects && !is_closed(&words) => {
                from.left_out(format!("which requests it takes cannot be said here: {invalid}"));
                return None;
            }
            "match" => {
                let inner = invalid.field.split(['.', '[']).nth(1).unwrap_or_default();
                is_widened = true;
                close(&mut words);
                from.closed(format!(
                    "which requests it takes cannot be said here ({invalid}), and it keeps some out: it takes those of any \
                     {inner} and lets nobody in; write its match by hand, and take the rule {CLOSED} away"
                ));
                words.get_mut("match").and_then(Json::as_object_mut).and_then(|it| it.shift_remove(inner)).is_some()
            }
            spare if SPARE.contains(&spare) => {
                from.left_out(invalid.to_string());
                words.shift_remove(spare).is_some()
            }
            // What it says of callers is not to be had: nobody is let in.
            "authorize" => {
                (must_be_closed, is_shut) = (true, true);
                words.insert("authorize".into(), json!([{ "name": CLOSED, "deny": {} }]));
                from.closed(format!("{invalid}; write it by hand, in the place of the rule {CLOSED}"));
                true
            }
            other => {
                must_be_closed = true;
                is_shut |= other != "rewrite";
                close(&mut words);
                from.closed(format!("{invalid}; write it by hand, and take the rule {CLOSED} away"));
                let is_gone = words.shift_remove(other).is_some();
                act(&mut words);
                is_gone
            }
        };
        if !is_gone {
            break;
        }
    }
    if !protects && !must_be_closed && !is_widened {
        from.left_out("it cannot be said here at all: write the route by hand");
        return None;
    }
    from.closed(format!(
        "it cannot be said here at all: nobody is let in by any path of its hosts, until the rule {CLOSED} goes"
    ));
    let hosts = words.get("match").map(|it| it["hosts"].clone()).filter(Json::is_array);
    let name = words.get("name").cloned().unwrap_or_default();
    let rules = json!([{ "name": CLOSED, "deny": {} }]);
    let shut =
        |matches: Json| json!({ "name": name, "match": matches, "respond": { "status": 503 }, "authorize": rules });
    let drafts = hosts.map(|hosts| shut(json!({ "hosts": hosts }))).into_iter().chain([shut(json!({}))]);
    let route = drafts.filter_map(|it| config::resource(Kind::Route, it).ok()).find_map(|it| match it {
        Resource::Route(route) => Some((*route).clone()),
        _ => None,
    })?;
    Some(Settled {
        from,
        route,
        order,
        protects,
        takes_more: false,
        beyond: None,
        below: None,
        is_widened: true,
        is_shut: true,
    })
}

/// The last look at a route: one that was told to be closed is, and one that kept somebody out still does.
fn shut(from: &Item<'_>, route: &mut Route, protects: bool, must_be_closed: bool) {
    let keeps_out = route.auth.is_some()
        || !route.authorize.is_empty()
        || !route.policies.is_empty()
        || !route.limits.is_empty()
        || !matches!(route.action, Action::Forward { .. } | Action::Split(_));
    let denies_all = |it: &AuthorizeRule| it.effect == Effect::Deny && it.condition == Condition::default();
    let is_shut = route.authorize.first().is_some_and(denies_all);
    if is_shut || (keeps_out && !must_be_closed) || (!protects && !must_be_closed) {
        return;
    }
    let name = CLOSED.parse().expect("it is a name");
    route.authorize = vec![AuthorizeRule { name: Some(name), effect: Effect::Deny, condition: Condition::default() }];
    from.closed(format!(
        "the route {} lets nobody in: see to what was told of it, then take the rule {CLOSED} away",
        route.name
    ));
}

/// References to what was refused; whether there were any.
fn without_dropped(from: &Item<'_>, words: &mut Map<String, Json>, dropped: &HashSet<(Kind, String)>) -> bool {
    if dropped.is_empty() {
        return false;
    }
    let is_gone = |kind: Kind, name: &Json| dropped.contains(&(kind, name.as_str().unwrap_or_default().to_owned()));
    let any = |kind: Kind, list: Option<&Json>| {
        list.and_then(Json::as_array).is_some_and(|list| list.iter().any(|it| is_gone(kind, it)))
    };
    let mut gone: Vec<&str> = Vec::new();
    let auth = words.get("auth");
    if any(Kind::Auth, auth.map(|it| &it["any_of"])) || any(Kind::Auth, auth.map(|it| &it["all_of"])) {
        gone.push("auth");
    }
    if any(Kind::Policy, words.get("policies")) {
        gone.push("policies");
    }
    if any(Kind::Limit, words.get("limits")) {
        gone.push("limits");
    }
    let arms = words.get("split").and_then(Json::as_array);
    if arms.is_some_and(|arms| arms.iter().any(|it| is_gone(Kind::Upstream, &it["upstream"]))) {
        gone.push("split");
    }
    if words.get("upstream").is_some_and(|name| is_gone(Kind::Upstream, name)) {
        gone.push("upstream");
    }
    if let Some(auth) = words.get_mut("auth").and_then(Json::as_object_mut)
        && auth.get("anonymous").is_some_and(|name| is_gone(Kind::Consumer, name))
    {
        auth.shift_remove("anonymous");
    }
    let is_any = !gone.is_empty();
    for field in gone {
        words.shift_remove(field);
        close(words);
        from.closed(format!("its {field} cannot be had; write it by hand, and take the rule {CLOSED} away"));
    }
    act(words);
    is_any
}

/// A route must do something; one that has lost what it did is closed already.
fn act(words: &mut Map<String, Json>) {
    if !["upstream", "split", "redirect", "respond"].iter().any(|it| words.contains_key(*it)) {
        words.insert("respond".into(), json!({ "status": 503 }));
    }
}

fn is_closed(words: &Map<String, Json>) -> bool {
    words.get("authorize").and_then(|rules| rules[0]["name"].as_str()) == Some(CLOSED)
}

fn close(words: &mut Map<String, Json>) {
    if is_closed(words) {
        return;
    }
    let mut rules = vec![json!({ "name": CLOSED, "deny": {} })];
    rules.extend(words.get("authorize").and_then(Json::as_array).cloned().unwrap_or_default());
    words.insert("authorize".into(), Json::Array(rules));
}

fn near(settled: &[Settled<'_>]) -> Near {
    Near::of(settled.iter().map(|it| &it.route))
}

/// Prefixes that do not take themselves: where another route had that path which keeps some out, or is of it alone.
fn below<'d>(settled: &mut [Settled<'d>], dropped: &HashSet<(Kind, String)>) {
    let near = near(settled);
    for at in 0..settled.len() {
        let Some(words) = settled[at].below.take() else { continue };
        let it = &settled[at];
        let PathPattern::Prefix(prefix) = &it.route.matches.path else { continue };
        let itself = PathPattern::Exact(prefix.clone());
        let takes = |other: &Settled<'_>| {
            let is_twin = other.route.matches.path == it.route.matches.path && other.below.is_none();
            order::hosts_meet(&it.route.matches.hosts, &other.route.matches.hosts)
                && order::paths_meet(&itself, &other.route.matches.path)
                // One that is asked first has it in any case.
                && (!matches!(other.route.matches.path, PathPattern::Exact(_)) || other.order <= it.order)
                && (is_twin || other.protects)
        };
        // Those of the same object ask for the same.
        let others = || {
            let mut others = near.places(&it.route).into_iter().map(|place| &settled[place]);
            others.any(|other| other.from.identity() != it.from.identity() && takes(other))
        };
        if !near.is_many() && !others() {
            it.from.differs(format!("{prefix} without the slash behind it is taken too"));
            continue;
        }
        let draft = Draft {
            from: it.from.clone(),
            words,
            order: it.order.clone(),
            protects: it.protects,
            takes_more: it.takes_more,
            beyond: None,
            below: None,
        };
        if let Some(other) = settle(draft, dropped) {
            settled[at] = other;
        }
    }
}

/// Routes for what prefixes of characters take beyond ours of segments: where it would go to another route otherwise, and
/// some are kept out.
fn beyond<'d>(settled: &mut [Settled<'d>], dropped: &HashSet<(Kind, String)>) -> Vec<Settled<'d>> {
    let near = near(settled);
    let takes = |at: usize| {
        let it = &settled[at];
        let PathPattern::Prefix(prefix) = &it.route.matches.path else { return false };
        let takes = |other: &Settled<'_>| {
            order::hosts_meet(&it.route.matches.hosts, &other.route.matches.hosts)
                && order::takes_beyond(prefix, &other.route.matches.path)
        };
        near.places(&it.route).into_iter().any(|place| place != at && takes(&settled[place]))
    };
    let places: Vec<usize> = (0..settled.len()).filter(|at| settled[*at].beyond.is_some()).collect();
    // One that is made may take what another took beyond its prefix.
    let is_needed = near.is_many() || places.iter().any(|at| settled[*at].protects && takes(*at));
    let mut made = Vec::new();
    for at in places {
        let Some(words) = settled[at].beyond.take() else { continue };
        let it = &settled[at];
        let PathPattern::Prefix(prefix) = &it.route.matches.path else { continue };
        if it.protects && is_needed {
            let draft = Draft {
                from: it.from.clone(),
                words,
                order: it.order.clone(),
                protects: true,
                takes_more: it.takes_more,
                beyond: None,
                below: None,
            };
            made.extend(settle(draft, dropped));
        } else {
            it.from.differs(format!(
                "the path {prefix} was a prefix of characters and is one of whole segments: {prefix}x is not taken any more"
            ));
        }
    }
    made
}

/// Routes that take more than they did, and may be asked before another one that asks for something else.
fn more(settled: &mut [Settled<'_>]) {
    let near = near(settled);
    for at in (0..settled.len()).filter(|at| settled[*at].takes_more).collect::<Vec<_>>() {
        let it = &settled[at];
        let takes = |other: &Settled<'_>| {
            other.from.identity() != it.from.identity()
                && other.protects
                && other.order <= it.order
                && order::meet(&it.route, &other.route)
                && !asks_the_same(&it.route, &other.route)
        };
        // What a gateway answers itself opens nothing.
        let goes_on = matches!(it.route.action, Action::Forward { .. } | Action::Split(_));
        let others = || near.places(&it.route).into_iter().any(|place| takes(&settled[place]));
        if goes_on && (near.is_many() || others()) {
            let it = &mut settled[at];
            shut(&it.from, &mut it.route, it.protects, true);
        }
    }
}

/// Of routes that take the same requests one is left, as nobody would ever ask the others.
fn alone(settled: Vec<Settled<'_>>) -> Vec<Settled<'_>> {
    let mut best: HashMap<_, usize> = HashMap::new();
    let mut beaten = HashMap::new();
    for (at, it) in settled.iter().enumerate() {
        let place = *best.entry(ruleset::match_fingerprint(&it.route)).or_insert(at);
        if place == at {
            continue;
        }
        let (winner, loser) = match goes_before(it, &settled[place]) {
            true => (at, place),
            false => (place, at),
        };
        best.insert(ruleset::match_fingerprint(&it.route), winner);
        beaten.insert(loser, winner);
    }
    for (loser, winner) in &beaten {
        let name = &settled[*winner].route.name;
        settled[*loser].from.left_out(format!("the route {name} takes the same requests and is asked first"));
    }
    let kept = settled.into_iter().enumerate().filter(|(at, _)| !beaten.contains_key(at));
    kept.map(|(_, it)| it).collect()
}

fn goes_before(a: &Settled<'_>, b: &Settled<'_>) -> bool {
    // One that is closed for its match alone leaves what another with the same demands lets in to that.
    let is_shut = (a.is_widened && a.is_shut) || (b.is_widened && b.is_shut);
    if a.is_widened != b.is_widened && !is_shut && asks_the_same(&a.route, &b.route) {
        return b.is_widened;
    }
    (a.is_widened, &a.order, a.protects) > (b.is_widened, &b.order, b.protects)
}

/// Whether callers of both are asked for the same, but for one being closed, and come to an upstream then.
fn asks_the_same(a: &Route, b: &Route) -> bool {
    fn rules(route: &Route) -> Vec<&AuthorizeRule> {
        route.authorize.iter().filter(|it| it.name.as_deref() != Some(CLOSED)).collect()
    }
    let goes_on = |it: &Route| matches!(it.action, Action::Forward { .. } | Action::Split(_));
    let is_same = (&a.auth, &a.policies, &a.limits) == (&b.auth, &b.policies, &b.limits) && rules(a) == rules(b);
    is_same && goes_on(a) && goes_on(b)
}
