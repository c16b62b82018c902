//! From a document to its schemas. References become nodes like all others, so that what refers to itself is no more than a
//! cycle between them; one that would be asked about the same value for ever is refused.

use std::collections::{BTreeMap, HashMap, VecDeque};

use quorumgate_model::invalid::Invalid;
use serde_json::{Map, Number, Value};

use super::{
    Arrays, Condition, Format, Id, Node, Numbers, Objects, Schemas, Texts, Types, Words, number,
    pattern::{self},
};

/// Schemas of one document, those within others too.
const NODES_MAX: usize = 200_000;
/// Steps of one `$ref`.
const POINTER_STEPS_MAX: usize = 128;

/// What says that a schema is of this kind, in `$schema`.
const DIALECTS: [&str; 3] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://spec.openapis.org/oas/3.1/dialect/base",
    "https://spec.openapis.org/oas/3.1/dialect/2024-11-10",
];
/// What needs more than this document, or more than reading it once.
const REFUSED: [&str; 6] = ["$id", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary"];

/// A JSON document, the schemas of which refer to each other by `#/pointer` and `#anchor`.
pub struct Document<'d> {
    root: &'d Value,
    anchors: HashMap<&'d str, String>,
    known: HashMap<String, Id>,
    waiting: VecDeque<(Id, String)>,
    asserts_formats: bool,
    schemas: Schemas,
}

impl<'d> Document<'d> {
    pub fn new(root: &'d Value) -> Self {
        let mut anchors = HashMap::new();
        find_anchors(root, &mut String::new(), &mut anchors);
        let (known, waiting) = (HashMap::new(), VecDeque::new());
        Self { root, anchors, known, waiting, asserts_formats: true, schemas: Schemas::default() }
    }

    /// Formats are annotations, all of them.
    pub fn without_formats(mut self) -> Self {
        self.asserts_formats = false;
        self
    }

    /// The schema at this pointer, and all that it needs. Err: with the pointer as the field.
    pub fn schema(&mut self, pointer: &str) -> Result<Id, Invalid> {
        let id = self.id(pointer)?;
        while let Some((id, pointer)) = self.waiting.pop_front() {
            let value = self.find(&pointer)?;
            let node = self.node(&pointer, value)?;
            self.schemas.nodes[id.0 as usize] = node;
        }
        Ok(id)
    }

    /// Err: a schema leads back to itself without going into the value.
    pub fn finish(self) -> Result<Schemas, Invalid> {
        let names: BTreeMap<u32, &String> = self.known.iter().map(|(pointer, id)| (id.0, pointer)).collect();
        match endless(&self.schemas) {
            Some(id) => {
                let name = names.get(&id.0).map(|it| it.as_str()).unwrap_or_default();
                let allowed = "schemas that lead to others of properties or items before they lead to themselves";
                Err(Invalid::field(name).found("a schema that is made of itself").allowed(allowed))
            }
            None => Ok(self.schemas),
        }
    }

    fn id(&mut self, pointer: &str) -> Result<Id, Invalid> {
        if let Some(id) = self.known.get(pointer) {
            return Ok(*id);
        }
        let count = self.schemas.nodes.len();
        if count == NODES_MAX {
            let found = format!("more than {NODES_MAX} schemas");
            return Err(Invalid::field(pointer).found(found).allowed("fewer: make it several contracts"));
        }
        let id = Id(count as u32);
        self.schemas.nodes.push(Node::Always(true));
        self.known.insert(pointer.to_owned(), id);
        self.waiting.push_back((id, pointer.to_owned()));
        Ok(id)
    }

