//! Policies.

use quorumgate_model::resource::{
    GRAPHQL_BATCH_MAX, GRAPHQL_DEPTH_MAX, JSON_DEPTH_MAX, PORTAL_KEYS_MAX, THRESHOLD_MAX, XML_ATTRIBUTES_MAX,
    XML_DEPTH_MAX,
};

use super::{Content, DESCRIPTION, Field, Form, LABELS, NAME, OWNER, Object, ai, anomaly, contract};

pub static POLICY: Object = Object {
    about: "What routes ask of a request beside who asks.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("ip", Form::Object(&IP), "By the client's address.").default("null"),
        Field::new("json", Form::Object(&JSON), "How large and how deep JSON in bodies may be.").default("null"),
        Field::new("xml", Form::Object(&XML), "How large and how deep XML in bodies may be.").default("null"),
        Field::new("multipart", Form::Object(&MULTIPART), "What multipart/form-data in bodies may have.")
            .default("null"),
        Field::new("graphql", Form::Object(&GRAPHQL), "What GraphQL queries may ask for.").default("null"),
        Field::new("injection", Form::Object(&INJECTION), "What in a request looks like an attack.").default("null"),
        Field::new(
            "version",
            Form::Object(&VERSION),
            "Of which version of an API a route is, and how far its life is.",
        )
        .default("null"),
        Field::new("contract", Form::Object(&contract::CONTRACT), "Which operations an API has, by JSON Schema.")
            .default("null"),
        Field::new("ai", Form::Object(&ai::AI), "Where models are asked, and for how much.").default("null"),
        Field::new("anomaly", Form::Object(&anomaly::ANOMALY), "How callers behave, over all nodes together.")
            .default("null"),
        Field::new("bot", Form::Object(&BOT), "By what a client calls itself.").default("null"),
        Field::new("mask", Form::Object(&MASK), "What of answers is hidden from all callers but some.").default("null"),
        Field::new("portal", Form::Object(&PORTAL), "What developers are shown, and may do for themselves.")
            .default("null"),
    ],
};

static PORTAL: Object = Object {
    about: "Pages for developers, on a route with respond.receiver portal.",
    fields: &[
        Field::new("title", Form::Text, "What stands above every page.").default("\"APIs\""),
        Field::new(
            "apis",
            Form::List(&Form::Name),
            "APIs of policies of kind version; if left out, those of the owner of this policy.",
        )
        .default("[]"),
        Field::new("keys", Form::Object(&PORTAL_KEYS), "What people may make; if left out, no keys.").default("null"),
    ],
};

static PORTAL_KEYS: Object = Object {
    about: "Keys that people make for the consumer that they are signed in as.",
    fields: &[
        Field::new("max", Form::Int(1, PORTAL_KEYS_MAX as i64), "Good ones of a consumer, whoever made them.")
            .default("5"),
        Field::new("scopes", Form::List(&Form::Text), "Those to choose from.").default("[]"),
        Field::new("expires", Form::Span, "How long a key is good.").default("\"90d\""),
    ],
};

static BOT: Object = Object {
    about: "By User-Agent: 403 bot_denied. A client can call itself anything; this keeps out what does not hide.",
    fields: &[
        Field::new("mode", MODE, MODE_ABOUT).default("\"enforce\""),
        Field::new(
            "allow",
            Form::List(&Form::Text),
            "Regular expressions of a part of it; who is allowed comes in whatever else is said.",
        )
        .default("[]"),
        Field::new("deny", Form::List(&Form::Text), "Regular expressions of a part of it.").default("[]"),
        Field::new("missing", TOLERANCE, "Requests without it.").default("\"allow\""),
        Field::new("scanners", TOLERANCE, "Tools that look for holes, as far as they say so.").default("\"refuse\""),
    ],
};

static MASK: Object = Object {
    about: "Values in upstreams' answers of JSON that are hidden; 502 upstream_protocol_error for what cannot be looked through.",
    fields: &[
        Field::new("fields", Form::List(&Form::Object(&MASKED_FIELD)), "Values by where they stand.").default("[]"),
        Field::new(
            "patterns",
            Form::List(&Form::Object(&MASKED_PATTERN)),
            "What in texts, names and numbers looks like something, wherever it stands.",
        )
        .default("[]"),
        Field::new(
            "headers",
            Form::List(&Form::Object(&MASKED_HEADER)),
            "Fields of answers' heads and trailers. Where there is nothing else, bodies pass as they come.",
        )
        .default("[]"),
        Field::new("unless", Form::Object(&MASK_EXEMPTION), "From whom nothing is hidden.").default("{}"),
        Field::new(
            "body_max",
            Form::Size,
            "What is read of an answer, and what it may unpack into: at most 16MiB. Larger ones are refused.",
        )
        .default("\"1MiB\""),
        Field::new("other_types", TOLERANCE, "Answers that are no JSON.").default("\"refuse\""),
    ],
};

