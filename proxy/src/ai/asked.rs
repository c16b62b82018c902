//! A request to a model: what is read of it, what it may cost, and how it goes on. Whatever the gateway has no word for goes on
//! as it came, byte by byte.

use std::{borrow::Cow, fmt};

use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{AiPolicy, MaxTokensField},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::endpoint::Endpoint;
use crate::{inspect::Violation, limits::Tokens};

const MEMBERS_MAX: usize = 256;
const MESSAGES_MAX: usize = 20_000;
pub(super) const PARTS_MAX: usize = 20_000;
const TOOLS_MAX: usize = 2_000;
/// How deep parts of messages may lie within one another: the result of a tool within a message.
const DEPTH_MAX: usize = 4;
/// Answers to one request.
const CHOICES_MAX: u64 = 128;
const OPTIONS_BYTES_MAX: usize = 1 << 10;
/// What a provider puts around the texts of a request that its bytes do not tell of, and what it says of tools.
const AROUND_TOKENS: u64 = 256;
const TOOLS_TOKENS: u64 = 1_024;
/// Where it need not be an upper bound: of English and of code it is about right.
const BYTES_PER_TOKEN: u64 = 4;
/// What is read here of a request. Servers that read names without case would read another one for the same.
const READ: [&str; 9] = [
    "model",
    "n",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "system",
    "instructions",
    "tools",
];
/// Members that have the provider read more than it is sent, write more than it is asked for, or ask another model, unless they
/// are what an endpoint is asked with.
const UNBOUNDED: [&str; 22] = [
    "messages",
    "previous_response_id",
    "conversation",
    "background",
    "context_management",
    "web_search_options",
    "mcp_servers",
    "container",
    "prediction",
    "prompt",
    "input",
    "requests",
    "max_output_tokens",
    "best_of",
    "use_beam_search",
    "options",
    "chat_template",
    "documents",
    "models",
    "fallbacks",
    "plugins",
    "route",
];
/// Tools that the client runs. All others are the provider's, and what they find is charged for.
const CLIENTS_TOOLS: [&str; 2] = ["function", "custom"];
/// Members of messages whose bytes say how much they can be at most. Whatever else there is may be read as media.
pub(super) const OF_MESSAGES: [&str; 13] = [
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "refusal",
    "annotations",
    "reasoning",
    "reasoning_content",
    "thinking",
    "prefix",
    "cache_control",
];
/// Parts of messages that are texts, and the members of those.
const TEXTS: [&str; 9] = [
    "text",
    "input_text",
    "output_text",
    "refusal",
    "tool_use",
    "tool_result",
    "search_result",
    "thinking",
    "redacted_thinking",
];
const OF_TEXTS: [&str; 16] = [
    "type",
    "text",
    "content",
    "cache_control",
    "citations",
    "annotations",
    "logprobs",
    "id",
    "name",
    "input",
    "tool_use_id",
    "is_error",
    "refusal",
    "thinking",
    "signature",
    "data",
];

pub(super) struct Asked<'b> {
    endpoint: Endpoint,
    members: Members<'b>,
    pub(super) model: String,
    /// How many answers it asks for.
    pub(super) choices: u64,
    streams: bool,
    /// Of a stream: what the client wants to be told.
    options: Map<String, Value>,
    /// For each answer.
    max_tokens: u64,
    media: Media,
    has_tools: bool,
    bytes: u64,
}

/// Images, sounds and files.
#[derive(Default)]
pub(super) struct Media {
    count: u64,
    bytes: u64,
}

pub(super) fn wrong(pointer: impl Into<String>, rule: &'static str, detail: impl Into<Cow<'static, str>>) -> Violation {
    Violation::body(pointer.into(), rule, detail)
}

