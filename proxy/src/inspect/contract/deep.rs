//! Objects that lie in names, such as `filter[price][min]=3` (`deepObject`, OpenAPI 3.1, 4.8.12.3): a tree by the brackets, which
//! becomes a value along its schema.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::Value;

use super::values::array;
use crate::inspect::{
    found::{Step, pointer},
    schema::{Id, Schemas, Shape},
};

/// Brackets behind one name.
const DEPTH_MAX: usize = 8;
/// Names within one tree: each is looked up in its schema.
const NAMES_MAX: usize = 1_000;

/// What is wrong with a place of it: a pointer, the rule, and why.
pub(super) type Wrong = (String, &'static str, &'static str);

#[derive(Debug, Default)]
pub(super) struct Tree<'t> {
    texts: Vec<Cow<'t, str>>,
    members: BTreeMap<String, Tree<'t>>,
    /// Of the root: all that was added.
    names: usize,
}

impl<'t> Tree<'t> {
    /// What stands behind the root in a name; None: it is of something else.
    pub(super) fn within<'n>(name: &'n str, root: &str) -> Option<&'n str> {
        name.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('['))
    }

    /// `within` is `[a][b]`. Err: servers would read it in different ways, or it is more than may be.
    pub(super) fn add(&mut self, mut within: &str, text: Cow<'t, str>) -> Result<(), &'static str> {
        self.names += 1;
        if self.names > NAMES_MAX {
            return Err("it has too many members");
        }
        let (mut at, mut depth) = (self, 0);
        while !within.is_empty() {
            let inner = within.strip_prefix('[').and_then(|it| it.split_once(']'));
            let Some((key, rest)) = inner.filter(|(key, _)| !key.contains('[')) else {
                return Err("its brackets are not in pairs");
            };
            depth += 1;
            if depth > DEPTH_MAX {
                return Err("its brackets are too many");
            }
            at = at.members.entry(key.to_owned()).or_default();
            within = rest;
        }
        at.texts.push(text);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.members.is_empty()
    }

    /// As what its schema takes; no deeper than `add` lets it be.
    pub(super) fn value(&self, schemas: &Schemas, id: Option<Id>, at: &str) -> Result<Value, Wrong> {
        let texts = || self.texts.iter().map(|it| Cow::Borrowed(&**it));
        match (self.texts.as_slice(), self.members.is_empty(), id.map(|id| (id, schemas.shape(id)))) {
            (_, true, Some((_, Shape::Array(items)))) => Ok(array(schemas, items, texts())),
            ([text], true, Some((id, _))) => Ok(schemas.read(id, text)),
            ([text], true, None) => Ok(Value::String(text.to_string())),
            (_, true, None) => Ok(array(schemas, None, texts())),
            ([], false, Some((_, Shape::Array(items)))) if self.is_list() => self.list(schemas, items, at),
            ([], false, of) => {
                let member = |(name, it): (&String, &Tree<'t>)| {
                    let at = format!("{at}{}", pointer(&[Step::Key(name.as_str().into())]));
                    let id = of.and_then(|(id, _)| schemas.member(id, name));
                    Ok::<_, Wrong>((name.clone(), it.value(schemas, id, &at)?))
                };
                self.members.iter().map(member).collect::<Result<_, _>>().map(Value::Object)
            }
            _ => Err((at.to_owned(), "repeated", "it is there more than once")),
        }
    }

    /// `a[]=1&a[]=2`, or `a[0]=1&a[1]=2`.
    fn is_list(&self) -> bool {
        self.members.keys().all(String::is_empty) || self.members.keys().all(|it| it.parse::<usize>().is_ok())
    }

    fn list(&self, schemas: &Schemas, items: Option<Id>, at: &str) -> Result<Value, Wrong> {
        if let Some(all) = self.members.get("") {
            return match all.members.is_empty() {
                true => Ok(array(schemas, items, all.texts.iter().map(|it| Cow::Borrowed(&**it)))),
                false => Err((at.to_owned(), "syntax", "members of a list without numbers cannot be told apart")),
            };
        }
        let mut by_number: Vec<_> =
            self.members.iter().filter_map(|(key, it)| Some((key.parse::<usize>().ok()?, it))).collect();
        by_number.sort_by_key(|(number, _)| *number);
        let item = |(place, (_, it)): (usize, (usize, &Tree<'t>))| it.value(schemas, items, &format!("{at}/{place}"));
        by_number.into_iter().enumerate().map(item).collect::<Result<_, _>>().map(Value::Array)
    }
}
