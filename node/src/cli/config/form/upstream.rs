//! Upstreams.

use super::{DESCRIPTION, Field, Form, LABELS, NAME, OWNER, Object};

pub static UPSTREAM: Object = Object {
    about: "A set of servers that answer the same requests.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("targets", Form::List(&Form::AuthorityOr(&TARGET)), "The servers; at least one.").required(),
        Field::new(
            "protocol",
            Form::Enum(&["http1", "http2", "grpc", "auto"]),
            "What the servers speak. auto: what TLS agrees on.",
        )
        .default("\"http1\""),
        Field::new("tls", Form::Object(&TLS), "Speak TLS with the servers; cleartext if left out.").default("null"),
        Field::new("balance", Form::Object(&BALANCE), "How a server is chosen.").default("{}"),
        Field::new("health", Form::Object(&HEALTH), "How the servers are watched; without it all count as healthy.")
            .default("null"),
        Field::new("retries", Form::Object(&RETRIES), "What is tried again.").default("{}"),
        Field::new("timeouts", Form::Object(&UPSTREAM_TIMEOUTS), "How long the servers may take.").default("{}"),
        Field::new("outlier", Form::Object(&OUTLIER), "When a server is left alone because of its answers.")
            .default("{}"),
        Field::new("breaker", Form::Object(&BREAKER), "When the upstream as a whole is; never if left out.")
            .default("null"),
        Field::new("slow_start", Form::Span, "How long a new or returning server's share grows; 0s: not at all.")
            .default("\"30s\""),
        Field::new(
            "proxy_protocol",
            Form::Enum(&["v1", "v2"]),
            "Tell the servers by the PROXY protocol whom a connection is for; with protocol http1.",
        )
        .default("null"),
        Field::new(
            "auth",
            Form::Name,
            "The auth of kind client_credentials or upstream_key by which we prove ourselves to the servers.",
        )
        .default("null"),
    ],
};

static TARGET: Object = Object {
    about: "One server, or every address that a DNS name resolves to.",
    fields: &[
        Field::new("address", Form::Authority, "host:port").required(),
        Field::new("weight", Form::Int(1, 1000), "Its share against the other targets.").default("1"),
        Field::new("priority", Form::Int(0, 100), "The lowest that can serve does; the others stand by.").default("0"),
        Field::new("zone", Form::Text, "The region it is in: nodes of that region prefer it.").default("null"),
    ],
};

static BALANCE: Object = Object {
    about: "How a server is chosen.",
    fields: &[
        Field::new(
            "policy",
            Form::Enum(&["p2c_ewma", "round_robin", "least_requests", "maglev", "random"]),
            "p2c_ewma: the better of two servers, by latency and requests in flight. maglev: by hash_on alone.",
        )
        .default("\"p2c_ewma\""),
        Field::new(
            "hash_on",
            Form::WordOr(&["ip", "consumer"], &HASH_ON),
            "What keeps a caller with its server (maglev; ip if left out) or its two servers (p2c_ewma).",
        )
        .default("null"),
    ],
};

static HASH_ON: Object = Object {
    about: "What keeps a caller with its server. Exactly one of header and cookie.",
    fields: &[
        Field::new("header", Form::Text, "This header's value.").default("null"),
        Field::new("cookie", Form::Text, "This cookie's value.").default("null"),
    ],
};

static OUTLIER: Object = Object {
    about: "When a server is left alone for a while because of its answers.",
    fields: &[
        Field::new(
            "consecutive_errors",
            Form::Int(0, 1_000_000),
            "5xx, connection errors and time-outs in a row; 0 switches it off.",
        )
        .default("5"),
        Field::new("ejection", Form::Span, "How long the first time; each further time is longer by as much.")
            .default("\"30s\""),
        Field::new("max_ejected_percent", Form::Int(0, 100), "Of the servers; one always may be.").default("10"),
    ],
};

static BREAKER: Object = Object {
    about: "When the upstream as a whole is left alone, and how much its servers get at once.",
    fields: &[
        Field::new("error_percent", Form::Int(0, 100), "Failed calls that open it; 0: none do.").default("50"),
        Field::new("window", Form::Span, "The time that is looked at.").default("\"10s\""),
        Field::new("min_requests", Form::Int(1, 1_000_000), "Calls in it before anything is concluded.").default("20"),
        Field::new("open", Form::Span, "How long nothing is sent; then three calls try.").default("\"10s\""),
        Field::new(
            "max_in_flight",
            Form::Int(0, 1_000_000),
            "Requests at one server at once, of one node; 0: any number.",
        )
        .default("0"),
    ],
};

static TLS: Object = Object {
    about: "TLS to the servers.",
    fields: &[
        Field::new("server_name", Form::Text, "What their certificate must be for; the target's host if left out.")
            .default("null"),
        Field::new("ca", Form::Name, "The certificate authority that vouches for them; the machine's own if left out.")
            .default("null"),
        Field::new("client_certificate", Form::Name, "The certificate that the gateway shows.").default("null"),
        Field::new("verify", Form::Bool, "false takes any certificate: whoever is in between can read and change all.")
            .default("true"),
    ],
};

static HEALTH: Object = Object {
    about: "A request that each server must answer from time to time.",
    fields: &[
        Field::new("path", Form::Text, "Begins with a slash.").required(),
        Field::new("interval", Form::Span, "From one check to the next.").default("\"3s\""),
        Field::new("timeout", Form::Span, "How long one check may take.").default("\"1s\""),
        Field::new("unhealthy_after", Form::Int(1, 100), "Failed checks in a row that take a server out.").default("3"),
        Field::new("healthy_after", Form::Int(1, 100), "Good checks in a row that bring it back.").default("1"),
        Field::new("expect", Form::StatusRange, "The statuses that count as good.").default("\"200-399\""),
    ],
};

static RETRIES: Object = Object {
    about: "Which failures are tried again, and how often.",
    fields: &[
        Field::new("attempts", Form::Int(0, 10), "Extra attempts.").default("2"),
        Field::new(
            "on",
            Form::List(&Form::WordOrStatus(&["connect_failure", "reset", "refused_stream", "5xx"], 400, 599)),
            "The failures and statuses that are tried again; reset: nothing of an answer came, or not in time.",
        )
        .default("[\"connect_failure\",\"reset\",\"refused_stream\"]"),
        Field::new("budget_percent", Form::Int(0, 100), "The share of active requests that may be retries.")
            .default("20"),
        Field::new("hedge", Form::Bool, "Ask a second server once the first is slower than 19 of 20 answers.")
            .default("false"),
    ],
};

static UPSTREAM_TIMEOUTS: Object = Object {
    about: "How long a server may take.",
    fields: &[
        Field::new("connect", Form::Span, "To accept a connection.").default("\"5s\""),
        Field::new("response_header", Form::Span, "To begin its answer.").default("\"30s\""),
        Field::new("idle", Form::Span, "Between two parts of its answer.").default("\"1m\""),
        Field::new("total", Form::Span, "For the whole exchange; 0s is no limit.").default("\"0s\""),
    ],
};
