//! What a route asks of its callers, between prost and model.

use quorumgate_proto::admin::v1::{self as admin, authorize_rule};

use super::resource::{name_from, names_from, names_to, optional_name, word};
use crate::{
    invalid::Invalid,
    resource::{
        AuthorizeWords, ConditionWords, Effect, Name, OneOrMany, Receiver, RespondWords, RouteAuthWords, check::words,
    },
};

pub fn auth_from(it: admin::RouteAuth) -> Result<RouteAuthWords, Invalid> {
    let list = |field: &str, texts: Vec<String>| match texts.is_empty() {
        true => Ok(None),
        false => names_from(field, &texts).map(Some),
    };
    Ok(RouteAuthWords {
        any_of: list("any_of", it.any_of)?,
        all_of: list("all_of", it.all_of)?,
        anonymous: optional_name("anonymous", &it.anonymous)?,
    })
}

pub fn auth_to(it: RouteAuthWords) -> admin::RouteAuth {
    admin::RouteAuth {
        any_of: names_to(&it.any_of.unwrap_or_default()),
        all_of: names_to(&it.all_of.unwrap_or_default()),
        anonymous: it.anonymous.as_ref().map(Name::to_string).unwrap_or_default(),
    }
}

pub fn rule_from(it: admin::AuthorizeRule) -> Result<AuthorizeWords, Invalid> {
    let name = optional_name("name", &it.name)?;
    let mut rule = AuthorizeWords { name, allow: None, deny: None, log: None };
    let under = |effect: Effect| move |invalid: Invalid| invalid.under(effect.word());
    match it.effect {
        None => {}
        Some(authorize_rule::Effect::Allow(it)) => {
            rule.allow = Some(condition_from(it).map_err(under(Effect::Allow))?);
        }
        Some(authorize_rule::Effect::Deny(it)) => rule.deny = Some(condition_from(it).map_err(under(Effect::Deny))?),
        Some(authorize_rule::Effect::Log(it)) => rule.log = Some(condition_from(it).map_err(under(Effect::Log))?),
    }
    Ok(rule)
}

fn condition_from(it: admin::Condition) -> Result<ConditionWords, Invalid> {
    Ok(ConditionWords {
        scopes_all: it.scopes_all,
        scopes_any: it.scopes_any,
        claims: it.claims.into_iter().map(|(claim, texts)| (claim, OneOrMany::Many(texts.values))).collect(),
        consumers: names_from("consumers", &it.consumers)?,
        groups: it.groups,
        methods: it.methods,
        paths: it.paths,
        cidrs: it.cidrs,
        cel: Some(it.cel).filter(|cel| !cel.is_empty()),
        params_equal: it.params_equal,
    })
}

pub fn rule_to(it: AuthorizeWords) -> admin::AuthorizeRule {
    let allow = it.allow.map(condition_to).map(authorize_rule::Effect::Allow);
    let deny = it.deny.map(condition_to).map(authorize_rule::Effect::Deny);
    let log = it.log.map(condition_to).map(authorize_rule::Effect::Log);
    let name = it.name.as_ref().map(Name::to_string).unwrap_or_default();
    admin::AuthorizeRule { name, effect: allow.or(deny).or(log) }
}

fn condition_to(it: ConditionWords) -> admin::Condition {
    let texts = |(claim, values): (String, OneOrMany)| (claim, admin::Texts { values: values.list() });
    admin::Condition {
        scopes_all: it.scopes_all,
        scopes_any: it.scopes_any,
        claims: it.claims.into_iter().map(texts).collect(),
        consumers: names_to(&it.consumers),
        groups: it.groups,
        methods: it.methods,
        paths: it.paths,
        cidrs: it.cidrs,
        cel: it.cel.unwrap_or_default(),
        params_equal: it.params_equal,
    }
}

pub fn receive_from(it: admin::Receive) -> Result<RespondWords, Invalid> {
    let receiver = word("receiver", &it.receiver, Receiver::ALL, Receiver::word)?;
    let Some(receiver) = receiver else {
        return Err(Invalid::field("receiver").found("none").allowed(words(Receiver::ALL, Receiver::word)));
    };
    let auth = Some(name_from("auth", &it.auth)?);
    Ok(RespondWords { receiver: Some(receiver), auth, ..RespondWords::default() })
}

pub fn receive_to(receiver: Receiver, auth: &Name) -> admin::Receive {
    admin::Receive { receiver: receiver.word().into(), auth: auth.to_string() }
}
