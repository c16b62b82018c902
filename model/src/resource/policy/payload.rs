//! Policies that bound what a body may be, so that a small request cannot become much work behind the gateway.

use serde::{Deserialize, Serialize};

use super::super::{check, word::word_enum};
use crate::{invalid::Invalid, units::Size};

/// How many arrays and objects within one another a policy can let pass.
pub const JSON_DEPTH_MAX: u32 = 100;
pub const XML_DEPTH_MAX: u32 = 1_000;
/// Each is held against all others of its element.
pub const XML_ATTRIBUTES_MAX: u32 = 256;
pub const GRAPHQL_DEPTH_MAX: u32 = 100;
pub const GRAPHQL_BATCH_MAX: u32 = 1_000;
/// How many keys or elements a policy can let pass.
const COUNT_MAX: u32 = 1_000_000;
/// How much of a body a policy can have held and looked through.
pub const INSPECTED_BYTES_MAX: Size = Size(16 << 20);
pub(super) const INSPECTED_BYTES_DEFAULT: Size = Size(1 << 20);

word_enum!(
    /// What becomes of a request in which a policy finds something.
    PolicyMode {
        /// It is refused.
        Enforce = "enforce",
        /// It goes on; what was found is told.
        Detect = "detect",
        /// Nobody looks.
        Off = "off",
    }
);

word_enum!(Tolerance {
    Allow = "allow",
    Refuse = "refuse",
});

/// What all policies have that look through requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub mode: PolicyMode,
    /// What is read of a body before it is looked through; larger ones are refused.
    pub body_max: Size,
    /// Bodies of types that no policy of the route looks through.
    pub other_types: Tolerance,
}

/// How large and how deep JSON may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonPolicy {
    pub mode: PolicyMode,
    /// Arrays and objects within one another; what stands alone is at depth 0.
    pub max_depth: u32,
    /// Of one object.
    pub max_keys: u32,
    /// Elements of one array.
    pub max_array: u32,
    /// Bytes of one text or key, as it is without escapes.
    pub max_string: Size,
    pub duplicate_keys: Tolerance,
    pub body_max: Size,
    pub other_types: Tolerance,
}

impl Default for JsonPolicy {
    fn default() -> Self {
        Self {
            mode: PolicyMode::Enforce,
            max_depth: 32,
            max_keys: 1_000,
            max_array: 10_000,
            max_string: Size(1 << 20),
            duplicate_keys: Tolerance::Refuse,
            body_max: INSPECTED_BYTES_DEFAULT,
            other_types: Tolerance::Allow,
        }
    }
}

impl JsonPolicy {
    pub fn checked(self) -> Result<Self, Invalid> {
        check::number("max_depth", self.max_depth, 1, JSON_DEPTH_MAX)?;
        check::number("max_keys", self.max_keys, 1, COUNT_MAX)?;
        check::number("max_array", self.max_array, 1, COUNT_MAX)?;
        size("max_string", self.max_string)?;
        size("body_max", self.body_max)?;
        Ok(self)
    }
}

/// How large and how deep XML may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct XmlPolicy {
    pub mode: PolicyMode,
    /// Elements within one another.
    pub max_depth: u32,
    /// Of the whole body.
    pub max_elements: u32,
    /// Of one element.
    pub max_attributes: u32,
    /// Bytes of one text, attribute or name.
    pub max_text: Size,
    /// Document type definitions, which entities come from.
    pub dtd: Tolerance,
    pub body_max: Size,
    pub other_types: Tolerance,
}

impl Default for XmlPolicy {
    fn default() -> Self {
        Self {
            mode: PolicyMode::Enforce,
            max_depth: 32,
            max_elements: 10_000,
            max_attributes: 64,
            max_text: Size(1 << 20),
            dtd: Tolerance::Refuse,
            body_max: INSPECTED_BYTES_DEFAULT,
            other_types: Tolerance::Allow,
        }
    }
}

impl XmlPolicy {
    pub fn checked(self) -> Result<Self, Invalid> {
        check::number("max_depth", self.max_depth, 1, XML_DEPTH_MAX)?;
        check::number("max_elements", self.max_elements, 1, COUNT_MAX)?;
        check::number("max_attributes", self.max_attributes, 0, XML_ATTRIBUTES_MAX)?;
        size("max_text", self.max_text)?;
        size("body_max", self.body_max)?;
        Ok(self)
    }
}

