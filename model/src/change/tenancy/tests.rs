//! Attempts on what belongs to others: by the checks of apply, which `State::preview` asks too.

use serde_json::{Value, json};

use super::*;
use crate::{
    change::{self, Lookups},
    command::{Actor, ChangeResources, Expect, ResourceChange},
    resource::Secret,
    state::State,
};

fn resources(words: &Value) -> Vec<Resource> {
    let kinds = words.as_object().unwrap().iter();
    let list = |(list, objects): (&String, &Value)| {
        let kind = Kind::ALL.into_iter().find(|kind| kind.list() == list).unwrap();
        objects.as_array().unwrap().iter().map(|it| sealed(kind.parse(it.clone()).unwrap())).collect::<Vec<_>>()
    };
    kinds.flat_map(list).collect()
}

/// As a node does before it proposes.
fn sealed(mut resource: Resource) -> Resource {
    resource.secrets_mut().into_iter().for_each(|(_, secret)| *secret = Secret::sealed(vec![7; 32]));
    resource
}

fn world(words: Value) -> State {
    let stored = |it: Resource| (it.key(), change::stored(it));
    let resources: Resources = resources(&words).into_iter().map(stored).collect();
    State { lookups: Lookups::of(&resources), resources, ..State::default() }
}

fn upserts(words: &Value) -> Vec<ResourceChange> {
    let upsert = |it: Resource| ResourceChange { key: it.key(), after: Some(it), expect: Expect::Anything };
    resources(words).into_iter().map(upsert).collect()
}

fn attempt(state: &State, scope: &str, changes: Vec<ResourceChange>) -> Result<(), Rejected> {
    let actor = Actor { owner_scope: scope.into(), ..Actor::default() };
    let change = ChangeResources { changes: changes.into(), bounded: true, ..Default::default() };
    state.preview(&actor, &change).map(drop)
}

#[track_caller]
fn lets(state: &State, scope: &str, words: Value) {
    assert_eq!(attempt(state, scope, upserts(&words)), Ok(()), "{words}");
}

#[track_caller]
fn refuses(state: &State, scope: &str, words: Value, reason: Reason, field: &str, mention: &str) {
    let refused = attempt(state, scope, upserts(&words)).expect_err(&words.to_string());
    assert_eq!((refused.reason, refused.field.as_str()), (reason, field), "{refused}");
    assert!(refused.message.contains(mention), "{refused}");
}

fn route(name: &str, owner: &str, matches: Value) -> Value {
    json!({ "name": name, "owner": owner, "match": matches, "respond": { "status": 200 } })
}

fn routes(one: Value) -> Value {
    json!({ "routes": [one] })
}

const CHAIN: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn certificate(name: &str, owner: &str, hosts: &[&str]) -> Value {
    json!({ "certificates": [
        { "name": name, "owner": owner, "hosts": hosts, "chain": CHAIN, "key": "sealed:0123456789abcdef" },
    ] })
}

/// Two teams, and a tenant for one of them.
fn town() -> State {
    world(json!({
        "tenants": [{ "name": "shop", "owners": ["shop", "till"], "hosts": ["shop.test", "*.shop.test"],
                      "quotas": { "routes": 3, "upstreams": 1 } }],
        "upstreams": [
            { "name": "shop-up", "owner": "shop", "targets": ["10.0.0.1:80"] },
            { "name": "bank-up", "owner": "bank", "targets": ["10.0.0.2:80"] },
            { "name": "common", "targets": ["10.0.0.3:80"] },
        ],
        "consumers": [{ "name": "bank-bot", "owner": "bank" }],
        "limits": [{ "name": "bank-budget", "owner": "bank", "per": "global", "limit": 5, "window": "1m" }],
        "routes": [
            route("shop", "shop", json!({ "hosts": ["shop.test"] })),
            route("bank", "bank", json!({ "hosts": ["bank.test"], "path_prefix": "/accounts" })),
            route("welcome", "", json!({})),
        ],
    }))
}

