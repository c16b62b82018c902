//! Policies of kind `ai` between prost and model.

use quorumgate_proto::admin::v1 as admin;

use super::resource::{listed, name_from, word};
use crate::{
    invalid::Invalid,
    resource::{AiModel, AiPolicy, AiProvider, AiTarget, MaxTokensField, check::words},
    units::Size,
};

pub(super) fn from(it: admin::AiPolicy) -> Result<AiPolicy, Invalid> {
    let Some(provider) = word("provider", &it.provider, AiProvider::ALL, AiProvider::word)? else {
        return Err(Invalid::field("provider").found("nothing").allowed(words(AiProvider::ALL, AiProvider::word)));
    };
    let field = word("max_tokens_field", &it.max_tokens_field, MaxTokensField::ALL, MaxTokensField::word)?;
    Ok(AiPolicy {
        provider,
        models: listed("models", it.models, model)?,
        max_tokens_default: it.max_tokens_default.unwrap_or(AiPolicy::MAX_TOKENS_DEFAULT),
        max_tokens_max: it.max_tokens_max.unwrap_or(AiPolicy::MAX_TOKENS_MAX),
        max_tokens_field: field.unwrap_or_default(),
        strict: it.strict.unwrap_or(true),
        media_tokens: it.media_tokens,
        body_max: it.body_max.map_or_else(AiPolicy::body_max, Size),
        prompt_deny: it.prompt_deny,
        prompt_messages_max: it.prompt_messages_max,
        response_deny: it.response_deny,
    })
}

fn model(it: admin::AiModel) -> Result<AiModel, Invalid> {
    Ok(AiModel { name: it.name, targets: listed("targets", it.targets, target)? })
}

fn target(it: admin::AiTarget) -> Result<AiTarget, Invalid> {
    let upstream = (!it.upstream.is_empty()).then(|| name_from("upstream", &it.upstream)).transpose()?;
    Ok(AiTarget {
        model: it.model,
        upstream,
        weight: it.weight.unwrap_or(AiTarget::WEIGHT_DEFAULT),
        priority: it.priority,
        input_price: it.input_price,
        output_price: it.output_price,
    })
}

pub(super) fn to(it: &AiPolicy) -> admin::AiPolicy {
    admin::AiPolicy {
        provider: it.provider.word().to_owned(),
        models: it.models.iter().map(model_to).collect(),
        max_tokens_default: Some(it.max_tokens_default),
        max_tokens_max: Some(it.max_tokens_max),
        max_tokens_field: it.max_tokens_field.word().to_owned(),
        strict: Some(it.strict),
        media_tokens: it.media_tokens,
        body_max: Some(it.body_max.0),
        prompt_deny: it.prompt_deny.clone(),
        prompt_messages_max: it.prompt_messages_max,
        response_deny: it.response_deny.clone(),
    }
}

fn model_to(it: &AiModel) -> admin::AiModel {
    let target = |it: &AiTarget| admin::AiTarget {
        model: it.model.clone(),
        upstream: it.upstream.as_ref().map(ToString::to_string).unwrap_or_default(),
        weight: Some(it.weight),
        priority: it.priority,
        input_price: it.input_price,
        output_price: it.output_price,
    };
    admin::AiModel { name: it.name.clone(), targets: it.targets.iter().map(target).collect() }
}
