//! Why this gateway answers instead of the upstream, and what it then says (RFC 9457; trailers-only for gRPC).

use std::{borrow::Cow, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use uuid::Uuid;

use quorumgate_model::{
    ban::{Ban, BanSubject},
    resource::Name,
    ruleset::{ShutOut, Unfit, Unwelcome},
};

use crate::{
    anomaly::Verdict,
    client_body::ClientFault,
    headscan::Wrong,
    identity::AuthFailure,
    inspect::Violations,
    limits::OverLimit,
    live::Ended,
    upstream::Failure,
    versions::{Version, Window},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The message itself is wrong, and says how. The connection is closed: what follows cannot be trusted.
    Malformed(&'static str),
    BadPath(&'static str),
    NoRoute,
    /// The methods that are allowed here.
    MethodNotAllowed(Vec<String>),
    RequestTimeout,
    LateHead,
    BodyTooLarge,
    /// Once it is unpacked.
    UnpacksTooLarge,
    /// Larger than this policy, which looks through it, takes.
    TooLargeToInspect {
        policy: Name,
        bytes_max: u64,
    },
    /// Of a type that this policy does not let pass, by which of its words.
    TypeNotTaken {
        policy: Name,
        rule: &'static str,
    },
    /// No operation of a contract takes it; with the methods that its path has.
    UnknownOperation {
        policy: Name,
        methods: Vec<String>,
    },
    /// The upstream's answer is not as the contract says.
    AnswerInvalid(Box<Violations>),
    /// What a policy found in it.
    Invalid(Box<Violations>),
    /// The route makes another body of it, which cannot be made of this one.
    NotRewritten(Unfit),
    /// Of another type, where the route makes another body of it.
    JsonAlone,
    /// The same of the upstream's answer, and why.
    AnswerNotRewritten(&'static str),
    /// What the policy hides cannot be hidden in the upstream's answer, and why.
    AnswerNotMasked {
        policy: Name,
        why: &'static str,
    },
    /// In a coding that cannot be looked into, on a route that wants to.
    CodingNotTaken,
    UriTooLong,
    HeadersTooLarge,
    BrokenRule,
    /// Who asks is not shown, or not as it must be; with what could be shown.
    Unauthenticated(AuthFailure, Challenges),
    /// Two credentials where one is read.
    AmbiguousCredentials(Challenges),
    /// Too many wrong guesses; try again after so many seconds.
    TooManyFailures(u64),
    InsufficientScope(Challenges),
    AccessDenied,
    /// The client's address, by a policy of the route.
    IpDenied(ShutOut),
    /// What the client calls itself, by a policy of the route.
    BotDenied(Unwelcome),
    /// The version of the API that this is of serves no more.
    Retired(Rc<Version>),
    /// It does not at the moment, on purpose.
    Brownout(Rc<Version>, Window),
    /// The cluster has banned the client's address, its consumer or its credential; by which entry, where that is known.
    Banned(Option<Arc<Ban>>),
    UpgradeNotSupported,
    UpstreamProtocol,
    UpstreamReset,
    /// No TLS with the upstream, or not with who it should be.
    UpstreamTls,
    NoHealthyUpstream,
    /// Too many of the upstream's answers failed; try again after so many seconds.
    CircuitOpen(u64),
    /// Every target of the upstream has as many requests as it may.
    UpstreamOverloaded,
    StateStale,
    UpstreamTimeout,
    /// The client wants nothing but what is kept, and that is not.
    NotCached,
    LoopDetected,
    Misdirected,
    /// This node holds as many bytes for clients as it may.
    Overloaded,
    /// More than a limit admits.
    OverLimit(Box<OverLimit>),
    /// A policy has found that the caller does more of something than is usual.
    AbnormalUsage(Arc<Verdict>),
    /// The same, and it has not proved since then who it is; with how it may.
    StepUpRequired(Arc<Verdict>, Challenges),
    /// The cluster cannot be asked for this limit's slots, and it denies then.
    LimitUnavailable(Name),
}

/// The values of WWW-Authenticate (RFC 9110 11.6.1).
pub(crate) type Challenges = Vec<HeaderValue>;

/// What one kind of refusal says.
pub(crate) struct Words {
    pub status: StatusCode,
    pub code: &'static str,
    title: &'static str,
    pub detail: &'static str,
    grpc_status: u8,
    retry_after: Option<&'static str>,
    pub close: bool,
}

const fn words(status: StatusCode, code: &'static str, title: &'static str, detail: &'static str, grpc: u8) -> Words {
    Words { status, code, title, detail, grpc_status: grpc, retry_after: None, close: false }
}

impl Words {
    const fn retry_after(mut self, seconds: &'static str) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    const fn close(mut self) -> Self {
        self.close = true;
        self
    }
}

impl Refusal {
    pub(crate) fn words(&self) -> Words {
        use StatusCode as S;
        match self {
            Self::Malformed(detail) => {
                words(S::BAD_REQUEST, "malformed_request", "Malformed request", detail, 13).close()
            }
            Self::BadPath(detail) => words(S::BAD_REQUEST, "bad_path", "Bad path", detail, 13),
            Self::NoRoute => words(S::NOT_FOUND, "no_route", "No route", "no route takes this host and path", 12),
            Self::MethodNotAllowed(_) => words(
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
                "no route takes this method here; see Allow",
                12,
            ),
            Self::RequestTimeout => words(
                S::REQUEST_TIMEOUT,
                "request_timeout",
                "Request timeout",
                "the request's body came in too slowly",
                4,
            )
            .close(),
            Self::LateHead => words(
                S::REQUEST_TIMEOUT,
                "request_timeout",
                "Request timeout",
                "the request's head came in too slowly",
                4,
            )
            .close(),
            Self::BodyTooLarge => words(
                S::PAYLOAD_TOO_LARGE,
                "content_too_large",
                "Content too large",
                "the request's body is larger than this route allows",
                8,
            ),
            Self::UnpacksTooLarge => words(
                S::PAYLOAD_TOO_LARGE,
                "content_too_large",
                "Content too large",
                "the request's body unpacks into more than this route allows",
                8,
            ),
            Self::TooLargeToInspect { .. } => words(
                S::PAYLOAD_TOO_LARGE,
                "content_too_large",
                "Content too large",
                "the request's body is, or unpacks into, more than the policies of this route look through",
                8,
            ),
            Self::UnknownOperation { methods, .. } => words(
                if methods.is_empty() { S::NOT_FOUND } else { S::METHOD_NOT_ALLOWED },
                "unknown_operation",
                "Unknown operation",
                "the API of this route has no such operation",
                12,
            ),
            Self::AnswerInvalid(_) => words(
                S::BAD_GATEWAY,
                "response_validation_failed",
                "Response validation failed",
                "the upstream's answer is not as the contract of this route says",
                13,
            ),
            Self::TypeNotTaken { .. } => words(
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported media type",
                "this route takes bodies of the types alone that its policies look through",
                3,
            ),
            Self::Invalid(_) => words(
                S::BAD_REQUEST,
                "validation_failed",
                "Validation failed",
                "the request is not as this route wants it; errors says where",
                3,
            ),
            Self::NotRewritten(Unfit::NotJson) => words(
                S::BAD_REQUEST,
                "validation_failed",
                "Validation failed",
                "the request's body is not JSON, of which this route makes another one",
                3,
            ),
            Self::NotRewritten(Unfit::TooLarge) => words(
                S::PAYLOAD_TOO_LARGE,
                "content_too_large",
                "Content too large",
                "the request's body, or what this route makes of it, is larger than it may be",
                8,
            ),
            Self::JsonAlone => words(
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported media type",
                "this route takes bodies of JSON alone",
                3,
            ),
            Self::AnswerNotRewritten(detail) | Self::AnswerNotMasked { why: detail, .. } => {
                words(S::BAD_GATEWAY, "upstream_protocol_error", "Upstream protocol error", detail, 13)
            }
            Self::CodingNotTaken => words(
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported media type",
                "this route takes bodies in one of the codings that Accept-Encoding names, or in none",
                3,
            ),
            Self::UriTooLong => {
                words(S::URI_TOO_LONG, "uri_too_long", "URI too long", "the request target is too long", 13)
            }
            Self::HeadersTooLarge => words(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_fields_too_large",
                "Header fields too large",
                "too many header fields, or too many bytes of them",
                13,
            ),
            Self::BrokenRule => words(
                S::INTERNAL_SERVER_ERROR,
                "broken_rule",
                "Broken rule",
                "this node cannot carry out the configured route",
                13,
            ),
            Self::Unauthenticated(failure, _) => Self::unauthenticated(failure),
            Self::AmbiguousCredentials(_) => words(
                S::BAD_REQUEST,
                "malformed_request",
                "Malformed request",
                "the request shows more than one credential where one is read",
                16,
            ),
            Self::TooManyFailures(_) => words(
                S::TOO_MANY_REQUESTS,
                "rate_limited",
                "Too many failures",
                "too many wrong credentials for this user or from this address",
                8,
            ),
            Self::InsufficientScope(_) => words(
                S::FORBIDDEN,
                "insufficient_scope",
                "Insufficient scope",
                "the credential lacks a scope that this needs",
                7,
            ),
            Self::IpDenied(_) => {
                words(S::FORBIDDEN, "ip_denied", "Address denied", "this address is not let in here", 7)
            }
            Self::BotDenied(_) => words(
                S::FORBIDDEN,
                "bot_denied",
                "Client denied",
                "clients that call themselves so are not let in here",
                7,
            ),
            Self::Retired(_) => words(
                S::GONE,
                "api_retired",
                "Version retired",
                "this version of the API serves no more; Link names its successor, if it has one",
                12,
            ),
            Self::Brownout(_, window) => words(
                window.status,
                "api_brownout",
                "Version in a brown-out",
                "this version of the API is about to end and does not serve at the moment, on purpose; Link names its successor, if it has one",
                14,
            ),
            Self::Banned(_) => words(S::FORBIDDEN, "banned", "Banned", "this client is shut out for a while", 7),
            Self::AccessDenied => {
                words(S::FORBIDDEN, "access_denied", "Access denied", "the rules of this route do not allow it", 7)
            }
            Self::UpgradeNotSupported => words(
                S::NOT_IMPLEMENTED,
                "upgrade_not_supported",
                "Upgrade not supported",
                "CONNECT and upgrades to other protocols than WebSocket are not served",
                12,
            )
            .close(),
            Self::UpstreamProtocol => words(
                S::BAD_GATEWAY,
                "upstream_protocol_error",
                "Upstream protocol error",
                "the upstream's answer was not valid HTTP",
                13,
            ),
            Self::UpstreamReset => words(
                S::BAD_GATEWAY,
                "upstream_reset",
                "Upstream reset",
                "the upstream ended the connection before it answered",
                14,
            ),
            Self::UpstreamTls => words(
                S::BAD_GATEWAY,
                "upstream_tls",
                "Upstream TLS",
                "the upstream could not be reached by TLS as it is configured",
                14,
            ),
            Self::CircuitOpen(_) => words(
                S::SERVICE_UNAVAILABLE,
                "circuit_open",
                "Circuit open",
                "too many of the upstream's answers failed; it is left alone for a while",
                14,
            ),
            Self::UpstreamOverloaded => words(
                S::SERVICE_UNAVAILABLE,
                "overloaded",
                "Overloaded",
                "every target of the upstream has as many requests as it may",
                14,
            )
            .retry_after("1"),
            Self::NoHealthyUpstream => words(
                S::SERVICE_UNAVAILABLE,
                "no_healthy_upstream",
                "No healthy upstream",
                "no target of the upstream can be reached",
                14,
            )
            .retry_after("3"),
            Self::StateStale => words(
                S::SERVICE_UNAVAILABLE,
                "state_stale",
                "State stale",
                "this node has been out of touch with the cluster for too long to serve this route",
                14,
            )
            .retry_after("1"),
            Self::UpstreamTimeout => words(
                S::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "Upstream timeout",
                "the upstream did not answer in time",
                4,
            ),
            Self::NotCached => words(
                S::GATEWAY_TIMEOUT,
                "not_cached",
                "Not cached",
                "only-if-cached was asked for, and no answer is kept that may be given",
                14,
            ),
            Self::Misdirected => words(
                S::MISDIRECTED_REQUEST,
                "misdirected_request",
                "Misdirected request",
                "this connection was opened for another host, and its certificate does not cover this one",
                13,
            ),
            Self::Overloaded => words(
                S::SERVICE_UNAVAILABLE,
                "overloaded",
                "Overloaded",
                "this node has as much to do, or to hold for its clients, as it may",
                14,
            )
            .retry_after("1"),
            Self::OverLimit(over) => words(over.status, over.code, "Over the limit", "more than this limit admits", 8),
            Self::AbnormalUsage(_) => words(
                S::TOO_MANY_REQUESTS,
                "abnormal_usage",
                "Abnormal usage",
                "this client does more of something than is usual; it is held up for a while",
                8,
            ),
            Self::StepUpRequired(..) => words(
                S::UNAUTHORIZED,
                "step_up_required",
                "Step-up required",
                "this client behaves unlike others; it has to prove anew who it is",
                16,
            ),
            Self::LimitUnavailable(_) => words(
                S::SERVICE_UNAVAILABLE,
                "limit_unavailable",
                "Limit unavailable",
                "whether a limit admits this cannot be told at the moment",
                14,
            )
            .retry_after("1"),
            Self::LoopDetected => words(
                S::LOOP_DETECTED,
                "loop_detected",
                "Loop detected",
                "the request has passed through this gateway too often",
                13,
            ),
        }
    }

    fn unauthenticated(failure: &AuthFailure) -> Words {
        let unauthorized = |code, title, detail| words(StatusCode::UNAUTHORIZED, code, title, detail, 16);
        match failure {
            AuthFailure::Missing => {
                unauthorized("credentials_missing", "Credentials missing", "this route needs a credential")
            }
            AuthFailure::Invalid(reason) => unauthorized("credentials_invalid", "Credentials invalid", reason),
            AuthFailure::Expired => unauthorized("token_expired", "Credential expired", "the credential has expired"),
            AuthFailure::Revoked => unauthorized("token_revoked", "Credential revoked", "the credential was revoked"),
            AuthFailure::SignatureInvalid => {
                unauthorized("signature_invalid", "Signature invalid", "the signature does not match")
            }
            AuthFailure::Unavailable(reason) => {
                words(StatusCode::SERVICE_UNAVAILABLE, "auth_unavailable", "Authentication unavailable", reason, 14)
                    .retry_after("1")
            }
        }
    }

    /// Which phase has decided, where its code does not say so.
    pub(crate) fn phase(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated(AuthFailure::Revoked, _) => Some("revocation"),
            // Of an address it is asked before anybody shows who he is, of all others behind that.
            Self::Banned(Some(ban)) if !matches!(ban.subject, BanSubject::Net(_)) => Some("revocation"),
            Self::Unauthenticated(..) | Self::AmbiguousCredentials(_) | Self::TooManyFailures(_) => {
                Some("authentication")
            }
            Self::InsufficientScope(_) | Self::AccessDenied => Some("authorization"),
            Self::StateStale => Some("freshness"),
            Self::AnswerNotRewritten(_) | Self::AnswerNotMasked { .. } => Some("response"),
            Self::OverLimit(_) | Self::LimitUnavailable(_) => Some("limits"),
            Self::TooLargeToInspect { .. } | Self::TypeNotTaken { .. } | Self::Invalid(_) => Some("validation"),
            // Its code is this node's own too, which decides that before anybody is asked who they are.
            Self::UpstreamOverloaded => Some("upstream"),
            _ => None,
        }
    }

    /// What went wrong behind this gateway, in the words of RFC 9209 2.3.
    fn proxy_status(&self) -> Option<&'static str> {
        Some(match self {
            Self::UpstreamProtocol | Self::AnswerNotRewritten(_) | Self::AnswerNotMasked { .. } => {
                "quorumgate; error=http_protocol_error"
            }
            Self::UpstreamReset => "quorumgate; error=connection_terminated",
            Self::UpstreamTls => "quorumgate; error=tls_protocol_error",
            Self::UpstreamTimeout => "quorumgate; error=http_response_timeout",
            Self::NoHealthyUpstream | Self::CircuitOpen(_) => "quorumgate; error=destination_unavailable",
            Self::UpstreamOverloaded => "quorumgate; error=connection_limit_reached",
            Self::LoopDetected => "quorumgate; error=proxy_loop_detected",
            _ => return None,
        })
    }

    fn challenges(&self) -> &[HeaderValue] {
        match self {
            Self::Unauthenticated(AuthFailure::Unavailable(_), _) => &[],
            Self::Unauthenticated(_, challenges)
            | Self::AmbiguousCredentials(challenges)
            | Self::StepUpRequired(_, challenges)
            | Self::InsufficientScope(challenges) => challenges,
            _ => &[],
        }
    }

    /// Those that draft-ietf-httpapi-ratelimit-headers registers, else our own.
    fn problem_type(&self, code: &str) -> Cow<'static, str> {
        match self {
            Self::OverLimit(_) => Cow::Borrowed("https://iana.org/assignments/http-problem-types#quota-exceeded"),
            Self::LimitUnavailable(_) => {
                Cow::Borrowed("https://iana.org/assignments/http-problem-types#temporary-reduced-capacity")
            }
            _ => Cow::Owned(format!("urn:quorumgate:problem:{code}")),
        }
    }

    /// Further members of the problem, each with its comma; names of limits need no escape.
    fn extensions(&self) -> String {
        match self {
            Self::OverLimit(over) => {
                format!(",\"violated-policies\":[\"{}\"],\"retry_after\":{}", over.policy, over.retry_after_s)
            }
            Self::Invalid(violations) => violations.member(),
            Self::Retired(version) | Self::Brownout(version, _) => version.member(),
            _ => String::new(),
        }
    }

    pub(crate) fn answer(&self, id: Uuid, grpc: bool) -> Response<Bytes> {
        let words = self.words();
        let mut response = match grpc {
            true => words.trailers_only(),
            false => words.problem(id, self.problem_type(words.code), &self.extensions()),
        };
        let headers = response.headers_mut();
        if let Some(seconds) = words.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        for challenge in self.challenges() {
            headers.append(WWW_AUTHENTICATE, challenge.clone());
        }
        if let Some(error) = self.proxy_status() {
            headers.insert("proxy-status", HeaderValue::from_static(error));
        }
        if let Self::TooManyFailures(seconds) | Self::CircuitOpen(seconds) = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        if let Self::Brownout(_, window) = self
            && window.status == StatusCode::SERVICE_UNAVAILABLE
        {
            headers.insert(RETRY_AFTER, HeaderValue::from(window.left_s));
        }
        if let Self::AbnormalUsage(verdict) = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(verdict.left_s()));
        }
        if let Self::OverLimit(over) = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(over.retry_after_s));
        }
        if words.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Self::MethodNotAllowed(methods) | Self::UnknownOperation { methods, .. } = self
            && !methods.is_empty()
            && let Ok(value) = HeaderValue::try_from(methods.join(", "))
        {
            headers.insert(ALLOW, value);
        }
        // RFC 9110 15.5.16.
        if *self == Self::CodingNotTaken {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br, zstd"));
        }
        response
    }
}

