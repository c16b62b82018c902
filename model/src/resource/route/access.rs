//! Who may use a route: by which proofs, and under which rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    super::{Name, check, word::word_enum},
    words,
};
use crate::invalid::Invalid;

/// How many auths a route may name.
pub const ROUTE_AUTHS_MAX: usize = 8;
/// How many rules a route may have.
pub const AUTHORIZE_RULES_MAX: usize = 64;
/// How many limits a route may name.
pub const ROUTE_LIMITS_MAX: usize = 16;
/// Bytes of a CEL expression.
pub const CEL_BYTES_MAX: usize = 4 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RouteAuthWords", into = "RouteAuthWords")]
pub struct RouteAuth {
    pub combine: Combine,
    /// Names of auths, in the order in which they are tried; at least one.
    pub names: Vec<Name>,
    /// The consumer that a request without credentials counts as. Wrong credentials are refused all the same.
    pub anonymous: Option<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    AnyOf,
    AllOf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteAuthWords {
    #[serde(default)]
    pub any_of: Option<Vec<Name>>,
    #[serde(default)]
    pub all_of: Option<Vec<Name>>,
    #[serde(default)]
    pub anonymous: Option<Name>,
}

/// The first allow or deny whose condition holds decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AuthorizeWords", into = "AuthorizeWords")]
pub struct AuthorizeRule {
    /// What logs and `explain` call it; None: its place in the list.
    pub name: Option<Name>,
    pub effect: Effect,
    pub condition: Condition,
}

word_enum!(Effect {
    Allow = "allow",
    Deny = "deny",
    /// Decides nothing: says in the log what it would have matched.
    Log = "log",
});

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizeWords {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<ConditionWords>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<ConditionWords>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<ConditionWords>,
}

/// Holds when everything that is given holds; an empty one always does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    pub scopes_all: Vec<String>,
    pub scopes_any: Vec<String>,
    /// The claim has one of these values (as text), or is a list that holds one.
    pub claims: BTreeMap<String, Vec<String>>,
    pub consumers: Vec<Name>,
    pub groups: Vec<String>,
    /// Upper case.
    pub methods: Vec<String>,
    /// Prefixes of whole segments, canonical.
    pub paths: Vec<String>,
    pub cidrs: Vec<ipnet::IpNet>,
    /// Compiled by the node, which refuses a wrong one before it is proposed.
    pub cel: Option<String>,
    /// Path parameter to what it must equal. A side that is missing denies.
    pub params_equal: BTreeMap<String, ParamSource>,
}

/// `jwt.sub`, `consumer.name`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamSource {
    Claim(String),
    ConsumerName,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConditionWords {
    pub scopes_all: Vec<String>,
    pub scopes_any: Vec<String>,
    pub claims: BTreeMap<String, OneOrMany>,
    pub consumers: Vec<Name>,
    pub groups: Vec<String>,
    pub methods: Vec<String>,
    pub paths: Vec<String>,
    pub cidrs: Vec<String>,
    pub cel: Option<String>,
    pub params_equal: BTreeMap<String, String>,
}

/// A text, or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A standard endpoint that the gateway serves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receive {
    pub receiver: Receiver,
    pub auth: Name,
}

word_enum!(Receiver {
    /// RFC 7009.
    Revocation = "revocation",
    /// OpenID Connect Back-Channel Logout 1.0.
    BackchannelLogout = "backchannel_logout",
    /// RFC 8935.
    SecurityEvents = "security_events",
    Jwks = "jwks",
    LoginCallback = "login_callback",
    /// Pages for developers, as a policy of kind `portal` says.
    Portal = "portal",
});

const COMBINE_FIELDS: &str = "exactly one of any_of, all_of";
const EFFECT_FIELDS: &str = "exactly one of allow, deny, log";
const SOURCES: &str = "jwt. and a claim, such as jwt.sub, or consumer.name";

impl TryFrom<RouteAuthWords> for RouteAuth {
    type Error = Invalid;

    fn try_from(it: RouteAuthWords) -> Result<Self, Invalid> {
        let (field, combine, names) = match (it.any_of, it.all_of) {
            (Some(names), None) => ("any_of", Combine::AnyOf, names),
            (None, Some(names)) => ("all_of", Combine::AllOf, names),
            (None, None) => return Err(Invalid::field("").found("none of them").allowed(COMBINE_FIELDS)),
            (Some(_), Some(_)) => {
                return Err(Invalid::field("all_of").found("any_of and all_of").allowed(COMBINE_FIELDS));
            }
        };
        if names.is_empty() {
            return Err(Invalid::field(field).found("none").allowed("the name of at least one auth"));
        }
        check::count(field, names.len(), ROUTE_AUTHS_MAX)?;
        check::once(field, &names, Name::to_string)?;
        Ok(Self { combine, names, anonymous: it.anonymous })
    }
}

impl From<RouteAuth> for RouteAuthWords {
    fn from(it: RouteAuth) -> Self {
        let (any_of, all_of) = match it.combine {
            Combine::AnyOf => (Some(it.names), None),
            Combine::AllOf => (None, Some(it.names)),
        };
        Self { any_of, all_of, anonymous: it.anonymous }
    }
}

impl TryFrom<AuthorizeWords> for AuthorizeRule {
    type Error = Invalid;

