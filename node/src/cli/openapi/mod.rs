//! OpenAPI documents as configuration: routes, auth and a contract, made once and then the operator's own.

mod changes;
mod document;
mod operations;
mod routes;
mod schemas;
mod security;
mod verify;

use quorumgate_model::{
    canonical::{self, Slashes},
    invalid::Invalid,
    resource::{ContractPolicy, Kind, Resource},
};
use quorumgate_proxy::inspect;
use serde_json::{Value as Json, json};

use self::{
    document::{Document, wrong},
    routes::{Plan, Routed},
    schemas::Named,
    security::Security,
};
use super::{
    args::ImportOpenapi,
    config::canonical as file,
    failure::{Exit, Failure, Outcome, Problem},
    output,
};

/// What can be left out of one document.
const LEFT_OUT_MAX: usize = 500;

pub use self::verify::run as verify;

pub fn import(verb: &ImportOpenapi) -> Outcome {
    let document = Document::read(&verb.spec)?;
    let (objects, notes) = objects(verb, &document)?;
    for note in notes.told {
        eprintln!("note: {note}");
    }
    if let Some(old) = &verb.against {
        lint(verb, &Document::read(old)?, &document)?;
    }
    output::stdout(&file::file(objects.iter())?)
}

/// The file that `import openapi` prints for a document, with these flags of its own.
pub fn file_of(document: &str, flags: &[&str]) -> Outcome<String> {
    #[derive(clap::Parser)]
    struct Verb {
        #[command(flatten)]
        verb: ImportOpenapi,
    }
    let verb = <Verb as clap::Parser>::try_parse_from(["openapi", "fuzz.yaml"].iter().chain(flags))
        .map_err(|error| Failure::usage(error.to_string()))?
        .verb;
    let (objects, _) = objects(&verb, &Document::parse("fuzz.yaml", document)?)?;
    file::file(objects.iter())
}

/// Err: clients of the older document would break, and that is not allowed.
fn lint(verb: &ImportOpenapi, old: &Document, new: &Document) -> Outcome {
    let [was, now] = [old, new].map(|it| base_of(verb, &Server::of(it)?));
    let (was, now) = (was?, now?);
    let told = changes::told(&promises(verb, old, &was)?, &promises(verb, new, &now)?);
    told.notes.iter().for_each(|it| eprintln!("note: {it}"));
    let mut breaking = told.breaking;
    if was != now && breaking.iter().any(|it| it.ends_with(changes::GONE)) {
        let why = format!("the base path is {now:?} now, and was {was:?}: --base-path keeps it");
        breaking.insert(0, why);
    }
    let problem = |it: String| Problem { code: "breaking".to_owned(), ..Problem::invalid(it) };
    match (breaking.is_empty(), verb.allow_breaking) {
        (true, _) => Ok(()),
        (_, true) => {
            breaking.iter().for_each(|it| eprintln!("note: breaking: {it}"));
            Ok(())
        }
        _ => Err(Failure { exit: Exit::Negative, problems: breaking.into_iter().map(problem).collect() }
            .help("say --allow-breaking if clients can bear it, or make it another version of the API")),
    }
}

/// All that a document says of requests and answers, as a contract would, and of who may ask.
fn promises(verb: &ImportOpenapi, document: &Document, base: &str) -> Outcome<Json> {
    let mut notes = Notes { lossy: true, told: Vec::new() };
    let mut named = Named::new(document);
    let mut words = Vec::new();
    for it in operations::all(document, &mut notes)? {
        let path = full_path(base, it.path).unwrap_or_else(|_| format!("{base}{}", it.path));
        let mut made = it.words(document, &mut named, &path, true, &mut notes)?;
        made["security"] = json!(security::asked(verb, document, it.words));
        words.push(made);
    }
    Ok(json!({ "schemas": named.finish()?, "operations": words }))
}