#[test]
fn nobody_takes_the_traffic_of_a_tenant() {
    let town = town();
    let high = |matches: Value| {
        let mut route = route("x", "bank", matches);
        route["priority"] = json!(1_000);
        routes(route)
    };
    for matches in [
        json!({ "hosts": ["shop.test"] }),
        json!({ "hosts": ["api.shop.test"], "path_exact": "/hidden", "methods": ["POST"] }),
        json!({ "hosts": ["mine.test", "*.test"] }),
        json!({ "hosts": ["*.a.shop.test"], "headers": [{ "name": "x", "exact": "1" }] }),
        json!({}),
        json!({ "path_regex": "/.*" }),
        json!({ "hosts": ["shop.test"], "path_regex": "/x" }),
        json!({ "client_cidrs": ["10.0.0.0/8"] }),
        json!({ "sni": ["shop.test"] }),
    ] {
        refuses(&town, "bank", high(matches.clone()), Reason::OwnerForbidden, "routes/x.match", "tenant \"shop\"");
        // Whoever writes it: what has an owner is within bounds.
        refuses(&town, "", high(matches), Reason::Invalid, "routes/x.match", "tenant \"shop\"");
    }
    lets(&town, "bank", high(json!({ "hosts": ["bank.test", "*.bank.test"] })));
    // What has no owner is the cluster's, and only who writes for all may write it.
    lets(&town, "", routes(route("x", "", json!({ "hosts": ["shop.test"], "path_prefix": "/x" }))));
    refuses(
        &town,
        "bank",
        routes(route("x", "", json!({ "hosts": ["mine.test"] }))),
        Reason::OwnerForbidden,
        "routes/x",
        "owner \"bank\"",
    );
}

#[test]
fn a_tenant_stays_within_its_hosts() {
    let town = town();
    lets(
        &town,
        "shop",
        routes(route("x", "shop", json!({ "hosts": ["*.eu.shop.test", "shop.test"], "path_regex": "/.*" }))),
    );
    for (matches, field) in [
        (json!({ "hosts": ["bank.test"] }), "routes/x.match.hosts[0]"),
        (json!({ "hosts": ["shop.test", "*.test"] }), "routes/x.match.hosts[1]"),
        (json!({ "hosts": ["notshop.test"] }), "routes/x.match.hosts[0]"),
        (json!({ "path_prefix": "/shop" }), "routes/x.match.hosts"),
        // A connection for one name may carry requests for others.
        (json!({ "sni": ["db.shop.test"] }), "routes/x.match.hosts"),
    ] {
        refuses(
            &town,
            "shop",
            routes(route("x", "shop", matches)),
            Reason::OwnerForbidden,
            field,
            "allowed: hosts of tenant \"shop\": shop.test, *.shop.test",
        );
    }
}

#[test]
fn a_tenant_of_paths_stays_within_them() {
    let shared = world(json!({ "tenants": [
        { "name": "orders", "hosts": ["api.test"], "path_prefixes": ["/orders"] },
        { "name": "bills", "hosts": ["api.test"], "path_prefixes": ["/bills", "/invoices"] },
    ] }));
    let at = |words: Value| {
        let mut matches = words;
        matches["hosts"] = json!(["api.test"]);
        routes(route("x", "orders", matches))
    };
    lets(&shared, "orders", at(json!({ "path_prefix": "/orders" })));
    lets(&shared, "orders", at(json!({ "path_template": "/orders/{id}" })));
    for matches in [
        json!({ "path_prefix": "/" }),
        json!({ "path_prefix": "/ordersandmore" }),
        json!({ "path_exact": "/bills" }),
        json!({ "path_template": "/{any}/1" }),
        json!({ "path_regex": "/orders/.*" }),
        json!({}),
    ] {
        refuses(&shared, "orders", at(matches), Reason::OwnerForbidden, "routes/x.match", "within /orders");
    }
    // One key for all paths of a host is not for who owns some of them.
    let shown = certificate("x", "orders", &["api.test"]);
    refuses(&shared, "orders", shown, Reason::OwnerForbidden, "certificates/x.hosts", "owns paths, and no whole host");
}

