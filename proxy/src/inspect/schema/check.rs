//! One value held against a schema. Everything it costs is counted, and it ends where that is too much: whether it is valid
//! is then not known.

use std::{borrow::Cow, collections::HashSet};

use foldhash::quality::RandomState;
use serde_json::{Map, Value};

use super::{Arrays, Id, Node, Numbers, Objects, Schemas, Texts, Words, number};
use crate::inspect::found::{ERRORS_MAX, Step, pointer};

/// How many schemas a value may be asked about, beside `STEPS_PER_BYTE` for each byte of it.
const STEPS: u64 = 1 << 16;
const STEPS_PER_BYTE: u64 = 4;
/// How many schemas may be asked within one another.
const DEPTH_MAX: u32 = 256;
/// Bytes that a pattern goes through, or that are compared, in one step.
const BYTES_PER_STEP: u64 = 64;

/// One thing that a schema does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// RFC 6901.
    pub(crate) pointer: String,
    /// The keyword.
    pub(crate) rule: &'static str,
    pub(crate) detail: Cow<'static, str>,
}

/// The schema asks for more work than a value of this size may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch;

impl Schemas {
    /// Empty: it is valid. At most `ERRORS_MAX`.
    pub(crate) fn check(&self, id: Id, value: &Value, bytes: usize) -> Result<Vec<Found>, TooMuch> {
        let mut run = self.run(bytes);
        // Most are valid, and nothing needs to be remembered to say so.
        if run.is_valid(id, value)? {
            return Ok(Vec::new());
        }
        let mut run = Run { found: Some(Vec::new()), ..self.run(bytes) };
        run.ask(id, value, None)?;
        let mut found = run.found.unwrap_or_default();
        found.truncate(ERRORS_MAX);
        Ok(found)
    }

    /// Pointers and keywords of what is wrong: `/lines/0/sku: pattern`. None: it would cost too much to tell.
    pub fn mistakes(&self, id: Id, value: &Value, bytes: usize) -> Option<Vec<String>> {
        let found = self.check(id, value, bytes).ok()?;
        Some(found.into_iter().map(|it| format!("{}: {}", it.pointer, it.rule)).collect())
    }

    /// What costs too much is not.
    pub(crate) fn is_valid(&self, id: Id, value: &Value) -> bool {
        self.run(0).is_valid(id, value).unwrap_or(false)
    }

    fn run(&self, bytes: usize) -> Run<'_, '_> {
        let steps = STEPS.saturating_add(STEPS_PER_BYTE.saturating_mul(bytes as u64));
        Run { schemas: self, steps, depth: 0, path: Vec::new(), found: None }
    }
}

struct Run<'s, 'v> {
    schemas: &'s Schemas,
    /// Left.
    steps: u64,
    depth: u32,
    path: Vec<Step<'v>>,
    /// None: nobody wants to know what is wrong, the first thing ends it.
    found: Option<Vec<Found>>,
}

/// Which items and members of a value some schema has looked at (2020-12, 11).
#[derive(Default)]
struct Evaluated<'v> {
    /// Items before this.
    items: usize,
    more_items: HashSet<usize, RandomState>,
    members: HashSet<&'v str, RandomState>,
}

impl<'v> Evaluated<'v> {
    fn join(&mut self, other: Self) {
        self.items = self.items.max(other.items);
        self.more_items.extend(other.more_items);
        self.members.extend(other.members);
    }
}

type Asked = Result<bool, TooMuch>;

impl<'s, 'v> Run<'s, 'v> {
    fn is_valid(&mut self, id: Id, value: &'v Value) -> Asked {
        let found = self.found.take();
        let valid = self.ask(id, value, None);
        self.found = found;
        valid
    }

    fn pay(&mut self, steps: u64) -> Result<(), TooMuch> {
        self.steps = self.steps.checked_sub(steps).ok_or(TooMuch)?;
        Ok(())
    }

    /// False, which is told where somebody wants to know.
    fn wrong(&mut self, rule: &'static str, detail: impl FnOnce() -> Cow<'static, str>) -> bool {
        if let Some(found) = &mut self.found
            && found.len() < ERRORS_MAX
        {
            found.push(Found { pointer: pointer(&self.path), rule, detail: detail() });
        }
        false
    }

