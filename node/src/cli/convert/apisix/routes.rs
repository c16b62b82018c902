//! Routes: one of ours for each URI, and for each rule of a traffic split that asks for something more.

use quorumgate_model::canonical::{self, Slashes};
use serde_json::{Map, Value as Json, json};

use super::{
    Apisix, META,
    matching::{self, Uri},
    upstreams::Asked,
};
use crate::cli::{
    convert::{
        common,
        effects::{CLOSED, Effects},
        out::RouteWords,
        reader::Item,
    },
    failure::Outcome,
};

/// A split for requests that meet conditions of its own.
pub(super) struct Variant<'d> {
    pub conditions: Vec<Item<'d>>,
    pub arms: Vec<(String, u64)>,
}

impl<'d> Apisix<'d, '_> {
    pub(super) fn routes(&mut self) -> Outcome {
        for list in super::NAMED {
            for it in self.all(list) {
                it.skip_fields(&META);
            }
        }
        for rule in self.all("global_rules") {
            rule.skip_fields(&META);
        }
        for route in self.all("routes") {
            self.route(&route)?;
        }
        for list in super::NAMED {
            for it in self.all(list) {
                it.skip_fields(&["name", "desc", "labels"]);
            }
        }
        Ok(())
    }

    fn route(&mut self, it: &Item<'d>) -> Outcome {
        it.skip_fields(&META);
        it.skip_fields(&["enable_websocket"]);
        if it.int("status")? == Some(0) {
            it.note("it is not enabled, and left out");
            it.skip();
            return Ok(());
        }
        let service = self.named(it, "service_id", "services")?;
        let shared = self.named(it, "plugin_config_id", "plugin_configs")?;
        let name = it.text("name")?.or(it.text("id")?).unwrap_or_else(|| "route".into());
        let asked = self.asked(it, service.as_ref(), &name)?;
        let mut effects = Effects { host: asked.as_ref().and_then(|it| it.host.clone()), ..Effects::default() };
        let mut plugins: Vec<(&'d str, Item<'d>)> = Vec::new();
        for of in [Some(it), shared.as_ref(), service.as_ref()].into_iter().flatten() {
            for (name, config) in of.map("plugins")?.map(|it| it.members()).unwrap_or_default() {
                if !plugins.iter().any(|(other, _)| *other == name) {
                    plugins.push((name, config));
                }
            }
        }
        // These are asked beside those of the route.
        for rule in self.all("global_rules") {
            plugins.extend(rule.map("plugins")?.map(|it| it.members()).unwrap_or_default());
        }
        let own = asked.as_ref().and_then(|it| it.name.clone());
        let variants = self.plugins(&plugins, own.as_deref(), &mut effects)?;
        effects.deny("consumers", &self.shut_out);
        for (of, field) in
            [Some(it), service.as_ref()].into_iter().flatten().flat_map(|of| [(of, "script"), (of, "script_id")])
        {
            if let Some(script) = of.get(field) {
                effects.close();
                script.closed(format!(
                    "a script may keep somebody out: see to what it does, then take the rule {CLOSED} away"
                ));
            }
        }
        let mut matches = Map::new();
        self.hosts(it, service.as_ref(), &mut matches, &mut effects)?;
        let methods = it.texts("methods")?;
        if !methods.is_empty() {
            matches.insert("methods".into(), json!(methods));
        }
        let mut addresses = it.texts("remote_addrs")?;
        addresses.extend(it.text("remote_addr")?);
        if !addresses.is_empty() {
            let networks: Vec<String> = addresses.iter().map(|it| matching::network(it)).collect();
            matches.insert("client_cidrs".into(), json!(networks));
        }
        if let Some(vars) = it.get("vars")
            && let Err(what) = matching::vars(&vars, &mut matches)?
            && !common::unsaid(&vars, &what, &mut effects)
        {
            it.skip();
            return Ok(());
        }
        if let Some(function) = it.get("filter_func")
            && !common::unsaid(&function, "a function", &mut effects)
        {
            it.skip();
            return Ok(());
        }
        self.write(it, &name, own, matches, effects, variants)
    }

    fn named(&self, it: &Item<'d>, field: &str, list: &'static str) -> Outcome<Option<Item<'d>>> {
        let Some(reference) = it.get(field) else { return Ok(None) };
        match self.find(list, &reference.as_text()?) {
            Some(found) => Ok(Some(found)),
            None => Err(reference.wrong(&format!("the id of one of the {list} in the files"))),
        }
    }

    /// None: nobody is asked.
    fn asked(&mut self, it: &Item<'d>, service: Option<&Item<'d>>, name: &str) -> Outcome<Option<Asked>> {
        let timeout = it.map("timeout")?;
        for of in [Some(it), service].into_iter().flatten() {
            if let Some(upstream) = of.map("upstream")? {
                let wanted = upstream.text("name")?.unwrap_or_else(|| name.to_owned());
                return self.upstream(&upstream, &wanted, timeout.as_ref()).map(Some);
            }
            if let Some(upstream) = self.named(of, "upstream_id", "upstreams")? {
                let wanted = called(&upstream)?;
                return self.upstream(&upstream, &wanted, timeout.as_ref()).map(Some);
            }
        }
        Ok(None)
    }

    fn hosts(
        &self,
        it: &Item<'d>,
        service: Option<&Item<'d>>,
        matches: &mut Map<String, Json>,
        effects: &mut Effects,
    ) -> Outcome {
        let hosts = hosts_of(it, service)?;
        let meets = |host: &String, certified: &String| {
            let (host, certified) = (&host.to_ascii_lowercase(), &certified.to_ascii_lowercase());
            let within = |wide: &str, host: &str| {
                wide == "*" || wide == host || wide.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix))
            };
            within(certified, host) || within(host, certified)
        };
        let is_certified = !self.certified.is_empty()
            && (hosts.is_empty() || hosts.iter().any(|host| self.certified.iter().any(|it| meets(host, it))));
        if is_certified {
            effects.close();
            it.closed(format!(
                "clients of its hosts had to have a certificate: name their authority by client_ca of a listener, and take the \
                 rule {CLOSED} away"
            ));
        }
        if !hosts.is_empty() {
            matches.insert("hosts".into(), json!(hosts));
        }
        Ok(())
    }

    fn write(
        &mut self,
        it: &Item<'d>,
        name: &str,
        upstream: Option<String>,
        matches: Map<String, Json>,
        mut effects: Effects,
        variants: Vec<Variant<'d>>,
    ) -> Outcome {
        let mut rest = Map::new();
        if let Some(text) = it.text("desc")? {
            rest.insert("description".into(), json!(text));
        }
        let labels = common::labels(it, &["labels"])?;
        if !labels.is_empty() {
            rest.insert("labels".into(), Json::Object(labels));
        }
        match upstream {
            Some(upstream) => rest.insert("upstream".into(), json!(upstream)),
            None => rest.insert("respond".into(), json!({ "status": 503 })),
        };
        let priority = it.int("priority")?.unwrap_or_default();
        let mut uris = it.list("uris")?;
        uris.extend(it.get("uri"));
        if uris.is_empty() {
            return Err(it.wrong("a route with uri or uris"));
        }
        let service = self.named(it, "service_id", "services")?;
        // Where the route says itself whom to ask, nobody asks the service.
        let known = ["uri", "uris", "name", "desc", "labels", "enable_websocket", "upstream", "upstream_id"];
        for of in [Some(it), service.as_ref()].into_iter().flatten() {
            common::unread(&of.unread(&known), &mut effects);
        }
        let mut all = vec![(matches.clone(), effects.clone(), 0_i64)];
        for variant in variants {
            let (mut more, mut changed) = (matches.clone(), effects.clone());
            let mut why = None;
            for condition in &variant.conditions {
                why = why.or(matching::vars(condition, &mut more)?.err());
            }
            if let Some(why) = why {
                it.left_out(format!(
                    "traffic-split by {why}: such requests go as others do; write another route by hand"
                ));
                continue;
            }
            changed.split = Some(variant.arms);
            all.push((more, changed, 1));
        }
        // Those of vars do not say who is asked first.
        let has_hosts = !hosts_of(it, service.as_ref())?.is_empty();
        let by_host = |(matches, effects, variant): (Map<String, Json>, Effects, i64)| {
            let kinds = common::by_host_kind(&matches);
            kinds.into_iter().map(move |it| (it, effects.clone(), variant)).collect::<Vec<_>>()
        };
        let all: Vec<_> = all.into_iter().flat_map(by_host).collect();
        for uri in &uris {
            let parsed = Uri::parse(&uri.as_text()?);
            for (matches, effects, variant) in &all {
                let mut effects = effects.clone();
                let parsed = match &parsed {
                    // Whether that is a parameter depends on the router, which the files do not say.
                    Uri::Template(_) if !effects.protects() => {
                        uri.differs(
                            "a name with a colon is taken as it stands, as radixtree_host_uri does; with another router write \
                             path_template by hand",
                        );
                        Uri::Exact(uri.as_text()?)
                    }
                    Uri::Template(text) => {
                        effects.close();
                        uri.closed(format!(
                            "whether a name with a colon is a parameter depends on the router: its route lets nobody in; see to it, \
                             then take the rule {CLOSED} away"
                        ));
                        Uri::Template(text.clone())
                    }
                    other => other.clone(),
                };
                if matches!(parsed, Uri::Unknown(_)) && !common::unsaid(uri, "a * that is not at the end", &mut effects)
                {
                    continue;
                }
                let mut route = RouteWords { name: name.to_owned(), rest: rest.clone(), ..RouteWords::default() };
                let host_order = if has_hosts { host_order(matches) } else { [0, 0] };
                route.order = host_order.into_iter().chain(parsed.order()).chain([priority, *variant]).collect();
                fill(uri, &mut route, &parsed, matches);
                let to_https = effects.to_https.take();
                if let Some(status) = to_https.filter(|_| is_by_hosts(uri, matches, &mut effects)) {
                    let insecure = route.part_insecure(effects.protects());
                    let redirect = json!({ "status": status, "scheme": "https" });
                    self.out.route(uri, insecure, Effects { redirect: Some(redirect), ..Effects::default() });
                }
                self.out.route(uri, route, effects);
            }
        }
        Ok(())
    }
}