#[test]
fn without_a_tenant_a_host_is_theirs_who_were_there_first() {
    let town = world(json!({
        "routes": [
            route("a", "a", json!({ "hosts": ["a.test"], "path_prefix": "/v1" })),
            route("free", "", json!({})),
        ],
    }));
    for matches in [
        json!({ "hosts": ["a.test"] }),
        json!({ "hosts": ["*.test"], "path_prefix": "/v1/deep" }),
        json!({ "path_template": "/{version}" }),
        json!({ "hosts": ["a.test"], "path_regex": "/v2" }),
    ] {
        let refused = "requests that route \"a\" of owner \"a\" takes";
        refuses(&town, "b", routes(route("x", "b", matches)), Reason::OwnerForbidden, "routes/x.match", refused);
    }
    lets(&town, "b", routes(route("x", "b", json!({ "hosts": ["a.test"], "path_prefix": "/v2" }))));
    lets(&town, "b", routes(route("x", "b", json!({ "hosts": ["b.test"] }))));
    // Of TLS that is not ended here.
    let through = world(routes(route("a", "a", json!({ "sni": ["a.test"] }))));
    lets(&through, "b", routes(route("x", "b", json!({ "hosts": ["b.test"] }))));
    for matches in [
        json!({ "hosts": ["a.test"] }),
        json!({ "sni": ["a.test"], "methods": ["GET"] }),
        json!({ "sni": ["b.test"], "path_prefix": "/" }),
    ] {
        let refused = "route \"a\" of owner \"a\"";
        refuses(&through, "b", routes(route("x", "b", matches)), Reason::OwnerForbidden, "routes/x.match", refused);
    }
    // Who writes for all may let two owners meet, and a change of what is no match leaves it at that.
    lets(&town, "", routes(route("x", "b", json!({ "hosts": ["a.test"] }))));
    let met = world(json!({ "routes": [
        route("a", "a", json!({ "hosts": ["a.test"] })),
        route("x", "b", json!({ "hosts": ["a.test"], "path_prefix": "/x" })),
    ] }));
    let mut same = route("x", "b", json!({ "hosts": ["a.test"], "path_prefix": "/x" }));
    same["respond"] = json!({ "status": 204 });
    lets(&met, "b", routes(same.clone()));
    same["priority"] = json!(5);
    refuses(&met, "b", routes(same), Reason::OwnerForbidden, "routes/x.match", "route \"a\"");
}

#[test]
fn what_others_own_is_not_referred_to() {
    let town = town();
    let mine = |words: Value| {
        let mut route = route("x", "shop", json!({ "hosts": ["x.shop.test"] }));
        route.as_object_mut().unwrap().extend(words.as_object().unwrap().clone());
        if route.get("upstream").is_some() || route.get("split").is_some() {
            route.as_object_mut().unwrap().remove("respond");
        }
        routes(route)
    };
    for (words, field) in [
        (json!({ "upstream": "bank-up" }), "routes/x.upstream"),
        (
            json!({ "split": [{ "upstream": "shop-up", "weight": 1 }, { "upstream": "bank-up", "weight": 1 }] }),
            "routes/x.split[1].upstream",
        ),
        (
            json!({ "upstream": "shop-up", "mirror": { "upstream": "bank-up", "percent": 1 } }),
            "routes/x.mirror.upstream",
        ),
        (json!({ "limits": ["bank-budget"] }), "routes/x.limits[0]"),
    ] {
        refuses(&town, "shop", mine(words), Reason::OwnerForbidden, field, "of owner \"bank\"");
    }
    lets(&town, "shop", mine(json!({ "upstream": "shop-up" })));
    lets(
        &town,
        "till",
        json!({ "routes": [{ "name": "x", "owner": "till", "match": { "hosts": ["shop.test"], "path_prefix": "/till" }, "upstream": "shop-up" }] }),
    );
    lets(&town, "shop", mine(json!({ "upstream": "common" })));
}

