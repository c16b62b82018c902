//! A tree held against the form: every wrong word is found, each with its place and what is allowed there.

use quorumgate_model::{
    resource::{Authority, Name, Secret, StatusRange},
    units::{Moment, Size, Span},
};
use serde_json::{Map, Value as Json};

use super::{
    form::{Content, Field, Form, Object},
    nearest::nearest,
    tree::{Key, Node, Place, Value},
};

/// Numbers with one: a JWKS has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fractions {
    Taken,
    Refused,
}

/// One wrong word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub place: Place,
    pub message: String,
    pub help: String,
}

/// The tree as JSON that serde turns into model types, and what is wrong with it.
pub struct Checker<'t> {
    text: &'t str,
    pub wrong: Vec<Wrong>,
    /// The files that are to be read.
    pub files: Vec<FileWord>,
}

/// A field that names a file, for the content of another field of the same map.
#[derive(Debug, Clone)]
pub struct FileWord {
    /// Of the map, from the root of the document.
    pub path: String,
    pub field: &'static str,
    pub target: &'static str,
    pub content: Content,
    pub file: String,
    pub place: Place,
}

impl<'t> Checker<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, wrong: Vec::new(), files: Vec::new() }
    }

    pub fn object(&mut self, path: &str, node: &Node, object: &'static Object) -> Json {
        let Value::Map(fields) = &node.value else {
            let allowed = format!("a map of {}", names(object));
            self.found(path, node, &allowed);
            return Json::Null;
        };
        let mut words = Map::new();
        for (key, value) in fields {
            match object.field(&key.text) {
                Some(field) => {
                    let inner = join(path, field.name);
                    let word = self.field(&inner, value, field);
                    words.insert(field.name.to_owned(), word);
                }
                None => self.unknown(path, key, object),
            }
        }
        self.files(path, node, object, &words);
        let is_there = |field: &Field| {
            let file = object.file_for(field.name);
            node.field(field.name).is_some() || file.is_some_and(|file| node.field(file.name).is_some())
        };
        for field in object.fields.iter().filter(|field| field.required && !is_there(field)) {
            let field = object.file_for(field.name).unwrap_or(field);
            let message = format!("{}: it is missing", join(path, field.name));
            let help = format!("add `{}`: {}", field.name, lower_first(field.about));
            self.wrong.push(Wrong { place: start(node), message, help });
        }
        Json::Object(words)
    }

    fn files(&mut self, path: &str, node: &Node, object: &'static Object, words: &Map<String, Json>) {
        for field in object.fields {
            let Form::FileOf(target, content) = field.form else { continue };
            let Some((key, value)) = node.field(field.name) else { continue };
            if node.field(target).is_some() {
                let both =
                    format!("{}: found {target} and {}; allowed: one of them", join(path, field.name), field.name);
                self.wrong.push(Wrong { place: key.place, message: both, help: String::new() });
            }
            let Some(file) = words.get(field.name).and_then(Json::as_str).map(str::to_owned) else { continue };
            let place = start(value);
            self.files.push(FileWord { path: path.to_owned(), field: field.name, target, content, file, place });
        }
    }

    fn field(&mut self, path: &str, node: &Node, field: &'static Field) -> Json {
        // A field that may be left out may also be null; an empty word in YAML is null too.
        match (&node.value, field.required, field.default) {
            (Value::Null, false, Some("null")) => Json::Null,
            _ => self.value(path, node, field.form),
        }
    }

    fn unknown(&mut self, path: &str, key: &Key, object: &'static Object) {
        let known: Vec<&str> = object.fields.iter().map(|it| it.name).collect();
        let mut help = match nearest(&key.text, &known) {
            Some(near) => format!("did you mean `{near}`? "),
            None => String::new(),
        };
        help += &format!("allowed: {}", known.join(", "));
        let message = match path {
            "" => format!("unknown kind `{}`", key.text),
            path => format!("unknown field `{}` in {path}", key.text),
        };
        self.wrong.push(Wrong { place: key.place, message, help });
    }

    fn value(&mut self, path: &str, node: &Node, form: Form) -> Json {
        match form {
            Form::Text => self.text(path, node, |_| Ok(())),
            Form::Name => self.text(path, node, |it| it.parse::<Name>().map(drop)),
            Form::Span => self.text(path, node, |it| it.parse::<Span>().map(drop)),
            Form::Moment => self.text(path, node, |it| it.parse::<Moment>().map(drop)),
            Form::Authority => self.text(path, node, |it| it.parse::<Authority>().map(drop)),
            Form::StatusRange => self.text(path, node, |it| it.parse::<StatusRange>().map(drop)),
            Form::Cidr => self.text(path, node, |it| {
                it.parse::<ipnet::IpNet>()
                    .map(drop)
                    .map_err(|_| format!("found {it:?}; allowed: a network such as 10.0.0.0/8 or 2001:db8::/32"))
            }),
            Form::Size => self.text(path, node, |it| it.parse::<Size>().map(drop)),
            Form::Enum(words) => self.one_of(path, node, words),
            Form::Bool => match node.value {
                Value::Bool(it) => Json::Bool(it),
                _ => self.found(path, node, "true or false"),
            },
            Form::True => match node.value {
                Value::Bool(true) => Json::Bool(true),
                _ => self.found(path, node, "true"),
            },
            Form::Int(min, max) => match node.value {
                Value::Int(it) if (min..=max).contains(&it) => it.into(),
                _ => self.found(path, node, &format!("a whole number from {min} to {max}")),
            },
            Form::WordOrStatus(words, min, max) => match &node.value {
                Value::Int(it) if (min..=max).contains(it) => (*it).into(),
                Value::Text(text) if text.parse::<i64>().is_ok_and(|it| (min..=max).contains(&it)) => {
                    Json::String(text.clone())
                }
                Value::Text(_) => self.one_of(path, node, words),
                _ => self.found(path, node, &format!("{}, or a status from {min} to {max}", words.join(", "))),
            },
            Form::Status(allowed) => match node.value {
                Value::Int(it) if allowed.contains(&it) => it.into(),
                _ => {
                    let words: Vec<String> = allowed.iter().map(i64::to_string).collect();
                    self.found(path, node, &words.join(", "))
                }
            },
            Form::List(inner) => self.list(path, node, *inner),
            Form::Texts => self.texts(path, node),
            Form::Object(object) => self.object(path, node, object),
            Form::WordOr(words, object) => match node.value {
                Value::Map(_) => self.object(path, node, object),
                _ => self.one_of(path, node, words),
            },
            Form::IntOr(min, max, object) => match node.value {
                Value::Map(_) => self.object(path, node, object),
                _ => self.value(path, node, Form::Int(min, max)),
            },
            Form::OneOrList(inner) => match node.value {
                Value::List(_) => self.list(path, node, *inner),
                _ => self.value(path, node, *inner),
            },
            Form::TextLists => self.text_lists(path, node),
            Form::Json => match node.value {
                Value::Map(_) => self.json(path, node, Fractions::Refused),
                _ => self.found(path, node, "a map"),
            },
            Form::Schema => match node.value {
                Value::Map(_) | Value::Bool(_) => self.json(path, node, Fractions::Taken),
                _ => self.found(path, node, "a schema: a map, or true or false"),
            },
            Form::Secret => self.secret(path, node),
            Form::FileOf(..) => {
                self.text(path, node, |it| if it.is_empty() { Err("it is empty".into()) } else { Ok(()) })
            }
            Form::AuthorityOr(object) => match node.value {
                Value::Map(_) => self.object(path, node, object),
                _ => self.value(path, node, Form::Authority),
            },
        }
    }

    fn list(&mut self, path: &str, node: &Node, inner: Form) -> Json {
        let Value::List(items) = &node.value else { return self.found(path, node, "a list") };
        items.iter().enumerate().map(|(at, item)| self.value(&format!("{path}[{at}]"), item, inner)).collect()
    }

    fn texts(&mut self, path: &str, node: &Node) -> Json {
        let Value::Map(fields) = &node.value else { return self.found(path, node, "a map of texts") };
        let pairs = fields.iter().map(|(key, value)| {
            let inner = join(path, &key.text);
            (key.text.clone(), self.text(&inner, value, |_| Ok(())))
        });
        Json::Object(pairs.collect())
    }

    fn text_lists(&mut self, path: &str, node: &Node) -> Json {
        let Value::Map(fields) = &node.value else { return self.found(path, node, "a map of texts or lists of texts") };
        let pairs = fields.iter().map(|(key, value)| {
            let inner = join(path, &key.text);
            let words = match value.value {
                Value::List(_) => self.list(&inner, value, Form::Text),
                _ => self.text(&inner, value, |_| Ok(())),
            };
            (key.text.clone(), words)
        });
        Json::Object(pairs.collect())
    }

    /// Whatever JSON has.
    fn json(&mut self, path: &str, node: &Node, fractions: Fractions) -> Json {
        match &node.value {
            Value::Null => Json::Null,
            Value::Bool(it) => (*it).into(),
            Value::Int(it) => (*it).into(),
            Value::Float(it) if fractions == Fractions::Taken && it.is_finite() => (*it).into(),
            Value::Float(_) => self.found(path, node, "a text, a whole number, a list or a map"),
            Value::Text(it) => Json::String(it.clone()),
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| self.json(&format!("{path}[{at}]"), item, fractions))
                .collect(),
            Value::Map(fields) => {
                let pairs = fields.iter().map(|(key, value)| {
                    let inner = join(path, &key.text);
                    (key.text.clone(), self.json(&inner, value, fractions))
                });
                Json::Object(pairs.collect())
            }
        }
    }

    /// What stands there is never repeated: it may be the secret.
    fn secret(&mut self, path: &str, node: &Node) -> Json {
        let wrong = match &node.value {
            Value::Text(text) => match text.parse::<Secret>() {
                Ok(_) => return Json::String(text.clone()),
                Err(why) => why,
            },
            _ => "found another form; allowed: sealed: and 16 hex digits, or plain: and the secret".into(),
        };
        self.wrong.push(Wrong { place: start(node), message: format!("{path}: {wrong}"), help: String::new() });
        Json::Null
    }

    /// A text, or a plain number or truth value by its own spelling: `version: 1.10` is the text "1.10".
    fn text(&mut self, path: &str, node: &Node, parse: impl Fn(&str) -> Result<(), String>) -> Json {
        let text = match &node.value {
            Value::Text(text) => text.as_str(),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => match node.raw(self.text) {
                Some(raw) => raw,
                None => return self.found(path, node, "a text, in quotes"),
            },
            Value::Null => return self.found(path, node, "a text; an empty one is \"\""),
            _ => return self.found(path, node, "a text"),
        };
        if let Err(why) = parse(text) {
            self.wrong.push(Wrong { place: node.place, message: format!("{path}: {why}"), help: String::new() });
        }
        Json::String(text.to_owned())
    }

    fn one_of(&mut self, path: &str, node: &Node, words: &[&str]) -> Json {
        let Value::Text(text) = &node.value else { return self.found(path, node, &words.join(", ")) };
        if !words.contains(&text.as_str()) {
            let help = nearest(text, words).map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
            let message = format!("{path}: found {text:?}; allowed: {}", words.join(", "));
            self.wrong.push(Wrong { place: node.place, message, help });
        }
        Json::String(text.clone())
    }

    fn found(&mut self, path: &str, node: &Node, allowed: &str) -> Json {
        let found = match &node.value {
            Value::Text(text) => format!("{text:?}"),
            Value::Null | Value::List(_) | Value::Map(_) => node.value.what().to_owned(),
            _ => node.raw(self.text).unwrap_or(node.value.what()).to_owned(),
        };
        let path = if path.is_empty() { "the file" } else { path };
        let message = format!("{path}: found {found}; allowed: {allowed}");
        self.wrong.push(Wrong { place: start(node), message, help: String::new() });
        Json::Null
    }
}

/// Where a node begins; a list or map is shown by its first key, not underlined whole.
pub fn start(node: &Node) -> Place {
    match &node.value {
        Value::Map(fields) => fields.first().map_or(node.place, |(key, _)| key.place),
        Value::List(_) => Place { bytes: 1, ..node.place },
        _ => node.place,
    }
}

pub fn join(path: &str, field: &str) -> String {
    match path {
        "" => field.to_owned(),
        path => format!("{path}.{field}"),
    }
}

fn names(object: &Object) -> String {
    object.fields.iter().map(|it| it.name).collect::<Vec<_>>().join(", ")
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
