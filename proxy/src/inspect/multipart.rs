//! `multipart/form-data` (RFC 7578) held against the bounds of a policy, part by part.

use std::{borrow::Cow, convert::Infallible, future::ready};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderName, header};
use multer::{Field, Multipart};
use quorumgate_model::resource::MultipartPolicy;

use super::{
    disposition::{Disposition, parameters},
    found::{ERRORS_MAX, Step, Violation, pointer},
    media::Media,
};

/// Header fields of one part.
const FIELDS_MAX: usize = 32;

/// Empty: it is as the policy wants it.
pub(super) fn check(headers: &HeaderMap, bytes: &Bytes, limits: &MultipartPolicy) -> Vec<Violation> {
    let mut parts = match parts(headers, bytes) {
        Ok(parts) => parts,
        Err(detail) => return vec![Violation::body(String::new(), "syntax", detail)],
    };
    if let Some(found) = says_twice(headers, bytes) {
        return vec![found];
    }
    let mut found = Vec::new();
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

/// Err: nothing says where parts end, or it says two things.
pub(super) fn parts(headers: &HeaderMap, bytes: &Bytes) -> Result<Multipart<'static>, &'static str> {
    let boundary = boundary(headers)?;
    Ok(Multipart::new(stream::once(ready(Ok::<_, Infallible>(bytes.clone()))), boundary))
}

/// Of two, or of one in pieces (RFC 2231), each server takes another.
fn boundary(headers: &HeaderMap) -> Result<String, &'static str> {
    const NONE: &str = "Content-Type names no boundary between parts";
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let kind = kinds.next().ok_or(NONE)?.as_bytes();
    if kinds.next().is_some() {
        return Err("Content-Type is there twice");
    }
    let said = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    if !said.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data") {
        return Err(NONE);
    }
    let all = parameters(kind).ok_or("Content-Type cannot be taken apart")?;
    let mut named = all.into_iter().filter(|(name, _)| name == "boundary" || name.starts_with("boundary*"));
    let (name, value) = named.next().ok_or(NONE)?;
    if name != "boundary" || named.next().is_some() {
        return Err("Content-Type names a boundary twice, or in pieces");
    }
    let is_of_boundaries = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if value.is_empty() || value.ends_with(b" ") || !value.iter().all(is_of_boundaries) {
        return Err("Content-Type names a boundary that is none (RFC 2046 5.1.1)");
    }
    String::from_utf8(value).map_err(|_| NONE)
}

/// What two servers may read in two ways: of a field that is there twice the reader above keeps the last; some begin a part behind
/// a bare LF or CR, and what stands before the first is a part to whom goes by another boundary. What is in a part, or behind the
/// last one, is no head (RFC 2046 5.1.1).
pub(super) fn says_twice(headers: &HeaderMap, bytes: &[u8]) -> Option<Violation> {
    let delimiter = format!("--{}", boundary(headers).ok()?).into_bytes();
    let whole = |detail: &'static str| Some(Violation::body(String::new(), "syntax", detail));
    let of = |part: usize, detail: &'static str| Some(Violation::body(pointer(&[Step::Index(part)]), "syntax", detail));
    let (mut begun, mut in_head, mut names) = (0_usize, false, Vec::new());
    let mut is_behind_end = true;
    for line in bytes.split(|it| *it == b'\n') {
        let (line, has_end) = line.strip_suffix(b"\r").map_or((line, false), |line| (line, true));
        let mut runs = line.split(|it| *it == b'\r').enumerate();
        if runs.any(|(run, it)| it.starts_with(&delimiter) && (run > 0 || !is_behind_end)) {
            return whole("a delimiter between parts stands behind a bare LF or CR");
        }
        let behind = line.strip_prefix(delimiter.as_slice());
        if let Some(rest) = behind.and_then(|it| it.strip_prefix(b"--")) {
            return if rest.trim_ascii().is_empty() {
                None
            } else {
                whole("the last delimiter has something behind it")
            };
        }
        if begun == 0 && behind.is_none() && !line.is_empty() {
            return whole("something stands before the first part");
        }
        if has_end && behind.is_some_and(|it| it.trim_ascii().is_empty()) {
            (begun, in_head) = (begun + 1, true);
            names.clear();
        } else if in_head && (!has_end || line.contains(&b'\r')) {
            return of(begun - 1, "a header field of the part ends with a bare LF or CR");
        } else if in_head && line.is_empty() {
            in_head = false;
        } else if in_head && let Some(end) = line.iter().position(|it| *it == b':') {
            let name = line[..end].trim_ascii().to_ascii_lowercase();
            if names.len() >= FIELDS_MAX || names.contains(&name) {
                return of(begun - 1, "the part has a header field twice");
            }
            names.push(name);
        }
        is_behind_end = has_end;
    }
    None
}

