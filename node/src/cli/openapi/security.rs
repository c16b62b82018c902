//! Security requirements as auths. What has no meaning here, or needs a word that the document does not say, is refused by
//! name: no route is ever open because it could not be translated.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::document::{Document, members, step, wrong};
use crate::cli::{
    args::ImportOpenapi,
    failure::{Failure, Outcome},
};

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Who is asked to show what, by the operations that share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Asks {
    /// One of them, or all; none: anybody.
    pub any_of: Vec<String>,
    pub all_of: Vec<String>,
    /// One of these lists of scopes; none: nothing is asked of them.
    pub scopes: Vec<Vec<String>>,
}

/// Credentials that are asked for together, each by what it is for clients, with its scopes.
pub type Shown = BTreeMap<String, BTreeSet<String>>;

/// What an operation asks for with these flags: one of them. None at all is nothing, and so is an empty one.
pub fn asked(verb: &ImportOpenapi, document: &Document, operation: &Json) -> Vec<Shown> {
    // The same is asked everywhere, whatever the document says.
    if verb.no_auth || verb.auth.iter().any(|it| !it.contains('=')) {
        return Vec::new();
    }
    let security = operation.get("security").or(document.root.get("security"));
    let alternatives = security.and_then(Json::as_array).into_iter().flatten();
    let scopes = |list: &Json| {
        let list = list.as_array().into_iter().flatten().filter(|_| !verb.no_scopes);
        list.filter_map(Json::as_str).map(str::to_owned).collect()
    };
    let shown =
        |it: &Json| members(Some(it)).map(|(name, list)| (credential(verb, document, name), scopes(list))).collect();
    alternatives.map(shown).collect()
}

/// Two schemes of different names may be one to clients.
fn credential(verb: &ImportOpenapi, document: &Document, scheme: &str) -> String {
    let mapped = verb.auth.iter().filter_map(|it| it.split_once('=')).find(|(name, _)| *name == scheme);
    if let Some((_, auth)) = mapped {
        return format!("auth {auth}");
    }
    let place = step("/components/securitySchemes", scheme);
    let words = document.root.pointer(&place).and_then(|it| Some(document.resolve(&place, it).ok()?.1));
    let text = |word: &str| words.and_then(|it| it.get(word)?.as_str()).unwrap_or_default();
    match (text("type"), text("in")) {
        ("apiKey", "header") => format!("apiKey {} in header", text("name").to_ascii_lowercase()),
        ("apiKey", place) => format!("apiKey {} in {place}", text("name")),
        ("http", _) => format!("http {}", text("scheme").to_ascii_lowercase()),
        ("openIdConnect", _) => format!("openIdConnect {}", text("openIdConnectUrl")),
        ("", _) => format!("the scheme {scheme:?}"),
        (kind, _) => kind.to_owned(),
    }
}

pub struct Security<'d> {
    document: &'d Document,
    verb: &'d ImportOpenapi,
    api: &'d str,
    /// Of all operations.
    forced: Vec<String>,
    /// By scheme.
    mapped: BTreeMap<&'d str, &'d str>,
    /// The auths that the file brings along.
    made: BTreeMap<String, Json>,
}

impl<'d> Security<'d> {
    pub fn new(document: &'d Document, verb: &'d ImportOpenapi, api: &'d str) -> Outcome<Self> {
        let (mut forced, mut mapped) = (Vec::new(), BTreeMap::new());
        for word in &verb.auth {
            match word.split_once('=') {
                Some((scheme, name)) => {
                    let schemes = document.root.pointer("/components/securitySchemes");
                    if schemes.and_then(|it| it.get(scheme)).is_none() {
                        let known: Vec<&str> = members(schemes).map(|(name, _)| name.as_str()).collect();
                        let allowed = if known.is_empty() {
                            "none: the document has no schemes".into()
                        } else {
                            known.join(", ")
                        };
                        return Err(Failure::usage(format!(
                            "--auth {word}: found the scheme {scheme:?}; allowed: {allowed}"
                        )));
                    }
                    mapped.insert(scheme, name);
                }
                None => forced.push(word.clone()),
            }
        }
        Ok(Self { document, verb, api, forced, mapped, made: BTreeMap::new() })
    }

    pub fn auths(self) -> Vec<Json> {
        self.made.into_values().collect()
    }