static MASKED_FIELD: Object = Object {
    about: "A value, with all that is in it.",
    fields: &[
        Field::new("pointer", Form::Text, "RFC 6901; * is any one step, ** as the first one any number of them.")
            .required(),
        Field::new("with", Form::Enum(&["stars", "last4", "null", "remove"]), "What stands in its place.")
            .default("\"stars\""),
    ],
};

static MASKED_HEADER: Object = Object {
    about: "A field, with all its values.",
    fields: &[
        Field::new("name", Form::Text, "In whatever case.").required(),
        Field::new("with", Form::Enum(&["stars", "last4", "remove"]), "What stands in the place of each value.")
            .default("\"stars\""),
    ],
};

static MASKED_PATTERN: Object = Object {
    about: "Something that has a form of its own.",
    fields: &[
        Field::new("class", Form::Enum(&["card", "iban", "email"]), "What it is.").required(),
        Field::new("with", Form::Enum(&["stars", "last4"]), "What stands in its place.").default("\"stars\""),
    ],
};

static MASK_EXEMPTION: Object = Object {
    about: "Callers who are in one of the groups, or have one of the scopes; nobody if both are left out.",
    fields: &[
        Field::new("groups", Form::List(&Form::Text), "Of consumers, and of tokens.").default("[]"),
        Field::new("scopes_any", Form::List(&Form::Text), "Of credentials and tokens.").default("[]"),
    ],
};

static VERSION: Object = Object {
    about: "One version of an API: its routes are those that have the policy.",
    fields: &[
        Field::new("api", Form::Name, "The API that it is a version of.").required(),
        Field::new("version", Form::Text, "Such as v1.").required(),
        Field::new("state", Form::Enum(&["draft", "published", "deprecated", "retired"]), "How far its life is.")
            .default("\"published\""),
        Field::new(
            "preview_groups",
            Form::List(&Form::Text),
            "Groups of consumers who may call a draft; it is 404 to all others.",
        )
        .default("[]"),
        Field::new(
            "deprecated_at",
            Form::Moment,
            "What Deprecation says; may lie ahead. Required where it is deprecated.",
        )
        .default("null"),
        Field::new("sunset", Form::Moment, "What Sunset says; from then on it is retired.").default("null"),
        Field::new("successor", Form::Text, "The version to go to.").default("\"\""),
        Field::new("successor_url", Form::Text, "Where that is, for Link.").default("\"\""),
        Field::new("deprecation_url", Form::Text, "What to know of the deprecation, for Link.").default("\"\""),
        Field::new("sunset_url", Form::Text, "What to know of the end, for Link.").default("\"\""),
        Field::new(
            "brownouts",
            Form::List(&Form::Object(&BROWNOUT)),
            "Windows in which a deprecated version refuses on purpose.",
        )
        .default("[]"),
    ],
};

static BROWNOUT: Object = Object {
    about: "A window in which every request is refused on purpose.",
    fields: &[
        Field::new("start", Form::Moment, "When it begins.").required(),
        Field::new("end", Form::Moment, "When it is over.").required(),
        Field::new("status", Form::Status(&[410, 503]), "What is answered.").default("503"),
    ],
};

const COUNT: Form = Form::Int(1, 1_000_000);
pub(super) const MODE: Form = Form::Enum(&["enforce", "detect", "off"]);
pub(super) const MODE_ABOUT: &str =
    "enforce: what it finds is refused; detect: it is told of and let pass; off: nobody looks.";
pub(super) const TOLERANCE: Form = Form::Enum(&["allow", "refuse"]);
pub(super) const BODY_MAX: Field = Field::new(
    "body_max",
    Form::Size,
    "What is read of a body, and what it may unpack into, to be looked through: at most 16MiB. Larger ones are refused.",
)
.default("\"1MiB\"");
const OTHER_TYPES: Field =
    Field::new("other_types", TOLERANCE, "Bodies of types that no policy of the route looks through.")
        .default("\"allow\"");

static JSON: Object = Object {
    about: "Bounds of JSON in requests' bodies: 400 validation_failed beyond them, and for what is no JSON.",
    fields: &[
        Field::new("mode", MODE, MODE_ABOUT).default("\"enforce\""),
        Field::new("max_depth", Form::Int(1, JSON_DEPTH_MAX as i64), "Arrays and objects within one another.")
            .default("32"),
        Field::new("max_keys", COUNT, "Keys of one object.").default("1000"),
        Field::new("max_array", COUNT, "Elements of one array.").default("10000"),
        Field::new("max_string", Form::Size, "Bytes of one text or key.").default("\"1MiB\""),
        Field::new("duplicate_keys", TOLERANCE, "The same key twice in one object.").default("\"refuse\""),
        BODY_MAX,
        OTHER_TYPES,
    ],
};

