//! Cache-Control as a shared cache reads it (RFC 9111 5.2, RFC 5861), and how long an answer is fresh.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode, header};

/// Longer ages are this one (RFC 9111 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// Of a request or an answer; what belongs to the other side is never set by a message that keeps to the rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    /// Or `proxy-revalidate`, which is the same to a shared cache.
    pub(super) must_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    pub(super) min_fresh: Option<u64>,
    /// Without a number: whatever age.
    pub(super) max_stale: Option<u64>,
    pub(super) stale_while_revalidate: Option<u64>,
    pub(super) stale_if_error: Option<u64>,
}

impl Directives {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut it = Self::default();
        for field in headers.get_all(header::CACHE_CONTROL) {
            // What cannot be read must not be stored.
            let Ok(text) = field.to_str() else { return Self { no_store: true, ..it } };
            elements(text, |name, value| it.put(name, value));
        }
        if !headers.contains_key(header::CACHE_CONTROL)
            && headers.get(header::PRAGMA).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"no-cache"))
        {
            it.no_cache = true;
        }
        it
    }

    fn put(&mut self, name: &str, value: Option<&str>) {
        // What is no number is no age: stale at once. The first of several counts.
        let seconds = || value.map_or(0, seconds);
        let first = |known: &mut Option<u64>, seconds: u64| {
            known.get_or_insert(seconds);
        };
        match &*name.to_ascii_lowercase() {
            "no-store" => self.no_store = true,
            // With names of fields too: all of the answer, which is more than is asked.
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
            "must-understand" => self.must_understand = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => first(&mut self.max_age, seconds()),
            "s-maxage" => first(&mut self.s_maxage, seconds()),
            "min-fresh" => first(&mut self.min_fresh, seconds()),
            "max-stale" => first(&mut self.max_stale, if value.is_some() { seconds() } else { SECONDS_MAX }),
            "stale-while-revalidate" => first(&mut self.stale_while_revalidate, seconds()),
            "stale-if-error" => first(&mut self.stale_if_error, seconds()),
            _ => (),
        }
    }

    /// Whether the answer may be used once it is stale (RFC 9111 4.2.4).
    pub(super) fn may_be_stale(&self) -> bool {
        !self.must_revalidate && !self.no_cache && self.s_maxage.is_none()
    }

    /// Whether answers to requests with credentials may be stored: RFC 9111 3.5, less what `must-revalidate` says there,
    /// which is said by many who do not think of a cache that others share.
    pub(super) fn is_for_all(&self) -> bool {
        self.public || self.s_maxage.is_some()
    }

    /// How long the answer is fresh from its making on; None: it does not say.
    pub(super) fn lifetime(&self, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
        if let Some(seconds) = self.s_maxage.or(self.max_age) {
            return Some(Duration::from_secs(seconds));
        }
        let expires = headers.get(header::EXPIRES)?;
        let made = date(headers, &header::DATE).unwrap_or(now);
        let expires = expires.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
        Some(expires.and_then(|it| it.duration_since(made).ok()).unwrap_or_default())
    }
}

fn seconds(text: &str) -> u64 {
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX),
        false => 0,
    }
}

pub(super) fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// What the answer was old when it came: Age, or what its date says, whichever is more (RFC 9111 4.2.3). An age that
/// cannot be read, or is there twice, is any age.
pub(super) fn initial_age(headers: &HeaderMap, delay: Duration, now: SystemTime) -> Duration {
    let mut ages = headers.get_all(header::AGE).iter();
    let said = match (ages.next(), ages.next()) {
        (None, _) => 0,
        (Some(age), None) if age.as_bytes().iter().all(u8::is_ascii_digit) => age.to_str().map_or(0, seconds),
        _ => SECONDS_MAX,
    };
    let apparent = date(headers, &header::DATE).and_then(|made| now.duration_since(made).ok()).unwrap_or_default();
    apparent.max(Duration::from_secs(said) + delay)
}

