//! Consumers: who may call, whatever they prove it with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Name, check};
use crate::invalid::Invalid;

/// How many groups a consumer may be in.
pub const GROUPS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ConsumerWords")]
pub struct Consumer {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    pub groups: Vec<String>,
    /// A word that limits may select by.
    pub plan: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub plan: Option<String>,
}

impl TryFrom<ConsumerWords> for Consumer {
    type Error = Invalid;

    fn try_from(it: ConsumerWords) -> Result<Self, Invalid> {
        check::meta(&it.labels, &it.owner, &it.description)?;
        check::tags("groups", &it.groups, GROUPS_MAX)?;
        if let Some(plan) = &it.plan {
            check::tag("plan", plan)?;
        }
        let ConsumerWords { name, labels, owner, description, groups, plan } = it;
        Ok(Self { name, labels, owner, description, groups, plan })
    }
}