    /// Whether to go on once something is wrong.
    fn goes_on(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.len() < ERRORS_MAX)
    }

    fn ask(&mut self, id: Id, value: &'v Value, seen: Option<&mut Evaluated<'v>>) -> Asked {
        self.pay(1)?;
        if self.depth == DEPTH_MAX {
            return Err(TooMuch);
        }
        let words = match &self.schemas.nodes[id.0 as usize] {
            Node::Always(true) => return Ok(true),
            Node::Always(false) => return Ok(self.wrong("false", || "nothing is allowed here".into())),
            Node::Words(words) => words,
        };
        self.depth += 1;
        let valid = self.words(words, value, seen);
        self.depth -= 1;
        valid
    }

    fn at(&mut self, step: Step<'v>, id: Id, value: &'v Value) -> Asked {
        self.path.push(step);
        let valid = self.ask(id, value, None);
        self.path.pop();
        valid
    }

    fn words(&mut self, words: &'s Words, value: &'v Value, seen: Option<&mut Evaluated<'v>>) -> Asked {
        let mut ok = true;
        if !words.types.takes(value) {
            ok = self.wrong("type", || format!("it is not of type {}", words.types.words()).into());
            // What else is said would be of another type.
            return Ok(ok);
        }
        if let Some(constants) = &words.constants {
            self.pay(constants.len() as u64 / 8)?;
            if !constants.iter().any(|it| equal(it, value)) {
                ok = self.wrong("enum", || "it is none of the values that are allowed".into());
            }
        }
        if let Some(constant) = &words.constant
            && !equal(constant, value)
        {
            ok = self.wrong("const", || "it is not the value that is allowed".into());
        }
        // What is needed for `unevaluated…` of this schema, or of one around it.
        let wants = seen.is_some() || words.unevaluated_items.is_some() || words.unevaluated_properties.is_some();
        let mut own = wants.then(Evaluated::default);
        ok &= match value {
            Value::Number(it) => words.numbers.as_ref().is_none_or(|words| self.number(words, it)),
            Value::String(it) => match &words.texts {
                Some(words) => self.text(words, it)?,
                None => true,
            },
            Value::Array(it) => match &words.arrays {
                Some(words) if ok || self.goes_on() => self.array(words, it, own.as_mut())?,
                _ => true,
            },
            Value::Object(it) => match &words.objects {
                Some(words) if ok || self.goes_on() => self.object(words, it, own.as_mut())?,
                _ => true,
            },
            _ => true,
        };
        if !ok && !self.goes_on() {
            return Ok(false);
        }
        ok &= self.others(words, value, own.as_mut())?;
        if ok || self.goes_on() {
            ok &= self.unevaluated(words, value, own.as_mut())?;
        }
        if let (Some(seen), Some(own), true) = (seen, own, ok) {
            seen.join(own);
        }
        Ok(ok)
    }

    /// What other schemas say of the same value.
    fn others(&mut self, words: &'s Words, value: &'v Value, mut own: Option<&mut Evaluated<'v>>) -> Asked {
        let mut ok = true;
        for id in words.reference.iter().chain(&words.all) {
            ok &= self.ask(*id, value, own.as_deref_mut())?;
            if !ok && !self.goes_on() {
                return Ok(false);
            }
        }
        if !words.any.is_empty() && !self.any(&words.any, value, own.as_deref_mut())? {
            let count = words.any.len();
            ok = self.wrong("anyOf", || format!("it is like none of the {count} that are allowed").into());
        }
        if !words.one.is_empty() {
            let found = self.one(&words.one, value, own.as_deref_mut())?;
            let count = words.one.len();
            match found {
                1 => {}
                0 => ok = self.wrong("oneOf", || format!("it is like none of the {count} that are allowed").into()),
                _ => {
                    ok = self
                        .wrong("oneOf", || format!("it is like several of the {count}, one of which it may be").into())
                }
            }
        }
        if let Some(not) = words.not
            && self.is_valid(not, value)?
        {
            ok = self.wrong("not", || "it is what is not allowed here".into());
        }
        if let Some(condition) = &words.condition {
            let holds = self.branch(condition.when, value, own.as_deref_mut())?;
            if let Some(id) = if holds { condition.then } else { condition.otherwise } {
                ok &= self.ask(id, value, own.as_deref_mut())?;
            }
        }
        if let (Some(objects), Value::Object(members)) = (&words.objects, value) {
            for (name, id) in &objects.dependent_schemas {
                if members.contains_key(name) {
                    ok &= self.ask(*id, value, own.as_deref_mut())?;
                }
            }
        }
        Ok(ok)
    }

    /// Without telling what is wrong.
    fn branch(&mut self, id: Id, value: &'v Value, own: Option<&mut Evaluated<'v>>) -> Asked {
        let found = self.found.take();
        let valid = self.ask(id, value, own);
        self.found = found;
        valid
    }

    fn any(&mut self, ids: &'s [Id], value: &'v Value, mut own: Option<&mut Evaluated<'v>>) -> Asked {
        let mut ok = false;
        for id in ids {
            ok |= self.branch(*id, value, own.as_deref_mut())?;
            // Each that holds has looked at something.
            if ok && own.is_none() {
                break;
            }
        }
        Ok(ok)
    }

    /// How many hold; more than one are two.
    fn one(&mut self, ids: &'s [Id], value: &'v Value, mut own: Option<&mut Evaluated<'v>>) -> Result<u32, TooMuch> {
        let mut count = 0;
        for id in ids {
            count += u32::from(self.branch(*id, value, own.as_deref_mut())?);
            if count > 1 {
                break;
            }
        }
        Ok(count)
    }

    fn number(&mut self, words: &Numbers, it: &serde_json::Number) -> bool {
        let is = |bound: &Option<serde_json::Number>, wrong: &[std::cmp::Ordering]| {
            bound.as_ref().filter(|bound| wrong.contains(&number::compare(it, bound))).cloned()
        };
        use std::cmp::Ordering::{Equal, Greater, Less};
        let mut ok = true;
        if let Some(bound) = is(&words.min, &[Less]) {
            ok = self.wrong("minimum", || format!("it is less than {bound}").into());
        }
        if let Some(bound) = is(&words.max, &[Greater]) {
            ok = self.wrong("maximum", || format!("it is more than {bound}").into());
        }
        if let Some(bound) = is(&words.above, &[Less, Equal]) {
            ok = self.wrong("exclusiveMinimum", || format!("it is not more than {bound}").into());
        }
        if let Some(bound) = is(&words.below, &[Greater, Equal]) {
            ok = self.wrong("exclusiveMaximum", || format!("it is not less than {bound}").into());
        }
        if let Some(of) = words.multiple_of.as_ref().filter(|of| !number::is_multiple(it, of)) {
            ok = self.wrong("multipleOf", || format!("it is not a multiple of {of}").into());
        }
        if let Some(format) = words.format.filter(|format| !format.takes_number(it)) {
            ok = self.wrong("format", || format!("it is not {}", format.word()).into());
        }
        ok
    }

    fn text(&mut self, words: &Texts, it: &str) -> Asked {
        let mut ok = true;
        if words.min.is_some() || words.max.is_some() {
            let length = it.chars().count() as u64;
            if let Some(min) = words.min.filter(|min| length < *min) {
                ok = self.wrong("minLength", || format!("it is shorter than {min} characters").into());
            }
            if let Some(max) = words.max.filter(|max| length > *max) {
                ok = self.wrong("maxLength", || format!("it is longer than {max} characters").into());
            }
            // What is too long is not gone through as well.
            if !ok {
                return Ok(false);
            }
        }
        if let Some(pattern) = &words.pattern {
            self.pay(it.len() as u64 / BYTES_PER_STEP)?;
            if !pattern.is_match(it) {
                ok = self.wrong("pattern", || "it does not match the pattern that it should".into());
            }
        }
        if let Some(format) = words.format.filter(|format| !format.takes_text(it)) {
            ok = self.wrong("format", || format!("it is not {}", format.word()).into());
        }
        Ok(ok)
    }

    fn array(&mut self, words: &'s Arrays, items: &'v [Value], own: Option<&mut Evaluated<'v>>) -> Asked {
        let mut ok = true;
        let count = items.len() as u64;
        if let Some(min) = words.min.filter(|min| count < *min) {
            ok = self.wrong("minItems", || format!("it has fewer than {min} items").into());
        }
        if let Some(max) = words.max.filter(|max| count > *max) {
            ok = self.wrong("maxItems", || format!("it has more than {max} items").into());
            // Nor is each of them gone through.
            return Ok(ok);
        }
        if words.unique && !self.unique(items)? {
            ok = self.wrong("uniqueItems", || "two of its items are equal".into());
        }
        for (at, item) in items.iter().enumerate() {
            let Some(id) = words.prefix.get(at).copied().or(words.items) else { break };
            if !ok && !self.goes_on() {
                return Ok(false);
            }
            ok &= self.at(Step::Index(at), id, item)?;
        }
        let mut contained = Vec::new();
        if let Some(id) = words.contains {
            let mut hits = 0;
            for (at, item) in items.iter().enumerate() {
                if self.is_valid(id, item)? {
                    hits += 1;
                    if own.is_some() {
                        contained.push(at);
                    }
                }
            }
            if hits < words.contains_min || words.contains_max.is_some_and(|max| hits > max) {
                ok = self.wrong("contains", || "too few or too many of its items are what it should contain".into());
            }
        }
        if let Some(own) = own {
            own.items = own.items.max(if words.items.is_some() { items.len() } else { words.prefix.len() });
            own.more_items.extend(contained);
        }
        Ok(ok)
    }

    fn unique(&mut self, items: &[Value]) -> Asked {
        let mut seen: HashSet<Vec<u8>, RandomState> = HashSet::default();
        for item in items {
            let mut text = Vec::new();
            canonical(item, &mut text);
            self.pay(text.len() as u64 / BYTES_PER_STEP)?;
            if !seen.insert(text) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn object(
        &mut self,
        words: &'s Objects,
        members: &'v Map<String, Value>,
        mut own: Option<&mut Evaluated<'v>>,
    ) -> Asked {
        let mut ok = true;
        let count = members.len() as u64;
        if let Some(min) = words.min.filter(|min| count < *min) {
            ok = self.wrong("minProperties", || format!("it has fewer than {min} members").into());
        }
        if let Some(max) = words.max.filter(|max| count > *max) {
            ok = self.wrong("maxProperties", || format!("it has more than {max} members").into());
        }
        for name in words.required.iter().filter(|name| !members.contains_key(*name)) {
            ok = self.missing(name);
        }
        for (name, others) in &words.dependent_required {
            for other in others.iter().filter(|it| members.contains_key(name) && !members.contains_key(*it)) {
                ok = self.missing(other);
            }
        }
        let asks = !words.properties.is_empty() || !words.patterns.is_empty() || words.additional.is_some();
        for (name, member) in members {
            if !ok && !self.goes_on() {
                return Ok(false);
            }
            if let Some(id) = words.names {
                let text = Value::String(name.clone());
                // A run of its own: the name is no part of the value that could be pointed at.
                let (schemas, steps, depth) = (self.schemas, self.steps, self.depth);
                let mut run = Run { schemas, steps, depth, path: Vec::new(), found: None };
                let valid = run.ask(id, &text, None);
                self.steps = run.steps;
                let valid = valid?;
                if !valid {
                    self.path.push(Step::Key(name.into()));
                    ok = self.wrong("propertyNames", || "its name is not one that is allowed".into());
                    self.path.pop();
                }
            }
            if !asks {
                continue;
            }
            let mut known = false;
            if let Some(id) = words.properties.get(name) {
                known = true;
                ok &= self.at(Step::Key(name.into()), *id, member)?;
            }
            for (pattern, id) in &words.patterns {
                self.pay(1 + name.len() as u64 / BYTES_PER_STEP)?;
                if pattern.is_match(name) {
                    known = true;
                    ok &= self.at(Step::Key(name.into()), *id, member)?;
                }
            }
            if let (Some(id), false) = (words.additional, known) {
                known = true;
                ok &= self.further("additionalProperties", Step::Key(name.into()), id, member)?;
            }
            if let (Some(own), true) = (own.as_deref_mut(), known) {
                own.members.insert(name);
            }
        }
        Ok(ok)
    }

    fn missing(&mut self, name: &'s str) -> bool {
        // It is not there to be pointed at, so its name is.
        let at = pointer(&[Step::Key(name.into())]);
        if let Some(found) = &mut self.found
            && found.len() < ERRORS_MAX
        {
            let pointer = pointer(&self.path) + &at;
            found.push(Found { pointer, rule: "required", detail: "it is missing".into() });
        }
        false
    }

    /// What nothing else speaks of; where there may be none, that is what is told.
    fn further(&mut self, rule: &'static str, step: Step<'v>, id: Id, value: &'v Value) -> Asked {
        if !matches!(self.schemas.nodes[id.0 as usize], Node::Always(false)) {
            return self.at(step, id, value);
        }
        self.pay(1)?;
        self.path.push(step);
        let ok = self.wrong(rule, || "nothing further is allowed here".into());
        self.path.pop();
        Ok(ok)
    }

    fn unevaluated(&mut self, words: &'s Words, value: &'v Value, own: Option<&mut Evaluated<'v>>) -> Asked {
        let Some(own) = own else { return Ok(true) };
        let mut ok = true;
        match value {
            Value::Array(items) => {
                let Some(id) = words.unevaluated_items else { return Ok(true) };
                for (at, item) in items.iter().enumerate().skip(own.items) {
                    if !own.more_items.contains(&at) {
                        ok &= self.further("unevaluatedItems", Step::Index(at), id, item)?;
                    }
                }
                own.items = items.len();
            }
            Value::Object(members) => {
                let Some(id) = words.unevaluated_properties else { return Ok(true) };
                for (name, member) in members {
                    if !own.members.contains(name.as_str()) {
                        ok &= self.further("unevaluatedProperties", Step::Key(name.into()), id, member)?;
                    }
                }
                own.members.extend(members.keys().map(String::as_str));
            }
            _ => {}
        }
        Ok(ok)
    }
}

/// 1 is 1.0, and the order of members is nothing.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => number::compare(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Equal values have equal bytes.
fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(it) => match number::whole(it) {
            Some(whole) => out.extend(whole.to_string().bytes()),
            None => out.extend(it.to_string().bytes()),
        },
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            out.push(b'{');
            for name in names {
                canonical(&Value::String(name.clone()), out);
                out.push(b':');
                canonical(&members[name], out);
                out.push(b',');
            }
            out.push(b'}');
        }
        _ => out.extend(value.to_string().bytes()),
    }
}
