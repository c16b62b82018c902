//! What a token says, read strictly: base64url without padding and loose ends, JSON without duplicate names, times that
//! are numbers. Two readers of one token must never see two different things.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Claims;

/// Objects and lists within each other.
const DEPTH_MAX: usize = 16;

/// None for anything but the canonical form (RFC 7515 §2): no padding, no blanks, no set bits after the last byte.
pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// A JSON object in which no name occurs twice, at any depth (RFC 7519 §4), with nothing after it.
pub(super) fn object(json: &[u8]) -> Option<Claims> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Strict { depth: 0 }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// A `NumericDate` (RFC 7519 §2): seconds since 1970, fractions cut off.
pub(super) fn seconds(value: &Value) -> Option<i64> {
    match value.as_i64() {
        Some(seconds) => Some(seconds),
        None => value.as_f64().filter(|it| it.is_finite()).map(|it| it.floor() as i64),
    }
}

/// A list of words, or one text of words with spaces between them, as providers write scopes and groups.
pub(super) fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => text.split(' ').filter(|word| !word.is_empty()).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A claim by its name, or by a path with dots into objects (`realm_access.roles`) where no claim has the whole name.
pub(super) fn claim<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        claim(claims.get(first)?.as_object()?, rest)
    })
}

struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(&self) -> Result<Self, E> {
        match self.depth < DEPTH_MAX {
            true => Ok(Self { depth: self.depth + 1 }),
            false => Err(E::custom("too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(Value::Number(it.into()))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(Value::Number(it.into()))
    }

    fn visit_f64<E: Error>(self, it: f64) -> Result<Value, E> {
        Number::from_f64(it).map(Value::Number).ok_or_else(|| E::custom("no number"))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(Value::String(it.to_owned()))
    }

    fn visit_string<E>(self, it: String) -> Result<Value, E> {
        Ok(Value::String(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.deeper()?)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name occurs twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_occur_once_at_any_depth() {
        let check = |json: &str, expected: bool| assert_eq!(object(json.as_bytes()).is_some(), expected, "{json}");
        check(r#"{"a":1,"b":{"a":[{"a":2}]}}"#, true);
        check(r#"{"a":1,"a":1}"#, false);
        check(r#"{"a":1,"\u0061":2}"#, false);
        check(r#"{"a":[{"b":1,"b":2}]}"#, false);
        check(r#"{"a":1} {"#, false);
        check(r#"{"a":1}x"#, false);
        check(r#"[1]"#, false);
        check(r#""text""#, false);
        check(r#"{"a":1e999}"#, false);
        check("", false);
        check(&format!("{{\"a\":{}{}}}", "[".repeat(DEPTH_MAX - 1), "]".repeat(DEPTH_MAX - 1)), true);
        check(&format!("{{\"a\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000)), false);
    }

    #[test]
    fn base64url_has_one_form_only() {
        for (text, expected) in [
            ("", Some("")),
            ("YQ", Some("a")),
            ("YWI", Some("ab")),
            ("YWJj", Some("abc")),
            // Padding, set bits after the end, a lone character, blanks, the other alphabet.
            ("YQ==", None),
            ("YR", None),
            ("YWJ", None),
            ("Y", None),
            ("YWJjZ", None),
            ("YQ\n", None),
            (" YQ", None),
            ("Y Q", None),
            ("--+_", None),
            ("//8", None),
            ("YQ\0", None),
            ("YQé", None),
        ] {
            assert_eq!(base64url(text).as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn times_are_numbers() {
        let check = |json: &str, expected: Option<i64>| {
            assert_eq!(seconds(&serde_json::from_str(json).unwrap()), expected, "{json}");
        };
        check("1700000000", Some(1_700_000_000));
        check("1700000000.9", Some(1_700_000_000));
        check("-1", Some(-1));
        check("-0.5", Some(-1));
        check("1e300", Some(i64::MAX));
        check("18446744073709551615", Some(i64::MAX));
        check("\"1700000000\"", None);
        check("null", None);
        check("true", None);
    }

    #[test]
    fn a_claim_is_found_by_name_or_path() {
        let claims = object(br#"{"a":{"b":{"c":[1]}},"https://x.test/a":"u","a.d":2}"#).unwrap();
        let check = |name: &str, expected: &str| {
            assert_eq!(claim(&claims, name).map_or("-".into(), Value::to_string), expected, "{name}");
        };
        check("a.b.c", "[1]");
        check("https://x.test/a", "\"u\"");
        check("a.d", "2");
        check("a.x", "-");
        check("a.b.c.d", "-");
    }
}
