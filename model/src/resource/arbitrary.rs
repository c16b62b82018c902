//! Random resources for property tests: a small world for matching, every field for round trips.

use std::collections::BTreeMap;

use proptest::{
    collection::{btree_map, vec},
    option::of,
    prelude::*,
    sample::{select, subsequence},
};

use serde_json::json;

use super::*;
use crate::units::{Size, Span};

pub const LISTENERS: &[&str] = &["l1", "l2"];
pub const VALUES: &[&str] = &["1", "2", "aa", ""];
pub const VALUE_REGEX: &str = "[0-9]|a*";
pub const PATH_REGEXES: &[&str] = &["/a.*", "/[ab]/b", "/b|/c/.*", "/ab?/b?", "/b/a*", ".*"];

fn field(names: &'static [&'static str]) -> impl Strategy<Value = FieldWords> {
    (select(names), 0..4, select(VALUES)).prop_map(|(name, form, value)| {
        let mut words = FieldWords { name: name.to_owned(), ..FieldWords::default() };
        match form {
            0 => words.exact = Some(value.to_owned()),
            1 => words.regex = Some(VALUE_REGEX.to_owned()),
            2 => words.present = Some(true),
            _ => words.absent = Some(true),
        }
        words
    })
}

/// None three times out of four.
fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Vec<FieldWords>> {
    prop_oneof![3 => Just(Vec::new()), 1 => vec(field(names), 1..3)]
}

fn some_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let some = subsequence(words, 1..=words.len().min(3));
    prop_oneof![2 => Just(Vec::new()), 1 => some.prop_map(|words| words.into_iter().map(str::to_owned).collect())]
}

fn path() -> impl Strategy<Value = MatchWords> {
    let literals = || vec(select(&["a", "b", "c"][..]), 0..3).prop_map(|parts| format!("/{}", parts.join("/")));
    let template = vec(select(&["a", "b", "{}"][..]), 0..3).prop_map(|mut parts| {
        parts.push("{}");
        let named = |(place, part): (usize, &str)| format!("/{}", part.replace("{}", &format!("{{p{place}}}")));
        parts.into_iter().enumerate().map(named).collect::<String>()
    });
    let regex = select(PATH_REGEXES).prop_map(str::to_owned);
    prop_oneof![
        Just(MatchWords::default()),
        literals().prop_map(|path| MatchWords { path_prefix: Some(path), ..MatchWords::default() }),
        literals().prop_map(|path| MatchWords { path_exact: Some(path), ..MatchWords::default() }),
        template.prop_map(|path| MatchWords { path_template: Some(path), ..MatchWords::default() }),
        regex.prop_map(|path| MatchWords { path_regex: Some(path), ..MatchWords::default() }),
    ]
}

/// Priority and match of a route.
pub fn match_words() -> impl Strategy<Value = (i32, MatchWords)> {
    let priority = prop_oneof![5 => Just(0), 1 => -1..=1];
    (
        priority,
        path(),
        some_of(&["a.t", "b.t", "x.a.t", "*.t", "*.a.t"]),
        some_of(&["GET", "POST", "HEAD", "OPTIONS"]),
        fields(&["x-v", "x-w"]),
        fields(&["q", "r"]),
        fields(&["c", "d"]),
        some_of(&["10.0.0.0/8", "192.168.0.0/16", "2001:db8::/32"]),
        (some_of(&["a.t", "*.a.t"]), some_of(LISTENERS)),
    )
        .prop_map(|(priority, path, hosts, methods, headers, query, cookies, client_cidrs, (sni, listeners))| {
            let listeners = listeners.iter().map(|name| name.parse().unwrap()).collect();
            (priority, MatchWords { hosts, methods, headers, query, cookies, client_cidrs, sni, listeners, ..path })
        })
}

