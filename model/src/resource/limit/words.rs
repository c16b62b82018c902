//! The words of a limit in a file, where the fields depend on the kind, and the checks that make a `Limit` of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    super::{Name, check},
    AiTokens, Every, LIMIT_MAX, Limit, LimitCost, LimitKind, LimitKindWord, LimitMode, LimitPart, OnNoQuorum, PER_MAX,
    PLANS_MAX, WINDOW_MAX,
};
use crate::{invalid::Invalid, units::Span};

const PART_WORDS: &str = "consumer, credential, route, tenant, global, { ip: 32 }, { header: x-who }, { claim: sub }";
const COST_FIELDS: &str = "a number, or exactly one of request_header, response_header (with reserve), ai_tokens";
const SPAN_MIN: Span = Span::millis(100);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    pub per: PerWords,
    #[serde(default)]
    pub plans: Vec<String>,
    #[serde(default)]
    pub kind: LimitKindWord,
    #[serde(default)]
    pub limit: Option<u64>,
    #[serde(default)]
    pub window: Option<Span>,
    #[serde(default)]
    pub rate: Option<u64>,
    #[serde(default)]
    pub burst: Option<u64>,
    #[serde(default)]
    pub every: Option<Every>,
    #[serde(default)]
    pub zone: Option<String>,
    #[serde(default)]
    pub mode: LimitMode,
    #[serde(default)]
    pub cost: CostWords,
    #[serde(default)]
    pub on_no_quorum: OnNoQuorum,
    #[serde(default = "Limit::exceeded_status_default")]
    pub exceeded_status: u16,
    #[serde(default)]
    pub soft: bool,
    #[serde(default)]
    pub max_hold: Option<Span>,
    #[serde(default = "Limit::grant_wait_default")]
    pub grant_wait: Span,
}