impl Words {
    fn problem(&self, id: Uuid, kind: Cow<'static, str>, extensions: &str) -> Response<Bytes> {
        let (status, code, title, detail) = (self.status.as_u16(), self.code, self.title, self.detail);
        let id = id.hyphenated();
        // Every text above is a constant without quotes or backslashes.
        let body = format!(
            "{{\"type\":\"{kind}\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\",\
             \"instance\":\"urn:uuid:{id}\",\"code\":\"{code}\",\"request_id\":\"{id}\"{extensions}}}"
        );
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }

    fn trailers_only(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        self.grpc_status(headers);
        response
    }

    fn grpc_status(&self, headers: &mut HeaderMap) {
        headers.insert("grpc-status", HeaderValue::from(u16::from(self.grpc_status)));
        // Only printable ASCII without a percent sign: needs no escape.
        headers.insert("grpc-message", HeaderValue::from_static(self.detail));
    }
}

/// The end of a call that had begun.
pub(crate) fn grpc_trailers(refusal: &Refusal) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    refusal.words().grpc_status(&mut trailers);
    trailers
}

/// Whether the client expects a gRPC answer.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let Some(rest) = kind.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// A request whose Content-Length alone is over the limit.
pub(crate) fn declared_too_large(headers: &HeaderMap, bytes_max: u64) -> bool {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    bytes_max != 0 && declared.is_some_and(|declared| declared > bytes_max)
}

