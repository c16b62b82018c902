//! What neither side may say: patterns over every text of a request, of an answer, and of a stream as it comes.

use std::collections::BTreeMap;

use regex::RegexSet;
use serde_json::Value;

use super::events::{self, Line};
use crate::inspect::{Step, Violation, pointer, strings};

/// How far back a pattern may reach over the pieces of a stream.
const WINDOW_BYTES: usize = 4 << 10;
/// Texts that one stream may have at once; beyond them it is cut.
const TEXTS_MAX: usize = 256;

/// Members of an event, at its outside, whose texts are made up: by which it is known, and what fills it up.
const MADE_UP: [&str; 4] = ["id", "item_id", "system_fingerprint", "obfuscation"];
/// Those that each event says again: joined they are nobody's text.
const SAID_AGAIN: [&str; 3] = ["object", "model", "type"];

/// None: nothing of it is denied.
pub(super) fn request(set: &RegexSet, json: &[u8]) -> Option<Violation> {
    let mut found = None;
    let read = strings::each(json, &mut |path, text| {
        if found.is_none() && set.is_match(text) {
            found = Some(pointer(path));
        }
    });
    match (found, read) {
        (Some(place), _) => Some(Violation::body(place, "prompt_deny", "a text that is not to be asked with")),
        (None, Err(_)) => Some(Violation::body(String::new(), "prompt_deny", "it is nested too deep to be looked at")),
        (None, Ok(())) => None,
    }
}

/// What answers of the Responses API say again of their request.
const ASKED: [&str; 4] = ["instructions", "tools", "metadata", "prompt"];

/// Whether it may be said.
pub(super) fn answer(set: &RegexSet, json: &[u8]) -> bool {
    let mut denied = false;
    let read = strings::each(json, &mut |path, text| denied |= !is_asked(path) && set.is_match(text));
    read.is_ok() && !denied
}

/// The same of one that says what went wrong, which may be a text.
pub(super) fn failure(set: &RegexSet, bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match bytes.trim_ascii_start().first() {
        Some(b'{' | b'[' | b'"') => answer(set, bytes),
        // Of another width nothing would be found in it.
        _ => std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0') && !set.is_match(text)),
    }
}