    /// What an operation asks for; `label` is what people call it.
    pub fn of(&mut self, label: &str, at: &str, operation: &Json) -> Outcome<Asks> {
        if self.verb.no_auth {
            return Ok(Asks::default());
        }
        if !self.forced.is_empty() {
            return Ok(Asks { any_of: self.forced.clone(), ..Asks::default() });
        }
        let (at, security) = match operation.get("security") {
            Some(own) => (step(at, "security"), Some(own)),
            None => ("/security".to_owned(), self.document.root.get("security")),
        };
        let alternatives = match security {
            None => &[][..],
            Some(Json::Array(list)) => list.as_slice(),
            Some(_) => {
                return Err(wrong(
                    &at,
                    &format!("{label}: found no list in `security`"),
                    "write a list of requirements",
                ));
            }
        };
        let is_open = |it: &Json| it.as_object().is_some_and(Map::is_empty);
        if alternatives.iter().all(is_open) {
            return match self.verb.open {
                true => Ok(Asks::default()),
                false => {
                    let found = format!("{label}: the document wants no credential for it");
                    Err(wrong(
                        &at,
                        &found,
                        "say --open to have such operations open to anybody, or --auth NAME to ask for that auth",
                    ))
                }
            };
        }
        if alternatives.iter().any(is_open) {
            let found = format!("{label}: credentials are optional, which no route is");
            return Err(wrong(&at, &found, "say --auth NAME to ask for that auth, or --no-auth to ask for none"));
        }
        let mut all = Vec::new();
        let mut scopes = BTreeSet::new();
        let mut by_auth = BTreeMap::<Vec<String>, BTreeSet<Vec<String>>>::new();
        for (place, it) in alternatives.iter().enumerate() {
            let mut names = Vec::new();
            let mut wanted = BTreeSet::new();
            for (scheme, of_scheme) in members(Some(it)) {
                names.push(self.scheme(label, &format!("{at}/{place}"), scheme)?);
                wanted.extend(of_scheme.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned));
            }
            let wanted: Vec<String> = wanted.into_iter().collect();
            by_auth.entry(names.clone()).or_default().insert(wanted.clone());
            all.push(names);
            scopes.insert(wanted);
        }
        let scopes = self.scopes(label, &at, scopes)?;
        // `authorize` does not ask by which auth somebody came.
        let mut each = by_auth.values();
        if !scopes.is_empty() && each.next().is_some_and(|first| each.any(|it| it != first)) {
            let told = |(names, wanted): (&Vec<String>, &BTreeSet<Vec<String>>)| {
                let wanted: Vec<String> = wanted.iter().map(|it| it.join(" and ")).collect();
                format!("{} with {}", names.join(" and "), wanted.join(" or "))
            };
            let told: Vec<String> = by_auth.iter().map(told).collect();
            let found =
                format!("{label}: other scopes are asked of one credential than of another: {}", told.join("; "));
            let allowed = "the same scopes of each that it takes: say --no-scopes to ask for none, and write `authorize` rules by hand";
            return Err(wrong(&at, &found, allowed));
        }
        let mut asks = Asks { scopes, ..Asks::default() };
        match all.as_slice() {
            [names] if names.len() > 1 => asks.all_of = names.clone(),
            _ if all.iter().all(|names| names.len() == 1) => {
                let names: BTreeSet<String> = all.into_iter().flatten().collect();
                asks.any_of = names.into_iter().collect();
            }
            _ => {
                let found = format!("{label}: one of several, some of which are more than one credential");
                return Err(wrong(
                    &at,
                    &found,
                    "a route asks for any of some auths or for all of them: say --auth NAME",
                ));
            }
        }
        Ok(asks)
    }

    fn scopes(&self, label: &str, at: &str, scopes: BTreeSet<Vec<String>>) -> Outcome<Vec<Vec<String>>> {
        if self.verb.no_scopes || scopes.iter().all(Vec::is_empty) {
            return Ok(Vec::new());
        }
        if scopes.iter().any(Vec::is_empty) {
            let found = format!("{label}: scopes are asked of some of the credentials that it takes, of others none");
            return Err(wrong(at, &found, "say --no-scopes to ask for none, and write `authorize` rules by hand"));
        }
        Ok(scopes.into_iter().collect())
    }

    /// The name of the auth that stands for it.
    fn scheme(&mut self, label: &str, at: &str, scheme: &str) -> Outcome<String> {
        if let Some(name) = self.mapped.get(scheme) {
            return Ok((*name).to_owned());
        }
        let by_hand = format!(
            "say --auth {scheme}=NAME to ask for an auth that there is or will be, or --no-auth to ask for none"
        );
        let place = step("/components/securitySchemes", scheme);
        let Some(words) = self.document.root.pointer(&place) else {
            let found = format!("{label}: the scheme {scheme:?} is not in the document");
            return Err(wrong(at, &found, &by_hand));
        };
        let (place, words) = self.document.resolve(&place, words)?;
        let text = |word: &str| words.get(word).and_then(Json::as_str).unwrap_or_default();
        let kind = text("type");
        let refused = |why: &str| {
            let found = format!(
                "{label}: the scheme {scheme:?} ({}) cannot be translated: {why}",
                if kind.is_empty() { "of no type" } else { kind }
            );
            Err(wrong(&place, &found, &by_hand))
        };
        let auth = match (kind, text("in"), text("scheme").to_ascii_lowercase().as_str()) {
            ("apiKey", "header", _) => json!({ "api_key": { "header": text("name").to_ascii_lowercase() } }),
            ("apiKey", "query", _) => json!({ "api_key": { "query": text("name") } }),
            ("apiKey", ..) => return refused("keys are read from headers and queries, not from cookies"),
            ("http", _, "basic") => json!({ "basic": {} }),
            ("http", _, "bearer") => return refused("it does not say whose tokens these are (issuer, keys, audience)"),
            ("http", ..) => return refused("only bearer and basic are known"),
            ("oauth2", ..) => return refused("it does not say whose tokens these are (issuer, keys, audience)"),
            ("openIdConnect", ..) => {
                let url = text("openIdConnectUrl");
                let Some(issuer) = url.strip_suffix(WELL_KNOWN) else {
                    return refused(&format!("openIdConnectUrl is {url:?}, which does not end in {WELL_KNOWN}"));
                };
                if self.verb.audience.is_empty() {
                    return refused("it does not say who tokens are for: say --audience A too");
                }
                json!({ "jwt": { "issuer": issuer, "audience": self.verb.audience, "discovery": true } })
            }
            ("mutualTLS", ..) => return refused("it does not say whose certificates these are"),
            _ => return refused("allowed are apiKey, http, openIdConnect and, by --auth, oauth2 and mutualTLS"),
        };
        let name = super::name(&format!("{}-{scheme}", self.api));
        let mut words = auth;
        words["name"] = json!(name);
        self.made.insert(name.clone(), words);
        Ok(name)
    }
}