/// A route to the upstream `u` with every default.
pub fn plain_words(name: &str) -> RouteWords {
    RouteWords {
        name: name.parse().unwrap(),
        labels: BTreeMap::new(),
        owner: String::new(),
        description: String::new(),
        priority: 0,
        matches: MatchWords::default(),
        upstream: Some("u".parse().unwrap()),
        split: None,
        split_on: None,
        ramp: None,
        redirect: None,
        respond: None,
        rewrite: Rewrite::default(),
        auth: None,
        authorize: Vec::new(),
        on_stale: None,
        encoded_slash: EncodedSlash::default(),
        access_log: None,
        limits: Vec::new(),
        body: BodyLimit::default(),
        timeouts: RouteTimeouts::default(),
        retries: RouteRetries::default(),
        mirror: None,
        cors: None,
        compression: None,
        cache: None,
        policies: Vec::new(),
        security_headers: None,
    }
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9][a-z0-9._-]{0,20}".prop_map(|name| name.parse().unwrap())
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z]{1,8}", "\\PC{0,8}", 0..3)
}

fn span() -> impl Strategy<Value = Span> {
    (1_000..=86_400_000_000u64).prop_map(|micros| Span(std::time::Duration::from_micros(micros)))
}

/// None with `${`, which begins a value of the request.
fn headers() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("x-[a-z]{1,6}", "[!-~]([ -z]{0,6}[!-z])?", 0..3)
}

fn edits() -> impl Strategy<Value = HeaderEdits> {
    let remove = some_of(&["x-one", "x-two", "server"]);
    (headers(), headers(), remove).prop_map(|(set, add, remove)| HeaderEdits { set, add, remove })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let host = of("[a-z]{1,8}\\.test");
    let scheme = of(select(&["http", "https"][..]).prop_map(str::to_owned));
    let path = "/[a-z?=&%/]{0,8}".prop_map(Some);
    (select(&[301, 302, 303, 307, 308][..]), scheme, host, of(1..=u16::MAX), path)
        .prop_map(|(status, scheme, host, port, path)| Redirect { status, scheme, host, port, path })
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    let host = select(&["preserve", "target", "in.test", "in.test:81"][..]);
    let query = of((headers(), headers(), some_of(&["one", "two"])));
    let query = query.prop_map(|it| it.map(|(set, add, remove)| QueryEdits { set, add, remove }).unwrap_or_default());
    let prefix = of(select(&["/", "/v1", "/v1/x"][..]));
    let path = prop_oneof![
        prefix.prop_map(|it| (it, None, None)),
        Just((None, Some("/to/${host}".to_owned()), None)),
        Just((None, None, Some(PathRegex { pattern: "^/(?<a>.)".into(), to: "/b/${a}$1".into() }))),
    ];
    let text = || of(select(&["{\"a\": ${body.a}}", "[\"${client_ip}\"]"][..]).prop_map(str::to_owned));
    let body = (text(), text(), 1..=1u64 << 24);
    let body = of(body.prop_map(|(request, response, max)| BodyRewrites { request, response, max: Size(max) }));
    let body = body.prop_map(Option::unwrap_or_default);
    let all = (host, path, edits(), edits(), query, body);
    all.prop_map(|(host, (prefix, path, path_regex), request, response, query, body)| Rewrite {
        host: HostRewrite::from(host.to_owned()),
        path_prefix: prefix.map(str::to_owned),
        path,
        path_regex,
        query,
        headers: HeaderRewrites { request, response },
        body,
    })
}

fn respond() -> impl Strategy<Value = RespondWords> {
    let fixed = (206..=303u16, "\\PC{0,20}", headers()).prop_map(|(status, body, headers)| RespondWords {
        status: Some(status),
        body,
        headers,
        ..RespondWords::default()
    });
    let receiver = (select(Receiver::ALL), name()).prop_map(|(receiver, auth)| RespondWords {
        receiver: Some(receiver),
        auth: Some(auth),
        ..RespondWords::default()
    });
    prop_oneof![3 => fixed, 1 => receiver]
}

