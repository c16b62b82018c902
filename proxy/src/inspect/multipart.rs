//! `multipart/form-data` (RFC 7578) held against the bounds of a policy, part by part.

use std::{borrow::Cow, convert::Infallible, future::ready};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, header};
use multer::Multipart;
use quorumgate_model::resource::MultipartPolicy;

use super::{
    disposition::Disposition,
    found::{ERRORS_MAX, Step, Violation, pointer},
};

/// Header fields of one part.
const FIELDS_MAX: usize = 32;

/// Empty: it is as the policy wants it.
pub(super) fn check(headers: &HeaderMap, bytes: &Bytes, limits: &MultipartPolicy) -> Vec<Violation> {
    let mut found = Vec::new();
    let Some(mut parts) = parts(headers, bytes) else {
        found.push(Violation::body(String::new(), "syntax", "Content-Type names no boundary between parts"));
        return found;
    };
    found.extend(says_twice(headers, bytes));
    // All of it is there: nothing is waited for.
    let walked = walk(&mut parts, limits, &mut found).now_or_never();
    match walked {
        Some(Ok(())) => {}
        _ if found.len() >= ERRORS_MAX => {}
        Some(Err(error)) => {
            found.push(Violation::body(String::new(), "syntax", format!("this is not multipart: {error}")));
        }
        None => found.push(Violation::body(String::new(), "syntax", "this is not multipart: it has no end")),
    }
    found
}

/// None: nothing says where parts end.
pub(super) fn parts(headers: &HeaderMap, bytes: &Bytes) -> Option<Multipart<'static>> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multer::parse_boundary(kind).ok()?;
    Some(Multipart::new(stream::once(ready(Ok::<_, Infallible>(bytes.clone()))), boundary))
}

/// A part of which two servers may read two things: of a field that is there twice the reader above keeps the last. What is in a
/// part, or behind the last one, is no head (RFC 2046 5.1.1).
pub(super) fn says_twice(headers: &HeaderMap, bytes: &[u8]) -> Option<Violation> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let delimiter = format!("--{}", multer::parse_boundary(kind).ok()?);
    let (mut begun, mut in_head, mut names) = (0, false, Vec::new());
    let mut is_behind_end = true;
    for line in bytes.split(|it| *it == b'\n') {
        let (line, has_end) = line.strip_suffix(b"\r").map_or((line, false), |line| (line, true));
        let behind = line.strip_prefix(delimiter.as_bytes()).filter(|_| is_behind_end);
        if behind.is_some_and(|it| it.starts_with(b"--")) {
            return None;
        }
        if has_end && behind.is_some_and(|it| it.trim_ascii().is_empty()) {
            (begun, in_head) = (begun + 1, true);
            names.clear();
        } else if in_head && line.is_empty() && has_end && is_behind_end {
            in_head = false;
        } else if in_head && let Some(end) = line.iter().position(|it| *it == b':') {
            let name = line[..end].trim_ascii().to_ascii_lowercase();
            if names.len() >= FIELDS_MAX || names.contains(&name) {
                let at = pointer(&[Step::Index(begun - 1)]);
                return Some(Violation::body(at, "syntax", "the part has a header field twice"));
            }
            names.push(name);
        }
        is_behind_end = has_end;
    }
    None
}

