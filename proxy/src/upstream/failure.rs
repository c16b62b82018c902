//! Why an upstream gave no answer, or not all of it.

/// One exchange's end at the upstream side. `send` returns it before the response head, the body after it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No such upstream, no target resolved, or the active checks failed everywhere.
    #[error("no healthy target")]
    NoHealthyTarget,
    #[error("connect: {0}")]
    Connect(std::io::Error),
    #[error("connect timed out")]
    ConnectTimeout,
    #[error("no response header in time")]
    HeaderTimeout,
    /// Nothing read from the response body for `timeouts.idle`.
    #[error("the response body stood still")]
    IdleTimeout,
    /// The whole exchange took longer than `timeouts.total`.
    #[error("the exchange took too long")]
    TotalTimeout,
    /// The connection ended before the response, or its body, was complete.
    #[error("connection reset")]
    Reset,
    /// What the upstream sent is not HTTP as this gateway takes it: unparsable, CL + TE, two CL, 101.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The client's body failed, not the upstream.
    #[error("the client's body ended early")]
    RequestBody,
}
