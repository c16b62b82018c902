//! What the cluster has agreed to let go of its caches. The answers themselves are in no state: each node does it to its own.

use std::{fmt, sync::Arc};

use imbl::Vector;

use crate::{canonical, invalid::Invalid};

/// How many purges the state remembers; a node that has missed more lets go of everything.
pub const PURGES_MAX: usize = 256;
/// How much one purge may name.
pub const PURGE_TARGETS_MAX: usize = 100;
/// How long a URL or a tag may be, in bytes.
pub const PURGE_TARGET_BYTES_MAX: usize = 2_048;

/// Which answers go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeTarget {
    Everything,
    /// `api.acme.test/orders?x=1`: one URL, by whatever route, scheme and port it was asked for.
    Key(Arc<str>),
    /// `api.acme.test/orders/`: whatever begins so.
    Prefix(Arc<str>),
    /// A word of the answer's `Cache-Tag` or `Surrogate-Key`.
    Tag(Arc<str>),
}

impl PurgeTarget {
    /// With or without a scheme, a port and, of a host alone, its path.
    pub fn key(text: &str) -> Result<Self, Invalid> {
        let (host, target) = host_and_target("keys", text)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        // As requests for it are known by.
        let path = canonical::path(path, canonical::Slashes::Merge).map_err(|_| misfit("keys", text, KEY_ALLOWED))?;
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self::Key(format!("{host}{path}{query}").into()))
    }

    pub fn prefix(text: &str) -> Result<Self, Invalid> {
        let (host, target) = host_and_target("prefixes", text)?;
        Ok(Self::Prefix(format!("{host}{target}").into()))
    }

    pub fn tag(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=PURGE_TARGET_BYTES_MAX).contains(&text.len());
        match fits && text.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
            true => Ok(Self::Tag(text.into())),
            false => Err(misfit("tags", text, "one word of visible ASCII characters without a comma")),
        }
    }
}

const KEY_ALLOWED: &str = "host and path, such as api.acme.test/orders?x=1";

fn host_and_target<'a>(field: &'static str, text: &'a str) -> Result<(String, &'a str), Invalid> {
    let allowed = || misfit(field, text, KEY_ALLOWED);
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port),
        _ => (authority, ""),
    };
    let fits = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    let visible = target.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !fits || !visible || text.len() > PURGE_TARGET_BYTES_MAX || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(allowed());
    }
    Ok((host.to_ascii_lowercase(), if target.is_empty() { "/" } else { target }))
}

fn misfit(field: &'static str, text: &str, allowed: &'static str) -> Invalid {
    Invalid::field(field).found(format!("{text:?}")).allowed(allowed)
}

/// `key api.acme.test/orders`
impl fmt::Display for PurgeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Key(url) => write!(f, "key {url}"),
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
        }
    }
}

/// One command's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeEntry {
    /// Of the log entry that brought it.
    pub index: u64,
    pub targets: Arc<[PurgeTarget]>,
}

/// The newest ones, oldest first, at most `PURGES_MAX`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purges(Vector<Arc<PurgeEntry>>);

impl Purges {
    pub fn entries(&self) -> &Vector<Arc<PurgeEntry>> {
        &self.0
    }

    /// The index of the newest, 0 for none.
    pub fn newest(&self) -> u64 {
        self.0.back().map_or(0, |it| it.index)
    }

    /// Those since the index `seen`, oldest first; None: some of them may have been forgotten.
    pub fn after(&self, seen: u64) -> Option<impl Iterator<Item = &PurgeEntry>> {
        let forgot = self.0.len() >= PURGES_MAX && self.0.front().is_some_and(|first| first.index > seen);
        (!forgot).then(|| self.0.iter().map(|it| &**it).filter(move |it| it.index > seen))
    }

    /// Its index is above all others'.
    pub(crate) fn push(&mut self, entry: PurgeEntry) {
        assert!(entry.index > self.newest(), "purge {} came after {}", entry.index, self.newest());
        self.0.push_back(Arc::new(entry));
        if self.0.len() > PURGES_MAX {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_requests_are_known() {
        for (text, expected) in [
            ("api.test", "api.test/"),
            ("https://API.test:8443/a//b/../%7ec?x=%2f", "api.test/a/~c?x=%2f"),
            ("[::1]:80/a", "[::1]/a"),
            ("[::1]/a", "[::1]/a"),
        ] {
            assert_eq!(PurgeTarget::key(text).unwrap(), PurgeTarget::Key(expected.into()), "{text}");
        }
        assert_eq!(PurgeTarget::prefix("http://A.test/x%").unwrap(), PurgeTarget::Prefix("a.test/x%".into()));
        for wrong in ["", "/a", "a b/", "api.test/a b", "api.test/#a", "api.test:x/", "https://", "api.test/%00"] {
            assert_eq!(PurgeTarget::key(wrong).unwrap_err().field, "keys", "{wrong}");
        }
        for wrong in ["", "a b", "a,b", &"a".repeat(PURGE_TARGET_BYTES_MAX + 1)] {
            assert_eq!(PurgeTarget::tag(wrong).unwrap_err().field, "tags", "{wrong}");
        }
    }

    #[test]
    fn whoever_missed_more_than_is_remembered_is_told_so() {
        let mut purges = Purges::default();
        let tag: Arc<[PurgeTarget]> = [PurgeTarget::Everything].into();
        let after = |purges: &Purges, seen| purges.after(seen).map(|it| it.map(|it| it.index).collect::<Vec<_>>());
        for index in 1..=3 {
            purges.push(PurgeEntry { index, targets: tag.clone() });
        }
        assert_eq!((after(&purges, 0), after(&purges, 2)), (Some(vec![1, 2, 3]), Some(vec![3])));
        for index in 4..=2 + PURGES_MAX as u64 {
            purges.push(PurgeEntry { index, targets: tag.clone() });
        }
        assert_eq!((purges.entries().len(), after(&purges, 1)), (PURGES_MAX, None));
        assert_eq!(after(&purges, purges.newest()), Some(Vec::new()));
    }
}
