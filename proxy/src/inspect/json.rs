//! JSON held against the bounds of a policy, in one pass over its bytes: nothing is built of it, and it costs what reading it
//! costs, whatever it is.

use std::{borrow::Cow, collections::HashSet, fmt};

use foldhash::quality::RandomState;
use quorumgate_model::resource::{JsonPolicy, Tolerance};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::found::{ERRORS_MAX, Step, Violation, pointer};

/// What stops the reader once nobody wants to know more.
const ENOUGH: &str = "enough";
/// What the reader says of a number that it cannot hold.
const OUT_OF_RANGE: &str = "number out of range";

/// Empty: it is as the policy wants it.
pub(super) fn check(bytes: &[u8], limits: &JsonPolicy) -> Vec<Violation> {
    // JSON has numbers of any length, which its reader has not.
    walk(bytes, limits).unwrap_or_else(|_| walk(&with_short_numbers(bytes), limits).unwrap_or_else(|found| found))
}

/// Err: a number is too long or too large for the reader.
fn walk(bytes: &[u8], limits: &JsonPolicy) -> Result<Vec<Violation>, Vec<Violation>> {
    let mut walk = Walk { limits, path: Vec::new(), found: Vec::new() };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = Node { walk: &mut walk, depth: 0 }.deserialize(&mut json).and_then(|()| json.end());
    let Err(error) = read else { return Ok(walk.found) };
    let error = error.to_string();
    if walk.found.len() < ERRORS_MAX {
        walk.find("syntax", format!("this is not JSON: {error}"));
    }
    match error.starts_with(OUT_OF_RANGE) {
        true => Err(walk.found),
        false => Ok(walk.found),
    }
}

