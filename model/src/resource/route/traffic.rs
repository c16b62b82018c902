//! What becomes of a route's traffic on the way: split over upstreams, mirrored, shown to other origins, compressed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::super::{Name, check, is_host, word::word_enum};
use crate::{
    invalid::Invalid,
    units::{Moment, Size, Span},
};

/// How many upstreams one route may split its traffic over.
pub const SPLIT_ARMS_MAX: usize = 64;
pub const SPLIT_WEIGHT_MAX: u32 = 1_000_000;
pub const RAMP_STEPS_MAX: u32 = 1_000;
/// The longest ramp, and the longest time that a browser may keep an arm's cookie.
pub const RAMP_MAX: Span = Span::secs(365 * 24 * 3600);
pub const CORS_ORIGINS_MAX: usize = 256;
/// The largest request body that may be sent a second time, to a mirror.
pub const MIRROR_BODY_MAX: Size = Size(1 << 20);
pub const MIRROR_BODY_DEFAULT: Size = Size(64 << 10);
/// The largest answer that a cache may be told to keep.
pub const CACHE_OBJECT_MAX: Size = Size(4 << 20);
pub const CACHE_OBJECT_MAX_DEFAULT: Size = Size(1 << 20);
pub const COMPRESSION_MIN_SIZE_DEFAULT: Size = Size(1 << 10);

/// Traffic dealt out to several upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// At least one, each upstream once; the weights' sum is not 0.
    pub arms: Vec<Arm>,
    /// What meets the same arm each time. None: every request draws.
    pub on: Option<SplitOn>,
    pub ramp: Option<Ramp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    pub upstream: Name,
    /// 0..=1,000,000.
    pub weight: u32,
    /// The weight before the ramp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitOn {
    Consumer,
    Credential,
    Ip,
    /// Lower case.
    Header(String),
    /// With `ttl` a client without one is given one.
    Cookie {
        name: String,
        ttl: Option<Span>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SplitOnWords {
    Word(SplitOnWord),
    Object(SplitOnObject),
}

word_enum!(SplitOnWord {
    Consumer = "consumer",
    Credential = "credential",
    Ip = "ip",
});

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitOnObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
}

/// From the arms' `from` to their weights, in equal steps. By the wall clock: it goes on on a node that is cut off, and
/// what two nodes' clocks differ by, they differ about those only who move in that step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    pub start: Moment,
    pub duration: Span,
    #[serde(default = "Ramp::steps_default")]
    pub steps: u32,
}

/// A copy of some requests for another upstream, whose answers nobody sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    pub upstream: Name,
    /// 1..=100.
    #[serde(default = "Mirror::percent_default")]
    pub percent: u32,
    /// Requests with larger bodies are not mirrored.
    #[serde(default = "Mirror::body_max_default")]
    pub body_max: Size,
}

/// Which pages of other origins may call (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    pub origins: Vec<OriginPattern>,
    /// Upper case, or `*`. Empty: those that the route takes.
    pub methods: Vec<String>,
    /// Lower case, or `*`: what requests may have beside what every page may send.
    pub headers: Vec<String>,
    /// Lower case, or `*`: what pages may read of answers beside what every page may read.
    pub expose_headers: Vec<String>,
    /// Cookies and HTTP authentication may come along.
    pub credentials: bool,
    /// How long browsers may remember the answer to a preflight. None: as long as they like.
    pub max_age: Option<Span>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorsWords {
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose_headers: Vec<String>,
    pub credentials: bool,
    pub max_age: Option<Span>,
}

/// `https://app.acme.test`, `https://*.acme.test`, `null` or `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OriginPattern {
    Any,
    Exact(String),
    /// `https://*.acme.test:8443`: in front of the asterisk and behind it.
    Subdomains {
        before: String,
        after: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// In order of preference where the client has none; at least one.
    pub algorithms: Vec<Coding>,
    /// Media types, also `text/*`.
    pub types: Vec<String>,
    /// Answers that are known to be smaller stay as they are.
    pub min_size: Size,
}

/// Answers that every node keeps for the next who asks (RFC 9111).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// How long answers are fresh that do not say so. None: they are asked about each time, or not kept.
    pub default_ttl: Option<Span>,
    /// Larger answers are not kept.
    pub object_max: Size,
    /// Windows of RFC 5861, where the answer does not say longer ones and does not forbid them.
    pub stale_while_revalidate: Option<Span>,
    pub stale_if_error: Option<Span>,
}

word_enum!(Coding {
    Gzip = "gzip",
    Br = "br",
    Zstd = "zstd",
});