impl<'b> Asked<'b> {
    pub(super) fn read(words: &AiPolicy, endpoint: Endpoint, bytes: &'b [u8]) -> Result<Self, Violation> {
        let members: Members<'b> = serde_json::from_slice(bytes)
            .map_err(|error| wrong("", "provider", format!("it is no JSON object with each member once: {error}")))?;
        let model = members.take::<String>("model", "the name of a model")?;
        let model = model.ok_or_else(|| wrong("/model", "models", "no model is named"))?;
        let choices = match endpoint {
            Endpoint::Chat | Endpoint::Responses => members.take::<u64>("n", "a whole number")?.unwrap_or(1),
            Endpoint::Messages | Endpoint::Embeddings => 1,
        };
        if !(1..=CHOICES_MAX).contains(&choices) {
            return Err(wrong("/n", "max_tokens_max", format!("found {choices}; allowed: 1 to {CHOICES_MAX}")));
        }
        let streams = members.take::<bool>("stream", "true or false")?.unwrap_or(false);
        let options = match members.get("stream_options") {
            Some(raw) if endpoint == Endpoint::Chat && raw.get().len() <= OPTIONS_BYTES_MAX => {
                members.take::<Map<String, Value>>("stream_options", "an object")?.unwrap_or_default()
            }
            Some(_) if endpoint == Endpoint::Chat => {
                return Err(wrong("/stream_options", "provider", "it is too large"));
            }
            _ => Map::new(),
        };
        let known = READ.iter().chain(&UNBOUNDED);
        members.has_no_twin_of(known, "")?;
        let (media, has_tools) = members.look_through(words, endpoint)?;
        let max_tokens = members.max_tokens(words, endpoint)?;
        let bytes = bytes.len() as u64;
        Ok(Self { endpoint, members, model, choices, streams, options, max_tokens, media, has_tools, bytes })
    }

    /// An upper bound while the policy is strict: no token is less than a byte of a text. Else what is usual.
    pub(super) fn costs(&self, words: &AiPolicy, usual: Option<u64>) -> Tokens {
        let media = self.media.count.saturating_mul(words.media_tokens.into());
        let texts = self.bytes.saturating_sub(self.media.bytes);
        let around = AROUND_TOKENS + if self.has_tools { TOOLS_TOKENS } else { 0 };
        match words.strict {
            true => Tokens { input: texts + media + around, output: self.max_tokens * self.choices },
            false => Tokens {
                input: (texts / BYTES_PER_TOKEN + media).max(1),
                // Embeddings say nothing.
                output: usual.unwrap_or(u64::MAX).max(1).min(self.max_tokens) * self.choices,
            },
        }
    }

    /// The provider tells what a stream has cost in an event that the client did not ask for.
    pub(super) fn hides_usage(&self) -> bool {
        self.endpoint == Endpoint::Chat && self.options.get("include_usage") != Some(&Value::Bool(true))
    }

    /// As the provider gets it.
    pub(super) fn write(&self, words: &AiPolicy, model: &str) -> Vec<u8> {
        let mut out = Object::new(self.bytes as usize + 128);
        for (name, raw) in &self.members.0 {
            match &**name {
                "model" => out.member(name, |out| push_text(out, model)),
                "max_tokens" | "max_completion_tokens" if self.endpoint != Endpoint::Embeddings => {}
                "max_output_tokens" if self.endpoint == Endpoint::Responses => {}
                "stream_options" if self.endpoint == Endpoint::Chat => {}
                _ => out.member(name, |out| out.extend_from_slice(raw.get().as_bytes())),
            }
        }
        let field = match self.endpoint {
            Endpoint::Chat | Endpoint::Messages => Some(words.max_tokens_field.word()),
            Endpoint::Responses => Some("max_output_tokens"),
            Endpoint::Embeddings => None,
        };
        if let Some(field) = field {
            out.member(field, |out| out.extend_from_slice(self.max_tokens.to_string().as_bytes()));
        }
        if self.streams && self.endpoint == Endpoint::Chat {
            let mut options = self.options.clone();
            options.insert("include_usage".into(), Value::Bool(true));
            out.member("stream_options", |out| {
                out.extend_from_slice(Value::Object(options).to_string().as_bytes());
            });
        }
        out.end()
    }
}

struct Object(Vec<u8>);

impl Object {
    fn new(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        out.push(b'{');
        Self(out)
    }

