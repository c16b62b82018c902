//! Policies.

use super::{Content, DESCRIPTION, Field, Form, LABELS, NAME, OWNER, Object};

pub static POLICY: Object = Object {
    about: "What routes ask of a request beside who asks.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("ip", Form::Object(&IP), "By the client's address.").default("null"),
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
