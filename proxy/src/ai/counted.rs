//! What a provider says that an answer has cost: of one object, or of the events of a stream.

use quorumgate_model::mutants::{self, Mutant};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::endpoint::Endpoint;
use crate::limits::Tokens;

/// No answer has more; what says so is not believed.
const TOKENS_MAX: u64 = 1 << 40;
/// The text that ends a stream of OpenAI's kind.
const DONE: &[u8] = b"[DONE]";

#[derive(Debug, Default)]
pub(super) struct Counted {
    input: Option<u64>,
    output: Option<u64>,
    /// Nothing more is to come.
    is_whole: bool,
    /// What was passed on is counted, for those who leave before it is told.
    weighs: bool,
    /// Events that said something, and the bytes of their texts.
    passed: (u64, u64),
}

/// What one event is to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Said,
    /// Nothing but what it has cost.
    UsageAlone,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    r#type: Option<String>,
    usage: Option<Usage>,
    message: Option<Message>,
    choices: Option<Vec<IgnoredAny>>,
}

/// An event of the Responses API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    r#type: Option<String>,
    response: Option<Message>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    usage: Option<Usage>,
}

impl Usage {
    fn input(&self) -> Option<u64> {
        // Beside what was read anew, what a cache had or took counts too.
        let cached = [self.cache_creation_input_tokens, self.cache_read_input_tokens];
        let anthropic = self.input_tokens.map(|it| cached.into_iter().flatten().fold(it, u64::saturating_add));
        self.prompt_tokens.or(anthropic).filter(|it| *it <= TOKENS_MAX)
    }

    fn output(&self) -> Option<u64> {
        // Some leave out of the completion what was thought before it.
        let beyond = self.total_tokens.map(|it| it.saturating_sub(self.input().unwrap_or(it)));
        let beyond = beyond.filter(|_| !mutants::is(Mutant::ThoughtUncounted));
        let said = self.completion_tokens.or(self.output_tokens).map(|it| it.max(beyond.unwrap_or(0)));
        said.filter(|it| *it <= TOKENS_MAX)
    }
}

/// What a token is at least, of texts that nobody has counted.
const BYTES_OF_TOKEN: u64 = 4;

impl Counted {
    pub(super) fn new(weighs: bool) -> Self {
        Self { weighs, ..Self::default() }
    }

    /// None: it was not said, or not to the end.
    pub(super) fn whole(&self) -> Option<Tokens> {
        self.known().filter(|_| self.is_whole || mutants::is(Mutant::UnfinishedBelieved))
    }

    /// What is certain of it although the rest did not come.
    pub(super) fn input(&self) -> Option<u64> {
        self.input
    }

    /// About as many tokens have gone to the client, however it ends.
    pub(super) fn passed(&self) -> u64 {
        self.passed.0.max(self.passed.1 / BYTES_OF_TOKEN)
    }

    /// Of what is no event, or too long to be looked at.
    pub(super) fn passes(&mut self, bytes: usize) {
        if self.weighs {
            self.passed.1 = self.passed.1.saturating_add(bytes as u64);
        }
    }

    fn weigh(&mut self, data: &[u8]) {
        let said = serde_json::from_slice::<Value>(data).map_or(0, |it| bytes_of_deltas(&it, false));
        if said > 0 {
            self.passed.0 += 1;
            self.passes(said);
        }
    }

    fn known(&self) -> Option<Tokens> {
        Some(Tokens { input: self.input?, output: self.output? })
    }

    /// All of it was said.
    pub(super) fn ends(&mut self) {
        self.is_whole |= self.known().is_some();
    }

    /// One answer, all of it.
    pub(super) fn answer(&mut self, endpoint: Endpoint, json: &[u8]) {
        let usage = serde_json::from_slice::<Said>(json).ok().and_then(|said| said.usage);
        if let Some(usage) = usage {
            let nothing = (endpoint == Endpoint::Embeddings).then_some(0);
            (self.input, self.output) = (usage.input(), usage.output().or(nothing));
        }
        self.ends();
    }

