//! One canonical path for router, policies, logs and the forwarded request (RFC 3986 6.2.2).

use std::borrow::Cow;

/// Why a path is refused; every one is 400 `bad_path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPath {
    NotAbsolute,
    /// A percent sign without two hex digits.
    BadEscape,
    /// %00, a raw control byte, or a raw backslash.
    ForbiddenByte,
    /// `..;` or `/;a/`.
    DotSegmentWithParameters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slashes {
    Merge,
    Keep,
}

/// Decodes unreserved characters, upper-cases percent codes, removes dot segments, merges slashes. Borrows when the
/// path is canonical already. `%2F` and `%5C` stay as they are.
pub fn path(_raw: &str, _slashes: Slashes) -> Result<Cow<'_, str>, BadPath> {
    todo!("H1")
}

/// Whether `%2F` or `%5C` is in a canonical path: refused after the match unless the route preserves it.
pub fn has_encoded_slash(_path: &str) -> bool {
    todo!("H1")
}