    fn member(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        push_text(&mut self.0, name);
        self.0.push(b':');
        value(&mut self.0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}

/// Of an object, each once and in their order.
pub(super) struct Members<'b>(pub(super) Vec<(Cow<'b, str>, &'b RawValue)>);

impl<'b> Members<'b> {
    pub(super) fn get(&self, name: &str) -> Option<&'b RawValue> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, raw)| *raw)
    }

    /// None: it is not there, or null.
    pub(super) fn take<T: DeserializeOwned>(&self, name: &str, allowed: &str) -> Result<Option<T>, Violation> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        let other = |_| wrong(format!("/{name}"), "provider", format!("found something else; allowed: {allowed}"));
        serde_json::from_str(raw.get()).map_err(other)
    }

    /// What the request asks for, and no more than it may.
    fn max_tokens(&self, words: &AiPolicy, endpoint: Endpoint) -> Result<u64, Violation> {
        if endpoint == Endpoint::Embeddings {
            return Ok(0);
        }
        let own = (endpoint == Endpoint::Responses).then_some("max_output_tokens");
        let names = MaxTokensField::ALL.iter().map(|it| it.word()).chain(own);
        let all = names.map(|it| self.take::<u64>(it, "a whole number"));
        let asked = all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().min();
        let asked = asked.unwrap_or(words.max_tokens_default.into()).max(1);
        Ok(if mutants::is(Mutant::MaxTokensUnclamped) { asked } else { asked.min(words.max_tokens_max.into()) })
    }

    /// Of a name that is one of these but for case.
    pub(super) fn has_no_twin_of<'k>(
        &self,
        mut known: impl Iterator<Item = &'k &'k str> + Clone,
        at: &str,
    ) -> Result<(), Violation> {
        let is_twin = |name: &str, it: &str| it != name && it.eq_ignore_ascii_case(name);
        match self.0.iter().find(|(name, _)| known.clone().any(|it| is_twin(name, it))) {
            Some((name, _)) => {
                let meant = known.find(|it| is_twin(name, it)).copied().unwrap_or_default();
                Err(wrong(format!("{at}/{name}"), "provider", format!("some servers read it as {meant}: write that")))
            }
            None => Ok(()),
        }
    }

    fn look_through(&self, words: &AiPolicy, endpoint: Endpoint) -> Result<(Media, bool), Violation> {
        let mut media = Media::default();
        match endpoint {
            Endpoint::Chat | Endpoint::Messages => self.messages(&mut media, words)?,
            Endpoint::Embeddings => self.inputs(&mut media, words)?,
            Endpoint::Responses => self.items(&mut media, words)?,
        }
        let is_said = |name: &&&str| {
            self.get(name).is_some_and(|raw| !endpoint.reads(name) && !matches!(raw.get(), "null" | "false"))
        };
        if let Some(name) = UNBOUNDED.iter().find(is_said).filter(|_| words.strict) {
            let detail = "nobody can say before what it costs: strict budgets let it not pass";
            return Err(wrong(format!("/{name}"), "strict", detail));
        }
        let count = self.tools(words)?;
        Ok((media, count > 0))
    }

    /// What is said so far, one by one.
    pub(super) fn most(words: &AiPolicy) -> Most {
        let items = match words.prompt_messages_max {
            0 => MESSAGES_MAX,
            most => MESSAGES_MAX.min(most as usize),
        };
        Most { items, rule: "prompt_messages_max" }
    }

    fn messages(&self, media: &mut Media, words: &AiPolicy) -> Result<(), Violation> {
        let Some(raw) = self.get("messages") else {
            return Err(wrong("/messages", "provider", "there are none: this path takes conversations alone"));
        };
        each(raw, "/messages", Self::most(words), &mut |pointer, raw| {
            let message = Members::of(raw, pointer)?;
            message.has_no_twin_of(OF_MESSAGES.iter(), pointer)?;
            if let Some(content) = message.get("content") {
                media.add(content, &format!("{pointer}/content"), 0, words)?;
            }
            let others = message.0.iter().filter(|(name, raw)| !OF_MESSAGES.contains(&&**name) && raw.get() != "null");
            for (name, _) in others {
                media.count(format!("{pointer}/{name}"), words)?;
            }
            Ok(())
        })?;
        match self.get("system") {
            Some(system) => media.add(system, "/system", 0, words),
            None => Ok(()),
        }
    }

    /// How many there are.
    fn tools(&self, words: &AiPolicy) -> Result<usize, Violation> {
        let Some(raw) = self.get("tools").filter(|raw| raw.get() != "null") else { return Ok(0) };
        each(raw, "/tools", Most { items: TOOLS_MAX, rule: "provider" }, &mut |pointer, raw| {
            let tool = Members::of(raw, pointer)?;
            tool.has_no_twin_of(["type"].iter(), pointer)?;
            let Some(kind) = tool.get("type").filter(|_| words.strict) else { return Ok(()) };
            let kind = serde_json::from_str::<Option<String>>(kind.get()).ok().flatten();
            match kind.as_deref().is_some_and(|kind| CLIENTS_TOOLS.contains(&kind)) {
                true => Ok(()),
                false => {
                    let detail =
                        "the provider runs it, and what it finds is charged for: strict budgets let it not pass";
                    Err(wrong(format!("{pointer}/type"), "strict", detail))
                }
            }
        })
    }

    /// The object that this is.
    pub(super) fn of(raw: &'b RawValue, pointer: &str) -> Result<Self, Violation> {
        let other = |_| wrong(pointer, "provider", "found something else; allowed: an object with each member once");
        serde_json::from_str(raw.get()).map_err(other)
    }
}

