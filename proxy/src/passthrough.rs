//! TLS that is not ended here: which upstream its server name leads to, by the routes that ask for nothing else.

use std::{cell::RefCell, collections::HashMap, net::IpAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use quorumgate_model::{
    resource::{Action, HostPattern, Match, Name, OnStale, PathPattern},
    ruleset::{Rule, Ruleset},
};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A ClientHello with post-quantum shares and a long list of everything has a tenth of this.
const HELLO_BYTES_MAX: usize = 32 << 10;

/// The routes of a ruleset by server name.
#[derive(Default)]
pub(crate) struct ServerNames {
    exact: HashMap<String, Vec<Way>>,
    /// By suffix, with its dot.
    suffixes: HashMap<String, Vec<Way>>,
}

pub(crate) struct Way {
    pub(crate) rule: Arc<Rule>,
    pub(crate) upstream: Name,
}

/// Made anew when the ruleset is another one.
#[derive(Default)]
pub(crate) struct Cache(RefCell<Option<(Arc<Ruleset>, Rc<ServerNames>)>>);

impl Cache {
    pub(crate) fn of(&self, rules: &Arc<Ruleset>) -> Rc<ServerNames> {
        let mut cache = self.0.borrow_mut();
        match &*cache {
            Some((known, names)) if Arc::ptr_eq(known, rules) => names.clone(),
            _ => {
                let names = Rc::new(ServerNames::of(rules));
                *cache = Some((rules.clone(), names.clone()));
                names
            }
        }
    }
}

impl ServerNames {
    fn of(rules: &Ruleset) -> Self {
        let mut names = Self::default();
        // By name, so that of equals the first wins, as in routing.
        for rule in rules.rules.values() {
            let Some(upstream) = way_of(rules, rule) else { continue };
            for pattern in &rule.route.matches.sni {
                let list = match pattern {
                    HostPattern::Exact(name) => names.exact.entry(name.clone()),
                    HostPattern::Suffix(suffix) => names.suffixes.entry(suffix.clone()),
                };
                list.or_default().push(Way { rule: rule.clone(), upstream: upstream.clone() });
            }
        }
        names
    }

    /// The highest priority, then the exact name, then the longest suffix.
    pub(crate) fn find(&self, name: &str, client: IpAddr, listener: Option<&Name>) -> Option<&Way> {
        let suffixes = name.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &name[at..]);
        let lists = self.exact.get(name).into_iter().chain(suffixes.filter_map(|suffix| self.suffixes.get(suffix)));
        let mut best: Option<&Way> = None;
        for way in lists.flatten() {
            let Match { client_cidrs, listeners, .. } = &way.rule.route.matches;
            let takes = client_cidrs.is_empty() || client_cidrs.iter().any(|net| net.contains(&client));
            let here = listeners.is_empty() || listener.is_some_and(|by| listeners.contains(by));
            if takes && here && best.is_none_or(|best| way.rule.route.priority > best.rule.route.priority) {
                best = Some(way);
            }
        }
        best
    }
}

/// Where a route leads that can be carried out without seeing a request: nothing that it asks is left undone. What it asks
/// of addresses is up to the caller.
fn way_of<'r>(rules: &Ruleset, rule: &'r Rule) -> Option<&'r Name> {
    let route = &rule.route;
    let Action::Forward { upstream } = &route.action else { return None };
    let Match { hosts, path, methods, headers, query, cookies, client_cidrs: _, sni, listeners: _ } = &route.matches;
    let unseen = hosts.is_empty()
        && *path == PathPattern::Any
        && [methods.is_empty(), headers.is_empty(), query.is_empty(), cookies.is_empty()] == [true; 4];
    let asks = route.auth.is_some()
        || !route.authorize.is_empty()
        || !route.limits.is_empty()
        || route.on_stale == OnStale::Deny
        || !rules.asks_addresses_only(rule);
    (!sni.is_empty() && unseen && !asks).then_some(upstream)
}

