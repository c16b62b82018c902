//! A YAML or JSON document as a tree in which every key and value knows its place in the text.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value as Json, json};
use serde_saphyr::{Location, Spanned};

/// The largest file.
pub const FILE_BYTES_MAX: u64 = 32 << 20;
/// The deepest nesting of lists and maps; the form itself needs 10, schemas in it what they need.
const DEPTH_MAX: usize = 64;
const STACK_BYTES: usize = 32 << 20;
/// The most scalars, lists and maps of a file, the copies made by aliases included.
const NODES_MAX: usize = 4_000_000;
/// Of one file: manifests of Kubernetes are a document each.
const DOCUMENTS_MAX: usize = 100_000;
/// The most `*alias` words of a file.
const ALIASES_MAX: usize = 10_000;
/// How many nodes aliases may add.
const ALIAS_NODES_MAX: usize = 100_000;

/// Where something stands in a file: line and column from 1, length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    /// Byte offset and length, where the parser knows them.
    pub start: usize,
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub place: Place,
    pub text: String,
}

/// Why a text is not YAML at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotYaml {
    pub place: Option<Place>,
    pub message: String,
}

/// Every document of the text, empty ones left out. On a stack of its own: a level takes some 40 KiB of it in a debug build.
pub fn parse(text: &str) -> Result<Vec<Node>, NotYaml> {
    let broken = |message: String| NotYaml { place: None, message };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || read(text));
        let reader = reader.map_err(|error| broken(format!("no thread to read it: {error}")))?;
        reader.join().unwrap_or_else(|_| Err(broken("the parser broke down".into())))
    })
}

fn read(text: &str) -> Result<Vec<Node>, NotYaml> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_documents: DOCUMENTS_MAX,
            max_events: 2 * NODES_MAX,
            max_aliases: ALIASES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_NODES_MAX },
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let documents: Vec<Spanned<Value>> = serde_saphyr::from_multiple_with_options(text, options).map_err(not_yaml)?;
    Ok(documents.into_iter().map(Node::from).filter(|it| it.value != Value::Null).collect())
}

fn not_yaml(error: serde_saphyr::Error) -> NotYaml {
    let place = error.location().map(Place::from);
    let text = error.without_snippet().to_string();
    // The place is shown beside it.
    let message = match text.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => text.lines().next().unwrap_or_default().to_owned(),
    };
    // What the parser says to programmers is of no use to operators.
    let message = match message.split_once(", set DuplicateKeyPolicy") {
        Some((duplicate, _)) => duplicate.to_owned(),
        None => message.replace("recursive references require weak recursion types", "an alias refers to itself"),
    };
    NotYaml { place, message }
}

impl Value {
    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

impl Node {
    /// What is written, without its places.
    pub fn json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(it) => (*it).into(),
            Value::Int(it) => (*it).into(),
            Value::Float(it) => json!(it),
            Value::Text(it) => Json::String(it.clone()),
            Value::List(items) => items.iter().map(Self::json).collect(),
            Value::Map(fields) => {
                Json::Object(fields.iter().map(|(key, value)| (key.text.clone(), value.json())).collect())
            }
        }
    }

    pub fn field(&self, name: &str) -> Option<(&Key, &Node)> {
        match &self.value {
            Value::Map(fields) => fields.iter().find(|(key, _)| key.text == name).map(|(key, node)| (key, node)),
            _ => None,
        }
    }

    pub fn item(&self, at: usize) -> Option<&Node> {
        match &self.value {
            Value::List(items) => items.get(at),
            _ => None,
        }
    }

    /// The node's own text in the file, where it is written plainly on one line.
    pub fn raw<'t>(&self, text: &'t str) -> Option<&'t str> {
        let end = self.place.start.checked_add(self.place.bytes)?;
        text.get(self.place.start..end).map(str::trim).filter(|it| !it.is_empty() && !it.contains('\n'))
    }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { place: spanned.defined.into(), value: spanned.value }
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let span = location.span();
        Self {
            line: location.line() as usize,
            column: location.column() as usize,
            start: span.byte_offset().unwrap_or_default() as usize,
            bytes: span.byte_len().unwrap_or_default() as usize,
        }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(Value::Int(it))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(i64::try_from(it).map_or(Value::Float(it as f64), Value::Int))
    }

    fn visit_i128<E>(self, it: i128) -> Result<Value, E> {
        Ok(Value::Float(it as f64))
    }

    fn visit_u128<E>(self, it: u128) -> Result<Value, E> {
        Ok(Value::Float(it as f64))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Value, E> {
        Ok(Value::Float(it))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(Value::Text(it.to_owned()))
    }

    fn visit_string<E>(self, it: String) -> Result<Value, E> {
        Ok(Value::Text(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Value>>()? {
            items.push(Node::from(item));
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let key = Key { place: key.defined.into(), text: key.value };
            fields.push((key, map.next_value::<Spanned<Value>>()?.into()));
        }
        Ok(Value::Map(fields))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl de::Expected for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_value_knows_its_place() {
        let text = "routes:\n  - name: orders\n    count: 1.10\n";
        let documents = parse(text).unwrap();
        let (key, list) = documents[0].field("routes").unwrap();
        assert_eq!((key.place.line, key.place.column), (1, 1));
        let (key, count) = list.item(0).unwrap().field("count").unwrap();
        assert_eq!((key.place.line, key.place.column, key.place.bytes), (3, 5, 5));
        assert_eq!((count.place.line, count.place.column), (3, 12));
        assert_eq!(count.raw(text), Some("1.10"));
    }

    #[test]
    fn documents_are_kept_apart_and_json_is_yaml() {
        assert_eq!(parse("a: 1\n---\nb: 2\n---\n").unwrap().len(), 2);
        assert_eq!(parse("{\"a\": [1, \"x\", null, true]}").unwrap().len(), 1);
        assert_eq!(parse("# nothing\n").unwrap().len(), 0);
    }

    #[test]
    fn duplicate_keys_and_broken_text_have_a_place() {
        for (text, line) in [("a: 1\na: 2\n", 2), ("a: [1, 2\nb: 3\n", 2), ("a: *missing\n", 1), ("a: &a [*a]\n", 1)] {
            let error = parse(text).unwrap_err();
            assert!(error.place.is_some_and(|it| it.line >= line), "{text:?} {error:?}");
            assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
            assert!(!error.message.contains("Policy") && !error.message.contains("weak"), "{error:?}");
        }
    }

    #[test]
    fn a_billion_laughs_are_refused() {
        let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..9 {
            let before = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(", "));
        }
        assert!(parse(&text).is_err());
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&nested(100)).is_err());
        // What may be is read, on whatever thread that is asked.
        assert!(parse(&nested(DEPTH_MAX - 4)).is_ok());
    }
}