/// `auth`, `authorize` and `limits` of a route.
fn access() -> impl Strategy<Value = (Option<RouteAuthWords>, Vec<AuthorizeWords>, Vec<Name>)> {
    let names = || vec(name(), 1..3).prop_filter("each once", |names| names.len() < 2 || names[0] != names[1]);
    let auth = (names(), any::<bool>(), of(name())).prop_map(|(names, any, anonymous)| {
        let (any_of, all_of) = if any { (Some(names), None) } else { (None, Some(names)) };
        RouteAuthWords { any_of, all_of, anonymous }
    });
    // No text is `X`: the values of a claim are named once each.
    let condition = (some_of(&["a", "b", "c"]), some_of(&["GET", "POST"]), some_of(&["10.0.0.0/8"]), of("[a-z]{1,8}"));
    let condition = condition.prop_map(|(words, methods, cidrs, text)| ConditionWords {
        scopes_all: words.clone(),
        groups: words.clone(),
        claims: text
            .iter()
            .map(|claim| (claim.clone(), OneOrMany::from(vec!["X".to_owned(), claim.clone()])))
            .collect(),
        methods,
        cidrs,
        cel: text,
        ..ConditionWords::default()
    });
    let rule = (of(name()), condition, 0..3).prop_map(|(name, condition, effect)| {
        let none = AuthorizeWords { name, allow: None, deny: None, log: None };
        match effect {
            0 => AuthorizeWords { allow: Some(condition), ..none },
            1 => AuthorizeWords { deny: Some(condition), ..none },
            _ => AuthorizeWords { log: Some(condition), ..none },
        }
    });
    (of(auth), vec(rule, 0..3), prop_oneof![Just(Vec::new()), names()])
}

/// Every word of `split`, with and without what may be left out.
fn split() -> impl Strategy<Value = (Vec<Arm>, Option<SplitOnWords>, Option<Ramp>)> {
    let on = select(
        &[
            r#""consumer""#,
            r#""credential""#,
            r#""ip""#,
            r#"{"header":"x-user"}"#,
            r#"{"cookie":"arm"}"#,
            r#"{"cookie":"arm","ttl":"30d"}"#,
        ][..],
    );
    let ramp = (0..=253_402_300_799_999u64, 1..=3600u64, 1..=RAMP_STEPS_MAX).prop_map(|(start, s, steps)| Ramp {
        start: crate::units::Moment(start),
        duration: Span::secs(s),
        steps,
    });
    let weights = vec((1..=SPLIT_WEIGHT_MAX, of(1..=SPLIT_WEIGHT_MAX)), 1..4);
    (weights, of(on), of(ramp)).prop_map(|(weights, on, ramp)| {
        let arm = |(place, (weight, from)): (usize, (u32, Option<u32>))| Arm {
            upstream: format!("u{place}").parse().unwrap(),
            weight,
            from: from.filter(|_| ramp.is_some()),
        };
        let arms = weights.into_iter().enumerate().map(arm).collect();
        (arms, on.map(|it| serde_json::from_str(it).unwrap()), ramp)
    })
}

/// `mirror`, `cors`, `compression` and `cache` of a route.
fn traffic() -> impl Strategy<Value = (Option<Mirror>, Option<CorsWords>, Option<Compression>, Option<Cache>)> {
    let mirror = (name(), 1..=100u32, 0..=MIRROR_BODY_MAX.0).prop_map(|(upstream, percent, body_max)| Mirror {
        upstream,
        percent,
        body_max: Size(body_max),
    });
    let origins = select(&["*", "null", "https://*.a.test:81", "http://[::1]:3000", "app://x"][..]);
    let cors = (origins, some_of(&["GET", "PUT"]), some_of(&["x-one", "x-two"]), any::<bool>(), of(span()));
    let cors = cors.prop_map(|(origin, methods, headers, credentials, max_age)| CorsWords {
        origins: vec![origin.to_owned()],
        methods,
        headers: headers.clone(),
        expose_headers: headers,
        credentials: credentials && origin != "*",
        max_age,
    });
    let codings = subsequence(Coding::ALL, 1..=3);
    let compression = (codings, some_of(&["text/*", "application/*+json"]), any::<u64>()).prop_map(
        |(algorithms, types, min_size)| {
            let default = Compression::default();
            let types = if types.is_empty() { default.types } else { types };
            Compression { algorithms, types, min_size: Size(min_size) }
        },
    );
    let cache = (of(span()), of(span()), 0..=CACHE_OBJECT_MAX.0).prop_map(|(ttl, window, object_max)| Cache {
        default_ttl: ttl,
        object_max: Size(object_max),
        stale_while_revalidate: window,
        stale_if_error: ttl,
    });
    (of(mirror), of(cors), of(compression), of(cache))
}

#[derive(Debug, Clone)]
enum Does {
    Forward(Name),
    Split((Vec<Arm>, Option<SplitOnWords>, Option<Ramp>)),
    Redirect(Redirect),
    Respond(RespondWords),
}

