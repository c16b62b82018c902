//! Policies that watch how callers behave, between prost and model.

use ipnet::IpNet;
use quorumgate_proto::admin::v1 as admin;

use super::{
    resource::{names_from, names_to, narrow, span_from, span_to, word},
    smaller::{hide, secret_from, secret_to},
};
use crate::{
    invalid::Invalid,
    resource::{AnomalyAction, AnomalyBounds, AnomalyKey, AnomalyPolicy, AnomalyWebhook},
    units::Size,
};

pub(super) fn from(it: admin::AnomalyPolicy) -> Result<AnomalyPolicy, Invalid> {
    let default = AnomalyPolicy::default();
    let prefix = |field: &str, found: Option<u32>, default: u8| match found {
        None => Ok(default),
        Some(it) => u8::try_from(it).map_err(|_| Invalid::field(field).found(it).allowed("a prefix length")),
    };
    let status = |(place, it): (usize, u32)| narrow(&format!("failure_statuses[{place}]"), it, "200 to 599");
    let statuses = it.failure_statuses.map(|it| it.statuses.into_iter().enumerate().map(status).collect());
    let cidr = |(place, text): (usize, &String)| {
        text.parse::<IpNet>().map_err(|_| {
            let invalid = Invalid::field(format!("exempt_cidrs[{place}]")).found(format!("{text:?}"));
            invalid.allowed("a network, such as 10.0.0.0/8")
        })
    };
    Ok(AnomalyPolicy {
        per: word("per", &it.per, AnomalyKey::ALL, AnomalyKey::word)?.unwrap_or(default.per),
        v4_prefix: prefix("v4_prefix", it.v4_prefix, default.v4_prefix)?,
        v6_prefix: prefix("v6_prefix", it.v6_prefix, default.v6_prefix)?,
        window: span_from("window", it.window)?.unwrap_or(default.window),
        over: it.over.map(bounds).unwrap_or_default(),
        object: if it.object.is_empty() { default.object } else { it.object },
        failure_statuses: statuses.transpose()?.unwrap_or(default.failure_statuses),
        action: word("action", &it.action, AnomalyAction::ALL, AnomalyAction::word)?.unwrap_or(default.action),
        hold: span_from("hold", it.hold)?.unwrap_or(default.hold),
        exempt_cidrs: it.exempt_cidrs.iter().enumerate().map(cidr).collect::<Result<_, _>>()?,
        exempt_consumers: names_from("exempt_consumers", &it.exempt_consumers)?,
        webhook: it.webhook.map(webhook).transpose()?,
    })
}

fn webhook(it: admin::AnomalyWebhook) -> Result<AnomalyWebhook, Invalid> {
    let secret = secret_from("secret", it.secret).map_err(|invalid| invalid.under("webhook"))?;
    Ok(AnomalyWebhook { url: it.url, secret, allow_private: it.allow_private })
}

/// Leaves of the secret its fingerprint.
pub(super) fn hide_secret(it: &mut admin::AnomalyPolicy) {
    it.webhook.iter_mut().flat_map(|it| &mut it.secret).for_each(hide);
}

fn bounds(it: admin::AnomalyBounds) -> AnomalyBounds {
    AnomalyBounds {
        requests: it.requests,
        failures: it.failures,
        objects: it.objects,
        credentials: it.credentials,
        sequential: it.sequential,
        bytes_out: it.bytes_out.map(Size),
        countries: it.countries,
    }
}

pub(super) fn to(it: &AnomalyPolicy) -> admin::AnomalyPolicy {
    let over = admin::AnomalyBounds {
        requests: it.over.requests,
        failures: it.over.failures,
        objects: it.over.objects,
        credentials: it.over.credentials,
        sequential: it.over.sequential,
        bytes_out: it.over.bytes_out.map(|it| it.0),
        countries: it.over.countries,
    };
    let statuses = it.failure_statuses.iter().map(|it| u32::from(*it)).collect();
    admin::AnomalyPolicy {
        per: it.per.word().to_owned(),
        v4_prefix: Some(it.v4_prefix.into()),
        v6_prefix: Some(it.v6_prefix.into()),
        window: span_to(it.window),
        over: Some(over),
        object: it.object.clone(),
        failure_statuses: Some(admin::AnomalyStatuses { statuses }),
        action: it.action.word().to_owned(),
        hold: span_to(it.hold),
        exempt_cidrs: it.exempt_cidrs.iter().map(ToString::to_string).collect(),
        exempt_consumers: names_to(&it.exempt_consumers),
        webhook: it.webhook.as_ref().map(|it| admin::AnomalyWebhook {
            url: it.url.clone(),
            secret: secret_to(&it.secret),
            allow_private: it.allow_private,
        }),
    }
}
