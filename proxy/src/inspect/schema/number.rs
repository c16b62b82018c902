//! Numbers as JSON has them: 1 and 1.0 are one number, and 0.3 is a multiple of 0.1.

use std::cmp::Ordering;

use serde_json::Number;

/// A number of so many decimal places at most is reckoned exactly.
const PLACES_MAX: i32 = 30;

pub(super) fn is_whole(it: &Number) -> bool {
    it.is_i64() || it.is_u64() || it.as_f64().is_some_and(|it| it.fract() == 0.0)
}

/// What is whole and not too large for it.
pub(super) fn whole(it: &Number) -> Option<i128> {
    let wide = |it: f64| (it.fract() == 0.0 && it.abs() < 1e18).then_some(it as i128);
    it.as_i64().map(i128::from).or(it.as_u64().map(i128::from)).or_else(|| wide(it.as_f64()?))
}

pub(super) fn compare(a: &Number, b: &Number) -> Ordering {
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        return a.cmp(&b);
    }
    let float = |it: &Number| it.as_f64().unwrap_or(f64::NAN);
    float(a).partial_cmp(&float(b)).unwrap_or(Ordering::Equal)
}

pub(super) fn is_multiple(it: &Number, of: &Number) -> bool {
    if let (Some((a, a_places)), Some((b, b_places))) = (decimal(it), decimal(of)) {
        let places = a_places.max(b_places);
        let scaled = |digits: i128, own: i32| {
            let factor = 10i128.checked_pow((places - own) as u32)?;
            digits.checked_mul(factor)
        };
        if let (Some(a), Some(b)) = (scaled(a, a_places), scaled(b, b_places)) {
            return b != 0 && a % b == 0;
        }
    }
    let (Some(a), Some(b)) = (it.as_f64(), of.as_f64()) else { return false };
    let rest = a % b;
    rest == 0.0
}

/// Digits, and how many of them stand behind the point: of the shortest text that means this number.
fn decimal(it: &Number) -> Option<(i128, i32)> {
    let text = it.to_string();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text.as_str(), 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    match places {
        places if places > PLACES_MAX => None,
        places if places >= 0 => Some((digits, places)),
        places => Some((digits.checked_mul(10i128.checked_pow(places.unsigned_abs())?)?, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn multiples_are_reckoned_in_decimals() {
        for (it, of, expected) in [
            ("0.3", "0.1", true),
            ("19.99", "0.01", true),
            ("0.0075", "0.0001", true),
            ("0.00751", "0.0001", false),
            ("10", "2", true),
            ("7", "2", false),
            ("35", "1.5", false),
            ("4.5", "1.5", true),
            ("1e308", "0.5", true),
            ("12391239123", "1e-8", true),
            ("1e3", "10", true),
        ] {
            assert_eq!(is_multiple(&number(it), &number(of)), expected, "{it} {of}");
        }
    }

    #[test]
    fn a_number_is_one_however_it_is_written() {
        for (a, b, expected) in [
            ("1", "1.0", Ordering::Equal),
            ("9007199254740993", "9007199254740992", Ordering::Greater),
            ("18446744073709551615", "-1", Ordering::Greater),
            ("0.5", "1", Ordering::Less),
        ] {
            assert_eq!(compare(&number(a), &number(b)), expected, "{a} {b}");
        }
        assert!(is_whole(&number("1.0")) && !is_whole(&number("1.5")) && is_whole(&number("1e300")));
    }
}
