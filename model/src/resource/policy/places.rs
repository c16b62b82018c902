//! Where an address is said to be: countries and autonomous systems, by the files that each node has.

use std::{fmt, str::FromStr};

use super::super::{check, word::word_enum};
use crate::invalid::Invalid;

/// How many one list may have: more than there are countries.
const COUNTRIES_MAX: usize = 300;
const ASNS_MAX: usize = 10_000;

/// Two letters of ISO 3166-1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub country: Option<Country>,
    pub asn: Option<u32>,
}

word_enum!(
    /// What an address counts as of which it is not known where it is.
    Nowhere {
        /// It is in none of the lists.
        Unlisted = "unlisted",
        Allow = "allow",
        Deny = "deny",
    }
);

/// Lists of places beside those of networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub allow_countries: Vec<Country>,
    pub deny_countries: Vec<Country>,
    pub allow_asns: Vec<u32>,
    pub deny_asns: Vec<u32>,
    pub unknown: Nowhere,
}

impl Default for Places {
    fn default() -> Self {
        let (allow_countries, deny_countries, allow_asns, deny_asns) = Default::default();
        Self { allow_countries, deny_countries, allow_asns, deny_asns, unknown: Nowhere::Unlisted }
    }
}

impl Places {
    pub fn is_empty(&self) -> bool {
        !self.asks_countries() && !self.asks_asns()
    }

    pub fn asks_countries(&self) -> bool {
        !self.allow_countries.is_empty() || !self.deny_countries.is_empty()
    }

    pub fn asks_asns(&self) -> bool {
        !self.allow_asns.is_empty() || !self.deny_asns.is_empty()
    }

    /// Whether anybody is allowed by where he is.
    pub fn allows_some(&self) -> bool {
        !self.allow_countries.is_empty() || !self.allow_asns.is_empty()
    }

    pub fn denies(&self, place: Place) -> bool {
        let listed = place.country.is_some_and(|it| self.deny_countries.contains(&it))
            || place.asn.is_some_and(|it| self.deny_asns.contains(&it));
        listed || (self.unknown == Nowhere::Deny && self.does_not_know(place))
    }

    pub fn allows(&self, place: Place) -> bool {
        let listed = place.country.is_some_and(|it| self.allow_countries.contains(&it))
            || place.asn.is_some_and(|it| self.allow_asns.contains(&it));
        listed || (self.unknown == Nowhere::Allow && self.does_not_know(place))
    }

    fn does_not_know(&self, place: Place) -> bool {
        (self.asks_countries() && place.country.is_none()) || (self.asks_asns() && place.asn.is_none())
    }

    pub(super) fn checked(self) -> Result<Self, Invalid> {
        for (field, list) in [("allow_countries", &self.allow_countries), ("deny_countries", &self.deny_countries)] {
            check::count(field, list.len(), COUNTRIES_MAX)?;
            check::once(field, list, Country::to_string)?;
        }
        for (field, list) in [("allow_asns", &self.allow_asns), ("deny_asns", &self.deny_asns)] {
            check::count(field, list.len(), ASNS_MAX)?;
            check::once(field, list, u32::to_string)?;
        }
        Ok(self)
    }
}

impl Country {
    /// The words of a list, each of which is named if it is none.
    pub(super) fn parse_all(field: &str, words: &[String]) -> Result<Vec<Self>, Invalid> {
        let parse = |(place, text): (usize, &String)| {
            let wrong = |_| {
                let invalid = Invalid::field(format!("{field}[{place}]")).found(format!("{text:?}"));
                invalid.allowed("two letters of ISO 3166-1, such as DE")
            };
            text.parse::<Self>().map_err(wrong)
        };
        words.iter().enumerate().map(parse).collect()
    }
}

impl FromStr for Country {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Ok(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => Err(format!("found {text:?}; allowed: two letters of ISO 3166-1, such as DE")),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(self.0[0]), char::from(self.0[1]))
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_denied_and_allowed_and_what_is_nowhere_has_a_default() {
        let country = |text: &str| text.parse::<Country>().unwrap();
        let at = |text: &str, asn| Place { country: (!text.is_empty()).then(|| country(text)), asn };
        let places = |unknown| Places {
            allow_countries: vec![country("de"), country("FR")],
            deny_asns: vec![64_500],
            unknown,
            ..Places::default()
        };
        let it = places(Nowhere::Unlisted);
        for (place, denied, allowed) in [
            (at("DE", Some(1)), false, true),
            (at("DE", Some(64_500)), true, true),
            (at("US", Some(1)), false, false),
            (at("", None), false, false),
        ] {
            assert_eq!((it.denies(place), it.allows(place)), (denied, allowed), "{place:?}");
        }
        assert!(places(Nowhere::Deny).denies(at("DE", None)), "its system is not known");
        assert!(places(Nowhere::Allow).allows(at("", Some(1))));
        assert!(!places(Nowhere::Allow).allows(at("US", Some(1))));
        assert!("D".parse::<Country>().is_err() && "D1".parse::<Country>().is_err());
    }
}
