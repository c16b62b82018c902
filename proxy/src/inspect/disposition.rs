//! What a part of a form says that it is called (Content-Disposition, RFC 7578 4.2). It is read here and not by the library that
//! finds the parts: that takes the first of several names, and finds one within the value of another parameter.

use http::header;
use multer::Field;

use super::found::Step;

/// Of one part; what has more is refused.
const PARAMETERS_MAX: usize = 16;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Disposition(Vec<(String, Vec<u8>)>);

impl Disposition {
    /// Err: two servers may read two things in it.
    pub(super) fn of(field: &Field<'_>) -> Result<Self, &'static str> {
        field.headers().get(header::CONTENT_DISPOSITION).map_or(Ok(Self::default()), |it| Self::read(it.as_bytes()))
    }

    fn read(text: &[u8]) -> Result<Self, &'static str> {
        let all = parameters(text).ok_or("the part's Content-Disposition cannot be taken apart")?;
        let is_there_before = |place: usize| all[..place].iter().any(|(name, _)| *name == all[place].0);
        if (0..all.len()).any(is_there_before) {
            return Err("the part's Content-Disposition has a parameter twice");
        }
        if all.iter().any(|(name, _)| name == "name*") {
            return Err("the part's Content-Disposition has name*, which no part of a form has");
        }
        Ok(Self(all))
    }

    fn value(&self, wanted: &str) -> Option<&[u8]> {
        self.0.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_slice())
    }

    /// None: it has none that is text.
    pub(super) fn name(&self) -> Option<&str> {
        std::str::from_utf8(self.value("name")?).ok()
    }

    /// What has one is a file.
    pub(super) fn file_name(&self) -> Option<&[u8]> {
        self.value("filename")
    }

    /// Of all parameters.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(_, value)| value.as_slice())
    }

    /// To the part: by its name, else by its number.
    pub(super) fn step(&self, place: usize) -> Step<'static> {
        self.name().map_or(Step::Index(place), |name| Step::Key(name.to_owned().into()))
    }
}

/// Behind the type, each with its name in lower case. None: two readers may take it apart in two ways.
pub(super) fn parameters(text: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut rest = text.iter().position(|byte| *byte == b';').map_or(&[][..], |at| &text[at..]);
    let mut all = Vec::new();
    while let [b';', more @ ..] = rest {
        rest = more.trim_ascii_start();
        // One that is empty, or behind the last.
        if matches!(rest, [] | [b';', ..]) {
            continue;
        }
        let (name, value) = rest.split_at(rest.iter().position(|byte| *byte == b'=')?);
        let name = name.trim_ascii_end();
        let is_name = !name.is_empty() && !name.iter().any(|byte| b";\" \t".contains(byte));
        if !is_name || all.len() == PARAMETERS_MAX {
            return None;
        }
        let (value, behind) = value_of(value[1..].trim_ascii_start())?;
        all.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value));
        rest = behind.trim_ascii_start();
    }
    rest.is_empty().then_some(all)
}

/// What stands at the start, between quotes or not, and what comes behind it. Of escapes only that of a quote is one: browsers of
/// old send paths with backslashes.
fn value_of(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';' || byte.is_ascii_whitespace()).unwrap_or(text.len());
        let (value, behind) = text.split_at(end);
        return (!value.contains(&b'"')).then(|| (value.to_vec(), behind));
    };
    let (mut value, mut rest) = (Vec::new(), quoted);
    loop {
        match rest {
            [b'"', behind @ ..] => return Some((value, behind)),
            // A backslash at the end, as the grammar has it.
            [b'\\', b'\\', b'"', behind @ ..] if matches!(behind.trim_ascii_start(), [] | [b';', ..]) => {
                value.push(b'\\');
                return Some((value, behind));
            }
            [b'\\', b'"', behind @ ..] => {
                value.push(b'"');
                rest = behind;
            }
            [byte, behind @ ..] => {
                value.push(*byte);
                rest = behind;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(Option<&str>, Option<&str>), &str>) {
        let read = Disposition::read(text.as_bytes());
        let file = |it: &Disposition| it.file_name().map(|it| String::from_utf8_lossy(it).into_owned());
        let found = read.as_ref().map(|it| (it.name(), file(it))).map_err(|detail| *detail);
        match (found, expected) {
            (Ok((name, file)), Ok(expected)) => assert_eq!((name, file.as_deref()), expected, "{text}"),
            (Err(detail), Err(mention)) => assert!(detail.contains(mention), "{text}: {detail}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn a_part_is_called_what_every_server_reads() {
        check("form-data; name=\"a b\"; filename=\"c;d.png\"", Ok((Some("a b"), Some("c;d.png"))));
        check("form-data;name=a;FileName = x ;", Ok((Some("a"), Some("x"))));
        check(
            "form-data; name=\"a \\\"b\\\"\"; filename=\"C:\\x\\y.png\"",
            Ok((Some("a \"b\""), Some("C:\\x\\y.png"))),
        );
        check(
            "form-data; filename=\"my name=x\"; name=\"the filename\"",
            Ok((Some("the filename"), Some("my name=x"))),
        );
        check("form-data; name=a; filename=b; filename*=utf-8''b", Ok((Some("a"), Some("b"))));
        check("form-data; name=\"\"", Ok((Some(""), None)));
        check("form-data; filename=\"a\\\\\"; name=b", Ok((Some("b"), Some("a\\"))));
        check("form-data; name=b; filename=\"a\\\\\"", Ok((Some("b"), Some("a\\"))));
        check("form-data; name=b; filename=\"a\\\\b\"", Ok((Some("b"), Some("a\\\\b"))));
        check("form-data", Ok((None, None)));
    }

    #[test]
    fn what_two_servers_may_read_in_two_ways_is_told() {
        for text in ["name=a; name=b", "name=a; NAME=a", "name=a; filename=\"b\"; filename=\"c\""] {
            check(&format!("form-data; {text}"), Err("twice"));
        }
        check("form-data; name=a; name*=utf-8''b", Err("name*"));
        for text in ["name", "name=\"a", "name=\"a\"b", "name=a\"b\"", "name=a b", "=a", "name=\"a\\\""] {
            check(&format!("form-data; {text}"), Err("taken apart"));
        }
        let many: String = (0..=PARAMETERS_MAX).map(|it| format!("; a{it}=1")).collect();
        check(&format!("form-data{many}"), Err("taken apart"));
    }
}