/// What texts are sent as; streams of events only where they are asked for by name.
const TYPES_DEFAULT: [&str; 12] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/xml",
    "application/*+xml",
    "application/javascript",
    "application/x-ndjson",
    "application/graphql-response+json",
    "application/yaml",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
];

impl Split {
    /// The weights before the ramp: where no arm says any, the first has all.
    pub fn begins(&self) -> impl Iterator<Item = u64> + Clone {
        let said = self.arms.iter().any(|arm| arm.from.is_some());
        let begin = move |(place, arm): (usize, &Arm)| match said {
            true => arm.from.unwrap_or(0).into(),
            false => u64::from(place == 0),
        };
        self.arms.iter().enumerate().map(begin)
    }

    pub(super) fn parse(arms: Vec<Arm>, on: Option<SplitOn>, ramp: Option<Ramp>) -> Result<Self, Invalid> {
        if arms.is_empty() {
            return Err(Invalid::field("split").found("none").allowed("at least one upstream with its weight"));
        }
        check::count("split", arms.len(), SPLIT_ARMS_MAX)?;
        for (place, arm) in arms.iter().enumerate() {
            check::number(&format!("split[{place}].weight"), arm.weight, 0, SPLIT_WEIGHT_MAX)?;
            if let Some(from) = arm.from {
                let field = format!("split[{place}].from");
                check::number(&field, from, 0, SPLIT_WEIGHT_MAX)?;
                if ramp.is_none() {
                    return Err(Invalid::field(field).found(from).allowed("a weight to begin with only beside ramp"));
                }
            }
            if arms[..place].iter().any(|it| it.upstream == arm.upstream) {
                let field = format!("split[{place}].upstream");
                return Err(Invalid::field(field).found(&arm.upstream).allowed("each upstream once"));
            }
        }
        if arms.iter().all(|arm| arm.weight == 0) {
            return Err(Invalid::field("split").found("no weight above 0").allowed("at least one"));
        }
        let split = Self { arms, on, ramp };
        if split.begins().all(|weight| weight == 0) {
            return Err(Invalid::field("split").found("no `from` above 0").allowed("at least one, or none at all"));
        }
        if let Some(ramp) = &split.ramp {
            check::span_up_to("ramp.duration", ramp.duration, Span::secs(1), RAMP_MAX)?;
            check::number("ramp.steps", ramp.steps, 1, RAMP_STEPS_MAX)?;
        }
        Ok(split)
    }
}

impl Ramp {
    pub fn steps_default() -> u32 {
        10
    }
}

impl TryFrom<SplitOnWords> for SplitOn {
    type Error = Invalid;

    fn try_from(words: SplitOnWords) -> Result<Self, Invalid> {
        const FIELDS: &str = "exactly one of header, cookie";
        let it = match words {
            SplitOnWords::Word(SplitOnWord::Consumer) => return Ok(Self::Consumer),
            SplitOnWords::Word(SplitOnWord::Credential) => return Ok(Self::Credential),
            SplitOnWords::Word(SplitOnWord::Ip) => return Ok(Self::Ip),
            SplitOnWords::Object(it) => it,
        };
        match (it.header, it.cookie) {
            (Some(name), None) if it.ttl.is_none() => Ok(Self::Header(check::header_name("header", &name)?)),
            (Some(_), None) => Err(Invalid::field("ttl").found("it beside header").allowed("ttl only beside cookie")),
            (None, Some(name)) => {
                if !check::is_token(&name) {
                    return Err(Invalid::field("cookie").found(format!("{name:?}")).allowed("a cookie's name"));
                }
                check::length("cookie", &name, check::WORD_BYTES_MAX)?;
                if let Some(ttl) = it.ttl {
                    check::span_up_to("ttl", ttl, Span::secs(1), RAMP_MAX)?;
                }
                Ok(Self::Cookie { name, ttl: it.ttl })
            }
            (None, None) => Err(Invalid::field("").found("none of them").allowed(FIELDS)),
            (Some(_), Some(_)) => Err(Invalid::field("cookie").found("header and cookie").allowed(FIELDS)),
        }
    }
}

impl From<SplitOn> for SplitOnWords {
    fn from(on: SplitOn) -> Self {
        let none = SplitOnObject::default();
        match on {
            SplitOn::Consumer => Self::Word(SplitOnWord::Consumer),
            SplitOn::Credential => Self::Word(SplitOnWord::Credential),
            SplitOn::Ip => Self::Word(SplitOnWord::Ip),
            SplitOn::Header(name) => Self::Object(SplitOnObject { header: Some(name), ..none }),
            SplitOn::Cookie { name, ttl } => Self::Object(SplitOnObject { cookie: Some(name), ttl, ..none }),
        }
    }
}

