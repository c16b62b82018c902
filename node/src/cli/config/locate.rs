//! From field paths, as the model and the server write them, to places in a file.

use quorumgate_model::{invalid::Invalid, resource::Kind};

use super::{
    check::start,
    tree::{Node, Place, Value},
};

/// `routes[3].match.path_regex` or `route/orders.match` into the kind, the position among its kind, and the rest.
pub fn split(field: &str, position: impl Fn(Kind, &str) -> Option<usize>) -> Option<(Kind, usize, &str)> {
    for kind in Kind::ALL {
        let after = field.strip_prefix(kind.list()).or_else(|| field.strip_prefix(kind.word()));
        let Some(after) = after else { continue };
        if let Some(inside) = after.strip_prefix('[') {
            let (number, rest) = inside.split_once(']')?;
            return Some((kind, number.parse().ok()?, rest));
        }
        let named = after.strip_prefix('/')?;
        // Names may have dots in them: the longest one that exists is meant.
        let ends = named.char_indices().filter(|(_, it)| *it == '.' || *it == '[').map(|(at, _)| at);
        let mut ends: Vec<usize> = ends.collect();
        ends.push(named.len());
        return ends.into_iter().rev().find_map(|end| Some((kind, position(kind, &named[..end])?, &named[end..])));
    }
    None
}

/// The place of the deepest part of the path that is written in the file.
pub fn walk(node: &Node, path: &str) -> Place {
    let (mut here, mut rest) = (node, path);
    while let Some((inner, left)) = step(here, rest) {
        (here, rest) = (inner, left);
    }
    start(here)
}

/// Into `[3]` of a list or `.name` of a map, and what is left of the path.
fn step<'a, 'p>(here: &'a Node, path: &'p str) -> Option<(&'a Node, &'p str)> {
    if let Some((number, left)) = path.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        return Some((here.item(number.parse().ok()?)?, left));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let Value::Map(fields) = &here.value else { return None };
    // Keys may have dots in them, as names of claims do: the longest one that fits is meant.
    let fitting = fields.iter().filter_map(|(key, value)| Some((key.text.len(), value, behind(path, &key.text)?)));
    fitting.max_by_key(|(bytes, ..)| *bytes).map(|(_, value, left)| (value, left))
}

/// What follows this key in the path. Names of header fields are told in lower case.
fn behind<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    let (head, left) = path.split_at_checked(key.len()).filter(|(head, _)| !head.is_empty())?;
    (head.eq_ignore_ascii_case(key) && (left.is_empty() || left.starts_with(['.', '[']))).then_some(left)
}

/// The complaint that serde carries as text: `match.hosts[0]: found "x"; allowed: …`.
pub fn from_text(text: &str) -> Invalid {
    let (field, rest) = with_found(text).or_else(|| without_found(text)).unwrap_or(("", text));
    let parts = rest.strip_prefix("found ").and_then(|rest| rest.split_once("; allowed: "));
    match parts {
        Some((found, allowed)) => Invalid::field(field).found(found).allowed(allowed),
        None => Invalid::field(field).allowed(rest),
    }
}

/// Where `found` follows there is a path, whatever keys of the operator's own are in it.
fn with_found(text: &str) -> Option<(&str, &str)> {
    let (field, _) = text.split_once(": found ").filter(|(field, _)| begins_as_ours(field))?;
    Some((field, &text[field.len() + 2..]))
}

/// Else it must not be taken for the beginning of a sentence.
fn without_found(text: &str) -> Option<(&str, &str)> {
    text.split_once(": ").filter(|(field, _)| begins_as_ours(field) && !field.contains(char::is_whitespace))
}

/// With the name of one of the form's fields, which have no other letters.
fn begins_as_ours(path: &str) -> bool {
    let first = path.split(['.', '[']).next().unwrap_or_default();
    !first.is_empty() && first.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_objects_by_number_or_by_name() {
        let names = ["orders", "orders.v2"];
        let position = |_: Kind, name: &str| names.iter().position(|it| *it == name);
        for (path, expected) in [
            ("routes[3].match.path_regex", Some((Kind::Route, 3, ".match.path_regex"))),
            ("routes/orders.match", Some((Kind::Route, 0, ".match"))),
            ("route/orders.v2.match", Some((Kind::Route, 1, ".match"))),
            ("upstreams[0]", Some((Kind::Upstream, 0, ""))),
            ("routes/missing", None),
            ("prune", None),
        ] {
            assert_eq!(split(path, position), expected, "{path}");
        }
    }

    #[test]
    fn complaints_keep_their_paths_whatever_keys_are_in_them() {
        let check = |text: &str, field: &str, found: &str| {
            let invalid = from_text(text);
            assert_eq!((invalid.field.as_str(), invalid.found.as_str()), (field, found), "{text}");
            assert_eq!(invalid.to_string(), text);
        };
        check("match.hosts[0]: found \"x\"; allowed: y", "match.hosts[0]", "\"x\"");
        check("headers.set.x-from: found \"a\\nb\"; allowed: visible", "headers.set.x-from", "\"a\\nb\"");
        check("headers.set.X-From: found 1; allowed: 2", "headers.set.X-From", "1");
        check("claims.https://a.test/x y: found 1; allowed: 2", "claims.https://a.test/x y", "1");
        check("labels.Team-A: it is missing", "labels.Team-A", "");
        check("invalid type: found it; allowed: not", "", "");
        check("a sentence: with a colon", "", "");
        check("Upper: found 1; allowed: 2", "", "");
    }

    #[test]
    fn keys_with_dots_capitals_and_spaces_are_found_in_the_file() {
        let text = "a:\n  x.y: 1\n  x: {y: 2}\n  X-From: 3\n  My Claim: [4, {z: 5}]\n";
        let node = super::super::tree::parse(text).unwrap().remove(0);
        for (path, line, column) in [
            ("a.x.y", 2, 8),
            (".a.x-from", 4, 11),
            ("a.My Claim[1].z", 5, 21),
            ("a.My Claim[7]", 5, 13),
            ("a.missing.x", 2, 3),
            ("", 1, 1),
        ] {
            let place = walk(&node, path);
            assert_eq!((place.line, place.column), (line, column), "{path}");
        }
    }
}
