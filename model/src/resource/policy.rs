//! Policies: what routes ask of a request beside who asks. Kind `ip` goes by the client's address, `version` by how
//! far the life of an API's version is, `ai` says where and for how much models are asked, `anomaly` goes by how callers
//! behave, `bot` by what a client calls itself, `mask` is of what answers say, `portal` of what developers are shown, the
//! others go by what the request says.

mod ai;
mod anomaly;
mod bot;
mod contract;
mod injection;
mod mask;
mod payload;
mod places;
mod portal;
mod version;

use std::{collections::BTreeMap, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

pub use ai::*;
pub use anomaly::*;
pub use bot::*;
pub use contract::*;
pub use injection::*;
pub use mask::*;
pub use payload::*;
pub use places::*;
pub use portal::*;
pub use version::*;

use super::{Name, Secret, check};
use crate::invalid::Invalid;

/// How many networks one list may have. Of IPv4, so many still fit into one entry of the log.
pub const IP_NETS_MAX: usize = 1_000_000;
/// How many policies a route may have.
pub const ROUTE_POLICIES_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PolicyWords", into = "PolicyWords")]
pub struct Policy {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    pub kind: PolicyKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyKind {
    Ip(IpPolicy),
    Json(JsonPolicy),
    Xml(XmlPolicy),
    Multipart(MultipartPolicy),
    Graphql(GraphqlPolicy),
    Injection(InjectionPolicy),
    Version(Box<VersionPolicy>),
    Contract(Box<ContractPolicy>),
    Ai(Box<AiPolicy>),
    Anomaly(Box<AnomalyPolicy>),
    Bot(BotPolicy),
    Mask(Box<MaskPolicy>),
    Portal(Box<PortalPolicy>),
}

/// Exactly one of them makes a policy.
const KINDS: &str =
    "ip, json, xml, multipart, graphql, injection, version, contract, ai, anomaly, bot, mask and portal";

impl PolicyKind {
    /// `ip`
    pub fn word(&self) -> &'static str {
        match self {
            PolicyKind::Ip(_) => "ip",
            PolicyKind::Json(_) => "json",
            PolicyKind::Xml(_) => "xml",
            PolicyKind::Multipart(_) => "multipart",
            PolicyKind::Graphql(_) => "graphql",
            PolicyKind::Injection(_) => "injection",
            PolicyKind::Version(_) => "version",
            PolicyKind::Contract(_) => "contract",
            PolicyKind::Ai(_) => "ai",
            PolicyKind::Anomaly(_) => "anomaly",
            PolicyKind::Bot(_) => "bot",
            PolicyKind::Mask(_) => "mask",
            PolicyKind::Portal(_) => "portal",
        }
    }

    /// The feature level of the builds that know it.
    pub fn level(&self) -> u32 {
        match self {
            PolicyKind::Ip(it) if !it.places.is_empty() => 6,
            PolicyKind::Ip(_) => 1,
            PolicyKind::Json(_) | PolicyKind::Xml(_) | PolicyKind::Multipart(_) => 3,
            PolicyKind::Graphql(_) | PolicyKind::Injection(_) => 3,
            PolicyKind::Version(_) => 4,
            PolicyKind::Contract(it) if it.is_told_of() || it.reads_parts() => 6,
            PolicyKind::Contract(_) => 5,
            PolicyKind::Ai(_) | PolicyKind::Anomaly(_) | PolicyKind::Bot(_) | PolicyKind::Mask(_) => 6,
            PolicyKind::Portal(_) => 6,
        }
    }

    /// How it looks through what a request says; None: it goes by something else.
    pub fn look(&self) -> Option<Look> {
        let (mode, body_max, other_types) = match self {
            PolicyKind::Ip(_) | PolicyKind::Version(_) | PolicyKind::Ai(_) | PolicyKind::Mask(_) => return None,
            PolicyKind::Anomaly(_) | PolicyKind::Bot(_) | PolicyKind::Portal(_) => return None,
            PolicyKind::Json(it) => (it.mode, it.body_max, it.other_types),
            PolicyKind::Xml(it) => (it.mode, it.body_max, it.other_types),
            PolicyKind::Multipart(it) => (it.mode, it.body_max, it.other_types),
            PolicyKind::Graphql(it) => (it.mode, it.body_max, it.other_types),
            PolicyKind::Injection(it) => (it.mode, it.body_max, Tolerance::Allow),
            PolicyKind::Contract(it) => (it.strongest(), it.body_max, Tolerance::Allow),
        };
        Some(Look { mode, body_max, other_types })
    }
}

/// One of the two has something in it. Who is denied does not come in; where anybody is allowed, nobody else comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpPolicy {
    pub allow: Nets,
    pub deny: Nets,
    pub places: Places,
}

