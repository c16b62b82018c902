//! One compiled expression, its bounds, and the variables that it is given.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, Value,
    common::ast::{CallExpr, EntryExpr, Expr, LiteralValue},
    objects::Key,
    parser::{Expression as Tree, PrattParser},
};
use quorumgate_model::invalid::Invalid;
use serde_json::Value as Json;

use super::{
    super::{
        Asked, Callers,
        condition::{Template, decoded},
    },
    COST_MAX, NODES_MAX,
};

/// Brackets within each other while parsing, and levels of the tree.
const DEPTH_MAX: u16 = 48;
/// Values in all variables together; what a request has more of comes to no answer.
const VALUES_MAX: usize = 4_096;
const ROOTS: &[&str] = &["request", "params", "jwt", "consumer", "scopes"];
/// Of statements about an object.
const OBJECT_ROOTS: &[&str] = &["object", "kind"];
/// Values of one object: nobody waits for a statement but who applies it.
const OBJECT_VALUES_MAX: usize = 65_536;
const FUNCTIONS: [&str; 11] =
    ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string", "bool", "type", "dyn"];
/// What `_+_` and the like give is no truth value.
const ARITHMETIC: [&str; 6] = ["_+_", "_-_", "_*_", "_/_", "_%_", "-_"];

static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

pub(in super::super) struct Expression {
    text: Box<str>,
    tree: Tree,
    /// Of the known ones, those that it names.
    roots: Vec<&'static str>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expression {
    pub(in super::super) fn compile(text: &str) -> Result<Self, Invalid> {
        Self::over(ROOTS, VALUES_MAX, text)
    }

    /// Of so many values at most is what the known roots have.
    fn over(known: &'static [&'static str], values_max: usize, text: &str) -> Result<Self, Invalid> {
        let wrong = |allowed: String| Invalid::field("").found(format!("{text:?}")).allowed(allowed);
        let parser = PrattParser::new().max_recursion_depth(DEPTH_MAX).max_expression_node_count(NODES_MAX);
        let tree = parser.parse(text).map_err(|errors| {
            let first = errors.errors.first().map(|error| error.msg.lines().next().unwrap_or_default().to_owned());
            wrong(format!("a CEL expression ({})", first.unwrap_or_default()))
        })?;
        let mut survey = Survey { known, rounds_max: values_max as u64, ..Survey::default() };
        let cost = survey.visit(&tree, 0).map_err(wrong)?;
        if survey.nodes > NODES_MAX {
            return Err(wrong(format!("an expression of at most {NODES_MAX} parts; this one has {}", survey.nodes)));
        }
        if cost > COST_MAX {
            return Err(wrong(format!(
                "an expression of at most {COST_MAX} steps; this one could take {cost} (all, exists, map and filter \
                 within each other multiply)"
            )));
        }
        if !may_be_true(&tree.expr, known) {
            return Err(wrong("an expression that is true or false".into()));
        }
        let roots = known.iter().copied().filter(|root| survey.roots.contains(root)).collect();
        Ok(Self { text: text.into(), tree, roots })
    }

    /// Err: it came to no answer, or to one that is neither true nor false.
    pub(in super::super) fn is_true(
        &self,
        asked: &Asked<'_>,
        template: &Template,
        callers: Callers<'_>,
    ) -> Result<bool, ()> {
        let mut context = Context::with_env(STANDARD.clone());
        let mut budget = Budget(VALUES_MAX);
        for root in &self.roots {
            let value = match *root {
                "request" => budget.request(asked),
                "params" => budget.map(template.params(asked.path).filter_map(|(name, value)| Some((name, value?)))),
                "jwt" => match callers.claims() {
                    Some(claims) => budget.object(claims),
                    None => budget.object(&serde_json::Map::new()),
                },
                "consumer" => budget.consumer(callers),
                _ => budget.list(callers.scopes()),
            };
            context.add_variable_from_value(*root, value?);
        }
        self.answer(&context)
    }

    fn answer(&self, context: &Context<'_, '_>) -> Result<bool, ()> {
        match Value::resolve(&self.tree, context) {
            Ok(Value::Bool(answer)) => Ok(answer),
            Ok(_) | Err(_) => Err(()),
        }
    }
}

/// What is true of an object or not, by its words.
#[derive(Debug)]
pub struct Statement(Expression);

impl Statement {
    pub fn compile(text: &str) -> Result<Self, Invalid> {
        Expression::over(OBJECT_ROOTS, OBJECT_VALUES_MAX, text).map(Self)
    }

