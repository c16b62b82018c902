//! The file's form, written down once: fields, types, defaults and descriptions. The checks, `schema` and the canonical
//! form all read it; a test holds it against the model's own words.

mod access;
mod ai;
mod anomaly;
mod contract;
mod governance;
mod identity;
mod limit;
mod policy;
mod tls;
mod traffic;
mod upstream;

pub use governance::{GUARDRAIL, TENANT};
pub use identity::{AUTH, CERTIFICATE_AUTHORITY, CONSUMER};
pub use limit::LIMIT;
pub use policy::POLICY;
pub use tls::{CERTIFICATE, LISTENER};
pub use upstream::UPSTREAM;

/// A map with these fields and no others.
#[derive(Debug)]
pub struct Object {
    pub about: &'static str,
    pub fields: &'static [Field],
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub form: Form,
    pub required: bool,
    /// JSON; None where leaving the field out differs from every value.
    pub default: Option<&'static str>,
    pub about: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub enum Form {
    Text,
    Bool,
    /// Always true: `present: true`.
    True,
    Int(i64, i64),
    /// `250ms`
    Span,
    /// `2026-11-25T14:00:00Z`
    Moment,
    /// `64KiB` or a number of bytes
    Size,
    Name,
    /// `host:port`
    Authority,
    /// `200` or `200-399`
    StatusRange,
    /// `10.0.0.0/8`
    Cidr,
    Enum(&'static [&'static str]),
    /// One of these words, or a status in this range.
    WordOrStatus(&'static [&'static str], i64, i64),
    /// One number of these.
    Status(&'static [i64]),
    List(&'static Form),
    /// Free keys, texts as values.
    Texts,
    Object(&'static Object),
    /// A `host:port` alone, or the object.
    AuthorityOr(&'static Object),
    /// One of these words alone, or the object.
    WordOr(&'static [&'static str], &'static Object),
    /// A whole number alone, or the object.
    IntOr(i64, i64, &'static Object),
    /// One of them, or a list.
    OneOrList(&'static Form),
    /// Free keys; a text or a list of texts as values.
    TextLists,
    /// A map of whatever JSON has.
    Json,
    /// JSON Schema: a map, true or false.
    Schema,
    /// `sealed:<fingerprint>`, or `plain:` and the secret.
    Secret,
    /// The path of a file, beside this one, whose content becomes the value of another field of the same map.
    FileOf(&'static str, Content),
}

/// What a file is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Text,
    /// The last line's end is left off.
    Secret,
    Json,
    /// Bytes, as base64.
    Base64,
    /// A list: one a line; empty lines, and what follows a #, count for nothing.
    Lines,
}

impl Form {
    /// The map that it is, alone, in a list or beside something shorter.
    #[cfg(test)]
    pub fn object(self) -> Option<&'static Object> {
        match self {
            Form::Object(it) | Form::AuthorityOr(it) | Form::WordOr(_, it) | Form::IntOr(_, _, it) => Some(it),
            Form::List(inner) | Form::OneOrList(inner) => inner.object(),
            _ => None,
        }
    }
}

impl Field {
    const fn new(name: &'static str, form: Form, about: &'static str) -> Self {
        Self { name, form, required: false, default: None, about }
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn default(mut self, json: &'static str) -> Self {
        self.default = Some(json);
        self
    }
}

impl Object {
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|it| it.name == name)
    }

    /// The field that takes a file in this one's place.
    pub fn file_for(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|it| matches!(it.form, Form::FileOf(target, _) if target == name))
    }
}

pub static FILE: Object = Object {
    about: "A Quorumgate configuration file: lists per kind.",
    fields: &[
        Field::new("upstreams", Form::List(&Form::Object(&UPSTREAM)), "Servers behind the gateway."),
        Field::new("routes", Form::List(&Form::Object(&ROUTE)), "Which requests go where."),
        Field::new("consumers", Form::List(&Form::Object(&CONSUMER)), "Who may call."),
        Field::new("auth", Form::List(&Form::Object(&AUTH)), "By what callers prove who they are."),
        Field::new(
            "certificate_authorities",
            Form::List(&Form::Object(&CERTIFICATE_AUTHORITY)),
            "Whose certificates clients may come with.",
        ),
        Field::new("limits", Form::List(&Form::Object(&LIMIT)), "How much is admitted."),
        Field::new("certificates", Form::List(&Form::Object(&CERTIFICATE)), "What the gateway shows to clients."),
        Field::new("listeners", Form::List(&Form::Object(&LISTENER)), "What the nodes open for clients."),
        Field::new("policies", Form::List(&Form::Object(&POLICY)), "What routes ask beside who asks."),
        Field::new("tenants", Form::List(&Form::Object(&TENANT)), "Which hosts and paths belong to whom."),
        Field::new("guardrails", Form::List(&Form::Object(&GUARDRAIL)), "What must be true of every object."),
    ],
};

const NAME: Field = Field::new("name", Form::Name, "Unique among the objects of its kind.").required();
const LABELS: Field = Field::new("labels", Form::Texts, "Words of your own, for people and tools.").default("{}");
const OWNER: Field =
    Field::new("owner", Form::Text, "The team that owns it; tokens may be limited to one.").default("\"\"");
const DESCRIPTION: Field = Field::new("description", Form::Text, "For people.").default("\"\"");

pub static ROUTE: Object = Object {
    about: "Which requests it takes and what becomes of them. Exactly one of upstream, split, redirect and respond.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("priority", Form::Int(i32::MIN as i64, i32::MAX as i64), "The highest wins over everything else.")
            .default("0"),
        Field::new("match", Form::Object(&MATCH), "Which requests it takes; all of them if left out.").default("{}"),
        Field::new("upstream", Form::Name, "The upstream that answers.").default("null"),
        Field::new("split", Form::List(&Form::Object(&traffic::ARM)), "Several upstreams, each with its share.")
            .default("null"),
        Field::new(
            "split_on",
            Form::WordOr(&["consumer", "credential", "ip"], &traffic::SPLIT_ON),
            "What meets the same arm each time, on every node; if left out, every request draws.",
        )
        .default("null"),
        Field::new("ramp", Form::Object(&traffic::RAMP), "The split's weights are reached bit by bit.").default("null"),
        Field::new("redirect", Form::Object(&REDIRECT), "Send the client elsewhere.").default("null"),
        Field::new("respond", Form::Object(&RESPOND), "Answer from here.").default("null"),
        Field::new("rewrite", Form::Object(&REWRITE), "What is changed on the way.").default("{}"),
        Field::new(
            "security_headers",
            Form::Enum(&["api", "web"]),
            "What browsers are told of answers for programs or for people; shown as rewrite.headers.response.",
        )
        .default("null"),
        Field::new("auth", Form::Object(&access::ROUTE_AUTH), "Who is asked to prove what; nobody if left out.")
            .default("null"),
        Field::new(
            "authorize",
            Form::List(&Form::Object(&access::AUTHORIZE)),
            "The first allow or deny that holds decides; with any rule here, none that holds is a deny.",
        )
        .default("[]"),
        Field::new(
            "on_stale",
            Form::Enum(&["deny", "allow"]),
            "What a node does on this route when it has lost touch with the leader: deny with auth, else allow.",
        ),
        Field::new("encoded_slash", Form::Enum(&["refuse", "preserve"]), "What becomes of %2F and %5C in a path.")
            .default("\"refuse\""),
        Field::new("access_log", Form::Bool, "Whether requests are logged; the node's setting if left out.")
            .default("null"),
        Field::new("limits", Form::List(&Form::Name), "The limits that all must admit.").default("[]"),
        Field::new("body", Form::Object(&BODY), "Limits on the request's body.").default("{}"),
        Field::new("timeouts", Form::Object(&ROUTE_TIMEOUTS), "How long an exchange may take.").default("{}"),
        Field::new("retries", Form::Object(&ROUTE_RETRIES), "What is tried again.").default("{}"),
        Field::new("mirror", Form::Object(&traffic::MIRROR), "A copy of requests for another upstream.")
            .default("null"),
        Field::new("cors", Form::Object(&traffic::CORS), "Which pages of other origins may call.").default("null"),
        Field::new("compression", Form::Object(&traffic::COMPRESSION), "Answers are compressed; {} for the defaults.")
            .default("null"),
        Field::new("cache", Form::Object(&traffic::CACHE), "Answers are kept; {} for what they say themselves.")
            .default("null"),
        Field::new("policies", Form::List(&Form::Name), "Policies that must let the request in.").default("[]"),
    ],
};

static MATCH: Object = Object {
    about: "Which requests a route takes: those that pass every given test. At most one of the path fields.",
    fields: &[
        Field::new("hosts", Form::List(&Form::Text), "Host names, or *.suffix; every host if left out.").default("[]"),
        Field::new("path_prefix", Form::Text, "The path and what is below it, by whole segments.").default("null"),
        Field::new("path_exact", Form::Text, "This path alone.").default("null"),
        Field::new("path_template", Form::Text, "A path with variables, such as /orders/{id}.").default("null"),
        Field::new("path_regex", Form::Text, "A regular expression for the whole path.").default("null"),
        Field::new("methods", Form::List(&Form::Text), "Methods; every method if left out.").default("[]"),
        Field::new("headers", Form::List(&Form::Object(&FIELD_MATCH)), "Tests of header fields.").default("[]"),
        Field::new("query", Form::List(&Form::Object(&FIELD_MATCH)), "Tests of query parameters.").default("[]"),
        Field::new("cookies", Form::List(&Form::Object(&FIELD_MATCH)), "Tests of cookies.").default("[]"),
        Field::new("client_cidrs", Form::List(&Form::Cidr), "Networks of clients.").default("[]"),
        Field::new("sni", Form::List(&Form::Text), "TLS server names, or *.suffix.").default("[]"),
        Field::new("listeners", Form::List(&Form::Name), "Listeners that requests come in by; all if left out.")
            .default("[]"),
    ],
};

static FIELD_MATCH: Object = Object {
    about: "A test of one field. Exactly one of exact, regex, present and absent.",
    fields: &[
        Field::new("name", Form::Text, "The field's name.").required(),
        Field::new("exact", Form::Text, "The value is this.").default("null"),
        Field::new("regex", Form::Text, "The value matches this regular expression.").default("null"),
        Field::new("present", Form::True, "The field is there.").default("null"),
        Field::new("absent", Form::True, "The field is not there.").default("null"),
    ],
};

static REDIRECT: Object = Object {
    about: "Send the client elsewhere; what is left out stays as in the request.",
    fields: &[
        Field::new("status", Form::Status(&[301, 302, 303, 307, 308]), "The status.").default("308"),
        Field::new("scheme", Form::Text, "http or https").default("null"),
        Field::new("host", Form::Text, "The host.").default("null"),
        Field::new("port", Form::Int(1, 65_535), "The port.").default("null"),
        Field::new("path", Form::Text, "The path.").default("null"),
    ],
};

static RESPOND: Object = Object {
    about: "Answer from here.",
    fields: &[
        Field::new("status", Form::Int(200, 599), "The status.").default("200"),
        Field::new("body", Form::Text, "The body.").default("\"\""),
        Field::new("headers", Form::Texts, "Header fields of the answer.").default("{}"),
        Field::new(
            "receiver",
            Form::Enum(&["revocation", "backchannel_logout", "security_events", "jwks", "login_callback", "portal"]),
            "A standard endpoint in place of a fixed answer; needs auth.",
        )
        .default("null"),
        Field::new("auth", Form::Name, "The auth that the receiver belongs to.").default("null"),
    ],
};

static REWRITE: Object = Object {
    about: "What is changed on the way.",
    fields: &[
        Field::new("host", Form::Text, "preserve, target (the target's own address), or a host name.")
            .default("\"preserve\""),
        Field::new("path_prefix", Form::Text, "Replaces the matched prefix, or the whole of an exact path.")
            .default("null"),
        Field::new("path", Form::Text, "The whole path anew, such as /v2/${params.id}.").default("null"),
        Field::new("path_regex", Form::Object(&traffic::PATH_REGEX), "A part of the path anew.").default("null"),
        Field::new("query", Form::Object(&traffic::QUERY_EDITS), "Query parameters.").default("{}"),
        Field::new(
            "headers",
            Form::Object(&HEADER_REWRITES),
            "Header fields; values may name ${client_ip} and others.",
        )
        .default("{}"),
        Field::new("body", Form::Object(&traffic::BODY_REWRITES), "Other bodies of JSON.").default("{}"),
    ],
};

static HEADER_REWRITES: Object = Object {
    about: "Header fields that are changed.",
    fields: &[
        Field::new("request", Form::Object(&HEADER_EDITS), "On the way to the upstream.").default("{}"),
        Field::new("response", Form::Object(&HEADER_EDITS), "On the way to the client.").default("{}"),
    ],
};

static HEADER_EDITS: Object = Object {
    about: "Carried out in the order remove, set, add.",
    fields: &[
        Field::new("set", Form::Texts, "Fields that get this one value.").default("{}"),
        Field::new("add", Form::Texts, "Values that are added.").default("{}"),
        Field::new("remove", Form::List(&Form::Text), "Fields that go away.").default("[]"),
    ],
};

static BODY: Object = Object {
    about: "Limits on the request's body.",
    fields: &[
        Field::new("max", Form::Size, "The largest body; 0 is no limit.").default("\"10MiB\""),
        Field::new(
            "decompressed_max",
            Form::Size,
            "What a body with a Content-Encoding may unpack into (gzip, deflate, br, zstd); 0: nobody looks.",
        )
        .default("\"0\""),
        Field::new("buffer", Form::Bool, "The body is read whole before the upstream hears of the request.")
            .default("false"),
    ],
};

static ROUTE_TIMEOUTS: Object = Object {
    about: "How long an exchange may take.",
    fields: &[Field::new("total", Form::Span, "From first to last byte; 0s is the upstream's limit.").default("\"0s\"")],
};

static ROUTE_RETRIES: Object = Object {
    about: "What is tried again.",
    fields: &[Field::new("attempts", Form::Int(0, 10), "Extra attempts; the upstream's if left out.").default("null")],
};
