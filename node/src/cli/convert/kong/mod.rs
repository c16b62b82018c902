//! Declarative configuration of Kong: services, routes, plugins, consumers, upstreams and certificates, wherever in the
//! document they stand.

mod consumers;
mod plugins;
mod routes;
mod transformer;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{out::Out, reader::Item};
use crate::cli::{
    config::tree::Node,
    failure::{Failure, Outcome},
};

/// What says nothing of what a gateway does.
const META: [&str; 5] = ["id", "created_at", "updated_at", "ws_id", "_comment"];
const VERSIONS: [&str; 4] = ["1.1", "2.1", "3.0", "3"];

/// Whom a plugin is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    All,
    Service(String),
    Route(String),
}

#[derive(Clone)]
struct Plugin<'d> {
    name: String,
    item: Item<'d>,
    scope: Scope,
    /// The one consumer, or the one group of them, that it is for.
    caller: Option<Caller>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Caller {
    Consumer(String),
    Group(String),
}

struct Kong<'d, 'o> {
    out: &'o mut Out<'d>,
    audience: &'o [String],
    /// From version 3 on a path that begins with ~ is a regular expression; before, what looks like one.
    is_v3: bool,
    plugins: Vec<Plugin<'d>>,
    /// Their places, by whom they are for.
    by_scope: HashMap<Scope, Vec<usize>>,
    /// By id and by name.
    upstreams: HashMap<String, Item<'d>>,
    targets: HashMap<String, Vec<Item<'d>>>,
    /// Hosts that services ask.
    asked: HashSet<String>,
    /// Names of consumer groups, by id and by name.
    tiers: HashMap<String, String>,
    /// Groups of consumers, by how the consumer is named.
    members: BTreeMap<String, BTreeSet<String>>,
    /// Names of routes so far.
    known_routes: HashSet<String>,
    /// Plugins that some route is asked by.
    met: HashSet<*const Node>,
    /// Objects must have names then: what they are in is no name.
    is_many: bool,
    /// Our names of consumers, by id and by username.
    consumers: HashMap<String, String>,
    certificates: HashMap<String, String>,
    authorities: HashMap<String, String>,
    /// Secrets for JSON Web Tokens, of all consumers.
    jwt_secrets: Vec<Item<'d>>,
    /// How many credentials there are that are no configuration, by consumer and kind.
    credentials: BTreeMap<(String, &'static str), (usize, Item<'d>)>,
}

pub fn convert<'d>(documents: &[Item<'d>], out: &mut Out<'d>, audience: &[String]) -> Outcome {
    let mut it = Kong {
        out,
        audience,
        is_v3: version(documents)?,
        plugins: Vec::new(),
        by_scope: HashMap::new(),
        upstreams: HashMap::new(),
        targets: HashMap::new(),
        asked: HashSet::new(),
        tiers: HashMap::new(),
        members: BTreeMap::new(),
        known_routes: HashSet::new(),
        met: HashSet::new(),
        is_many: documents.len() > 1,
        consumers: HashMap::new(),
        certificates: HashMap::new(),
        authorities: HashMap::new(),
        jwt_secrets: Vec::new(),
        credentials: BTreeMap::new(),
    };
    one_workspace(documents)?;
    for document in documents {
        document.skip_fields(&["_transform", "_comment", "_konnect"]);
        if let Some(info) = document.map("_info")? {
            if let Some(defaults) = info.get("defaults") {
                return Err(
                    defaults.wrong("no defaults: write them into the objects first, as `deck file render` does")
                );
            }
            info.skip();
        }
        it.certificates(document)?;
        it.collect_upstreams(document)?;
        for plugin in document.list("plugins")? {
            it.collect_plugin(plugin, Scope::All, None)?;
        }
        it.collect_filters(document, &Scope::All)?;
    }
    // Those of one file may be named in another.
    for document in documents {
        it.groups(document)?;
    }
    for document in documents {
        it.members(document)?;
    }
    for document in documents {
        it.consumers(document)?;
    }
    for document in documents {
        it.loose_credentials(document)?;
    }
    it.tell_credentials();
    // A route finds its plugins only when all are known.
    let mut routes = Vec::new();
    let mut services = HashMap::new();
    for document in documents {
        for service in document.list("services")? {
            it.collect_service(service, &mut services, &mut routes)?;
        }
        for route in document.list("routes")? {
            it.collect_route(route, None, &mut routes)?;
        }
    }
    it.routes(&services, routes)?;
    it.tell_unused()
}

