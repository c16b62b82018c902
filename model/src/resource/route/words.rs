//! The flat words of a route in a file, where one of several fields may be given, and the checks that make a `Route`
//! of them. The admin API takes the same way, so that there is one checker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    super::{Name, ROUTE_POLICIES_MAX, check},
    AUTHORIZE_RULES_MAX, Action, Arm, AuthorizeRule, AuthorizeWords, BodyLimit, BodyRewrites, Cache, Compression, Cors,
    CorsWords, EncodedSlash, FieldMatch, FieldTest, HeaderEdits, HeaderRewrites, HostPattern, HostRewrite, Match,
    Mirror, OnStale, PathPattern, QueryEdits, ROUTE_LIMITS_MAX, Ramp, Receive, Receiver, Redirect, Respond, Rewrite,
    Route, RouteAuth, RouteAuthWords, RouteRetries, RouteTimeouts, SecurityHeaders, Split, SplitOn, SplitOnWords,
};
use crate::{invalid::Invalid, resource::Authority, ruleset, units::Size};

/// Bytes of a body that a route answers with.
pub const RESPOND_BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a text that goes on in the place of a body.
pub const REWRITE_TEXT_BYTES_MAX: usize = 64 << 10;
/// Of `rewrite.body.max`: as much of each such exchange is held.
pub const REWRITE_BODY_MAX: Size = Size(16 << 20);

/// Of `body.max` beside `body.buffer`: as much of each such exchange is held.
pub const BUFFER_BODY_MAX: Size = Size(64 << 20);

const ACTION_FIELDS: &str = "exactly one of upstream, split, redirect, respond";
const PATH_FIELDS: &str = "at most one of path_prefix, path_exact, path_template, path_regex";
const TEST_FIELDS: &str = "exactly one of exact: text, regex: text, present: true, absent: true";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub priority: i32,
    #[serde(default, rename = "match")]
    pub matches: MatchWords,
    #[serde(default)]
    pub upstream: Option<Name>,
    #[serde(default)]
    pub split: Option<Vec<Arm>>,
    #[serde(default)]
    pub split_on: Option<SplitOnWords>,
    #[serde(default)]
    pub ramp: Option<Ramp>,
    #[serde(default)]
    pub redirect: Option<Redirect>,
    #[serde(default)]
    pub respond: Option<RespondWords>,
    #[serde(default)]
    pub rewrite: Rewrite,
    /// Never of a route that the cluster has agreed on: there they are edits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_headers: Option<SecurityHeaders>,
    #[serde(default)]
    pub auth: Option<RouteAuthWords>,
    #[serde(default)]
    pub authorize: Vec<AuthorizeWords>,
    /// None: as `OnStale::default_with` says.
    #[serde(default)]
    pub on_stale: Option<OnStale>,
    #[serde(default)]
    pub encoded_slash: EncodedSlash,
    #[serde(default)]
    pub access_log: Option<bool>,
    #[serde(default)]
    pub limits: Vec<Name>,
    #[serde(default)]
    pub body: BodyLimit,
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    #[serde(default)]
    pub retries: RouteRetries,
    #[serde(default)]
    pub mirror: Option<Mirror>,
    #[serde(default)]
    pub cors: Option<CorsWords>,
    #[serde(default)]
    pub compression: Option<Compression>,
    #[serde(default)]
    pub cache: Option<Cache>,
    #[serde(default)]
    pub policies: Vec<Name>,
}