/// In a coding of its own (Content-Transfer-Encoding): a server may read other bytes out of it than stand there.
pub(super) fn is_coded(field: &Field<'_>) -> bool {
    const CODING: HeaderName = HeaderName::from_static("content-transfer-encoding");
    let is_plain = |value: &[u8]| ["7bit", "8bit", "binary"].iter().any(|it| value.eq_ignore_ascii_case(it.as_bytes()));
    field.headers().get_all(CODING).iter().any(|it| !is_plain(it.as_bytes().trim_ascii()))
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
        if is_coded(&field) {
            find(&step, "encoding", "the part is in a coding of its own (Content-Transfer-Encoding)".into());
        }
        if Media::of(field.headers()).is_foreign() {
            find(&step, "encoding", "the part is in a charset that is not looked into".into());
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
    fn a_part_that_a_server_reads_other_bytes_out_of_is_told() {
        for field in [
            "Content-Transfer-Encoding: base64",
            "content-transfer-encoding: quoted-printable",
            "Content-Type: text/plain; charset=ibm037",
        ] {
            let body = part(&format!("name=n\r\n{field}"), "YQ==");
            check(KIND, format!("{body}--X--\r\n"), &[("encoding", "/n")]);
        }
        let plain =
            part("name=n\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=ISO-8859-1", "1");
        check(KIND, format!("{plain}--X--\r\n"), &[]);
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
        for text in ["x\n-X\nfoo: 1\nfoo: 2\n", "x: 1\r\nx: 2\r\n"] {
            let body = format!("{}--X--\r\n", part("name=n", text));
            assert_eq!(super::check(&headers, &body.into(), &limits), []);
        }
        // Blanks behind a delimiter are none of it.
        let again = part("name=n\r\nfoo: 1\r\nFoo: 2", "1").replace("--X\r\n", "--X \t\r\n");
        let found = says_twice(&headers, again.as_bytes()).map(|it| it.pointer);
        assert_eq!(found.as_deref(), Some("/0"));
    }

    #[test]
    fn where_parts_end_is_what_every_server_reads() {
        let other = "--Y\r\nContent-Disposition: form-data; name=n\r\n\r\n1\r\n--Y--\r\n";
        let body = format!("{}--X--\r\n", part("name=n", "1"));
        for kind in [
            "multipart/form-data; boundary=X; boundary=Y",
            "multipart/form-data; boundary=Y; boundary=X",
            "multipart/form-data; boundary=X; boundary*=utf-8''Y",
            "multipart/form-data; boundary=X; Boundary*0=Y",
            "multipart/form-data; boundary*0=X",
            "multipart/form-data; boundary=X, multipart/form-data; boundary=Y",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"X",
        ] {
            check(kind, body.clone(), &[("syntax", "")]);
        }
        check(KIND, format!("{other}{body}"), &[("syntax", "")]);
        check(KIND, format!("\r\n{body}"), &[]);
        check("Multipart/Form-Data; charset=utf-8; boundary=\"X\"", body.clone(), &[]);
        let mut headers = HeaderMap::new();
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=Y"));
        assert_eq!(super::check(&headers, &body.into(), &MultipartPolicy::default()).len(), 1);
    }

    #[test]
    fn a_part_that_begins_behind_a_bare_end_of_a_line_is_told() {
        for end in ["\n", "\r"] {
            let head = format!("Content-Disposition: form-data; name=r{end}{end}");
            let hidden = part("name=n", &format!("1{end}--X{end}{head}2"));
            check(KIND, format!("{hidden}--X--\r\n"), &[("syntax", "")]);
            let last = part("name=n", &format!("1{end}--X--"));
            check(KIND, format!("{last}--X--\r\n"), &[("syntax", "")]);
            check(KIND, format!("--X\r\n{head}1\r\n\r\n2\r\n--X--\r\n"), &[("syntax", "/0")]);
        }
        check(KIND, part("name=n", "1") + "--X--x\r\n", &[("syntax", "")]);
        check(KIND, part("name=n", "1\n2\r3") + "--X--", &[]);
    }
}
