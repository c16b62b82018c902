//! What a route makes of path and query on the way to the upstream, compiled; and the check of everything in it that has
//! values of the request in it.

use std::borrow::Cow;

use regex::Regex;

use super::{
    condition::decode,
    rule::{self, Place},
};
use crate::{
    canonical::{self, BadPath, Slashes},
    invalid::Invalid,
    resource::{QueryEdits, Rewrite, Route},
    template::{Template, Variable},
};

/// Bytes of a path that a rewrite may come to.
pub const REWRITTEN_PATH_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub struct Transform {
    path: PathTo,
    query: Option<Query>,
}

#[derive(Debug)]
enum PathTo {
    /// Or what `path_prefix` says, which needs no compiling.
    AsItIs,
    Template(Template),
    Regex(Regex, String),
}

/// Names are percent-encoded already.
#[derive(Debug)]
struct Query {
    gone: Vec<String>,
    put: Vec<(String, Template)>,
}

/// Why a rewritten path cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRewrite {
    TooLong,
    Path(BadPath),
}

impl Transform {
    /// None: path and query stay, or `path_prefix` says it all.
    pub(super) fn new(route: &Route) -> Result<Option<Box<Self>>, Invalid> {
        let rewrite = &route.rewrite;
        let place = rule::place(&route.matches.path)?;
        let params: Vec<&str> = place.params().collect();
        headers(rewrite, &params)?;
        let path = path(rewrite, &params).map_err(|invalid| invalid.under("rewrite"))?;
        let query = query(&rewrite.query, &params).map_err(|invalid| invalid.under("rewrite.query"))?;
        Ok(match (&path, &query) {
            (PathTo::AsItIs, None) => None,
            _ => Some(Box::new(Self { path, query })),
        })
    }

    /// The canonical path to ask for in the place of this one; None: nothing is said of it.
    pub fn path<'v>(
        &self,
        path: &str,
        value: impl Fn(&Variable) -> Cow<'v, str>,
    ) -> Option<Result<String, BadRewrite>> {
        let path = match &self.path {
            PathTo::AsItIs => return None,
            // What stands in a path is encoded already; what comes from elsewhere may not add segments.
            PathTo::Template(template) => template.fill(value, |out, text| encode(out, text, Keep::Path)),
            PathTo::Regex(regex, to) => regex.replace_all(path, to.as_str()).into_owned(),
        };
        if path.len() > REWRITTEN_PATH_BYTES_MAX {
            return Some(Err(BadRewrite::TooLong));
        }
        Some(canonical::path(&path, Slashes::Merge).map(Cow::into_owned).map_err(BadRewrite::Path))
    }

    /// The query to ask with, without its question mark; the first None: nothing is said of it.
    pub fn query<'v>(
        &self,
        query: Option<&str>,
        value: impl Fn(&Variable) -> Cow<'v, str> + Copy,
    ) -> Option<Option<String>> {
        let edits = self.query.as_ref()?;
        let mut out = String::new();
        let stays = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            !pair.is_empty() && !edits.gone.iter().any(|gone| *decode(name) == *gone.as_bytes())
        };
        for pair in query.unwrap_or_default().split('&').filter(stays) {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(pair);
        }
        for (name, template) in &edits.put {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(name);
            out.push('=');
            out.push_str(&template.fill(value, |out, text| encode(out, text, Keep::Nothing)));
        }
        Some(Some(out).filter(|out| !out.is_empty()))
    }
}

fn headers(rewrite: &Rewrite, params: &[&str]) -> Result<(), Invalid> {
    for (side, edits) in [("request", &rewrite.headers.request), ("response", &rewrite.headers.response)] {
        for (list, pairs) in [("set", &edits.set), ("add", &edits.add)] {
            for (name, value) in pairs.iter().filter(|(_, value)| Template::is_one(value)) {
                Template::parse(&format!("rewrite.headers.{side}.{list}.{name}"), value, params)?;
            }
        }
    }
    Ok(())
}

fn path(rewrite: &Rewrite, params: &[&str]) -> Result<PathTo, Invalid> {
    if let Some(text) = &rewrite.path {
        let template = Template::parse("path", text, params)?;
        // A value that is a path begins with a slash itself; any other stands for a name.
        let sample = template.fill(sample, |out, text| out.push_str(text));
        return match canonical::path(&sample, Slashes::Merge) {
            Ok(_) => Ok(PathTo::Template(template)),
            Err(bad) => Err(Invalid::field("path").found(format!("{text:?}")).allowed(format!("a path; {bad}"))),
        };
    }
    let Some(it) = &rewrite.path_regex else { return Ok(PathTo::AsItIs) };
    let regex = rule::regex_within("path_regex.pattern", &it.pattern)?;
    let groups: Vec<&str> = regex.capture_names().flatten().collect();
    for group in groups_named(&it.to) {
        let known = match group.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => groups.contains(&group),
        };
        if !known {
            let allowed = format!(
                "groups of the pattern: $0 to ${}{}",
                regex.captures_len() - 1,
                match &groups[..] {
                    [] => String::new(),
                    groups => format!(", {}", groups.join(", ")),
                }
            );
            return Err(Invalid::field("path_regex.to").found(format!("${group}")).allowed(allowed));
        }
    }
    Ok(PathTo::Regex(regex, it.to.clone()))
}

fn sample(variable: &Variable) -> Cow<'static, str> {
    Cow::Borrowed(if *variable == Variable::Path { "/x" } else { "x" })
}

/// What `$name`, `$1` and `${name}` name in a replacement, as the regex crate reads it.
fn groups_named(to: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = to;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            rest = behind;
        } else if let Some((name, behind)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            names.push(name);
            rest = behind;
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if end > 0 {
                names.push(&rest[..end]);
            }
            rest = &rest[end..];
        }
    }
    names
}

fn query(edits: &QueryEdits, params: &[&str]) -> Result<Option<Query>, Invalid> {
    if edits.is_empty() {
        return Ok(None);
    }
    let encoded = |name: &str| {
        let mut out = String::new();
        encode(&mut out, name, Keep::Nothing);
        out
    };
    let mut put = Vec::new();
    for (list, pairs) in [("set", &edits.set), ("add", &edits.add)] {
        for (name, value) in pairs {
            put.push((encoded(name), text_around(&format!("{list}.{name}"), value, params)?));
        }
    }
    let gone = edits.remove.iter().chain(edits.set.keys()).cloned().collect();
    Ok(Some(Query { gone, put }))
}

/// The text around values is encoded once, here.
fn text_around(field: &str, text: &str, params: &[&str]) -> Result<Template, Invalid> {
    Template::parse(field, text, params).map(|template| {
        template.map_text(|text| {
            let mut out = String::new();
            encode(&mut out, text, Keep::Nothing);
            out
        })
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Nothing,
    /// Slashes, and percent codes as they are.
    Path,
}

fn encode(out: &mut String, text: &str, keep: Keep) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (keep == Keep::Path && b"/%!$&'()*+,;=:@".contains(&byte)) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

impl Place {
    pub(super) fn params(&self) -> impl Iterator<Item = &str> {
        let segments: &[rule::Segment] = match self {
            Place::Template(segments) => segments,
            _ => &[],
        };
        segments.iter().filter_map(|segment| match segment {
            rule::Segment::Param(name) => Some(name.as_str()),
            rule::Segment::Literal(_) => None,
        })
    }
}