/// A fixed answer, or a standard endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RespondWords {
    /// None: 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    pub body: String,
    pub headers: BTreeMap<String, String>,
    pub receiver: Option<Receiver>,
    pub auth: Option<Name>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MatchWords {
    pub hosts: Vec<String>,
    pub path_prefix: Option<String>,
    pub path_exact: Option<String>,
    pub path_template: Option<String>,
    pub path_regex: Option<String>,
    pub methods: Vec<String>,
    pub headers: Vec<FieldWords>,
    pub query: Vec<FieldWords>,
    pub cookies: Vec<FieldWords>,
    pub client_cidrs: Vec<String>,
    pub sni: Vec<String>,
    pub listeners: Vec<Name>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldWords {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<bool>,
}

impl TryFrom<RouteWords> for Route {
    type Error = Invalid;

    fn try_from(words: RouteWords) -> Result<Self, Invalid> {
        let route = words.uncompiled()?;
        ruleset::check(&route)?;
        Ok(route)
    }
}

impl RouteWords {
    /// All checks but those of `ruleset::check`: for a route that the cluster has agreed on already, which this node
    /// must hold even if it cannot compile it.
    pub fn uncompiled(self) -> Result<Route, Invalid> {
        let words = self;
        check::meta(&words.labels, &words.owner, &words.description)?;
        let matches = words.matches.parse().map_err(|invalid| invalid.under("match"))?;
        let split = split(words.split, words.split_on, words.ramp)?;
        let action = action(words.upstream, split, words.redirect, words.respond)?;
        let mirror = words.mirror.map(Mirror::checked).transpose().map_err(|invalid| invalid.under("mirror"))?;
        if let (Some(mirror), Action::Redirect(_) | Action::Respond(_) | Action::Receive(_)) = (&mirror, &action) {
            return Err(Invalid::field("mirror").found(&mirror.upstream).allowed("only beside upstream or split"));
        }
        let cors = words.cors.map(Cors::try_from).transpose().map_err(|invalid| invalid.under("cors"))?;
        let compression = words.compression.map(Compression::checked).transpose();
        let mut rewrite = rewrite(words.rewrite, &matches.path).map_err(|invalid| invalid.under("rewrite"))?;
        if let Some(preset) = words.security_headers {
            let edits = &mut rewrite.headers.response;
            preset.set(edits);
            check::count("rewrite.headers.response.set", edits.set.len(), check::HEADER_EDITS_MAX)?;
        }
        let auth = words.auth.map(RouteAuth::try_from).transpose().map_err(|invalid| invalid.under("auth"))?;
        let authorize = authorize(words.authorize, &matches.path)?;
        check::count("limits", words.limits.len(), ROUTE_LIMITS_MAX)?;
        check::once("limits", &words.limits, Name::to_string)?;
        check::count("policies", words.policies.len(), ROUTE_POLICIES_MAX)?;
        check::once("policies", &words.policies, Name::to_string)?;
        buffered(&words.body).map_err(|invalid| invalid.under("body"))?;
        check::span_or_zero("timeouts.total", words.timeouts.total)?;
        if let Some(attempts) = words.retries.attempts {
            check::number("retries.attempts", attempts, 0, check::ATTEMPTS_MAX)?;
        }
        Ok(Route {
            name: words.name,
            labels: words.labels,
            owner: words.owner,
            description: words.description,
            priority: words.priority,
            matches,
            action,
            rewrite,
            on_stale: words.on_stale.unwrap_or_else(|| OnStale::default_with(auth.as_ref())),
            auth,
            authorize,
            encoded_slash: words.encoded_slash,
            access_log: words.access_log,
            limits: words.limits,
            body: words.body,
            timeouts: words.timeouts,
            retries: words.retries,
            mirror,
            cors,
            compression: compression.map_err(|invalid| invalid.under("compression"))?,
            cache: words.cache.map(Cache::checked).transpose().map_err(|invalid| invalid.under("cache"))?,
            policies: words.policies,
        })
    }
}

/// What is held has to have an end.
fn buffered(it: &BodyLimit) -> Result<(), Invalid> {
    match it.buffer && !(1..=BUFFER_BODY_MAX.0).contains(&it.max.0) {
        true => Err(Invalid::field("max").found(it.max).allowed(format!("1 to {BUFFER_BODY_MAX} beside buffer: true"))),
        false => Ok(()),
    }
}

fn split(arms: Option<Vec<Arm>>, on: Option<SplitOnWords>, ramp: Option<Ramp>) -> Result<Option<Split>, Invalid> {
    let on = on.map(SplitOn::try_from).transpose().map_err(|invalid| invalid.under("split_on"))?;
    let Some(arms) = arms else {
        let alone = [("split_on", on.is_some()), ("ramp", ramp.is_some())];
        return match alone.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(Invalid::field(field).found("it without split").allowed("only beside split")),
            None => Ok(None),
        };
    };
    Split::parse(arms, on, ramp).map(Some)
}

