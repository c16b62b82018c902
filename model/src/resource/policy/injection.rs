//! Policies that know attacks by what they look like.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    super::{check, word::word_enum},
    payload::{INSPECTED_BYTES_DEFAULT, size},
    *,
};
use crate::units::Size;

pub const THRESHOLD_MAX: u32 = 100;
const EXCEPTIONS_MAX: usize = 256;
const POINTER_BYTES_MAX: usize = 256;

word_enum!(InjectionClass {
    Sqli = "sqli",
    Xss = "xss",
    Traversal = "traversal",
    Command = "command",
    /// Addresses that the server behind must not call.
    Ssrf = "ssrf",
    Template = "template",
    Log4shell = "log4shell",
});

word_enum!(
    /// A part of a request.
    InspectedPlace {
        Path = "path",
        Query = "query",
        Header = "header",
        Cookie = "cookie",
        Body = "body",
    }
);

/// What in a request looks like an attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InjectionPolicy {
    pub mode: PolicyMode,
    /// The score from which a value is an attack.
    pub threshold: u32,
    /// What is looked for; empty: everything.
    pub classes: Vec<InjectionClass>,
    pub exceptions: Vec<InjectionException>,
    pub body_max: Size,
}

/// Where something that looks like an attack is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct InjectionException {
    /// None: any of them.
    #[serde(rename = "in")]
    pub place: Option<InspectedPlace>,
    /// RFC 6901, as the errors of a refusal have it; covers what is below. `*` is any one step.
    pub pointer: String,
    /// Empty: all.
    pub classes: Vec<InjectionClass>,
}

impl Default for InjectionPolicy {
    fn default() -> Self {
        Self {
            mode: PolicyMode::Detect,
            threshold: 5,
            classes: Vec::new(),
            exceptions: Vec::new(),
            body_max: INSPECTED_BYTES_DEFAULT,
        }
    }
}

impl InjectionPolicy {
    pub fn checked(self) -> Result<Self, Invalid> {
        check::number("threshold", self.threshold, 1, THRESHOLD_MAX)?;
        check::once("classes", &self.classes, |it| it.word().to_owned())?;
        check::count("exceptions", self.exceptions.len(), EXCEPTIONS_MAX)?;
        for (place, it) in self.exceptions.iter().enumerate() {
            let field = format!("exceptions[{place}].pointer");
            check::length(&field, &it.pointer, POINTER_BYTES_MAX)?;
            if !it.pointer.is_empty() && !it.pointer.starts_with('/') {
                let allowed = "a pointer that begins with /, such as /items/*/note, or none for the whole place";
                return Err(Invalid::field(field).found(format!("{:?}", it.pointer)).allowed(allowed));
            }
        }
        size("body_max", self.body_max)?;
        Ok(self)
    }

    pub fn looks_for(&self, class: InjectionClass) -> bool {
        self.classes.is_empty() || self.classes.contains(&class)
    }
}

impl InjectionException {
    pub fn excepts(&self, class: InjectionClass) -> bool {
        self.classes.is_empty() || self.classes.contains(&class)
    }

    /// The steps of its pointer, unescaped.
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
        let policy = |words: serde_json::Value| Kind::Policy.parse(json!({ "name": "p", "injection": words }));
        let shown = serde_json::to_value(policy(json!({})).unwrap()).unwrap();
        let expected = json!({ "mode": "detect", "threshold": 5, "classes": [], "exceptions": [], "body_max": "1MiB" });
        assert_eq!(shown["injection"], expected);
        for (words, mention) in [
            (json!({ "threshold": 0 }), "injection.threshold: found 0; allowed: 1 to 100"),
            (json!({ "classes": ["sqli", "sqli"] }), "injection.classes"),
            (json!({ "classes": ["sql"] }), "sql"),
            (json!({ "exceptions": [{ "pointer": "q" }] }), "injection.exceptions[0].pointer: found \"q\""),
            (json!({ "exceptions": [{ "in": "form" }] }), "form"),
        ] {
            let error = policy(words).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
    }
}
