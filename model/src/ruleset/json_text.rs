//! A text of JSON that goes on in the place of a body, with values of that body and of the request in it, compiled. What
//! it makes is JSON whatever the values are: each is put in as a value of JSON, or, within quotes, as the inside of a string.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::rule;
use crate::{
    invalid::Invalid,
    resource::Route,
    template::{Part, Template, Variable},
};

/// Steps from a body's root to a value.
const STEPS_MAX: usize = 32;
const NULL: &str = "null";

/// The texts of one route.
#[derive(Debug, Default)]
pub struct Bodies {
    pub request: Option<JsonText>,
    pub response: Option<JsonText>,
}

#[derive(Debug)]
pub struct JsonText {
    parts: Vec<Piece>,
    wanted: Wanted,
    /// Values of the body that it names.
    slots: usize,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    /// Within quotes or not.
    Value(Value, bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Variable(Variable),
    /// Of the answer.
    Status,
    /// Found in this slot.
    Body(usize),
}

/// What a word stands for, before values of the body have slots.
enum Word {
    Variable(Variable),
    Status,
    Body(Vec<String>),
}

/// What is looked for below one place of a body: names of members, and numbers of elements.
#[derive(Debug, Default)]
struct Wanted {
    slot: Option<usize>,
    below: BTreeMap<String, Wanted>,
}

/// Why nothing can be made of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    NotJson,
    /// More comes of it than may.
    TooLarge,
}

impl Bodies {
    /// None: the route has none.
    pub(super) fn new(route: &Route) -> Result<Option<Box<Self>>, Invalid> {
        let words = &route.rewrite.body;
        if words.request.is_none() && words.response.is_none() {
            return Ok(None);
        }
        let place = rule::place(&route.matches.path)?;
        let params: Vec<&str> = place.params().collect();
        let text = |side, text: &Option<String>, answers| {
            let text = text.as_ref().map(|text| JsonText::parse(side, text, &params, answers)).transpose();
            text.map_err(|invalid| invalid.under("rewrite.body"))
        };
        let (request, response) = (text("request", &words.request, false)?, text("response", &words.response, true)?);
        Ok(Some(Box::new(Self { request, response })))
    }
}

impl JsonText {
    fn parse(field: &str, text: &str, params: &[&str], answers: bool) -> Result<Self, Invalid> {
        let word = |word: &str| match word {
            "status" => answers.then_some(Word::Status),
            "body" => Some(Word::Body(Vec::new())),
            _ => match word.strip_prefix("body.") {
                Some(steps) => {
                    let steps: Vec<String> = steps.split('.').map(str::to_owned).collect();
                    (steps.len() <= STEPS_MAX && steps.iter().all(|it| !it.is_empty())).then_some(Word::Body(steps))
                }
                None => Variable::of(word, params).map(Word::Variable),
            },
        };
        let known = || {
            let status = if answers { "status, " } else { "" };
            format!("body, body.<name or number>…, {status}{}", Variable::known(params))
        };
        let template = Template::of(field, text, word, known)?;
        let mut made = Self { parts: Vec::new(), wanted: Wanted::default(), slots: 0 };
        let mut quoted = false;
        for part in template.parts() {
            made.parts.push(match part {
                Part::Text(text) => {
                    quoted = ends_quoted(text, quoted);
                    Piece::Text(text.clone())
                }
                Part::Value(word) => {
                    let value = match word {
                        Word::Variable(variable) => Value::Variable(variable.clone()),
                        Word::Status => Value::Status,
                        Word::Body(steps) => Value::Body(made.wanted.slot(steps, &mut made.slots)),
                    };
                    Piece::Value(value, quoted)
                }
            });
        }
        let sample: String = made.parts.iter().map(Piece::sample).collect();
        match serde_json::from_str::<IgnoredAny>(&sample) {
            Ok(_) => Ok(made),
            Err(error) => Err(Invalid::field(field)
                .found(format!("{error}, with null in the place of each value"))
                .allowed("a text that is JSON whatever its values are")),
        }
    }