/// A parameter that the path does not have could never be equal to anything.
fn authorize(words: Vec<AuthorizeWords>, path: &PathPattern) -> Result<Vec<AuthorizeRule>, Invalid> {
    check::count("authorize", words.len(), AUTHORIZE_RULES_MAX)?;
    let mut rules = Vec::with_capacity(words.len());
    for (place, words) in words.into_iter().enumerate() {
        let rule = AuthorizeRule::try_from(words).map_err(|invalid| invalid.under(format!("authorize[{place}]")))?;
        let has = |param: &str| matches!(path, PathPattern::Template(text) if text.contains(&format!("{{{param}}}")));
        if let Some(param) = rule.condition.params_equal.keys().find(|param| !has(param)) {
            let field = format!("authorize[{place}].{}.params_equal.{param}", rule.effect.word());
            return Err(Invalid::field(field)
                .found("no such parameter")
                .allowed(format!("a parameter of match.path_template, such as {{{param}}}")));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn action(
    upstream: Option<Name>,
    split: Option<Split>,
    redirect: Option<Redirect>,
    respond: Option<RespondWords>,
) -> Result<Action, Invalid> {
    match (upstream, split, redirect, respond) {
        (Some(upstream), None, None, None) => Ok(Action::Forward { upstream }),
        (None, Some(split), None, None) => Ok(Action::Split(split)),
        (None, None, Some(it), None) => {
            Ok(Action::Redirect(redirect_from(it).map_err(|invalid| invalid.under("redirect"))?))
        }
        (None, None, None, Some(it)) => respond_from(it).map_err(|invalid| invalid.under("respond")),
        (None, None, None, None) => Err(Invalid::field("upstream").found("none").allowed(ACTION_FIELDS)),
        (upstream, split, redirect, respond) => {
            let given = [
                upstream.map(|_| "upstream"),
                split.map(|_| "split"),
                redirect.map(|_| "redirect"),
                respond.map(|_| "respond"),
            ];
            let given: Vec<&str> = given.into_iter().flatten().collect();
            Err(Invalid::field(given[1]).found(given.join(" and ")).allowed(ACTION_FIELDS))
        }
    }
}

fn redirect_from(mut it: Redirect) -> Result<Redirect, Invalid> {
    if !matches!(it.status, 301 | 302 | 303 | 307 | 308) {
        return Err(Invalid::field("status").found(it.status).allowed("301, 302, 303, 307 or 308"));
    }
    if let Some(scheme) = it.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        return Err(Invalid::field("scheme").found(format!("{scheme:?}")).allowed("http or https"));
    }
    it.host = it.host.map(|host| check::host("host", &host)).transpose()?;
    if it.port == Some(0) {
        return Err(Invalid::field("port").found(0).allowed("1 to 65535"));
    }
    if let Some(path) = &it.path {
        check::length("path", path, check::PATH_BYTES_MAX)?;
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            let allowed = "/ and then visible ASCII characters; others percent-encoded";
            return Err(Invalid::field("path").found(format!("{path:?}")).allowed(allowed));
        }
    }
    if it.scheme.is_none() && it.host.is_none() && it.port.is_none() && it.path.is_none() {
        return Err(Invalid::field("").found("none").allowed("at least one of scheme, host, port, path"));
    }
    Ok(it)
}

fn respond_from(it: RespondWords) -> Result<Action, Invalid> {
    const ALONE: &str = "only auth beside receiver";
    match (it.receiver, it.auth) {
        (Some(receiver), Some(auth)) => {
            let given = [
                ("status", it.status.is_some_and(|status| status != Respond::status_default())),
                ("body", !it.body.is_empty()),
                ("headers", !it.headers.is_empty()),
            ];
            return match given.into_iter().find(|(_, given)| *given) {
                Some((field, _)) => Err(Invalid::field(field).found("it beside receiver").allowed(ALONE)),
                None => Ok(Action::Receive(Receive { receiver, auth })),
            };
        }
        (Some(_), None) => {
            return Err(Invalid::field("auth")
                .found("none")
                .allowed("the name of the auth that the receiver belongs to"));
        }
        (None, Some(auth)) => {
            let allowed = "auth only beside receiver";
            return Err(Invalid::field("auth").found(format!("{:?}", &*auth)).allowed(allowed));
        }
        (None, None) => {}
    }
    let status = it.status.unwrap_or_else(Respond::status_default);
    check::number("status", status.into(), 200, 599)?;
    check::length("body", &it.body, RESPOND_BODY_BYTES_MAX)?;
    if matches!(status, 204 | 205 | 304) && !it.body.is_empty() {
        return Err(Invalid::field("body").found("a body").allowed(format!("none with status {status}")));
    }
    let headers = check::header_map("headers", it.headers)?;
    Ok(Action::Respond(Respond { status, body: it.body, headers }))
}

fn rewrite(words: Rewrite, path: &PathPattern) -> Result<Rewrite, Invalid> {
    let host = match words.host {
        HostRewrite::Name(name) => HostRewrite::Name(host_and_port(&name)?),
        other => other,
    };
    let path_prefix = words.path_prefix.map(|prefix| parse_prefix("path_prefix", &prefix)).transpose()?;
    if path_prefix.is_some() && !matches!(path, PathPattern::Prefix(_) | PathPattern::Exact(_)) {
        let allowed = "only with match.path_prefix or match.path_exact";
        return Err(Invalid::field("path_prefix").found("a prefix").allowed(allowed));
    }
    let headers = HeaderRewrites {
        request: edits("headers.request", words.headers.request)?,
        response: edits("headers.response", words.headers.response)?,
    };
    let ways = [
        ("path_prefix", path_prefix.is_some()),
        ("path", words.path.is_some()),
        ("path_regex", words.path_regex.is_some()),
    ];
    let given: Vec<&str> = ways.into_iter().filter(|(_, given)| *given).map(|(field, _)| field).collect();
    if let [_, second, ..] = given[..] {
        let allowed = "at most one of path_prefix, path, path_regex";
        return Err(Invalid::field(second).found(given.join(" and ")).allowed(allowed));
    }
    // What is inside of these two is checked by compiling them: `ruleset::check`.
    if let Some(path) = &words.path {
        check::length("path", path, check::PATH_BYTES_MAX)?;
    }
    if let Some(it) = &words.path_regex {
        check::length("path_regex.to", &it.to, check::PATH_BYTES_MAX)?;
    }
    let query = query_edits(words.query).map_err(|invalid| invalid.under("query"))?;
    let body = body_rewrites(words.body).map_err(|invalid| invalid.under("body"))?;
    Ok(Rewrite { host, path_prefix, path: words.path, path_regex: words.path_regex, query, headers, body })
}

/// The texts themselves are checked by compiling them too.
fn body_rewrites(words: BodyRewrites) -> Result<BodyRewrites, Invalid> {
    for (side, text) in [("request", &words.request), ("response", &words.response)] {
        check::length(side, text.as_deref().unwrap_or_default(), REWRITE_TEXT_BYTES_MAX)?;
    }
    if !(1..=REWRITE_BODY_MAX.0).contains(&words.max.0) {
        let allowed = format!("1 to {REWRITE_BODY_MAX}");
        return Err(Invalid::field("max").found(words.max).allowed(allowed));
    }
    Ok(words)
}

fn query_edits(words: QueryEdits) -> Result<QueryEdits, Invalid> {
    for (list, pairs) in [("set", &words.set), ("add", &words.add)] {
        check::count(list, pairs.len(), check::HEADER_EDITS_MAX)?;
        for (name, value) in pairs {
            check::text(list, name, check::WORD_BYTES_MAX)?;
            check::length(&format!("{list}.{name}"), value, check::VALUE_BYTES_MAX)?;
        }
    }
    check::count("remove", words.remove.len(), check::HEADER_EDITS_MAX)?;
    for (place, name) in words.remove.iter().enumerate() {
        check::text(&format!("remove[{place}]"), name, check::WORD_BYTES_MAX)?;
    }
    check::once("remove", &words.remove, String::clone)?;
    Ok(words)
}

fn host_and_port(text: &str) -> Result<String, Invalid> {
    if text.contains(':') {
        return match text.parse::<Authority>() {
            Ok(authority) => Ok(authority.to_string()),
            Err(_) => Err(Invalid::field("host").found(format!("{text:?}")).allowed("a host, or host:port")),
        };
    }
    check::host("host", text).map_err(|invalid| invalid.allowed("preserve, target, or a host name"))
}

fn edits(field: &str, words: HeaderEdits) -> Result<HeaderEdits, Invalid> {
    let remove_field = format!("{field}.remove");
    check::count(&remove_field, words.remove.len(), check::HEADER_EDITS_MAX)?;
    let names = words.remove.iter().enumerate();
    let remove = names.map(|(place, name)| check::edited_header_name(&format!("{remove_field}[{place}]"), name));
    let remove = remove.collect::<Result<Vec<_>, _>>()?;
    check::once(&remove_field, &remove, String::clone)?;
    Ok(HeaderEdits {
        set: check::header_map(&format!("{field}.set"), words.set)?,
        add: check::header_map(&format!("{field}.add"), words.add)?,
        remove,
    })
}

/// Canonical, and without the trailing slash that a prefix of whole segments does not need.
pub(in super::super) fn parse_prefix(field: &str, text: &str) -> Result<String, Invalid> {
    check::canonical_path(field, text)?;
    Ok(match text.strip_suffix('/') {
        Some("") | None => text.to_owned(),
        Some(prefix) => prefix.to_owned(),
    })
}

impl MatchWords {
    fn parse(self) -> Result<Match, Invalid> {
        Ok(Match {
            path: self.path()?,
            hosts: hosts("hosts", &self.hosts)?,
            methods: methods(&self.methods)?,
            headers: fields("headers", self.headers, Words::Header)?,
            query: fields("query", self.query, Words::Text)?,
            cookies: fields("cookies", self.cookies, Words::Cookie)?,
            client_cidrs: cidrs("client_cidrs", &self.client_cidrs)?,
            sni: hosts("sni", &self.sni)?,
            listeners: listeners(self.listeners)?,
        })
    }

    fn path(&self) -> Result<PathPattern, Invalid> {
        let forms = [
            ("path_prefix", &self.path_prefix),
            ("path_exact", &self.path_exact),
            ("path_template", &self.path_template),
            ("path_regex", &self.path_regex),
        ];
        let mut given = forms.into_iter().filter_map(|(field, text)| Some((field, text.as_deref()?)));
        let Some((field, text)) = given.next() else {
            return Ok(PathPattern::Any);
        };
        if let Some((second, _)) = given.next() {
            return Err(Invalid::field(second).found(format!("{field} and {second}")).allowed(PATH_FIELDS));
        }
        Ok(match field {
            "path_prefix" => PathPattern::Prefix(parse_prefix(field, text)?),
            "path_exact" => {
                check::canonical_path(field, text)?;
                PathPattern::Exact(text.to_owned())
            }
            // The syntax of these two is checked by compiling them: `ruleset::check`.
            "path_template" => PathPattern::Template(text.to_owned()),
            _ => PathPattern::Regex(text.to_owned()),
        })
    }
}

pub(in super::super) fn hosts(field: &str, words: &[String]) -> Result<Vec<HostPattern>, Invalid> {
    check::count(field, words.len(), check::LIST_MAX)?;
    let parse = |(place, text): (usize, &String)| match text.strip_prefix('*') {
        Some(suffix) if suffix.strip_prefix('.').is_some_and(super::super::is_host) => {
            Ok(HostPattern::Suffix(suffix.to_ascii_lowercase()))
        }
        None if super::super::is_host(text) => Ok(HostPattern::Exact(text.to_ascii_lowercase())),
        // No server name of TLS is an address (RFC 6066 3), but a route asks for that in vain as for any other name.
        None if let Some(v6) = ipv6_literal(text) => Ok(HostPattern::Exact(v6)),
        _ => Err(Invalid::field(format!("{field}[{place}]"))
            .found(format!("{text:?}"))
            .allowed("a host name such as api.acme.test, *. and a host name, or an address such as [2001:db8::1]")),
    };
    let hosts = words.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    check::once(field, &hosts, HostPattern::to_string)?;
    Ok(hosts)
}

fn listeners(words: Vec<Name>) -> Result<Vec<Name>, Invalid> {
    check::count("listeners", words.len(), check::LIST_MAX)?;
    check::once("listeners", &words, Name::to_string)?;
    Ok(words)
}

/// `[2001:DB8::1]` in the one form that requests are compared with (RFC 5952).
fn ipv6_literal(text: &str) -> Option<String> {
    let address: std::net::Ipv6Addr = text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
    Some(format!("[{address}]"))
}

pub(super) fn methods(words: &[String]) -> Result<Vec<String>, Invalid> {
    check::count("methods", words.len(), check::CONDITIONS_MAX)?;
    let parse = |(place, text): (usize, &String)| check::method(&format!("methods[{place}]"), text);
    let methods = words.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    check::once("methods", &methods, String::clone)?;
    Ok(methods)
}

pub(super) fn cidrs(field: &str, words: &[String]) -> Result<Vec<ipnet::IpNet>, Invalid> {
    check::count(field, words.len(), check::LIST_MAX)?;
    let parse = |(place, text): (usize, &String)| {
        let wrong = || Invalid::field(format!("{field}[{place}]")).found(format!("{text:?}"));
        let net: ipnet::IpNet =
            text.parse().map_err(|_| wrong().allowed("a network, such as 10.0.0.0/8 or 2001:db8::/32"))?;
        match net.trunc() == net {
            true => Ok(net),
            false => Err(wrong().allowed(format!("a network without host bits: {}", net.trunc()))),
        }
    };
    let nets = words.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    check::once(field, &nets, ipnet::IpNet::to_string)?;
    Ok(nets)
}

#[derive(Clone, Copy, PartialEq)]
enum Words {
    Header,
    Cookie,
    /// Any text, as it is after decoding.
    Text,
}

fn fields(field: &str, words: Vec<FieldWords>, kind: Words) -> Result<Vec<FieldMatch>, Invalid> {
    check::count(field, words.len(), check::CONDITIONS_MAX)?;
    let parse = |(place, words): (usize, FieldWords)| {
        words.parse(kind).map_err(|invalid| invalid.under(format!("{field}[{place}]")))
    };
    words.into_iter().enumerate().map(parse).collect()
}

impl FieldWords {
    fn parse(self, kind: Words) -> Result<FieldMatch, Invalid> {
        let name = match kind {
            Words::Header => check::header_name("name", &self.name)?,
            Words::Cookie if !check::is_token(&self.name) => {
                return Err(Invalid::field("name").found(format!("{:?}", self.name)).allowed("a cookie's name"));
            }
            Words::Text if self.name.is_empty() => {
                return Err(Invalid::field("name").found("\"\"").allowed("a parameter's name"));
            }
            Words::Cookie | Words::Text => self.name,
        };
        check::length("name", &name, check::WORD_BYTES_MAX)?;
        let tests = [
            ("exact", self.exact.map(FieldTest::Exact)),
            ("regex", self.regex.map(FieldTest::Regex)),
            ("present", flag("present", self.present, FieldTest::Present)?),
            ("absent", flag("absent", self.absent, FieldTest::Absent)?),
        ];
        let mut given = tests.into_iter().filter_map(|(field, test)| Some((field, test?)));
        let Some((first, test)) = given.next() else {
            return Err(Invalid::field("").found("none of them").allowed(TEST_FIELDS));
        };
        if let Some((second, _)) = given.next() {
            return Err(Invalid::field(second).found(format!("{first} and {second}")).allowed(TEST_FIELDS));
        }
        match &test {
            FieldTest::Exact(text) if kind == Words::Header => check::header_value("exact", text)?,
            FieldTest::Exact(text) => check::length("exact", text, check::VALUE_BYTES_MAX)?,
            FieldTest::Regex(_) | FieldTest::Present | FieldTest::Absent => {}
        }
        Ok(FieldMatch { name, test })
    }
}

fn flag(field: &str, given: Option<bool>, test: FieldTest) -> Result<Option<FieldTest>, Invalid> {
    match given {
        None => Ok(None),
        Some(true) => Ok(Some(test)),
        Some(false) => Err(Invalid::field(field).found("false").allowed(TEST_FIELDS)),
    }
}

impl From<Route> for RouteWords {
    fn from(route: Route) -> Self {
        let none = RespondWords::default();
        let (mut split, mut split_on, mut ramp) = (None, None, None);
        let (upstream, redirect, respond) = match route.action {
            Action::Forward { upstream } => (Some(upstream), None, None),
            Action::Split(it) => {
                (split, split_on, ramp) = (Some(it.arms), it.on.map(SplitOnWords::from), it.ramp);
                (None, None, None)
            }
            Action::Redirect(it) => (None, Some(it), None),
            Action::Respond(it) => {
                let words = RespondWords { status: Some(it.status), body: it.body, headers: it.headers, ..none };
                (None, None, Some(words))
            }
            Action::Receive(it) => {
                let words = RespondWords { receiver: Some(it.receiver), auth: Some(it.auth), ..none };
                (None, None, Some(words))
            }
        };
        Self {
            name: route.name,
            labels: route.labels,
            owner: route.owner,
            description: route.description,
            priority: route.priority,
            matches: route.matches.into(),
            upstream,
            split,
            split_on,
            ramp,
            redirect,
            respond,
            rewrite: route.rewrite,
            auth: route.auth.map(RouteAuthWords::from),
            authorize: route.authorize.into_iter().map(AuthorizeWords::from).collect(),
            on_stale: Some(route.on_stale),
            encoded_slash: route.encoded_slash,
            access_log: route.access_log,
            limits: route.limits,
            body: route.body,
            timeouts: route.timeouts,
            retries: route.retries,
            mirror: route.mirror,
            cors: route.cors.map(CorsWords::from),
            compression: route.compression,
            cache: route.cache,
            policies: route.policies,
            security_headers: None,
        }
    }
}

impl From<Match> for MatchWords {
    fn from(it: Match) -> Self {
        let shown = |hosts: Vec<HostPattern>| hosts.iter().map(HostPattern::to_string).collect();
        let words = |fields: Vec<FieldMatch>| fields.into_iter().map(FieldWords::from).collect();
        let mut out = Self {
            hosts: shown(it.hosts),
            methods: it.methods,
            headers: words(it.headers),
            query: words(it.query),
            cookies: words(it.cookies),
            client_cidrs: it.client_cidrs.iter().map(ipnet::IpNet::to_string).collect(),
            sni: shown(it.sni),
            listeners: it.listeners,
            ..Self::default()
        };
        match it.path {
            PathPattern::Any => {}
            PathPattern::Prefix(text) => out.path_prefix = Some(text),
            PathPattern::Exact(text) => out.path_exact = Some(text),
            PathPattern::Template(text) => out.path_template = Some(text),
            PathPattern::Regex(text) => out.path_regex = Some(text),
        }
        out
    }
}

impl From<FieldMatch> for FieldWords {
    fn from(it: FieldMatch) -> Self {
        let mut out = Self { name: it.name, ..Self::default() };
        match it.test {
            FieldTest::Exact(text) => out.exact = Some(text),
            FieldTest::Regex(text) => out.regex = Some(text),
            FieldTest::Present => out.present = Some(true),
            FieldTest::Absent => out.absent = Some(true),
        }
        out
    }
}