#[test]
fn what_is_the_whole_clusters_is_not_one_owners() {
    let town = town();
    for (words, field) in [
        (json!({ "listeners": [{ "name": "x", "owner": "shop", "address": "0.0.0.0:9999" }] }), "listeners/x"),
        (json!({ "tenants": [{ "name": "x", "owner": "shop", "hosts": ["x.test"] }] }), "tenants/x"),
        (
            json!({ "guardrails": [{ "name": "x", "owner": "shop", "require": "true", "message": "m" }] }),
            "guardrails/x",
        ),
    ] {
        refuses(&town, "shop", words, Reason::OwnerForbidden, field, "they concern all owners");
    }
    let receiver = |receiver: &str| {
        json!({
            "auth": [{ "name": "mine", "owner": "shop", "api_key": {} }],
            "routes": [{ "name": "x", "owner": "shop", "match": { "hosts": ["x.shop.test"] },
                         "respond": { "receiver": receiver, "auth": "mine" } }],
        })
    };
    refuses(&town, "shop", receiver("revocation"), Reason::OwnerForbidden, "routes/x.respond.receiver", "jwks");
    lets(&town, "shop", receiver("jwks"));
    let counted =
        |tenant: &str| json!({ "consumers": [{ "name": "x", "owner": "shop", "labels": { "tenant": tenant } }] });
    refuses(&town, "shop", counted("bank"), Reason::OwnerForbidden, "consumers/x.labels.tenant", "\"bank\"");
    lets(&town, "shop", counted("till"));
    // Their objects cannot be deleted either, nor taken over by a change of owner.
    let key = Key { kind: Kind::Route, name: "bank".parse().unwrap() };
    let gone = ResourceChange { key, after: None, expect: Expect::Anything };
    assert_eq!(attempt(&town, "shop", vec![gone]).unwrap_err().reason, Reason::OwnerForbidden);
    let taken = routes(route("bank", "shop", json!({ "hosts": ["shop.test"] })));
    refuses(&town, "shop", taken, Reason::OwnerForbidden, "routes/bank", "before and after");
}

#[test]
fn a_certificate_is_for_hosts_of_its_owner() {
    let town = town();
    lets(&town, "shop", certificate("x", "shop", &["shop.test", "*.shop.test"]));
    let stray = certificate("x", "shop", &["shop.test", "bank.test"]);
    refuses(&town, "shop", stray, Reason::OwnerForbidden, "certificates/x.hosts[1]", "\"bank.test\"");
    let every = certificate("x", "shop", &[]);
    refuses(&town, "shop", every, Reason::OwnerForbidden, "certificates/x.hosts", "every host");
    let theirs = certificate("x", "bank", &["a.shop.test"]);
    refuses(&town, "bank", theirs, Reason::OwnerForbidden, "certificates/x.hosts", "tenant \"shop\"");
    let first = world(certificate("a", "a", &["*.a.test"]));
    refuses(&first, "b", certificate("x", "b", &["x.a.test"]), Reason::OwnerForbidden, "certificates/x.hosts", "\"a\"");
    refuses(&first, "b", certificate("x", "b", &[]), Reason::OwnerForbidden, "certificates/x.hosts", "none");
    lets(&first, "b", certificate("x", "b", &["b.test"]));
}