/// Whether requests over TLS can be told apart.
fn is_by_hosts(from: &Item<'_>, matches: &Map<String, Json>, effects: &mut Effects) -> bool {
    let has_hosts = matches.contains_key("hosts");
    match has_hosts {
        true => from.differs(
            "http_to_https: requests are told apart by TLS's server name (match.sni), so not behind a balancer that ends TLS; there \
             name listeners (match.listeners) instead",
        ),
        false => {
            effects.close();
            from.closed(format!(
                "http_to_https without hosts: nothing says which listeners speak TLS; write a route with match.listeners and redirect \
                 {{ scheme: https }} by hand, and take the rule {CLOSED} away"
            ));
        }
    }
    has_hosts
}

pub(super) fn called(it: &Item<'_>) -> Outcome<String> {
    let name = it.text("name")?;
    Ok(name.or(it.text("id")?.map(|id| format!("upstream-{id}"))).unwrap_or_else(|| "upstream".into()))
}

fn hosts_of(it: &Item<'_>, service: Option<&Item<'_>>) -> Outcome<Vec<String>> {
    let mut hosts = it.texts("hosts")?;
    hosts.extend(it.text("host")?);
    if let Some(service) = service {
        let theirs = service.texts("hosts")?;
        if hosts.is_empty() {
            hosts = theirs;
        }
    }
    Ok(hosts)
}