/// What is not as the document says, for people; refused where it is not to be left out.
pub struct Notes {
    lossy: bool,
    told: Vec<String>,
}

impl Notes {
    fn tell(&mut self, at: &str, what: &str) {
        self.told.push(format!("{what} ({at})"));
    }

    /// Something that is not checked, though the document says it.
    fn lossy(&mut self, at: &str, what: &str) -> Outcome {
        if !self.lossy {
            return Err(wrong(at, what, "say --lossy to leave out what cannot be checked; each is told"));
        }
        self.told.push(format!("left out: {what} ({at})"));
        Ok(())
    }
}

fn objects(verb: &ImportOpenapi, document: &Document) -> Outcome<(Vec<Resource>, Notes)> {
    let mut notes = Notes { lossy: verb.lossy, told: Vec::new() };
    let title = document.root.pointer("/info/title").and_then(Json::as_str).unwrap_or("api");
    let api = verb.name.as_ref().map_or_else(|| name(title), ToString::to_string);
    let server = Server::of(document)?;
    let base = base_of(verb, &server)?;
    let (upstream, new_upstream) = upstream(verb, &api, &server)?;

    let operations = operations::all(document, &mut notes)?;
    if operations.is_empty() {
        return Err(operations::none("/paths"));
    }
    let mut security = Security::new(document, verb, &api)?;
    let mut named = Named::new(document);
    let (mut routed, mut words) = (Vec::new(), Vec::new());
    let with_answers = verb.responses.word() != "off";
    for it in &operations {
        let path = match full_path(&base, it.path) {
            Ok(path) => path,
            Err(allowed) => {
                notes.lossy(&it.at, &format!("{}: found the path {:?}; allowed: {allowed}", it.label, it.path))?;
                continue;
            }
        };
        let asks = security.of(&it.label, &it.at, it.words)?;
        words.push(it.words(document, &mut named, &path, with_answers, &mut notes)?);
        routed.push(Routed { operation: it, path, asks });
    }
    let operations: Vec<_> = routed.iter().map(|it| it.operation).collect();
    let contract = json!({
        "mode": verb.mode.word(), "responses": verb.responses.word(), "schemas": named.finish()?, "operations": words,
    });
    let about =
        format!("{title} {}", document.root.pointer("/info/version").and_then(Json::as_str).unwrap_or_default());
    let policy = json!({ "name": api, "description": about.trim_end(), "contract": contract });
    let plan = Plan { api: &api, base: &base, hosts: &verb.hosts, upstream: &upstream, policy: &api };
    let routes = routes::of(&plan, &routed)?;

    let mut resources = Vec::new();
    for (kind, list) in
        [(Kind::Upstream, new_upstream.into_iter().collect()), (Kind::Route, routes), (Kind::Auth, security.auths())]
    {
        for words in list {
            let name = words["name"].as_str().unwrap_or_default().to_owned();
            let made = kind.parse(words).map_err(|invalid| {
                Failure::invalid(vec![Problem::invalid(format!("{} {name}: {invalid}", kind.word()))])
            })?;
            resources.push(made);
        }
    }
    resources.push(checked(policy, &operations, &mut notes)?);
    Ok((resources, notes))
}

