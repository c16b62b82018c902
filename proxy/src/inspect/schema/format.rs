//! The formats that are asserted: those whose rules are short and certain. All others are annotations, as 2020-12 has it.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Number;

use super::number;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Date,
    Time,
    DateTime,
    Uuid,
    Ipv4,
    Ipv6,
    Int32,
    Int64,
}

impl Format {
    pub(super) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "date" => Self::Date,
            "time" => Self::Time,
            "date-time" => Self::DateTime,
            "uuid" => Self::Uuid,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            _ => return None,
        })
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Date => "a date such as 2026-11-25",
            Self::Time => "a time such as 14:00:00Z",
            Self::DateTime => "a date and time such as 2026-11-25T14:00:00Z",
            Self::Uuid => "a UUID",
            Self::Ipv4 => "an IPv4 address",
            Self::Ipv6 => "an IPv6 address",
            Self::Int32 => "a whole number of 32 bits",
            Self::Int64 => "a whole number of 64 bits",
        }
    }

    pub(super) fn is_of_numbers(self) -> bool {
        matches!(self, Self::Int32 | Self::Int64)
    }

    pub(super) fn takes_text(self, text: &str) -> bool {
        match self {
            Self::Date => date(text),
            Self::Time => time(text),
            Self::DateTime => {
                let parts = text.split_at_checked(10);
                parts.is_some_and(|(day, rest)| date(day) && rest.strip_prefix(['T', 't']).is_some_and(time))
            }
            Self::Uuid => uuid(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Int32 | Self::Int64 => true,
        }
    }

    pub(super) fn takes_number(self, it: &Number) -> bool {
        match self {
            Self::Int32 => number::whole(it).is_some_and(|it| i32::try_from(it).is_ok()),
            Self::Int64 => number::whole(it).is_some_and(|it| i64::try_from(it).is_ok()),
            _ => true,
        }
    }
}

fn digits(text: &str, count: usize) -> Option<u32> {
    let is_number = text.len() == count && text.bytes().all(|it| it.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// RFC 3339 5.6, `full-date`.
fn date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let mut part = |count| parts.next().and_then(|it| digits(it, count));
    let (Some(year), Some(month), Some(day)) = (part(4), part(2), part(2)) else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// RFC 3339 5.6, `full-time`, with a leap second where there can be one.
fn time(text: &str) -> bool {
    let parsed = || {
        let (hour, rest) = text.split_at_checked(2)?;
        let (minute, rest) = rest.strip_prefix(':')?.split_at_checked(2)?;
        let (second, rest) = rest.strip_prefix(':')?.split_at_checked(2)?;
        let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
        let rest = match rest.strip_prefix('.') {
            Some(fraction) => {
                let rest = fraction.trim_start_matches(|it: char| it.is_ascii_digit());
                (rest.len() < fraction.len()).then_some(rest)?
            }
            None => rest,
        };
        let offset = match rest {
            "Z" | "z" => 0,
            _ => {
                let sign = if rest.starts_with('+') { 1 } else { -1 };
                let (h, m) = rest.strip_prefix(['+', '-'])?.split_once(':')?;
                let (h, m) = (digits(h, 2)?, digits(m, 2)?);
                (h < 24 && m < 60).then_some(())?;
                sign * (i64::from(h) * 60 + i64::from(m))
            }
        };
        let utc = (i64::from(hour) * 60 + i64::from(minute) - offset).rem_euclid(24 * 60);
        Some(hour < 24 && minute < 60 && (second < 60 || (second == 60 && utc == 23 * 60 + 59)))
    };
    parsed().unwrap_or(false)
}

fn uuid(text: &str) -> bool {
    let is_at = |at: usize, byte: u8| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(|(at, byte)| is_at(at, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_their_standards_do() {
        for (format, good, bad) in [
            (
                "date",
                &["2024-02-29", "2026-11-25"][..],
                &["2026-02-29", "2026-13-01", "2026-1-1", "x", "2026-11-25T"][..],
            ),
            (
                "time",
                &["14:00:00Z", "23:59:60Z", "01:29:60+01:30", "08:30:06.283185Z"],
                &["14:00:00", "24:00:00Z", "08:30:06.Z", "22:59:60Z", "08:30:06+24:00"],
            ),
            (
                "date-time",
                &["1963-06-19T08:30:06.283185Z", "1990-12-31T15:59:60-08:00", "2026-01-01t00:00:00z"],
                &["2026-01-01 00:00:00Z", "2026-01-01T00:00:00", "é026-01-01T00:00:00Z"],
            ),
            (
                "uuid",
                &["2eb8aa08-aa98-11ea-b4aa-73b441d16380"],
                &["2eb8aa08-aa98-11ea-b4aa73b441d16380", "2eb8aa08aa-98-11ea-b4aa73b441d16380"],
            ),
            ("ipv4", &["192.0.2.7"], &["192.0.2.256", "1.2.3"]),
            ("ipv6", &["::1"], &["::g"]),
        ] {
            let format = Format::of(format).unwrap();
            for text in good {
                assert!(format.takes_text(text), "{format:?} {text}");
            }
            for text in bad {
                assert!(!format.takes_text(text), "{format:?} {text}");
            }
        }
        let int32 = |text: &str| Format::Int32.takes_number(&serde_json::from_str(text).unwrap());
        assert!(int32("2147483647") && int32("-1.0") && !int32("2147483648") && !int32("0.5"));
    }
}
