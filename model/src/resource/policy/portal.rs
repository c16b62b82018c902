//! What developers are shown of APIs, and may do for themselves, on a route with the receiver `portal`.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::super::{Name, check};
use crate::{invalid::Invalid, units::Span};

const APIS_MAX: usize = 256;
const SCOPES_MAX: usize = 64;
const SCOPE_BYTES_MAX: usize = 128;
const TITLE_BYTES_MAX: usize = 128;
/// Good keys of one consumer.
pub const PORTAL_KEYS_MAX: u32 = 100;
const EXPIRES_MIN: Span = Span::secs(60);
const EXPIRES_MAX: Span = Span::secs(10 * 365 * 86_400);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalPolicy {
    pub title: String,
    /// Of policies of kind `version`. Empty: all that have the same owner as this policy.
    pub apis: Vec<Name>,
    /// None: nobody makes keys there.
    pub keys: Option<PortalKeys>,
}

/// What people may make for the consumer that they are signed in as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalKeys {
    /// Good ones of a consumer at a time, whoever made them.
    pub max: NonZeroU32,
    /// Those to choose from.
    pub scopes: Vec<String>,
    /// How long a key is good.
    pub expires: Span,
}

impl Default for PortalPolicy {
    fn default() -> Self {
        Self { title: "APIs".to_owned(), apis: Vec::new(), keys: None }
    }
}

impl Default for PortalKeys {
    fn default() -> Self {
        let max = const { NonZeroU32::new(5).expect("it is not 0") };
        Self { max, scopes: Vec::new(), expires: Span::secs(90 * 86_400) }
    }
}

impl PortalPolicy {
    pub fn checked(self) -> Result<Self, Invalid> {
        if self.title.trim().is_empty() || self.title.chars().any(char::is_control) {
            let allowed = "a text such as Acme APIs, without line breaks";
            return Err(Invalid::field("title").found(format!("{:?}", self.title)).allowed(allowed));
        }
        check::length("title", &self.title, TITLE_BYTES_MAX)?;
        check::count("apis", self.apis.len(), APIS_MAX)?;
        check::once("apis", &self.apis, Name::to_string)?;
        if let Some(keys) = &self.keys {
            keys.check().map_err(|invalid| invalid.under("keys"))?;
        }
        Ok(self)
    }
}

impl PortalKeys {
    fn check(&self) -> Result<(), Invalid> {
        check::number("max", self.max.get(), 1, PORTAL_KEYS_MAX)?;
        check::count("scopes", self.scopes.len(), SCOPES_MAX)?;
        for (place, scope) in self.scopes.iter().enumerate() {
            let field = format!("scopes[{place}]");
            check::length(&field, scope, SCOPE_BYTES_MAX)?;
            // RFC 6749 3.3.
            if scope.is_empty() || !scope.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\')) {
                let allowed = "a word such as orders:read";
                return Err(Invalid::field(field).found(format!("{scope:?}")).allowed(allowed));
            }
        }
        check::once("scopes", &self.scopes, Clone::clone)?;
        check::span_up_to("expires", self.expires, EXPIRES_MIN, EXPIRES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::Kind;

    #[test]
    fn mistakes_name_their_place() {
        let portal = |words: serde_json::Value| Kind::Policy.parse(json!({ "name": "p", "portal": words }));
        let shown = serde_json::to_value(portal(json!({ "keys": {} })).unwrap()).unwrap();
        let expected = json!({ "title": "APIs", "apis": [], "keys": { "max": 5, "scopes": [], "expires": "90d" } });
        assert_eq!(shown["portal"], expected);
        assert_eq!(portal(json!({})).unwrap().level(), 6);
        for (words, mention) in [
            (json!({ "title": " " }), "portal.title: found \" \""),
            (json!({ "title": "a\nb" }), "portal.title"),
            (json!({ "title": "x".repeat(129) }), "portal.title"),
            (json!({ "apis": ["a", "a"] }), "portal.apis[1]"),
            (json!({ "keys": { "max": 0 } }), "nonzero"),
            (json!({ "keys": { "max": 101 } }), "portal.keys.max: found 101"),
            (json!({ "keys": { "scopes": ["a", ""] } }), "portal.keys.scopes[1]: found \"\""),
            (json!({ "keys": { "scopes": ["a b"] } }), "portal.keys.scopes[0]: found \"a b\""),
            (json!({ "keys": { "scopes": ["a", "a"] } }), "portal.keys.scopes[1]"),
            (json!({ "keys": { "expires": "1s" } }), "portal.keys.expires: found 1s"),
            (json!({ "key": {} }), "unknown field `key`"),
        ] {
            let error = portal(words).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
    }
}