/// Networks in their order, each once. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nets(Arc<[IpNet]>);

impl Nets {
    /// Of as many as there may be.
    pub fn new(field: &str, mut nets: Vec<IpNet>) -> Result<Self, Invalid> {
        check::count(field, nets.len(), IP_NETS_MAX)?;
        nets.sort_unstable();
        nets.dedup();
        Ok(Self(nets.into()))
    }

    pub(crate) fn parse(field: &str, words: &[String]) -> Result<Self, Invalid> {
        let parse = |(place, text): (usize, &String)| net(&format!("{field}[{place}]"), text);
        Self::new(field, words.iter().enumerate().map(parse).collect::<Result<_, _>>()?)
    }

    pub fn as_slice(&self) -> &[IpNet] {
        &self.0
    }

    /// The narrowest that has this address: for people, who want to know.
    pub fn narrowest(&self, address: std::net::IpAddr) -> Option<&IpNet> {
        self.0.iter().filter(|net| net.contains(&address)).max_by_key(|net| net.prefix_len())
    }
}

/// A network without host bits, or one address. What is IPv4 in the form of IPv6 is taken as what it is.
fn net(field: &str, text: &str) -> Result<IpNet, Invalid> {
    let wrong = || Invalid::field(field).found(format!("{text:?}"));
    let Some(net) = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
    else {
        return Err(wrong().allowed("a network or an address, such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"));
    };
    if net.trunc() != net {
        return Err(wrong().allowed(format!("a network without host bits: {}", net.trunc())));
    }
    Ok(plain(net))
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
pub fn plain(net: IpNet) -> IpNet {
    let mapped = |net: Ipv6Net| {
        let prefix = net.prefix_len().checked_sub(96)?;
        Ipv4Net::new(net.network().to_ipv4_mapped()?, prefix).ok()
    };
    match net {
        IpNet::V6(it) => mapped(it).map_or(net, IpNet::V4),
        IpNet::V4(_) => net,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpWords>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xml: Option<XmlPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multipart: Option<MultipartPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graphql: Option<GraphqlPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<InjectionPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<ContractPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ai: Option<AiPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<AnomalyPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bot: Option<BotPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portal: Option<PortalPolicy>,
}

impl PolicyWords {
    pub(crate) fn new(name: Name, labels: BTreeMap<String, String>, owner: String, description: String) -> Self {
        let (ip, json, xml, multipart, graphql, injection) = (None, None, None, None, None, None);
        let (version, contract, ai, anomaly, bot, mask, portal) = (None, None, None, None, None, None, None);
        Self {
            name,
            labels,
            owner,
            description,
            ip,
            json,
            xml,
            multipart,
            graphql,
            injection,
            version,
            contract,
            ai,
            anomaly,
            bot,
            mask,
            portal,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpWords {
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    pub allow_countries: Vec<String>,
    pub deny_countries: Vec<String>,
    pub allow_asns: Vec<u32>,
    pub deny_asns: Vec<u32>,
    /// What an address counts as of which it is not known where it is.
    pub unknown_place: Nowhere,
}

impl Default for IpWords {
    fn default() -> Self {
        Self::of(Places::default(), Vec::new(), Vec::new())
    }
}

impl IpWords {
    fn of(places: Places, allow: Vec<String>, deny: Vec<String>) -> Self {
        let Places { allow_countries, deny_countries, allow_asns, deny_asns, unknown } = places;
        let shown = |list: Vec<Country>| list.iter().map(Country::to_string).collect();
        let (allow_countries, deny_countries) = (shown(allow_countries), shown(deny_countries));
        Self { allow, deny, allow_countries, deny_countries, allow_asns, deny_asns, unknown_place: unknown }
    }

    pub(crate) fn places(&self) -> Result<Places, Invalid> {
        Ok(Places {
            allow_countries: Country::parse_all("allow_countries", &self.allow_countries)?,
            deny_countries: Country::parse_all("deny_countries", &self.deny_countries)?,
            allow_asns: self.allow_asns.clone(),
            deny_asns: self.deny_asns.clone(),
            unknown: self.unknown_place,
        })
    }
}

impl TryFrom<PolicyWords> for Policy {
    type Error = Invalid;

    fn try_from(words: PolicyWords) -> Result<Self, Invalid> {
        let kind = kind(&words)?;
        Self::with(words, kind)
    }
}

fn kind(words: &PolicyWords) -> Result<PolicyKind, Invalid> {
    let ip = words.ip.as_ref().map(|ip| {
        let nets = || {
            let (allow, deny) = (Nets::parse("allow", &ip.allow)?, Nets::parse("deny", &ip.deny)?);
            IpPolicy { allow, deny, places: ip.places()? }.checked()
        };
        nets().map(PolicyKind::Ip).map_err(|invalid| invalid.under("ip"))
    });
    let json = words.json.as_ref().map(|it| it.clone().checked().map(PolicyKind::Json));
    let xml = words.xml.as_ref().map(|it| it.clone().checked().map(PolicyKind::Xml));
    let multipart = words.multipart.as_ref().map(|it| it.clone().checked().map(PolicyKind::Multipart));
    let graphql = words.graphql.as_ref().map(|it| it.clone().checked().map(PolicyKind::Graphql));
    let injection = words.injection.as_ref().map(|it| it.clone().checked().map(PolicyKind::Injection));
    let version = words.version.as_ref().map(|it| it.clone().checked().map(|it| PolicyKind::Version(it.into())));
    let contract = words.contract.as_ref().map(|it| it.clone().checked().map(|it| PolicyKind::Contract(it.into())));
    let ai = words.ai.as_ref().map(|it| it.clone().checked().map(|it| PolicyKind::Ai(it.into())));
    let anomaly = words.anomaly.as_ref().map(|it| it.clone().checked().map(|it| PolicyKind::Anomaly(it.into())));
    let bot = words.bot.as_ref().map(|it| it.clone().checked().map(PolicyKind::Bot));
    let mask = words.mask.as_ref().map(|it| it.clone().checked().map(|it| PolicyKind::Mask(it.into())));
    let portal = words.portal.as_ref().map(|it| it.clone().checked().map(|it| PolicyKind::Portal(it.into())));
    let under = |word: &'static str, it: Option<Result<_, Invalid>>| {
        it.map(|kind| kind.map_err(|invalid: Invalid| invalid.under(word)))
    };
    let all = [
        ip,
        under("json", json),
        under("xml", xml),
        under("multipart", multipart),
        under("graphql", graphql),
        under("injection", injection),
        under("version", version),
        under("contract", contract),
        under("ai", ai),
        under("anomaly", anomaly),
        under("bot", bot),
        under("mask", mask),
        under("portal", portal),
    ];
    let mut said = all.into_iter().flatten();
    let exactly_one = |found: &str| Err(Invalid::field("").found(found).allowed(format!("exactly one of {KINDS}")));
    match (said.next(), said.next()) {
        (Some(kind), None) => kind,
        (None, _) => exactly_one("none of them"),
        _ => exactly_one("several"),
    }
}

impl Policy {
    /// Every secret in it with its field.
    pub fn secrets(&self) -> Vec<(String, &Secret)> {
        match &self.kind {
            PolicyKind::Anomaly(it) => it.webhook.iter().map(|it| (ANOMALY_SECRET.to_owned(), &it.secret)).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn secrets_mut(&mut self) -> Vec<(String, &mut Secret)> {
        match &mut self.kind {
            PolicyKind::Anomaly(it) => {
                it.webhook.iter_mut().map(|it| (ANOMALY_SECRET.to_owned(), &mut it.secret)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What it asks is known already; `words` says the rest.
    pub(crate) fn with(words: PolicyWords, kind: PolicyKind) -> Result<Self, Invalid> {
        check::meta(&words.labels, &words.owner, &words.description)?;
        let PolicyWords { name, labels, owner, description, .. } = words;
        Ok(Self { name, labels, owner, description, kind })
    }
}

impl IpPolicy {
    pub fn checked(self) -> Result<Self, Invalid> {
        let places = self.places.checked()?;
        match self.allow.0.is_empty() && self.deny.0.is_empty() && places.is_empty() {
            true => {
                let allowed = "networks in allow, deny or both, or countries or systems";
                Err(Invalid::field("allow").found("nothing").allowed(allowed))
            }
            false => Ok(Self { places, ..self }),
        }
    }
}

impl From<Policy> for PolicyWords {
    fn from(it: Policy) -> Self {
        let nets = |nets: &Nets| nets.0.iter().map(ToString::to_string).collect();
        let words = Self::new(it.name, it.labels, it.owner, it.description);
        match it.kind {
            PolicyKind::Ip(ip) => {
                Self { ip: Some(IpWords::of(ip.places.clone(), nets(&ip.allow), nets(&ip.deny))), ..words }
            }
            PolicyKind::Json(it) => Self { json: Some(it), ..words },
            PolicyKind::Xml(it) => Self { xml: Some(it), ..words },
            PolicyKind::Multipart(it) => Self { multipart: Some(it), ..words },
            PolicyKind::Graphql(it) => Self { graphql: Some(it), ..words },
            PolicyKind::Injection(it) => Self { injection: Some(it), ..words },
            PolicyKind::Version(it) => Self { version: Some(*it), ..words },
            PolicyKind::Contract(it) => Self { contract: Some(*it), ..words },
            PolicyKind::Ai(it) => Self { ai: Some(*it), ..words },
            PolicyKind::Anomaly(it) => Self { anomaly: Some(*it), ..words },
            PolicyKind::Bot(it) => Self { bot: Some(it), ..words },
            PolicyKind::Mask(it) => Self { mask: Some(*it), ..words },
            PolicyKind::Portal(it) => Self { portal: Some(*it), ..words },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Kind;

    #[test]
    fn lists_are_ordered_and_a_mistake_names_its_place() {
        let policy = |ip: serde_json::Value| Kind::Policy.parse(json!({ "name": "p", "ip": ip }));
        let it =
            policy(json!({ "allow": ["::ffff:10.0.0.0/104", "192.0.2.7", "10.0.0.0/8", "2001:db8::/32"] })).unwrap();
        let expected = json!({
            "name": "p", "labels": {}, "owner": "", "description": "",
            "ip": {
                "allow": ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"], "deny": [], "allow_countries": [],
                "deny_countries": [], "allow_asns": [], "deny_asns": [], "unknown_place": "unlisted",
            },
        });
        assert_eq!(serde_json::to_value(&it).unwrap(), expected);
        for (ip, mention) in [
            (json!({}), "ip.allow: found nothing"),
            (
                json!({ "deny": ["10.0.0.1/8"] }),
                "ip.deny[0]: found \"10.0.0.1/8\"; allowed: a network without host bits",
            ),
            (json!({ "allow": ["10.0.0.0/8", "x"] }), "ip.allow[1]: found \"x\""),
            (json!({ "alow": [] }), "unknown field `alow`"),
            (json!({ "deny_countries": ["Germany"] }), "two letters of ISO 3166-1"),
            (json!({ "deny_countries": ["de", "DE"] }), "ip.deny_countries[1]"),
            (json!({ "allow_asns": [1, 1] }), "ip.allow_asns[1]"),
        ] {
            let error = policy(ip).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
        let error = Kind::Policy.parse(json!({ "name": "p" })).unwrap_err().to_string();
        assert!(error.contains("exactly one of ip"), "{error}");
        let both = json!({ "name": "p", "ip": { "deny": ["10.0.0.0/8"] }, "json": {} });
        let error = Kind::Policy.parse(both).unwrap_err().to_string();
        assert!(error.contains("found several; allowed: exactly one of ip"), "{error}");
    }
}