    fn find(&self, pointer: &str) -> Result<&'d Value, Invalid> {
        let missing = || Invalid::field(pointer).found("nothing").allowed("a schema of this document");
        if pointer.matches('/').count() > POINTER_STEPS_MAX {
            return Err(Invalid::field(pointer).found("a long way").allowed(format!("{POINTER_STEPS_MAX} steps")));
        }
        self.root.pointer(pointer).ok_or_else(missing)
    }

    fn node(&mut self, at: &str, value: &Value) -> Result<Node, Invalid> {
        match value {
            Value::Bool(it) => Ok(Node::Always(*it)),
            Value::Object(words) => Ok(Node::Words(Box::new(self.words(at, words)?))),
            other => Err(Invalid::field(at).found(kind(other)).allowed("a schema: a map, or true or false")),
        }
    }

    fn words(&mut self, at: &str, words: &Map<String, Value>) -> Result<Words, Invalid> {
        let reader = Reader { at, words };
        for refused in REFUSED {
            if words.contains_key(refused) {
                let allowed = "schemas of one document, which name each other by #/schemas/NAME";
                return Err(Invalid::field(reader.place(refused)).found(refused).allowed(allowed));
            }
        }
        if let Some(dialect) = reader.text("$schema")?
            && !DIALECTS.contains(&dialect.trim_end_matches('#'))
        {
            let found = format!("{dialect:?}");
            return Err(Invalid::field(reader.place("$schema")).found(found).allowed(DIALECTS[0]));
        }
        let mut made = Words { types: reader.types()?, ..Words::default() };
        made.reference = reader.text("$ref")?.map(|it| self.refer(&reader, it)).transpose()?;
        made.constants = reader.list("enum")?.cloned();
        made.constant = words.get("const").cloned();
        for (word, list) in [("allOf", &mut made.all), ("anyOf", &mut made.any), ("oneOf", &mut made.one)] {
            *list = self.schemas_of(&reader, word)?;
        }
        made.not = self.one(&reader, "not")?;
        if let Some(when) = self.one(&reader, "if")? {
            let (then, otherwise) = (self.one(&reader, "then")?, self.one(&reader, "else")?);
            made.condition = Some(Condition { when, then, otherwise });
        }
        made.unevaluated_items = self.one(&reader, "unevaluatedItems")?;
        made.unevaluated_properties = self.one(&reader, "unevaluatedProperties")?;
        let format = reader.text("format")?.filter(|_| self.asserts_formats).and_then(Format::of);
        let (numbers, texts) = match format {
            Some(format) if format.is_of_numbers() => (Some(format), None),
            other => (None, other),
        };
        made.numbers = reader
            .any(&["multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
            .then_some(())
            .or(numbers.map(drop))
            .map(|()| reader.numbers(numbers))
            .transpose()?;
        if reader.any(&["minLength", "maxLength", "pattern"]) || texts.is_some() {
            let pattern = reader.text("pattern")?.map(|it| reader.pattern("pattern", it)).transpose()?;
            let (min, max) = (reader.count("minLength")?, reader.count("maxLength")?);
            made.texts = Some(Texts { min, max, pattern, format: texts });
        }
        const ARRAYS: [&str; 8] =
            ["prefixItems", "items", "contains", "minContains", "maxContains", "minItems", "maxItems", "uniqueItems"];
        if reader.any(&ARRAYS) {
            made.arrays = Some(self.arrays(&reader)?);
        }
        const OBJECTS: [&str; 9] = [
            "properties",
            "patternProperties",
            "additionalProperties",
            "propertyNames",
            "required",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependentSchemas",
        ];
        if reader.any(&OBJECTS) {
            made.objects = Some(self.objects(&reader)?);
        }
        Ok(made)
    }

    fn refer(&mut self, reader: &Reader<'_>, reference: &str) -> Result<Id, Invalid> {
        let wrong =
            |allowed: &str| Err(Invalid::field(reader.place("$ref")).found(format!("{reference:?}")).allowed(allowed));
        let Some(fragment) = reference.strip_prefix('#') else {
            return wrong("a reference within the contract, such as #/schemas/Order; other documents are not fetched");
        };
        let Ok(fragment) = percent_encoding::percent_decode_str(fragment).decode_utf8() else {
            return wrong("a pointer in UTF-8");
        };
        let pointer = match (fragment.is_empty(), fragment.starts_with('/')) {
            (true, _) | (_, true) => fragment.into_owned(),
            _ => match self.anchors.get(&*fragment) {
                Some(pointer) => pointer.clone(),
                None => return wrong("an $anchor of this document, or a pointer such as #/schemas/Order"),
            },
        };
        match self.root.pointer(&pointer) {
            Some(_) => self.id(&pointer),
            None => wrong("a schema that is there"),
        }
    }

    fn one(&mut self, reader: &Reader<'_>, word: &str) -> Result<Option<Id>, Invalid> {
        match reader.words.contains_key(word) {
            true => self.id(&reader.place(word)).map(Some),
            false => Ok(None),
        }
    }

    fn schemas_of(&mut self, reader: &Reader<'_>, word: &str) -> Result<Vec<Id>, Invalid> {
        let Some(list) = reader.list(word)? else { return Ok(Vec::new()) };
        (0..list.len()).map(|at| self.id(&format!("{}/{at}", reader.place(word)))).collect()
    }

    fn named(&mut self, reader: &Reader<'_>, word: &str) -> Result<Vec<(String, Id)>, Invalid> {
        let Some(map) = reader.map(word)? else { return Ok(Vec::new()) };
        map.keys().map(|name| Ok((name.clone(), self.id(&step(&reader.place(word), name))?))).collect()
    }

    fn arrays(&mut self, reader: &Reader<'_>) -> Result<Arrays, Invalid> {
        Ok(Arrays {
            prefix: self.schemas_of(reader, "prefixItems")?,
            items: self.one(reader, "items")?,
            contains: self.one(reader, "contains")?,
            contains_min: reader.count("minContains")?.unwrap_or(1),
            contains_max: reader.count("maxContains")?,
            min: reader.count("minItems")?,
            max: reader.count("maxItems")?,
            unique: reader.flag("uniqueItems")?,
        })
    }

    fn objects(&mut self, reader: &Reader<'_>) -> Result<Objects, Invalid> {
        let patterns = self.named(reader, "patternProperties")?.into_iter();
        let patterns = patterns.map(|(text, id)| Ok((reader.pattern("patternProperties", &text)?, id)));
        let dependent = |(name, list): (&String, &Value)| {
            let place = step(&reader.place("dependentRequired"), name);
            Ok((name.clone(), texts(&place, list)?))
        };
        Ok(Objects {
            patterns: patterns.collect::<Result<_, Invalid>>()?,
            properties: self.named(reader, "properties")?.into_iter().collect(),
            additional: self.one(reader, "additionalProperties")?,
            names: self.one(reader, "propertyNames")?,
            required: reader.words.get("required").map_or(Ok(Vec::new()), |it| texts(&reader.place("required"), it))?,
            min: reader.count("minProperties")?,
            max: reader.count("maxProperties")?,
            dependent_required: reader
                .map("dependentRequired")?
                .into_iter()
                .flatten()
                .map(dependent)
                .collect::<Result<_, Invalid>>()?,
            dependent_schemas: self.named(reader, "dependentSchemas")?,
        })
    }
}

/// One schema's words, and where they stand.
struct Reader<'w> {
    at: &'w str,
    words: &'w Map<String, Value>,
}