/// What `multipart/form-data` may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultipartPolicy {
    pub mode: PolicyMode,
    pub max_parts: u32,
    /// Parts with a file name.
    pub max_files: u32,
    /// Bytes of one part.
    pub max_part: Size,
    /// Bytes of a part's name and of a file's.
    pub max_name: Size,
    pub body_max: Size,
    pub other_types: Tolerance,
}

impl Default for MultipartPolicy {
    fn default() -> Self {
        Self {
            mode: PolicyMode::Enforce,
            max_parts: 100,
            max_files: 10,
            max_part: Size(1 << 20),
            max_name: Size(256),
            body_max: INSPECTED_BYTES_DEFAULT,
            other_types: Tolerance::Allow,
        }
    }
}

impl MultipartPolicy {
    pub fn checked(self) -> Result<Self, Invalid> {
        check::number("max_parts", self.max_parts, 1, COUNT_MAX)?;
        check::number("max_files", self.max_files, 0, COUNT_MAX)?;
        size("max_part", self.max_part)?;
        size("max_name", self.max_name)?;
        size("body_max", self.body_max)?;
        Ok(self)
    }
}

/// What a GraphQL query may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraphqlPolicy {
    pub mode: PolicyMode,
    /// Fields within one another, fragments spread out.
    pub max_depth: u32,
    pub max_aliases: u32,
    /// Fields in all, fragments spread out.
    pub max_complexity: u32,
    /// Operations that come at once.
    pub max_batch: u32,
    /// `__schema` and `__type`.
    pub introspection: Tolerance,
    pub body_max: Size,
    pub other_types: Tolerance,
}

impl Default for GraphqlPolicy {
    fn default() -> Self {
        Self {
            mode: PolicyMode::Enforce,
            max_depth: 15,
            max_aliases: 30,
            max_complexity: 1_000,
            max_batch: 10,
            introspection: Tolerance::Refuse,
            body_max: INSPECTED_BYTES_DEFAULT,
            other_types: Tolerance::Allow,
        }
    }
}

impl GraphqlPolicy {
    pub fn checked(self) -> Result<Self, Invalid> {
        check::number("max_depth", self.max_depth, 1, GRAPHQL_DEPTH_MAX)?;
        check::number("max_aliases", self.max_aliases, 0, COUNT_MAX)?;
        check::number("max_complexity", self.max_complexity, 1, COUNT_MAX)?;
        check::number("max_batch", self.max_batch, 1, GRAPHQL_BATCH_MAX)?;
        size("body_max", self.body_max)?;
        Ok(self)
    }
}

pub(super) fn size(field: &str, found: Size) -> Result<(), Invalid> {
    match (Size(1)..=INSPECTED_BYTES_MAX).contains(&found) {
        true => Ok(()),
        false => Err(Invalid::field(field).found(found).allowed(format!("1 to {INSPECTED_BYTES_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::Kind;

    #[test]
    fn what_is_left_out_has_its_default_and_a_mistake_names_its_field() {
        let policy = |json: serde_json::Value| Kind::Policy.parse(json!({ "name": "p", "json": json }));
        let shown = serde_json::to_value(policy(json!({ "max_depth": 5 })).unwrap()).unwrap();
        let expected = json!({
            "mode": "enforce", "max_depth": 5, "max_keys": 1000, "max_array": 10000, "max_string": "1MiB",
            "duplicate_keys": "refuse", "body_max": "1MiB", "other_types": "allow",
        });
        assert_eq!(shown["json"], expected);
        for words in [json!({ "xml": {} }), json!({ "multipart": {} }), json!({ "graphql": {} })] {
            let mut policy = words.clone();
            policy["name"] = json!("p");
            let shown = serde_json::to_value(Kind::Policy.parse(policy).unwrap()).unwrap();
            let (kind, _) = words.as_object().unwrap().iter().next().unwrap();
            assert_eq!((&shown[kind]["mode"], &shown[kind]["body_max"]), (&json!("enforce"), &json!("1MiB")));
        }
        for (json, mention) in [
            (json!({ "max_depth": 0 }), "json.max_depth: found 0; allowed: 1 to 100"),
            (json!({ "max_depth": 101 }), "json.max_depth: found 101"),
            (json!({ "max_keys": 0 }), "json.max_keys: found 0"),
            (json!({ "max_string": "0" }), "json.max_string: found 0; allowed: 1 to 16MiB"),
            (json!({ "body_max": "17MiB" }), "json.body_max: found 17MiB"),
            (json!({ "mode": "watch" }), "watch"),
            (json!({ "max_dept": 1 }), "max_dept"),
        ] {
            let error = policy(json).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
    }
}