/// The policy, without what no gateway can check.
fn checked(mut policy: Json, operations: &[&operations::Operation<'_>], notes: &mut Notes) -> Outcome<Resource> {
    for _ in 0..LEFT_OUT_MAX {
        let invalid = match read(&policy)? {
            Ok(policy) => return Ok(policy),
            Err(invalid) => invalid,
        };
        let place = place_of(&invalid, operations);
        let Some(field) = optional(&invalid.field).filter(|_| notes.lossy) else {
            let help = match optional(&invalid.field) {
                Some(_) => "say --lossy to leave out what cannot be checked; each is told",
                None => "change it in the document",
            };
            return Err(wrong(&place, &invalid.to_string(), help));
        };
        if !take(&mut policy, field) {
            return Err(wrong(&place, &invalid.to_string(), "change it in the document"));
        }
        notes.told.push(format!("left out: {invalid} ({place})"));
    }
    Err(wrong("/", &format!("more than {LEFT_OUT_MAX} schemas cannot be checked"), "is it an OpenAPI document?"))
}

/// The inner error is one of a field that may be left out.
fn read(policy: &Json) -> Outcome<Result<Resource, Invalid>> {
    let no_form = |error: serde_json::Error| Failure::invalid(vec![Problem::invalid(format!("the contract: {error}"))]);
    let contract: ContractPolicy = serde_json::from_value(policy["contract"].clone()).map_err(no_form)?;
    if let Err(invalid) = contract.checked() {
        return Ok(Err(invalid.under("contract")));
    }
    let resource = Kind::Policy.parse(policy.clone()).map_err(no_form)?;
    Ok(match &resource {
        Resource::Policy(it) => inspect::check(it).map(|()| resource.clone()),
        _ => Ok(resource),
    })
}

/// The operation that a field is of.
fn place_of(invalid: &Invalid, operations: &[&operations::Operation<'_>]) -> String {
    let number =
        invalid.field.strip_prefix("contract.operations[").and_then(|it| it.split(']').next()?.parse::<usize>().ok());
    number.and_then(|at| operations.get(at)).map_or_else(|| invalid.field.clone(), |it| it.at.clone())
}

/// What can be left out so that the rest stands: a word of a schema, or a parameter.
fn optional(field: &str) -> Option<&str> {
    let is_of_schema = field.starts_with("contract.schemas.") || field.contains(".schema");
    if is_of_schema {
        return Some(field);
    }
    let (parameter, _) = field.split_once(".parameters[")?;
    let end = field[parameter.len() + 1..].find(']')? + parameter.len() + 2;
    Some(&field[..end])
}

/// Whether it was there.
fn take(value: &mut Json, field: &str) -> bool {
    match value {
        Json::Object(map) => {
            // Names may have dots: the longest that is there.
            let is_next = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
            let names = map.keys().filter(|name| field.strip_prefix(name.as_str()).is_some_and(is_next));
            let Some(name) = names.max_by_key(|name| name.len()).cloned() else { return false };
            let rest = &field[name.len()..];
            match rest.is_empty() {
                true => map.shift_remove(&name).is_some(),
                false => map.get_mut(&name).is_some_and(|it| take(it, rest.strip_prefix('.').unwrap_or(rest))),
            }
        }
        Json::Array(list) => {
            let parsed = field.strip_prefix('[').and_then(|it| it.split_once(']'));
            let Some((at, rest)) = parsed.and_then(|(at, rest)| Some((at.parse::<usize>().ok()?, rest))) else {
                return false;
            };
            match list.get_mut(at) {
                Some(_) if rest.is_empty() => {
                    // A schema of a list becomes one that takes all: the others keep their places.
                    list[at] = Json::Bool(true);
                    true
                }
                Some(inner) => take(inner, rest.strip_prefix('.').unwrap_or(rest)),
                None => false,
            }
        }
        _ => false,
    }
}

/// The first server that the document names.
struct Server {
    /// `https://api.acme.test:8443`
    authority: Option<(bool, String)>,
    path: String,
}

impl Server {
    fn of(document: &Document) -> Outcome<Self> {
        let Some(server) = document.root.pointer("/servers/0") else {
            return Ok(Self { authority: None, path: String::new() });
        };
        let mut url = server.get("url").and_then(Json::as_str).unwrap_or_default().to_owned();
        for (name, variable) in document::members(server.get("variables")) {
            let default = variable.get("default").map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned));
            url = url.replace(&format!("{{{name}}}"), &default.unwrap_or_default());
        }
        let tls = url.starts_with("https://");
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let (authority, path) = match rest {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some((tls, authority.to_owned())), path.to_owned())
            }
            None => (
                None,
                url.split_once("://")
                    .map_or(url.clone(), |(_, rest)| rest[rest.find('/').unwrap_or(rest.len())..].to_owned()),
            ),
        };
        let path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
        Ok(Self { authority, path: if path.starts_with('/') { path } else { String::new() } })
    }
}