pub fn route() -> impl Strategy<Value = Route> {
    let does = prop_oneof![
        name().prop_map(Does::Forward),
        split().prop_map(Does::Split),
        redirect().prop_map(Does::Redirect),
        respond().prop_map(Does::Respond)
    ];
    let texts = (name(), labels(), "\\PC{0,12}", "\\PC{0,12}");
    let flags = (select(&OnStale::ALL[..]), select(&EncodedSlash::ALL[..]), of(any::<bool>()));
    let limits = (any::<u64>(), prop_oneof![Just(Span::default()), span()], of(0..=10u32));
    (texts, any::<i32>(), match_words(), does, rewrite(), flags, (limits, access(), traffic())).prop_map(
        |((name, labels, owner, description), priority, (_, matches), does, mut rewrite, flags, others)| {
            let (limits, access, traffic) = others;
            if matches.path_prefix.is_none() && matches.path_exact.is_none() {
                rewrite.path_prefix = None;
            }
            let mut words = RouteWords {
                labels,
                owner,
                description,
                priority,
                matches,
                upstream: None,
                rewrite,
                auth: access.0,
                authorize: access.1,
                limits: access.2,
                on_stale: Some(flags.0),
                encoded_slash: flags.1,
                access_log: flags.2,
                body: BodyLimit {
                    max: Size(limits.0),
                    decompressed_max: Size(limits.0 / 2),
                    buffer: (1..=64 << 20).contains(&limits.0) && limits.0 % 2 == 1,
                },
                timeouts: RouteTimeouts { total: limits.1 },
                retries: RouteRetries { attempts: limits.2 },
                cors: traffic.1,
                compression: traffic.2,
                cache: traffic.3,
                ..plain_words(&name)
            };
            if matches!(does, Does::Forward(_) | Does::Split(_)) {
                words.mirror = traffic.0;
            }
            match does {
                Does::Forward(name) => words.upstream = Some(name),
                Does::Split((arms, on, ramp)) => {
                    (words.split, words.split_on, words.ramp) = (Some(arms), on, ramp);
                }
                Does::Redirect(it) => words.redirect = Some(it),
                Does::Respond(it) => words.respond = Some(it),
            }
            words.try_into().unwrap()
        },
    )
}

