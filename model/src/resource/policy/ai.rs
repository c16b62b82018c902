//! Policies in front of providers of language models: which models there are under which names, what they cost, how much a
//! request may ask for, and what neither side may say.

use serde::{Deserialize, Serialize};

use super::{
    super::{Name, check, word::word_enum},
    payload::{INSPECTED_BYTES_DEFAULT, size},
};
use crate::{invalid::Invalid, units::Size};

/// Names of models that one policy may have.
pub const AI_MODELS_MAX: usize = 256;
/// Whom one of them may be asked of.
pub const AI_TARGETS_MAX: usize = 16;
pub const AI_WEIGHT_MAX: u32 = 1_000_000;
/// The most that one request may ask for: more than any provider gives.
pub const AI_TOKENS_MAX: u32 = 10_000_000;
/// Units of money per token, in millionths of a millionth: sums of many stay within 128 bits.
pub const AI_PRICE_MAX: u64 = 1_000_000_000_000;
pub const AI_PATTERNS_MAX: usize = 64;
const MODEL_BYTES_MAX: usize = 128;
const PATTERN_BYTES_MAX: usize = 1 << 10;
/// What one list of patterns may take once it is compiled.
pub const AI_PATTERNS_BYTES_MAX: usize = 1 << 20;

word_enum!(
    /// Whose way of asking and answering it is.
    AiProvider {
        /// Chat completions, as many others speak them too.
        Openai = "openai",
        /// Messages.
        Anthropic = "anthropic",
    }
);

word_enum!(
    /// In which member providers are told how long an answer may be.
    #[derive(Default)]
    MaxTokensField {
        #[default]
        MaxTokens = "max_tokens",
        /// What OpenAI's models want that reason.
        MaxCompletionTokens = "max_completion_tokens",
    }
);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiPolicy {
    pub provider: AiProvider,
    pub models: Vec<AiModel>,
    /// What an answer may have where the request does not say.
    #[serde(default = "AiPolicy::max_tokens_default")]
    pub max_tokens_default: u32,
    /// Requests that ask for more get this.
    #[serde(default = "AiPolicy::max_tokens_max")]
    pub max_tokens_max: u32,
    #[serde(default)]
    pub max_tokens_field: MaxTokensField,
    /// All that a request can cost is taken from the budgets before; false: what is usual, and what comes on top is owed.
    #[serde(default = "AiPolicy::strict")]
    pub strict: bool,
    /// The most that an image, a sound or a file counts for; 0: requests with any are refused.
    #[serde(default)]
    pub media_tokens: u32,
    #[serde(default = "AiPolicy::body_max")]
    pub body_max: Size,
    /// Regular expressions that no text of a request may match.
    #[serde(default)]
    pub prompt_deny: Vec<String>,
    /// 0: any number of them.
    #[serde(default)]
    pub prompt_messages_max: u32,
    /// The same of answers.
    #[serde(default)]
    pub response_deny: Vec<String>,
}

/// A model as clients ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiModel {
    pub name: String,
    /// Those of the lowest priority are asked by their weights; the others once these cannot answer.
    pub targets: Vec<AiTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiTarget {
    /// As the provider calls it.
    pub model: String,
    /// None: the route's.
    #[serde(default)]
    pub upstream: Option<Name>,
    #[serde(default = "AiTarget::weight")]
    pub weight: u32,
    #[serde(default)]
    pub priority: u32,
    /// Millionths of a unit of money per million tokens.
    #[serde(default)]
    pub input_price: u64,
    #[serde(default)]
    pub output_price: u64,
}

impl AiTarget {
    pub const WEIGHT_DEFAULT: u32 = 1;

    fn weight() -> u32 {
        Self::WEIGHT_DEFAULT
    }

    fn checked(&self) -> Result<(), Invalid> {
        model("model", &self.model)?;
        check::number("weight", self.weight, 1, AI_WEIGHT_MAX)?;
        check::number("priority", self.priority, 0, AI_TARGETS_MAX as u32)?;
        for (field, price) in [("input_price", self.input_price), ("output_price", self.output_price)] {
            if price > AI_PRICE_MAX {
                return Err(Invalid::field(field).found(price).allowed(format!("0 to {AI_PRICE_MAX}")));
            }
        }
        Ok(())
    }
}

impl AiPolicy {
    pub const MAX_TOKENS_DEFAULT: u32 = 1_024;
    pub const MAX_TOKENS_MAX: u32 = 4_096;

    fn max_tokens_default() -> u32 {
        Self::MAX_TOKENS_DEFAULT
    }

    fn max_tokens_max() -> u32 {
        Self::MAX_TOKENS_MAX
    }

    fn strict() -> bool {
        true
    }

    pub fn body_max() -> Size {
        INSPECTED_BYTES_DEFAULT
    }

