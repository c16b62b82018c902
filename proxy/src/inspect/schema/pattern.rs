//! Patterns of ECMA-262 as the linear engine reads them. What takes more than linear time (look-around, back-references) is
//! refused, not emulated.

use std::{fmt, iter::Peekable, str::Chars};

use regex::{Regex, RegexBuilder};

/// Bytes of one pattern's program.
const PROGRAM_BYTES_MAX: usize = 1 << 20;
const PATTERN_BYTES_MAX: usize = 4 << 10;

/// Why a pattern is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(pub String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn compile(pattern: &str) -> Result<Regex, Unusable> {
    let translated = translate(pattern)?;
    let built = RegexBuilder::new(&translated).size_limit(PROGRAM_BYTES_MAX).build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        Unusable(last.trim_start_matches("error: ").to_owned())
    })
}

/// The same pattern in the words of the linear engine.
pub fn translate(pattern: &str) -> Result<String, Unusable> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(Unusable(format!("it has {} bytes; at most {PATTERN_BYTES_MAX} are taken", pattern.len())));
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\\' => match escape(&mut rest)? {
                Escaped::Set(chars) => out.extend(["[", chars.as_str(), "]"]),
                Escaped::One(one) => out.push_str(&one),
                Escaped::Outside(text) => out.push_str(text),
            },
            '[' => class(&mut rest, &mut out)?,
            '.' => out.push_str(r"[^\n\r\u{2028}\u{2029}]"),
            '(' => group(&mut rest, &mut out)?,
            // A brace that counts nothing is one.
            '{' if !counts(rest.clone()) => out.push_str(r"\{"),
            '{' => {
                out.push('{');
                out.extend(rest.by_ref().take_while(|it| *it != '}'));
                out.push('}');
            }
            '}' => out.push_str(r"\}"),
            ']' => out.push_str(r"\]"),
            _ => out.push(next),
        }
    }
    Ok(out)
}

/// `3}`, `3,}` or `3,5}`
fn counts(rest: Peekable<Chars<'_>>) -> bool {
    let text: String = rest.take_while(|it| *it != '}').take(16).collect();
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    match text.split_once(',') {
        Some((from, to)) => is_number(from) && (to.is_empty() || is_number(to)),
        None => is_number(&text),
    }
}

fn group(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), Unusable> {
    out.push('(');
    let mut ahead = rest.clone();
    if ahead.next() != Some('?') {
        return Ok(());
    }
    match (ahead.next(), ahead.next()) {
        (Some(':'), _) => {
            out.push_str("?:");
            rest.nth(1);
            Ok(())
        }
        (Some('<'), Some(third)) if third != '=' && third != '!' => {
            out.push_str("?<");
            rest.nth(1);
            Ok(())
        }
        _ => Err(Unusable("look-around takes more than linear time".into())),
    }
}

const DIGITS: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const BLANKS: &str = r"\s\x{feff}";

/// What one escape stands for.
enum Escaped {
    /// Within a class.
    Set(String),
    /// As it is written in either place.
    One(String),
    /// Outside of classes alone.
    Outside(&'static str),
}

fn escape(rest: &mut Peekable<Chars<'_>>) -> Result<Escaped, Unusable> {
    let Some(next) = rest.next() else { return Err(Unusable("it ends in a backslash".into())) };
    let set = |negated: bool, chars: &str| {
        Ok(Escaped::Set(match negated {
            false => chars.to_owned(),
            true => format!("[^{chars}]"),
        }))
    };
    match next {
        'd' => set(false, DIGITS),
        'D' => set(true, DIGITS),
        'w' => set(false, WORD),
        'W' => set(true, WORD),
        's' => set(false, BLANKS),
        'S' => set(true, BLANKS),
        'p' | 'P' => {
            let category = match rest.next() {
                Some('{') => rest.by_ref().take_while(|it| *it != '}').collect(),
                Some(letter) => letter.to_string(),
                None => String::new(),
            };
            Ok(Escaped::Set(format!(r"\{next}{{{category}}}")))
        }
        'b' => Ok(Escaped::Outside(r"(?-u:\b)")),
        'B' => Err(Unusable(r"\B is not taken".into())),
        'n' | 'r' | 't' | 'f' | 'v' => Ok(Escaped::One(format!(r"\{next}"))),
        '0' if !rest.peek().is_some_and(char::is_ascii_digit) => code(Some(0)),
        '0'..='9' | 'k' => Err(Unusable("back-references take more than linear time".into())),
        'x' => code(Some(hex(rest, 2)?)),
        'u' if rest.peek() == Some(&'{') => {
            rest.next();
            let digits: String = rest.by_ref().take_while(|it| *it != '}').take(8).collect();
            code(u32::from_str_radix(&digits, 16).ok())
        }
        'u' => {
            let first = hex(rest, 4)?;
            // A pair of surrogates is one character.
            let mut ahead = rest.clone();
            let is_pair = (0xd800..0xdc00).contains(&first) && ahead.next() == Some('\\') && ahead.next() == Some('u');
            if !is_pair {
                return code(Some(first));
            }
            let second = hex(&mut ahead, 4)?;
            *rest = ahead;
            code(second.checked_sub(0xdc00).map(|low| 0x10000 + ((first - 0xd800) << 10) + low))
        }
        'c' => match rest.next() {
            Some(letter) if letter.is_ascii_alphabetic() => code(Some(u32::from(letter) % 32)),
            _ => Err(Unusable(r"\c names no control character".into())),
        },
        _ if next.is_ascii_alphabetic() => Err(Unusable(format!(r"\{next} means nothing"))),
        _ => Ok(Escaped::One(quoted(next))),
    }
}

fn code(code: Option<u32>) -> Result<Escaped, Unusable> {
    match code.and_then(char::from_u32) {
        Some(it) => Ok(Escaped::One(format!(r"\x{{{:x}}}", u32::from(it)))),
        None => Err(Unusable("an escape names no character".into())),
    }
}

fn hex(rest: &mut Peekable<Chars<'_>>, count: usize) -> Result<u32, Unusable> {
    let digits: String = rest.by_ref().take(count).collect();
    u32::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| digits.len() == count)
        .ok_or_else(|| Unusable("an escape has not enough hex digits".into()))
}

