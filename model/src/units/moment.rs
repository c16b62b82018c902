//! Instants as operators write them (RFC 3339): `2026-11-25T14:00:00Z`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

/// The end of the year 9999, the last that RFC 3339 can say.
pub const MOMENT_MAX: Moment = Moment(253_402_300_799_999);

const ALLOWED: &str = "a date and a time with a zone (RFC 3339), such as 2026-11-25T14:00:00Z";
const DAY_MS: u64 = 86_400_000;

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| format!("found {text:?}; allowed: {ALLOWED}"))
    }
}

fn parse(text: &str) -> Option<Moment> {
    let head = text.get(..19)?;
    let shape = |(place, byte): (usize, u8)| match place {
        4 | 7 => byte == b'-',
        10 => matches!(byte, b'T' | b't' | b' '),
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    };
    if !head.bytes().enumerate().all(shape) {
        return None;
    }
    let number = |from: usize, to: usize| head[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction_ms, zone) = fraction(&text[19..])?;
    let local = days_before(year, month, day) * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000 + fraction_ms;
    let moment = match zone {
        "Z" | "z" => local,
        zone => {
            let digits =
                zone.get(1..)?.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2);
            let (hours, minutes) = digits?;
            let part = |text: &str, max: u64| text.parse::<u64>().ok().filter(|it| *it <= max);
            let offset = (part(hours, 23)? * 60 + part(minutes, 59)?) * 60_000;
            match zone.as_bytes()[0] {
                b'+' => local.checked_sub(offset)?,
                b'-' => local + offset,
                _ => return None,
            }
        }
    };
    Some(Moment(moment)).filter(|moment| *moment <= MOMENT_MAX)
}

/// `.25Z` is 250 and `Z`; what is below a millisecond is cut off.
fn fraction(rest: &str) -> Option<(u64, &str)> {
    let Some(rest) = rest.strip_prefix('.') else { return Some((0, rest)) };
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let (digits, zone) = rest.split_at(digits);
    let mut ms = 0;
    for place in 0..3 {
        ms = ms * 10 + digits.as_bytes().get(place).map_or(0, |digit| u64::from(digit - b'0'));
    }
    (!digits.is_empty()).then_some((ms, zone))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to this one.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    // Years that are over, with a leap day each fourth, but for three centuries of four.
    let leap_days = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
    years + (1..month).map(|month| days_in(year, month)).sum::<u64>() + day - 1
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut days, ms) = (self.0 / DAY_MS, self.0 % DAY_MS);
        // Within a year of the right one, then exactly.
        let mut year = 1970 + days / 366;
        while days_before(year + 1, 1, 1) <= days {
            year += 1;
        }
        days -= days_before(year, 1, 1);
        let mut month = 1;
        while days >= days_in(year, month) {
            days -= days_in(year, month);
            month += 1;
        }
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", days + 1)?;
        match ms % 1000 {
            0 => f.write_str("Z"),
            ms => write!(f, ".{ms:03}Z"),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_shown_in_utc() {
        for (text, ms, shown) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2000-02-29T12:30:15.25Z", 951_827_415_250, "2000-02-29T12:30:15.250Z"),
            ("2026-11-25T15:00:00+01:00", 1_795_615_200_000, "2026-11-25T14:00:00Z"),
            ("2026-11-25 08:30:00-05:30", 1_795_615_200_000, "2026-11-25T14:00:00Z"),
            ("9999-12-31T23:59:59.999Z", MOMENT_MAX.0, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(text.parse(), Ok(Moment(ms)), "{text}");
            assert_eq!(Moment(ms).to_string(), shown);
        }
    }

    #[test]
    fn every_day_survives_a_round_trip() {
        for day in 0..200_000 {
            let moment = Moment(day * DAY_MS);
            assert_eq!(moment.to_string().parse(), Ok(moment));
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-25",
            "2026-11-25T14:00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T14:00:00.Z",
            "2026-11-25T14:00:00+0100",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-11-25T14:00:00Zx",
            "2026-11-25T14:00:00é",
        ] {
            assert!(text.parse::<Moment>().unwrap_err().contains("RFC 3339"), "{text}");
        }
    }
}
