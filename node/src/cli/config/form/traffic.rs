//! What becomes of a route's traffic on the way.

use quorumgate_model::resource::{RAMP_STEPS_MAX, SPLIT_WEIGHT_MAX};

use super::{Field, Form, Object};

const WEIGHT: Form = Form::Int(0, SPLIT_WEIGHT_MAX as i64);

pub static ARM: Object = Object {
    about: "One of the upstreams that a route's traffic is dealt out to.",
    fields: &[
        Field::new("upstream", Form::Name, "The upstream; each once.").required(),
        Field::new("weight", WEIGHT, "Its share against the other arms.").required(),
        Field::new(
            "from",
            WEIGHT,
            "The weight before the ramp; 0 if another arm has one. If none has, the first arm begins with all.",
        )
        .default("null"),
    ],
};

pub static SPLIT_ON: Object = Object {
    about: "What meets the same arm each time. Exactly one of header and cookie.",
    fields: &[
        Field::new("header", Form::Text, "This header's value.").default("null"),
        Field::new("cookie", Form::Text, "This cookie's value.").default("null"),
        Field::new("ttl", Form::Span, "Clients without the cookie are given one for so long.").default("null"),
    ],
};

pub static RAMP: Object = Object {
    about: "The weights are reached bit by bit.",
    fields: &[
        Field::new("start", Form::Moment, "When it begins, such as 2026-11-25T14:00:00Z.").required(),
        Field::new("duration", Form::Span, "From there to the weights.").required(),
        Field::new("steps", Form::Int(1, RAMP_STEPS_MAX as i64), "In so many equal steps.").default("10"),
    ],
};

pub static MIRROR: Object = Object {
    about: "A copy of requests for another upstream, whose answers nobody sees.",
    fields: &[
        Field::new("upstream", Form::Name, "Where the copies go.").required(),
        Field::new("percent", Form::Int(1, 100), "How many of the requests.").default("100"),
        Field::new("body_max", Form::Size, "Requests with larger bodies are not copied; at most 1MiB.")
            .default("\"64KiB\""),
    ],
};

pub static CORS: Object = Object {
    about: "Which pages of other origins may call. The gateway answers preflights itself, before it asks who is there.",
    fields: &[
        Field::new(
            "origins",
            Form::List(&Form::Text),
            "Such as https://app.acme.test, https://*.acme.test, null; or *.",
        )
        .required(),
        Field::new("methods", Form::List(&Form::Text), "Methods they may use; those of the route if left out.")
            .default("[]"),
        Field::new("headers", Form::List(&Form::Text), "Headers they may send beside the ordinary ones.").default("[]"),
        Field::new("expose_headers", Form::List(&Form::Text), "Headers of answers that they may read.").default("[]"),
        Field::new("credentials", Form::Bool, "Cookies and HTTP authentication may come along.").default("false"),
        Field::new("max_age", Form::Span, "How long browsers may remember the preflight's answer.").default("null"),
    ],
};

pub static COMPRESSION: Object = Object {
    about: "Answers are compressed as the client likes it.",
    fields: &[
        Field::new(
            "algorithms",
            Form::List(&Form::Enum(&["gzip", "br", "zstd"])),
            "In order of preference where the client has none.",
        )
        .default("[\"zstd\",\"br\",\"gzip\"]"),
        Field::new("types", Form::List(&Form::Text), "Media types of answers, also text/* and application/*+json.")
            .default(
                "[\"text/*\",\"application/json\",\"application/*+json\",\"application/xml\",\"application/*+xml\",\
                 \"application/javascript\",\"application/x-ndjson\",\"application/graphql-response+json\",\
                 \"application/yaml\",\"application/wasm\",\"image/svg+xml\",\"font/ttf\"]",
            ),
        Field::new("min_size", Form::Size, "Answers known to be smaller stay as they are.").default("\"1KiB\""),
    ],
};

pub static CACHE: Object = Object {
    about: "Answers are kept by every node for the next who asks, as far as they allow it themselves (RFC 9111).",
    fields: &[
        Field::new("default_ttl", Form::Span, "How long answers are fresh that do not say so.").default("null"),
        Field::new("object_max", Form::Size, "Larger answers are not kept; at most 4MiB.").default("\"1MiB\""),
        Field::new(
            "stale_while_revalidate",
            Form::Span,
            "How long a stale answer may be given while the upstream is asked beside.",
        )
        .default("null"),
        Field::new("stale_if_error", Form::Span, "How long a stale answer may be given while the upstream fails.")
            .default("null"),
    ],
};

pub static PATH_REGEX: Object = Object {
    about: "What matches is replaced, wherever in the path it stands.",
    fields: &[
        Field::new("pattern", Form::Text, "A regular expression for a part of the path.").required(),
        Field::new("to", Form::Text, "What comes there, with $1 and ${name} for the pattern's groups.").required(),
    ],
};

pub static BODY_REWRITES: Object = Object {
    about: "JSON that goes on in the place of a body, with ${body.name.0} of it and values of the request.",
    fields: &[
        Field::new("request", Form::Text, "What the upstream gets.").default("null"),
        Field::new("response", Form::Text, "What the client gets of answers with a status of 200 to 299.")
            .default("null"),
        Field::new("max", Form::Size, "Of what comes in, unpacked, and of what is made; at most 16MiB.")
            .default("\"1MiB\""),
    ],
};

pub static QUERY_EDITS: Object = Object {
    about: "Carried out in the order remove, set, add.",
    fields: &[
        Field::new("set", Form::Texts, "Parameters that get this one value.").default("{}"),
        Field::new("add", Form::Texts, "Values that are added.").default("{}"),
        Field::new("remove", Form::List(&Form::Text), "Parameters that go away.").default("[]"),
    ],
};
