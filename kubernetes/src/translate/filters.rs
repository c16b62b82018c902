//! Filters of rules: what becomes of a request on its way, as words of a route.

use std::collections::BTreeMap;

use quorumgate_proto::admin::v1 as admin;

use super::routes::Unsupported;
use crate::api::route::{Cors, Filter, HeaderModifier, PathChange, Redirect, RequestMirror, UrlRewrite};

/// Bytes of a body that a mirror is sent too; the most that there may be.
const MIRROR_BODY_MAX: u64 = 1 << 20;
const CORS_MAX_AGE_S: u32 = 5;

#[derive(Default)]
pub struct Filters<'r> {
    pub rewrite: admin::Rewrite,
    pub redirect: Option<Redirecting>,
    pub mirror: Option<(&'r RequestMirror, u32)>,
    pub cors: Option<admin::Cors>,
}

/// A redirect; where no port is said it depends on the listener.
#[derive(Clone)]
pub struct Redirecting(admin::Redirect);

impl Redirecting {
    pub fn at(&self, port: u16) -> admin::Redirect {
        let own = match self.0.scheme.as_str() {
            "" => port,
            "https" => 443,
            _ => 80,
        };
        let port = if self.0.port == 0 { own.into() } else { self.0.port };
        admin::Redirect { port, ..self.0.clone() }
    }
}

impl<'r> Filters<'r> {
    /// `may`: the types that the route's kind knows. `is_prefix`: every match of the rule is by a prefix of the path.
    pub fn of(filters: &'r [Filter], may: &[&str], is_prefix: bool) -> Result<Self, Unsupported> {
        let mut it = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for (place, filter) in filters.iter().enumerate() {
            let form = filter.form.as_str();
            let wrong = |why: String| Unsupported::value(format!("filters[{place}]: {why}"));
            if !may.contains(&form) {
                return Err(wrong(format!("type: found {form:?}; allowed: {}", may.join(", "))));
            }
            if seen.contains(&form) {
                return Err(wrong(format!("a second filter of type {form}; allowed: one")));
            }
            seen.push(form);
            it.add(filter).map_err(|why| wrong(why.0))?;
            let prefix = |path: Option<&PathChange>| path.is_some_and(|it| it.form == "ReplacePrefixMatch");
            if prefix(filter.url_rewrite.as_ref().and_then(|it| it.path.as_ref())) && !is_prefix {
                return Err(wrong("urlRewrite.path: ReplacePrefixMatch needs matches of type PathPrefix".into()));
            }
        }
        if it.redirect.is_some() && seen.iter().any(|form| matches!(*form, "URLRewrite" | "RequestMirror")) {
            let why = "filters: RequestRedirect goes with neither URLRewrite nor RequestMirror".to_owned();
            return Err(Unsupported { reason: "IncompatibleFilters", why });
        }
        Ok(it)
    }

    fn add(&mut self, filter: &'r Filter) -> Result<(), Missing> {
        let missing = || Missing("what it is to do is not said".to_owned());
        let headers = self.rewrite.headers.get_or_insert_default();
        match filter.form.as_str() {
            "RequestHeaderModifier" => {
                headers.request = Some(edits(filter.request_header_modifier.as_ref().ok_or_else(missing)?));
            }
            "ResponseHeaderModifier" => {
                headers.response = Some(edits(filter.response_header_modifier.as_ref().ok_or_else(missing)?));
            }
            "RequestRedirect" => {
                self.redirect = Some(redirect(filter.request_redirect.as_ref().ok_or_else(missing)?)?);
            }
            "URLRewrite" => rewrite(filter.url_rewrite.as_ref().ok_or_else(missing)?, &mut self.rewrite)?,
            "RequestMirror" => {
                let mirror = filter.request_mirror.as_ref().ok_or_else(missing)?;
                let percent = percent(mirror)?;
                self.mirror = (percent > 0).then_some((mirror, percent));
            }
            "CORS" => self.cors = Some(cors(filter.cors.as_ref().ok_or_else(missing)?)),
            _ => return Err(missing()),
        }
        Ok(())
    }
}

