//! Resources between prost and model. A message becomes the words of the file first, so that one checker serves both;
//! an absent value means its default. The way back is deterministic: maps are ordered, defaults are written out.

use std::collections::BTreeMap;

use prost_types::Duration as WireDuration;
use quorumgate_proto::admin::v1 as admin;

use super::{access, traffic};
use crate::{
    invalid::Invalid,
    resource::{
        BodyLimit, BodyRewrites, EncodedSlash, FieldWords, HeaderEdits, HeaderRewrites, HostRewrite, MatchWords, Name,
        OnStale, Redirect, RespondWords, Rewrite, Route, RouteRetries, RouteTimeouts, RouteWords, check::words,
    },
    units::{Size, Span},
};

pub fn route_from(it: admin::Route) -> Result<Route, Invalid> {
    route_words(it)?.try_into()
}

/// The words of a message, for the checker.
pub fn route_words(it: admin::Route) -> Result<RouteWords, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let (mut upstream, mut redirect, mut respond) = (None, None, None);
    let (mut split, mut split_on, mut ramp) = (None, None, None);
    match it.action {
        Some(admin::route::Action::Split(it)) => {
            let (arms, on, over) = traffic::split_from(it)?;
            (split, split_on, ramp) = (Some(arms), on, over);
        }
        Some(admin::route::Action::Upstream(name)) => upstream = Some(name_from("upstream", &name)?),
        Some(admin::route::Action::Redirect(it)) => {
            redirect = Some(redirect_from(it).map_err(|invalid| invalid.under("redirect"))?);
        }
        Some(admin::route::Action::Respond(it)) => {
            respond = Some(respond_from(it).map_err(|invalid| invalid.under("respond"))?);
        }
        Some(admin::route::Action::Receive(it)) => {
            respond = Some(access::receive_from(it).map_err(|invalid| invalid.under("respond"))?);
        }
        None => {}
    }
    let total = span_from("timeouts.total", it.timeouts.and_then(|it| it.total))?;
    let compression = it.compression.map(traffic::compression_from).transpose();
    Ok(RouteWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        priority: it.priority,
        matches: match_from(it.r#match.unwrap_or_default()).map_err(|invalid| invalid.under("match"))?,
        upstream,
        split,
        split_on,
        ramp,
        redirect,
        respond,
        rewrite: rewrite_from(it.rewrite.unwrap_or_default()),
        auth: it.auth.map(access::auth_from).transpose().map_err(|invalid| invalid.under("auth"))?,
        authorize: listed("authorize", it.authorize, access::rule_from)?,
        on_stale: word("on_stale", &it.on_stale, &OnStale::ALL, OnStale::word)?,
        encoded_slash: word("encoded_slash", &it.encoded_slash, &EncodedSlash::ALL, EncodedSlash::word)?
            .unwrap_or_default(),
        access_log: it.access_log,
        limits: names_from("limits", &it.limits)?,
        body: it.body.map(body_from).unwrap_or_default(),
        timeouts: RouteTimeouts { total: total.unwrap_or_default() },
        retries: RouteRetries { attempts: it.retries.and_then(|it| it.attempts) },
        mirror: it.mirror.map(traffic::mirror_from).transpose().map_err(|invalid| invalid.under("mirror"))?,
        cors: it.cors.map(traffic::cors_from).transpose().map_err(|invalid| invalid.under("cors"))?,
        compression: compression.map_err(|invalid| invalid.under("compression"))?,
        cache: it.cache.map(traffic::cache_from).transpose().map_err(|invalid| invalid.under("cache"))?,
        policies: names_from("policies", &it.policies)?,
        security_headers: None,
    })
}

