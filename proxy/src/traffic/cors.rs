//! The CORS protocol (Fetch standard, 3.3): what pages of other origins may ask, and may see of answers. The gateway is
//! the one who says so: what the upstream says of it is removed.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use quorumgate_model::resource::{self, OriginPattern};

use super::vary;
use crate::body::ResponseBody;

/// Where neither `cors.methods` nor the route's match says any.
const METHODS_DEFAULT: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const ANY: HeaderValue = HeaderValue::from_static("*");
const ANSWERS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// With the answers' fields made.
pub(super) struct Cors {
    origins: Vec<OriginPattern>,
    any: bool,
    credentials: bool,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

impl Cors {
    /// `taken`: the methods of the route's match.
    pub(super) fn new(cors: &resource::Cors, taken: &[String]) -> Self {
        let list =
            |names: &[String]| (!names.is_empty()).then(|| HeaderValue::try_from(names.join(", ")).ok()).flatten();
        Self {
            any: cors.origins.contains(&OriginPattern::Any),
            origins: cors.origins.clone(),
            credentials: cors.credentials,
            methods: list(&cors.methods).or_else(|| list(taken)).unwrap_or(HeaderValue::from_static(METHODS_DEFAULT)),
            headers: list(&cors.headers),
            expose: list(&cors.expose_headers),
            max_age: cors.max_age.map(|it| HeaderValue::from(it.0.as_secs())),
        }
    }

    /// To an origin that may not, the same without what would let it: its browser says the rest.
    pub(super) fn preflight(&self, origin: Option<&HeaderValue>) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        for asked in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
            vary(headers, asked);
        }
        if self.admit(headers, origin) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            if let Some(names) = &self.headers {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
            if let Some(max_age) = &self.max_age {
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age.clone());
            }
        }
        response
    }

    /// Any other answer, also one that refuses: a page may know why.
    pub(super) fn decorate(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        for name in ANSWERS {
            headers.remove(name);
        }
        if self.admit(headers, origin)
            && let Some(expose) = &self.expose
        {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    /// Says which origin may see the answer, and whether that is this one. Vary also where there is none: a cache must
    /// not give that answer to one that has.
    fn admit(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) -> bool {
        if self.any {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            return true;
        }
        vary(headers, header::ORIGIN);
        let takes = |origin: &&HeaderValue| {
            origin.to_str().is_ok_and(|text| self.origins.iter().any(|pattern| pattern.takes(text)))
        };
        let Some(origin) = origin.filter(takes) else { return false };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}
