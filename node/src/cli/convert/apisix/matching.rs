//! Which requests a route takes: URIs, and conditions on variables of nginx.

use serde_json::{Map, Value as Json, json};

use crate::cli::{
    convert::{common, reader::Item},
    failure::Outcome,
};

/// A URI as they write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    Exact(String),
    /// `/a/*`
    Prefix(String),
    /// `/a*`, a prefix of characters.
    Characters(String),
    /// `/a/:id`, as `/a/{id}`.
    Template(String),
    /// With a * that is not at its end: what stands in front of that, or of a name.
    Unknown(String),
}

impl Uri {
    pub fn parse(text: &str) -> Self {
        let (head, is_open) = match text.strip_suffix('*') {
            Some(head) => (head, true),
            None => (text, false),
        };
        let has_names = head.split('/').any(|it| it.starts_with(':') && it.len() > 1);
        if head.contains('*') || (is_open && has_names) {
            let end = head.find('*').into_iter().chain(head.find("/:").map(|at| at + 1)).min();
            return Self::Unknown(head[..end.unwrap_or(head.len())].to_owned());
        }
        if has_names {
            let segments = head.split('/').map(|it| match it.strip_prefix(':') {
                Some(name) if !name.is_empty() => format!("{{{}}}", name.replace('-', "_")),
                _ => it.to_owned(),
            });
            return Self::Template(segments.collect::<Vec<_>>().join("/"));
        }
        match (is_open, head.strip_suffix('/')) {
            (false, _) => Self::Exact(text.to_owned()),
            (true, Some("")) => Self::Prefix("/".into()),
            (true, Some(prefix)) => Self::Prefix(prefix.to_owned()),
            (true, None) => Self::Characters(head.to_owned()),
        }
    }

    /// Its part of the order in which they ask: exact ones, then the longest.
    pub fn order(&self) -> [i64; 2] {
        match self {
            Self::Exact(_) => [2, 0],
            Self::Prefix(text) => [1, text.trim_end_matches('/').len() as i64 + 1],
            Self::Characters(text) => [1, text.len() as i64],
            Self::Template(text) => [1, text.find('{').unwrap_or(text.len()) as i64],
            Self::Unknown(text) => [1, text.len() as i64],
        }
    }
}

/// Adds conditions to a match. Err: what cannot be said here.
pub fn vars(list: &Item<'_>, matches: &mut Map<String, Json>) -> Outcome<Result<(), String>> {
    if !list.is_list() {
        return Err(list.wrong("a list of conditions"));
    }
    list.skip();
    for (number, it) in list.entries().iter().enumerate() {
        if !it.is_list() {
            let word = it.as_text()?;
            match (number, word.as_str()) {
                (0, "AND") => continue,
                _ => return Ok(Err(format!("conditions joined by {word}"))),
            }
        }
        let parts = it.entries();
        let [variable, operator, value] = parts.as_slice() else {
            return Ok(Err("a condition that is negated, or has other parts than three".into()));
        };
        if variable.is_list() || variable.is_map() {
            return Ok(Err("conditions within one another".into()));
        }
        let (variable, operator) = (variable.as_text()?, operator.as_text()?);
        let values = if value.is_list() { value.entries() } else { vec![value.clone()] };
        // Of what is no text: null, which is a field that is not there, say.
        let Ok(values) = values.iter().map(Item::as_text).collect::<Outcome<Vec<_>>>() else {
            return Ok(Err(format!("the condition [{variable}, {operator}, …]")));
        };
        if let Err(why) = condition(&variable, &operator, &values, matches) {
            return Ok(Err(why));
        }
    }
    Ok(Ok(()))
}

fn condition(variable: &str, operator: &str, values: &[String], matches: &mut Map<String, Json>) -> Result<(), String> {
    let unknown = || Err(format!("the condition [{variable}, {operator}, …]"));
    let mut add = |list: &str, name: &str, test: Option<Json>| match test {
        Some(mut test) => {
            test["name"] = json!(name);
            let list = matches.entry(list.to_owned()).or_insert_with(|| json!([]));
            list.as_array_mut().expect("made a list").push(test);
            Ok(())
        }
        None => Err(format!("the condition [{variable}, {operator}, …]")),
    };
    if let Some(name) = variable.strip_prefix("http_").filter(|it| *it != "host") {
        return add("headers", &name.replace('_', "-"), test(operator, values));
    }
    if let Some(name) = variable.strip_prefix("arg_") {
        return add("query", name, test(operator, values));
    }
    if let Some(name) = variable.strip_prefix("cookie_") {
        return add("cookies", name, test(operator, values));
    }
    let field = match (variable, operator) {
        ("request_method", "==" | "in" | "IN") => "methods",
        ("host" | "http_host", "==" | "in" | "IN") => "hosts",
        ("remote_addr", "==" | "in" | "IN" | "ipmatch") => "client_cidrs",
        _ => return unknown(),
    };
    // What was said of it elsewhere would have to hold too.
    if matches.contains_key(field) {
        return Err(format!("a condition on {variable} beside {field} of the route"));
    }
    let values: Vec<String> = match field {
        "client_cidrs" => values.iter().map(|it| network(it)).collect(),
        _ => values.to_vec(),
    };
    matches.insert(field.to_owned(), json!(values));
    Ok(())
}

fn test(operator: &str, values: &[String]) -> Option<Json> {
    match (operator, values) {
        ("==", [one]) => Some(json!({ "exact": one })),
        ("~~", [one]) => Some(json!({ "regex": common::anywhere(one) })),
        ("~*", [one]) => Some(json!({ "regex": format!("(?i){}", common::anywhere(one)) })),
        ("in" | "IN", [_, ..]) => {
            let all: Vec<String> = values.iter().map(|it| common::escaped(it)).collect();
            Some(json!({ "regex": all.join("|") }))
        }
        _ => None,
    }
}

/// An address is a network of one.
pub fn network(text: &str) -> String {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_ipv4() => format!("{address}/32"),
        Ok(address) => format!("{address}/128"),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_told_apart() {
        for (text, expected) in [
            ("/", Uri::Exact("/".into())),
            ("/a", Uri::Exact("/a".into())),
            ("/*", Uri::Prefix("/".into())),
            ("/a/*", Uri::Prefix("/a".into())),
            ("/a*", Uri::Characters("/a".into())),
            ("/a/:id/b", Uri::Template("/a/{id}/b".into())),
            ("/a/:user-id", Uri::Template("/a/{user_id}".into())),
            ("/a/*/b", Uri::Unknown("/a/".into())),
            ("/a/:id/*", Uri::Unknown("/a/".into())),
            ("/a*b*", Uri::Unknown("/a".into())),
        ] {
            assert_eq!(Uri::parse(text), expected, "{text}");
        }
    }
}