fn match_from(it: admin::Match) -> Result<MatchWords, Invalid> {
    let listeners = names_from("listeners", &it.listeners)?;
    let fields = |list: Vec<admin::FieldMatch>| list.into_iter().map(field_from).collect();
    let mut words = MatchWords {
        hosts: it.hosts,
        methods: it.methods,
        headers: fields(it.headers),
        query: fields(it.query),
        cookies: fields(it.cookies),
        client_cidrs: it.client_cidrs,
        sni: it.sni,
        listeners,
        ..MatchWords::default()
    };
    match it.path {
        None => {}
        Some(admin::r#match::Path::PathPrefix(text)) => words.path_prefix = Some(text),
        Some(admin::r#match::Path::PathExact(text)) => words.path_exact = Some(text),
        Some(admin::r#match::Path::PathTemplate(text)) => words.path_template = Some(text),
        Some(admin::r#match::Path::PathRegex(text)) => words.path_regex = Some(text),
    }
    Ok(words)
}

fn field_from(it: admin::FieldMatch) -> FieldWords {
    let mut words = FieldWords { name: it.name, ..FieldWords::default() };
    match it.test {
        None => {}
        Some(admin::field_match::Test::Exact(text)) => words.exact = Some(text),
        Some(admin::field_match::Test::Regex(text)) => words.regex = Some(text),
        Some(admin::field_match::Test::Present(flag)) => words.present = Some(flag),
        Some(admin::field_match::Test::Absent(flag)) => words.absent = Some(flag),
    }
    words
}

fn redirect_from(it: admin::Redirect) -> Result<Redirect, Invalid> {
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let port = narrow("port", it.port, "1 to 65535")?;
    Ok(Redirect {
        status: match it.status {
            0 => Redirect::status_default(),
            status => narrow("status", status, "301, 302, 303, 307 or 308")?,
        },
        scheme: text(it.scheme),
        host: text(it.host),
        port: Some(port).filter(|port| *port != 0),
        path: text(it.path),
    })
}

fn respond_from(it: admin::Respond) -> Result<RespondWords, Invalid> {
    let status = match it.status {
        0 => None,
        status => Some(narrow("status", status, "200 to 599")?),
    };
    Ok(RespondWords { status, body: it.body, headers: it.headers, ..RespondWords::default() })
}

fn body_from(it: admin::BodyLimit) -> BodyLimit {
    let max = it.max.map_or_else(|| BodyLimit::default().max, Size);
    BodyLimit { max, decompressed_max: Size(it.decompressed_max), buffer: it.buffer }
}

fn rewrite_from(it: admin::Rewrite) -> Rewrite {
    let headers = it.headers.unwrap_or_default();
    let edits = |it: Option<admin::HeaderEdits>| {
        let it = it.unwrap_or_default();
        HeaderEdits { set: it.set, add: it.add, remove: it.remove }
    };
    Rewrite {
        host: HostRewrite::from(it.host),
        path_prefix: it.path_prefix,
        path: it.path,
        path_regex: it.path_regex.map(traffic::path_regex_from),
        query: traffic::query_from(it.query.unwrap_or_default()),
        headers: HeaderRewrites { request: edits(headers.request), response: edits(headers.response) },
        body: it.body.map_or_else(BodyRewrites::default, body_rewrites_from),
    }
}

fn body_rewrites_from(it: admin::BodyRewrites) -> BodyRewrites {
    let max = it.max.map_or_else(|| BodyRewrites::default().max, Size);
    BodyRewrites { request: it.request, response: it.response, max }
}

pub fn name_from(field: &str, text: &str) -> Result<Name, Invalid> {
    text.parse().map_err(|_| Invalid::field(field).found(format!("{text:?}")).allowed(Name::ALLOWED))
}

/// None: the empty text.
pub(super) fn optional_name(field: &str, text: &str) -> Result<Option<Name>, Invalid> {
    optional(text.to_owned()).map(|text| name_from(field, &text)).transpose()
}

pub(super) fn names_from(field: &str, texts: &[String]) -> Result<Vec<Name>, Invalid> {
    let names = texts.iter().enumerate().map(|(place, text)| name_from(&format!("{field}[{place}]"), text));
    names.collect()
}

pub(super) fn names_to(names: &[Name]) -> Vec<String> {
    names.iter().map(Name::to_string).collect()
}

pub(super) fn optional(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn narrow(field: &str, number: u32, allowed: &str) -> Result<u16, Invalid> {
    u16::try_from(number).map_err(|_| Invalid::field(field).found(number).allowed(allowed))
}

pub(super) fn listed<T, U>(
    field: &str,
    list: Vec<T>,
    convert: impl Fn(T) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    let converted = list.into_iter().enumerate();
    converted.map(|(place, it)| convert(it).map_err(|invalid| invalid.under(format!("{field}[{place}]")))).collect()
}

/// None: the empty text, which stands for the default.
pub(super) fn word<T: Copy>(
    field: &str,
    text: &str,
    all: &[T],
    word: fn(T) -> &'static str,
) -> Result<Option<T>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    match all.iter().find(|it| word(**it) == text) {
        Some(it) => Ok(Some(*it)),
        None => Err(Invalid::field(field).found(format!("{text:?}")).allowed(words(all, word))),
    }
}

/// Whole microseconds, not negative: what a file can say.
pub(super) fn span_from(field: &str, wire: Option<WireDuration>) -> Result<Option<Span>, Invalid> {
    let Some(wire) = wire else { return Ok(None) };
    let wrong = || {
        Invalid::field(field)
            .found(format!("{} s and {} ns", wire.seconds, wire.nanos))
            .allowed("whole microseconds, not negative, fewer than 2^64")
    };
    let seconds = u64::try_from(wire.seconds).map_err(|_| wrong())?;
    let nanos = u32::try_from(wire.nanos).map_err(|_| wrong())?;
    if nanos >= 1_000_000_000 || !nanos.is_multiple_of(1_000) {
        return Err(wrong());
    }
    let micros = seconds.checked_mul(1_000_000).and_then(|micros| micros.checked_add(u64::from(nanos / 1_000)));
    Ok(Some(Span(std::time::Duration::from_micros(micros.ok_or_else(wrong)?))))
}

/// Checked spans are far below what the wire can say.
pub(super) fn span_to(span: Span) -> Option<WireDuration> {
    Some(WireDuration { seconds: span.0.as_secs() as i64, nanos: span.0.subsec_nanos() as i32 })
}

pub(super) fn meta_to(labels: &BTreeMap<String, String>, owner: &str, description: &str) -> Option<admin::Meta> {
    Some(admin::Meta { labels: labels.clone(), owner: owner.to_owned(), description: description.to_owned() })
}

pub fn route_to(route: &Route) -> admin::Route {
    let it = RouteWords::from(route.clone());
    let action = match (it.upstream, it.redirect, it.respond) {
        _ if let Some(arms) = it.split => {
            Some(admin::route::Action::Split(traffic::split_to((arms, it.split_on, it.ramp))))
        }
        (Some(name), _, _) => Some(admin::route::Action::Upstream(name.to_string())),
        (_, Some(it), _) => Some(admin::route::Action::Redirect(admin::Redirect {
            status: it.status.into(),
            scheme: it.scheme.unwrap_or_default(),
            host: it.host.unwrap_or_default(),
            port: it.port.unwrap_or_default().into(),
            path: it.path.unwrap_or_default(),
        })),
        (_, _, Some(RespondWords { receiver: Some(receiver), auth: Some(auth), .. })) => {
            Some(admin::route::Action::Receive(access::receive_to(receiver, &auth)))
        }
        (_, _, Some(it)) => Some(admin::route::Action::Respond(admin::Respond {
            status: it.status.unwrap_or_default().into(),
            body: it.body,
            headers: it.headers,
        })),
        (None, None, None) => None,
    };
    admin::Route {
        name: it.name.to_string(),
        meta: meta_to(&it.labels, &it.owner, &it.description),
        priority: it.priority,
        r#match: Some(match_to(it.matches)),
        action,
        rewrite: Some(rewrite_to(it.rewrite)),
        auth: it.auth.map(access::auth_to),
        authorize: it.authorize.into_iter().map(access::rule_to).collect(),
        on_stale: it.on_stale.map(OnStale::word).unwrap_or_default().to_owned(),
        encoded_slash: it.encoded_slash.word().to_owned(),
        access_log: it.access_log,
        limits: names_to(&it.limits),
        body: Some(admin::BodyLimit {
            max: Some(it.body.max.0),
            decompressed_max: it.body.decompressed_max.0,
            buffer: it.body.buffer,
        }),
        timeouts: Some(admin::RouteTimeouts { total: span_to(it.timeouts.total) }),
        retries: Some(admin::RouteRetries { attempts: it.retries.attempts }),
        mirror: it.mirror.map(traffic::mirror_to),
        cors: it.cors.map(traffic::cors_to),
        compression: it.compression.map(traffic::compression_to),
        cache: it.cache.map(traffic::cache_to),
        policies: it.policies.iter().map(Name::to_string).collect(),
    }
}

fn match_to(it: MatchWords) -> admin::Match {
    use admin::r#match::Path;
    let fields = |list: Vec<FieldWords>| list.into_iter().map(field_to).collect();
    let prefix = it.path_prefix.map(Path::PathPrefix);
    let exact = it.path_exact.map(Path::PathExact);
    let template = it.path_template.map(Path::PathTemplate);
    let regex = it.path_regex.map(Path::PathRegex);
    admin::Match {
        hosts: it.hosts,
        path: prefix.or(exact).or(template).or(regex),
        methods: it.methods,
        headers: fields(it.headers),
        query: fields(it.query),
        cookies: fields(it.cookies),
        client_cidrs: it.client_cidrs,
        sni: it.sni,
        listeners: it.listeners.iter().map(Name::to_string).collect(),
    }
}

fn field_to(it: FieldWords) -> admin::FieldMatch {
    use admin::field_match::Test;
    let exact = it.exact.map(Test::Exact);
    let regex = it.regex.map(Test::Regex);
    let present = it.present.map(Test::Present);
    let absent = it.absent.map(Test::Absent);
    admin::FieldMatch { name: it.name, test: exact.or(regex).or(present).or(absent) }
}

fn rewrite_to(it: Rewrite) -> admin::Rewrite {
    let edits = |it: HeaderEdits| Some(admin::HeaderEdits { set: it.set, add: it.add, remove: it.remove });
    admin::Rewrite {
        host: it.host.into(),
        path_prefix: it.path_prefix,
        headers: Some(admin::HeaderRewrites {
            request: edits(it.headers.request),
            response: edits(it.headers.response),
        }),
        path: it.path,
        path_regex: it.path_regex.map(traffic::path_regex_to),
        query: traffic::query_to(it.query),
        body: body_rewrites_to(it.body),
    }
}

/// None: nothing is said.
fn body_rewrites_to(it: BodyRewrites) -> Option<admin::BodyRewrites> {
    let max = Some(it.max.0);
    (it != BodyRewrites::default()).then_some(admin::BodyRewrites { request: it.request, response: it.response, max })
}