/// The same with a zero, and blanks behind it, for each number.
fn with_short_numbers(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < out.len() {
        match out[at] {
            b'"' => {
                at += 1;
                while at < out.len() && out[at] != b'"' {
                    at += 1 + usize::from(out[at] == b'\\');
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let is_of_number = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(*byte);
                let end = at + out[at..].iter().take_while(is_of_number).count();
                if is_number(&out[at..end]) {
                    out[at] = b'0';
                    out[at + 1..end].fill(b' ');
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    out
}

/// RFC 8259 6.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], Some(&mantissa[at + 1..])),
        None => (mantissa, None),
    };
    let unsigned = |text: &[u8]| digits(text.strip_prefix(b"+").or(text.strip_prefix(b"-")).unwrap_or(text));
    digits(whole)
        && (whole.len() == 1 || whole[0] != b'0')
        && fraction.is_none_or(digits)
        && exponent.is_none_or(unsigned)
}

struct Walk<'p, 'de> {
    limits: &'p JsonPolicy,
    path: Vec<Step<'de>>,
    found: Vec<Violation>,
}

impl Walk<'_, '_> {
    fn find(&mut self, rule: &'static str, detail: impl Into<Cow<'static, str>>) {
        self.found.push(Violation::body(pointer(&self.path), rule, detail));
    }

    fn go_on<E: Error>(&self) -> Result<(), E> {
        match self.found.len() < ERRORS_MAX {
            true => Ok(()),
            false => Err(E::custom(ENOUGH)),
        }
    }

    fn too_deep(&mut self) {
        self.find("max_depth", format!("arrays and objects are nested deeper than {}", self.limits.max_depth));
    }

    fn text(&mut self, what: &str, text: &str) {
        if text.len() as u64 > self.limits.max_string.0 {
            self.find("max_string", format!("the {what} is longer than {} bytes", self.limits.max_string.0));
        }
    }
}

/// One value, within so many arrays and objects.
struct Node<'w, 'p, 'de> {
    walk: &'w mut Walk<'p, 'de>,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.walk.text("text", text);
        self.walk.go_on()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { walk, depth } = self;
        if depth == walk.limits.max_depth {
            walk.too_deep();
            walk.go_on()?;
            // Without recursion.
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let max = walk.limits.max_array as usize;
        let mut count = 0;
        loop {
            walk.path.push(Step::Index(count));
            let element = elements.next_element_seed(Node { walk: &mut *walk, depth: depth + 1 })?;
            walk.path.pop();
            if element.is_none() {
                return Ok(());
            }
            count += 1;
            if count == max + 1 {
                walk.find("max_array", format!("the array has more than {max} elements"));
                walk.go_on()?;
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { walk, depth } = self;
        if depth == walk.limits.max_depth {
            walk.too_deep();
            walk.go_on()?;
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let max = walk.limits.max_keys as usize;
        let mut keys = Keys::default();
        let mut count = 0;
        while let Some(key) = members.next_key_seed(Key)? {
            count += 1;
            if count == max + 1 {
                walk.find("max_keys", format!("the object has more than {max} keys"));
            }
            let again = walk.limits.duplicate_keys == Tolerance::Refuse && count <= max && !keys.insert(key.clone());
            walk.path.push(Step::Key(key.clone()));
            if again {
                walk.find("duplicate_keys", "the key is there twice");
            }
            walk.text("key", &key);
            walk.go_on()?;
            members.next_value_seed(Node { walk: &mut *walk, depth: depth + 1 })?;
            walk.path.pop();
        }
        Ok(())
    }
}

pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The keys of one object: most have few, which are compared one by one.
#[derive(Default)]
struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>, RandomState>,
}

/// Up to so many.
const FEW: usize = 12;

impl<'de> Keys<'de> {
    /// False: it was there.
    fn insert(&mut self, key: Cow<'de, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        if self.few.contains(&key) {
            return false;
        }
        self.few.push(key);
        if self.few.len() > FEW {
            self.many.extend(self.few.drain(..));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::units::Size;

    use super::*;

    fn limits() -> JsonPolicy {
        JsonPolicy { max_depth: 3, max_keys: 4, max_array: 3, max_string: Size(8), ..JsonPolicy::default() }
    }

    #[track_caller]
    fn check(json: &str, expected: &[(&str, &str)]) {
        let found = super::check(json.as_bytes(), &limits());
        let found: Vec<_> = found.iter().map(|it| (it.rule, it.pointer.as_str())).collect();
        assert_eq!(found, expected, "{json}");
    }

    #[test]
    fn what_is_within_its_bounds_passes() {
        for json in [
            "null",
            " [1, -2.5e3, true, ] ".replace(", ]", "]").as_str(),
            r#"{"a":{"b":[1,2,3]},"c":"12345678","d":{},"e":[]}"#,
            r#""\u00e9\u00e9\u00e9\u00e9""#,
            "[[[]]]",
            r#"[{"a":1},{"a":1}]"#,
        ] {
            check(json, &[]);
        }
    }

    #[test]
    fn numbers_may_be_of_any_length() {
        let long = "9".repeat(5_000);
        for json in ["[1e400]", "{\"a\": -1E+999, \"b\": \"1e400\\\"\"}", &format!("[{long}, -{long}.{long}e-{long}]")]
        {
            check(json, &[]);
        }
        check("[1e400, 01]", &[("syntax", "/1")]);
        check("[1e400, 1e]", &[("syntax", "/1")]);
        check("[[[[1e400]]]]", &[("max_depth", "/0/0/0")]);
        check("[1e400, {\"a\": 1, \"a\": 2}]", &[("duplicate_keys", "/1/a")]);
    }

    #[test]
    fn each_bound_is_told_by_its_place() {
        check("[[[[]]]]", &[("max_depth", "/0/0/0")]);
        check(r#"{"a":[{"b":{"c":1}},{"b":[]}]}"#, &[("max_depth", "/a/0/b"), ("max_depth", "/a/1/b")]);
        check(r#"{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}"#, &[("max_keys", "")]);
        check("[[1,2,3,4,5],2]", &[("max_array", "/0")]);
        check(r#"{"x":["123456789"]}"#, &[("max_string", "/x/0")]);
        check(r#"{"123456789":1}"#, &[("max_string", "/123456789")]);
        check(r#"{"a":1,"b":{"a":1,"a":2}}"#, &[("duplicate_keys", "/b/a")]);
        check(r#"{"a":1,"\u0061":2}"#, &[("duplicate_keys", "/a")]);
        check(r#"{"a/b":["123456789","123456789"]}"#, &[("max_string", "/a~1b/0"), ("max_string", "/a~1b/1")]);
    }

    #[test]
    fn what_is_no_json_is_told_by_where_it_ends_to_be_some() {
        for (json, place) in [
            ("", ""),
            ("{\"a\":[1,}", "/a/1"),
            ("{\"a\":1}x", ""),
            ("'a'", ""),
            ("[1] [2]", ""),
            ("{\"a\":\"\x01\"}", "/a"),
            ("[NaN]", "/0"),
            ("{\"a\"", "/a"),
        ] {
            check(json, &[("syntax", place)]);
        }
        let found = super::check(b"[\"\xff\"]", &limits());
        assert_eq!(found[0].rule, "syntax");
    }

    #[test]
    fn many_keys_are_told_apart_like_few() {
        let of = |keys: &mut dyn Iterator<Item = usize>| {
            let members: Vec<String> = keys.map(|it| format!("\"k{it}\":{it}")).collect();
            super::check(format!("{{{}}}", members.join(",")).as_bytes(), &JsonPolicy::default())
        };
        assert_eq!(of(&mut (0..1_000)), []);
        let twice = of(&mut (0..500).chain([3]));
        assert_eq!(
            twice.iter().map(|it| (it.rule, it.pointer.as_str())).collect::<Vec<_>>(),
            [("duplicate_keys", "/k3")]
        );
        let allowed = JsonPolicy { duplicate_keys: Tolerance::Allow, ..JsonPolicy::default() };
        assert_eq!(super::check(b"{\"a\":1,\"a\":2}", &allowed), []);
    }

    #[test]
    fn a_bomb_is_one_error_and_no_more_than_twenty_are_told() {
        let deep = |open: &str, close: &str, levels: usize| open.repeat(levels) + "1" + &close.repeat(levels);
        for bomb in [deep("[", "]", 400_000), deep("{\"a\":", "}", 100_000)] {
            let found = super::check(bomb.as_bytes(), &JsonPolicy::default());
            assert_eq!(found.iter().map(|it| it.rule).collect::<Vec<_>>(), ["max_depth"]);
        }
        let unclosed = super::check("[".repeat(1 << 20).as_bytes(), &JsonPolicy::default());
        assert_eq!(unclosed.iter().map(|it| it.rule).collect::<Vec<_>>(), ["max_depth", "syntax"]);
        let twice = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(200));
        assert_eq!(super::check(twice.as_bytes(), &JsonPolicy::default()).len(), ERRORS_MAX);
        let wide = format!("[{}1]", "[1,2,3,4],".repeat(40));
        let lax = JsonPolicy { max_array: 3, max_depth: 2, ..JsonPolicy::default() };
        assert_eq!(super::check(wide.as_bytes(), &lax).len(), ERRORS_MAX);
    }

    #[test]
    fn the_deepest_that_a_policy_can_allow_is_read() {
        let most = JsonPolicy { max_depth: quorumgate_model::resource::JSON_DEPTH_MAX, ..JsonPolicy::default() };
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(super::check(nested(100).as_bytes(), &most), []);
        assert_eq!(super::check(nested(101).as_bytes(), &most)[0].rule, "max_depth");
    }
}
