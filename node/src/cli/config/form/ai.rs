//! Where models are asked, a kind of policy.

use quorumgate_model::resource::{AI_PRICE_MAX, AI_TARGETS_MAX, AI_TOKENS_MAX, AI_WEIGHT_MAX};

use super::{Field, Form, Object, policy::BODY_MAX};

const TOKENS: Form = Form::Int(1, AI_TOKENS_MAX as i64);
const PRICE: Form = Form::Int(0, AI_PRICE_MAX as i64);

pub static AI: Object = Object {
    about: "Models behind names of ours, what they cost, and how much a request may ask for: 400 validation_failed.",
    fields: &[
        Field::new("provider", Form::Enum(&["openai", "anthropic"]), "Whose way of asking and answering it is.")
            .required(),
        Field::new("models", Form::List(&Form::Object(&MODEL)), "The models that clients may ask for.").required(),
        Field::new("max_tokens_default", TOKENS, "Tokens of an answer where the request does not say.").default("1024"),
        Field::new("max_tokens_max", TOKENS, "Requests that ask for more get this.").default("4096"),
        Field::new(
            "max_tokens_field",
            Form::Enum(&["max_tokens", "max_completion_tokens"]),
            "The member that tells the provider; models of OpenAI that reason want max_completion_tokens.",
        )
        .default("\"max_tokens\""),
        Field::new(
            "strict",
            Form::Bool,
            "Budgets are never overdrawn: all that a request can cost is taken before. Else what is usual is, and the rest owed.",
        )
        .default("true"),
        Field::new(
            "media_tokens",
            Form::Int(0, AI_TOKENS_MAX as i64),
            "The most that an image, a sound or a file counts for; 0: requests with any are refused while strict.",
        )
        .default("0"),
        BODY_MAX,
        Field::new("prompt_deny", Form::List(&Form::Text), "Regular expressions that no text of a request may match.")
            .default("[]"),
        Field::new("prompt_messages_max", Form::Int(0, u32::MAX as i64), "How many messages; 0: any number.")
            .default("0"),
        Field::new(
            "response_deny",
            Form::List(&Form::Text),
            "Regular expressions that no text of an answer may match: 502, or the end of a stream.",
        )
        .default("[]"),
    ],
};

static MODEL: Object = Object {
    about: "A model as clients ask for it.",
    fields: &[
        Field::new("name", Form::Text, "What clients call it.").required(),
        Field::new("targets", Form::List(&Form::Object(&TARGET)), "Whom it is asked of.").required(),
    ],
};

static TARGET: Object = Object {
    about: "A model of a provider.",
    fields: &[
        Field::new("model", Form::Text, "What the provider calls it.").required(),
        Field::new("upstream", Form::Name, "The provider, if not the route's upstream; its auth has the key.")
            .default("null"),
        Field::new("weight", Form::Int(1, AI_WEIGHT_MAX as i64), "Its share among those of its priority.").default("1"),
        Field::new(
            "priority",
            Form::Int(0, AI_TARGETS_MAX as i64),
            "The lowest is asked first, the next one once these cannot answer.",
        )
        .default("0"),
        Field::new("input_price", PRICE, "Millionths of a unit of money per million tokens asked with.").default("0"),
        Field::new("output_price", PRICE, "The same of tokens answered with.").default("0"),
    ],
};