fn host_order(matches: &Map<String, Json>) -> [i64; 2] {
    let hosts = matches.get("hosts").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    let order = |host: &str| if host.starts_with('*') { [1, host.len() as i64] } else { [2, 0] };
    hosts.map(order).max().unwrap_or_default()
}

fn fill(from: &Item<'_>, route: &mut RouteWords, uri: &Uri, matches: &Map<String, Json>) {
    let mut words = matches.clone();
    let canonical = |text: &str| match canonical::path(text, Slashes::Merge) {
        Ok(path) => {
            if path != text {
                from.differs(format!("paths are compared in canonical form, here {path}"));
            }
            path.into_owned()
        }
        // It is refused with its reason when the route is checked.
        Err(_) => text.to_owned(),
    };
    match uri {
        Uri::Exact(text) => drop(words.insert("path_exact".into(), json!(canonical(text)))),
        Uri::Template(text) => drop(words.insert("path_template".into(), json!(text))),
        Uri::Prefix(text) => {
            let text = canonical(text);
            if text != "/" {
                let mut below = words.clone();
                below.insert("path_regex".into(), json!(format!("{}/.*", common::escaped(&text))));
                route.below = Some((Json::Object(below), Map::new()));
            }
            words.insert("path_prefix".into(), json!(text));
        }
        Uri::Characters(text) => {
            let text = canonical(text);
            let mut beyond = words.clone();
            beyond.insert("path_regex".into(), json!(format!("{}[^/].*", common::escaped(&text))));
            route.beyond = Some((Json::Object(beyond), Map::new()));
            words.insert("path_prefix".into(), json!(text));
        }
        Uri::Unknown(text) => {
            drop(words.insert("path_regex".into(), json!(format!("{}.*", common::escaped(&canonical(text))))));
        }
    }
    route.matches = Json::Object(words);
}
