//! Tenants and guardrails.

use super::{DESCRIPTION, Field, Form, LABELS, NAME, OWNER, Object};

pub static TENANT: Object = Object {
    about: "What the objects of some owners may take, and how many they may be.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("owners", Form::List(&Form::Text), "Whose objects it is about; its own name if left out.")
            .default("[]"),
        Field::new("hosts", Form::List(&Form::Text), "Hosts that are theirs alone, as in a route's match.")
            .default("[]"),
        Field::new("path_prefixes", Form::List(&Form::Text), "Paths of these hosts; all if left out.").default("[]"),
        Field::new("quotas", Form::Object(&QUOTAS), "How many objects they may have.").default("{}"),
    ],
};

const COUNT: Form = Form::Int(0, u32::MAX as i64);

static QUOTAS: Object = Object {
    about: "How many objects of each kind; no bound where one is left out.",
    fields: &[
        Field::new("upstreams", COUNT, "Upstreams.").default("null"),
        Field::new("routes", COUNT, "Routes.").default("null"),
        Field::new("consumers", COUNT, "Consumers.").default("null"),
        Field::new("auth", COUNT, "Auths.").default("null"),
        Field::new("certificate_authorities", COUNT, "Certificate authorities.").default("null"),
        Field::new("limits", COUNT, "Limits.").default("null"),
        Field::new("certificates", COUNT, "Certificates.").default("null"),
        Field::new("policies", COUNT, "Policies.").default("null"),
    ],
};

pub static GUARDRAIL: Object = Object {
    about: "What must be true of every object before it is applied.",
    fields: &[
        NAME,
        LABELS,
        OWNER,
        DESCRIPTION,
        Field::new("kinds", Form::List(&Form::Text), "The lists that it looks at, such as routes; all if left out.")
            .default("[]"),
        Field::new("require", Form::Text, "CEL over object, an object's words with defaults, and kind, its list.")
            .default("\"\""),
        Field::new("effect", Form::Enum(&["deny", "warn", "audit"]), "What becomes of a change that breaks it.")
            .default("\"deny\""),
        Field::new("message", Form::Text, "Why, for who meets it.").required(),
        Field::new("except_owners", Form::List(&Form::Text), "Owners whose objects it leaves alone.").default("[]"),
        Field::new(
            "approval_labels",
            Form::List(&Form::Text),
            "key or key=value: objects with such a label change only once another person has approved.",
        )
        .default("[]"),
    ],
};