fn quoted(it: char) -> String {
    match it.is_ascii_punctuation() && !matches!(it, '<' | '>') {
        true => format!(r"\{it}"),
        false => it.to_string(),
    }
}

/// What stands between brackets, the first of which is behind us.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), Unusable> {
    let negated = rest.next_if_eq(&'^').is_some();
    if rest.next_if_eq(&']').is_some() {
        // ECMA-262: `[]` is nothing, `[^]` anything.
        out.push_str(if negated { r"[\x00-\x{10ffff}]" } else { r"[^\x00-\x{10ffff}]" });
        return Ok(());
    }
    out.push_str(if negated { "[^" } else { "[" });
    // A hyphen beside a set of characters is one.
    let mut after_set = true;
    while let Some(next) = rest.next() {
        let mut is_set = false;
        match next {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '\\' if rest.peek() == Some(&'b') => {
                rest.next();
                out.push_str(r"\x08");
            }
            '\\' => match escape(rest)? {
                Escaped::Set(chars) => {
                    out.push_str(&chars);
                    is_set = true;
                }
                Escaped::One(one) => out.push_str(&one),
                Escaped::Outside(_) => return Err(Unusable("a class has an escape that matches no character".into())),
            },
            '-' => {
                let mut ahead = rest.clone();
                let before_set = ahead.next() == Some('\\')
                    && ahead.next().is_some_and(|it| matches!(it, 'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'p' | 'P'));
                match after_set || before_set || rest.peek() == Some(&']') {
                    true => out.push_str(r"\-"),
                    false => out.push('-'),
                }
                // `a-z-9`: the second is no range.
                is_set = false;
            }
            _ if next.is_ascii_punctuation() => out.push_str(&quoted(next)),
            _ => out.push(next),
        }
        after_set = is_set;
    }
    Err(Unusable("a class has no end".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_ecma_262_says() {
        for (pattern, takes, leaves) in [
            (r"^\d+$", "12", "१२"),
            (r"^[\w-]+$", "a-b_c", "ä"),
            (r"^[\w.-]{1,3}$", "a.-", "a.-b"),
            (r"^\S(|(.|\n)*\S)\Z?$", "", ""),
            (r"^[a-z&&[b]+$", "a&[", "A"),
            (r"^[^]$", "\n", ""),
            (r"^.$", "x", "\u{2028}"),
            (r"^\u0061\x62\u{63}\ud83d\ude00$", "abc\u{1f600}", "abc"),
            (r"^a/b\/c$", "a/b/c", "abc"),
            (r"^{a}$", "{a}", "a"),
            (r"^a{2,}$", "aaa", "a"),
            (r"^(?<x>a|b)$", "a", "c"),
            (r"^(?:a)\-#~ $", "a-#~ ", "a"),
            (r"^[+\-*/]$", "-", "x"),
            (r"^\p{L}+$", "é", "1"),
            (r"\bfoo\b", "a foo", "afoo"),
            (r"^[\]]$", "]", "["),
            (r"^[$_a-zA-Z]", "$", "1"),
        ] {
            if takes == leaves {
                assert!(compile(pattern).is_err(), "{pattern}");
                continue;
            }
            let regex = compile(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
            assert!(regex.is_match(takes), "{pattern} takes {takes}: {regex}");
            assert!(!regex.is_match(leaves), "{pattern} leaves {leaves}: {regex}");
        }
    }

    #[test]
    fn what_takes_more_than_linear_time_is_refused() {
        for pattern in [r"^(?=.*\d)x", r"(?!a)b", r"(?<=a)b", r"(a)\1", r"\k<x>", "[", "(", r"\y", "a{9999}{9999}"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }
}
