//! Plugins as words of the routes that they are on. One that is not known here may keep somebody out, and so the route is
//! closed; only what is known to keep nobody out is left out.

use std::collections::BTreeMap;

use quorumgate_model::resource::Kind;
use serde_json::{Map, Value as Json, json};

use super::{
    Apisix,
    routes::{Variant, called},
};
use crate::cli::{
    convert::{
        common,
        effects::{CLOSED, Edits, Effects, PathTo},
        reader::Item,
    },
    failure::Outcome,
};

const AUTHS: [&str; 2] = ["key-auth", "basic-auth"];
/// What the gateway does of itself.
const BUILT_IN: [&str; 10] = [
    "prometheus",
    "node-status",
    "server-info",
    "zipkin",
    "skywalking",
    "opentelemetry",
    "datadog",
    "log-rotate",
    "example-plugin",
    "syslog",
];
/// What keeps nobody out.
const HARMLESS: [&str; 6] = ["grpc-web", "echo", "real-ip", "proxy-control", "proxy-mirror", "response-rewrite"];
/// What says who comes in.
const DEMANDS: [&str; 5] = ["key-auth", "basic-auth", "consumer-restriction", "ip-restriction", "ua-restriction"];
const LIMITS: [&str; 3] = ["limit-count", "limit-req", "limit-conn"];
/// The longest window of a limit: 31 days.
const WINDOW_S_MAX: f64 = 2_678_400.0;
/// Windows by which rates are said, the first in which a rate is a whole number.
const RATE_WINDOWS: [(&str, f64); 4] = [("1s", 1.0), ("1m", 60.0), ("1h", 3_600.0), ("1d", 86_400.0)];
/// What is nearer to a whole number is one.
const NEAR: f64 = 1e-6;
/// What begins a value of the request in a text of theirs.
const MARKS: [&str; 1] = ["$"];

pub(super) fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name) || name.ends_with("-logger")
}

pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

pub(super) fn is_limit(name: &str) -> bool {
    LIMITS.contains(&name)
}

