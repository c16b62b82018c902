//! Versions of an API, as policies of the routes that serve them: how each lives and dies, in the open.

use serde::{Deserialize, Serialize};

use super::super::{Name, check, word::word_enum};
use crate::{
    invalid::Invalid,
    units::{MOMENT_MAX, Moment},
};

/// Windows of one version.
pub const BROWNOUTS_MAX: usize = 64;
const GROUPS_MAX: usize = 64;
const VERSION_BYTES_MAX: usize = 63;
const URL_BYTES_MAX: usize = 2 << 10;

word_enum!(VersionState {
    /// Serves those in `preview_groups` alone; others get 404, behind the route's `auth`.
    Draft = "draft",
    Published = "published",
    /// Serves, and says that it will not for ever (RFC 9745).
    Deprecated = "deprecated",
    /// Serves no more: 410.
    Retired = "retired",
});

/// One version of an API: a product's name, and how far its life is. Its routes are those that have the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionPolicy {
    pub api: Name,
    pub version: String,
    #[serde(default = "VersionPolicy::state")]
    pub state: VersionState,
    /// Of consumers. Who may call a draft.
    #[serde(default)]
    pub preview_groups: Vec<String>,
    /// What `Deprecation` says (RFC 9745 2.1); may lie ahead.
    #[serde(default)]
    pub deprecated_at: Option<Moment>,
    /// What `Sunset` says (RFC 8594 3); from then on it is retired.
    #[serde(default)]
    pub sunset: Option<Moment>,
    /// The version to go to.
    #[serde(default)]
    pub successor: String,
    /// Where that is: `Link` with rel="successor-version" (RFC 5829 3.4).
    #[serde(default)]
    pub successor_url: String,
    /// What to know of the deprecation: `Link` with rel="deprecation" (RFC 9745 3).
    #[serde(default)]
    pub deprecation_url: String,
    /// What to know of the end: `Link` with rel="sunset" (RFC 8594 6).
    #[serde(default)]
    pub sunset_url: String,
    #[serde(default)]
    pub brownouts: Vec<Brownout>,
}

/// A window in which a deprecated version answers so on purpose, so that its callers notice while it can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Brownout {
    pub start: Moment,
    /// The first moment behind it.
    pub end: Moment,
    /// 410 or 503.
    #[serde(default = "Brownout::status")]
    pub status: u16,
}

impl VersionPolicy {
    fn state() -> VersionState {
        VersionState::Published
    }

    pub fn checked(self) -> Result<Self, Invalid> {
        if self.version.is_empty() {
            return Err(Invalid::field("version").found("nothing").allowed("a word such as v1"));
        }
        for (field, text) in [("version", &self.version), ("successor", &self.successor)] {
            check::length(field, text, VERSION_BYTES_MAX)?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if !text.bytes().all(plain) {
                return Err(Invalid::field(field).found(format!("{text:?}")).allowed("letters, digits and . _ -"));
            }
        }
        if self.successor == self.version {
            let allowed = format!("another version than {:?}", self.version);
            return Err(Invalid::field("successor").found(format!("{:?}", self.successor)).allowed(allowed));
        }
        check::count("preview_groups", self.preview_groups.len(), GROUPS_MAX)?;
        check::once("preview_groups", &self.preview_groups, Clone::clone)?;
        for (field, text) in [
            ("successor_url", &self.successor_url),
            ("deprecation_url", &self.deprecation_url),
            ("sunset_url", &self.sunset_url),
        ] {
            link(field, text)?;
        }
        let deprecated = self.state == VersionState::Deprecated;
        if deprecated && self.deprecated_at.is_none() {
            let allowed = "since when it is deprecated, such as 2026-06-01T00:00:00Z; it may lie ahead";
            return Err(Invalid::field("deprecated_at").found("nothing").allowed(allowed));
        }
        for (field, at) in [("deprecated_at", self.deprecated_at), ("sunset", self.sunset)] {
            at.map_or(Ok(()), |at| in_range(field, at))?;
        }
        if let (Some(deprecated), Some(sunset)) = (self.deprecated_at, self.sunset)
            && sunset < deprecated
        {
            // RFC 9745 4.
            let allowed = format!("no moment before deprecated_at, {deprecated}");
            return Err(Invalid::field("sunset").found(sunset).allowed(allowed));
        }
        check::count("brownouts", self.brownouts.len(), BROWNOUTS_MAX)?;
        if !deprecated && !self.brownouts.is_empty() {
            let allowed = format!("none, in state {}: they are for deprecated versions", self.state.word());
            return Err(Invalid::field("brownouts").found(self.brownouts.len()).allowed(allowed));
        }
        for (place, it) in self.brownouts.iter().enumerate() {
            it.check().map_err(|invalid| invalid.under(format!("brownouts[{place}]")))?;
        }
        Ok(self)
    }
}

