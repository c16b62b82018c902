//! Policies.

use quorumgate_model::resource::JSON_DEPTH_MAX;

use super::{Content, DESCRIPTION, Field, Form, LABELS, NAME, OWNER, Object};

pub static POLICY: Object = Object {
    about: "What routes ask of a request beside who asks.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("ip", Form::Object(&IP), "By the client's address.").default("null"),
        Field::new("json", Form::Object(&JSON), "How large and how deep JSON in bodies may be.").default("null"),
    ],
};

const COUNT: Form = Form::Int(1, 1_000_000);
const MODE: Form = Form::Enum(&["enforce", "detect", "off"]);
const MODE_ABOUT: &str = "enforce: what it finds is refused; detect: it is told of and let pass; off: nobody looks.";
const TOLERANCE: Form = Form::Enum(&["allow", "refuse"]);
const BODY_MAX: Field = Field::new(
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
    ],
};
