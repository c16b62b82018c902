//! The operator's words were wrong: which field, what was found, what is allowed.

use std::fmt;

/// A value that cannot be accepted, with the path of its field, such as `routes[3].match.path_regex`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub field: String,
    pub found: String,
    pub allowed: String,
}

impl Invalid {
    /// `Invalid::field("limit").found(0).allowed("1 or more")`
    pub fn field(path: impl Into<String>) -> Self {
        Self { field: path.into(), found: String::new(), allowed: String::new() }
    }

    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.found = found.to_string();
        self
    }

    pub fn allowed(mut self, allowed: impl fmt::Display) -> Self {
        self.allowed = allowed.to_string();
        self
    }

    /// The same complaint seen from one level further out: `under("routes[3]")` turns `priority` into `routes[3].priority`.
    pub fn under(mut self, parent: impl fmt::Display) -> Self {
        self.field = match (self.field.is_empty(), self.field.starts_with('[')) {
            (true, _) => parent.to_string(),
            (false, true) => format!("{parent}{}", self.field),
            (false, false) => format!("{parent}.{}", self.field),
        };
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        match self.found.is_empty() {
            true => f.write_str(&self.allowed),
            false => write!(f, "found {}; allowed: {}", self.found, self.allowed),
        }
    }
}

impl std::error::Error for Invalid {}
