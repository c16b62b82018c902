//! Rules of HTTPRoutes in our words.

use quorumgate_proto::admin::v1 as admin;

use super::{
    filters::Filters,
    routes::{Rule, Unsupported},
};
use crate::api::route::{FieldMatch, HttpMatch, HttpRule, PathMatch, Timeouts};

const FILTERS: [&str; 6] =
    ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror", "CORS"];

pub fn rules(rules: &[HttpRule]) -> Result<Vec<Rule<'_>>, Unsupported> {
    rules
        .iter()
        .enumerate()
        .map(|(place, it)| rule(it).map_err(|wrong| wrong.under(&format!("rules[{place}]"))))
        .collect()
}

fn rule(it: &HttpRule) -> Result<Rule<'_>, Unsupported> {
    let mut matches = Vec::with_capacity(it.matches.len().max(1));
    for (place, words) in it.matches.iter().enumerate() {
        matches.push(match_of(words).map_err(|wrong| wrong.under(&format!("matches[{place}]")))?);
    }
    if matches.is_empty() {
        matches.push(match_of(&HttpMatch::default())?);
    }
    let is_prefix = matches.iter().all(|it| matches!(it.path, Some(admin::r#match::Path::PathPrefix(_))));
    let filters = Filters::of(&it.filters, &FILTERS, is_prefix)?;
    if filters.redirect.is_some() && !it.backend_refs.is_empty() {
        let why = "backendRefs: none beside a filter of type RequestRedirect".to_owned();
        return Err(Unsupported { reason: "IncompatibleFilters", why });
    }
    if let Some(place) = it.backend_refs.iter().position(|it| !it.filters.is_empty()) {
        return Err(Unsupported::value(format!("backendRefs[{place}].filters: filters of the rule are carried out")));
    }
    let (total, attempts) = timeouts(&it.timeouts)?;
    Ok(Rule { matches, filters, backends: &it.backend_refs, total, attempts })
}

fn match_of(it: &HttpMatch) -> Result<admin::Match, Unsupported> {
    Ok(admin::Match {
        path: Some(path(it.path.as_ref().unwrap_or(&PathMatch::default()))?),
        methods: it.method.iter().cloned().collect(),
        headers: fields("headers", &it.headers, str::to_ascii_lowercase)?,
        query: fields("queryParams", &it.query_params, str::to_owned)?,
        ..admin::Match::default()
    })
}

fn path(it: &PathMatch) -> Result<admin::r#match::Path, Unsupported> {
    use admin::r#match::Path;
    let value = it.value.clone().unwrap_or_else(|| "/".to_owned());
    match it.form.as_deref().unwrap_or("PathPrefix") {
        "PathPrefix" => Ok(Path::PathPrefix(value)),
        "Exact" => Ok(Path::PathExact(value)),
        "RegularExpression" => Ok(Path::PathRegex(value)),
        other => Err(Unsupported::value(format!(
            "path.type: found {other:?}; allowed: PathPrefix, Exact, RegularExpression"
        ))),
    }
}

/// Of a name that comes twice the first counts.
pub fn fields(
    list: &str,
    words: &[FieldMatch],
    named: fn(&str) -> String,
) -> Result<Vec<admin::FieldMatch>, Unsupported> {
    use admin::field_match::Test;
    let mut fields: Vec<admin::FieldMatch> = Vec::with_capacity(words.len());
    for (place, it) in words.iter().enumerate() {
        let name = named(&it.name);
        let test = match it.form.as_deref().unwrap_or("Exact") {
            "Exact" => Test::Exact(it.value.clone()),
            "RegularExpression" => Test::Regex(it.value.clone()),
            other => {
                return Err(Unsupported::value(format!(
                    "{list}[{place}].type: found {other:?}; allowed: Exact, RegularExpression"
                )));
            }
        };
        if fields.iter().all(|known| known.name != name) {
            fields.push(admin::FieldMatch { name, test: Some(test) });
        }
    }
    Ok(fields)
}

/// Of the whole exchange, and how often it may be tried again. With a time-out for a request to a backend there is one
/// such request, so that the whole is that one.
fn timeouts(it: &Timeouts) -> Result<(Option<prost_types::Duration>, Option<u32>), Unsupported> {
    let parse = |field: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => match millis(text) {
            Some(millis) => Ok(Some(millis)),
            None => Err(Unsupported::value(format!(
                "timeouts.{field}: found {text:?}; allowed: a duration of the Gateway API, such as 1m30s"
            ))),
        },
    };
    let (request, backend) = (parse("request", &it.request)?, parse("backendRequest", &it.backend_request)?);
    let total = match (request, backend) {
        // Zero is no end.
        (Some(0), Some(other)) | (Some(other), Some(0)) => Some(other),
        (Some(request), Some(backend)) => Some(request.min(backend)),
        (one, other) => one.or(other),
    };
    let duration = |millis: u64| prost_types::Duration {
        seconds: (millis / 1_000) as i64,
        nanos: (millis % 1_000) as i32 * 1_000_000,
    };
    Ok((total.map(duration), backend.filter(|it| *it > 0).map(|_| 0)))
}

/// GEP-2257: `([0-9]{1,5}(h|m|s|ms)){1,4}`.
fn millis(text: &str) -> Option<u64> {
    let (mut rest, mut sum, mut parts) = (text, 0, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let units = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
        let number: u64 = rest[..digits].parse().ok().filter(|_| digits <= 5)?;
        let unit = match &rest[digits..digits + units] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        sum += number * unit;
        parts += 1;
        rest = &rest[digits + units..];
    }
    (1..=4).contains(&parts).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_gep_2257() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("10s", Some(10_000)),
            ("1h", Some(3_600_000)),
            ("1m30s", Some(90_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("500ms", Some(500)),
            ("", None),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1d", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
            ("1 s", None),
            ("1µs", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn a_time_out_of_one_request_leaves_no_second_one() {
        let of = |request: Option<&str>, backend: Option<&str>| {
            let words = Timeouts { request: request.map(str::to_owned), backend_request: backend.map(str::to_owned) };
            let (total, attempts) = timeouts(&words).ok().unwrap();
            (total.map(|it| it.seconds * 1_000 + i64::from(it.nanos) / 1_000_000), attempts)
        };
        assert_eq!(of(None, None), (None, None));
        assert_eq!(of(Some("2s"), None), (Some(2_000), None));
        assert_eq!(of(Some("0s"), None), (Some(0), None));
        assert_eq!(of(None, Some("1s")), (Some(1_000), Some(0)));
        assert_eq!(of(Some("2s"), Some("1s500ms")), (Some(1_500), Some(0)));
        assert_eq!(of(Some("0s"), Some("1s")), (Some(1_000), Some(0)));
        assert_eq!(of(Some("2s"), Some("0s")), (Some(2_000), None));
        assert!(timeouts(&Timeouts { request: Some("soon".into()), backend_request: None }).is_err());
    }
}
