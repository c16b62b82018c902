//! Durations and sizes as operators write them: `250ms`, `10s`, `1m`, `2h`; `512`, `64KiB`, `10MiB`.

mod moment;

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use moment::{MOMENT_MAX, Moment};

/// A length of time in words: `250ms`. Shown in the largest unit that loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// A number of bytes in words: `10MiB`. Shown in the largest unit that loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

const SPAN_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
const SPAN_ALLOWED: &str = "a whole number and a unit of us, ms, s, m, h or d, such as 250ms";
const SIZE_ALLOWED: &str = "a whole number of bytes, or one with KiB, MiB or GiB, such as 64KiB";

impl Span {
    pub const fn millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    pub const fn secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    Some((number, &text[digits..]))
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("found {text:?}; allowed: {SPAN_ALLOWED}");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        if number == 0 && unit.is_empty() {
            return Ok(Self::default());
        }
        let (_, micros) = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let micros = number.checked_mul(*micros).ok_or_else(wrong)?;
        Ok(Self(Duration::from_micros(micros)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros() as u64;
        if micros == 0 {
            return f.write_str("0s");
        }
        let (unit, size) = SPAN_UNITS.iter().find(|(_, size)| micros.is_multiple_of(*size)).expect("1 us divides all");
        write!(f, "{}{unit}", micros / size)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("found {text:?}; allowed: {SIZE_ALLOWED}");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*bytes).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0");
        }
        let (unit, size) = SIZE_UNITS.iter().find(|(_, size)| self.0.is_multiple_of(*size)).expect("1 divides all");
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct SizeVisitor;

impl de::Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SIZE_ALLOWED)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes).map(Size).map_err(|_| E::custom(format!("found {bytes}; allowed: {SIZE_ALLOWED}")))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip() {
        for text in ["250ms", "10s", "1m", "90s", "2h", "1d", "0s", "1us"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in ["0", "1", "64KiB", "10MiB", "1GiB", "1000"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_is_allowed() {
        for text in ["", "s", "1 s", "-1s", "1.5s", "10", "99999999999999999999s", "18446744073709551615d"] {
            assert!(text.parse::<Span>().unwrap_err().contains("such as 250ms"), "{text}");
        }
        for text in ["", "KiB", "1kb", "-1", "18446744073709551615GiB"] {
            assert!(text.parse::<Size>().unwrap_err().contains("such as 64KiB"), "{text}");
        }
    }
}