fn is_asked(path: &[Step<'_>]) -> bool {
    let first = path.iter().find(|step| !matches!(step, Step::Key(it) if *it == "response"));
    matches!(first, Some(Step::Key(it)) if ASKED.contains(&&**it))
}

/// Names of members are texts too.
fn texts_of(value: &Value) -> usize {
    match value {
        Value::String(_) => 1,
        Value::Array(items) => items.iter().map(texts_of).sum(),
        Value::Object(members) => members.values().map(|it| 1 + texts_of(it)).sum(),
        _ => 0,
    }
}

/// The texts of a stream, each with what was said of it last.
#[derive(Debug)]
pub(super) struct Window {
    set: RegexSet,
    texts: BTreeMap<(u64, String), String>,
}

impl Window {
    pub(super) fn new(set: RegexSet) -> Self {
        Self { set, texts: BTreeMap::new() }
    }

    /// Whether what was said so far may go on with this event, all of which the client is shown.
    pub(super) fn takes(&mut self, event: &[u8], data: &[u8]) -> bool {
        let may_be_shown = |line| match line {
            Line::Data(_) => true,
            Line::Beside(text) => !self.set.is_match(&String::from_utf8_lossy(text)),
            Line::Unknown => false,
        };
        events::lines(event).all(may_be_shown) && self.passes(data)
    }

    /// By what the event says.
    fn passes(&mut self, data: &[u8]) -> bool {
        let Ok(said) = serde_json::from_slice::<Value>(data) else {
            // Nobody's text: an empty comment, or the word that ends a stream.
            return !self.set.is_match(&String::from_utf8_lossy(data));
        };
        // Of a member that is there twice some readers take the first.
        let mut texts = 0;
        if strings::each(data, &mut |_, _| texts += 1).is_err() || texts != texts_of(&said) {
            return false;
        }
        if said.get("type").and_then(Value::as_str).is_some_and(|it| it.starts_with("response.")) {
            return self.response(&said, data);
        }
        let index = said.get("index").and_then(Value::as_u64).unwrap_or(0);
        self.members(index, &said, None)
    }

    /// All of one event's but this one, whichever a client reads.
    fn members(&mut self, index: u64, event: &Value, but: Option<&str>) -> bool {
        let Value::Object(members) = event else { return self.walk(index, "", event) };
        members.iter().filter(|(name, _)| but != Some(name.as_str())).all(|(name, it)| match it {
            Value::String(_) if MADE_UP.contains(&name.as_str()) => true,
            Value::String(text) if SAID_AGAIN.contains(&name.as_str()) => !self.set.is_match(text),
            it => !self.set.is_match(name) && self.walk(index, name, it),
        })
    }

    /// An event of the Responses API: a piece of one text of one item, or whole texts.
    fn response(&mut self, said: &Value, data: &[u8]) -> bool {
        let Some(text) = said.get("delta").and_then(Value::as_str) else { return answer(&self.set, data) };
        let number = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or(0);
        let name = ["type", "item_id"].map(|it| said.get(it).and_then(Value::as_str).unwrap_or_default());
        let part = number("content_index").max(number("summary_index"));
        let place = number("output_index");
        self.says(place, &format!("{} {} {part}", name[0], name[1]), text) && self.members(place, said, Some("delta"))
    }

    fn walk(&mut self, index: u64, name: &str, value: &Value) -> bool {
        match value {
            Value::String(text) => self.says(index, name, text),
            Value::Array(items) => items.iter().all(|it| {
                let index = it.get("index").and_then(Value::as_u64).unwrap_or(index);
                self.walk(index, name, it)
            }),
            Value::Object(members) => {
                members.iter().all(|(name, it)| !self.set.is_match(name) && self.walk(index, name, it))
            }
            _ => true,
        }
    }

    fn says(&mut self, index: u64, name: &str, text: &str) -> bool {
        let key = (index, name.to_owned());
        if self.texts.len() >= TEXTS_MAX && !self.texts.contains_key(&key) {
            return false;
        }
        let so_far = self.texts.entry(key).or_default();
        so_far.push_str(text);
        let passes = !self.set.is_match(so_far);
        let mut cut = so_far.len().saturating_sub(WINDOW_BYTES);
        while !so_far.is_char_boundary(cut) {
            cut += 1;
        }
        so_far.drain(..cut);
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> RegexSet {
        RegexSet::new(["(?i)secret plan", "[0-9]{16}"]).unwrap()
    }

    #[test]
    fn every_text_of_a_request_is_looked_at() {
        let place = |json: &str| request(&set(), json.as_bytes()).map(|it| it.pointer);
        assert_eq!(place(r#"{"messages":[{"content":"a plan"}]}"#), None);
        let found = place(r#"{"messages":[{"content":[{"type":"text","text":"the Secret\u0020plan"}]}]}"#);
        assert_eq!(found.as_deref(), Some("/messages/0/content/0/text"));
        assert_eq!(place(r#"{"metadata":{"1234567890123456":1}}"#).as_deref(), Some("/metadata/1234567890123456"));
        assert_eq!(place(&"[".repeat(1_000)).as_deref(), Some(""));
        assert!(answer(&set(), br#"{"choices":[{"message":{"content":"a plan"}}]}"#));
        assert!(!answer(&set(), br#"{"choices":[{"message":{"content":"secret plan"}}]}"#));
        assert!(!answer(&set(), b"not JSON"));
    }

    #[test]
    fn what_went_wrong_is_looked_at_as_json_or_as_a_text() {
        for (bytes, may_be_said) in [
            (&br#"{"error":{"message":"no plan"}}"#[..], true),
            (br#"{"error":{"message":"secret\u0020plan"}}"#, false),
            (b"\xef\xbb\xbf{\"error\":\"secret\\u0020plan\"}", false),
            (b"\"secret\\u0020plan\"", false),
            (b"{\"error\":", false),
            (b"<html>no plan</html>", true),
            (b"<html>secret plan</html>", false),
            (b"", true),
            (b"s\0e\0c\0r\0e\0t\0", false),
            (b"\xff", false),
        ] {
            assert_eq!(failure(&set(), bytes), may_be_said, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn every_line_of_an_event_is_looked_at() {
        let takes = |event: &str| {
            let event = event.as_bytes();
            Window::new(set()).takes(event, &events::data(event))
        };
        for event in [": ping\n\n", "event: a\nid: 1\nretry: 1\ndata: {}\n\n", "data: [DONE]\n\n", "\n", ""] {
            assert!(takes(event), "{event}");
        }
        for event in [
            ": a secret plan\n\n",
            "id: secret plan\ndata: {}\n\n",
            "{\"choices\":[]}\n\n",
            "datum: x\n\n",
            "data: {\"error\":{\"message\":\"secret plan\"}}\n\n",
        ] {
            assert!(!takes(event), "{event}");
        }
    }

    #[test]
    fn the_responses_api_has_pieces_of_its_own() {
        let piece = |item: &str, text: &str| {
            format!(r#"{{"type":"response.output_text.delta","item_id":"{item}","output_index":0,"delta":"{text}"}}"#)
        };
        let passes = |pieces: &[String]| {
            let mut window = Window::new(set());
            pieces.iter().all(|it| window.passes(it.as_bytes()))
        };
        assert!(passes(&[piece("a", "a sec"), piece("b", "ret plan")]), "two items are two texts");
        assert!(!passes(&[piece("a", "a sec"), piece("b", "x"), piece("a", "ret plan")]));
        let done = |member: &str| {
            format!(
                r#"{{"type":"response.completed","response":{{"{member}":[{{"content":[{{"text":"secret plan"}}]}}]}}}}"#
            )
        };
        assert!(!passes(&[done("output")]));
        assert!(passes(&[done("instructions")]), "that is what was asked");
        assert!(answer(&set(), br#"{"instructions":"no secret plan","output":[]}"#));
        assert!(!answer(&set(), br#"{"output":[{"instructions":"secret plan"}]}"#));
    }

    #[test]
    fn what_comes_in_pieces_is_one_text() {
        let say =
            |index: u64, text: &str| format!(r#"{{"choices":[{{"index":{index},"delta":{{"content":"{text}"}}}}]}}"#);
        let passes = |pieces: &[String]| {
            let mut window = Window::new(set());
            pieces.iter().all(|it| window.passes(it.as_bytes()))
        };
        assert!(passes(&[say(0, "a sec"), say(0, "ond plan")]));
        assert!(!passes(&[say(0, "a sec"), say(0, "ret "), say(0, "plan")]));
        assert!(passes(&[say(0, "a sec"), say(1, "ret plan")]), "two answers are two texts");
        let block = |text: &str| format!(r#"{{"type":"content_block_delta","index":1,"delta":{{"text":"{text}"}}}}"#);
        assert!(!passes(&[block("1234567"), block("890123456")]));
        let mut window = Window::new(set());
        (0..100).for_each(|_| assert!(window.passes(say(0, &"x".repeat(1_000)).as_bytes())));
        assert!(window.texts.values().all(|it| it.len() <= WINDOW_BYTES));
    }

    #[test]
    fn what_every_event_says_again_is_not_joined() {
        let mut window = Window::new(RegexSet::new(["planplan"]).unwrap());
        let mut passes = |model: &str| window.passes(format!(r#"{{"model":"{model}","choices":[]}}"#).as_bytes());
        assert!(passes("plan") && passes("plan") && !passes("planplan"));
    }

    #[test]
    fn every_member_of_an_event_is_looked_at() {
        let passes = |event: &str| Window::new(set()).passes(event.as_bytes());
        for event in [
            r#"{"choices":[{"index":0,"delta":{}}],"output":"secret plan"}"#,
            r#"{"choices":[],"search_results":[{"title":"secret plan"}]}"#,
            r#"{"choices":[],"citations":{"secret plan":1}}"#,
            r#"{"choices":[{"index":0,"content":"secret plan"}]}"#,
            r#"{"choices":[{"index":0,"delta":{},"logprobs":{"content":[{"token":"secret plan"}]}}]}"#,
            r#"{"choices":[{"delta":{"content":"secret plan"},"delta":{}}]}"#,
            r#"{"type":"response.output_text.delta","delta":"x","choices":[{"text":"secret plan"}]}"#,
            r#"{"type":"response.output_text.delta","delta":"secret plan","delta":"x"}"#,
            r#"["secret plan"]"#,
            r#"{"model":"secret plan","choices":[]}"#,
            r#"{"id":{"text":"secret plan"},"choices":[]}"#,
            r#"{"choices":[],"usage":{"service_tier":"secret plan"}}"#,
            r#"{"object":["secret plan"],"created":1}"#,
        ] {
            assert!(!passes(event), "{event}");
        }
        for event in [
            r#"{"id":"1234567890123456","model":"a plan","choices":[{"index":0,"delta":{"content":"a plan"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a","role":null}}],"usage":null,"created":1234567890123456}"#,
            r#"{"type":"response.output_text.delta","item_id":"1234567890123456","delta":"x"}"#,
        ] {
            assert!(passes(event), "{event}");
        }
    }
}