    /// The data of one event.
    pub(super) fn event(&mut self, endpoint: Endpoint, data: &[u8]) -> Event {
        if data.trim_ascii() == DONE {
            self.ends();
            return Event::Said;
        }
        if self.weighs && contains(data, b"delta") {
            self.weigh(data);
        }
        // Nearly all of them say nothing about it.
        let may_say = contains(data, b"usage") || contains(data, b"message_stop");
        if endpoint == Endpoint::Responses && may_say {
            self.step(data);
            return Event::Said;
        }
        let said = may_say.then(|| serde_json::from_slice::<Said>(data).ok()).flatten();
        let Some(said) = said else { return Event::Said };
        match endpoint {
            Endpoint::Embeddings | Endpoint::Responses => Event::Said,
            Endpoint::Chat => {
                let Some(usage) = said.usage else { return Event::Said };
                // Some tell it with every event: the last one counts.
                self.input = usage.input().or(self.input);
                self.output = usage.output().or(self.output);
                match said.choices.is_none_or(|choices| choices.is_empty()) {
                    true => Event::UsageAlone,
                    false => Event::Said,
                }
            }
            Endpoint::Messages => {
                match said.r#type.as_deref() {
                    // What it says of the output there is how it begins.
                    Some("message_start") => self.input = said.message.and_then(|it| it.usage?.input()),
                    Some("message_delta") => {
                        let usage = said.usage.unwrap_or_default();
                        self.output = usage.output().or(self.output);
                        self.input = usage.input().max(self.input);
                    }
                    Some("message_stop") => self.ends(),
                    _ => {}
                }
                Event::Said
            }
        }
    }
}

impl Counted {
    /// Of the Responses API: the last one says it all.
    fn step(&mut self, data: &[u8]) {
        const LAST: [&str; 3] = ["response.completed", "response.incomplete", "response.failed"];
        let Ok(step) = serde_json::from_slice::<Step>(data) else { return };
        let is_last = step.r#type.is_some_and(|it| LAST.contains(&&*it));
        if let Some(usage) = step.response.and_then(|it| it.usage).filter(|_| is_last) {
            (self.input, self.output) = (usage.input(), usage.output());
            self.ends();
        }
    }
}

/// Of the texts of pieces, without the words that say what they are.
fn bytes_of_deltas(value: &Value, is_within: bool) -> usize {
    match value {
        Value::String(text) if is_within => text.len(),
        Value::Array(items) => items.iter().map(|it| bytes_of_deltas(it, is_within)).sum(),
        Value::Object(members) => {
            let texts = members.iter().filter(|(name, _)| !matches!(name.as_str(), "type" | "role" | "id"));
            texts.map(|(name, it)| bytes_of_deltas(it, is_within || name == "delta")).sum()
        }
        _ => 0,
    }
}