impl Brownout {
    fn status() -> u16 {
        503
    }

    fn check(&self) -> Result<(), Invalid> {
        in_range("end", self.end)?;
        if self.end <= self.start {
            return Err(Invalid::field("end")
                .found(self.end)
                .allowed(format!("a moment behind start, {}", self.start)));
        }
        match self.status {
            410 | 503 => Ok(()),
            other => Err(Invalid::field("status").found(other).allowed("410 or 503")),
        }
    }
}

/// The words of a moment are; numbers may come by the API.
fn in_range(field: &str, at: Moment) -> Result<(), Invalid> {
    match at <= MOMENT_MAX {
        true => Ok(()),
        false => {
            let found = format!("{} ms since 1970", at.0);
            Err(Invalid::field(field).found(found).allowed(format!("no moment behind {MOMENT_MAX}")))
        }
    }
}

/// A reference that can stand between the angle brackets of Link (RFC 8288 3), and in JSON as it is.
fn link(field: &str, text: &str) -> Result<(), Invalid> {
    check::length(field, text, URL_BYTES_MAX)?;
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'\\');
    let is_one =
        text.is_empty() || text.starts_with('/') || text.starts_with("https://") || text.starts_with("http://");
    match is_one && text.bytes().all(fits) {
        true => Ok(()),
        false => {
            let allowed = "a URL such as https://api.acme.test/v2, or a path; characters beyond ASCII in percent codes";
            Err(Invalid::field(field).found(format!("{text:?}")).allowed(allowed))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::Kind;

    #[test]
    fn no_moment_lies_behind_the_last_one() {
        let behind = Moment(MOMENT_MAX.0 + 1);
        let policy = |sunset, brownouts, state: &str| {
            let words =
                json!({ "api": "orders", "version": "v1", "state": state, "deprecated_at": "2026-01-01T00:00:00Z" });
            let words: VersionPolicy = serde_json::from_value(words).unwrap();
            VersionPolicy { sunset, brownouts, ..words }.checked()
        };
        let brownout = Brownout { start: Moment(0), end: behind, status: 503 };
        for (policy, field) in [
            (policy(Some(behind), Vec::new(), "published"), "sunset"),
            (policy(None, vec![brownout], "deprecated"), "brownouts[0].end"),
        ] {
            assert!(policy.unwrap_err().to_string().contains(field), "{field}");
        }
        assert!(policy(Some(MOMENT_MAX), Vec::new(), "published").is_ok());
    }

    #[test]
    fn mistakes_name_their_place() {
        let policy = |rest: serde_json::Value| {
            let mut words = json!({ "api": "orders", "version": "v1" });
            words.as_object_mut().unwrap().append(&mut rest.as_object().unwrap().clone());
            Kind::Policy.parse(json!({ "name": "p", "version": words }))
        };
        let shown = serde_json::to_value(policy(json!({})).unwrap()).unwrap();
        let expected = json!({
            "api": "orders", "version": "v1", "state": "published", "preview_groups": [], "deprecated_at": null,
            "sunset": null, "successor": "", "successor_url": "", "deprecation_url": "", "sunset_url": "",
            "brownouts": [],
        });
        assert_eq!(shown["version"], expected);
        let brownout = |it: serde_json::Value| json!({ "state": "deprecated", "deprecated_at": "2026-01-01T00:00:00Z", "brownouts": [it] });
        for (words, mention) in [
            (json!({ "version": "" }), "version.version: found nothing"),
            (json!({ "version": "v 1" }), "version.version: found \"v 1\"; allowed: letters"),
            (json!({ "successor": "v1" }), "version.successor: found \"v1\"; allowed: another version"),
            (json!({ "state": "dead" }), "dead"),
            (json!({ "state": "deprecated" }), "version.deprecated_at: found nothing"),
            (
                json!({ "deprecated_at": "2026-02-01T00:00:00Z", "sunset": "2026-01-01T00:00:00Z" }),
                "version.sunset: found 2026-01-01T00:00:00Z; allowed: no moment before deprecated_at",
            ),
            (json!({ "successor_url": "v2>; rel=x" }), "version.successor_url: found \"v2>; rel=x\""),
            (json!({ "sunset_url": "javascript:1" }), "version.sunset_url"),
            (
                json!({ "brownouts": [{ "start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z" }] }),
                "version.brownouts: found 1; allowed: none, in state published",
            ),
            (
                brownout(json!({ "start": "2026-01-02T00:00:00Z", "end": "2026-01-02T00:00:00Z" })),
                "version.brownouts[0].end: found 2026-01-02T00:00:00Z",
            ),
            (
                brownout(json!({ "start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z", "status": 500 })),
                "version.brownouts[0].status: found 500; allowed: 410 or 503",
            ),
        ] {
            let error = policy(words).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
    }
}
