//! Policies that go by what a client calls itself. It can call itself anything: they keep out what does not hide.

use serde::{Deserialize, Serialize};

use super::{
    super::check,
    payload::{PolicyMode, Tolerance},
};
use crate::{invalid::Invalid, ruleset::agents};

/// Patterns of one list.
pub const AGENT_PATTERNS_MAX: usize = 64;

/// By User-Agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BotPolicy {
    pub mode: PolicyMode,
    /// Who comes in whatever else is said here.
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    /// Requests without a User-Agent, or with an empty one.
    pub missing: Tolerance,
    /// Tools that look for holes, as far as they say so.
    pub scanners: Tolerance,
}

impl Default for BotPolicy {
    fn default() -> Self {
        Self {
            mode: PolicyMode::Enforce,
            allow: Vec::new(),
            deny: Vec::new(),
            missing: Tolerance::Allow,
            scanners: Tolerance::Refuse,
        }
    }
}

impl BotPolicy {
    pub fn checked(self) -> Result<Self, Invalid> {
        for (field, list) in [("allow", &self.allow), ("deny", &self.deny)] {
            check::count(field, list.len(), AGENT_PATTERNS_MAX)?;
            check::once(field, list, Clone::clone)?;
        }
        agents::check(&self)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::Kind;

    #[test]
    fn mistakes_name_their_place() {
        let policy = |words: serde_json::Value| Kind::Policy.parse(json!({ "name": "p", "bot": words }));
        let shown = serde_json::to_value(policy(json!({})).unwrap()).unwrap();
        let expected = json!({ "mode": "enforce", "allow": [], "deny": [], "missing": "allow", "scanners": "refuse" });
        assert_eq!(shown["bot"], expected);
        for (words, mention) in [
            (json!({ "deny": ["("] }), "bot.deny[0]: found \"(\""),
            (json!({ "allow": ["a", "a"] }), "bot.allow[1]"),
            (json!({ "deny": [""] }), "bot.deny[0]: found \"\""),
            (json!({ "missing": "deny" }), "deny"),
        ] {
            let error = policy(words).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
    }
}
