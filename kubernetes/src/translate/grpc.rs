//! Rules of GRPCRoutes in our words: a method of a service is a path.

use quorumgate_proto::admin::v1 as admin;

use super::{
    filters::Filters,
    http,
    routes::{Rule, Unsupported},
};
use crate::api::route::{GrpcMatch, GrpcMethod, GrpcRule};

const FILTERS: [&str; 3] = ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"];

pub fn rules(rules: &[GrpcRule]) -> Result<Vec<Rule<'_>>, Unsupported> {
    rules
        .iter()
        .enumerate()
        .map(|(place, it)| rule(it).map_err(|wrong| wrong.under(&format!("rules[{place}]"))))
        .collect()
}

fn rule(it: &GrpcRule) -> Result<Rule<'_>, Unsupported> {
    let mut matches = Vec::with_capacity(it.matches.len().max(1));
    for (place, words) in it.matches.iter().enumerate() {
        matches.push(match_of(words).map_err(|wrong| wrong.under(&format!("matches[{place}]")))?);
    }
    if matches.is_empty() {
        matches.push(admin::Match::default());
    }
    if let Some(place) = it.backend_refs.iter().position(|it| !it.filters.is_empty()) {
        return Err(Unsupported::value(format!("backendRefs[{place}].filters: filters of the rule are carried out")));
    }
    let filters = Filters::of(&it.filters, &FILTERS, false)?;
    Ok(Rule { matches, filters, backends: &it.backend_refs, total: None, attempts: None })
}

fn match_of(it: &GrpcMatch) -> Result<admin::Match, Unsupported> {
    let path = it.method.as_ref().map(path).transpose()?.flatten();
    let headers = http::fields("headers", &it.headers, str::to_ascii_lowercase)?;
    Ok(admin::Match { path, headers, ..admin::Match::default() })
}

/// None: every method of every service. It goes after all that say something, regular expressions too.
fn path(it: &GrpcMethod) -> Result<Option<admin::r#match::Path>, Unsupported> {
    use admin::r#match::Path;
    const NAME: &str = "[^/]+";
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, method) = (said(&it.service), said(&it.method));
    match it.form.as_deref().unwrap_or("Exact") {
        "Exact" => {
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
            if let Some(bad) = [&service, &method].into_iter().flatten().find(|text| !plain(text)) {
                return Err(Unsupported::value(format!("method: found {bad:?}; allowed: letters, digits, . and _")));
            }
            Ok(match (service, method) {
                (None, None) => None,
                (Some(service), Some(method)) => Some(Path::PathExact(format!("/{service}/{method}"))),
                (Some(service), None) => Some(Path::PathPrefix(format!("/{service}"))),
                (None, Some(method)) => Some(Path::PathRegex(format!("/{NAME}/{}", method.replace('.', "\\.")))),
            })
        }
        "RegularExpression" => {
            // A group of its own each: an alternative in one does not reach over the slash.
            let group = |text: Option<String>| text.map_or(NAME.to_owned(), |text| format!("(?:{text})"));
            Ok(match (&service, &method) {
                (None, None) => None,
                _ => Some(Path::PathRegex(format!("/{}/{}", group(service), group(method)))),
            })
        }
        other => Err(Unsupported::value(format!("method.type: found {other:?}; allowed: Exact, RegularExpression"))),
    }
}