#[test]
fn quotas_count_the_objects_of_all_owners_of_a_tenant() {
    let town = town();
    let some = |names: &[(&str, &str)]| {
        let one = |(name, owner): &(&str, &str)| route(name, owner, json!({ "hosts": [format!("{name}.shop.test")] }));
        json!({ "routes": names.iter().map(one).collect::<Vec<_>>() })
    };
    lets(&town, "shop", some(&[("x", "shop"), ("y", "shop")]));
    let refused = "routes: found 4 of the owners of tenant \"shop\"; allowed: 3 by its quotas";
    let four = some(&[("x", "shop"), ("y", "shop"), ("z", "till")]);
    refuses(&town, "", four, Reason::LimitReached, "routes", refused);
    let second = json!({ "upstreams": [{ "name": "x", "owner": "till", "targets": ["10.0.0.9:80"] }] });
    refuses(&town, "till", second, Reason::LimitReached, "upstreams", "found 2");
    // One in place of another is no more than there were.
    let key = Key { kind: Kind::Upstream, name: "shop-up".parse().unwrap() };
    let mut swap = upserts(&json!({ "upstreams": [{ "name": "x", "owner": "shop", "targets": ["10.0.0.9:80"] }] }));
    swap.push(ResourceChange { key, after: None, expect: Expect::Anything });
    assert_eq!(attempt(&town, "shop", swap), Ok(()));
    // What is there already does not fit into a smaller quota.
    let less = json!({ "tenants": [{ "name": "shop", "owners": ["shop"], "hosts": ["shop.test"], "quotas": { "routes": 0 } }] });
    refuses(&town, "", less, Reason::LimitReached, "routes", "found 1");
}

#[test]
fn tenants_are_apart_and_what_is_there_fits_into_them() {
    let town = town();
    let tenant = |words: Value| json!({ "tenants": [words] });
    for (words, field, mention) in [
        (json!({ "name": "x", "owners": ["till"] }), "tenants/x.owners", "tenant \"shop\" is about"),
        (json!({ "name": "x", "hosts": ["deep.shop.test"] }), "tenants/x.hosts", "tenant \"shop\" owns too"),
        (json!({ "name": "x", "path_prefixes": ["/x"] }), "tenants/x.hosts", "tenant \"shop\" owns too"),
        // The bank was there first.
        (json!({ "name": "x", "hosts": ["bank.test"] }), "routes/bank.match", "tenant \"x\""),
        (json!({ "name": "bank", "hosts": ["other.test"] }), "routes/bank.match.hosts[0]", "other.test"),
    ] {
        refuses(&town, "", tenant(words), Reason::Invalid, field, mention);
    }
    lets(&town, "", tenant(json!({ "name": "bank", "hosts": ["bank.test"], "path_prefixes": ["/accounts"] })));
    lets(&town, "", tenant(json!({ "name": "x" })));
    // A tenant and what it owns come in one change, and go in one.
    let both = json!({
        "tenants": [{ "name": "new", "hosts": ["new.test"] }],
        "routes": [route("new", "new", json!({ "hosts": ["new.test"] }))],
    });
    lets(&town, "", both);
    let key = Key { kind: Kind::Tenant, name: "shop".parse().unwrap() };
    let mut taken = upserts(&routes(route("x", "bank", json!({ "hosts": ["new.shop.test"] }))));
    taken.push(ResourceChange { key, after: None, expect: Expect::Anything });
    assert_eq!(attempt(&town, "", taken), Ok(()));
}

#[test]
fn what_follows_from_resources_is_the_same_whether_followed_or_made_anew() {
    let town = town();
    let words = json!({
        "tenants": [{ "name": "shop", "owners": ["till"], "hosts": ["shop.test"] }],
        "routes": [route("shop", "till", json!({ "hosts": ["shop.test"] }))],
        "guardrails": [{ "name": "x", "require": "true", "message": "m" }],
    });
    let changed = change::effect(&town.resources, &upserts(&words));
    let after = change::redo(&town.resources, &changed);
    let mut followed = town.lookups.clone();
    followed.advance(&after, &changed).unwrap();
    assert_eq!(followed, Lookups::of(&after));
    assert!(followed.guardrails().is_some() && town.lookups.guardrails().is_none());
}

#[test]
fn an_entry_of_an_older_build_is_applied_as_that_build_does() {
    let town = world(routes(route("a", "a", json!({ "hosts": ["a.test"] }))));
    let actor = Actor { owner_scope: "b".into(), ..Actor::default() };
    let changes = upserts(&routes(route("x", "b", json!({ "hosts": ["a.test"], "path_prefix": "/x" }))));
    let mut change = ChangeResources { changes: changes.into(), ..Default::default() };
    assert!(town.preview(&actor, &change).is_ok());
    change.bounded = true;
    assert!(town.preview(&actor, &change).is_err());
}
