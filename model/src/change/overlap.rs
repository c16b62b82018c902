//! Whether two sets of hosts and paths have a request in common, and whether one lies within the other. Where that
//! cannot be told (a regular expression), they have.

use crate::{
    invalid::Invalid,
    resource::{CertificateHost, HostPattern, Match, PathPattern},
};

/// How many pairs of patterns one change may have compared: apply runs on every node while nothing else does.
pub const PAIRS_MAX: usize = 50_000_000;

/// The comparisons that are left. Counted, not timed: apply decides the same on every node.
pub struct Pairs(usize);

impl Default for Pairs {
    fn default() -> Self {
        Self(PAIRS_MAX)
    }
}

impl Pairs {
    pub fn take(&mut self, a: usize, b: usize) -> Result<(), Invalid> {
        self.0 = self.0.checked_sub(a.max(1).saturating_mul(b.max(1))).ok_or_else(|| {
            let allowed = format!("{PAIRS_MAX} comparisons with what others own: apply it in parts");
            Invalid::field("match.hosts").found("too many hosts in one change").allowed(allowed)
        })?;
        Ok(())
    }

    /// Whether some host is one of both; an empty list is every host.
    pub fn hosts_meet(&mut self, a: &[HostPattern], b: &[HostPattern]) -> Result<bool, Invalid> {
        self.take(a.len(), b.len())?;
        let meet = |a: &HostPattern| b.iter().any(|b| host_within(a, b) || host_within(b, a));
        Ok(a.is_empty() || b.is_empty() || a.iter().any(meet))
    }

    /// The first of the hosts that is not within `outer`, which is not empty.
    pub fn stray<'h>(
        &mut self,
        hosts: &'h [HostPattern],
        outer: &[HostPattern],
    ) -> Result<Option<(usize, &'h HostPattern)>, Invalid> {
        self.take(hosts.len(), outer.len())?;
        let within = |host: &HostPattern| outer.iter().any(|outer| host_within(host, outer));
        Ok(hosts.iter().enumerate().find(|(_, host)| !within(host)))
    }
}

/// The server names that somebody else's route is for: one without hosts may be for names of TLS alone. Empty: all. Of the
/// route that is held against it `hosts` count: a connection that was opened for one name may carry requests for others.
pub fn names(matches: &Match) -> &[HostPattern] {
    if matches.hosts.is_empty() { &matches.sni } else { &matches.hosts }
}

/// As a route's; a certificate's wildcard is one label, here it is taken for more.
pub fn certificate_host(host: &CertificateHost) -> HostPattern {
    match host {
        CertificateHost::Exact(host) => HostPattern::Exact(host.clone()),
        CertificateHost::Wildcard(parent) => HostPattern::Suffix(format!(".{parent}")),
    }
}

fn host_within(inner: &HostPattern, outer: &HostPattern) -> bool {
    match (inner, outer) {
        (HostPattern::Exact(inner), outer) => outer.takes(inner),
        (HostPattern::Suffix(inner), HostPattern::Suffix(outer)) => inner.ends_with(outer.as_str()),
        (HostPattern::Suffix(_), HostPattern::Exact(_)) => false,
    }
}