impl Media {
    /// A text, or parts of which some may be more than their bytes say.
    pub(super) fn add(
        &mut self,
        content: &RawValue,
        pointer: &str,
        depth: usize,
        words: &AiPolicy,
    ) -> Result<(), Violation> {
        if matches!(content.get().as_bytes(), [b'"' | b'n', ..]) {
            return Ok(());
        }
        if depth >= DEPTH_MAX {
            return Err(wrong(pointer, "provider", format!("parts lie deeper than {DEPTH_MAX} within one another")));
        }
        each(content, pointer, Most { items: PARTS_MAX, rule: "provider" }, &mut |pointer, raw| {
            let part = Members::of(raw, pointer)?;
            part.has_no_twin_of(OF_TEXTS.iter(), pointer)?;
            let kind = part.take::<String>("type", "a text")?.unwrap_or_default();
            let is_text = TEXTS.contains(&&*kind) && part.0.iter().all(|(name, raw)| is_of_text(&kind, name, raw));
            if !is_text {
                self.bytes += source_bytes(&kind, &part);
                return self.count(pointer.to_owned(), words);
            }
            match part.get("content") {
                Some(inner) => self.add(inner, &format!("{pointer}/content"), depth + 1, words),
                None => Ok(()),
            }
        })?;
        Ok(())
    }

    pub(super) fn count(&mut self, pointer: String, words: &AiPolicy) -> Result<(), Violation> {
        if words.strict && words.media_tokens == 0 {
            let detail = "nobody can say before what it counts for: set media_tokens to let it pass";
            return Err(wrong(pointer, "media_tokens", detail));
        }
        self.count += 1;
        Ok(())
    }
}

/// Whether it is a member of a part that is a text. A source of a result that was searched for is its address.
fn is_of_text(kind: &str, name: &str, raw: &RawValue) -> bool {
    let is_address = matches!(name, "source" | "title") && kind == "search_result" && raw.get().starts_with('"');
    OF_TEXTS.contains(&name) || is_address
}