impl fmt::Display for SplitOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consumer => f.write_str("consumer"),
            Self::Credential => f.write_str("credential"),
            Self::Ip => f.write_str("ip"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie { name, .. } => write!(f, "cookie {name}"),
        }
    }
}

impl Mirror {
    pub fn percent_default() -> u32 {
        100
    }

    pub fn body_max_default() -> Size {
        MIRROR_BODY_DEFAULT
    }

    pub(super) fn checked(self) -> Result<Self, Invalid> {
        check::number("percent", self.percent, 1, 100)?;
        match self.body_max <= MIRROR_BODY_MAX {
            true => Ok(self),
            false => Err(Invalid::field("body_max").found(self.body_max).allowed(format!("at most {MIRROR_BODY_MAX}"))),
        }
    }
}

impl TryFrom<CorsWords> for Cors {
    type Error = Invalid;

    fn try_from(words: CorsWords) -> Result<Self, Invalid> {
        if words.origins.is_empty() {
            return Err(Invalid::field("origins").found("none").allowed("at least one, such as https://app.acme.test"));
        }
        check::count("origins", words.origins.len(), CORS_ORIGINS_MAX)?;
        let origin = |(place, text): (usize, &String)| {
            text.parse::<OriginPattern>().map_err(|invalid| invalid.under(format!("origins[{place}]")))
        };
        let origins = words.origins.iter().enumerate().map(origin).collect::<Result<Vec<_>, _>>()?;
        check::once("origins", &origins, OriginPattern::to_string)?;
        let any_origin = origins.contains(&OriginPattern::Any);
        if any_origin && origins.len() > 1 {
            return Err(Invalid::field("origins").found("* beside others").allowed("* alone, or origins without it"));
        }
        let cors = Self {
            origins,
            methods: starred("methods", words.methods, check::method)?,
            headers: starred("headers", words.headers, check::header_name)?,
            expose_headers: starred("expose_headers", words.expose_headers, check::header_name)?,
            credentials: words.credentials,
            max_age: words.max_age,
        };
        if let Some(max_age) = cors.max_age {
            check::span_or_zero("max_age", max_age)?;
        }
        // To browsers an asterisk beside credentials is a name like any other (Fetch, 3.3.5).
        let star = |list: &[String]| list.iter().any(|it| it == "*");
        let starred = [
            ("origins", any_origin),
            ("methods", star(&cors.methods)),
            ("headers", star(&cors.headers)),
            ("expose_headers", star(&cors.expose_headers)),
        ];
        match starred.into_iter().find(|(_, starred)| *starred && cors.credentials) {
            Some((field, _)) => {
                Err(Invalid::field(field).found("*").allowed("names one by one where credentials is true"))
            }
            None => Ok(cors),
        }
    }
}

impl From<Cors> for CorsWords {
    fn from(it: Cors) -> Self {
        Self {
            origins: it.origins.iter().map(OriginPattern::to_string).collect(),
            methods: it.methods,
            headers: it.headers,
            expose_headers: it.expose_headers,
            credentials: it.credentials,
            max_age: it.max_age,
        }
    }
}

/// Names, each once, or `*`.
fn starred(
    list: &str,
    words: Vec<String>,
    parse: fn(&str, &str) -> Result<String, Invalid>,
) -> Result<Vec<String>, Invalid> {
    check::count(list, words.len(), check::CONDITIONS_MAX)?;
    let names = words.iter().enumerate().map(|(place, text)| parse(&format!("{list}[{place}]"), text));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    check::once(list, &names, String::clone)?;
    Ok(names)
}

impl OriginPattern {
    const ALLOWED: &str = "an origin as browsers send it, such as https://app.acme.test or http://localhost:3000; \
                           https://*.acme.test, null or *";

    /// `origin`: the value of the header field, as it came.
    pub fn takes(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => text == origin,
            Self::Subdomains { before, after } => {
                let rest = origin.strip_prefix(before.as_str());
                let name = rest.and_then(|rest| rest.strip_suffix(after.as_str()));
                // The dot is in `after`: a name that ends in one, or holds what no host does, is no subdomain.
                name.is_some_and(|name| is_host(name) && !name.ends_with('.'))
            }
        }
    }
}

