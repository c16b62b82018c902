//! JSON Schema (2020-12) as contracts use it: compiled once into nodes that refer to each other, then asked within a bound of
//! work. Not here: other documents (`$id`, remote `$ref`) and `$dynamicRef`, which are refused, and annotations.

mod check;
mod compile;
mod format;
mod number;
mod pattern;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Number, Value};

pub(crate) use self::check::{Found, TooMuch};
use self::format::Format;
pub use self::{
    compile::Document,
    pattern::{Unusable, translate},
};

/// A node's place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// What a document's schemas became.
#[derive(Debug, Default)]
pub struct Schemas {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Always(bool),
    Words(Box<Words>),
}

/// The keywords of one schema that say anything.
#[derive(Debug, Default)]
struct Words {
    reference: Option<Id>,
    types: Types,
    constants: Option<Vec<Value>>,
    constant: Option<Value>,
    numbers: Option<Numbers>,
    texts: Option<Texts>,
    arrays: Option<Arrays>,
    objects: Option<Objects>,
    all: Vec<Id>,
    any: Vec<Id>,
    one: Vec<Id>,
    not: Option<Id>,
    condition: Option<Condition>,
    unevaluated_items: Option<Id>,
    unevaluated_properties: Option<Id>,
}

#[derive(Debug)]
struct Condition {
    when: Id,
    then: Option<Id>,
    otherwise: Option<Id>,
}

#[derive(Debug, Default)]
struct Numbers {
    multiple_of: Option<Number>,
    min: Option<Number>,
    max: Option<Number>,
    above: Option<Number>,
    below: Option<Number>,
    format: Option<Format>,
}

#[derive(Debug, Default)]
struct Texts {
    min: Option<u64>,
    max: Option<u64>,
    pattern: Option<Regex>,
    format: Option<Format>,
}

#[derive(Debug, Default)]
struct Arrays {
    prefix: Vec<Id>,
    items: Option<Id>,
    contains: Option<Id>,
    contains_min: u64,
    contains_max: Option<u64>,
    min: Option<u64>,
    max: Option<u64>,
    unique: bool,
}

#[derive(Debug, Default)]
struct Objects {
    properties: BTreeMap<String, Id>,
    patterns: Vec<(Regex, Id)>,
    additional: Option<Id>,
    names: Option<Id>,
    required: Vec<String>,
    min: Option<u64>,
    max: Option<u64>,
    dependent_required: Vec<(String, Vec<String>)>,
    dependent_schemas: Vec<(String, Id)>,
}

/// A set of the seven types; none: any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Types(u8);

impl Types {
    const WORDS: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
    const NULL: u8 = 1;
    const BOOLEAN: u8 = 1 << 1;
    const INTEGER: u8 = 1 << 2;
    const NUMBER: u8 = 1 << 3;
    const STRING: u8 = 1 << 4;
    const ARRAY: u8 = 1 << 5;
    const OBJECT: u8 = 1 << 6;

    fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().position(|it| *it == word).map(|at| Self(1 << at))
    }

    fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    fn takes(self, value: &Value) -> bool {
        self.0 == 0
            || match value {
                Value::Null => self.has(Self::NULL),
                Value::Bool(_) => self.has(Self::BOOLEAN),
                Value::Number(it) => self.has(Self::NUMBER) || (self.has(Self::INTEGER) && number::is_whole(it)),
                Value::String(_) => self.has(Self::STRING),
                Value::Array(_) => self.has(Self::ARRAY),
                Value::Object(_) => self.has(Self::OBJECT),
            }
    }

    /// `string or null`
    fn words(self) -> String {
        let words: Vec<&str> =
            Self::WORDS.iter().enumerate().filter(|(at, _)| self.has(1 << at)).map(|(_, word)| *word).collect();
        words.join(" or ")
    }
}

/// What a parameter is made of, which its schema has to say: a text alone does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Scalar,
    /// Its elements are of this schema, if it says so.
    Array(Option<Id>),
    Object,
}

/// How many schemas are gone through to see the shape of one.
const SHAPE_STEPS_MAX: usize = 256;

impl Schemas {
    fn words(&self, id: Id) -> Option<&Words> {
        match &self.nodes[id.0 as usize] {
            Node::Words(it) => Some(it),
            Node::Always(_) => None,
        }
    }

    /// All that says what one value is, itself first.
    fn in_place(&self, id: Id) -> impl Iterator<Item = &Words> {
        let mut waiting = vec![id];
        let next = move || {
            let words = loop {
                if let Some(words) = self.words(waiting.pop()?) {
                    break words;
                }
            };
            waiting.extend(words.reference);
            waiting.extend(words.all.iter().chain(&words.any).chain(&words.one));
            Some(words)
        };
        std::iter::from_fn(next).take(SHAPE_STEPS_MAX)
    }

    pub(crate) fn shape(&self, id: Id) -> Shape {
        let types = self.in_place(id).fold(0, |types, words| types | words.types.0);
        let types = Types(types);
        let scalar = Types::BOOLEAN | Types::INTEGER | Types::NUMBER | Types::STRING;
        let items = || self.in_place(id).find_map(|words| words.arrays.as_ref()?.items);
        match () {
            () if types.has(Types::ARRAY) => Shape::Array(items()),
            () if types.has(Types::OBJECT) && !types.has(scalar) => Shape::Object,
            () if types.0 == 0 && self.in_place(id).any(|words| words.objects.is_some()) => Shape::Object,
            () if types.0 == 0 && self.in_place(id).any(|words| words.arrays.is_some()) => Shape::Array(items()),
            () => Shape::Scalar,
        }
    }

    /// The schema of a member, where one speaks of it by name.
    pub(crate) fn property(&self, id: Id, name: &str) -> Option<Id> {
        self.in_place(id).find_map(|words| words.objects.as_ref()?.properties.get(name).copied())
    }

    /// The schema of a member, by its name, a pattern of it, or for all that nothing speaks of. None: whatever it is.
    pub(crate) fn member(&self, id: Id, name: &str) -> Option<Id> {
        let objects = || self.in_place(id).filter_map(|words| words.objects.as_ref());
        let by_pattern = || {
            objects().flat_map(|it| &it.patterns).find(|(pattern, _)| pattern.is_match(name)).map(|(_, member)| *member)
        };
        let found = self.property(id, name).or_else(by_pattern).or_else(|| objects().find_map(|it| it.additional));
        found.filter(|it| self.words(*it).is_some())
    }

    /// A text of a parameter as the value that its schema takes: a number, a truth value or null where it reads as one and that
    /// is valid, else a text. Where nothing is valid, as what it most likely is.
    pub(crate) fn read(&self, id: Id, text: &str) -> Value {
        let typed = match text {
            "true" | "false" | "null" => serde_json::from_str(text).ok(),
            _ if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
                serde_json::from_str::<Value>(text).ok().filter(Value::is_number)
            }
            _ => None,
        };
        let as_text = || Value::String(text.to_owned());
        let Some(typed) = typed else { return as_text() };
        let types = Types(self.in_place(id).fold(0, |types, words| types | words.types.0));
        // A text that is all a schema wants stays one, whatever it looks like.
        if types.0 == Types::STRING {
            return as_text();
        }
        match self.is_valid(id, &typed) || (types.0 != 0 && !types.has(Types::STRING)) {
            true => typed,
            false => as_text(),
        }
    }
}

#[cfg(test)]
mod tests;
