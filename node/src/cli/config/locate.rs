//! From field paths, as the model and the server write them, to places in a file.

use quorumgate_model::{invalid::Invalid, resource::Kind};

use super::{
    check::start,
    tree::{Node, Place},
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
    let mut here = node;
    let mut place = start(node);
    for step in path.split(['.', '[', ']']).filter(|it| !it.is_empty()) {
        if let Some((_, value)) = here.field(step) {
            place = start(value);
            here = value;
        } else if let Some(item) = step.parse().ok().and_then(|at| here.item(at)) {
            place = start(item);
            here = item;
        } else {
            break;
        }
    }
    place
}

/// The complaint that serde carries as text: `match.hosts[0]: found "x"; allowed: …`.
pub fn from_text(text: &str) -> Invalid {
    let is_path = |it: &str| {
        !it.is_empty() && it.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.[]".contains(&b))
    };
    let (field, rest) = match text.split_once(": ") {
        Some((field, rest)) if is_path(field) => (field, rest),
        _ => ("", text),
    };
    let parts = rest.strip_prefix("found ").and_then(|rest| rest.split_once("; allowed: "));
    match parts {
        Some((found, allowed)) => Invalid::field(field).found(found).allowed(allowed),
        None => Invalid::field(field).allowed(rest),
    }
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
}
