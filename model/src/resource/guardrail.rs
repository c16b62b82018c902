//! Guardrails: what must be true of every object. The expression is the operator's; what evaluates it is not here, since
//! apply must be the same on every build (`state::State::guardrails` says how it is held all the same).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kind, Name, check, word::word_enum};
use crate::invalid::Invalid;

/// How many guardrails there may be: each change is held against all of them.
pub const GUARDRAILS_MAX: usize = 64;
pub const REQUIRE_BYTES_MAX: usize = 4 << 10;
pub const GUARDRAIL_MESSAGE_BYTES_MAX: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GuardrailWords", into = "GuardrailWords")]
pub struct Guardrail {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    /// None: every kind but tenants and guardrails.
    pub kinds: Vec<Kind>,
    /// CEL, over `object` and `kind`.
    pub require: String,
    pub effect: GuardEffect,
    pub message: String,
    pub except_owners: Vec<String>,
    /// `key` or `key=value`: objects with such a label, and this guardrail, change only once another person has approved.
    pub approval_labels: Vec<String>,
}

word_enum! {
    /// What becomes of a change with an object that does not hold to it.
    GuardEffect {
        /// It is refused.
        Deny = "deny",
        /// Who makes it is told, and the audit trail.
        Warn = "warn",
        /// The audit trail alone is told.
        Audit = "audit",
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardrailWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Only where there are `approval_labels` it may be left out.
    #[serde(default)]
    pub require: String,
    #[serde(default = "deny")]
    pub effect: GuardEffect,
    pub message: String,
    #[serde(default)]
    pub except_owners: Vec<String>,
    #[serde(default)]
    pub approval_labels: Vec<String>,
}

/// What a guardrail asks that is there for its labels alone.
const ALWAYS: &str = "true";

fn deny() -> GuardEffect {
    GuardEffect::Deny
}

/// What a guardrail can look at: who may write tenants and guardrails is held to nothing by them.
fn looked_at() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Tenant | Kind::Guardrail))
}

impl Guardrail {
    pub fn looks_at(&self, kind: Kind) -> bool {
        match self.kinds.is_empty() {
            true => looked_at().any(|it| it == kind),
            false => self.kinds.contains(&kind),
        }
    }
}

impl Guardrail {
    /// Whether an object with these labels waits for an approval.
    pub fn protects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.approval_labels.iter().any(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|it| it == value),
            None => labels.contains_key(wanted),
        })
    }
}

impl TryFrom<GuardrailWords> for Guardrail {
    type Error = Invalid;

    fn try_from(it: GuardrailWords) -> Result<Self, Invalid> {
        check::meta(&it.labels, &it.owner, &it.description)?;
        check::count("kinds", it.kinds.len(), Kind::ALL.len())?;
        let kind = |(place, word): (usize, &String)| {
            looked_at().find(|kind| kind.list() == word).ok_or_else(|| {
                let known: Vec<_> = looked_at().map(Kind::list).collect();
                Invalid::field(format!("kinds[{place}]")).found(format!("{word:?}")).allowed(known.join(", "))
            })
        };
        let kinds = it.kinds.iter().enumerate().map(kind).collect::<Result<Vec<_>, _>>()?;
        check::once("kinds", &kinds, |kind| kind.list().to_owned())?;
        check::length("require", &it.require, REQUIRE_BYTES_MAX)?;
        if it.require.trim().is_empty() && it.approval_labels.is_empty() {
            return Err(Invalid::field("require").found("nothing").allowed("a CEL expression, or approval_labels"));
        }
        check::text("message", &it.message, GUARDRAIL_MESSAGE_BYTES_MAX)?;
        check::count("except_owners", it.except_owners.len(), check::LIST_MAX)?;
        for (place, owner) in it.except_owners.iter().enumerate() {
            check::text(&format!("except_owners[{place}]"), owner, check::WORD_BYTES_MAX)?;
        }
        check::count("approval_labels", it.approval_labels.len(), check::LIST_MAX)?;
        for (place, label) in it.approval_labels.iter().enumerate() {
            let field = format!("approval_labels[{place}]");
            check::text(&field, label, check::WORD_BYTES_MAX)?;
            if label.starts_with('=') {
                return Err(Invalid::field(field).found(format!("{label:?}")).allowed("key or key=value"));
            }
        }
        check::once("approval_labels", &it.approval_labels, String::clone)?;
        let GuardrailWords { name, labels, owner, description, mut require, effect, message, .. } = it;
        if require.trim().is_empty() {
            require = ALWAYS.to_owned();
        }
        let (except_owners, approval_labels) = (it.except_owners, it.approval_labels);
        Ok(Self { name, labels, owner, description, kinds, require, effect, message, except_owners, approval_labels })
    }
}

impl From<Guardrail> for GuardrailWords {
    fn from(it: Guardrail) -> Self {
        Self {
            name: it.name,
            labels: it.labels,
            owner: it.owner,
            description: it.description,
            kinds: it.kinds.iter().map(|kind| kind.list().to_owned()).collect(),
            require: it.require,
            effect: it.effect,
            message: it.message,
            except_owners: it.except_owners,
            approval_labels: it.approval_labels,
        }
    }
}
