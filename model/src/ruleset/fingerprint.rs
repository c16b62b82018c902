//! When two routes take the same requests with the same precedence: then one of them would never be asked.

use crate::{
    digest::Digest,
    resource::{FieldMatch, FieldTest, HostPattern, Kind, Name, PathPattern, Resource, Resources, Route},
};

/// Equal for two routes with the same match set and priority, in whatever order their lists are. No path and the prefix
/// `/` are the same set.
pub fn match_fingerprint(route: &Route) -> Digest {
    let matches = &route.matches;
    let mut out = Bytes::default();
    out.number(i64::from(route.priority));
    out.list(matches.hosts.iter().map(HostPattern::to_string).collect());
    let (form, path) = match &matches.path {
        PathPattern::Any => ("prefix", "/".to_owned()),
        PathPattern::Prefix(path) => ("prefix", path.clone()),
        PathPattern::Exact(path) => ("exact", path.clone()),
        PathPattern::Template(path) => ("template", nameless(path)),
        PathPattern::Regex(path) => ("regex", path.clone()),
    };
    out.text(form);
    out.text(&path);
    out.list(matches.methods.clone());
    for fields in [&matches.headers, &matches.query, &matches.cookies] {
        out.list(fields.iter().map(field).collect());
    }
    out.list(matches.client_cidrs.iter().map(ipnet::IpNet::to_string).collect());
    out.list(matches.sni.iter().map(HostPattern::to_string).collect());
    out.list(matches.listeners.iter().map(Name::to_string).collect());
    Digest::of(&out.0)
}

/// Another route with the same match set and priority, if any. Looks at every route: for a set of changes, compare
/// `match_fingerprint`s in one pass.
pub fn same_match(resources: &Resources, route: &Route) -> Option<Name> {
    let fingerprint = match_fingerprint(route);
    let others = resources.iter().filter(|(key, _)| key.kind == Kind::Route && key.name != route.name);
    let mut same = others.filter(|(_, stored)| match &stored.resource {
        Resource::Route(other) => other.priority == route.priority && match_fingerprint(other) == fingerprint,
        _ => false,
    });
    same.next().map(|(key, _)| key.name.clone())
}

/// `/orders/{id}` and `/orders/{order}` take the same paths.
fn nameless(template: &str) -> String {
    let segments = template.split('/').map(|segment| match segment.starts_with('{') {
        true => "{}",
        false => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

fn field(it: &FieldMatch) -> String {
    let mut out = Bytes::default();
    out.text(&it.name);
    match &it.test {
        FieldTest::Exact(text) => ["exact", text].map(|text| out.text(text)),
        FieldTest::Regex(text) => ["regex", text].map(|text| out.text(text)),
        FieldTest::Present => ["present", ""].map(|text| out.text(text)),
        FieldTest::Absent => ["absent", ""].map(|text| out.text(text)),
    };
    data_encoding::HEXLOWER.encode(&out.0)
}

/// Lengths before texts, so that no two different sets give the same bytes.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn number(&mut self, number: i64) {
        self.0.extend(number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as i64);
        self.0.extend(text.as_bytes());
    }

    fn list(&mut self, mut entries: Vec<String>) {
        entries.sort();
        entries.dedup();
        self.number(entries.len() as i64);
        entries.iter().for_each(|entry| self.text(entry));
    }
}
