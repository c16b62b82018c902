//! What becomes of a route's traffic, between prost and the words of the file.

use quorumgate_proto::admin::v1::{self as admin, split_on::Key};

use super::resource::{listed, name_from, span_from, span_to, word};
use crate::{
    invalid::Invalid,
    resource::{
        Arm, Cache, Coding, Compression, CorsWords, Mirror, PathRegex, QueryEdits, Ramp, SplitOnObject, SplitOnWord,
        SplitOnWords, check::words,
    },
    units::Size,
};

/// `split`, `split_on` and `ramp` of the file.
pub(super) type SplitWords = (Vec<Arm>, Option<SplitOnWords>, Option<Ramp>);

pub(super) fn split_from(it: admin::Split) -> Result<SplitWords, Invalid> {
    let arm = |it: admin::SplitArm| {
        Ok(Arm { upstream: name_from("upstream", &it.upstream)?, weight: it.weight, from: it.from })
    };
    let arms = listed("split", it.arms, arm)?;
    let on = it.on.and_then(|it| it.key).map(on_from).transpose().map_err(|invalid| invalid.under("split_on"))?;
    let ramp = it.ramp.map(ramp_from).transpose().map_err(|invalid| invalid.under("ramp"))?;
    Ok((arms, on, ramp))
}

fn on_from(key: Key) -> Result<SplitOnWords, Invalid> {
    let none = SplitOnObject::default();
    Ok(match key {
        Key::Word(text) => {
            let found = word("", &text, SplitOnWord::ALL, SplitOnWord::word)?;
            let missing = || Invalid::field("").found("\"\"").allowed(words(SplitOnWord::ALL, SplitOnWord::word));
            SplitOnWords::Word(found.ok_or_else(missing)?)
        }
        Key::Header(name) => SplitOnWords::Object(SplitOnObject { header: Some(name), ..none }),
        Key::Cookie(it) => {
            SplitOnWords::Object(SplitOnObject { cookie: Some(it.name), ttl: span_from("ttl", it.ttl)?, ..none })
        }
    })
}

fn ramp_from(it: admin::Ramp) -> Result<Ramp, Invalid> {
    let start = it.start.parse().map_err(|why: String| {
        let (found, allowed) = why.split_once("; allowed: ").unwrap_or((&why, ""));
        Invalid::field("start").found(found.trim_start_matches("found ")).allowed(allowed)
    })?;
    Ok(Ramp {
        start,
        duration: span_from("duration", it.duration)?.unwrap_or_default(),
        steps: if it.steps == 0 { Ramp::steps_default() } else { it.steps },
    })
}

pub(super) fn split_to((arms, on, ramp): SplitWords) -> admin::Split {
    let arm = |it: Arm| admin::SplitArm { upstream: it.upstream.to_string(), weight: it.weight, from: it.from };
    let key = |on: SplitOnWords| match on {
        SplitOnWords::Word(word) => Key::Word(word.word().to_owned()),
        SplitOnWords::Object(SplitOnObject { header: Some(name), .. }) => Key::Header(name),
        SplitOnWords::Object(it) => {
            Key::Cookie(admin::SplitCookie { name: it.cookie.unwrap_or_default(), ttl: it.ttl.and_then(span_to) })
        }
    };
    admin::Split {
        arms: arms.into_iter().map(arm).collect(),
        on: on.map(|on| admin::SplitOn { key: Some(key(on)) }),
        ramp: ramp.map(|it| admin::Ramp {
            start: it.start.to_string(),
            duration: span_to(it.duration),
            steps: it.steps,
        }),
    }
}

pub(super) fn mirror_from(it: admin::Mirror) -> Result<Mirror, Invalid> {
    Ok(Mirror {
        upstream: name_from("upstream", &it.upstream)?,
        percent: if it.percent == 0 { Mirror::percent_default() } else { it.percent },
        body_max: it.body_max.map_or_else(Mirror::body_max_default, Size),
    })
}

pub(super) fn mirror_to(it: Mirror) -> admin::Mirror {
    admin::Mirror { upstream: it.upstream.to_string(), percent: it.percent, body_max: Some(it.body_max.0) }
}

pub(super) fn cors_from(it: admin::Cors) -> Result<CorsWords, Invalid> {
    Ok(CorsWords {
        origins: it.origins,
        methods: it.methods,
        headers: it.headers,
        expose_headers: it.expose_headers,
        credentials: it.credentials,
        max_age: span_from("max_age", it.max_age)?,
    })
}

pub(super) fn cors_to(it: CorsWords) -> admin::Cors {
    admin::Cors {
        origins: it.origins,
        methods: it.methods,
        headers: it.headers,
        expose_headers: it.expose_headers,
        credentials: it.credentials,
        max_age: it.max_age.and_then(span_to),
    }
}

pub(super) fn compression_from(it: admin::Compression) -> Result<Compression, Invalid> {
    let default = Compression::default();
    let mut algorithms = Vec::new();
    for (place, text) in it.algorithms.iter().enumerate() {
        let field = format!("algorithms[{place}]");
        let found = word(&field, text, Coding::ALL, Coding::word)?;
        let missing = || Invalid::field(&field).found("\"\"").allowed(words(Coding::ALL, Coding::word));
        algorithms.push(found.ok_or_else(missing)?);
    }
    Ok(Compression {
        algorithms: if algorithms.is_empty() { default.algorithms } else { algorithms },
        types: if it.types.is_empty() { default.types } else { it.types },
        min_size: it.min_size.map_or(default.min_size, Size),
    })
}

pub(super) fn compression_to(it: Compression) -> admin::Compression {
    admin::Compression {
        algorithms: it.algorithms.iter().map(|it| it.word().to_owned()).collect(),
        types: it.types,
        min_size: Some(it.min_size.0),
    }
}

pub(super) fn cache_from(it: admin::Cache) -> Result<Cache, Invalid> {
    Ok(Cache {
        default_ttl: span_from("default_ttl", it.default_ttl)?,
        object_max: it.object_max.map_or(Cache::default().object_max, Size),
        stale_while_revalidate: span_from("stale_while_revalidate", it.stale_while_revalidate)?,
        stale_if_error: span_from("stale_if_error", it.stale_if_error)?,
    })
}

pub(super) fn cache_to(it: Cache) -> admin::Cache {
    admin::Cache {
        default_ttl: it.default_ttl.and_then(span_to),
        object_max: Some(it.object_max.0),
        stale_while_revalidate: it.stale_while_revalidate.and_then(span_to),
        stale_if_error: it.stale_if_error.and_then(span_to),
    }
}

pub(super) fn path_regex_from(it: admin::PathRegex) -> PathRegex {
    PathRegex { pattern: it.pattern, to: it.to }
}

pub(super) fn path_regex_to(it: PathRegex) -> admin::PathRegex {
    admin::PathRegex { pattern: it.pattern, to: it.to }
}

pub(super) fn query_from(it: admin::QueryEdits) -> QueryEdits {
    QueryEdits { set: it.set, add: it.add, remove: it.remove }
}

/// None where nothing is changed: a route that says nothing is stored as it was before there was anything to say.
pub(super) fn query_to(it: QueryEdits) -> Option<admin::QueryEdits> {
    (!it.is_empty()).then_some(admin::QueryEdits { set: it.set, add: it.add, remove: it.remove })
}
