//! Contracts, a kind of policy.

use super::{
    Field, Form, Object,
    policy::{BODY_MAX, MODE, MODE_ABOUT, TOLERANCE},
};

pub static CONTRACT: Object = Object {
    about: "What requests and answers have to be like: 400 validation_failed, 404 and 405 unknown_operation, 415, 502.",
    fields: &[
        Field::new("mode", MODE, MODE_ABOUT).default("\"enforce\""),
        Field::new("responses", MODE, "The same of the upstream's answers; those that are refused become 502.")
            .default("\"off\""),
        BODY_MAX,
        Field::new("unknown_operations", TOLERANCE, "Requests that no operation takes.").default("\"refuse\""),
        Field::new("schemas", Form::Schema, "Schemas by their names, which others refer to as #/schemas/NAME.")
            .default("{}"),
        Field::new("operations", Form::List(&Form::Object(&OPERATION)), "What the API does.").required(),
    ],
};

static OPERATION: Object = Object {
    about: "A method of a path.",
    fields: &[
        Field::new("id", Form::Text, "What people call it.").default("\"\""),
        Field::new("method", Form::Text, "In capitals; GET takes HEAD too.").required(),
        Field::new("path", Form::Text, "As clients ask for it, such as /v1/orders/{id}.").required(),
        Field::new("mode", MODE, "Another mode than the contract's.").default("null"),
        Field::new("parameters", Form::List(&Form::Object(&PARAMETER)), "What else says what is asked for.")
            .default("[]"),
        Field::new("body", Form::Object(&BODY), "What it takes; if left out, no body at all.").default("null"),
        Field::new("responses", Form::List(&Form::Object(&RESPONSE)), "What it answers; anything if left out.")
            .default("[]"),
        Field::new("summary", Form::Text, "For people, in a line.").default("\"\""),
        Field::new("description", Form::Text, "For people. Shown as it is: no markup.").default("\"\""),
    ],
};

static PARAMETER: Object = Object {
    about: "A parameter: every occurrence of it is held against its schema.",
    fields: &[
        Field::new("in", Form::Enum(&["path", "query", "header", "cookie"]), "Where it stands.").required(),
        Field::new("name", Form::Text, "In the path, in braces.").required(),
        Field::new("required", Form::Bool, "Those in paths are.").default("false"),
        Field::new("schema", Form::Schema, "JSON Schema (2020-12); any text if left out.").default("null"),
        Field::new(
            "style",
            Form::Enum(&["simple", "form", "space_delimited", "pipe_delimited", "deep_object", "json"]),
            "How a list is one text, or an object several: form in queries and cookies, else simple, if left out.",
        )
        .default("null"),
        Field::new("explode", Form::Bool, "name=a&name=b for name=a,b; true for form if left out.").default("null"),
    ],
};

static BODY: Object = Object {
    about: "What a request brings.",
    fields: &[
        Field::new("required", Form::Bool, "Requests without one are refused.").default("false"),
        Field::new("content", Form::List(&Form::Object(&CONTENT)), "The types that are taken; others are 415.")
            .required(),
    ],
};

static CONTENT: Object = Object {
    about: "A type of body.",
    fields: &[
        Field::new("type", Form::Text, "Such as application/json, text/* or */*.").required(),
        Field::new("schema", Form::Schema, "JSON Schema (2020-12), for JSON, forms and plain text.").default("null"),
        Field::new(
            "encoding",
            Form::List(&Form::Object(&ENCODING)),
            "Of requests: members of forms that are not written as usual.",
        )
        .default("[]"),
    ],
};

static ENCODING: Object = Object {
    about: "How one member of a form is written.",
    fields: &[
        Field::new("name", Form::Text, "The member's.").required(),
        Field::new("types", Form::List(&Form::Text), "What a part of multipart/form-data may be, such as image/*.")
            .default("[]"),
        Field::new(
            "style",
            Form::Enum(&["form", "space_delimited", "pipe_delimited", "deep_object", "json"]),
            "Of application/x-www-form-urlencoded: form if left out.",
        )
        .default("null"),
        Field::new("explode", Form::Bool, "name=a&name=b for name=a,b; true for form if left out.").default("null"),
    ],
};

static RESPONSE: Object = Object {
    about: "An answer.",
    fields: &[
        Field::new("status", Form::Text, "Such as 200, 2XX or default.").required(),
        Field::new("content", Form::List(&Form::Object(&CONTENT)), "Its types; any if left out.").default("[]"),
    ],
};