impl<'d> Apisix<'d, '_> {
    /// `own`: the route's upstream, which some splits mean too.
    pub(super) fn plugins(
        &mut self,
        plugins: &[(&'d str, Item<'d>)],
        own: Option<&str>,
        effects: &mut Effects,
    ) -> Outcome<Vec<Variant<'d>>> {
        let mut variants = Vec::new();
        let is_auth = |it: &&(&'d str, Item<'d>)| AUTHS.contains(&it.0);
        // Others ask who is there, and whether anybody is.
        for (name, config) in plugins.iter().filter(is_auth).chain(plugins.iter().filter(|it| !is_auth(it))) {
            if self.is_off(config, effects)? {
                continue;
            }
            match *name {
                "traffic-split" => variants.extend(self.split(config, own, effects)?),
                name => self.plugin(name, config, effects)?,
            }
            if DEMANDS.contains(name) && config.has_unread() {
                effects.close();
                config.closed(format!(
                    "a field of it is not known here: its routes let nobody in; see to it, then take the rule {CLOSED} away"
                ));
            }
        }
        let Some((_, first)) = plugins.first() else { return Ok(variants) };
        if effects.is_mixed() {
            effects.close();
            first.closed(format!(
                "some of the route's auths have an anonymous consumer, and others none or another one: its routes let nobody in; write \
                 auth by hand, and take the rule {CLOSED} away"
            ));
        }
        let real = plugins.iter().find(|(name, _)| *name == "real-ip");
        if let Some((_, real)) = real.filter(|_| !effects.policies.is_empty()) {
            effects.close();
            real.closed(format!(
                "which address a client has was said by this, and another plugin asks for it: its routes let nobody in; set \
                 trusted_proxies of the nodes, and take the rule {CLOSED} away"
            ));
        }
        Ok(variants)
    }

    fn is_off(&self, config: &Item<'d>, effects: &mut Effects) -> Outcome<bool> {
        let meta = config.map("_meta")?;
        let off = config.flag("disable")?.unwrap_or(false)
            || meta.as_ref().map(|it| it.flag("disable")).transpose()?.flatten().unwrap_or(false);
        if off {
            config.note("it is not enabled, and left out");
            config.skip();
            return Ok(true);
        }
        if let Some(meta) = meta {
            meta.skip_fields(&["priority"]);
            if let Some(response) = meta.get("error_response") {
                response.skip();
                response.differs("refusals say what they are as problems (RFC 9457)");
            }
            if let Some(filter) = meta.get("filter") {
                filter.skip();
                effects.close();
                filter.closed(format!("it is for some requests alone: see to it, then take the rule {CLOSED} away"));
            }
        }
        Ok(false)
    }

    fn plugin(&mut self, name: &str, it: &Item<'d>, effects: &mut Effects) -> Outcome {
        match name {
            "key-auth" => self.key_auth(it, effects)?,
            "basic-auth" => {
                let anonymous = self.credentials(it)?;
                let realm = it.text("realm")?;
                let auth = self.out.once(Kind::Auth, it, "auth", "basic-auth", json!({ "basic": { "realm": realm } }));
                effects.ask(auth, anonymous);
            }
            "jwt-auth" => {
                it.skip();
                effects.close();
                it.closed(format!(
                    "tokens say by a claim `key` whose they are, which is not asked here: its routes let nobody in; write an auth of \
                     kind jwt (issuer, audience, jwks_url or secret_file), name it in auth, and take the rule {CLOSED} away"
                ));
            }
            "consumer-restriction" => self.consumers_only(it, effects)?,
            "ip-restriction" => {
                it.skip_fields(&["message", "response_code"]);
                let lists = (it.texts("whitelist")?, it.texts("blacklist")?);
                common::addresses(self.out, it, "addresses", lists, effects);
            }
            "ua-restriction" => self.agents(it, effects)?,
            "limit-count" => self.limit_count(it, effects)?,
            "limit-req" => self.limit_req(it, effects)?,
            "limit-conn" => self.limit_conn(it, effects)?,
            "cors" => cors(it, effects)?,
            "client-control" => {
                if let Some(bytes) = it.int("max_body_size")? {
                    effects.body_max = Some(bytes.max(0) as u64);
                }
            }
            "proxy-rewrite" => rewrite(it, effects)?,
            "redirect" => redirect(it, effects)?,
            "proxy-cache" => {
                let ttl = it.number("cache_ttl")?;
                effects.cache = Some(common::cache(ttl));
                it.skip();
                it.differs("answers are kept as they allow it themselves (RFC 9111), the time counts for those that do not say");
            }
            "gzip" | "brotli" => {
                it.skip();
                effects.compression = Some(json!({}));
                it.differs("answers are compressed as the client likes it, by the defaults of compression");
            }
            "request-id" => {
                let header = it.text("header_name")?.unwrap_or_else(|| "X-Request-Id".into()).to_ascii_lowercase();
                it.skip();
                if header != "x-request-id" {
                    effects.request.set.insert(header.clone(), "${request_id}".into());
                    effects.response.set.insert(header, "${request_id}".into());
                }
                it.note("built in: every request has one, in x-request-id");
            }
            "mocking" | "fault-injection" => {
                it.skip();
                effects.close();
                it.closed(format!(
                    "what it answers is not converted: its routes let nobody in; write respond by hand, and take the rule {CLOSED} away"
                ));
            }
            name if is_built_in(name) => {
                it.skip();
                it.note("built in, nothing to convert: metrics, access log and traces are settings of the nodes");
            }
            name if is_harmless(name) => {
                it.skip();
                it.left_out("there is no such plugin here, and the routes go without it");
            }
            _ => {
                it.skip();
                effects.close();
                it.closed(format!(
                    "it is not known here, and may keep somebody out: its routes let nobody in; see to what it does, then take \
                     the rule {CLOSED} away"
                ));
            }
        }
        Ok(())
    }

    /// The consumer that a request without credentials counts as.
    fn credentials(&self, it: &Item<'d>) -> Outcome<Option<String>> {
        if it.flag("hide_credentials")? != Some(true) {
            it.differs(
                "servers do not get the credential any more (X-Consumer-Name and X-Credential-Id say whose it was)",
            );
        }
        let Some(consumer) = it.text("anonymous_consumer")? else { return Ok(None) };
        let name = self.consumers.get(&consumer).cloned();
        match &name {
            Some(_) => {
                it.differs("anonymous: who comes with wrong credentials is refused; before, it was let in as that")
            }
            None => it.left_out("anonymous_consumer: it is not in the files, so credentials are needed"),
        }
        Ok(name)
    }

    fn key_auth(&mut self, it: &Item<'d>, effects: &mut Effects) -> Outcome {
        it.skip_fields(&["realm"]);
        let anonymous = self.credentials(it)?;
        let header = it.text("header")?.unwrap_or_else(|| "apikey".into());
        let query = it.text("query")?.unwrap_or_else(|| "apikey".into());
        let words = json!({ "api_key": { "header": header, "query": query } });
        let auth = self.out.once(Kind::Auth, it, "auth", &format!("key-auth-{header}"), words);
        effects.ask(auth, anonymous);
        Ok(())
    }

    fn consumers_only(&mut self, it: &Item<'d>, effects: &mut Effects) -> Outcome {
        it.skip_fields(&["rejected_code", "rejected_msg"]);
        let kind = it.text("type")?.unwrap_or_else(|| "consumer_name".into());
        let (white, black) = (it.texts("whitelist")?, it.texts("blacklist")?);
        let field = match kind.as_str() {
            "consumer_name" => "consumers",
            "consumer_group_id" => "groups",
            _ => {
                effects.close();
                it.closed(format!(
                    "type {kind}: its routes let nobody in; write authorize by hand, and take the rule {CLOSED} away"
                ));
                return Ok(());
            }
        };
        if let Some(methods) = it.get("allowed_by_methods") {
            methods.skip();
            effects.close();
            methods.closed(format!(
                "write authorize: [{{ allow: {{ consumers: […], methods: […] }} }}] by hand, and take the rule {CLOSED} away"
            ));
        }
        if white.is_empty() && black.is_empty() {
            effects.close();
            it.closed(format!("it names nobody: see to who is meant, then take the rule {CLOSED} away"));
        }
        let is_asked = !white.is_empty();
        // Who is not in the files is nobody; one of a like name is somebody else.
        let ours = |list: Vec<String>| -> Vec<String> {
            let known = |name: String| {
                let ours = self.consumers.get(&name).cloned();
                if ours.is_none() {
                    it.left_out(format!("the consumer {name:?} is not in the files"));
                }
                ours
            };
            if field == "consumers" { list.into_iter().filter_map(known).collect() } else { list }
        };
        let (white, black) = (ours(white), ours(black));
        if effects.auths.is_empty() && !is_asked {
            // Who has no consumer was refused.
            effects.close();
            it.closed("no auth of the route that is known says who calls, and nobody unknown was let in");
        }
        effects.deny(field, &black);
        if is_asked && white.is_empty() {
            effects.close();
            it.closed(format!("nobody whom it lets in is in the files; take the rule {CLOSED} away with one"));
        } else if is_asked {
            effects.allow(field, white);
        }
        Ok(())
    }

    fn agents(&mut self, it: &Item<'d>, effects: &mut Effects) -> Outcome {
        it.skip_fields(&["message"]);
        let (allow, deny) = (it.texts("allowlist")?, it.texts("denylist")?);
        let missing = if it.flag("bypass_missing")?.unwrap_or(false) { "allow" } else { "refuse" };
        // A list of who is allowed leaves out all others; here, whoever is in neither list comes in.
        let deny = if deny.is_empty() && !allow.is_empty() { vec![".*".to_owned()] } else { deny };
        let words = json!({ "bot": { "allow": allow, "deny": deny, "missing": missing, "scanners": "allow" } });
        let name = self.out.once(Kind::Policy, it, "bot", "agents", words);
        effects.policies.push(name);
        Ok(())
    }

    /// What is counted apart.
    fn per(&self, it: &Item<'d>, is_known: bool) -> Outcome<Json> {
        let kind = it.text("key_type")?.unwrap_or_else(|| "var".into());
        let key = it.get("key").map(|it| it.as_text()).transpose()?.unwrap_or_else(|| "remote_addr".into());
        Ok(match (kind.as_str(), key.as_str()) {
            ("constant", _) => json!("global"),
            ("var", "remote_addr" | "$remote_addr") => common::per_ip(),
            ("var", "consumer_name" | "$consumer_name") if is_known => json!("consumer"),
            ("var", "route_id" | "$route_id") => json!("route"),
            ("var", "service_id" | "server_addr" | "host") => json!("global"),
            ("var", key) if key.trim_start_matches('$').starts_with("http_") => {
                json!({ "header": key.trim_start_matches('$')[5..].replace('_', "-") })
            }
            _ => {
                it.differs(format!("key {key}: addresses are counted apart"));
                common::per_ip()
            }
        })
    }

    fn limit(&mut self, it: &Item<'d>, wanted: &str, mut words: Json, effects: &mut Effects) -> Outcome {
        let is_known = !effects.auths.is_empty();
        words["per"] = self.per(it, is_known)?;
        words["exceeded_status"] = json!(it.int("rejected_code")?.unwrap_or(503));
        it.skip_fields(&["rejected_msg", "show_limit_quota_header", "allow_degradation", "nodelay", "policy"]);
        it.skip_fields(&[
            "redis_host",
            "redis_port",
            "redis_password",
            "redis_username",
            "redis_database",
            "redis_timeout",
        ]);
        it.skip_fields(&["redis_cluster_nodes", "redis_cluster_name", "redis_ssl", "redis_ssl_verify"]);
        let part = format!("{wanted}/{}", words["per"]);
        let name = self.out.once(Kind::Limit, it, &part, wanted, words);
        effects.limits.push(name);
        Ok(())
    }

    /// Of each node, unless it says that all count together.
    fn mode(&self, it: &Item<'d>) -> Outcome<&'static str> {
        Ok(if it.text("policy")?.is_none_or(|it| it == "local") { "local" } else { "leased" })
    }

    fn limit_count(&mut self, it: &Item<'d>, effects: &mut Effects) -> Outcome {
        let (Some(count), Some(window)) = (it.int("count")?, it.number("time_window")?) else {
            it.left_out("its count and time_window are no numbers: write a limit by hand");
            return Ok(());
        };
        if let Some(group) = it.get("group") {
            group.differs("routes of one group share a count where they are of one service or global rule alone");
        }
        let (count, window) = match window > WINDOW_S_MAX {
            true => {
                let fewer = (count as f64 * WINDOW_S_MAX / window).floor() as i64;
                it.differs(format!("windows are of 31 days at most: the limit is {fewer} in each"));
                (fewer, WINDOW_S_MAX)
            }
            false => (count, window),
        };
        let words = json!({ "limit": count, "window": common::window(window), "mode": self.mode(it)? });
        it.differs("the window slides; there it began anew each time");
        self.limit(it, "limit-count", words, effects)
    }

    fn limit_req(&mut self, it: &Item<'d>, effects: &mut Effects) -> Outcome {
        let (rate, burst) = (it.number("rate")?.unwrap_or(1.0), it.number("burst")?.unwrap_or_default());
        if it.flag("nodelay")? != Some(true) {
            it.differs("requests beyond the rate are not held up: within the burst they go on at once");
        }
        let is_whole = |many: f64| many.round() >= 1.0 && (many - many.round()).abs() < NEAR;
        let mut in_each = RATE_WINDOWS.iter().map(|(window, length)| (*window, rate * length));
        let (window, rate) = in_each.find(|(_, many)| is_whole(*many)).unwrap_or_else(|| {
            let many = (rate * 86_400.0).floor();
            it.differs(format!("the rate is {many} a day"));
            ("1d", many)
        });
        // One goes on beside those that it holds up.
        let words = json!({
            "kind": "bucket", "rate": rate.round() as u64, "window": window, "burst": (burst + 1.0).floor().max(1.0) as u64,
            "mode": self.mode(it)?,
        });
        self.limit(it, "limit-req", words, effects)
    }

    fn limit_conn(&mut self, it: &Item<'d>, effects: &mut Effects) -> Outcome {
        let at_once = it.int("conn")?.unwrap_or(1).saturating_add(it.int("burst")?.unwrap_or_default());
        it.skip_fields(&["default_conn_delay", "only_use_default_delay"]);
        it.differs("requests beyond conn are not held up: conn and burst together may be in flight");
        let words = json!({ "kind": "concurrency", "limit": at_once, "mode": self.mode(it)? });
        self.limit(it, "limit-conn", words, effects)
    }

    fn split(&mut self, it: &Item<'d>, own: Option<&str>, effects: &mut Effects) -> Outcome<Vec<Variant<'d>>> {
        let mut variants = Vec::new();
        for rule in it.list("rules")? {
            let mut conditions = Vec::new();
            let matches = rule.list("match")?;
            for one in &matches {
                conditions.extend(one.get("vars"));
            }
            if matches.len() > 1 {
                rule.left_out(
                    "one of several conditions: such requests go as others do; write a route for each by hand",
                );
                conditions.iter().for_each(Item::skip);
                continue;
            }
            let mut arms: BTreeMap<String, u64> = BTreeMap::new();
            for arm in rule.list("weighted_upstreams")? {
                let weight = arm.int("weight")?.unwrap_or(1).max(0) as u64;
                let other = if let Some(upstream) = arm.map("upstream")? {
                    let wanted = called(&upstream)?;
                    Some(self.upstream(&upstream, &wanted, None)?)
                } else if let Some(id) = arm.text("upstream_id")? {
                    let Some(upstream) = self.find("upstreams", &id) else {
                        return Err(arm.wrong("the upstream_id of one of the upstreams in the files"));
                    };
                    let wanted = called(&upstream)?;
                    Some(self.upstream(&upstream, &wanted, None)?)
                } else {
                    None
                };
                if other.as_ref().is_some_and(|it| it.host != effects.host) {
                    arm.differs("its servers are told the host that those of the route's own upstream are told");
                }
                match other.map_or_else(|| own.map(str::to_owned), |it| it.name) {
                    Some(name) => {
                        let share = arms.entry(name).or_default();
                        *share = share.saturating_add(weight);
                    }
                    None => arm.left_out("its upstream has no servers, and gets nothing"),
                }
            }
            arms.retain(|_, weight| *weight > 0);
            if arms.is_empty() {
                rule.left_out("none of its upstreams has a weight");
                continue;
            }
            let arms: Vec<(String, u64)> = arms.into_iter().collect();
            match conditions.is_empty() {
                false => variants.push(Variant { conditions, arms }),
                // The first rule that takes a request decides.
                true if effects.split.is_none() => effects.split = Some(arms),
                true => rule.left_out("a rule before it takes all requests"),
            }
        }
        Ok(variants)
    }
}

fn cors(it: &Item<'_>, effects: &mut Effects) -> Outcome {
    let list = |field: &str| -> Outcome<Vec<String>> {
        let text = it.text(field)?.unwrap_or_else(|| "*".into());
        Ok(text.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect())
    };
    let is_any = |list: &[String]| list.iter().any(|it| it == "*" || it == "**");
    let mut origins = list("allow_origins")?;
    if is_any(&origins) {
        origins = vec!["*".into()];
    }
    if let Some(regex) = it.get("allow_origins_by_regex") {
        regex.skip();
        regex.left_out("origins that are regular expressions: name the origins, or https://*.host");
    }
    it.skip_fields(&["allow_origins_by_metadata", "timing_allow_origins", "timing_allow_origins_by_regex"]);
    let mut credentials = it.flag("allow_credential")?.unwrap_or(false);
    let (methods, headers) = (list("allow_methods")?, list("allow_headers")?);
    let exposed = it.text("expose_headers")?;
    if credentials && (origins == ["*"] || is_any(&methods) || is_any(&headers)) {
        it.differs("credentials beside *: they are left out, since browsers take no * with them; name origins, methods and headers");
        credentials = false;
    }
    let star = |list: Vec<String>| if is_any(&list) { vec!["*".to_owned()] } else { list };
    let mut words = json!({
        "origins": origins, "methods": star(methods), "headers": star(headers), "credentials": credentials,
        "max_age": common::seconds(it.number("max_age")?.unwrap_or(5.0)),
    });
    if let Some(text) = exposed.filter(|it| !it.is_empty() && !it.contains('*')) {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        words["expose_headers"] = json!(names);
    }
    effects.cors = Some(words);
    Ok(())
}

fn rewrite(it: &Item<'_>, effects: &mut Effects) -> Outcome {
    if let Some(regex) = it.get("regex_uri") {
        let parts = regex.entries().iter().map(Item::as_text).collect::<Outcome<Vec<_>>>()?;
        match parts.as_slice() {
            [pattern, to] => effects.path = Some(PathTo::Regex(pattern.clone(), groups(to))),
            _ => regex.left_out("more than one pattern: one is carried out; write a route for each by hand"),
        }
    }
    if let Some(uri) = it.get("uri") {
        let text = uri.as_text()?;
        let (path, query) = text.split_once('?').unwrap_or((&text, ""));
        let path = path.replace("$uri", "${path}");
        match path.replace("${path}", "").contains('$') || !query.is_empty() {
            true => {
                uri.left_out("it has a query, or values of the request that are not known: write rewrite.path by hand")
            }
            false => effects.path = Some(PathTo::Whole(path)),
        }
    }
    if let Some(method) = it.get("method") {
        method.left_out("methods are not changed");
    }
    it.skip_fields(&["use_real_request_uri_unsafe"]);
    if let Some(host) = it.text("host")? {
        effects.host = Some(host);
    }
    if let Some(scheme) = it.get("scheme") {
        scheme.left_out("the upstream says whether its servers are asked over TLS");
    }
    let Some(headers) = it.map("headers")? else { return Ok(()) };
    let is_by_action = ["set", "add", "remove"].iter().any(|it| headers.get(it).is_some());
    match is_by_action {
        false => edits(&headers, Action::Set, &mut effects.request),
        true => {
            for (action, kind) in [("set", Action::Set), ("add", Action::Add)] {
                if let Some(list) = headers.map(action)? {
                    edits(&list, kind, &mut effects.request)?;
                }
            }
            for name in headers.texts("remove")? {
                common::remove_once(&mut effects.request, name);
            }
            Ok(())
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Action {
    Set,
    Add,
}

fn edits(of: &Item<'_>, action: Action, edits: &mut Edits) -> Outcome {
    for (name, value) in of.members() {
        let text = value.as_text()?;
        let Some(text) = translated(&text) else {
            value.left_out("a value of the request that is not known here: write it by hand, with ${client_ip}, ${consumer} and the like");
            continue;
        };
        match (action, text.as_str()) {
            // An empty one took the field away.
            (Action::Set, "") => common::remove_once(edits, name.to_owned()),
            (Action::Set, _) => drop(edits.set.insert(name.to_owned(), text)),
            (Action::Add, _) => drop(edits.add.insert(name.to_owned(), text)),
        }
    }
    Ok(())
}

/// Their variables that we have too.
fn translated(text: &str) -> Option<String> {
    let ours = match text {
        "$remote_addr" => "${client_ip}",
        "$host" => "${host}",
        "$uri" => "${path}",
        "$scheme" => "${scheme}",
        "$request_method" => "${method}",
        "$consumer_name" => "${consumer}",
        _ if MARKS.iter().any(|mark| text.contains(mark)) => return None,
        _ => text,
    };
    Some(ours.to_owned())
}

/// `$1` is a group with us as well; a letter behind it would be of its name.
fn groups(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars().peekable();
    while let Some(it) = letters.next() {
        match (it, letters.peek().copied()) {
            ('$', Some(digit)) if digit.is_ascii_digit() => {
                letters.next();
                out.push_str(&format!("${{{digit}}}"));
            }
            ('$', _) => out.push_str("$$"),
            _ => out.push(it),
        }
    }
    out
}

fn redirect(it: &Item<'_>, effects: &mut Effects) -> Outcome {
    let status = it.int("ret_code")?;
    it.skip_fields(&["encode_uri", "http_to_https"]);
    if it.flag("http_to_https")? == Some(true) {
        effects.to_https = Some(status.filter(|it| matches!(it, 302 | 307 | 308)).unwrap_or(301) as u16);
        return Ok(());
    }
    if let Some(regex) = it.get("regex_uri") {
        regex.skip();
        effects.close();
        regex.closed(format!(
            "where clients are sent depends on the path: its routes let nobody in; write redirects by hand, and take the rule {CLOSED} away"
        ));
        return Ok(());
    }
    let text = it.text("uri")?.unwrap_or_else(|| "/".into());
    let keep = text.ends_with("$request_uri") || text.ends_with("$uri");
    let place = text.trim_end_matches("$request_uri").trim_end_matches("$uri");
    let place = place.replace("$scheme://$host", "").replace("://$host", "://");
    if place.contains('$') {
        effects.close();
        it.closed(format!(
            "where clients are sent has values that are not known here: its routes let nobody in; write redirect by hand, and take \
             the rule {CLOSED} away"
        ));
        return Ok(());
    }
    if it.flag("append_query_string")? == Some(true) {
        it.note("append_query_string: see that the query goes along as you need it");
    }
    let words = common::redirect(it, &place, status.unwrap_or(302), keep);
    let mut kept = Map::new();
    if let Json::Object(words) = words {
        kept.extend(words.into_iter().filter(|(field, value)| field != "host" || value != ""));
    }
    effects.redirect = Some(Json::Object(kept));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_their_numbers_and_dollars_are_dollars() {
        for (text, expected) in [("/$1/x", "/${1}/x"), ("/$1x", "/${1}x"), ("/a$b", "/a$$b"), ("/", "/"), ("$", "$$")] {
            assert_eq!(groups(text), expected, "{text}");
        }
    }
}
