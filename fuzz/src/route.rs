//! Which route takes a request: the compiled tables against asking every route, afresh and after changes.

use std::{collections::BTreeMap, sync::Arc};

use quorumgate_model::{
    canonical::{self, Slashes},
    digest::Digest,
    resource::{Resource, Route, Stored},
    ruleset::{
        Found, HeaderLookup, Ruleset, View,
        reference::{Asked, reference},
    },
    state::State,
};
use regex::Regex;
use serde_json::{Value, json};

/// So that one input does not compile thousands.
const ROUTES_MAX: usize = 16;
const REQUESTS_MAX: usize = 16;
const REGEX_BYTES_MAX: usize = 32;

/// Lines: `r [priority=1] [host=*.t] [prefix=/a] [exact=/a] [template=/{x}] [regex=/a.*] [method=GET] [cidr=10.0.0.0/8]
/// [sni=a.t] [header=x:1] [header=x~a+] [header=x] [header=!x] [query=…] [cookie=…]` is a route, and
/// `q METHOD HOST PATH [header=x:1] [query=x:1] [cookie=x:1] [ip=10.0.0.1] [sni=a.t]` a request.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let routes: Vec<Route> = text.lines().filter_map(|it| it.strip_prefix("r ")).filter_map(route).collect();
    let mut routes: Vec<Route> = routes.into_iter().take(ROUTES_MAX).collect();
    for (place, route) in routes.iter_mut().enumerate() {
        route.name = format!("r{place:02}").parse().expect("a name");
    }
    let requests = text.lines().filter_map(|it| it.strip_prefix("q ")).filter_map(asked).take(REQUESTS_MAX);
    let requests: Vec<Asked<'_>> = requests.collect();
    let fresh = Ruleset::compile(&state_of(&routes), None);
    // By way of half of the routes, and back from none.
    let half = Ruleset::compile(&state_of(&routes[routes.len() / 2..]), None);
    let none = Ruleset::compile(&State::default(), Some(&half));
    let followed = [half, none].map(|before| Ruleset::compile(&state_of(&routes), Some(&before)));
    for asked in &requests {
        let expected = reference(&routes, asked, whole_match);
        for rules in [&fresh].into_iter().chain(&followed) {
            assert_eq!(found(rules, asked), expected, "{asked:?} of\n{text}");
        }
    }
}

fn route(line: &str) -> Option<Route> {
    let mut matches = serde_json::Map::new();
    let mut priority = 0;
    for word in line.split(' ') {
        let (key, value) = word.split_once('=')?;
        match key {
            "priority" => priority = value.parse::<i32>().ok()?,
            "regex" if value.len() > REGEX_BYTES_MAX => return None,
            "prefix" | "exact" | "template" | "regex" => {
                matches.insert(format!("path_{key}"), value.into());
            }
            _ => {
                let (list, item) = match key {
                    "host" => ("hosts", value.into()),
                    "method" => ("methods", value.into()),
                    "cidr" => ("client_cidrs", value.into()),
                    "sni" => ("sni", value.into()),
                    "header" => ("headers", condition(value)?),
                    "query" => ("query", condition(value)?),
                    "cookie" => ("cookies", condition(value)?),
                    _ => return None,
                };
                matches.entry(list).or_insert_with(|| json!([])).as_array_mut()?.push(item);
            }
        }
    }
    for list in ["hosts", "methods", "client_cidrs", "sni", "headers", "query", "cookies"] {
        matches.entry(list).or_insert_with(|| json!([]));
    }
    serde_json::from_value(json!({ "name": "r", "priority": priority, "match": matches, "upstream": "u" })).ok()
}

fn condition(text: &str) -> Option<Value> {
    if let Some(name) = text.strip_prefix('!') {
        return Some(json!({ "name": name, "absent": true }));
    }
    if let Some((name, value)) = text.split_once(':') {
        return Some(json!({ "name": name, "exact": value }));
    }
    match text.split_once('~') {
        Some((_, regex)) if regex.len() > REGEX_BYTES_MAX => None,
        Some((name, regex)) => Some(json!({ "name": name, "regex": regex })),
        None => Some(json!({ "name": text, "present": true })),
    }
}

/// Only what reads the same encoded and decoded: the reference knows no encodings.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
}

fn asked(line: &str) -> Option<Asked<'_>> {
    let mut words = line.split(' ');
    let (method, host, path) = (words.next()?, words.next()?, words.next()?);
    let path = canonical::path(path, Slashes::Merge).ok()?.into_owned();
    if !(host == "-" || is_plain(host)) || host.ends_with('.') {
        return None;
    }
    let host = if host == "-" { "" } else { host };
    let client_ip = [127, 0, 0, 1].into();
    let (headers, query, cookies) = Default::default();
    let mut asked = Asked { method, host, path, headers, query, cookies, client_ip, sni: None, listener: None };
    for word in words {
        let (key, value) = word.split_once('=')?;
        let pair = || value.split_once(':').filter(|(name, value)| is_plain(name) && is_plain(value));
        match key {
            "ip" => asked.client_ip = value.parse().ok()?,
            "sni" => asked.sni = Some(value).filter(|it| is_plain(it) && !it.ends_with('.')),
            // The method that a preflight asks for is a word in capitals.
            "header" => asked.headers.push(value.split_once(':').filter(|(name, value)| {
                is_plain(name) && *name != "cookie" && value.bytes().all(|it| it.is_ascii_alphanumeric())
            })?),
            "query" => asked.query.push(pair()?),
            "cookie" => asked.cookies.push(pair()?),
            _ => return None,
        }
    }
    Some(asked)
}

fn whole_match(regex: &str, text: &str) -> bool {
    Regex::new(&format!("^(?:{regex})$")).is_ok_and(|it| it.is_match(text))
}

fn state_of(routes: &[Route]) -> State {
    let mut state = State::default();
    for route in routes {
        let etag = Digest::of(&serde_json::to_vec(route).expect("a route is JSON"));
        let resource = Resource::Route(Arc::new(route.clone()));
        state.resources.insert(resource.key(), Stored { resource, etag });
    }
    state
}

struct Fields(BTreeMap<String, Vec<String>>);

impl HeaderLookup for Fields {
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.0.get(name).is_some_and(|values| values.iter().any(|value| test(value)))
    }
}

fn found(rules: &Ruleset, asked: &Asked<'_>) -> String {
    let mut fields = Fields(BTreeMap::new());
    for (name, value) in &asked.headers {
        fields.0.entry((*name).to_owned()).or_default().push((*value).to_owned());
    }
    for (name, value) in &asked.cookies {
        fields.0.entry("cookie".to_owned()).or_default().push(format!("{name}={value}"));
    }
    let pairs: Vec<String> = asked.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = pairs.join("&");
    let view = View {
        method: asked.method,
        host: asked.host,
        path: &asked.path,
        query: Some(&*query).filter(|query| !query.is_empty()),
        headers: &fields,
        client_ip: asked.client_ip,
        sni: asked.sni,
        listener: asked.listener,
    };
    match rules.find(&view) {
        Found::Rule(rule) => rule.route.name.to_string(),
        Found::MethodNotAllowed(methods) => format!("405 {}", methods.join(",")),
        Found::NoRoute => "404".to_owned(),
    }
}