    /// Whether it is true of this object of the list `kind`. What comes to no answer is not.
    pub fn holds(&self, kind: &str, object: &Json) -> bool {
        self.answer(kind, object).unwrap_or(false)
    }

    fn answer(&self, kind: &str, object: &Json) -> Result<bool, ()> {
        let mut context = Context::with_env(STANDARD.clone());
        let mut budget = Budget(OBJECT_VALUES_MAX);
        for root in &self.0.roots {
            let value = match *root {
                "object" => budget.json(object)?,
                _ => budget.text(kind)?,
            };
            context.add_variable_from_value(*root, value);
        }
        self.0.answer(&context)
    }
}

/// Whether it can be a truth value at all: what is surely something else is a mistake that can be told at once.
fn may_be_true(expr: &Expr, known: &[&str]) -> bool {
    match expr {
        Expr::Literal(literal) => matches!(literal, LiteralValue::Boolean(_)),
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => false,
        Expr::Call(call) if call.func_name == "_?_:_" => call.args[1..].iter().all(|arg| may_be_true(&arg.expr, known)),
        Expr::Call(call) => {
            let gives_other = ["size", "int", "uint", "double", "string", "type"];
            !ARITHMETIC.contains(&call.func_name.as_str()) && !gives_other.contains(&call.func_name.as_str())
        }
        Expr::Ident(name) => !known.contains(&name.as_str()),
        Expr::Select(_) | Expr::Comprehension(_) => true,
    }
}

/// A walk over the tree that finds what it names and what it may cost.
#[derive(Default)]
struct Survey {
    /// What may be named.
    known: &'static [&'static str],
    /// How often a loop over a variable may go round.
    rounds_max: u64,
    nodes: usize,
    roots: BTreeSet<&'static str>,
    /// Variables of the loops that are open.
    bound: Vec<String>,
}

impl Survey {
    /// The most steps that it may take.
    fn visit(&mut self, tree: &Tree, depth: u16) -> Result<u64, String> {
        self.nodes += 1;
        if depth > DEPTH_MAX {
            return Err(format!("an expression of at most {DEPTH_MAX} levels"));
        }
        let mut sum = 1u64;
        let mut add = |cost: u64| sum = sum.saturating_add(cost);
        match &tree.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.name(name)?,
            Expr::Select(select) => add(self.visit(&select.operand, depth + 1)?),
            Expr::Call(call) => {
                self.function(call)?;
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    add(self.visit(part, depth + 1)?);
                }
            }
            Expr::List(list) => {
                for element in &list.elements {
                    add(self.visit(element, depth + 1)?);
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        add(self.visit(&entry.key, depth + 1)?);
                        add(self.visit(&entry.value, depth + 1)?);
                    }
                }
            }
            Expr::Struct(_) => return Err("an expression without message types".into()),
            Expr::Comprehension(it) => {
                // Any other range could be longer than the inputs are.
                let Some(rounds) = range(&it.iter_range.expr, self.rounds_max) else {
                    let allowed = "all, exists, map and filter over a variable, a field of one, or a list";
                    return Err(allowed.into());
                };
                add(self.visit(&it.iter_range, depth + 1)?);
                add(self.visit(&it.accu_init, depth + 1)?);
                let names = [Some(&it.iter_var), it.iter_var2.as_ref(), Some(&it.accu_var)];
                let before = self.bound.len();
                self.bound.extend(names.into_iter().flatten().cloned());
                let round = self.visit(&it.loop_cond, depth + 1)?.saturating_add(self.visit(&it.loop_step, depth + 1)?);
                add(round.saturating_mul(rounds));
                add(self.visit(&it.result, depth + 1)?);
                self.bound.truncate(before);
            }
        }
        Ok(sum)
    }

    fn name(&mut self, name: &str) -> Result<(), String> {
        if self.bound.iter().any(|bound| bound == name) {
            return Ok(());
        }
        let Some(root) = self.known.iter().copied().find(|root| *root == name) else {
            return Err(format!("an expression over {}; it names {name:?}", self.known.join(", ")));
        };
        self.roots.insert(root);
        Ok(())
    }

    fn function(&self, call: &CallExpr) -> Result<(), String> {
        let name = call.func_name.as_str();
        // Operators, and what macros expand to, are named with signs.
        match name.starts_with(|c: char| c.is_ascii_alphabetic()) && !FUNCTIONS.contains(&name) {
            true => Err(format!("an expression with the functions {}; it calls {name:?}", FUNCTIONS.join(", "))),
            false => Ok(()),
        }
    }
}

