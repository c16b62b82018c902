//! Texts with values of the request in them: `${client_ip}`. Parsed when a route is compiled; a closed list of values, so
//! that a text that is accepted can always be made.

use std::borrow::Cow;

use crate::invalid::Invalid;

/// Values in one text.
const VALUES_MAX: usize = 32;

/// `V`: what the text may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<V = Variable>(Vec<Part<V>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part<V> {
    Text(String),
    Value(V),
}

/// What stands between `${` and `}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    ClientIp,
    /// As the client asked for it, without the port.
    Host,
    /// Canonical, before it is rewritten.
    Path,
    Method,
    Scheme,
    RequestId,
    /// Empty where there is none.
    Consumer,
    /// Of `match.path_template`.
    Param(String),
}

const WORDS: [(&str, Variable); 7] = [
    ("client_ip", Variable::ClientIp),
    ("host", Variable::Host),
    ("path", Variable::Path),
    ("method", Variable::Method),
    ("scheme", Variable::Scheme),
    ("request_id", Variable::RequestId),
    ("consumer", Variable::Consumer),
];

impl Variable {
    /// `params`: what the route's path has.
    pub(crate) fn of(word: &str, params: &[&str]) -> Option<Self> {
        match word.strip_prefix("params.") {
            Some(name) => params.contains(&name).then(|| Self::Param(name.to_owned())),
            None => WORDS.iter().find(|(known, _)| *known == word).map(|(_, variable)| variable.clone()),
        }
    }

    /// In words, for who wrote another one.
    pub(crate) fn known(params: &[&str]) -> String {
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        let params = match params {
            [] => "params.<name> on a route with match.path_template".to_owned(),
            params => params.iter().map(|name| format!("params.{name}")).collect::<Vec<_>>().join(", "),
        };
        format!("{}, {params}", words.join(", "))
    }
}

impl Template {
    /// Whether the text is more than itself.
    pub fn is_one(text: &str) -> bool {
        text.contains("${")
    }

    /// `$${` stands for `${`. `params`: what the route's path has.
    pub fn parse(field: &str, text: &str, params: &[&str]) -> Result<Self, Invalid> {
        Self::of(field, text, |word| Variable::of(word, params), || Variable::known(params))
    }
}

impl<V> Template<V> {
    /// `value`: what a word stands for; `known`: the words, where it is none of them.
    pub(crate) fn of(
        field: &str,
        text: &str,
        value: impl Fn(&str) -> Option<V>,
        known: impl Fn() -> String,
    ) -> Result<Self, Invalid> {
        let wrong = |found: String| {
            let allowed = format!("${{…}} of {}; $${{ for the two characters themselves", known());
            Invalid::field(field).found(found).allowed(allowed)
        };
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                plain.push_str(&rest[..at - 1]);
                plain.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            plain.push_str(&rest[..at]);
            let Some((word, behind)) = rest[at + 2..].split_once('}') else {
                return Err(wrong(format!("${{{} without its }}", &rest[at + 2..])));
            };
            let Some(variable) = value(word) else { return Err(wrong(format!("${{{word}}}"))) };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Value(variable));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        if parts.len() > 2 * VALUES_MAX {
            return Err(Invalid::field(field).found("many values").allowed(format!("at most {VALUES_MAX}")));
        }
        Ok(Self(parts))
    }

    /// With another text around the values.
    pub fn map_text(self, map: impl Fn(&str) -> String) -> Self {
        let part = |part| match part {
            Part::Text(text) => Part::Text(map(&text)),
            value => value,
        };
        Self(self.0.into_iter().map(part).collect())
    }

    pub(crate) fn parts(&self) -> &[Part<V>] {
        &self.0
    }

    /// The text with what `value` says; `escape` is applied to values, not to the text around them.
    pub fn fill<'v>(&self, value: impl Fn(&V) -> Cow<'v, str>, escape: impl Fn(&mut String, &str)) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(variable) => escape(&mut out, &value(variable)),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let filled = Template::parse("f", text, &["id"]).map(|template| {
            let value = |variable: &Variable| match variable {
                Variable::Param(name) => Cow::Owned(format!("<{name}>")),
                other => Cow::Owned(format!("<{other:?}>")),
            };
            template.fill(value, |out, text| out.push_str(text))
        });
        match (filled, expected) {
            (Ok(filled), Ok(expected)) => assert_eq!(filled, expected),
            (Err(invalid), Err(found)) => assert_eq!(invalid.found, found, "{invalid}"),
            (filled, expected) => panic!("{filled:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn values_are_put_where_they_are_named() {
        check("", Ok(""));
        check("plain $1 }", Ok("plain $1 }"));
        check("${client_ip}", Ok("<ClientIp>"));
        check("a-${host}${path}-${params.id}", Ok("a-<Host><Path>-<id>"));
        check("$${host} ${method}", Ok("${host} <Method>"));
        check("é${consumer}é", Ok("é<Consumer>é"));
    }

    #[test]
    fn what_is_not_on_the_list_is_refused() {
        check("${cookie}", Err("${cookie}"));
        check("${params.name}", Err("${params.name}"));
        check("a${host", Err("${host without its }"));
        check("${}", Err("${}"));
        check(&"${host}x".repeat(33), Err("many values"));
    }
}
