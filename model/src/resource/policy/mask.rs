//! Policies that hide values in answers from all who are not to see them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    super::{check, word::word_enum},
    payload::{INSPECTED_BYTES_DEFAULT, size},
    *,
};
use crate::units::Size;

const FIELDS_MAX: usize = 64;
const HEADERS_MAX: usize = 32;
const POINTER_BYTES_MAX: usize = 256;
/// From an answer's root to a value.
const STEPS_MAX: usize = 32;
/// Any one step of a pointer, and, as its first one, any number of them.
pub(crate) const ANY_STEP: &str = "*";
pub(crate) const ANY_DEPTH: &str = "**";

word_enum!(
    /// What stands in the place of a value; what hides more is greater.
    Veil {
        /// The last four characters of a text or number of at least eight, behind `****`.
        Last4 = "last4",
        /// `"***"`
        Stars = "stars",
        Null = "null",
        /// Nothing: the member or element is gone.
        Remove = "remove",
    }
);

word_enum!(
    /// What a value looks like, wherever it stands.
    PersonalClass {
        /// A number of a payment card, with its check digit (ISO/IEC 7812).
        Card = "card",
        /// An account's number, with its check digits (ISO 13616).
        Iban = "iban",
        Email = "email",
    }
);

/// What of answers is hidden, in JSON and in fields of heads and trailers, and from whom it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskPolicy {
    pub fields: Vec<MaskedField>,
    pub patterns: Vec<MaskedPattern>,
    /// Where nothing else is said, bodies pass as they come, whatever they are.
    pub headers: Vec<MaskedHeader>,
    pub unless: MaskExemption,
    /// What is read of an answer, and what it may unpack into; larger ones are refused.
    pub body_max: Size,
    /// Answers that are no JSON.
    pub other_types: Tolerance,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedField {
    /// RFC 6901; `*` is any one step, `**` as the first one any number of them.
    pub pointer: String,
    #[serde(default = "stars")]
    pub with: Veil,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedPattern {
    pub class: PersonalClass,
    /// Stars or the last four.
    #[serde(default = "stars")]
    pub with: Veil,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedHeader {
    /// In lower case.
    pub name: String,
    /// Stars, the last four, or nothing at all.
    #[serde(default = "stars")]
    pub with: Veil,
}

/// Callers who are in one of these groups, or have one of these scopes. Empty: nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct MaskExemption {
    pub groups: Vec<String>,
    pub scopes_any: Vec<String>,
}

fn stars() -> Veil {
    Veil::Stars
}

impl Default for MaskPolicy {
    fn default() -> Self {
        Self {
            fields: Vec::new(),
            patterns: Vec::new(),
            headers: Vec::new(),
            unless: MaskExemption::default(),
            body_max: INSPECTED_BYTES_DEFAULT,
            other_types: Tolerance::Refuse,
        }
    }
}

impl MaskPolicy {
    pub fn checked(mut self) -> Result<Self, Invalid> {
        if !self.looks_inside() && self.headers.is_empty() {
            let allowed = "what is hidden: fields, patterns or headers";
            return Err(Invalid::field("fields").found("nothing").allowed(allowed));
        }
        check::count("headers", self.headers.len(), HEADERS_MAX)?;
        for (place, it) in self.headers.iter_mut().enumerate() {
            it.name = check::edited_header_name(&format!("headers[{place}].name"), &it.name)?;
            if it.with == Veil::Null {
                let field = format!("headers[{place}].with");
                return Err(Invalid::field(field).found(it.with.word()).allowed("stars, last4 or remove"));
            }
        }
        let names: Vec<&str> = self.headers.iter().map(|it| &*it.name).collect();
        check::once("headers", &names, |it| (*it).to_owned())?;
        check::count("fields", self.fields.len(), FIELDS_MAX)?;
        for (place, it) in self.fields.iter().enumerate() {
            it.check().map_err(|invalid| invalid.under(format!("fields[{place}]")))?;
        }
        let pointers: Vec<&str> = self.fields.iter().map(|it| &*it.pointer).collect();
        check::once("fields", &pointers, |it| (*it).to_owned())?;
        let classes: Vec<PersonalClass> = self.patterns.iter().map(|it| it.class).collect();
        check::once("patterns", &classes, |it| it.word().to_owned())?;
        for (place, it) in self.patterns.iter().enumerate() {
            if !matches!(it.with, Veil::Stars | Veil::Last4) {
                let field = format!("patterns[{place}].with");
                return Err(Invalid::field(field).found(it.with.word()).allowed("stars or last4"));
            }
        }
        check::tags("unless.groups", &self.unless.groups, check::CONDITIONS_MAX)?;
        check::tags("unless.scopes_any", &self.unless.scopes_any, check::CONDITIONS_MAX)?;
        size("body_max", self.body_max)?;
        Ok(self)
    }

    /// Whether bodies have to be read.
    pub fn looks_inside(&self) -> bool {
        !self.fields.is_empty() || !self.patterns.is_empty()
    }
}

impl MaskedField {
    fn check(&self) -> Result<(), Invalid> {
        check::length("pointer", &self.pointer, POINTER_BYTES_MAX)?;
        let allowed =
            |allowed: String| Err(Invalid::field("pointer").found(format!("{:?}", self.pointer)).allowed(allowed));
        if !self.pointer.starts_with('/') {
            return allowed("a pointer that begins with /, such as /customers/*/iban".into());
        }
        let steps: Vec<_> = self.steps().collect();
        if steps.len() > STEPS_MAX {
            return allowed(format!("{STEPS_MAX} steps"));
        }
        if steps.iter().skip(1).any(|it| it == ANY_DEPTH) || steps == [ANY_DEPTH] {
            return allowed("** as the first of several steps".into());
        }
        Ok(())
    }

    /// Unescaped.
    pub fn steps(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.pointer.split('/').skip(1).map(|step| match step.contains('~') {
            true => Cow::Owned(step.replace("~1", "/").replace("~0", "~")),
            false => Cow::Borrowed(step),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::Kind;

    #[test]
    fn mistakes_name_their_place() {
        let policy = |words: serde_json::Value| Kind::Policy.parse(json!({ "name": "p", "mask": words }));
        let shown = serde_json::to_value(policy(json!({ "fields": [{ "pointer": "/a" }] })).unwrap()).unwrap();
        let expected = json!({
            "fields": [{ "pointer": "/a", "with": "stars" }], "patterns": [], "headers": [],
            "unless": { "groups": [], "scopes_any": [] }, "body_max": "1MiB", "other_types": "refuse",
        });
        assert_eq!(shown["mask"], expected);
        for (words, mention) in [
            (json!({}), "mask.fields: found nothing"),
            (json!({ "fields": [{ "pointer": "iban" }] }), "mask.fields[0].pointer: found \"iban\""),
            (json!({ "fields": [{ "pointer": "/a/**/b" }] }), "** as the first"),
            (json!({ "fields": [{ "pointer": "/**" }] }), "** as the first"),
            (json!({ "fields": [{ "pointer": "/a".repeat(33) }] }), "32 steps"),
            (json!({ "fields": [{ "pointer": "/a" }, { "pointer": "/a", "with": "null" }] }), "mask.fields"),
            (json!({ "fields": [{ "pointer": "/a", "with": "hash" }] }), "hash"),
            (json!({ "patterns": [{ "class": "card", "with": "remove" }] }), "mask.patterns[0].with: found remove"),
            (json!({ "patterns": [{ "class": "card" }], "unless": { "groups": [""] } }), "mask.unless.groups"),
            (json!({ "patterns": [{ "class": "card" }], "body_max": "17MiB" }), "mask.body_max"),
            (json!({ "headers": [{ "name": "a b" }] }), "mask.headers[0].name: found \"a b\""),
            (json!({ "headers": [{ "name": "Content-Length" }] }), "mask.headers[0].name: found content-length"),
            (json!({ "headers": [{ "name": "x", "with": "null" }] }), "mask.headers[0].with: found null"),
            (json!({ "headers": [{ "name": "X-A" }, { "name": "x-a" }] }), "mask.headers[1]"),
        ] {
            let error = policy(words).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
    }
}