    /// JSON of at most `bytes_max`. `body`: JSON; what it does not have is null. `value`: of the request.
    pub fn fill<'v>(
        &self,
        body: &[u8],
        status: u16,
        bytes_max: usize,
        value: impl Fn(&Variable) -> Cow<'v, str>,
    ) -> Result<String, Unfit> {
        let body = std::str::from_utf8(body).map_err(|_| Unfit::NotJson)?;
        let mut found = vec![None; self.slots];
        Seek { wanted: &self.wanted, found: &mut found }.through(body).map_err(|_| Unfit::NotJson)?;
        let mut out = String::new();
        for piece in &self.parts {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(Value::Status, _) => out.push_str(&status.to_string()),
                Piece::Value(Value::Variable(variable), quoted) => push_text(&mut out, &value(variable), *quoted),
                Piece::Value(Value::Body(slot), quoted) => {
                    let raw = found[*slot].unwrap_or(NULL);
                    match (quoted, raw.starts_with('"')) {
                        (false, _) => out.push_str(raw),
                        // The inside of a string is the inside of a string.
                        (true, true) => out.push_str(&raw[1..raw.len() - 1]),
                        (true, false) => push_text(&mut out, raw, true),
                    }
                }
            }
            if out.len() > bytes_max {
                return Err(Unfit::TooLarge);
            }
        }
        Ok(out)
    }
}

impl Piece {
    fn sample(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Value(_, true) => "x",
            Self::Value(_, false) => NULL,
        }
    }
}

/// Whether a string is open behind this text.
fn ends_quoted(text: &str, mut quoted: bool) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    quoted
}

fn push_text(out: &mut String, text: &str, quoted: bool) {
    let json = serde_json::to_string(text).expect("a text is JSON");
    out.push_str(if quoted { &json[1..json.len() - 1] } else { &json });
}

impl Wanted {
    fn slot(&mut self, steps: &[String], slots: &mut usize) -> usize {
        let at = steps.iter().fold(self, |at, step| at.below.entry(step.clone()).or_default());
        *at.slot.get_or_insert_with(|| {
            *slots += 1;
            *slots - 1
        })
    }

    /// What an earlier member of the same name had.
    fn forget(&self, found: &mut [Option<&str>]) {
        self.slot.iter().for_each(|slot| found[*slot] = None);
        self.below.values().for_each(|it| it.forget(found));
    }
}

/// Keeps the text of what is wanted, and goes through what it is inside of. Of members of one name the last counts.
struct Seek<'w, 'f, 'b> {
    wanted: &'w Wanted,
    found: &'f mut [Option<&'b str>],
}

impl<'b> Seek<'_, '_, 'b> {
    fn through(self, text: &'b str) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        self.deserialize(&mut deserializer)?;
        deserializer.end()
    }
}

impl<'b> DeserializeSeed<'b> for Seek<'_, '_, 'b> {
    type Value = ();

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<(), D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        self.wanted.forget(self.found);
        if let Some(slot) = self.wanted.slot {
            self.found[slot] = Some(raw);
        }
        if self.wanted.below.is_empty() || !raw.starts_with(['{', '[']) {
            return Ok(());
        }
        let mut inside = serde_json::Deserializer::from_str(raw);
        inside.deserialize_any(self).map_err(D::Error::custom)
    }
}