    pub fn checked(self) -> Result<Self, Invalid> {
        check::count("models", self.models.len(), AI_MODELS_MAX)?;
        if self.models.is_empty() {
            return Err(Invalid::field("models").found("none").allowed("at least one"));
        }
        for (place, it) in self.models.iter().enumerate() {
            it.checked().map_err(|invalid| invalid.under(format!("models[{place}]")))?;
        }
        let names: Vec<_> = self.models.iter().map(|it| it.name.clone()).collect();
        check::once("models", &names, Clone::clone)?;
        check::number("max_tokens_max", self.max_tokens_max, 1, AI_TOKENS_MAX)?;
        check::number("max_tokens_default", self.max_tokens_default, 1, self.max_tokens_max)?;
        if self.provider == AiProvider::Anthropic && self.max_tokens_field != MaxTokensField::MaxTokens {
            let found = self.max_tokens_field.word();
            return Err(Invalid::field("max_tokens_field").found(found).allowed("max_tokens with provider anthropic"));
        }
        check::number("media_tokens", self.media_tokens, 0, AI_TOKENS_MAX)?;
        size("body_max", self.body_max)?;
        patterns("prompt_deny", &self.prompt_deny)?;
        patterns("response_deny", &self.response_deny)?;
        Ok(self)
    }
}

impl AiModel {
    fn checked(&self) -> Result<(), Invalid> {
        model("name", &self.name)?;
        check::count("targets", self.targets.len(), AI_TARGETS_MAX)?;
        if self.targets.is_empty() {
            return Err(Invalid::field("targets").found("none").allowed("at least one"));
        }
        for (place, it) in self.targets.iter().enumerate() {
            it.checked().map_err(|invalid| invalid.under(format!("targets[{place}]")))?;
        }
        Ok(())
    }
}

/// What is in labels of metrics and in reports too.
fn model(field: &str, text: &str) -> Result<(), Invalid> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b);
    check::length(field, text, MODEL_BYTES_MAX)?;
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(Invalid::field(field).found(format!("{text:?}")).allowed("letters, digits and . _ : / @ -")),
    }
}

fn patterns(field: &str, list: &[String]) -> Result<(), Invalid> {
    check::count(field, list.len(), AI_PATTERNS_MAX)?;
    for (place, text) in list.iter().enumerate() {
        let field = format!("{field}[{place}]");
        check::text(&field, text, PATTERN_BYTES_MAX)?;
        let wrong = |error: regex::Error| {
            Invalid::field(&field).found(format!("{text:?}: {error}")).allowed("a regular expression in linear time")
        };
        regex::Regex::new(text).map_err(wrong)?;
    }
    ai_patterns(list).map(drop).map_err(|error| Invalid::field(field).found(error).allowed("patterns of less"))
}

/// All of a list as one.
pub fn ai_patterns(list: &[String]) -> Result<regex::RegexSet, regex::Error> {
    regex::RegexSetBuilder::new(list).size_limit(AI_PATTERNS_BYTES_MAX).build()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resource::Kind;

    #[test]
    fn mistakes_name_their_place() {
        let good = json!({ "provider": "openai", "models": [{ "name": "small", "targets": [{ "model": "m-1" }] }] });
        let policy = |words: serde_json::Value| Kind::Policy.parse(json!({ "name": "p", "ai": words }));
        let it = policy(good.clone()).unwrap();
        assert_eq!(it.level(), 6);
        let shown = serde_json::to_value(it).unwrap();
        let target = json!({ "model": "m-1", "upstream": null, "weight": 1, "priority": 0, "input_price": 0, "output_price": 0 });
        assert_eq!(shown["ai"]["models"][0]["targets"][0], target);
        assert_eq!((&shown["ai"]["max_tokens_default"], &shown["ai"]["strict"]), (&json!(1024), &json!(true)));
        for (field, value, mention) in [
            ("provider", json!("x"), "unknown variant `x`"),
            ("models", json!([]), "ai.models: found none"),
            ("models", json!([{ "name": "a b", "targets": [] }]), "ai.models[0].name: found \"a b\""),
            ("models", json!([{ "name": "a", "targets": [] }]), "ai.models[0].targets: found none"),
            (
                "models",
                json!([{ "name": "a", "targets": [{ "model": "m", "weight": 0 }] }]),
                "targets[0].weight: found 0",
            ),
            ("max_tokens_max", json!(0), "ai.max_tokens_max: found 0"),
            ("max_tokens_default", json!(5_000), "ai.max_tokens_default: found 5000; allowed: 1 to 4096"),
            ("prompt_deny", json!(["("]), "ai.prompt_deny[0]: found \"(\""),
            ("prompt_deny", json!(["(\\w{100}){20}{20}"]), "ai.prompt_deny"),
        ] {
            let mut words = good.clone();
            words[field] = value;
            let error = policy(words).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
        let mut words = good;
        words["provider"] = json!("anthropic");
        words["max_tokens_field"] = json!("max_completion_tokens");
        let error = policy(words).unwrap_err().to_string();
        assert!(error.contains("allowed: max_tokens with provider anthropic"), "{error}");
    }
}
