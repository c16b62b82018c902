//! What a request shows of credentials, before any of it is believed (RFC 9110 11.6.2, RFC 6750, RFC 7617).

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::keys::{KEY_BYTES_MAX, is_of_basic};

/// How every API key begins: what tells it from a token behind the same word.
const KEY_START: &str = "qg_";
/// Bytes of a user's name and password in base64.
const BASIC_BYTES_MAX: usize = 2048;

/// More than one credential where one is read: whom it is from cannot be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// The fields of a request in which credentials may stand.
pub(crate) struct Shown<'a> {
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    authorization: Authorization<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authorization<'a> {
    Nothing,
    Bearer(&'a str),
    ApiKey(&'a str),
    Basic(&'a str),
    /// Of another scheme, or malformed.
    Other,
}

/// Where a credential stood: what of the request is not for the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Field(HeaderName),
    /// The parameter's name.
    Query(Box<str>),
    Connection,
    /// A session's, which is never passed on.
    Cookie,
}

impl Place {
    /// Whether a client shows what stands there without being told to.
    pub(crate) fn comes_by_itself(&self) -> bool {
        matches!(self, Self::Connection | Self::Cookie)
    }
}

/// A user's name and password.
pub(crate) struct UserPassword {
    pub(crate) user: String,
    pub(crate) password: Box<[u8]>,
}

impl<'a> Shown<'a> {
    pub(crate) fn read(headers: &'a HeaderMap, query: Option<&'a str>) -> Result<Self, Ambiguous> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let authorization = match (values.next(), values.next()) {
            (None, _) => Authorization::Nothing,
            (Some(value), None) => Authorization::parse(value),
            (Some(_), Some(_)) => return Err(Ambiguous),
        };
        // RFC 6750 2: a client must not use more than one way. The one in the query is never read.
        let bears = matches!(authorization, Authorization::Bearer(_));
        if bears && query.is_some_and(|query| parameters(query, "access_token").next().is_some()) {
            return Err(Ambiguous);
        }
        Ok(Self { headers, query, authorization })
    }

    /// The API key, from its own field, Authorization or, where the auth asks for it, the query.
    pub(crate) fn api_key(
        &self,
        name: &HeaderName,
        parameter: Option<&'a str>,
    ) -> Result<Option<(&'a str, Place)>, Ambiguous> {
        let mut found = None;
        let mut add = |text: &'a str, place| match found.replace((text, place)) {
            None => Ok(()),
            Some(_) => Err(Ambiguous),
        };
        if *name != header::AUTHORIZATION {
            for value in self.headers.get_all(name) {
                add(value.to_str().unwrap_or_default(), Place::Field(name.clone()))?;
            }
        }
        match self.authorization {
            Authorization::ApiKey(text) => add(text, Place::Field(header::AUTHORIZATION))?,
            Authorization::Bearer(text) if text.starts_with(KEY_START) => {
                add(text, Place::Field(header::AUTHORIZATION))?
            }
            _ => (),
        }
        if let (Some(query), Some(parameter)) = (self.query, parameter) {
            for value in parameters(query, parameter) {
                add(value, Place::Query(parameter.into()))?;
            }
        }
        Ok(found.map(|(text, place)| (if text.len() > KEY_BYTES_MAX { "" } else { text }, place)))
    }

    /// A token that is not one of our keys.
    pub(crate) fn bearer(&self) -> Option<&'a str> {
        match self.authorization {
            Authorization::Bearer(text) if !text.starts_with(KEY_START) => Some(text),
            _ => None,
        }
    }

    /// None inside: shown, but malformed.
    pub(crate) fn basic(&self) -> Option<Option<UserPassword>> {
        match self.authorization {
            Authorization::Basic(text) => Some(user_password(text)),
            _ => None,
        }
    }
}

impl<'a> Authorization<'a> {
    /// One scheme and one token68 (RFC 9110 11.4); schemes know no case.
    fn parse(value: &'a HeaderValue) -> Self {
        let Ok(text) = value.to_str() else { return Self::Other };
        let Some((scheme, rest)) = text.split_once(' ') else { return Self::Other };
        let rest = rest.trim_matches(' ');
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if rest.is_empty() || !rest.bytes().all(is_token) {
            return Self::Other;
        }
        match scheme {
            it if it.eq_ignore_ascii_case("bearer") => Self::Bearer(rest),
            it if it.eq_ignore_ascii_case("apikey") => Self::ApiKey(rest),
            it if it.eq_ignore_ascii_case("basic") => Self::Basic(rest),
            _ => Self::Other,
        }
    }
}