/// How many rounds a loop over it may take.
fn range(expr: &Expr, rounds_max: u64) -> Option<u64> {
    match expr {
        Expr::Ident(_) | Expr::Select(_) => Some(rounds_max),
        Expr::Call(call) if call.func_name == "_[_]" => Some(rounds_max),
        Expr::List(list) => Some(list.elements.len() as u64),
        Expr::Map(map) => Some(map.entries.len() as u64),
        // What map and filter give is no longer than what they took.
        Expr::Comprehension(it) => range(&it.iter_range.expr, rounds_max),
        Expr::Call(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => None,
    }
}

/// How many values may still be made.
struct Budget(usize);

impl Budget {
    fn take(&mut self) -> Result<(), ()> {
        self.0 = self.0.checked_sub(1).ok_or(())?;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<Value, ()> {
        self.take()?;
        Ok(Value::from(text))
    }

    fn list<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> Result<Value, ()> {
        self.take()?;
        Ok(Value::List(Arc::new(texts.map(|text| self.text(text)).collect::<Result<_, _>>()?)))
    }

    fn map<K: AsRef<str>, V: AsRef<str>>(&mut self, pairs: impl Iterator<Item = (K, V)>) -> Result<Value, ()> {
        self.take()?;
        let mut map: HashMap<Key, Value> = HashMap::new();
        for (name, value) in pairs {
            let value = self.text(value.as_ref())?;
            map.entry(Key::from(name.as_ref())).or_insert(value);
        }
        Ok(map.into())
    }

    fn object(&mut self, object: &serde_json::Map<String, Json>) -> Result<Value, ()> {
        self.take()?;
        let mut map: HashMap<Key, Value> = HashMap::with_capacity(object.len());
        for (name, value) in object {
            map.insert(Key::from(name.as_str()), self.json(value)?);
        }
        Ok(map.into())
    }

    fn json(&mut self, value: &Json) -> Result<Value, ()> {
        self.take()?;
        Ok(match value {
            Json::Null => Value::Null,
            Json::Bool(it) => Value::Bool(*it),
            Json::Number(it) => match (it.as_i64(), it.as_f64()) {
                (Some(it), _) => Value::Int(it),
                (None, Some(it)) => Value::Float(it),
                (None, None) => return Err(()),
            },
            Json::String(it) => Value::from(it.as_str()),
            Json::Array(items) => {
                Value::List(Arc::new(items.iter().map(|item| self.json(item)).collect::<Result<_, _>>()?))
            }
            Json::Object(object) => self.object(object)?,
        })
    }

    fn consumer(&mut self, callers: Callers<'_>) -> Result<Value, ()> {
        let consumer = callers.consumer();
        let map: HashMap<Key, Value> = HashMap::from([
            ("name".into(), self.text(consumer.map(|it| &*it.name).unwrap_or_default())?),
            ("groups".into(), self.list(callers.groups())?),
            ("plan".into(), self.text(consumer.and_then(|it| it.plan.as_deref()).unwrap_or_default())?),
        ]);
        Ok(map.into())
    }

    fn request(&mut self, asked: &Asked<'_>) -> Result<Value, ()> {
        let mut headers: HashMap<Key, Value> = HashMap::with_capacity(asked.headers.keys_len());
        for name in asked.headers.keys() {
            // RFC 9110 section 5.3: several fields are one with commas. What is not text is left out.
            let values: Vec<&str> = asked.headers.get_all(name).iter().filter_map(|it| it.to_str().ok()).collect();
            headers.insert(Key::from(name.as_str()), self.text(&values.join(", "))?);
        }
        let pairs = asked.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let [name, value] = [name, value].map(|text| text.replace('+', " "));
            Some((decoded(&name)?.into_owned(), decoded(&value)?.into_owned()))
        });
        let map: HashMap<Key, Value> = HashMap::from([
            ("method".into(), self.text(asked.method)?),
            ("path".into(), self.text(asked.path)?),
            ("host".into(), self.text(asked.host)?),
            ("client_ip".into(), self.text(&asked.client_ip.to_string())?),
            ("headers".into(), headers.into()),
            ("query".into(), self.map(query)?),
        ]);
        Ok(map.into())
    }
}