impl<'w> Reader<'w> {
    fn place(&self, word: &str) -> String {
        step(self.at, word)
    }

    fn any(&self, words: &[&str]) -> bool {
        words.iter().any(|it| self.words.contains_key(*it))
    }

    fn wrong(&self, word: &str, found: &Value, allowed: &str) -> Invalid {
        Invalid::field(self.place(word)).found(kind(found)).allowed(allowed)
    }

    fn text(&self, word: &str) -> Result<Option<&'w str>, Invalid> {
        match self.words.get(word) {
            None => Ok(None),
            Some(Value::String(it)) => Ok(Some(it)),
            Some(other) => Err(self.wrong(word, other, "a text")),
        }
    }

    fn list(&self, word: &str) -> Result<Option<&'w Vec<Value>>, Invalid> {
        match self.words.get(word) {
            None => Ok(None),
            Some(Value::Array(it)) if !it.is_empty() || word == "enum" => Ok(Some(it)),
            Some(other) => Err(self.wrong(word, other, "a list with something in it")),
        }
    }

    fn map(&self, word: &str) -> Result<Option<&'w Map<String, Value>>, Invalid> {
        match self.words.get(word) {
            None => Ok(None),
            Some(Value::Object(it)) => Ok(Some(it)),
            Some(other) => Err(self.wrong(word, other, "a map")),
        }
    }

    fn flag(&self, word: &str) -> Result<bool, Invalid> {
        match self.words.get(word) {
            None => Ok(false),
            Some(Value::Bool(it)) => Ok(*it),
            Some(other) => Err(self.wrong(word, other, "true or false")),
        }
    }

    fn count(&self, word: &str) -> Result<Option<u64>, Invalid> {
        let Some(found) = self.words.get(word) else { return Ok(None) };
        let whole = found.as_number().and_then(number::whole).and_then(|it| u64::try_from(it).ok());
        whole.map(Some).ok_or_else(|| self.wrong(word, found, "a whole number, 0 or more"))
    }

    fn number(&self, word: &str) -> Result<Option<Number>, Invalid> {
        match self.words.get(word) {
            None => Ok(None),
            Some(Value::Number(it)) => Ok(Some(it.clone())),
            Some(other) => Err(self.wrong(word, other, "a number")),
        }
    }

    fn numbers(&self, format: Option<Format>) -> Result<Numbers, Invalid> {
        let multiple_of = self.number("multipleOf")?;
        if multiple_of.as_ref().and_then(Number::as_f64).is_some_and(|it| it <= 0.0) {
            return Err(Invalid::field(self.place("multipleOf")).found("0 or less").allowed("more than 0"));
        }
        let (min, max) = (self.number("minimum")?, self.number("maximum")?);
        let (above, below) = (self.number("exclusiveMinimum")?, self.number("exclusiveMaximum")?);
        Ok(Numbers { multiple_of, min, max, above, below, format })
    }

    fn types(&self) -> Result<Types, Invalid> {
        let Some(found) = self.words.get("type") else { return Ok(Types::default()) };
        let one = |it: &Value| {
            let types = it.as_str().and_then(Types::of);
            types.ok_or_else(|| {
                let found = it.as_str().map_or_else(|| kind(it).to_owned(), |it| format!("{it:?}"));
                Invalid::field(self.place("type")).found(found).allowed(Types::WORDS.join(", "))
            })
        };
        match found {
            Value::Array(list) if !list.is_empty() => {
                list.iter().try_fold(Types::default(), |types, it| Ok(Types(types.0 | one(it)?.0)))
            }
            other => one(other),
        }
    }

    fn pattern(&self, word: &str, text: &str) -> Result<regex::Regex, Invalid> {
        pattern::compile(text).map_err(|why| {
            let allowed = format!("a pattern of ECMA-262 that linear time is enough for ({why})");
            Invalid::field(self.place(word)).found(format!("{text:?}")).allowed(allowed)
        })
    }
}

