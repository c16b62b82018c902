//! Routes: one of ours for each path, since ours have one.

use std::collections::HashMap;

use quorumgate_model::{
    canonical::{self, Slashes},
    resource::Kind,
};
use serde_json::{Map, Value as Json, json};

use super::{Kong, META, Scope, names, reference, upstreams::Service};
use crate::cli::{
    convert::{common, effects::Effects, out::RouteWords, reader::Item},
    failure::Outcome,
};

/// A route as it was found, with the service that it stands in.
pub(super) struct Found<'d> {
    item: Item<'d>,
    service: Option<String>,
}

/// Goes before whatever else is asked of a request.
const FIRST: i64 = i64::MAX;

enum Path {
    Any,
    /// Of characters.
    Prefix(String),
    /// From the start on.
    Regex(String),
}

impl<'d> Kong<'d, '_> {
    pub(super) fn collect_service(
        &mut self,
        it: Item<'d>,
        services: &mut HashMap<String, Service<'d>>,
        routes: &mut Vec<Found<'d>>,
    ) -> Outcome {
        let service = self.service(&it)?;
        // One that has no name is named by where it stands.
        let key = self.key_of(&it, &service.names)?;
        if services.contains_key(&key) {
            return Err(it.wrong("each service once"));
        }
        for plugin in it.list("plugins")? {
            self.collect_plugin(plugin, Scope::Service(key.clone()), None)?;
        }
        self.collect_filters(&it, &Scope::Service(key.clone()))?;
        for route in it.list("routes")? {
            self.collect_route(route, Some(key.clone()), routes)?;
        }
        for name in service.names.iter().chain([&key]) {
            services.insert(name.clone(), service.clone());
        }
        Ok(())
    }

    fn key_of(&self, it: &Item<'d>, names: &[String]) -> Outcome<String> {
        match names.first() {
            Some(name) => Ok(name.clone()),
            None if self.is_many => Err(it.wrong("a name, since there are several files")),
            None => Ok(it.path.clone()),
        }
    }

    pub(super) fn collect_route(
        &mut self,
        it: Item<'d>,
        service: Option<String>,
        routes: &mut Vec<Found<'d>>,
    ) -> Outcome {
        let own = reference(&it, "service")?;
        let key = self.key_of(&it, &names(&it)?)?;
        if !self.known_routes.insert(key.clone()) {
            return Err(it.wrong("each route once"));
        }
        for plugin in it.list("plugins")? {
            self.collect_plugin(plugin, Scope::Route(key.clone()), None)?;
        }
        self.collect_filters(&it, &Scope::Route(key.clone()))?;
        routes.push(Found { item: it, service: service.or(own) });
        Ok(())
    }

    pub(super) fn routes(&mut self, services: &HashMap<String, Service<'d>>, routes: Vec<Found<'d>>) -> Outcome {
        for route in routes {
            let service = match &route.service {
                None => Service { host: "preserve".into(), ..Service::default() },
                Some(name) => match services.get(name) {
                    Some(service) => service.clone(),
                    None => {
                        let missing = format!("the name of a service in the files, which {name:?} is not");
                        return Err(route.item.wrong(&missing));
                    }
                },
            };
            self.route(&route, &service)?;
        }
        Ok(())
    }

    fn route(&mut self, found: &Found<'d>, service: &Service<'d>) -> Outcome {
        let it = &found.item;
        it.skip_fields(&META);
        it.skip_fields(&["request_buffering", "response_buffering"]);
        let mut known = names(it)?;
        known.push(it.path.clone());
        let mut of = service.names.clone();
        of.extend(found.service.clone());
        let (plugins, twin) = self.plugins_of(&known, &of);
        if service.is_off {
            it.skip();
            return Ok(());
        }
        let protocols = it.texts("protocols")?;
        let is_http = |it: &String| matches!(it.as_str(), "http" | "https" | "grpc" | "grpcs" | "ws" | "wss");
        if !protocols.is_empty() && !protocols.iter().any(is_http) {
            it.left_out(format!(
                "protocols {}: write a listener of protocol tcp or tls_passthrough by hand",
                protocols.join(", ")
            ));
            it.skip();
            return Ok(());
        }
        let mut effects = Effects { host: Some(service.host.clone()), ..Effects::default() };
        if it.flag("preserve_host")? == Some(true) || found.service.is_none() {
            effects.host = None;
        }
        self.plugins(&plugins, &mut effects)?;
        if let Some(twin) = twin {
            effects.close();
            twin.closed("another plugin of that name is for the same: its routes let nobody in; see to which is meant");
        }
        let mut matches = Map::new();
        let mut parts = Parts::default();
        if !self.hosts(it, &mut matches, &mut parts, &mut effects)? {
            it.skip();
            return Ok(());
        }
        let methods = it.texts("methods")?;
        parts.count += i64::from(!methods.is_empty());
        if !methods.is_empty() {
            matches.insert("methods".into(), json!(methods));
        }
        headers(it, &mut matches, &mut parts)?;
        let snis = it.texts("snis")?;
        parts.count += i64::from(!snis.is_empty());
        if !snis.is_empty() {
            matches.insert("sni".into(), json!(snis));
        }
        if let Some(expression) = it.get("expression") {
            it.skip_fields(&["priority"]);
            // Where it stands among the others is not known, and it may have been before any of them.
            parts.count = FIRST;
            if !common::unsaid(&expression, "an expression of the router", &mut effects) {
                it.skip();
                return Ok(());
            }
        }
        self.protocols(it, &protocols, &matches, &mut effects)?;
        self.paths(it, service, &matches, &parts, effects)
    }

    /// Whether there is a route at all.
    fn hosts(
        &self,
        it: &Item<'d>,
        matches: &mut Map<String, Json>,
        parts: &mut Parts,
        effects: &mut Effects,
    ) -> Outcome<bool> {
        let mut hosts: Vec<String> = Vec::new();
        let mut is_plain = true;
        let listed = it.list("hosts")?;
        for host in &listed {
            let text = host.as_text()?;
            let (name, port) = common::split_port(&text);
            if port.is_some() {
                effects.takes_more = true;
                host.differs("the port of a host is not looked at: name a listener (match.listeners) instead");
            }
            is_plain &= !name.contains('*');
            if name.ends_with(".*") {
                // What the route asks of callers must hold for these hosts too, and there is no other way to say them.
                host.left_out("a host with * at its end: name each host");
                if effects.protects() {
                    effects.close();
                    host.closed(
                        "requests for such hosts would go to other routes: it takes all hosts and lets nobody in",
                    );
                    hosts.clear();
                    break;
                }
                continue;
            }
            if !hosts.contains(&name.to_owned()) {
                hosts.push(name.to_owned());
            }
        }
        if hosts.is_empty() && !listed.is_empty() && !effects.is_closed {
            // Without any it would take all.
            it.left_out("none of its hosts can be said here");
            return Ok(false);
        }
        // By what was listed: the route stands where it stood, whatever of that can be said.
        parts.count += i64::from(!listed.is_empty());
        parts.plain_hosts = i64::from(!listed.is_empty() && is_plain);
        if !hosts.is_empty() {
            matches.insert("hosts".into(), json!(hosts));
        }
        Ok(true)
    }

    /// Requests without TLS, where the route wants it.
    fn protocols(
        &self,
        it: &Item<'d>,
        protocols: &[String],
        matches: &Map<String, Json>,
        effects: &mut Effects,
    ) -> Outcome {
        let status = it.int("https_redirect_status_code")?.unwrap_or(426);
        if !is_over_tls_alone(protocols) {
            if !protocols.is_empty() && !protocols.iter().any(|it| is_secure(it)) {
                effects.takes_more = true;
                it.differs(format!(
                    "protocols {}: it is taken over TLS too; name listeners (match.listeners) if it must not be",
                    protocols.join(", ")
                ));
            }
            return Ok(());
        }
        match matches.contains_key("hosts") {
            true => {
                it.differs(
                    "protocols https: it is taken by TLS's server name (match.sni), so not behind a balancer that ends TLS; there name \
                     a listener (match.listeners) instead",
                );
                // Without TLS such requests would go to other routes, which may ask for less.
                effects.to_https = Some(u16::try_from(status).unwrap_or(426));
            }
            false => {
                effects.close();
                it.closed(
                    "protocols https without hosts: nothing says which listeners speak TLS; name them (match.listeners), and take \
                     the rule not-converted away",
                );
            }
        }
        Ok(())
    }

    fn paths(
        &mut self,
        it: &Item<'d>,
        service: &Service<'d>,
        matches: &Map<String, Json>,
        parts: &Parts,
        mut effects: Effects,
    ) -> Outcome {
        let strip = it.flag("strip_path")?.unwrap_or(true);
        let regex_priority = it.int("regex_priority")?.unwrap_or_default();
        if let Some(handling) = it.get("path_handling")
            && handling.as_text()? != "v0"
        {
            handling.differs("paths are put together as v0 does: a slash between service and route");
        }
        let labels = common::labels(it, &["tags"])?;
        let name = it.text("name")?.or(it.text("id")?).unwrap_or_else(|| {
            let of = service.names.first().cloned().unwrap_or_else(|| "route".into());
            format!("{of}-route")
        });
        let mut kinds = common::by_host_kind(matches);
        let mut rest = Map::new();
        match &service.upstream {
            Some(upstream) => drop(rest.insert("upstream".into(), json!(upstream))),
            None => drop(rest.insert("respond".into(), json!({ "status": 503 }))),
        }
        if !labels.is_empty() {
            rest.insert("labels".into(), Json::Object(labels));
        }
        let listed = it.list("paths")?;
        let mut paths = Vec::new();
        for path in &listed {
            paths.push((path.clone(), self.path(path)?));
        }
        if paths.is_empty() {
            paths.push((it.clone(), Path::Any));
        }
        common::unread(&it.unread(&[]), &mut effects);
        common::unread(&service.unread, &mut effects);
        // Nobody looks at server names of requests without TLS: they would go to other routes, which may ask for less.
        let is_without_tls = matches.contains_key("sni") && !is_over_tls_alone(&it.texts("protocols")?);
        if is_without_tls && effects.protects() {
            it.differs(
                "snis: requests without TLS are taken whatever they are for, and so are those of other names here",
            );
            let nameless = |it: &Map<String, Json>| {
                let mut matches = it.clone();
                matches.shift_remove("sni");
                matches
            };
            let all: Vec<_> = kinds.iter().map(nameless).collect();
            kinds.extend(all);
        } else if is_without_tls {
            it.differs("snis: requests without TLS are not taken any more");
        }
        for (from, path, matches) in paths.iter().flat_map(|(from, path)| kinds.iter().map(move |it| (from, path, it)))
        {
            let mut route = RouteWords { name: name.clone(), rest: rest.clone(), ..RouteWords::default() };
            let (is_regex, length) = match path {
                Path::Any => (0, 0),
                Path::Prefix(text) => (0, text.len() as i64),
                Path::Regex(text) => (1, text.len() as i64),
            };
            let count = parts.count.saturating_add(i64::from(!listed.is_empty()));
            let priority = if is_regex == 1 { regex_priority } else { 0 };
            route.order = vec![count, parts.headers, parts.plain_hosts, is_regex, priority, length];
            let mut effects = effects.clone();
            if is_without_tls {
                let has_name = matches.contains_key("sni");
                effects.takes_more |= !has_name;
                route.order.push(i64::from(has_name));
            }
            if matches!((path, &effects.path), (Path::Regex(_), Some(_))) && strip {
                from.differs("the plugin says the whole path: strip_path has no part in it");
            }
            fill(&mut route, path, strip, &service.path, matches);
            // Of several alternatives it is the first one that must begin where the path does, but for the oldest of its routers.
            if let Path::Regex(pattern) = path
                && self.is_v3
                && effects.protects()
                && let Some((first, others)) = common::alternatives(pattern)
            {
                let first = first.strip_prefix('^').unwrap_or(first);
                route.matches["path_regex"] = json!(format!("(?:{first}|.*(?:{others})).*"));
                effects.takes_more = true;
                from.differs("alternatives but the first are taken anywhere in a path, as by router_flavor traditional_compatible");
            }
            if let Path::Regex(pattern) = path
                && pattern.chars().any(|it| !it.is_ascii() || matches!(it, ' ' | '"' | '`'))
            {
                if effects.protects() {
                    effects.close();
                    route.matches["path_regex"] = json!(format!("{}.*", common::beginning(pattern)));
                    from.closed(
                        "it has characters that are percent-encoded in paths here: it takes all that begins like it and lets nobody \
                         in; write its match by hand, and take the rule not-converted away",
                    );
                } else {
                    from.differs("it has characters that are percent-encoded in paths here, and takes none with them; write its match by hand");
                }
            }
            if let Some(status) = effects.to_https.take() {
                let answers = match status {
                    301 | 302 | 307 | 308 => {
                        Effects { redirect: Some(json!({ "status": status, "scheme": "https" })), ..Effects::default() }
                    }
                    _ => Effects { respond: Some(json!({ "status": 426 })), ..Effects::default() },
                };
                let insecure = route.part_insecure(effects.protects());
                self.out.route(from, insecure, answers);
            }
            self.out.route(from, route, effects);
        }
        Ok(())
    }

    fn path(&self, from: &Item<'d>) -> Outcome<Path> {
        let text = from.as_text()?;
        let plain = |it: char| it.is_ascii_alphanumeric() || ".-_~/%".contains(it);
        if let Some(pattern) = text.strip_prefix('~').filter(|_| self.is_v3) {
            return Ok(Path::Regex(pattern.to_owned()));
        }
        if !self.is_v3 && !text.chars().all(plain) {
            from.note("it has characters of regular expressions, and is one (as before version 3)");
            return Ok(Path::Regex(text));
        }
        Ok(match canonical::path(&text, Slashes::Merge) {
            Ok(canonical) => {
                if canonical != text {
                    from.differs(format!("paths are compared in canonical form, here {canonical}"));
                }
                Path::Prefix(canonical.into_owned())
            }
            Err(_) => Path::Prefix(text.clone()),
        })
    }

    /// Our name of a consumer of theirs.
    pub(super) fn consumer_named(&self, name: &str) -> Option<String> {
        self.consumers.get(name).cloned()
    }

    pub(super) fn limit(&mut self, plugin: &Item<'d>, part: &str, wanted: &str, words: Json) -> String {
        self.out.once(Kind::Limit, plugin, part, wanted, words)
    }
}