/// Statuses that may be kept without the answer's saying so, where the route gives a time (RFC 9110 15.1).
pub(super) fn is_kept_by_default(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Statuses whose meaning for caches is known here (`must-understand`, RFC 9111 5.2.2.3).
pub(super) fn is_understood(status: StatusCode) -> bool {
    is_kept_by_default(status)
        || matches!(status.as_u16(), 201 | 202 | 205 | 302 | 303 | 307 | 400..=403 | 406..=409 | 411..=413 | 415 | 421 | 422)
        || matches!(status.as_u16(), 424 | 426 | 428 | 429 | 431 | 451 | 500 | 502..=504)
}

/// `name`, `name=token` and `name="quoted"`, with commas between them.
fn elements(text: &str, mut each: impl FnMut(&str, Option<&str>)) {
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        let Some(behind) = rest[end..].strip_prefix('=') else {
            if !name.is_empty() {
                each(name, None);
            }
            rest = &rest[end..];
            continue;
        };
        let value;
        if let Some(quoted) = behind.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            value = &quoted[..end];
            rest = quoted[end..].trim_start_matches('"');
            // What stands between the quote and the next comma is nobody's.
            rest = &rest[rest.find(',').unwrap_or(rest.len())..];
        } else {
            let end = behind.find(',').unwrap_or(behind.len());
            value = behind[..end].trim();
            rest = &behind[end..];
        }
        each(name, Some(value));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> (Directives, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        (Directives::of(&headers), headers)
    }

    #[test]
    fn directives_are_read_whatever_their_form() {
        let (it, _) = of(&[
            ("cache-control", "Max-Age=60 , no-cache=\"set-cookie, x\", s-maxage=\"10\""),
            ("cache-control", "public"),
        ]);
        assert_eq!(
            (it.max_age, it.s_maxage, it.no_cache, it.public, it.private),
            (Some(60), Some(10), true, true, false)
        );
        let (it, _) = of(&[("cache-control", "max-age=9, max-age=1, max-stale, stale-if-error=5")]);
        assert_eq!((it.max_age, it.max_stale, it.stale_if_error), (Some(9), Some(SECONDS_MAX), Some(5)));
        for wrong in ["max-age=x", "max-age=-1", "max-age=1.5", "max-age=", "max-age"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_str(wrong).unwrap());
            assert_eq!(Directives::of(&headers).max_age, Some(0), "{wrong}");
        }
        assert_eq!(of(&[("cache-control", "max-age=99999999999999999999")]).0.max_age, Some(SECONDS_MAX));
        assert_eq!(of(&[("cache-control", "x=\"no-store\", =, ,,y=\"unfinished")]).0, Directives::default());
        assert!(of(&[("pragma", "no-cache")]).0.no_cache);
        assert!(!of(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]).0.no_cache);
    }

    #[test]
    fn lifetimes_and_ages_are_those_of_the_rfc() {
        let now = httpdate::parse_http_date("Wed, 25 Nov 2026 14:00:10 GMT").unwrap();
        let made = ("date", "Wed, 25 Nov 2026 14:00:00 GMT");
        let lifetime = |fields: &[(&'static str, &'static str)]| {
            let (it, headers) = of(fields);
            it.lifetime(&headers, now).map(|it| it.as_secs())
        };
        assert_eq!(lifetime(&[made, ("expires", "Wed, 25 Nov 2026 14:01:00 GMT")]), Some(60));
        assert_eq!(lifetime(&[made, ("expires", "0")]), Some(0));
        assert_eq!(lifetime(&[("expires", "Wed, 25 Nov 2026 14:01:00 GMT")]), Some(50));
        assert_eq!(
            lifetime(&[made, ("expires", "Wed, 25 Nov 2026 14:01:00 GMT"), ("cache-control", "max-age=5")]),
            Some(5)
        );
        assert_eq!(lifetime(&[("cache-control", "max-age=5, s-maxage=7")]), Some(7));
        assert_eq!(lifetime(&[made]), None);
        let age =
            |fields: &[(&'static str, &'static str)]| initial_age(&of(fields).1, Duration::from_secs(2), now).as_secs();
        assert_eq!(age(&[made]), 10);
        assert_eq!(age(&[made, ("age", "20")]), 22);
        for wrong in ["x", "-1", "1.0", "0, 0", "0,7200"] {
            let age = HeaderMap::from_iter([(header::AGE, HeaderValue::from_static(wrong))]);
            assert!(initial_age(&age, Duration::ZERO, now).as_secs() >= SECONDS_MAX, "{wrong}");
        }
        assert!(age(&[("age", "0"), ("age", "0")]) >= SECONDS_MAX);
    }
}