fn texts(place: &str, found: &Value) -> Result<Vec<String>, Invalid> {
    let wrong = || Invalid::field(place).found(kind(found)).allowed("a list of texts");
    let list = found.as_array().ok_or_else(wrong)?;
    list.iter().map(|it| it.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

pub(super) fn step(at: &str, name: &str) -> String {
    match name.contains(['~', '/']) {
        true => format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
        false => format!("{at}/{name}"),
    }
}

/// Not in what is no schema, but is written like one; those of two schemas by one name are the first one's.
fn find_anchors<'d>(value: &'d Value, at: &mut String, anchors: &mut HashMap<&'d str, String>) {
    match value {
        Value::Object(words) => {
            if let Some(anchor) = words.get("$anchor").and_then(Value::as_str) {
                anchors.entry(anchor).or_insert_with(|| at.clone());
            }
            for (name, inner) in
                words.iter().filter(|(name, _)| !matches!(name.as_str(), "enum" | "const" | "examples"))
            {
                let length = at.len();
                *at = step(at, name);
                find_anchors(inner, at, anchors);
                at.truncate(length);
            }
        }
        Value::Array(items) => {
            for (place, inner) in items.iter().enumerate() {
                let length = at.len();
                *at = format!("{at}/{place}");
                find_anchors(inner, at, anchors);
                at.truncate(length);
            }
        }
        _ => {}
    }
}

/// A schema that is asked about a value on the way to the answer what it says of that very value.
fn endless(schemas: &Schemas) -> Option<Id> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; schemas.nodes.len()];
    for start in 0..schemas.nodes.len() as u32 {
        // Each with what it still leads to; without recursion, for there may be many.
        let mut way: Vec<(Id, Vec<Id>)> = Vec::new();
        if marks[start as usize] == Mark::New {
            marks[start as usize] = Mark::Open;
            way.push((Id(start), leads_to(schemas, Id(start))));
        }
        while let Some((id, left)) = way.last_mut() {
            let id = *id;
            match left.pop() {
                Some(next) if marks[next.0 as usize] == Mark::Open => return Some(next),
                Some(next) if marks[next.0 as usize] == Mark::New => {
                    marks[next.0 as usize] = Mark::Open;
                    way.push((next, leads_to(schemas, next)));
                }
                Some(_) => {}
                None => {
                    marks[id.0 as usize] = Mark::Done;
                    way.pop();
                }
            }
        }
    }
    None
}

/// With the same value.
fn leads_to(schemas: &Schemas, id: Id) -> Vec<Id> {
    let Some(words) = schemas.words(id) else { return Vec::new() };
    let condition = words.condition.iter().flat_map(|it| [Some(it.when), it.then, it.otherwise]).flatten();
    let dependent = words.objects.iter().flat_map(|it| it.dependent_schemas.iter().map(|(_, id)| *id));
    let lists = words.all.iter().chain(&words.any).chain(&words.one).copied();
    words.reference.into_iter().chain(words.not).chain(lists).chain(condition).chain(dependent).collect()
}