static XML: Object = Object {
    about: "Bounds of XML in requests' bodies: 400 validation_failed beyond them, and for what is not well-formed.",
    fields: &[
        Field::new("mode", MODE, MODE_ABOUT).default("\"enforce\""),
        Field::new("max_depth", Form::Int(1, XML_DEPTH_MAX as i64), "Elements within one another.").default("32"),
        Field::new("max_elements", COUNT, "Elements of the whole body.").default("10000"),
        Field::new("max_attributes", Form::Int(0, XML_ATTRIBUTES_MAX as i64), "Attributes of one element.")
            .default("64"),
        Field::new("max_text", Form::Size, "Bytes of one text, attribute or name.").default("\"1MiB\""),
        Field::new("dtd", TOLERANCE, "Document type definitions, which entities come from.").default("\"refuse\""),
        BODY_MAX,
        OTHER_TYPES,
    ],
};

static MULTIPART: Object = Object {
    about: "Bounds of multipart/form-data: 400 validation_failed beyond them, and for what is not framed as it should be.",
    fields: &[
        Field::new("mode", MODE, MODE_ABOUT).default("\"enforce\""),
        Field::new("max_parts", COUNT, "Parts.").default("100"),
        Field::new("max_files", Form::Int(0, 1_000_000), "Parts with a file name.").default("10"),
        Field::new("max_part", Form::Size, "Bytes of one part.").default("\"1MiB\""),
        Field::new("max_name", Form::Size, "Bytes of a part's name and of a file's.").default("\"256\""),
        BODY_MAX,
        OTHER_TYPES,
    ],
};

static GRAPHQL: Object = Object {
    about: "Bounds of GraphQL queries, in bodies and in the parameter query: 400 validation_failed beyond them.",
    fields: &[
        Field::new("mode", MODE, MODE_ABOUT).default("\"enforce\""),
        Field::new(
            "max_depth",
            Form::Int(1, GRAPHQL_DEPTH_MAX as i64),
            "Fields within one another, fragments spread out.",
        )
        .default("15"),
        Field::new("max_aliases", Form::Int(0, 1_000_000), "Aliases, fragments spread out.").default("30"),
        Field::new("max_complexity", COUNT, "Fields in all, fragments spread out.").default("1000"),
        Field::new("max_batch", Form::Int(1, GRAPHQL_BATCH_MAX as i64), "Operations that come at once.").default("10"),
        Field::new("introspection", TOLERANCE, "__schema and __type.").default("\"refuse\""),
        BODY_MAX,
        OTHER_TYPES,
    ],
};

const CLASSES: Form =
    Form::List(&Form::Enum(&["sqli", "xss", "traversal", "command", "ssrf", "template", "log4shell"]));

static INJECTION: Object = Object {
    about: "Values that look like attacks, in path, query, headers, cookies and body, by a score of what they have of them.",
    fields: &[
        Field::new("mode", MODE, MODE_ABOUT).default("\"detect\""),
        Field::new("threshold", Form::Int(1, THRESHOLD_MAX as i64), "The score from which a value is an attack.")
            .default("5"),
        Field::new("classes", CLASSES, "What is looked for; everything if left out.").default("[]"),
        Field::new(
            "exceptions",
            Form::List(&Form::Object(&INJECTION_EXCEPTION)),
            "Where something that looks like an attack is none.",
        )
        .default("[]"),
        BODY_MAX,
    ],
};

static INJECTION_EXCEPTION: Object = Object {
    about: "A place as the errors of a refusal name it, and what is below it.",
    fields: &[
        Field::new("in", Form::Enum(&["path", "query", "header", "cookie", "body"]), "Any of them if left out.")
            .default("null"),
        Field::new("pointer", Form::Text, "RFC 6901; * is any one step; all of the place if left out.").default("\"\""),
        Field::new("classes", CLASSES, "All if left out.").default("[]"),
    ],
};

static IP: Object = Object {
    about: "Who is denied does not come in, nor who is not allowed where anybody is; denied wins. Up to 1000000 networks.",
    fields: &[
        Field::new("allow_file", Form::FileOf("allow", Content::Lines), "A file with one network or address a line."),
        Field::new(
            "allow",
            Form::List(&Form::Text),
            "Networks and addresses; everybody who is not denied if left out.",
        )
        .default("[]"),
        Field::new("deny_file", Form::FileOf("deny", Content::Lines), "A file with one network or address a line."),
        Field::new("deny", Form::List(&Form::Text), "Networks and addresses.").default("[]"),
        Field::new("allow_countries", COUNTRIES, "By the file proxy.geo.country of each node.").default("[]"),
        Field::new("deny_countries", COUNTRIES, "Two letters of ISO 3166-1 each.").default("[]"),
        Field::new("allow_asns", ASNS, "By the file proxy.geo.asn of each node.").default("[]"),
        Field::new("deny_asns", ASNS, "Numbers of autonomous systems.").default("[]"),
        Field::new(
            "unknown_place",
            Form::Enum(&["unlisted", "allow", "deny"]),
            "What an address counts as of which it is not known where it is; unlisted: it is in none of the lists.",
        )
        .default("\"unlisted\""),
    ],
};

const COUNTRIES: Form = Form::List(&Form::Text);
const ASNS: Form = Form::List(&Form::Int(0, u32::MAX as i64));
