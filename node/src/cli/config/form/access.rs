//! What a route asks of its callers.

use super::{Field, Form, Object};

pub static ROUTE_AUTH: Object = Object {
    about: "Who is asked to prove what. Exactly one of any_of and all_of.",
    fields: &[
        Field::new("any_of", Form::List(&Form::Name), "One of these auths is enough.").default("null"),
        Field::new("all_of", Form::List(&Form::Name), "Each of these auths is needed.").default("null"),
        Field::new("anonymous", Form::Name, "The consumer that a request without credentials counts as.")
            .default("null"),
    ],
};

pub static AUTHORIZE: Object = Object {
    about: "A rule. Exactly one of allow, deny and log.",
    fields: &[
        Field::new("name", Form::Name, "What logs and explain call it; its place in the list if left out.")
            .default("null"),
        Field::new("allow", Form::Object(&CONDITION), "Let in what this holds for.").default("null"),
        Field::new("deny", Form::Object(&CONDITION), "Refuse what this holds for.").default("null"),
        Field::new("log", Form::Object(&CONDITION), "Decide nothing, but log what this holds for.").default("null"),
    ],
};

static CONDITION: Object = Object {
    about: "Holds when everything that is given holds; an empty one always does.",
    fields: &[
        Field::new("scopes_all", Form::List(&Form::Text), "The caller has all of these scopes.").default("[]"),
        Field::new("scopes_any", Form::List(&Form::Text), "The caller has one of these scopes.").default("[]"),
        Field::new("claims", Form::TextLists, "The token's claim is this, or one of these, or holds one of these.")
            .default("{}"),
        Field::new("consumers", Form::List(&Form::Name), "The caller is one of these.").default("[]"),
        Field::new("groups", Form::List(&Form::Text), "The caller is in one of these groups.").default("[]"),
        Field::new("methods", Form::List(&Form::Text), "The method is one of these.").default("[]"),
        Field::new("paths", Form::List(&Form::Text), "The path is below one of these, by whole segments.")
            .default("[]"),
        Field::new("cidrs", Form::List(&Form::Cidr), "The client's address is in one of these networks.").default("[]"),
        Field::new("cel", Form::Text, "This CEL expression is true.").default("null"),
        Field::new(
            "params_equal",
            Form::Texts,
            "The path parameter equals jwt.<claim> or consumer.name; where either is missing, it does not.",
        )
        .default("{}"),
    ],
};