fn version(documents: &[Item<'_>]) -> Outcome<bool> {
    let mut is_v3 = None;
    for document in documents {
        let Some(version) = document.get("_format_version") else { continue };
        let text = version.as_text()?;
        if !VERSIONS.contains(&text.as_str()) {
            return Err(version.wrong("1.1, 2.1 or 3.0"));
        }
        let is_new = text.starts_with('3');
        if is_v3.is_some_and(|known| known != is_new) {
            return Err(version.wrong("the version of the other files: paths mean other things from 3.0 on"));
        }
        is_v3 = Some(is_new);
    }
    is_v3.ok_or_else(|| {
        let found = "no file says its _format_version";
        Failure::usage(format!(
            "found {found}; allowed: declarative configuration of Kong, as `deck gateway dump` writes it"
        ))
    })
}

/// Plugins without a scope are for their workspace alone.
fn one_workspace(documents: &[Item<'_>]) -> Outcome {
    let mut known: Option<Option<String>> = None;
    for document in documents {
        let workspace = document.text("_workspace")?;
        if known.as_ref().is_some_and(|known| *known != workspace) {
            let at = document.get("_workspace").unwrap_or_else(|| document.clone());
            return Err(at.wrong("files of one workspace: convert each workspace apart"));
        }
        known = Some(workspace);
    }
    Ok(())
}

/// A name or an id, alone or in a map.
fn reference(of: &Item<'_>, field: &str) -> Outcome<Option<String>> {
    let Some(it) = of.get(field) else { return Ok(None) };
    if !it.is_map() {
        return it.as_text().map(Some);
    }
    it.skip();
    for word in ["name", "username", "id"] {
        if let Some(text) = it.text(word)? {
            return Ok(Some(text));
        }
    }
    Err(it.wrong("a name, or a map with name or id"))
}

/// All by which others may name it.
fn names(of: &Item<'_>) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for field in ["name", "username", "id"] {
        names.extend(of.text(field)?);
    }
    Ok(names)
}

/// What it is for, of something that stands there.
fn scope(item: &Item<'_>, at: Scope) -> Outcome<Scope> {
    let (route, service) = (reference(item, "route")?, reference(item, "service")?);
    Ok(match (at, route, service) {
        // It is where it stands, whatever else it says.
        (at @ (Scope::Route(_) | Scope::Service(_)), ..) => at,
        (Scope::All, Some(route), _) => Scope::Route(route),
        (Scope::All, None, Some(service)) => Scope::Service(service),
        (Scope::All, None, None) => Scope::All,
    })
}

impl<'d> Kong<'d, '_> {
    fn collect_plugin(&mut self, item: Item<'d>, at: Scope, caller: Option<Caller>) -> Outcome {
        item.skip_fields(&META);
        item.skip_fields(&["instance_name", "tags", "ordering", "run_on"]);
        let Some(name) = item.text("name")? else { return Err(item.wrong("a plugin with a name")) };
        if item.flag("enabled")? == Some(false) {
            item.note("it is not enabled, and left out");
            item.skip();
            return Ok(());
        }
        if let Some(protocols) = item.get("protocols") {
            let words = protocols.entries().iter().map(Item::as_text).collect::<Outcome<Vec<_>>>()?;
            if !["http", "https"].iter().all(|it| words.iter().any(|word| word == it)) {
                protocols.differs("it counts whatever protocol a request came by");
            }
        }
        let mut caller = caller;
        if let Some(consumer) = reference(&item, "consumer")? {
            caller = Some(Caller::Consumer(consumer));
        }
        if let Some(group) = reference(&item, "consumer_group")? {
            caller = Some(Caller::Group(group));
        }
        let scope = scope(&item, at)?;
        self.put_plugin(Plugin { name, item, scope, caller });
        Ok(())
    }

    fn put_plugin(&mut self, plugin: Plugin<'d>) {
        self.by_scope.entry(plugin.scope.clone()).or_default().push(self.plugins.len());
        self.plugins.push(plugin);
    }

    /// Filters of Wasm: as plugins that nobody knows.
    fn collect_filters(&mut self, of: &Item<'d>, at: &Scope) -> Outcome {
        for item in of.list("filter_chains")? {
            if item.flag("enabled")? == Some(false) {
                item.note("it is not enabled, and left out");
                item.skip();
                continue;
            }
            let scope = scope(&item, at.clone())?;
            self.put_plugin(Plugin { name: "filter_chains".into(), item, scope, caller: None });
        }
        Ok(())
    }

    /// Those that a route of these names is asked by, the nearest of each name.
    /// Beside them one that is as near as another of its name, if there is any.
    fn plugins_of(&mut self, route: &[String], service: &[String]) -> (Vec<Plugin<'d>>, Option<Item<'d>>) {
        let mut twin = None;
        let nearness = |scope: &Scope| match scope {
            Scope::Route(name) => route.contains(name).then_some(2),
            Scope::Service(name) => service.contains(name).then_some(1),
            Scope::All => Some(0),
        };
        let scopes = [Scope::All].into_iter().chain(service.iter().cloned().map(Scope::Service));
        let scopes = scopes.chain(route.iter().cloned().map(Scope::Route));
        // A name and an id may be the same word.
        let places: BTreeSet<usize> = scopes.filter_map(|it| self.by_scope.get(&it)).flatten().copied().collect();
        let mut found: Vec<(i32, &Plugin<'d>)> = Vec::new();
        let plugins = &self.plugins;
        for it in places.into_iter().map(|place| &plugins[place]) {
            let Some(near) = nearness(&it.scope) else { continue };
            self.met.insert(it.item.identity());
            match found.iter_mut().find(|(_, other)| other.name == it.name && other.caller == it.caller) {
                Some(known) if known.0 < near => *known = (near, it),
                Some(known) if known.0 == near => twin = Some(it.item.clone()),
                Some(_) => {}
                None => found.push((near, it)),
            }
        }
        (found.into_iter().map(|(_, it)| it.clone()).collect(), twin)
    }

    fn tell_unused(&self) -> Outcome {
        for it in self.plugins.iter().filter(|it| it.scope != Scope::All && !self.met.contains(&it.item.identity())) {
            it.item.skip();
            it.item.left_out("no route that is translated is asked by it: is what it is for in the files?");
        }
        for it in self.upstreams.values() {
            if !names(it)?.iter().any(|name| self.asked.contains(name)) {
                it.left_out("no service asks it");
                it.skip();
            }
        }
        Ok(())
    }
}