fn user_password(text: &str) -> Option<UserPassword> {
    if text.len() > BASIC_BYTES_MAX {
        return None;
    }
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    let colon = bytes.iter().position(|b| *b == b':')?;
    let user = std::str::from_utf8(&bytes[..colon]).ok()?;
    let password = &bytes[colon + 1..];
    let both = is_of_basic(user.as_bytes()) && is_of_basic(password);
    both.then(|| UserPassword { user: user.into(), password: password.into() })
}

/// The values of a parameter as they stand: a key has no characters that need escapes.
fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    pairs(query).filter(move |(key, _)| *key == name).map(|(_, value)| value)
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The query without a parameter; None: nothing is left.
pub(crate) fn query_without(query: &str, name: &str) -> Option<String> {
    let rest: Vec<&str> =
        query.split('&').filter(|pair| pair.split_once('=').map_or(*pair, |(key, _)| key) != name).collect();
    (!rest.is_empty()).then(|| rest.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[track_caller]
    fn check_key(
        fields: &[(&'static str, &'static str)],
        query: Option<&str>,
        expected: Result<Option<&str>, Ambiguous>,
    ) {
        let headers = headers(fields);
        let found = Shown::read(&headers, query).and_then(|shown| shown.api_key(&X_API_KEY, Some("key")));
        let found = found.map(|found| found.map(|(text, _)| text.to_owned()));
        assert_eq!(found, expected.map(|it| it.map(str::to_owned)), "{fields:?} {query:?}");
    }

    #[test]
    fn a_key_stands_in_one_place() {
        check_key(&[], None, Ok(None));
        check_key(&[("x-api-key", "qg_a")], None, Ok(Some("qg_a")));
        check_key(&[("authorization", "ApiKey qg_a")], None, Ok(Some("qg_a")));
        check_key(&[("authorization", "bearer qg_a")], None, Ok(Some("qg_a")));
        check_key(&[("authorization", "Bearer eyJ.e.s")], None, Ok(None));
        check_key(&[], Some("a=b&key=qg_a"), Ok(Some("qg_a")));
        check_key(&[], Some("keys=qg_a"), Ok(None));
        check_key(&[("x-api-key", "qg_a"), ("x-api-key", "qg_b")], None, Err(Ambiguous));
        check_key(&[("x-api-key", "qg_a"), ("authorization", "Bearer qg_a")], None, Err(Ambiguous));
        check_key(&[("x-api-key", "qg_a")], Some("key=qg_b"), Err(Ambiguous));
        check_key(&[], Some("key=qg_a&key=qg_a"), Err(Ambiguous));
        check_key(&[("authorization", "Basic YTpi"), ("authorization", "Bearer qg_a")], None, Err(Ambiguous));
        check_key(&[("authorization", "Bearer a.b.c")], Some("access_token=d.e.f"), Err(Ambiguous));
        check_key(&[("authorization", "Bearer qg_a, Bearer qg_b")], None, Ok(None));
        // Imported keys may have as many bytes.
        let longest = "k".repeat(KEY_BYTES_MAX);
        let shown = |text: &str| {
            let headers = HeaderMap::from_iter([(X_API_KEY, HeaderValue::from_str(text).unwrap())]);
            let shown = Shown::read(&headers, None).unwrap();
            shown.api_key(&X_API_KEY, None).unwrap().map(|(text, _)| text.len())
        };
        assert_eq!((shown(&longest), shown(&format!("{longest}k"))), (Some(512), Some(0)));
    }

    #[test]
    fn basic_is_base64_with_a_colon() {
        let check = |value: &'static str, expected: Option<(&str, &[u8])>| {
            let headers = headers(&[("authorization", value)]);
            let shown = Shown::read(&headers, None).unwrap();
            let found = shown.basic().unwrap();
            let found = found.as_ref().map(|it| (it.user.as_str(), &*it.password));
            assert_eq!(found, expected, "{value}");
        };
        check("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", b"open sesame")));
        check("basic YTpiOmM=", Some(("a", b"b:c")));
        check("Basic YTp", None);
        check("Basic YQ==", None);
        check("Basic YQA6Yg==", None);
        check("Basic YQliOmM=", None);
        check("Basic YTpiCWM=", None);
    }

    #[test]
    fn a_parameter_is_cut_out() {
        assert_eq!(query_without("key=x", "key"), None);
        assert_eq!(query_without("a=1&key=x&b", "key").as_deref(), Some("a=1&b"));
        assert_eq!(query_without("keys=1&key&a=key", "key").as_deref(), Some("keys=1&a=key"));
    }
}