/// One part, or a list of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerWords {
    One(PartWords),
    All(Vec<PartWords>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PartWords {
    Word(String),
    Object(PartObject),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartObject {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<u8>,
    /// The size of IPv6 networks; 64 if only `ip` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CostWords {
    Fixed(u64),
    Object(CostObject),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostObject {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ai_tokens: Option<AiTokens>,
}

impl Default for CostWords {
    fn default() -> Self {
        Self::Fixed(1)
    }
}

impl TryFrom<LimitWords> for Limit {
    type Error = Invalid;

    fn try_from(it: LimitWords) -> Result<Self, Invalid> {
        check::meta(&it.labels, &it.owner, &it.description)?;
        let kind = kind(&it)?;
        let per = per(it.per)?;
        check::count("plans", it.plans.len(), PLANS_MAX)?;
        for (place, plan) in it.plans.iter().enumerate() {
            check::text(&format!("plans[{place}]"), plan, check::WORD_BYTES_MAX)?;
        }
        check::once("plans", &it.plans, |plan| plan.clone())?;
        let cost = cost(it.cost).map_err(|invalid| invalid.under("cost"))?;
        if matches!(kind, LimitKind::Concurrency { .. }) && cost != LimitCost::Fixed(1) {
            let allowed = "1 with kind concurrency: a request in flight is one";
            return Err(Invalid::field("cost").found("another cost").allowed(allowed));
        }
        check::number("exceeded_status", it.exceeded_status.into(), 400, 599)?;
        check::span_up_to("grant_wait", it.grant_wait, Span::default(), Span::secs(60))?;
        Ok(Self {
            name: it.name,
            labels: it.labels,
            owner: it.owner,
            description: it.description,
            per,
            plans: it.plans,
            kind,
            mode: it.mode,
            cost,
            on_no_quorum: it.on_no_quorum,
            exceeded_status: it.exceeded_status,
            soft: it.soft,
            grant_wait: it.grant_wait,
        })
    }
}

fn amount(field: &str, found: Option<u64>) -> Result<u64, Invalid> {
    match found {
        Some(found) if (1..=LIMIT_MAX).contains(&found) => Ok(found),
        Some(found) => Err(Invalid::field(field).found(found).allowed(format!("1 to {LIMIT_MAX}"))),
        None => Err(Invalid::field(field).found("none").allowed(format!("1 to {LIMIT_MAX}"))),
    }
}

fn kind(it: &LimitWords) -> Result<LimitKind, Invalid> {
    use LimitKindWord::{Bucket, Calendar, Concurrency, Sliding};
    let fields: [(&str, bool, &[LimitKindWord]); 7] = [
        ("limit", it.limit.is_some(), &[Sliding, Calendar, Concurrency]),
        ("window", it.window.is_some(), &[Sliding, Bucket]),
        ("rate", it.rate.is_some(), &[Bucket]),
        ("burst", it.burst.is_some(), &[Bucket]),
        ("every", it.every.is_some(), &[Calendar]),
        ("zone", it.zone.is_some(), &[Calendar]),
        ("max_hold", it.max_hold.is_some(), &[Concurrency]),
    ];
    if let Some((field, _, kinds)) = fields.iter().find(|(_, given, kinds)| *given && !kinds.contains(&it.kind)) {
        let allowed = format!("only with kind {}", check::words(kinds, LimitKindWord::word));
        return Err(Invalid::field(*field).found(format!("it with kind {}", it.kind.word())).allowed(allowed));
    }
    Ok(match it.kind {
        Sliding => {
            let Some(window) = it.window else {
                return Err(Invalid::field("window").found("none").allowed("a length of time, such as 1m"));
            };
            check::span_up_to("window", window, SPAN_MIN, WINDOW_MAX)?;
            LimitKind::Sliding { limit: amount("limit", it.limit)?, window }
        }
        Bucket => {
            let window = it.window.unwrap_or(Span::secs(1));
            check::span_up_to("window", window, SPAN_MIN, WINDOW_MAX)?;
            let rate = amount("rate", it.rate)?;
            LimitKind::Bucket { rate, window, burst: amount("burst", it.burst.or(Some(rate)))? }
        }
        Calendar => {
            let Some(every) = it.every else {
                let allowed = check::words(Every::ALL, Every::word);
                return Err(Invalid::field("every").found("none").allowed(allowed));
            };
            let zone = it.zone.clone().unwrap_or_else(Limit::zone_default);
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_+-".contains(&b);
            // Which zones there are is for the node to say: the list changes with the years.
            if zone.is_empty() || zone.len() > 64 || !zone.bytes().all(plain) {
                let allowed = "the name of a time zone, such as Europe/Berlin";
                return Err(Invalid::field("zone").found(format!("{zone:?}")).allowed(allowed));
            }
            if it.mode == LimitMode::Local {
                let allowed = "leased or exact with kind calendar: the cluster agrees on when a period begins";
                return Err(Invalid::field("mode").found("local").allowed(allowed));
            }
            LimitKind::Calendar { limit: amount("limit", it.limit)?, every, zone }
        }
        Concurrency => {
            let max_hold = it.max_hold.unwrap_or_else(Limit::max_hold_default);
            check::span_up_to("max_hold", max_hold, Span::secs(1), check::SPAN_MAX)?;
            LimitKind::Concurrency { limit: amount("limit", it.limit)?, max_hold }
        }
    })
}

fn per(words: PerWords) -> Result<Vec<LimitPart>, Invalid> {
    let parts = match words {
        PerWords::One(part) => return Ok(vec![part.parse("per")?]),
        PerWords::All(parts) => parts,
    };
    check::count("per", parts.len(), PER_MAX)?;
    if parts.is_empty() {
        return Err(Invalid::field("per").found("none").allowed(PART_WORDS));
    }
    let parts = parts.into_iter().enumerate().map(|(place, part)| part.parse(&format!("per[{place}]")));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    check::once("per", &parts, |part| format!("{part:?}"))?;
    if let Some(place) = parts.iter().position(|part| *part == LimitPart::Global).filter(|_| parts.len() > 1) {
        let allowed = "global alone: everything is one key";
        return Err(Invalid::field(format!("per[{place}]")).found("global beside others").allowed(allowed));
    }
    Ok(parts)
}

impl PartWords {
    fn parse(self, field: &str) -> Result<LimitPart, Invalid> {
        let it = match self {
            PartWords::Word(word) => return part(field, &word),
            PartWords::Object(it) => it,
        };
        match (it.ip, it.ip6, it.header, it.claim) {
            (v4, v6, None, None) if v4.is_some() || v6.is_some() => {
                let (v4, v6) = (v4.unwrap_or(LimitPart::V4_DEFAULT), v6.unwrap_or(LimitPart::V6_DEFAULT));
                check::number(&format!("{field}.ip"), v4.into(), 0, 32)?;
                check::number(&format!("{field}.ip6"), v6.into(), 0, 128)?;
                Ok(LimitPart::Ip { v4, v6 })
            }
            (None, None, Some(header), None) => {
                Ok(LimitPart::Header(check::header_name(&format!("{field}.header"), &header)?))
            }
            (None, None, None, Some(claim)) => {
                check::text(&format!("{field}.claim"), &claim, check::WORD_BYTES_MAX)?;
                Ok(LimitPart::Claim(claim))
            }
            (None, None, None, None) => Err(Invalid::field(field).found("an empty map").allowed(PART_WORDS)),
            _ => Err(Invalid::field(field).found("several of them").allowed(PART_WORDS)),
        }
    }
}

fn part(field: &str, word: &str) -> Result<LimitPart, Invalid> {
    Ok(match word {
        "consumer" => LimitPart::Consumer,
        "credential" => LimitPart::Credential,
        "route" => LimitPart::Route,
        "tenant" => LimitPart::Tenant,
        "global" => LimitPart::Global,
        _ => return Err(Invalid::field(field).found(format!("{word:?}")).allowed(PART_WORDS)),
    })
}

fn cost(words: CostWords) -> Result<LimitCost, Invalid> {
    let it = match words {
        CostWords::Fixed(cost) => return Ok(LimitCost::Fixed(amount("", Some(cost))?)),
        CostWords::Object(it) => it,
    };
    match (it.request_header, it.response_header, it.reserve, it.ai_tokens) {
        (Some(header), None, None, None) => {
            Ok(LimitCost::RequestHeader(check::header_name("request_header", &header)?))
        }
        (None, Some(header), reserve, None) => Ok(LimitCost::ResponseHeader {
            header: check::header_name("response_header", &header)?,
            reserve: amount("reserve", reserve.or(Some(1)))?,
        }),
        (None, None, None, Some(tokens)) => Ok(LimitCost::AiTokens(tokens)),
        (None, None, None, None) => Err(Invalid::field("").found("an empty map").allowed(COST_FIELDS)),
        _ => Err(Invalid::field("").found("several of them").allowed(COST_FIELDS)),
    }
}

impl From<LimitPart> for PartWords {
    fn from(part: LimitPart) -> Self {
        let word = |word: &str| PartWords::Word(word.into());
        let object = PartObject::default();
        match part {
            LimitPart::Consumer => word("consumer"),
            LimitPart::Credential => word("credential"),
            LimitPart::Route => word("route"),
            LimitPart::Tenant => word("tenant"),
            LimitPart::Global => word("global"),
            LimitPart::Ip { v4, v6 } => {
                let ip6 = (v6 != LimitPart::V6_DEFAULT).then_some(v6);
                PartWords::Object(PartObject { ip: Some(v4), ip6, ..object })
            }
            LimitPart::Header(header) => PartWords::Object(PartObject { header: Some(header), ..object }),
            LimitPart::Claim(claim) => PartWords::Object(PartObject { claim: Some(claim), ..object }),
        }
    }
}

impl From<LimitCost> for CostWords {
    fn from(cost: LimitCost) -> Self {
        let object = CostObject::default();
        match cost {
            LimitCost::Fixed(cost) => Self::Fixed(cost),
            LimitCost::RequestHeader(header) => Self::Object(CostObject { request_header: Some(header), ..object }),
            LimitCost::ResponseHeader { header, reserve } => {
                Self::Object(CostObject { response_header: Some(header), reserve: Some(reserve), ..object })
            }
            LimitCost::AiTokens(tokens) => Self::Object(CostObject { ai_tokens: Some(tokens), ..object }),
        }
    }
}

impl From<Limit> for LimitWords {
    fn from(it: Limit) -> Self {
        let mut parts: Vec<PartWords> = it.per.into_iter().map(PartWords::from).collect();
        let per = match parts.len() {
            1 => PerWords::One(parts.remove(0)),
            _ => PerWords::All(parts),
        };
        let mut words = Self {
            name: it.name,
            labels: it.labels,
            owner: it.owner,
            description: it.description,
            per,
            plans: it.plans,
            kind: LimitKindWord::Sliding,
            limit: None,
            window: None,
            rate: None,
            burst: None,
            every: None,
            zone: None,
            mode: it.mode,
            cost: it.cost.into(),
            on_no_quorum: it.on_no_quorum,
            exceeded_status: it.exceeded_status,
            soft: it.soft,
            max_hold: None,
            grant_wait: it.grant_wait,
        };
        match it.kind {
            LimitKind::Sliding { limit, window } => (words.limit, words.window) = (Some(limit), Some(window)),
            LimitKind::Bucket { rate, window, burst } => {
                words.kind = LimitKindWord::Bucket;
                (words.rate, words.window, words.burst) = (Some(rate), Some(window), Some(burst));
            }
            LimitKind::Calendar { limit, every, zone } => {
                words.kind = LimitKindWord::Calendar;
                (words.limit, words.every, words.zone) = (Some(limit), Some(every), Some(zone));
            }
            LimitKind::Concurrency { limit, max_hold } => {
                words.kind = LimitKindWord::Concurrency;
                (words.limit, words.max_hold) = (Some(limit), Some(max_hold));
            }
        }
        words
    }
}