/// What Kong's order of precedence asks of a route beside its path.
#[derive(Default)]
struct Parts {
    count: i64,
    headers: i64,
    plain_hosts: i64,
}

fn is_secure(protocol: &str) -> bool {
    matches!(protocol, "https" | "grpcs" | "wss")
}

fn is_over_tls_alone(protocols: &[String]) -> bool {
    !protocols.is_empty() && protocols.iter().all(|it| is_secure(it))
}

fn headers(it: &Item<'_>, matches: &mut Map<String, Json>, parts: &mut Parts) -> Outcome {
    let Some(headers) = it.map("headers")? else { return Ok(()) };
    let mut tests = Vec::new();
    for (name, values) in headers.members() {
        let words = if values.is_list() {
            values.entries().iter().map(Item::as_text).collect::<Outcome<Vec<_>>>()?
        } else {
            vec![values.as_text()?]
        };
        let mut test = match words.as_slice() {
            [one] if one.starts_with("~*") => json!({ "regex": format!("(?i){}", common::anywhere(&one[2..])) }),
            words => common::one_of(words),
        };
        test["name"] = json!(name);
        tests.push(test);
    }
    parts.count += i64::from(!tests.is_empty());
    parts.headers = tests.len() as i64;
    if !tests.is_empty() {
        matches.insert("headers".into(), json!(tests));
    }
    Ok(())
}

