//! Limits between prost and model.

use quorumgate_proto::admin::v1::{self as admin, limit_cost::Cost, limit_key::Part};

use super::resource::{meta_to, name_from, narrow, optional, span_from, span_to, word};
use crate::{
    invalid::Invalid,
    resource::{
        AiTokens, CostObject, CostWords, Every, Limit, LimitCost, LimitKind, LimitKindWord, LimitMode, LimitPart,
        LimitWords, OnNoQuorum, PartObject, PartWords, PerWords, check::words,
    },
};

pub fn limit_from(it: admin::Limit) -> Result<Limit, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let given = |number: u64| Some(number).filter(|number| *number != 0);
    let part = |(place, it)| part_from(it).map_err(|invalid: Invalid| invalid.under(format!("per[{place}]")));
    let status = it.exceeded_status;
    let limit = LimitWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        per: PerWords::All(it.per.into_iter().enumerate().map(part).collect::<Result<_, _>>()?),
        plans: it.plans,
        kind: word("kind", &it.kind, LimitKindWord::ALL, LimitKindWord::word)?.unwrap_or_default(),
        limit: given(it.limit),
        window: span_from("window", it.window)?,
        rate: given(it.rate),
        burst: given(it.burst),
        every: word("every", &it.every, Every::ALL, Every::word)?,
        zone: optional(it.zone),
        mode: word("mode", &it.mode, LimitMode::ALL, LimitMode::word)?.unwrap_or_default(),
        cost: it.cost.map(cost_from).transpose().map_err(|invalid| invalid.under("cost"))?.unwrap_or_default(),
        on_no_quorum: word("on_no_quorum", &it.on_no_quorum, OnNoQuorum::ALL, OnNoQuorum::word)?.unwrap_or_default(),
        exceeded_status: match status {
            0 => Limit::exceeded_status_default(),
            status => narrow("exceeded_status", status, "400 to 599")?,
        },
        soft: it.soft,
        max_hold: span_from("max_hold", it.max_hold)?,
        grant_wait: span_from("grant_wait", it.grant_wait)?.unwrap_or_else(Limit::grant_wait_default),
    };
    limit.try_into()
}

fn part_from(it: admin::LimitKey) -> Result<PartWords, Invalid> {
    let none = PartObject::default();
    let bits = |field: &str, bits: u32, max: u8| {
        let wrong = |_| Invalid::field(field).found(bits).allowed(format!("0 to {max}"));
        u8::try_from(bits).map(Some).map_err(wrong)
    };
    Ok(match it.part {
        None => PartWords::Object(none),
        Some(Part::Word(word)) => PartWords::Word(word),
        Some(Part::Ip(it)) => {
            PartWords::Object(PartObject { ip: bits("ip", it.v4, 32)?, ip6: bits("ip6", it.v6, 128)?, ..none })
        }
        Some(Part::Header(header)) => PartWords::Object(PartObject { header: Some(header), ..none }),
        Some(Part::Claim(claim)) => PartWords::Object(PartObject { claim: Some(claim), ..none }),
    })
}

fn cost_from(it: admin::LimitCost) -> Result<CostWords, Invalid> {
    let none = CostObject::default();
    Ok(match it.cost {
        None => CostWords::default(),
        Some(Cost::Fixed(cost)) => CostWords::Fixed(cost),
        Some(Cost::RequestHeader(header)) => CostWords::Object(CostObject { request_header: Some(header), ..none }),
        Some(Cost::Response(it)) => {
            let reserve = Some(it.reserve).filter(|reserve| *reserve != 0);
            CostWords::Object(CostObject { response_header: Some(it.header), reserve, ..none })
        }
        Some(Cost::AiTokens(text)) => {
            let Some(tokens) = word("ai_tokens", &text, AiTokens::ALL, AiTokens::word)? else {
                return Err(Invalid::field("ai_tokens").found("\"\"").allowed(words(AiTokens::ALL, AiTokens::word)));
            };
            CostWords::Object(CostObject { ai_tokens: Some(tokens), ..none })
        }
    })
}

pub fn limit_to(it: &Limit) -> admin::Limit {
    let mut message = admin::Limit {
        name: it.name.to_string(),
        meta: meta_to(&it.labels, &it.owner, &it.description),
        per: it.per.iter().map(part_to).collect(),
        plans: it.plans.clone(),
        mode: it.mode.word().into(),
        cost: Some(cost_to(&it.cost)),
        on_no_quorum: it.on_no_quorum.word().into(),
        exceeded_status: it.exceeded_status.into(),
        soft: it.soft,
        grant_wait: span_to(it.grant_wait),
        ..admin::Limit::default()
    };
    let kind = match &it.kind {
        LimitKind::Sliding { limit, window } => {
            (message.limit, message.window) = (*limit, span_to(*window));
            LimitKindWord::Sliding
        }
        LimitKind::Bucket { rate, window, burst } => {
            (message.rate, message.window, message.burst) = (*rate, span_to(*window), *burst);
            LimitKindWord::Bucket
        }
        LimitKind::Calendar { limit, every, zone } => {
            (message.limit, message.every, message.zone) = (*limit, every.word().into(), zone.clone());
            LimitKindWord::Calendar
        }
        LimitKind::Concurrency { limit, max_hold } => {
            (message.limit, message.max_hold) = (*limit, span_to(*max_hold));
            LimitKindWord::Concurrency
        }
    };
    message.kind = kind.word().into();
    message
}

fn part_to(it: &LimitPart) -> admin::LimitKey {
    let word = |word: &str| Part::Word(word.into());
    let part = match it {
        LimitPart::Consumer => word("consumer"),
        LimitPart::Credential => word("credential"),
        LimitPart::Route => word("route"),
        LimitPart::Tenant => word("tenant"),
        LimitPart::Global => word("global"),
        LimitPart::Ip { v4, v6 } => Part::Ip(admin::IpKey { v4: (*v4).into(), v6: (*v6).into() }),
        LimitPart::Header(header) => Part::Header(header.clone()),
        LimitPart::Claim(claim) => Part::Claim(claim.clone()),
    };
    admin::LimitKey { part: Some(part) }
}

fn cost_to(it: &LimitCost) -> admin::LimitCost {
    let cost = match it {
        LimitCost::Fixed(cost) => Cost::Fixed(*cost),
        LimitCost::RequestHeader(header) => Cost::RequestHeader(header.clone()),
        LimitCost::ResponseHeader { header, reserve } => {
            Cost::Response(admin::ResponseCost { header: header.clone(), reserve: *reserve })
        }
        LimitCost::AiTokens(tokens) => Cost::AiTokens(tokens.word().into()),
    };
    admin::LimitCost { cost: Some(cost) }
}