impl From<Ended> for Refusal {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Revoked => Self::Unauthenticated(AuthFailure::Revoked, Vec::new()),
            Ended::Expired => Self::Unauthenticated(AuthFailure::Expired, Vec::new()),
            Ended::Stale => Self::StateStale,
            Ended::Banned => Self::Banned(None),
            Ended::HeldTooLong => Self::UpstreamTimeout,
            Ended::Draining => Self::Overloaded,
        }
    }
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::TrailersTooLarge => Self::HeadersTooLarge,
            ambiguous => Self::Malformed(ambiguous.why()),
        }
    }
}

impl From<ClientFault> for Refusal {
    fn from(fault: ClientFault) -> Self {
        match fault {
            ClientFault::TooLarge => Self::BodyTooLarge,
            ClientFault::UnpacksTooLarge => Self::UnpacksTooLarge,
            ClientFault::Packed => Self::Malformed("the body is not what its content-encoding says"),
            ClientFault::Stalled => Self::RequestTimeout,
            ClientFault::Digest => {
                Self::Unauthenticated(AuthFailure::Invalid("the body is not what its content-digest says"), Vec::new())
            }
            ClientFault::TrailersTooLarge => Self::HeadersTooLarge,
            ClientFault::Broken => Self::Malformed("the body is not framed as HTTP wants it"),
        }
    }
}

impl From<&Failure> for Refusal {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::NoHealthyTarget | Failure::Connect(_) => Self::NoHealthyUpstream,
            Failure::ConnectTimeout | Failure::HeaderTimeout | Failure::IdleTimeout | Failure::TotalTimeout => {
                Self::UpstreamTimeout
            }
            Failure::Reset | Failure::Refused => Self::UpstreamReset,
            Failure::Tls(_) | Failure::NoTls => Self::UpstreamTls,
            Failure::CircuitOpen(left) => Self::CircuitOpen(left.as_secs() + 1),
            Failure::Overloaded => Self::UpstreamOverloaded,
            Failure::Protocol(_) => Self::UpstreamProtocol,
            Failure::CutOff => Self::Unauthenticated(AuthFailure::Revoked, Vec::new()),
            Failure::NoUpgrade => Self::UpgradeNotSupported,
            Failure::RequestBody => Self::Malformed("the body ended early"),
        }
    }
}
