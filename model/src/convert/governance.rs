//! Tenants and guardrails between prost and model.

use quorumgate_proto::admin::v1 as admin;

use super::resource::{meta_to, name_from};
use crate::{
    invalid::Invalid,
    resource::{GuardEffect, Guardrail, GuardrailWords, Quotas, Tenant, TenantWords, check},
};

pub fn tenant_from(it: admin::Tenant) -> Result<Tenant, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let quotas = it.quotas.unwrap_or_default();
    let words = TenantWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        owners: it.owners,
        hosts: it.hosts,
        path_prefixes: it.path_prefixes,
        quotas: Quotas {
            upstreams: quotas.upstreams,
            routes: quotas.routes,
            consumers: quotas.consumers,
            auth: quotas.auth,
            certificate_authorities: quotas.certificate_authorities,
            limits: quotas.limits,
            certificates: quotas.certificates,
            policies: quotas.policies,
        },
    };
    words.try_into()
}

pub fn tenant_to(it: &Tenant) -> admin::Tenant {
    let TenantWords { name, labels, owner, description, owners, hosts, path_prefixes, quotas } = it.clone().into();
    admin::Tenant {
        name: name.to_string(),
        meta: meta_to(&labels, &owner, &description),
        owners,
        hosts,
        path_prefixes,
        quotas: (quotas != Quotas::default()).then_some(admin::TenantQuotas {
            upstreams: quotas.upstreams,
            routes: quotas.routes,
            consumers: quotas.consumers,
            auth: quotas.auth,
            certificate_authorities: quotas.certificate_authorities,
            limits: quotas.limits,
            certificates: quotas.certificates,
            policies: quotas.policies,
        }),
    }
}

pub fn guardrail_from(it: admin::Guardrail) -> Result<Guardrail, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let effect = match it.effect.as_str() {
        "" => GuardEffect::Deny,
        word => GuardEffect::ALL.iter().copied().find(|it| it.word() == word).ok_or_else(|| {
            let allowed = check::words(GuardEffect::ALL, GuardEffect::word);
            Invalid::field("effect").found(format!("{word:?}")).allowed(allowed)
        })?,
    };
    let words = GuardrailWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        kinds: it.kinds,
        require: it.require,
        effect,
        message: it.message,
        except_owners: it.except_owners,
        approval_labels: it.approval_labels,
    };
    words.try_into()
}

pub fn guardrail_to(it: &Guardrail) -> admin::Guardrail {
    let words = GuardrailWords::from(it.clone());
    admin::Guardrail {
        name: words.name.to_string(),
        meta: meta_to(&words.labels, &words.owner, &words.description),
        kinds: words.kinds,
        require: words.require,
        effect: words.effect.word().to_owned(),
        message: words.message,
        except_owners: words.except_owners,
        approval_labels: words.approval_labels,
    }
}