/// Its name, and its words if it is not one that there is.
fn upstream(verb: &ImportOpenapi, api: &str, server: &Server) -> Outcome<(String, Option<Json>)> {
    let (tls, authority) = match verb.upstream.as_deref() {
        Some(url) if url.contains("://") => {
            let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
                (Some(rest), _) => (true, rest),
                (_, Some(rest)) => (false, rest),
                _ => return Err(Failure::usage(format!("--upstream: found {url:?}; allowed: http:// or https://"))),
            };
            let authority = rest.trim_end_matches('/');
            if authority.contains('/') {
                let allowed = "a URL without a path: `rewrite.path_prefix` of the routes changes paths";
                return Err(Failure::usage(format!("--upstream: found {url:?}; allowed: {allowed}")));
            }
            (tls, authority.to_owned())
        }
        Some(name) => return Ok((name.to_owned(), None)),
        None => match &server.authority {
            Some(it) if !it.1.is_empty() && !it.1.contains('{') => it.clone(),
            _ => {
                let found = "the document names no server with a host";
                return Err(Failure::usage(format!(
                    "--upstream: {found}; allowed: the name of an upstream, or its URL"
                )));
            }
        },
    };
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit()));
    let target = match (has_port, tls) {
        (true, _) => authority.clone(),
        (false, true) => format!("{authority}:443"),
        (false, false) => format!("{authority}:80"),
    };
    let mut words = json!({ "name": api, "targets": [target] });
    if tls {
        let host = target.rsplit_once(':').map_or(target.as_str(), |(host, _)| host);
        words["tls"] = json!({ "server_name": host });
    }
    Ok((api.to_owned(), Some(words)))
}

/// What stands before the paths of a document.
fn base_of(verb: &ImportOpenapi, server: &Server) -> Outcome<String> {
    base_path(verb.base_path.as_deref().unwrap_or(&server.path))
}

fn base_path(path: &str) -> Outcome<String> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    match canonical::path(path, Slashes::Merge) {
        Ok(it) if !path.contains('{') => Ok(it.into_owned()),
        _ => {
            Err(Failure::usage(format!("--base-path: found {path:?}; allowed: a path such as /v1, without parameters")))
        }
    }
}

/// In canonical form, as requests come to routes. Err: what is allowed.
fn full_path(base: &str, path: &str) -> Result<String, String> {
    // What follows these is no path, though some documents tell operations apart by it.
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err("a path that begins with / and has no ? and no #".into());
    }
    let mut made = base.to_owned();
    for segment in path[1..].split('/') {
        made.push('/');
        let mut rest = segment;
        while !rest.is_empty() {
            let (literal, parameter) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            if !literal.is_empty() {
                // Beside a parameter a dot is no dot segment, nor is a `;` a segment without a name: a letter stands for it.
                let before = if literal.len() == segment.len() { "/" } else { "/x" };
                let raw = format!("{before}{literal}");
                let canonical = canonical::path(&raw, Slashes::Keep);
                let canonical = canonical.map_err(|why| format!("a path that requests can have: {why}"))?;
                made += &canonical[before.len()..];
            }
            let end = parameter.find('}').map_or(parameter.len(), |at| at + 1);
            made += &parameter[..end];
            rest = &parameter[end..];
        }
    }
    Ok(made)
}

/// A name of ours for what has any.
pub fn name(text: &str) -> String {
    let mut name = String::new();
    for it in text.chars() {
        match it {
            'a'..='z' | '0'..='9' => name.push(it),
            'A'..='Z' => name.push(it.to_ascii_lowercase()),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(62);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "api".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests;