/// Bytes of an image or a sound itself, or of where it is: these are no texts. Those of anything else may be.
fn source_bytes(kind: &str, part: &Members<'_>) -> u64 {
    let (within, names): (_, &[&str]) = match kind {
        "image_url" => ("image_url", &["url"]),
        "input_audio" => ("input_audio", &["data"]),
        "image" => ("source", &["data", "url"]),
        "input_image" => ("", &["image_url"]),
        _ => return 0,
    };
    let bytes = |source: &Members<'_>| {
        let texts = names.iter().filter_map(|name| source.get(name)).map(RawValue::get);
        texts.filter(|it| it.starts_with('"')).map(|it| it.len() as u64).sum()
    };
    match within {
        "" => bytes(part),
        _ => part.get(within).and_then(|raw| Members::of(raw, "").ok()).map_or(0, |it| bytes(&it)),
    }
}

/// How many items a list may have, and by which word of the policy.
pub(super) struct Most {
    pub(super) items: usize,
    pub(super) rule: &'static str,
}

pub(super) type Give<'g, 'de> = &'g mut dyn FnMut(&str, &'de RawValue) -> Result<(), Violation>;

/// One by one with its place, no more than that; how many there are.
pub(super) fn each<'de>(
    list: &'de RawValue,
    pointer: &str,
    most: Most,
    give: Give<'_, 'de>,
) -> Result<usize, Violation> {
    let mut found = None;
    let items = Items { pointer, most: &most, give, found: &mut found };
    let read = serde_json::Deserializer::from_str(list.get()).deserialize_seq(items);
    match (found, read) {
        (Some(found), _) => Err(found),
        (None, Ok(count)) => Ok(count),
        (None, Err(_)) => Err(wrong(pointer, "provider", "found something else; allowed: a list")),
    }
}

struct Items<'i, 'g, 'de> {
    pointer: &'i str,
    most: &'i Most,
    give: Give<'g, 'de>,
    found: &'i mut Option<Violation>,
}

