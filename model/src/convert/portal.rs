//! Portals between prost and model.

use std::num::NonZeroU32;

use quorumgate_proto::admin::v1 as admin;

use super::resource::{names_from, names_to, span_from, span_to};
use crate::{
    invalid::Invalid,
    resource::{PortalKeys, PortalPolicy},
};

pub(super) fn from(it: admin::PortalPolicy) -> Result<PortalPolicy, Invalid> {
    let default = PortalPolicy::default();
    Ok(PortalPolicy {
        title: if it.title.is_empty() { default.title } else { it.title },
        apis: names_from("apis", &it.apis)?,
        keys: it.keys.map(keys).transpose().map_err(|invalid| invalid.under("keys"))?,
    })
}

fn keys(it: admin::PortalKeys) -> Result<PortalKeys, Invalid> {
    let default = PortalKeys::default();
    let max = match it.max {
        None => default.max,
        Some(max) => NonZeroU32::new(max).ok_or_else(|| Invalid::field("max").found(0).allowed("1 or more"))?,
    };
    Ok(PortalKeys { max, scopes: it.scopes, expires: span_from("expires", it.expires)?.unwrap_or(default.expires) })
}

pub(super) fn to(it: &PortalPolicy) -> admin::PortalPolicy {
    let keys = |it: &PortalKeys| admin::PortalKeys {
        max: Some(it.max.get()),
        scopes: it.scopes.clone(),
        expires: span_to(it.expires),
    };
    admin::PortalPolicy { title: it.title.clone(), apis: names_to(&it.apis), keys: it.keys.as_ref().map(keys) }
}