async fn walk(
    parts: &mut Multipart<'static>,
    limits: &MultipartPolicy,
    found: &mut Vec<Violation>,
) -> Result<(), multer::Error> {
    let mut files = 0;
    let mut place = 0;
    while let Some(mut field) = parts.next_field().await? {
        let mut find = |step: &[Step<'_>], rule, detail: Cow<'static, str>| {
            if found.len() < ERRORS_MAX {
                found.push(Violation::body(pointer(step), rule, detail));
            }
        };
        let named = Disposition::of(&field).unwrap_or_else(|detail| {
            find(&[Step::Index(place)], "syntax", detail.into());
            Disposition::default()
        });
        let step = [named.step(place)];
        place += 1;
        if place == limits.max_parts as usize + 1 {
            // What follows is not even read.
            find(&[], "max_parts", format!("there are more than {} parts", limits.max_parts).into());
            return Ok(());
        }
        let long = |name: Option<&[u8]>| name.is_some_and(|it| it.len() as u64 > limits.max_name.0);
        if long(named.name().map(str::as_bytes)) || long(named.file_name()) {
            find(&step, "max_name", format!("the part's name is longer than {} bytes", limits.max_name.0).into());
        }
        files += u32::from(named.file_name().is_some());
        if files == limits.max_files + 1 && named.file_name().is_some() {
            find(&step, "max_files", format!("there are more than {} files", limits.max_files).into());
        }
        let mut size = 0;
        while let Some(chunk) = field.chunk().await? {
            size += chunk.len() as u64;
        }
        if size > limits.max_part.0 {
            find(&step, "max_part", format!("the part is longer than {} bytes", limits.max_part.0).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use quorumgate_model::units::Size;

    use super::*;

    fn part(disposition: &str, body: &str) -> String {
        format!("--X\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{body}\r\n")
    }

    #[track_caller]
    fn check(kind: &'static str, body: String, expected: &[(&str, &str)]) {
        let limits =
            MultipartPolicy { max_parts: 3, max_files: 1, max_part: Size(8), max_name: Size(4), ..Default::default() };
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let found = super::check(&headers, &body.into(), &limits);
        let found: Vec<_> = found.iter().map(|it| (it.rule, it.pointer.as_str())).collect();
        assert_eq!(found, expected);
    }

    const KIND: &str = "multipart/form-data; boundary=X";

    #[test]
    fn each_bound_is_told_by_its_part() {
        let fine = part("name=\"a\"", "1") + &part("name=\"f\"; filename=\"x.t\"", "12345678");
        check(KIND, format!("{fine}--X--\r\n"), &[]);
        check(KIND, format!("{fine}{}--X--\r\n", part("name=\"g\"; filename=\"y\"", "")), &[("max_files", "/g")]);
        check(KIND, format!("{}--X--\r\n", part("name=\"a/b\"", "123456789")), &[("max_part", "/a~1b")]);
        check(KIND, format!("{}--X--\r\n", part("name=\"abcde\"", "")), &[("max_name", "/abcde")]);
        check(KIND, format!("{}--X--\r\n", part("name=\"a\"", "").repeat(9)), &[("max_parts", "")]);
    }

    #[test]
    fn what_is_not_framed_is_told() {
        check("multipart/form-data", part("name=\"a\"", "1"), &[("syntax", "")]);
        check(KIND, part("name=\"a\"", "1"), &[("syntax", "")]);
        check(KIND, "no parts".into(), &[("syntax", "")]);
        check(KIND, "--X\r\nContent-Disposition\r\n\r\n1\r\n--X--".into(), &[("syntax", "")]);
    }

    #[test]
    fn a_part_with_two_names_is_told() {
        for disposition in
            ["name=\"n\"; name=\"z\"", "name=\"n\"; name*=utf-8''z", "name=f; filename=\"a\"; filename=\"b\"", "name"]
        {
            let body = part("name=\"a\"", "1") + &part(disposition, "1");
            check(KIND, format!("{body}--X--\r\n"), &[("syntax", "/1")]);
        }
        let again = part("name=\"a\"\r\ncontent-disposition: form-data; name=\"b\"", "1");
        check(KIND, format!("{again}--X--\r\n"), &[("syntax", "/0")]);
        let fine = part("name=n; filename=\"a\"; filename*=utf-8''a", "1");
        check(KIND, format!("{fine}--X--\r\n"), &[]);
    }

    #[test]
    fn what_is_in_a_part_or_behind_the_last_is_no_head() {
        let fine = part("name=n", "1");
        check(KIND, format!("{fine}--X--\r\nto: a\r\nto: b\r\n--X\r\nto: a\r\nto: b\r\n"), &[]);
        let limits = MultipartPolicy::default();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(KIND))]);
        for text in ["x\n--X\nfoo: 1\nfoo: 2\n", "x: 1\r\nx: 2\r\n"] {
            let body = format!("{}--X--\r\n", part("name=n", text));
            assert_eq!(super::check(&headers, &body.into(), &limits), []);
        }
        // Blanks behind a delimiter are none of it.
        let again = part("name=n\r\nfoo: 1\r\nFoo: 2", "1").replace("--X\r\n", "--X \t\r\n");
        let found = says_twice(&headers, again.as_bytes()).map(|it| it.pointer);
        assert_eq!(found.as_deref(), Some("/0"));
    }
}
