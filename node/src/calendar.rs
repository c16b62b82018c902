//! Periods of the calendar in a time zone, by the time zone database that this build brings along. Only the leader asks:
//! what it finds is proposed, and no other node computes it again.

use jiff::{Timestamp, ToSpan, ZonedDateTime, civil, tz::TimeZone};
use quorumgate_model::{invalid::Invalid, ledger::Period, resource::Every};

const MICROS: i64 = 1_000_000;

/// Whether there is such a zone.
pub fn check(zone: &str) -> Result<(), Invalid> {
    let known = jiff::tz::db().get(zone);
    let allowed = "the name of a time zone of the IANA database, such as Europe/Berlin";
    known.map(drop).map_err(|_| Invalid::field("zone").found(format!("{zone:?}")).allowed(allowed))
}

/// The period that Unix time `wall_us` lies in. None: the zone is unknown here, or the time is beyond all calendars.
pub fn period(every: Every, zone: &str, wall_us: u64) -> Option<Period> {
    let zone = jiff::tz::db().get(zone).ok()?;
    let now = Timestamp::from_microsecond(i64::try_from(wall_us).ok()?).ok()?.to_zoned_datetime(zone);
    let (begin, end) = match every {
        Every::Minute => span(&now, now.second().into(), 60)?,
        Every::Hour => span(&now, i64::from(now.minute()) * 60 + i64::from(now.second()), 3_600)?,
        Every::Day => between(&now, now.date(), now.date().tomorrow().ok()?)?,
        Every::Month => {
            let first = now.date().first_of_month();
            between(&now, first, first.checked_add(1.month()).ok()?)?
        }
    };
    Some(Period { number: u64::try_from(begin).ok()?, ends_us: u64::try_from(end.checked_mul(MICROS)?).ok()? })
}

/// A minute or an hour of the zone's own clock; one that the clock is put forward or back in ends when it would have.
fn span(now: &ZonedDateTime, past_s: i64, length_s: i64) -> Option<(i64, i64)> {
    let begin = now.timestamp().as_second() - past_s;
    Some((begin, begin + length_s))
}

/// From midnight to midnight, or where there is none, from when the day begins.
fn between(now: &ZonedDateTime, from: civil::Date, to: civil::Date) -> Option<(i64, i64)> {
    let begins = |date: civil::Date| begins(date, now.time_zone());
    Some((begins(from)?, begins(to)?))
}

fn begins(date: civil::Date, zone: &TimeZone) -> Option<i64> {
    Some(date.to_zoned_datetime(zone.clone()).ok()?.start_of_day().ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(every: Every, zone: &str, now: &str, begins: &str, ends: &str) {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let wall_us = at(now).as_microsecond() as u64;
        let found = period(every, zone, wall_us).unwrap();
        let text = |second: i64| Timestamp::from_second(second).unwrap().to_string();
        assert_eq!((text(found.number as i64), text(found.ends_us as i64 / MICROS)), (begins.into(), ends.into()));
        assert_eq!(period(every, zone, found.begins_us()), Some(found), "its first instant is in it");
        let next = period(every, zone, found.ends_us).unwrap();
        assert!(next.number > found.number, "its end is in the next");
    }

    #[test]
    fn periods_follow_the_zone_its_summer_and_the_lengths_of_months() {
        use Every::{Day, Hour, Minute, Month};
        check(Minute, "UTC", "2026-11-25T14:19:10.5Z", "2026-11-25T14:19:00Z", "2026-11-25T14:20:00Z");
        check(Hour, "Asia/Kolkata", "2026-11-25T14:19:10Z", "2026-11-25T13:30:00Z", "2026-11-25T14:30:00Z");
        check(Day, "Europe/Berlin", "2026-11-25T23:30:00Z", "2026-11-25T23:00:00Z", "2026-11-26T23:00:00Z");
        // 23 and 25 hours long.
        check(Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        // The clock is put forward at midnight: there is no 00:00.
        check(Day, "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z");
        check(Month, "UTC", "2028-02-10T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        check(Month, "America/New_York", "2026-11-25T00:00:00Z", "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z");
        check(Month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
    }

    #[test]
    fn a_zone_that_is_not_there_is_refused() {
        assert!(super::check("Europe/Berlin").is_ok());
        assert!(super::check("UTC").is_ok());
        let invalid = super::check("Europe/Atlantis").unwrap_err();
        assert_eq!((invalid.field.as_str(), invalid.found.as_str()), ("zone", "\"Europe/Atlantis\""));
    }
}
