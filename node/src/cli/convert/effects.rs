//! What plugins make of a route, gathered from all of them, and then its words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

/// What the rule is called that keeps a route closed.
pub const CLOSED: &str = "not-converted";

#[derive(Debug, Clone, Default)]
pub struct Edits {
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

/// How a path goes on.
#[derive(Debug, Clone)]
pub enum PathTo {
    Whole(String),
    /// What matches, and what comes there.
    Regex(String, String),
}

#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// All of them are asked, each with the consumer that a request without credentials counts as.
    pub auths: Vec<(String, Option<String>)>,
    /// One of the auths is enough.
    pub is_any: bool,
    /// Who is not let in, by the field of a condition.
    pub denied: BTreeMap<&'static str, BTreeSet<String>>,
    /// What must hold, by the field of the condition.
    pub allowed: BTreeMap<&'static str, Vec<String>>,
    pub policies: Vec<String>,
    pub limits: Vec<String>,
    pub request: Edits,
    pub response: Edits,
    pub query: Edits,
    pub path: Option<PathTo>,
    pub host: Option<String>,
    pub cors: Option<Json>,
    pub cache: Option<Json>,
    pub compression: Option<Json>,
    /// Bytes.
    pub body_max: Option<u64>,
    pub redirect: Option<Json>,
    pub respond: Option<Json>,
    pub split: Option<Vec<(String, u64)>>,
    /// The status by which requests that came without TLS are sent on.
    pub to_https: Option<u16>,
    pub is_closed: bool,
    /// The route takes requests that it did not take: of other ports, say.
    pub takes_more: bool,
}

impl Effects {
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether anybody is kept out by it.
    pub fn protects(&self) -> bool {
        self.is_closed
            || !self.auths.is_empty()
            || !self.denied.is_empty()
            || !self.allowed.is_empty()
            || !self.policies.is_empty()
            || !self.limits.is_empty()
            || self.respond.is_some()
            || self.redirect.is_some()
            || self.to_https.is_some()
    }

    pub fn ask(&mut self, auth: String, anonymous: Option<String>) {
        if !self.auths.contains(&(auth.clone(), anonymous.clone())) {
            self.auths.push((auth, anonymous));
        }
    }

    /// Whether some auths let in who has no credentials, and others do not: which is nothing that a route can say.
    pub fn is_mixed(&self) -> bool {
        self.auths.iter().any(|(_, anonymous)| *anonymous != self.auths[0].1)
    }

    /// One of these; what was asked before still is.
    pub fn allow(&mut self, field: &'static str, words: Vec<String>) {
        let words = words.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        match self.allowed.get_mut(field) {
            None => drop(self.allowed.insert(field, words)),
            Some(known) => known.retain(|it| words.contains(it)),
        }
        // A list of nobody would be no condition at all.
        self.is_closed |= self.allowed[field].is_empty();
    }

    pub fn deny(&mut self, field: &'static str, words: &[String]) {
        if !words.is_empty() {
            self.denied.entry(field).or_default().extend(words.iter().cloned());
        }
    }

    /// Puts it into the words of a route that has its match and its upstream.
    pub fn put(self, words: &mut Map<String, Json>) {
        let is_mixed = self.is_mixed();
        if let Some(status) = self.respond {
            replace_action(words, "respond", status);
        } else if let Some(redirect) = self.redirect {
            replace_action(words, "redirect", redirect);
        } else if let Some([(upstream, _)]) = self.split.as_deref() {
            replace_action(words, "upstream", json!(upstream));
        } else if let Some(split) = self.split {
            let arms: Vec<Json> =
                split.into_iter().map(|(upstream, weight)| json!({ "upstream": upstream, "weight": weight })).collect();
            replace_action(words, "split", Json::Array(arms));
        }
        let mut rewrite = match words.remove("rewrite") {
            Some(Json::Object(rewrite)) => rewrite,
            _ => Map::new(),
        };
        if let Some(host) = self.host {
            rewrite.insert("host".into(), json!(host));
        }
        if let Some(path) = self.path {
            rewrite.remove("path_prefix");
            rewrite.remove("path_regex");
            match path {
                PathTo::Whole(path) => rewrite.insert("path".into(), json!(path)),
                PathTo::Regex(pattern, to) => {
                    rewrite.insert("path_regex".into(), json!({ "pattern": pattern, "to": to }))
                }
            };
        }
        put_edits(&mut rewrite, "query", self.query);
        let mut headers = Map::new();
        put_edits(&mut headers, "request", self.request);
        put_edits(&mut headers, "response", self.response);
        if !headers.is_empty() {
            rewrite.insert("headers".into(), Json::Object(headers));
        }
        if !rewrite.is_empty() {
            words.insert("rewrite".into(), Json::Object(rewrite));
        }
        if !self.auths.is_empty() {
            let mut names: Vec<&String> = Vec::new();
            for (name, _) in &self.auths {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let auth = match &self.auths[0].1 {
                Some(consumer) if !is_mixed => json!({ "any_of": names, "anonymous": consumer }),
                _ if names.len() > 1 && !self.is_any => json!({ "all_of": names }),
                _ => json!({ "any_of": names }),
            };
            words.insert("auth".into(), auth);
        }
        let mut rules = Vec::new();
        if self.is_closed || is_mixed {
            rules.push(json!({ "name": CLOSED, "deny": {} }));
        }
        rules.extend(self.denied.iter().map(|(field, list)| json!({ "deny": { *field: list } })));
        let allowed: Map<String, Json> = self
            .allowed
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(field, it)| ((*field).into(), json!(it)))
            .collect();
        if !self.denied.is_empty() || !allowed.is_empty() {
            rules.push(json!({ "allow": allowed }));
        }
        let body = self.body_max.map_or("0".to_owned(), |it| it.to_string());
        for (field, value) in [
            ("authorize", (!rules.is_empty()).then(|| json!(rules))),
            ("limits", (!self.limits.is_empty()).then(|| json!(self.limits))),
            ("policies", (!self.policies.is_empty()).then(|| json!(self.policies))),
            ("cors", self.cors),
            ("cache", self.cache),
            ("compression", self.compression),
            // The other gateways know no limit unless one is said.
            ("body", Some(json!({ "max": body }))),
        ] {
            if let Some(value) = value {
                words.insert(field.into(), value);
            }
        }
    }
}

fn replace_action(words: &mut Map<String, Json>, field: &str, value: Json) {
    for other in ["upstream", "split", "redirect", "respond"] {
        words.remove(other);
    }
    words.insert(field.into(), value);
}

fn put_edits(into: &mut Map<String, Json>, field: &str, edits: Edits) {
    let mut made = Map::new();
    if !edits.set.is_empty() {
        made.insert("set".into(), json!(edits.set));
    }
    if !edits.add.is_empty() {
        made.insert("add".into(), json!(edits.add));
    }
    if !edits.remove.is_empty() {
        made.insert("remove".into(), json!(edits.remove));
    }
    if !made.is_empty() {
        into.insert(field.into(), Json::Object(made));
    }
}
