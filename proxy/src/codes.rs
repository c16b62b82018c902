//! What each code of a refusal means, and where to look: what `explain CODE` prints. A test holds it complete.

use crate::metrics::REASONS;

/// One code, as problems, gRPC answers, the access log and `quorumgate_rejects_total{reason}` have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub code: &'static str,
    /// Of the answer; 0 where there is none, since the connection ends or the client has left.
    pub status: u16,
    /// Of the answer to a gRPC call; 0 where there is none.
    pub grpc_status: u8,
    /// The phase that decides.
    pub phase: &'static str,
    pub when: &'static str,
    /// What to do about it.
    pub help: &'static str,
}

/// By its code.
pub fn find(code: &str) -> Option<&'static Code> {
    ALL.iter().find(|it| it.code == code)
}

/// The phase that answers with this code; where the table does not know it, the exchange as a whole.
pub(crate) fn phase(code: &str) -> &'static str {
    find(code).map_or("exchange", |it| it.phase)
}

impl Code {
    /// Whether this build ever answers so; the others are kept for phases that it does not have.
    pub fn is_given(&self) -> bool {
        REASONS.contains(&self.code)
    }
}

const fn code(
    code: &'static str,
    status: u16,
    grpc_status: u8,
    phase: &'static str,
    when: &'static str,
    help: &'static str,
) -> Code {
    Code { code, status, grpc_status, phase, when, help }
}