impl<'b> Visitor<'b> for Seek<'_, '_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(Member(self.wanted))? {
            match wanted {
                Some(wanted) => map.next_value_seed(Seek { wanted, found: self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut seq: A) -> Result<(), A::Error> {
        for place in 0.. {
            let wanted = if self.wanted.below.is_empty() { None } else { self.wanted.below.get(&place.to_string()) };
            let more = match wanted {
                Some(wanted) => seq.next_element_seed(Seek { wanted, found: self.found })?,
                None => seq.next_element::<IgnoredAny>()?.map(drop),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// The name of a member: what is wanted of it.
struct Member<'w>(&'w Wanted);

impl<'b, 'w> DeserializeSeed<'b> for Member<'w> {
    type Value = Option<&'w Wanted>;

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'w> Visitor<'_> for Member<'w> {
    type Value = Option<&'w Wanted>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.below.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<JsonText, Invalid> {
        JsonText::parse("f", text, &["id"], true)
    }

    #[track_caller]
    fn check(text: &str, body: &str, expected: Result<&str, Unfit>) {
        let value = |variable: &Variable| Cow::Owned(format!("<\"{variable:?}\">"));
        let made = parse(text).unwrap().fill(body.as_bytes(), 201, 1 << 10, value);
        assert_eq!(made.as_deref(), expected.as_ref().map(|it| *it), "{text} of {body}");
        if let Ok(made) = made {
            serde_json::from_str::<IgnoredAny>(&made).unwrap();
        }
    }

    #[test]
    fn values_of_a_body_are_put_in_as_they_stand() {
        let body = r#" {"id": 12345678901234567890123.10, "a": {"b": ["x", {"c": "q\"é"}]}, "n": null} "#;
        check(r#"{"id":${body.id}}"#, body, Ok(r#"{"id":12345678901234567890123.10}"#));
        check(r#"[${body.a.b.1.c},${body.a.b.0}]"#, body, Ok(r#"["q\"é","x"]"#));
        check(
            r#"{"all":${body.a},"part":${body.a.b.0}}"#,
            body,
            Ok(r#"{"all":{"b": ["x", {"c": "q\"é"}]},"part":"x"}"#),
        );
        check("${body}", "[1, 2]", Ok("[1, 2]"));
        check("[${body.1},${body.7},${body.a}]", "[1, 2]", Ok("[2,null,null]"));
        check("[${body.n},${body.gone},${body.id.x}]", body, Ok("[null,null,null]"));
        check("${body.a}", r#"{"a":1,"a":2}"#, Ok("2"));
        for last in ["{}", "7", "null", r#"{"c":1}"#] {
            let body = format!(r#"{{"a":{{"b":1}},"a":{last}}}"#);
            check("[${body.a.b}]", &body, Ok("[null]"));
        }
        check("{}", "7", Ok("{}"));
    }

    #[test]
    fn within_quotes_values_are_the_inside_of_a_string() {
        check(r#"{"t":"-${body.a}-"}"#, r#"{"a":"x\"y\u0041"}"#, Ok(r#"{"t":"-x\"y\u0041-"}"#));
        check(r#"{"t":"${body.a}"}"#, r#"{"a":["x"]}"#, Ok(r#"{"t":"[\"x\"]"}"#));
        check(r#"{"k-${body.a}":1,"b":"\\${body.a}\""}"#, r#"{"a":1}"#, Ok(r#"{"k-1":1,"b":"\\1\""}"#));
        check(r#"["${params.id}",${params.id}]"#, "{}", Ok(r#"["<\"Param(\"id\")\">","<\"Param(\"id\")\">"]"#
            .replace(r#"\"Param("id")\""#, r#"\"Param(\"id\")\""#).as_str()));
        check(r#"{"s":${status},"t":"${status}","$${x":0}"#, "0", Ok(r#"{"s":201,"t":"201","${x":0}"#));
    }

    #[test]
    fn what_is_no_json_makes_nothing() {
        for bad in ["", "{", "{\"a\":1}x", "nul", "{\"a\":tru}", "\u{feff}1", "{a:1}"] {
            check("[${body.a}]", bad, Err(Unfit::NotJson));
            check("${body}", bad, Err(Unfit::NotJson));
            check("[]", bad, Err(Unfit::NotJson));
        }
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        check("[${body.a},${body.0.0.x}]", &deep(100_000), Ok("[null,null]"));
        let long = format!("\"{}\"", "x".repeat(600));
        check("${body}", &long, Ok(&long));
        check("[${body},${body}]", &long, Err(Unfit::TooLarge));
        assert_eq!(parse("1").unwrap().fill(b"\"\xff\"", 200, 9, |_| "".into()), Err(Unfit::NotJson));
    }

    #[test]
    fn a_text_that_is_not_json_for_any_value_is_refused() {
        for bad in [
            "",
            "{",
            "{${body.a}:1}",
            "\"\\${body.a}\"",
            "\"\\u00${body.a}\"",
            "1${body.a}",
            "${body.a}${body.b}",
            "\"${body.a}",
            "[,${body}]",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for unknown in ["${body.}", "${body..a}", "${cookie}", "${params.no}", "${bodyx}"] {
            let found = parse(unknown).unwrap_err();
            assert_eq!(found.found, unknown, "{found}");
        }
        assert!(JsonText::parse("f", "${status}", &[], false).is_err(), "a request has no status");
        let deep = format!("${{body{}}}", ".a".repeat(STEPS_MAX + 1));
        assert!(parse(&deep).is_err());
    }
}
