//! Names of resources and nodes: `[a-z0-9][a-z0-9._-]{0,62}`.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A checked name; a clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    pub const ALLOWED: &'static str = "a lower-case letter or digit, then at most 62 of a-z 0-9 . _ -";
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = match text.as_bytes() {
            [] => false,
            [first, rest @ ..] => {
                plain(*first) && rest.len() <= 62 && rest.iter().all(|b| plain(*b) || matches!(b, b'.' | b'_' | b'-'))
            }
        };
        match fits {
            true => Ok(Self(text.into())),
            false => Err(format!("found {text:?}; allowed: {}", Self::ALLOWED)),
        }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&Name> for Arc<str> {
    fn from(name: &Name) -> Arc<str> {
        name.0.clone()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lower_case_words() {
        let long = "a".repeat(63);
        for ok in ["a", "orders", "orders-v2", "0.a_b", &long] {
            assert!(ok.parse::<Name>().is_ok(), "{ok}");
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-a", ".a", "A", "a b", "a/b", "ä", &too_long] {
            assert!(bad.parse::<Name>().unwrap_err().contains("allowed"), "{bad}");
        }
    }
}