impl<'de> Visitor<'de> for Items<'_, '_, 'de> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<usize, A::Error> {
        let Self { pointer, most, give, found } = self;
        let mut count = 0;
        while let Some(raw) = items.next_element::<&'de RawValue>()? {
            let given = match count < most.items {
                true => give(&format!("{pointer}/{count}"), raw),
                false => Err(wrong(pointer, most.rule, format!("there are more than the {} that may be", most.items))),
            };
            if let Err(wrong) = given {
                *found = Some(wrong);
                return Err(A::Error::custom("it is not read further"));
            }
            count += 1;
        }
        Ok(count)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        while let Some((name, raw)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            // Servers disagree on which of two counts.
            if members.iter().any(|(it, _)| *it == name) {
                return Err(A::Error::custom("a member is there twice"));
            }
            if members.len() >= MEMBERS_MAX {
                return Err(A::Error::custom("it has too many members"));
            }
            members.push((name, raw));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::resource::AiProvider;
    use serde_json::json;

    use super::*;

    fn words(more: Value) -> AiPolicy {
        let mut words = json!({ "provider": "openai", "models": [{ "name": "m", "targets": [{ "model": "m" }] }] });
        more.as_object().unwrap().iter().for_each(|(key, value)| words[key] = value.clone());
        serde_json::from_value(words).unwrap()
    }

    fn sent(words: &AiPolicy, body: &str) -> String {
        let endpoint = if words.provider == AiProvider::Openai { Endpoint::Chat } else { Endpoint::Messages };
        let asked = Asked::read(words, endpoint, body.as_bytes()).unwrap_or_else(|found| panic!("{found:?}"));
        String::from_utf8(asked.write(words, "theirs")).unwrap()
    }

    #[test]
    fn what_goes_on_is_what_came_with_another_model_and_a_bound() {
        let openai = words(json!({}));
        let check = |body: &str, expected: &str| assert_eq!(sent(&openai, body), expected);
        check(
            r#"{"model":"m","messages":[{"role":"user","content":"a\u00e9"}],"temperature":0.70,"seed":12345678901234567890}"#,
            r#"{"model":"theirs","messages":[{"role":"user","content":"a\u00e9"}],"temperature":0.70,"seed":12345678901234567890,"max_tokens":1024}"#,
        );
        check(
            r#"{"max_completion_tokens":99999,"messages":[],"model":"m","stream":true,"stream_options":{"x":1}}"#,
            r#"{"messages":[],"model":"theirs","stream":true,"max_tokens":4096,"stream_options":{"x":1,"include_usage":true}}"#,
        );
        check(r#"{"model":"m","messages":[],"max_tokens":7}"#, r#"{"model":"theirs","messages":[],"max_tokens":7}"#);
        let reasons = words(json!({ "max_tokens_field": "max_completion_tokens" }));
        let expected = r#"{"model":"theirs","messages":[],"max_completion_tokens":7}"#;
        assert_eq!(sent(&reasons, r#"{"model":"m","messages":[],"max_tokens":7}"#), expected);
        let anthropic = words(json!({ "provider": "anthropic" }));
        let expected = r#"{"model":"theirs","stream":true,"messages":[],"max_tokens":1024}"#;
        assert_eq!(sent(&anthropic, r#"{"model":"m","stream":true,"messages":[]}"#), expected);
    }

    #[test]
    fn what_cannot_be_bounded_is_refused_with_its_place() {
        let strict = words(json!({ "prompt_messages_max": 2 }));
        for (body, pointer, rule) in [
            ("", "", "provider"),
            ("[]", "", "provider"),
            (r#"{"model":"m","model":"n","messages":[]}"#, "", "provider"),
            (r#"{"messages":[]}"#, "/model", "models"),
            (r#"{"model":7,"messages":[]}"#, "/model", "provider"),
            (r#"{"model":"m"}"#, "/messages", "provider"),
            (r#"{"model":"m","messages":7}"#, "/messages", "provider"),
            (r#"{"model":"m","messages":[7]}"#, "/messages/0", "provider"),
            (r#"{"model":"m","messages":[{"content":"a","content":"b"}]}"#, "/messages/0", "provider"),
            (r#"{"model":"m","messages":[{"Content":"a"}]}"#, "/messages/0/Content", "provider"),
            (r#"{"model":"m","messages":[{"images":["a"]}]}"#, "/messages/0/images", "media_tokens"),
            (r#"{"model":"m","Model":"n","messages":[]}"#, "/Model", "provider"),
            (r#"{"model":"m","messages":[],"N":100}"#, "/N", "provider"),
            (r#"{"model":"m","messages":[],"STREAM":true}"#, "/STREAM", "provider"),
            (r#"{"model":"m","messages":[],"prompt":[1000]}"#, "/prompt", "strict"),
            (r#"{"model":"m","messages":[],"max_output_tokens":1000}"#, "/max_output_tokens", "strict"),
            (r#"{"model":"m","messages":[],"input":"a"}"#, "/input", "strict"),
            (r#"{"model":"m","messages":[],"options":{"num_predict":1000}}"#, "/options", "strict"),
            (r#"{"model":"m","messages":[],"Prompt":"a"}"#, "/Prompt", "provider"),
            (
                r#"{"model":"m","messages":[{"content":[{"type":"text","text":"a","image_url":"b"}]}]}"#,
                "/messages/0/content/0",
                "media_tokens",
            ),
            (
                r#"{"model":"m","messages":[{"content":[{"type":"text","text":"a","Type":"image_url"}]}]}"#,
                "/messages/0/content/0/Type",
                "provider",
            ),
            (r#"{"model":"m","messages":[{},{},{}]}"#, "/messages", "prompt_messages_max"),
            (r#"{"model":"m","messages":[],"max_tokens":1.5}"#, "/max_tokens", "provider"),
            (r#"{"model":"m","messages":[],"n":0}"#, "/n", "max_tokens_max"),
            (r#"{"model":"m","messages":[],"n":1000}"#, "/n", "max_tokens_max"),
            (r#"{"model":"m","messages":[],"stream":"yes"}"#, "/stream", "provider"),
            (
                r#"{"model":"m","messages":[{"content":[{"type":"text"},{"type":"image_url"}]}]}"#,
                "/messages/0/content/1",
                "media_tokens",
            ),
            (r#"{"model":"m","messages":[{},{"audio":{"id":"a"}}]}"#, "/messages/1/audio", "media_tokens"),
            (r#"{"model":"m","messages":[{"content":[{}]}]}"#, "/messages/0/content/0", "media_tokens"),
            (r#"{"model":"m","messages":[{"content":{"type":"image"}}]}"#, "/messages/0/content", "provider"),
            (r#"{"model":"m","messages":[],"web_search_options":{}}"#, "/web_search_options", "strict"),
            (
                r#"{"model":"m","messages":[{"content":[{"type":"tool_result","content":[{"type":"image"}]}]}]}"#,
                "/messages/0/content/0/content/0",
                "media_tokens",
            ),
            (
                r#"{"model":"m","messages":[],"tools":[{"type":"function"},{"name":"a"},{"type":"web_search_1"}]}"#,
                "/tools/2/type",
                "strict",
            ),
        ] {
            let Err(found) = Asked::read(&strict, Endpoint::Chat, body.as_bytes()) else { panic!("{body}") };
            assert_eq!((&*found.pointer, found.rule), (pointer, rule), "{body}");
        }
        let many = format!(r#"{{"model":"m","messages":[{}{{}}]}}"#, "{},".repeat(MESSAGES_MAX));
        let Err(found) = Asked::read(&words(json!({})), Endpoint::Chat, many.as_bytes()) else {
            panic!("they are too many")
        };
        assert_eq!((&*found.pointer, found.rule), ("/messages", "prompt_messages_max"));
        let deep = "[".repeat(100_000);
        let body = format!(r#"{{"model":"m","messages":{deep}"#);
        assert!(Asked::read(&strict, Endpoint::Chat, body.as_bytes()).is_err());
    }

    #[test]
    fn other_ways_of_asking_are_bounded_too() {
        use Endpoint::{Embeddings, Responses};
        let openai = words(json!({ "max_tokens_max": 50 }));
        let write = |endpoint, body: &str| {
            let asked = Asked::read(&openai, endpoint, body.as_bytes()).unwrap_or_else(|found| panic!("{found:?}"));
            let costs = asked.costs(&openai, None);
            assert_eq!(costs.input, body.len() as u64 + AROUND_TOKENS + asked.has_tools as u64 * TOOLS_TOKENS);
            (String::from_utf8(asked.write(&openai, "t")).unwrap(), costs.output)
        };
        let sent = |text: &str, output| (text.to_owned(), output);
        let asked = r#"{"model":"m","input":["a",[1,2],3],"dimensions":8,"max_tokens":7}"#;
        assert_eq!(
            write(Embeddings, asked),
            sent(r#"{"model":"t","input":["a",[1,2],3],"dimensions":8,"max_tokens":7}"#, 0)
        );
        let asked = r#"{"model":"m","input":"a","stream":true,"max_output_tokens":70,"stream_options":{"a":1},"background":false}"#;
        let expected = r#"{"model":"t","input":"a","stream":true,"stream_options":{"a":1},"background":false,"max_output_tokens":50}"#;
        assert_eq!(write(Responses, asked), sent(expected, 50));
        let asked = r#"{"model":"m","instructions":"b","input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},
            {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c",
            "output":"x"},{"type":"message","role":"assistant","status":"completed","id":"i","content":[{"type":"output_text",
            "text":"a","annotations":[],"logprobs":[]}]}],"max_tokens":9,"tools":[{"type":"function","name":"f"}]}"#;
        assert_eq!(write(Responses, asked).1, 9);
        for (endpoint, body, pointer, rule) in [
            (Embeddings, r#"{"model":"m"}"#, "/input", "provider"),
            (Embeddings, r#"{"model":"m","input":7}"#, "/input", "provider"),
            (Embeddings, r#"{"model":"m","input":[{"image":"a"}]}"#, "/input/0", "media_tokens"),
            (Embeddings, r#"{"model":"m","input":[[1,"a"]]}"#, "/input/0", "provider"),
            (Embeddings, r#"{"model":"m","input":"a","messages":[]}"#, "/messages", "strict"),
            (Embeddings, r#"{"model":"m","Input":"a","input":"a"}"#, "/Input", "provider"),
            (Responses, r#"{"model":"m"}"#, "/input", "provider"),
            (Responses, r#"{"model":"m","input":"a","messages":[]}"#, "/messages", "strict"),
            (Responses, r#"{"model":"m","input":"a","previous_response_id":"r"}"#, "/previous_response_id", "strict"),
            (Responses, r#"{"model":"m","input":"a","conversation":"r"}"#, "/conversation", "strict"),
            (Responses, r#"{"model":"m","input":"a","prompt":{"id":"p"}}"#, "/prompt", "strict"),
            (Responses, r#"{"model":"m","input":"a","background":true}"#, "/background", "strict"),
            (Responses, r#"{"model":"m","input":[{"type":"item_reference","id":"i"}]}"#, "/input/0", "strict"),
            (Responses, r#"{"model":"m","input":[{"id":"i"}]}"#, "/input/0", "strict"),
            (
                Responses,
                r#"{"model":"m","input":[{"type":"reasoning","id":"i","summary":[]}]}"#,
                "/input/0",
                "media_tokens",
            ),
            (
                Responses,
                r#"{"model":"m","input":[{"role":"user","content":"a","file":"x"}]}"#,
                "/input/0/file",
                "media_tokens",
            ),
            (
                Responses,
                r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]}"#,
                "/input/0/content/0",
                "media_tokens",
            ),
            (
                Responses,
                r#"{"model":"m","input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"x"}]}]}"#,
                "/input/0/output/0",
                "media_tokens",
            ),
            (Responses, r#"{"model":"m","input":"a","tools":[{"type":"mcp"}]}"#, "/tools/0/type", "strict"),
        ] {
            let Err(found) = Asked::read(&openai, endpoint, body.as_bytes()) else { panic!("{body}") };
            assert_eq!((&*found.pointer, found.rule), (pointer, rule), "{body}");
        }
        let many = words(json!({ "prompt_messages_max": 1 }));
        let body = r#"{"model":"m","input":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}"#;
        assert_eq!(Asked::read(&many, Responses, body.as_bytes()).err().unwrap().rule, "prompt_messages_max");
    }

    #[test]
    fn what_is_reserved_is_no_less_than_what_it_can_cost() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":10,"n":3}"#;
        let costs = |words: &AiPolicy, body: &str, usual| {
            let asked = Asked::read(words, Endpoint::Chat, body.as_bytes());
            asked.unwrap_or_else(|found| panic!("{found:?}")).costs(words, usual)
        };
        let strict = words(json!({}));
        let expected = Tokens { input: body.len() as u64 + AROUND_TOKENS, output: 30 };
        assert_eq!(costs(&strict, body, Some(2)), expected);
        let loose = words(json!({ "strict": false }));
        assert_eq!(costs(&loose, body, Some(2)), Tokens { input: body.len() as u64 / 4, output: 6 });
        assert_eq!(costs(&loose, body, None).output, 30);
        let seeing = words(json!({ "media_tokens": 1_000 }));
        let long = "A".repeat(5_000);
        // What is of no image or sound may be a text, whatever it says that it is.
        for (part, is_source) in [
            (format!(r#"{{"type":"image_url","image_url":{{"url":"{long}"}}}}"#), true),
            (format!(r#"{{"type":"input_audio","input_audio":{{"data":"{long}","format":"wav"}}}}"#), true),
            (format!(r#"{{"type":"image","source":{{"type":"base64","data":"{long}"}}}}"#), true),
            (format!(r#"{{"type":"document","source":{{"type":"text","data":"{long}"}}}}"#), false),
            (format!(r#"{{"type":"image_url","text":"{long}"}}"#), false),
            (format!(r#"{{"type":"text","text":"{long}","uuid":"a"}}"#), false),
        ] {
            let body = format!(r#"{{"model":"m","messages":[{{"content":[{part}]}}]}}"#);
            let texts = body.len() as u64 - if is_source { 5_002 } else { 0 };
            assert_eq!(costs(&seeing, &body, None).input, texts + 1_000 + AROUND_TOKENS, "{part}");
        }
    }
}