/// The match of one path, and what becomes of the path on the way.
fn fill(route: &mut RouteWords, path: &Path, strip: bool, base: &str, matches: &Map<String, Json>) {
    let with = |field: &str, text: String| {
        let mut matches = matches.clone();
        matches.insert(field.into(), json!(text));
        Json::Object(matches)
    };
    let regex = |pattern: String, to: String| {
        Map::from_iter([("path_regex".to_owned(), json!({ "pattern": pattern, "to": to }))])
    };
    let prefix = |to: &str| Map::from_iter([("path_prefix".to_owned(), json!(to))]);
    let put = common::replacement(base);
    match path {
        Path::Any if base.is_empty() => route.matches = Json::Object(matches.clone()),
        Path::Any => {
            route.matches = with("path_prefix", "/".into());
            route.rewrite = prefix(base);
        }
        Path::Regex(pattern) => {
            route.matches = with("path_regex", common::from_start(pattern));
            let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
            if strip {
                route.rewrite = regex(format!("^(?:{pattern})/?"), format!("{put}/"));
            } else if !base.is_empty() {
                route.rewrite = regex("^".into(), put);
            }
        }
        Path::Prefix(text) => {
            route.matches = with("path_prefix", text.clone());
            let plain = text.trim_end_matches('/');
            if strip && !(plain.is_empty() && base.is_empty()) {
                route.rewrite = prefix(if base.is_empty() { "/" } else { base });
            } else if !strip && !base.is_empty() {
                route.rewrite = prefix(&format!("{base}{plain}"));
            }
            if plain.is_empty() {
                return;
            }
            let is_open = text.ends_with('/');
            let tail = if is_open { ".*" } else { "[^/].*" };
            let rest = with_regex(matches, &format!("{}{tail}", common::escaped(text)));
            let rewrite = match (strip, base.is_empty()) {
                (true, _) => regex(format!("^{}", common::escaped(text)), format!("{put}/")),
                (false, false) => regex("^".into(), put),
                (false, true) => Map::new(),
            };
            match is_open {
                true => route.below = Some((rest, rewrite)),
                false => route.beyond = Some((rest, rewrite)),
            }
        }
    }
}

fn with_regex(matches: &Map<String, Json>, pattern: &str) -> Json {
    let mut matches = matches.clone();
    matches.insert("path_regex".into(), json!(pattern));
    Json::Object(matches)
}