/// The server name of a ClientHello (lower case), and all bytes that were read: they are for the upstream.
pub(crate) async fn hello<T: AsyncRead + Unpin>(stream: &mut T) -> Option<(Option<String>, Bytes)> {
    let mut acceptor = Acceptor::default();
    let mut read = Vec::with_capacity(2 << 10);
    loop {
        let before = read.len();
        if before >= HELLO_BYTES_MAX || stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let mut fresh = &read[before..];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh).ok()?;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
            return Some((name, read.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::{change, resource::Kind, state::State};
    use serde_json::json;

    use super::*;

    fn names(policies: &[serde_json::Value], routes: &[serde_json::Value]) -> ServerNames {
        let mut state = State { revision: 1, index: 1, ..State::default() };
        let policies = policies.iter().map(|words| (Kind::Policy, words));
        for (kind, words) in policies.chain(routes.iter().map(|words| (Kind::Route, words))) {
            let resource = kind.parse(words.clone()).unwrap();
            state.resources.insert(resource.key(), change::stored(resource));
        }
        ServerNames::of(&Ruleset::compile(&state, None))
    }

    #[test]
    fn a_server_name_leads_where_the_most_exact_route_says() {
        let policies = [
            json!({ "name": "office", "ip": { "allow": ["10.0.0.0/8"] } }),
            json!({ "name": "pii", "mask": { "fields": [{ "pointer": "/iban" }] } }),
        ];
        let routes = [
            json!({ "name": "a", "match": { "sni": ["db.acme.test"] }, "upstream": "exact" }),
            json!({ "name": "b", "match": { "sni": ["*.acme.test"] }, "upstream": "wide" }),
            json!({ "name": "c", "match": { "sni": ["*.eu.acme.test"] }, "upstream": "eu" }),
            json!({ "name": "d", "match": { "sni": ["*.test"], "client_cidrs": ["10.0.0.0/8"] },
                    "priority": 1, "upstream": "inside" }),
            json!({ "name": "g", "match": { "sni": ["db.acme.test"], "listeners": ["l"] }, "priority": 2,
                    "upstream": "by-l" }),
            // These ask for what nobody sees: they are for HTTP.
            json!({ "name": "e", "match": { "sni": ["web.test"], "path_prefix": "/" }, "upstream": "web" }),
            json!({ "name": "f", "match": { "sni": ["web.test"] }, "limits": ["l"], "upstream": "web" }),
            json!({ "name": "h", "match": { "sni": ["web.test"] }, "on_stale": "deny", "upstream": "web" }),
            json!({ "name": "i", "match": { "sni": ["web.test"] }, "policies": ["office", "pii"], "upstream": "web" }),
            // Addresses are seen.
            json!({ "name": "j", "match": { "sni": ["office.test"] }, "policies": ["office"], "upstream": "office" }),
        ];
        let names = names(&policies, &routes);
        let check = |name: &str, client: &str, expected: Option<&str>| {
            let found = names.find(name, client.parse().unwrap(), None);
            assert_eq!(found.map(|way| &*way.upstream), expected, "{name} from {client}");
        };
        check("db.acme.test", "1.2.3.4", Some("exact"));
        check("x.acme.test", "1.2.3.4", Some("wide"));
        check("x.eu.acme.test", "1.2.3.4", Some("eu"));
        check("x.eu.acme.test", "10.2.3.4", Some("inside"));
        check("acme.test", "1.2.3.4", None);
        check("web.test", "1.2.3.4", None);
        check("office.test", "1.2.3.4", Some("office"));
        check("", "1.2.3.4", None);
        let by = |listener: &str| {
            let found = names.find("db.acme.test", "1.2.3.4".parse().unwrap(), Some(&listener.parse().unwrap()));
            found.unwrap().upstream.clone()
        };
        assert_eq!(by("l"), "by-l".parse().unwrap());
        assert_eq!(by("other"), "exact".parse().unwrap());
    }
}