/// `/a` covers `/a` and `/a/b`, not `/ab`; `/` covers all.
fn covers(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether every path that it takes begins with one of the prefixes; no prefixes: all do.
pub fn path_within(path: &PathPattern, prefixes: &[String]) -> bool {
    let all = |prefix: &String| prefix == "/";
    if prefixes.is_empty() || prefixes.iter().any(all) {
        return true;
    }
    match path {
        PathPattern::Any | PathPattern::Regex(_) => false,
        // A parameter is no literal: no prefix covers one.
        PathPattern::Prefix(text) | PathPattern::Exact(text) | PathPattern::Template(text) => {
            prefixes.iter().any(|prefix| covers(prefix, text))
        }
    }
}

/// Whether some path is taken by both.
pub fn paths_meet(a: &PathPattern, b: &PathPattern) -> bool {
    use PathPattern::{Any, Exact, Prefix, Regex, Template};
    match (a, b) {
        (Any | Regex(_), _) | (_, Any | Regex(_)) => true,
        (Prefix(a), Prefix(b)) => covers(a, b) || covers(b, a),
        (Exact(a), Exact(b)) => a == b,
        (Prefix(prefix), Exact(path)) | (Exact(path), Prefix(prefix)) => covers(prefix, path),
        (Template(template), Exact(other) | Template(other)) | (Exact(other), Template(template)) => {
            segments(template).count() == segments(other).count() && heads_agree(template, other)
        }
        (Template(template), Prefix(prefix)) | (Prefix(prefix), Template(template)) => {
            prefix == "/" || (segments(prefix).count() <= segments(template).count() && heads_agree(template, prefix))
        }
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// As far as both go. Templates have `{name}` for whole segments.
fn heads_agree(a: &str, b: &str) -> bool {
    let is_parameter = |segment: &str| segment.starts_with('{');
    segments(a).zip(segments(b)).all(|(a, b)| a == b || is_parameter(a) || is_parameter(b))
}

/// Whether a path that it takes begins with one of the prefixes; no prefixes: all do.
pub fn path_meets(path: &PathPattern, prefixes: &[String]) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| paths_meet(path, &PathPattern::Prefix(prefix.clone())))
}

#[cfg(test)]
mod tests {
    use super::{PathPattern::*, *};

    fn hosts(texts: &[&str]) -> Vec<HostPattern> {
        let host = |text: &&str| match text.strip_prefix('*') {
            Some(suffix) => HostPattern::Suffix(suffix.into()),
            None => HostPattern::Exact((*text).into()),
        };
        texts.iter().map(host).collect()
    }

    #[test]
    fn hosts_meet_where_a_name_is_of_both() {
        for (a, b, expected) in [
            (&["a.t"][..], &["a.t"][..], true),
            (&["a.t"], &["b.t"], false),
            (&["x.a.t"], &["*.a.t"], true),
            (&["a.t"], &["*.a.t"], false),
            (&["*.x.a.t"], &["*.a.t"], true),
            (&["*.a.t"], &["*.xa.t"], false),
            (&["b.t", "*.t"], &["q.z.t"], true),
            (&[], &["a.t"], true),
        ] {
            let (a, b) = (hosts(a), hosts(b));
            assert_eq!(Pairs::default().hosts_meet(&a, &b).unwrap(), expected, "{a:?} {b:?}");
            assert_eq!(Pairs::default().hosts_meet(&b, &a).unwrap(), expected, "{b:?} {a:?}");
        }
    }

    #[test]
    fn a_host_strays_that_an_owned_pattern_does_not_cover_whole() {
        for (host, owned, strays) in [
            ("a.t", &["a.t"][..], false),
            ("x.a.t", &["*.a.t"], false),
            ("*.x.a.t", &["*.a.t"], false),
            ("*.a.t", &["*.a.t"], false),
            ("*.a.t", &["x.a.t"], true),
            ("*.t", &["*.a.t"], true),
            ("a.t", &["*.a.t"], true),
            ("xa.t", &["*.a.t", "a.t"], true),
        ] {
            let found = Pairs::default().stray(&hosts(&[host]), &hosts(owned)).unwrap().is_some();
            assert_eq!(found, strays, "{host} {owned:?}");
        }
    }

    #[test]
    fn paths_meet_where_a_path_is_of_both() {
        let of = |text: &str| match text.split_once(' ').unwrap() {
            ("prefix", text) => Prefix(text.into()),
            ("exact", text) => Exact(text.into()),
            ("template", text) => Template(text.into()),
            ("regex", text) => Regex(text.into()),
            _ => Any,
        };
        for (a, b, expected) in [
            ("prefix /a", "prefix /a/b", true),
            ("prefix /a", "prefix /ab", false),
            ("prefix /", "exact /x", true),
            ("exact /a", "exact /a/", false),
            ("prefix /a", "exact /a", true),
            ("prefix /a/b", "exact /a", false),
            ("template /{x}/b", "prefix /a", true),
            ("template /{x}/b", "prefix /a/b", true),
            ("template /{x}/b", "prefix /a/c", false),
            ("template /{x}", "prefix /a/c", false),
            ("template /{x}", "prefix /", true),
            ("template /{x}/b", "exact /a/b", true),
            ("template /{x}/b", "exact /a/b/c", false),
            ("template /{x}/b", "template /a/{y}", true),
            ("template /{x}/b", "template /a/{y}/c", false),
            ("regex /z", "exact /a", true),
            ("any -", "template /a/{x}", true),
        ] {
            let (one, other) = (of(a), of(b));
            assert_eq!(paths_meet(&one, &other), expected, "{a} {b}");
            assert_eq!(paths_meet(&other, &one), expected, "{b} {a}");
        }
        let owned = ["/shop".to_owned()];
        for (path, within) in [
            ("prefix /shop", true),
            ("exact /shop/x", true),
            ("template /shop/{id}", true),
            ("template /{x}/shop", false),
            ("prefix /shopping", false),
            ("prefix /", false),
            ("regex /shop/.*", false),
            ("any -", false),
        ] {
            assert_eq!(path_within(&of(path), &owned), within, "{path}");
            assert!(path_within(&of(path), &["/".to_owned()]) && path_within(&of(path), &[]), "{path}");
        }
    }
}