fn contains(data: &[u8], word: &[u8]) -> bool {
    data.windows(word.len()).any(|it| it == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoint: Endpoint, events: &[&str], whole: Option<(u64, u64)>, input: Option<u64>) {
        let mut counted = Counted::default();
        for it in events {
            counted.event(endpoint, it.as_bytes());
        }
        assert_eq!(counted.whole().map(|it| (it.input, it.output)), whole, "{events:?}");
        assert_eq!(counted.input(), input, "{events:?}");
    }

    #[test]
    fn a_stream_has_cost_what_its_last_words_say() {
        let say = r#"{"choices":[{"delta":{"content":"usage"}}],"usage":null}"#;
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#;
        let so_far = r#"{"choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#;
        use Endpoint::{Chat as Openai, Messages as Anthropic, Responses};
        check(Openai, &[say, usage, " [DONE]"], Some((5, 7)), Some(5));
        check(Openai, &[so_far, usage, "[DONE]"], Some((5, 7)), Some(5));
        check(Openai, &[say, usage], None, Some(5));
        check(Openai, &[so_far], None, Some(5));
        let thought = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":112}}"#;
        check(Openai, &[thought, "[DONE]"], Some((5, 107)), Some(5));
        check(Openai, &[say, "[DONE]"], None, None);
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"cache_creation_input_tokens":10,"cache_read_input_tokens":100,"output_tokens":1}}}"#;
        let delta = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}"#;
        let stop = r#"{"type":"message_stop"}"#;
        check(Anthropic, &[start, delta, stop], Some((113, 9)), Some(113));
        check(Anthropic, &[start, delta], None, Some(113));
        check(Anthropic, &[start], None, Some(113));
        check(Anthropic, &[start, stop], None, Some(113));
        let said = r#"{"type":"response.output_text.delta","delta":"usage"}"#;
        let begun = r#"{"type":"response.created","response":{"usage":null}}"#;
        let done = |kind: &str, usage: &str| format!(r#"{{"type":"response.{kind}","response":{{"usage":{usage}}}}}"#);
        let usage =
            r#"{"input_tokens":5,"input_tokens_details":{"cached_tokens":3},"output_tokens":7,"total_tokens":12}"#;
        for last in ["completed", "incomplete", "failed"] {
            check(Responses, &[begun, said, &done(last, usage)], Some((5, 7)), Some(5));
        }
        let thought = done("completed", r#"{"input_tokens":5,"output_tokens":7,"total_tokens":112}"#);
        check(Responses, &[begun, &thought], Some((5, 107)), Some(5));
        check(Responses, &[begun, said, &done("failed", "null")], None, None);
        check(Responses, &[begun, said, &done("in_progress", usage)], None, None);
        check(Responses, &[begun, said, "[DONE]"], None, None);
    }

    #[test]
    fn only_what_says_nothing_else_is_not_for_the_client() {
        let event = |data: &str| Counted::default().event(Endpoint::Chat, data.as_bytes());
        assert_eq!(event(r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#), Event::UsageAlone);
        for said in [
            r#"{"choices":[{"index":0}],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#,
            r#"{"choices":[],"usage":null,"prompt_filter_results":[]}"#,
            "[DONE]",
            "usage",
        ] {
            assert_eq!(event(said), Event::Said, "{said}");
        }
    }

    #[test]
    fn an_answer_has_cost_what_it_says() {
        let of = |endpoint, json: &str| {
            let mut counted = Counted::default();
            counted.answer(endpoint, json.as_bytes());
            counted.whole().map(|it| (it.input, it.output))
        };
        let whole = |json: &str| of(Endpoint::Chat, json);
        let embedded = r#"{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5,"total_tokens":5}}"#;
        assert_eq!((of(Endpoint::Embeddings, embedded), whole(embedded)), (Some((5, 0)), None));
        assert_eq!(
            of(Endpoint::Responses, r#"{"usage":{"input_tokens":5,"output_tokens":7,"total_tokens":12}}"#),
            Some((5, 7))
        );
        assert_eq!(of(Endpoint::Responses, r#"{"status":"queued","usage":null}"#), None);
        assert_eq!(whole(r#"{"id":"x","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#), Some((5, 7)));
        assert_eq!(whole(r#"{"type":"message","usage":{"input_tokens":5,"output_tokens":7}}"#), Some((5, 7)));
        assert_eq!(whole(r#"{"usage":{"input_tokens":5}}"#), None);
        assert_eq!(whole(r#"{"usage":{"prompt_tokens":1e30,"completion_tokens":7}}"#), None);
        assert_eq!(whole("not JSON"), None);
    }

    #[test]
    fn what_has_passed_is_weighed_by_its_events_and_its_bytes() {
        let of = |endpoint, weighs, events: &[&str]| {
            let mut counted = Counted::new(weighs);
            events.iter().for_each(|it| {
                counted.event(endpoint, it.as_bytes());
            });
            counted.passed()
        };
        let say = r#"{"choices":[{"index":0,"delta":{"content":"ab"}}]}"#;
        let long = r#"{"choices":[{"index":0,"delta":{"content":"0123456789012345678901234567890123456789"}}]}"#;
        let begins = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
        assert_eq!(of(Endpoint::Chat, true, &[begins, say, say, say]), 3);
        assert_eq!(of(Endpoint::Chat, true, &[long]), 10);
        assert_eq!(of(Endpoint::Chat, false, &[say, long]), 0);
        let block = r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"a"}}"#;
        assert_eq!(of(Endpoint::Messages, true, &[r#"{"type":"ping"}"#, block, block]), 2);
        let piece = r#"{"type":"response.output_text.delta","delta":"usage"}"#;
        assert_eq!(of(Endpoint::Responses, true, &[piece, piece]), 2);
        let mut counted = Counted::new(true);
        counted.passes(400);
        assert_eq!(counted.passed(), 100);
    }
}
