//! Policies that watch how callers behave.

use super::{Content, Field, Form, Object};

pub static ANOMALY: Object = Object {
    about: "Callers who do more of something in a window than is usual, by what all nodes have seen of them together.",
    fields: &[
        Field::new("per", Form::Enum(&["consumer", "credential", "ip"]), "Whose requests are added up.")
            .default("\"consumer\""),
        Field::new("v4_prefix", Form::Int(8, 32), "Of per: ip, networks of this size are one caller.").default("32"),
        Field::new("v6_prefix", Form::Int(16, 128), "The same of IPv6.").default("64"),
        Field::new("window", Form::Span, "It slides; 10s to 1h.").default("\"1m\""),
        Field::new("over", Form::Object(&OVER), "More than that in a window is unusual; at least one is there.").required(),
        Field::new("object", Form::Text, "What tells objects apart: path, params.NAME of the route's template, or query.NAME.")
            .default("\"path\""),
        Field::new("failure_statuses", Form::List(&Form::Int(200, 599)), "Answers with these are failures.")
            .default("[401,403]"),
        Field::new(
            "action",
            Form::Enum(&["log", "header", "throttle", "challenge", "ban", "webhook"]),
            "What becomes of them: told; told to the upstream (x-anomaly); 429; 401 until they prove anew who they are; banned; told to \
             the webhook.",
        )
        .default("\"log\""),
        Field::new("hold", Form::Span, "For how long, from when it was found; up to 30d.").default("\"10m\""),
        Field::new("exempt_cidrs", Form::List(&Form::Cidr), "Whose requests do not count, and who is never banned.")
            .default("[]"),
        Field::new("exempt_consumers", Form::List(&Form::Name), "The same, by consumer.").default("[]"),
        Field::new("webhook", Form::Object(&WEBHOOK), "Who is told of each that is found, whatever the action is.")
            .default("null"),
    ],
};

static WEBHOOK: Object = Object {
    about: "Where the leader posts what is found, signed by HMAC-SHA256 (Standard Webhooks).",
    fields: &[
        Field::new("url", Form::Text, "https, or http where allow_private is said.").required(),
        Field::new(
            "secret_file",
            Form::FileOf("secret", Content::Secret),
            "A file with the secret, of 32 bytes or more.",
        ),
        Field::new("secret", Form::Secret, "The secret, as an export shows it.").required(),
        Field::new("allow_private", Form::Bool, "Loopback and private addresses may be called.").default("false"),
    ],
};

const BOUND: Form = Form::Int(1, i64::MAX);

static OVER: Object = Object {
    about: "Bounds of what one caller does in a window; what is left out is not looked at.",
    fields: &[
        Field::new("requests", BOUND, "Requests.").default("null"),
        Field::new("failures", BOUND, "Answers that are failures.").default("null"),
        Field::new("objects", BOUND, "Different objects that were asked for.").default("null"),
        Field::new("credentials", BOUND, "Different credentials that were shown in vain.").default("null"),
        Field::new("sequential", BOUND, "Pairs of objects whose numbers are neighbours.").default("null"),
        Field::new("bytes_out", Form::Size, "Bytes of answers' bodies.").default("null"),
        Field::new("countries", BOUND, "Different countries that it came from, by proxy.geo.country of each node.")
            .default("null"),
    ],
};
