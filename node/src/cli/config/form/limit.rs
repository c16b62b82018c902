//! Limits.

use quorumgate_model::resource::LIMIT_MAX;

use super::{DESCRIPTION, Field, Form, LABELS, NAME, OWNER, Object};

const AMOUNT: Form = Form::Int(1, LIMIT_MAX as i64);

pub static LIMIT: Object = Object {
    about: "How much is admitted. Which fields it takes goes with its kind.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new(
            "per",
            Form::OneOrList(&Form::WordOr(&["consumer", "credential", "route", "tenant", "global"], &PART)),
            "What is counted apart.",
        )
        .required(),
        Field::new("plans", Form::List(&Form::Text), "For consumers of these plans alone; none: for all requests.")
            .default("[]"),
        Field::new(
            "kind",
            Form::Enum(&["sliding", "bucket", "calendar", "concurrency"]),
            "sliding: limit and window; bucket: rate, burst and window; calendar: limit, every and zone; concurrency: \
             limit and max_hold.",
        )
        .default("\"sliding\""),
        Field::new("limit", AMOUNT, "How many: in any window, in each period, or at once.").default("null"),
        Field::new("window", Form::Span, "The length that limit or rate is for.").default("null"),
        Field::new("rate", AMOUNT, "How many per window flow into the bucket.").default("null"),
        Field::new("burst", AMOUNT, "How many the bucket holds.").default("null"),
        Field::new("every", Form::Enum(&["minute", "hour", "day", "month"]), "The period.").default("null"),
        Field::new("zone", Form::Text, "The period's time zone, such as Europe/Berlin.").default("null"),
        Field::new(
            "mode",
            Form::Enum(&["leased", "exact", "local"]),
            "leased: exact without a wait; exact: the leader decides each time; local: each node for itself.",
        )
        .default("\"leased\""),
        Field::new("cost", Form::IntOr(1, LIMIT_MAX as i64, &COST), "What one request costs.").default("1"),
        Field::new(
            "on_no_quorum",
            Form::Enum(&["deny", "reserve", "allow"]),
            "What becomes of requests once a node without a quorum has spent what it holds.",
        )
        .default("\"deny\""),
        Field::new("exceeded_status", Form::Int(400, 599), "The status over the limit.").default("429"),
        Field::new("soft", Form::Bool, "Tell and count what is over the limit, but let it through.").default("false"),
        Field::new("max_hold", Form::Span, "How long one request may be in flight.").default("null"),
        Field::new("grant_wait", Form::Span, "How long a request may wait on a tiny or exact limit.").default("\"2s\""),
    ],
};

static PART: Object = Object {
    about: "What is counted apart. Exactly one of ip (with ip6), header and claim.",
    fields: &[
        Field::new("ip", Form::Int(0, 32), "The client's address, in IPv4 networks of this size.").default("null"),
        Field::new("ip6", Form::Int(0, 128), "In IPv6 networks of this size; 64 if left out.").default("null"),
        Field::new("header", Form::Text, "This header's value.").default("null"),
        Field::new("claim", Form::Text, "This claim of the token.").default("null"),
    ],
};

static COST: Object = Object {
    about: "What one request costs. Exactly one of request_header, response_header (with reserve) and ai_tokens.",
    fields: &[
        Field::new("request_header", Form::Text, "The request says it in this header.").default("null"),
        Field::new("response_header", Form::Text, "The response says it in this header.").default("null"),
        Field::new("reserve", AMOUNT, "What is taken until the response says.").default("null"),
        Field::new("ai_tokens", Form::Enum(&["total", "input", "output"]), "The tokens that a model used.")
            .default("null"),
    ],
};