/// In the order of the phases' statuses, then what ends connections.
#[rustfmt::skip]
pub const ALL: &[Code] = &[
    code("malformed_request", 400, 13, "parse", "the head or the body is ambiguous or not valid HTTP: two lengths, both a length and chunks, two credentials, a bad Host",
        "`detail` says what is wrong; the connection was closed. The client, or a proxy before this one, must send it right"),
    code("bad_path", 400, 13, "canonical_path", "the path cannot be made canonical, or has an encoded slash that the route refuses",
        "escape it as RFC 3986 says; `encoded_slash: preserve` on the route lets %2F and %5C pass"),
    code("validation_failed", 400, 3, "validation", "a policy of the route found what it does not let pass: beyond the bounds of `json`, or no JSON at all; or it is no JSON where `rewrite.body` needs it", "`errors` points at each place (20 at most); `decision` names the policy and its rule. `mode: detect` lets such requests pass and tells of them"),
    code("credentials_missing", 401, 16, "authentication", "the route asks who calls, and nothing that it takes was shown", "WWW-Authenticate says what is taken; `route match` says by which auth"),
    code("credentials_invalid", 401, 16, "authentication", "a credential was shown that proves nothing here", "`detail` says why; `token inspect` reads a token as this cluster does"),
    code("token_expired", 401, 16, "authentication", "the token, key or certificate has ended", "get a new one; if it should be good still, compare the clocks (`doctor`)"),
    code("token_revoked", 401, 16, "revocation", "the credential, its consumer or its signing key was revoked, or its stream was ended for that", "`token check` says by which entry, `token ls` who made it and why"),
    code("signature_invalid", 401, 16, "authentication", "the signature does not match the key that it names", "check which key signs; a key set may have been rotated: `token inspect` says what is known"),
    code("step_up_required", 401, 16, "authorization", "a policy of kind `anomaly` has found that the caller behaves unlike others, and it has not proved anew since then who it is", "WWW-Authenticate (RFC 9470) asks for a token whose `auth_time` is younger; `numbers` say what was found, `anomaly ls` who is and for how long"),
    code("insufficient_scope", 403, 7, "authorization", "a rule of the route wants a scope that the caller does not have", "`route match --consumer --scope` says which rule decides"),
    code("access_denied", 403, 7, "authorization", "the route's `authorize` rules do not let this caller do this", "`rule` names the one that decided; `route match` walks through all of them"),
    code("ip_denied", 403, 7, "before_authentication", "the client's address is denied, or not among those that are allowed", "`decision` names the policy and the list (deny, or allow that has it not); behind a proxy, check `trusted_proxies`"),
    code("banned", 403, 7, "before_authentication", "the cluster has banned the client's address or network, its consumer or its credential for a while", "`policy` names whom the ban is of (of a consumer or a credential the phase is revocation); `ban ls` says why, by whom and for how long, `ban rm` lifts it; behind a proxy, check `trusted_proxies`"),
    code("bot_denied", 403, 7, "before_authentication", "a policy of kind `bot` does not let in what the client calls itself (User-Agent)", "`decision` names the policy and by what: `deny` with its pattern, `missing` or `scanners`; `allow` of the policy lets it in, `mode: detect` only tells"),
    code("no_route", 404, 12, "route", "no route takes this host and path", "`route match METHOD URL` shows the near misses and what each lacks"),
    code("unknown_operation", 404, 12, "validation", "a `contract` of the route has no operation of this path (405: of this method)", "Allow lists the methods of the path; `unknown_operations: allow` lets them pass, `mode: detect` tells of them"),
    code("method_not_allowed", 405, 12, "route", "routes take the host and path, and none of them the method", "Allow lists the methods; add one to `match.methods`"),
    code("request_timeout", 408, 4, "body", "the head or the body came in too slowly", "the client must send something every 15 s, and 240 bytes a second after 5 s"),
    code("api_retired", 410, 12, "before_authentication", "the version of the API that the route is of is retired, or its sunset has passed", "Link and `successor` name the version to go to; `api get` shows it, `api callers` who still calls"),
    code("api_brownout", 503, 14, "before_authentication", "the version of the API is deprecated, and refuses for a while on purpose (410, where its `brownouts` say so)", "Link names its successor, Retry-After the end of the window; `api get` lists the windows"),
    code("length_required", 411, 3, "validation", "the route needs the body's length beforehand, and it was not given", "send Content-Length"),
    code("content_too_large", 413, 8, "body", "the body is larger than the route allows, or unpacks into more", "`body.max` or `body.decompressed_max` of the route, where 0 is without a limit; `body_max` of a policy that looks through it (`decision` names it)"),
    code("uri_too_long", 414, 13, "parse", "the request target is longer than 16 KiB", "send what is long in the body"),
    code("unsupported_media_type", 415, 3, "validation", "the route does not take bodies of this Content-Type or Content-Encoding", "send one that the route's policies look through (`other_types`), in a coding that Accept-Encoding of the answer names"),
    code("misdirected_request", 421, 13, "route", "the connection was opened for another host, and its certificate does not cover this one", "the client opens a connection of its own; or name the host in the certificate"),
    code("too_early", 425, 14, "before_authentication", "the request came before the handshake was over and is not safe to repeat", "the client sends it again by itself"),
    code("header_fields_too_large", 431, 13, "parse", "more than 128 fields, or more than 64 KiB of them", "most often cookies: make them fewer"),
    code("rate_limited", 429, 8, "limits", "more requests than a limit admits in its window, or too many wrong passwords", "`policy` names the limit; Retry-After says when there is room. `route match` lists the limits of a route"),
    code("quota_exceeded", 429, 8, "limits", "the quota of a calendar period is used up", "`policy` names the limit; it starts anew with the next period"),
    code("concurrency_limited", 429, 8, "limits", "as many exchanges are under way as the limit allows at a time", "`policy` names the limit; slow upstreams hold their permits longer"),
    code("abnormal_usage", 429, 8, "limits", "a policy of kind `anomaly` has found that the caller does more of something than is usual, on all nodes together", "`policy` and `numbers` say what was found, Retry-After when that is over; `anomaly ls` shows who is found or near it"),
    code("internal_error", 500, 13, "exchange", "a fault of this gateway; the exchange ended and no other", "the node's log has a line under this request id: report it"),
    code("broken_rule", 500, 13, "route", "this node cannot carry out the configured route, or a limit that it names", "the node's log names the reason; nodes of another version may be able to"),
    code("upgrade_not_supported", 501, 12, "upstream", "CONNECT, or an upgrade to something other than WebSocket", "WebSocket is passed on to HTTP/1.1 upstreams"),
    code("upstream_protocol_error", 502, 13, "upstream", "the upstream's answer is not valid HTTP, or nothing that the route's `rewrite.body` can rewrite, or that a policy of kind `mask` can look through", "`detail` says which; look at `upstream`: is it HTTP, and is `protocol` of the upstream right?"),
    code("upstream_reset", 502, 14, "upstream", "the upstream ended the connection before it had answered", "look at the upstream's log at this time; `attempts` says how often it was tried"),
    code("upstream_tls", 502, 14, "upstream", "the TLS handshake with the upstream failed", "check the upstream's certificate, its names and the CA that its `tls` trusts"),
    code("response_validation_failed", 502, 13, "response", "the upstream's answer does not follow the route's schema", "the upstream and the schema are of different versions"),
    code("no_healthy_upstream", 503, 14, "upstream", "no target of the upstream can be reached", "`quorumgate_upstream_healthy` shows each target; are they up, and is the health path right?"),
    code("circuit_open", 503, 14, "upstream", "the upstream failed too often lately and is left alone for a while", "Retry-After says how long; look at what the upstream answered before"),
    code("overloaded", 503, 14, "before_authentication", "this node holds as much for its clients as it may", "`proxy.buffered_max`; slow clients or upstreams make it grow: `quorumgate_http_buffered_bytes`"),
    code("state_stale", 503, 14, "freshness", "the node has been out of touch with the cluster for longer than max_staleness, and the route says on_stale: deny", "`doctor` says who cannot be reached; `on_stale: allow` serves on"),
    code("not_ready", 503, 14, "accept", "the node is still starting or is draining", "ask another node; `/readyz` says when it is ready"),
    code("limit_unavailable", 503, 14, "limits", "the cluster cannot be asked for slots of a limit, and its on_no_quorum is deny", "`cluster status`; `on_no_quorum: reserve` or `allow` let requests through meanwhile"),
    code("auth_unavailable", 503, 14, "authentication", "what is needed to check the credential is out of reach: the identity provider, its keys", "`detail` says what; is the provider up, and may this node reach it?"),
    code("not_cached", 504, 14, "cache", "the client asked with `Cache-Control: only-if-cached`, and no answer is kept that may be given", "ask without it"),
    code("upstream_timeout", 504, 4, "upstream", "the upstream did not answer in time, or a permit's time was over", "`timings` and `attempts` say where the time went; `timeouts` of the route and the upstream set it"),
    code("loop_detected", 508, 13, "forward", "the request has passed through gateways of this kind too often (Via)", "an upstream or a DNS name leads back to the gateway"),
    code("client_gone", 0, 0, "response", "the client left before it had the whole answer", "its own timeout, most often: compare `total` with it"),
    code("stalled_client", 0, 0, "response", "the client took nothing of its answer for 30 s", "a slow or stuck client; nothing to do here"),
    code("too_many_connections", 0, 0, "accept", "one address has as many connections as it may", "clients behind one address: raise the bound, or have them keep connections"),
    code("tls_handshake", 0, 0, "accept", "the handshake failed or took longer than 10 s", "the log (debug) says why: a name without a certificate, an old TLS version"),
    code("silent_connection", 0, 0, "accept", "nothing was sent on a new connection for 10 s", "port scans and health checks of balancers do that"),
    code("slow_header", 0, 0, "parse", "the head took longer than 10 s", "a slow client, or an attack by slow ones"),
    code("h2_flood", 0, 0, "accept", "one HTTP/2 connection sent more resets, pings, settings or empty frames than it may", "an attack, or a broken client: it is told ENHANCE_YOUR_CALM"),
    code("h2_protocol_error", 0, 0, "accept", "the connection broke the rules of HTTP/2", "a broken client, or something that does not speak HTTP/2"),
    code("proxy_protocol", 0, 0, "accept", "the listener takes connections with a PROXY header alone, and this one had none that is right", "name the balancer in the listener's networks, and have it send the header"),
    code("tunnel_idle", 0, 0, "tunnel", "nothing came over a WebSocket in either direction for as long as it may be idle", "have either side send pings"),
    code("drain_grace_over", 0, 0, "shutdown", "the exchange was cut off at the end of the node's grace", "`proxy.grace` of the settings"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The table "Errors" of the data plane's design.
    const DESIGNED: &[(u16, &str)] = &[
        (400, "malformed_request bad_path validation_failed"),
        (401, "credentials_missing credentials_invalid token_expired token_revoked signature_invalid"),
        (403, "insufficient_scope access_denied ip_denied"),
        (404, "no_route"),
        (405, "method_not_allowed"),
        (410, "api_retired"),
        (408, "request_timeout"),
        (411, "length_required"),
        (413, "content_too_large"),
        (414, "uri_too_long"),
        (415, "unsupported_media_type"),
        (431, "header_fields_too_large"),
        (421, "misdirected_request"),
        (425, "too_early"),
        (429, "rate_limited quota_exceeded concurrency_limited abnormal_usage"),
        (500, "internal_error broken_rule"),
        (502, "upstream_protocol_error upstream_reset upstream_tls response_validation_failed"),
        (503, "no_healthy_upstream circuit_open overloaded state_stale not_ready limit_unavailable"),
        (504, "upstream_timeout"),
        (508, "loop_detected"),
    ];

    #[test]
    fn every_designed_code_is_explained_with_its_status() {
        for (status, codes) in DESIGNED {
            for code in codes.split(' ') {
                assert_eq!(find(code).map(|it| it.status), Some(*status), "{code}");
            }
        }
    }

    #[test]
    fn every_code_of_a_refusal_is_explained_and_counted() {
        // What is written in quotes there, in snake case, is a code.
        let source = include_str!("refusal.rs").split("#[cfg(test)]").next().unwrap();
        let words = source.split('"').skip(1).step_by(2);
        let is_code = |word: &&str| word.contains('_') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let codes: BTreeSet<&str> = words.filter(is_code).collect();
        assert!(codes.len() > 25, "the source is read wrongly: {codes:?}");
        let unexplained: Vec<_> = codes.iter().filter(|code| find(code).is_none()).collect();
        assert!(unexplained.is_empty(), "add these to codes.rs: {unexplained:?}");
        let uncounted: Vec<_> = codes.iter().filter(|code| !REASONS.contains(code)).collect();
        assert!(uncounted.is_empty(), "add these to REASONS in metrics.rs: {uncounted:?}");
    }

    #[test]
    fn every_reason_that_is_counted_is_explained() {
        let unexplained: Vec<_> = REASONS.iter().filter(|it| **it != "other" && find(it).is_none()).collect();
        assert!(unexplained.is_empty(), "add these to codes.rs: {unexplained:?}");
        let codes: BTreeSet<_> = ALL.iter().map(|it| it.code).collect();
        assert_eq!(codes.len(), ALL.len(), "a code is there twice");
        assert!(ALL.iter().all(|it| !it.when.is_empty() && !it.help.is_empty() && !it.phase.is_empty()));
    }
}