/// Why one filter cannot be carried out.
struct Missing(String);

/// `${` begins a value of the request in our words; in theirs it is two characters.
fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// Of a name that comes twice the first counts.
fn edits(it: &HeaderModifier) -> admin::HeaderEdits {
    let map = |list: &[crate::api::route::HeaderValue]| {
        let mut map = BTreeMap::new();
        for field in list {
            map.entry(field.name.to_ascii_lowercase()).or_insert_with(|| literal(&field.value));
        }
        map.into_iter().collect()
    };
    let mut remove: Vec<String> = it.remove.iter().map(|name| name.to_ascii_lowercase()).collect();
    remove.sort();
    remove.dedup();
    admin::HeaderEdits { set: map(&it.set), add: map(&it.add), remove }
}

fn redirect(it: &Redirect) -> Result<Redirecting, Missing> {
    let path = match it.path.as_ref().map(|path| (path.form.as_str(), &path.replace_full_path)) {
        None => String::new(),
        Some(("ReplaceFullPath", Some(path))) => path.clone(),
        Some((form, _)) => {
            return Err(Missing(format!("requestRedirect.path: found {form:?}; allowed: ReplaceFullPath")));
        }
    };
    Ok(Redirecting(admin::Redirect {
        status: it.status_code.unwrap_or(302).into(),
        scheme: it.scheme.clone().unwrap_or_default(),
        host: it.hostname.clone().unwrap_or_default(),
        port: it.port.unwrap_or_default().into(),
        path,
    }))
}

fn rewrite(it: &UrlRewrite, out: &mut admin::Rewrite) -> Result<(), Missing> {
    if let Some(host) = it.hostname.as_ref().filter(|it| !it.is_empty()) {
        if matches!(host.as_str(), "preserve" | "target") {
            return Err(Missing(format!("urlRewrite.hostname: found {host:?}, which means something else here")));
        }
        out.host.clone_from(host);
    }
    match it.path.as_ref().map(|path| (path.form.as_str(), path)) {
        None => {}
        Some(("ReplaceFullPath", PathChange { replace_full_path: Some(path), .. })) => out.path = Some(literal(path)),
        Some(("ReplacePrefixMatch", PathChange { replace_prefix_match: Some(path), .. })) => {
            // No prefix at all is the root.
            out.path_prefix = Some(if path.is_empty() { "/".to_owned() } else { path.clone() });
        }
        Some((form, _)) => {
            return Err(Missing(format!(
                "urlRewrite.path: found {form:?}; allowed: ReplaceFullPath and ReplacePrefixMatch with their values"
            )));
        }
    }
    Ok(())
}

fn percent(it: &RequestMirror) -> Result<u32, Missing> {
    let Some(fraction) = &it.fraction else {
        return match it.percent.unwrap_or(100) {
            percent @ 0..=100 => Ok(percent),
            found => Err(Missing(format!("requestMirror.percent: found {found}; allowed: 0 to 100"))),
        };
    };
    let (part, whole) = (u64::from(fraction.numerator) * 100, u64::from(fraction.denominator.unwrap_or(100)));
    match whole {
        _ if it.percent.is_some() => Err(Missing("requestMirror: allowed: one of percent and fraction".into())),
        1.. if part % whole == 0 && part / whole <= 100 => Ok((part / whole) as u32),
        _ => Err(Missing("requestMirror.fraction: allowed: whole percents, 0 to 100".into())),
    }
}

fn cors(it: &Cors) -> admin::Cors {
    admin::Cors {
        origins: it.allow_origins.clone(),
        methods: it.allow_methods.clone(),
        headers: it.allow_headers.clone(),
        expose_headers: it.expose_headers.clone(),
        credentials: it.allow_credentials.unwrap_or_default(),
        max_age: Some(prost_types::Duration { seconds: it.max_age.unwrap_or(CORS_MAX_AGE_S).into(), nanos: 0 }),
    }
}

pub fn mirror(upstream: String, percent: u32) -> admin::Mirror {
    admin::Mirror { upstream, percent, body_max: Some(MIRROR_BODY_MAX) }
}