    fn try_from(it: AuthorizeWords) -> Result<Self, Invalid> {
        let given = [(Effect::Allow, it.allow), (Effect::Deny, it.deny), (Effect::Log, it.log)];
        let mut given = given.into_iter().filter_map(|(effect, words)| Some((effect, words?)));
        let Some((effect, words)) = given.next() else {
            return Err(Invalid::field("").found("none of them").allowed(EFFECT_FIELDS));
        };
        if let Some((second, _)) = given.next() {
            let found = format!("{} and {}", effect.word(), second.word());
            return Err(Invalid::field(second.word()).found(found).allowed(EFFECT_FIELDS));
        }
        let condition = words.parse().map_err(|invalid| invalid.under(effect.word()))?;
        Ok(Self { name: it.name, effect, condition })
    }
}

impl From<AuthorizeRule> for AuthorizeWords {
    fn from(it: AuthorizeRule) -> Self {
        let words = Some(ConditionWords::from(it.condition));
        let none = Self { name: it.name, allow: None, deny: None, log: None };
        match it.effect {
            Effect::Allow => Self { allow: words, ..none },
            Effect::Deny => Self { deny: words, ..none },
            Effect::Log => Self { log: words, ..none },
        }
    }
}

impl ConditionWords {
    fn parse(self) -> Result<Condition, Invalid> {
        check::tags("scopes_all", &self.scopes_all, check::CONDITIONS_MAX)?;
        check::tags("scopes_any", &self.scopes_any, check::CONDITIONS_MAX)?;
        check::tags("groups", &self.groups, check::CONDITIONS_MAX)?;
        check::count("consumers", self.consumers.len(), check::LIST_MAX)?;
        check::once("consumers", &self.consumers, Name::to_string)?;
        check::count("claims", self.claims.len(), check::CONDITIONS_MAX)?;
        let mut claims = BTreeMap::new();
        for (claim, values) in self.claims {
            let field = format!("claims.{claim}");
            check::text(&field, &claim, check::WORD_BYTES_MAX)?;
            let values = values.list();
            if values.is_empty() {
                return Err(Invalid::field(field).found("no value").allowed("at least one"));
            }
            check::count(&field, values.len(), check::CONDITIONS_MAX)?;
            values.iter().try_for_each(|value| check::length(&field, value, check::VALUE_BYTES_MAX))?;
            check::once(&field, &values, String::clone)?;
            claims.insert(claim, values);
        }
        check::count("paths", self.paths.len(), check::CONDITIONS_MAX)?;
        let paths = self.paths.iter().enumerate();
        let paths = paths.map(|(place, path)| words::parse_prefix(&format!("paths[{place}]"), path));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        check::once("paths", &paths, String::clone)?;
        if let Some(cel) = &self.cel {
            check::length("cel", cel, CEL_BYTES_MAX)?;
            if cel.trim().is_empty() {
                return Err(Invalid::field("cel").found("nothing").allowed("a CEL expression that is true or false"));
            }
        }
        check::count("params_equal", self.params_equal.len(), check::CONDITIONS_MAX)?;
        let source = |(param, text): (String, String)| Ok((param.clone(), source(&param, &text)?));
        Ok(Condition {
            scopes_all: self.scopes_all,
            scopes_any: self.scopes_any,
            claims,
            consumers: self.consumers,
            groups: self.groups,
            methods: words::methods(&self.methods)?,
            paths,
            cidrs: words::cidrs("cidrs", &self.cidrs)?,
            cel: self.cel,
            params_equal: self.params_equal.into_iter().map(source).collect::<Result<_, Invalid>>()?,
        })
    }
}

fn source(param: &str, text: &str) -> Result<ParamSource, Invalid> {
    let field = format!("params_equal.{param}");
    check::length(&field, text, check::WORD_BYTES_MAX)?;
    match text.strip_prefix("jwt.") {
        Some(claim) if !claim.is_empty() => Ok(ParamSource::Claim(claim.to_owned())),
        None if text == "consumer.name" => Ok(ParamSource::ConsumerName),
        _ => Err(Invalid::field(field).found(format!("{text:?}")).allowed(SOURCES)),
    }
}

impl Combine {
    pub fn word(self) -> &'static str {
        match self {
            Self::AnyOf => "any_of",
            Self::AllOf => "all_of",
        }
    }
}

impl OneOrMany {
    pub fn list(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

impl From<Vec<String>> for OneOrMany {
    fn from(mut list: Vec<String>) -> Self {
        match list.len() {
            1 => OneOrMany::One(list.remove(0)),
            _ => OneOrMany::Many(list),
        }
    }
}

impl From<Condition> for ConditionWords {
    fn from(it: Condition) -> Self {
        Self {
            scopes_all: it.scopes_all,
            scopes_any: it.scopes_any,
            claims: it.claims.into_iter().map(|(claim, values)| (claim, values.into())).collect(),
            consumers: it.consumers,
            groups: it.groups,
            methods: it.methods,
            paths: it.paths,
            cidrs: it.cidrs.iter().map(ipnet::IpNet::to_string).collect(),
            cel: it.cel,
            params_equal: it.params_equal.into_iter().map(|(param, it)| (param, it.to_string())).collect(),
        }
    }
}

impl std::fmt::Display for ParamSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParamSource::Claim(claim) => write!(f, "jwt.{claim}"),
            ParamSource::ConsumerName => f.write_str("consumer.name"),
        }
    }
}
