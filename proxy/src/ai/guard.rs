//! What neither side may say: patterns over every text of a request, of an answer, and of a stream as it comes.

use std::collections::BTreeMap;

use regex::RegexSet;
use serde_json::Value;

use crate::inspect::{Violation, pointer, strings};

/// How far back a pattern may reach over the pieces of a stream.
const WINDOW_BYTES: usize = 4 << 10;
/// Texts that one stream may have at once; beyond them it is cut.
const TEXTS_MAX: usize = 256;

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

/// Whether it may be said.
pub(super) fn answer(set: &RegexSet, json: &[u8]) -> bool {
    let mut denied = false;
    let read = strings::each(json, &mut |_, text| denied |= set.is_match(text));
    read.is_ok() && !denied
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

    /// Whether what was said so far may go on with this event.
    pub(super) fn passes(&mut self, data: &[u8]) -> bool {
        let Ok(said) = serde_json::from_slice::<Value>(data) else {
            // Nobody's text: an empty comment, or the word that ends a stream.
            return !self.set.is_match(&String::from_utf8_lossy(data));
        };
        let choices = said.get("choices").and_then(Value::as_array).into_iter().flatten();
        choices.chain([&said]).all(|it| {
            let index = it.get("index").and_then(Value::as_u64).unwrap_or(0);
            ["delta", "content_block", "message", "text"].iter().all(|name| match it.get(name) {
                Some(value) => self.walk(index, name, value),
                None => true,
            })
        })
    }

    fn walk(&mut self, index: u64, name: &str, value: &Value) -> bool {
        match value {
            Value::String(text) => self.says(index, name, text),
            Value::Array(items) => items.iter().all(|it| {
                let index = it.get("index").and_then(Value::as_u64).unwrap_or(index);
                self.walk(index, name, it)
            }),
            Value::Object(members) => members.iter().all(|(name, it)| self.walk(index, name, it)),
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
}