impl FromStr for OriginPattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |allowed: &str| Err(Invalid::field("").found(format!("{text:?}")).allowed(allowed));
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Exact(text.to_owned())),
            _ => {}
        }
        let Some((scheme, authority)) = text.split_once("://") else { return wrong(Self::ALLOWED) };
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b);
        let named = scheme.starts_with(|c: char| c.is_ascii_lowercase()) && scheme.bytes().all(plain);
        if !named || authority.bytes().any(|b| b.is_ascii_uppercase()) || text.len() > check::WORD_BYTES_MAX {
            return wrong(Self::ALLOWED);
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        match port.map(str::parse::<u16>) {
            Some(Err(_)) => return wrong(Self::ALLOWED),
            Some(Ok(port)) if matches!((scheme, port), ("http", 80) | ("https", 443)) => {
                return wrong("the origin without its scheme's own port, as browsers send it");
            }
            _ => {}
        }
        if let Some(domain) = host.strip_prefix("*.") {
            if !is_host(domain) {
                return wrong(Self::ALLOWED);
            }
            let after = authority.strip_prefix('*').expect("the host begins with it");
            return Ok(Self::Subdomains { before: format!("{scheme}://"), after: after.to_owned() });
        }
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match is_host(host) || v6.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok()) {
            true => Ok(Self::Exact(text.to_owned())),
            false => wrong(Self::ALLOWED),
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Subdomains { before, after } => write!(f, "{before}*{after}"),
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            algorithms: vec![Coding::Zstd, Coding::Br, Coding::Gzip],
            types: TYPES_DEFAULT.map(str::to_owned).to_vec(),
            min_size: COMPRESSION_MIN_SIZE_DEFAULT,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            default_ttl: None,
            object_max: CACHE_OBJECT_MAX_DEFAULT,
            stale_while_revalidate: None,
            stale_if_error: None,
        }
    }
}

impl Cache {
    pub(super) fn checked(self) -> Result<Self, Invalid> {
        let spans = [
            ("default_ttl", self.default_ttl),
            ("stale_while_revalidate", self.stale_while_revalidate),
            ("stale_if_error", self.stale_if_error),
        ];
        for (field, span) in spans {
            if let Some(span) = span {
                check::span_up_to(field, span, Span::default(), RAMP_MAX)?;
            }
        }
        match self.object_max <= CACHE_OBJECT_MAX {
            true => Ok(self),
            false => {
                Err(Invalid::field("object_max").found(self.object_max).allowed(format!("at most {CACHE_OBJECT_MAX}")))
            }
        }
    }
}

impl Compression {
    pub(super) fn checked(mut self) -> Result<Self, Invalid> {
        if self.algorithms.is_empty() {
            return Err(Invalid::field("algorithms").found("none").allowed(check::words(Coding::ALL, Coding::word)));
        }
        check::once("algorithms", &self.algorithms, |it| it.word().to_owned())?;
        check::count("types", self.types.len(), check::CONDITIONS_MAX)?;
        for (place, text) in self.types.iter_mut().enumerate() {
            *text = text.to_ascii_lowercase();
            let parts = text.split_once('/');
            let named = |part: &str| !part.is_empty() && part.split('*').all(|it| it.is_empty() || check::is_token(it));
            if !parts.is_some_and(|(kind, subtype)| check::is_token(kind) && kind != "*" && named(subtype))
                || text.matches('*').count() > 1
            {
                return Err(Invalid::field(format!("types[{place}]"))
                    .found(format!("{text:?}"))
                    .allowed("a media type such as application/json, text/* or application/*+json"));
            }
        }
        check::once("types", &self.types, String::clone)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_and_compared_as_browsers_send_them() {
        for (pattern, origin, expected) in [
            ("https://app.acme.test", "https://app.acme.test", true),
            ("https://app.acme.test", "http://app.acme.test", false),
            ("https://app.acme.test", "https://app.acme.test:8443", false),
            ("https://app.acme.test", "https://app.acme.test.evil.test", false),
            ("https://*.acme.test", "https://app.acme.test", true),
            ("https://*.acme.test", "https://a.b.acme.test", true),
            ("https://*.acme.test", "https://acme.test", false),
            ("https://*.acme.test", "https://evilacme.test", false),
            ("https://*.acme.test", "https://.acme.test", false),
            ("https://*.acme.test", "https://evil.test/x.acme.test", false),
            ("https://*.acme.test:8443", "https://app.acme.test:8443", true),
            ("https://*.acme.test:8443", "https://app.acme.test", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("null", "null", true),
            ("*", "https://anyone.test", true),
        ] {
            let parsed: OriginPattern = pattern.parse().unwrap();
            assert_eq!(parsed.to_string(), pattern);
            assert_eq!(parsed.takes(origin), expected, "{pattern} {origin}");
        }
        for wrong in [
            "",
            "app.acme.test",
            "https://",
            "https://App.acme.test",
            "https://a.test/",
            "https://a.test:443",
            "http://a.test:80",
            "https://a.test:x",
            "https://*",
            "https://*.",
            "https://a.*.test",
            "https://*.*.test",
            "HTTPS://a.test",
            "https://u@a.test",
        ] {
            assert!(wrong.parse::<OriginPattern>().is_err(), "{wrong}");
        }
    }
}
