//! Why an upstream gave no answer, or not all of it.

use std::{error::Error, io, time::Duration};

use quorumgate_model::resource::RetryOn;

use crate::client_body::ClientFault;

/// One exchange's end at the upstream side. `send` returns it before the response head, the body after it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No such upstream, no target resolved, or the active checks failed everywhere.
    #[error("no healthy target")]
    NoHealthyTarget,
    #[error("connect: {0}")]
    Connect(io::Error),
    #[error("connect timed out")]
    ConnectTimeout,
    /// No TLS with the target, or not with who it should be.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// This build or node cannot do what the upstream's `tls` asks.
    #[error("TLS cannot be spoken as configured")]
    NoTls,
    /// Too many calls failed lately; nothing is sent for so long.
    #[error("circuit open")]
    CircuitOpen(Duration),
    /// Every target that may be asked has as many requests as it may.
    #[error("every target has as many requests as it may")]
    Overloaded,
    #[error("no response header in time")]
    HeaderTimeout,
    /// Nothing read from the response body for `timeouts.idle`.
    #[error("the response body stood still")]
    IdleTimeout,
    /// The whole exchange took longer than `timeouts.total`.
    #[error("the exchange took too long")]
    TotalTimeout,
    /// The connection or the stream ended before the response, or its body, was complete.
    #[error("connection reset")]
    Reset,
    /// The upstream says that it has not begun to process the request (REFUSED_STREAM, GOAWAY).
    #[error("stream refused")]
    Refused,
    /// What the upstream sent is not HTTP as this gateway takes it: unparsable, CL + TE, two CL, 101.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// What let the request in no longer holds.
    #[error("cut off")]
    CutOff,
    /// A tunnel was asked for, and the upstream's protocol has none.
    #[error("no upgrade to an HTTP/2 upstream")]
    NoUpgrade,
    /// The client's body failed, not the upstream.
    #[error("the client's body ended early")]
    RequestBody,
}

impl Failure {
    /// The word of `retries.on` that covers it.
    pub(super) fn retry_word(&self) -> Option<RetryOn> {
        match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::Tls(_) => Some(RetryOn::ConnectFailure),
            // A target that is silent is as one that has gone: the stream is given up before anything came of it.
            Self::Reset | Self::HeaderTimeout => Some(RetryOn::Reset),
            Self::Refused => Some(RetryOn::RefusedStream),
            _ => None,
        }
    }

    /// Whether it tells something about the target, rather than about the client or our own limits.
    pub(super) fn blames_target(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::Tls(_) | Self::HeaderTimeout | Self::IdleTimeout => true,
            Self::Reset | Self::Refused | Self::Protocol(_) => true,
            Self::RequestBody | Self::NoHealthyTarget | Self::TotalTimeout | Self::NoUpgrade | Self::CutOff => false,
            Self::NoTls | Self::CircuitOpen(_) | Self::Overloaded => false,
        }
    }

    /// Whether the upstream as a whole looks worse for it.
    pub(super) fn blames_upstream(&self) -> bool {
        self.blames_target() || matches!(self, Self::TotalTimeout)
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        if error.source().is_some_and(|source| source.is::<ClientFault>()) {
            return Self::RequestBody;
        }
        if let Some(error) = of_tls(&error) {
            return Self::Tls(io::Error::other(error));
        }
        if error.is_parse_too_large() {
            return Self::Protocol("the response's head is too large, or has too many fields");
        }
        if error.is_parse() {
            return Self::Protocol("the response cannot be parsed");
        }
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() || error.is_user() {
            return Self::Reset;
        }
        let Some(source) = error.source() else {
            return Self::Protocol("bytes that belong to no response");
        };
        if let Some(error) = source.downcast_ref::<h2::Error>() {
            return Self::from_h2(error);
        }
        match source.downcast_ref::<io::Error>() {
            // Decoding a chunked body ends in these two.
            Some(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                Self::Protocol("the body's framing is broken")
            }
            _ => Self::Reset,
        }
    }
}

/// Over TLS 1.3 a server says what it thinks of our certificate behind the handshake.
fn of_tls(error: &(dyn Error + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(error) = inner.and_then(|it| it.downcast_ref::<rustls::Error>()) {
            return Some(error.clone());
        }
        next = error.source();
    }
    None
}

impl Failure {
    fn from_h2(error: &h2::Error) -> Self {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        // Only streams that a GOAWAY leaves unprocessed end with it (RFC 9113, 6.8).
        if error.is_remote() && (refused || error.is_go_away()) {
            return Self::Refused;
        }
        match error.is_library() {
            true => Self::Protocol("HTTP/2 framing"),
            false => Self::Reset,
        }
    }
}