pub fn upstream() -> impl Strategy<Value = Upstream> {
    let target = (select(&["10.1.0.4", "a.test", "[::1]"][..]), 1..=1000u32, 0..=100u32, of("[a-z]{1,6}"));
    let targets = vec(target, 1..4).prop_map(|targets| {
        let named = |(place, (host, weight, priority, zone)): (usize, (&str, u32, u32, Option<String>))| Target {
            address: format!("{host}:{}", 9000 + place).parse().unwrap(),
            weight: weight.try_into().unwrap(),
            priority,
            zone,
        };
        targets.into_iter().enumerate().map(named).collect::<Vec<_>>()
    });
    let health = ("/[a-z?=/]{0,8}", span(), span(), 1..=100u32, 1..=100u32, 100..=599u16);
    let health = health.prop_map(|(path, interval, timeout, unhealthy_after, healthy_after, first)| HealthCheck {
        path,
        interval,
        timeout,
        unhealthy_after,
        healthy_after,
        expect: StatusRange { first, last: 599 },
    });
    let on = [&RetryOn::WORDS[..], &[RetryOn::Status(429), RetryOn::Status(503)]].concat();
    let retries = (0..=10u32, subsequence(on, 1..=3), 0..=100u32, any::<bool>());
    let timeouts = (span(), span(), span(), prop_oneof![Just(Span::default()), span()]);
    let header = "[a-z]{1,6}".prop_map(HashOn::Header);
    let cookie = "[A-Za-z]{1,6}".prop_map(HashOn::Cookie);
    let hash_on = of(prop_oneof![Just(HashOn::Ip), Just(HashOn::Consumer), header, cookie]);
    let choices = (select(&Protocol::ALL[..]), select(&BalancePolicy::ALL[..]), hash_on);
    let outlier = (0..=9u32, span(), 0..=100u32);
    let breaker = of((0..=100u32, span(), 1..=50u32, span(), 0..=9u32));
    let breaker = breaker.prop_map(|it| {
        it.map(|(error_percent, window, min_requests, open, max_in_flight)| Breaker {
            error_percent,
            window,
            min_requests,
            open,
            max_in_flight,
        })
    });
    let tls = of((of("[a-z]{1,6}\\.test"), of(name()), of(name()), any::<bool>()));
    let more = (outlier, breaker, span(), of(select(&ProxyProtocol::ALL[..])), tls);
    let meta = (name(), labels(), "\\PC{0,12}", "\\PC{0,12}");
    (meta, targets, choices, of(health), retries, (timeouts, of(name())), more).prop_map(
        |((name, labels, owner, description), targets, choices, health, retries, (timeouts, auth), more)| {
            let (protocol, policy, hash_on) = choices;
            let (connect, response_header, idle, total) = timeouts;
            let (attempts, on, budget_percent, hedge) = retries;
            let (outlier, breaker, slow_start, proxy_protocol, tls) = more;
            let (consecutive_errors, ejection, max_ejected_percent) = outlier;
            let hashes = matches!(policy, BalancePolicy::Maglev | BalancePolicy::P2cEwma);
            let words = UpstreamWords {
                name,
                labels,
                owner,
                description,
                targets,
                protocol,
                balance: Balance { policy, hash_on: hash_on.filter(|_| hashes) },
                health,
                retries: Retries { attempts, on, budget_percent, hedge },
                timeouts: UpstreamTimeouts { connect, response_header, idle, total },
                auth,
                outlier: Outlier { consecutive_errors, ejection, max_ejected_percent },
                breaker,
                slow_start,
                proxy_protocol: proxy_protocol.filter(|_| protocol == Protocol::Http1),
                tls: tls.map(|(server_name, ca, client_certificate, verify)| UpstreamTls {
                    server_name,
                    ca,
                    client_certificate,
                    verify,
                }),
            };
            words.try_into().unwrap()
        },
    )
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

/// Words of the other kinds, in which anything that may vary does.
fn others() -> impl Strategy<Value = Resource> {
    let secret = "[!-~]{32,40}".prop_map(|text| format!("plain:{text}"));
    let sealed = "[0-9a-f]{16}".prop_map(|text| format!("sealed:{text}"));
    let secret = prop_oneof![secret, sealed];
    let span = (1..=29u64).prop_map(|s| format!("{s}s"));
    let amount = 1..=LIMIT_MAX;
    let flags = (any::<bool>(), any::<bool>(), 0..=20u8, 0..=3u8);
    (name(), secret, span, amount, flags).prop_map(|(name, secret, span, amount, (one, two, kind, form))| {
        let client = |url: &str| {
            json!({ url: "https://i.test/x?y", "client_id": "c", "client_secret": secret, "allow_private": one })
        };
        let keys = match form {
            0 => json!({ "jwks_url": "https://i.test/" }),
            1 => json!({ "discovery": true }),
            2 => json!({ "jwks_inline": { "keys": [{ "kty": "EC", "x": "1" }] } }),
            _ => json!({ "secret": secret, "algorithms": ["HS512", "HS256"] }),
        };
        let mut jwt = json!({ "issuer": "https://i.test", "audience": ["a", "b"], "skew": span, "allow_private": one });
        for (word, value) in keys.as_object().into_iter().flatten() {
            jwt[word] = value.clone();
        }
        if two {
            jwt["typ"] = json!("at+jwt");
            jwt["consumer_claim"] = json!("azp");
            jwt["groups_claim"] = json!("realm_access.roles");
        }
        let per = match form {
            0 => json!("global"),
            1 => json!(["consumer", { "ip": 24, "ip6": 48 }]),
            2 => json!({ "header": "x-who" }),
            _ => json!([{ "claim": "sub" }, "route"]),
        };
        let cost = match form {
            0 => json!(amount),
            1 => json!({ "request_header": "x-cost" }),
            2 => json!({ "response_header": "x-cost", "reserve": amount }),
            _ => json!({ "ai_tokens": "input" }),
        };
        let mut key = json!({ "id": "k", "algorithm": "hmac-sha256", "consumer": "c" });
        key["secret"] = json!(secret);
        let (kind, mut words) = match kind {
            0 => (Kind::Consumer, json!({ "groups": if one { vec!["a", "b"] } else { vec![] }, "plan": two.then_some("p") })),
            1 => (Kind::Auth, json!({ "api_key": { "header": "x-k", "query": two.then_some("k") } })),
            2 => (Kind::Auth, json!({ "jwt": jwt })),
            3 => (Kind::Auth, json!({ "mtls": { "ca": "ca", "consumer_from": ConsumerFrom::ALL[form as usize] } })),
            4 => (Kind::Auth, json!({ "basic": { "realm": one.then_some("r") } })),
            5 => (Kind::Auth, json!({ "signature": { "components": ["@path", "date"], "max_age": span, "keys": [key] } })),
            6 => (Kind::Auth, json!({ "introspection": client("endpoint") })),
            7 => (Kind::Auth, json!({ "oidc_login": client("issuer") })),
            8 if one => (Kind::Auth, json!({ "upstream_key": { "header": "x-api-key", "scheme": two.then_some("Key"), "key": secret } })),
            8 => (Kind::Auth, json!({ "client_credentials": client("token_endpoint") })),
            9 => (Kind::Limit, json!({ "per": per, "limit": amount, "window": span, "cost": cost, "soft": one })),
            10 => (Kind::Limit, json!({ "per": per, "kind": "bucket", "rate": amount, "mode": "local" })),
            11 => (Kind::Limit, json!({ "per": per, "kind": "calendar", "limit": amount, "every": "month" })),
            12 => (
                Kind::Certificate,
                json!({ "hosts": if one { vec!["a.t", "*.b.t"] } else { vec![] }, "chain": PEM, "key": secret,
                        "ocsp": two.then_some("MAA=") }),
            ),
            13 => (
                Kind::Listener,
                json!({ "address": "[::1]:8443", "protocol": "https", "certificates": ["a", "b"], "http3": one,
                        "client_ca": two.then_some("ca"), "proxy_protocol_from": ["10.0.0.0/8"],
                        "merge_slashes": one }),
            ),
            15 => (
                Kind::Policy,
                json!({ "ip": { "allow": if one { vec!["10.0.0.0/8", "::/0"] } else { vec![] }, "deny": ["192.0.2.0/24"] } }),
            ),
            16 => (
                Kind::Policy,
                json!({ "json": { "mode": if one { "detect" } else { "enforce" }, "max_depth": 3, "max_array": 7,
                        "max_string": "1KiB", "duplicate_keys": if two { "allow" } else { "refuse" } } }),
            ),
            17 => (
                Kind::Policy,
                match form {
                    0 if one => json!({ "ai": { "provider": if two { "openai" } else { "anthropic" }, "max_tokens_max": 9_000,
                                 "strict": two, "media_tokens": 7, "prompt_deny": if two { vec!["a+"] } else { vec![] },
                                 "models": [{ "name": "small", "targets": [
                                     { "model": "m/1", "weight": 3, "input_price": amount % 1_000 },
                                     { "model": "m-2", "upstream": two.then_some("u"), "priority": 1, "output_price": 7 }] }] } }),
                    0 if one => json!({ "bot": { "mode": if two { "detect" } else { "off" }, "allow": ["^ok$"], "deny": if two { vec!["(?i)x"] } else { vec![] },
                                 "missing": if two { "refuse" } else { "allow" }, "scanners": "allow" } }),
                    0 if one => json!({ "mask": {
                        "fields": [{ "pointer": "/a/*/b~1", "with": "remove" }, { "pointer": "/**/c" }],
                        "patterns": if two { json!([{ "class": "iban", "with": "last4" }]) } else { json!([]) },
                        "headers": if two { json!([]) } else { json!([{ "name": "x-a", "with": "remove" }, { "name": "x-b" }]) },
                        "unless": { "groups": if two { vec!["g"] } else { vec![] }, "scopes_any": ["s"] },
                        "body_max": "1KiB", "other_types": if two { "allow" } else { "refuse" } } }),
                    1 if two && amount % 2 == 0 => json!({ "portal": {
                        "title": "Acme <APIs>", "apis": if one { vec!["orders"] } else { vec![] },
                        "keys": one.then_some(json!({ "max": 1 + amount % 100, "scopes": ["a:b"], "expires": "7d" })) } }),
                    0 => json!({ "xml": { "max_depth": 3, "max_elements": 7, "max_attributes": 0, "max_text": "1KiB" } }),
                    2 if one => json!({ "anomaly": { "per": if two { "ip" } else { "credential" }, "v4_prefix": 24, "window": "90s",
                                 "over": { "failures": 7, "bytes_out": two.then_some("1MiB"), "objects": (!two).then_some(9) },
                                 "object": if two { "query.id" } else { "params.id" }, "failure_statuses": if two { vec![401] } else { vec![] },
                                 "action": if two { "ban" } else { "challenge" }, "hold": "5m",
                                 "exempt_cidrs": if two { vec!["10.0.0.0/8"] } else { vec![] }, "exempt_consumers": if two { vec![] } else { vec!["probe"] },
                                 "webhook": two.then(|| json!({ "url": "https://i.test/x?y", "secret": "sealed:0123456789abcdef", "allow_private": one })) } }),
                    2 => json!({ "injection": { "threshold": 7, "classes": if one { vec!["xss"] } else { vec![] },
                                 "exceptions": [{ "in": two.then_some("body"), "pointer": "/a/*", "classes": ["sqli"] }] } }),
                    3 if one => json!({ "version": { "api": "orders", "version": "v1", "state": if two { "deprecated" } else { "draft" },
                                 "preview_groups": if two { vec!["beta"] } else { vec![] },
                                 "deprecated_at": "2026-06-01T00:00:00Z", "sunset": two.then_some("2026-12-31T00:00:00.5Z"),
                                 "successor": "v2", "successor_url": "/v2",
                                 "brownouts": if two { json!([{ "start": "2026-11-01T00:00:00Z", "end": "2026-11-01T01:00:00Z", "status": 410 }]) } else { json!([]) } } }),
                    1 if one => json!({ "contract": { "mode": if two { "detect" } else { "off" }, "responses": "detect",
                                 "unknown_operations": "allow", "schemas": { "A": { "type": "string", "multipleOf": 0.5 } },
                                 "operations": [{ "id": "o", "method": "POST", "path": "/o/{id}.{x}", "mode": two.then_some("enforce"),
                                     "parameters": [{ "in": "query", "name": "q", "style": "json", "explode": two.then_some(false),
                                                      "schema": { "$ref": "#/schemas/A" } }],
                                     "body": if two { json!({ "required": true, "content": [{ "type": "text/*", "schema": true }] }) } else {
                                         json!({ "content": [{ "type": "multipart/form-data", "schema": true, "encoding": [{ "name": "f", "types": ["image/*"] }] }] }) },
                                     "responses": [{ "status": "4XX", "content": [{ "type": "*/*" }] }],
                                     "summary": if two { "s" } else { "" }, "description": "d" }] } }),
                    1 => json!({ "multipart": { "max_parts": 3, "max_files": 0, "max_part": "1KiB", "max_name": 9 } }),
                    _ => json!({ "graphql": { "max_depth": 3, "max_aliases": 0, "max_complexity": 9, "max_batch": 1,
                                 "introspection": if one { "allow" } else { "refuse" } } }),
                },
            ),
            18 => (
                Kind::Tenant,
                json!({ "owners": if one { vec!["a", "b"] } else { vec![] }, "hosts": ["a.t", "*.b.t"],
                        "path_prefixes": if two { vec!["/a"] } else { vec![] },
                        "quotas": { "routes": amount % 1_000, "policies": two.then_some(0) } }),
            ),
            19 => (
                Kind::Guardrail,
                json!({ "kinds": if one { vec!["routes"] } else { vec![] }, "require": "true", "message": "m",
                        "effect": GuardEffect::ALL[form as usize % GuardEffect::ALL.len()].word(),
                        "except_owners": if two { vec!["o"] } else { vec![] },
                        "approval_labels": if one != two { vec!["a=b", "c"] } else { vec![] } }),
            ),
            14 => (Kind::Listener, json!({ "address": "1.2.3.4:5", "protocol": "tcp", "upstream": "u" })),
            _ => (Kind::Limit, json!({ "per": per, "kind": "concurrency", "limit": amount, "max_hold": span })),
        };
        words["name"] = json!(name);
        kind.parse(words).unwrap()
    })
}

/// One of any kind.
pub fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        route().prop_map(|it| Resource::Route(Arc::new(it))),
        upstream().prop_map(|it| Resource::Upstream(Arc::new(it))),
        others(),
    ]
}
