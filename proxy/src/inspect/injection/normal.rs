//! One value as patterns read it: decoded as often as a server might, in lower case, with one space where there are several.

/// How often percent codes are undone: a proxy in front and the server itself.
const PERCENT_TIMES: usize = 2;
/// In a value this short a line's end may end a command; in a longer one it ends a line of text.
const SHORT_BYTES: usize = 64;

/// `+` as a form has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    Space,
    Plus,
}

/// What of a comment is read: within a text of SQL it is none, and for anything but SQL it never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comments {
    /// `/* */` is a blank.
    Cut,
    Kept,
    /// As SQL has it, line by line: `-- …` and `#…` up to the end of theirs are blanks too, and so is the end of any line.
    LinesCut,
}

/// Whether there is more to read in a text than once it is `Cut`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Had {
    /// As it is `Kept`.
    pub(super) comments: bool,
    /// As its `LinesCut`.
    pub(super) lines: bool,
}

/// Leaves `text` in `out`, as patterns read it, and says what else might be read in it. Linear, and never longer than it was.
pub(super) fn normalize(text: &[u8], plus: Plus, comments: Comments, out: &mut Vec<u8>) -> Had {
    out.clear();
    out.extend_from_slice(text);
    if plus == Plus::Space {
        out.iter_mut().filter(|byte| **byte == b'+').for_each(|byte| *byte = b' ');
    }
    for _ in 0..PERCENT_TIMES {
        if !out.contains(&b'%') {
            break;
        }
        rewrite(out, |byte| byte == b'%', percent);
    }
    if out.contains(&b'&') {
        rewrite(out, |byte| byte == b'&', entity);
    }
    if out.contains(&b'\\') {
        rewrite(out, |byte| byte == b'\\', escape);
    }
    if !out.is_ascii() {
        rewrite(out, |byte| matches!(byte, 0xc0 | 0xc1), overlong);
    }
    simplify(out, comments)
}

/// In place: what is read is never longer than it was written. `read` says what stands at the start of the bytes, of which the
/// first is a lead, and how long it is there; None: that byte for itself.
fn rewrite(bytes: &mut Vec<u8>, is_lead: impl Fn(u8) -> bool, read: impl Fn(&[u8]) -> Option<(u8, usize)>) {
    let Some(first) = bytes.iter().position(|byte| is_lead(*byte)) else { return };
    let (mut from, mut to) = (first, first);
    while from < bytes.len() {
        let byte = bytes[from];
        let (byte, taken) = match is_lead(byte) {
            true => read(&bytes[from..]).unwrap_or((byte, 1)),
            false => (byte, 1),
        };
        bytes[to] = byte;
        to += 1;
        from += taken;
    }
    bytes.truncate(to);
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digit = |sum: u32, byte: &u8| Some(sum * 16 + char::from(*byte).to_digit(16)?);
    digits.iter().try_fold(0, digit)
}

/// `%27`, `%u0027`
fn percent(bytes: &[u8]) -> Option<(u8, usize)> {
    match bytes {
        [b'%', b'u' | b'U', a, b, c, d, ..] => Some((u8::try_from(hex(&[*a, *b, *c, *d])?).ok()?, 6)),
        [b'%', a, b, ..] => Some((hex(&[*a, *b])? as u8, 3)),
        _ => None,
    }
}

const NAMED: [(&[u8], u8); 22] = [
    (b"&lt;", b'<'),
    (b"&gt;", b'>'),
    (b"&quot;", b'"'),
    (b"&apos;", b'\''),
    (b"&amp;", b'&'),
    (b"&lpar;", b'('),
    (b"&rpar;", b')'),
    (b"&colon;", b':'),
    (b"&semi;", b';'),
    (b"&sol;", b'/'),
    (b"&bsol;", b'\\'),
    (b"&equals;", b'='),
    (b"&lbrace;", b'{'),
    (b"&lcub;", b'{'),
    (b"&rcub;", b'}'),
    (b"&dollar;", b'$'),
    (b"&grave;", b'`'),
    (b"&vert;", b'|'),
    (b"&num;", b'#'),
    (b"&tab;", b'\t'),
    (b"&newline;", b'\n'),
    (b"&nbsp;", b' '),
];

/// `&#39;`, `&#x27`, `&lt;`
fn entity(bytes: &[u8]) -> Option<(u8, usize)> {
    if bytes.get(1) != Some(&b'#') {
        let named =
            NAMED.iter().find(|(name, _)| bytes.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name)));
        return named.map(|(name, byte)| (*byte, name.len()));
    }
    let (radix, start) = if matches!(bytes.get(2), Some(b'x' | b'X')) { (16, 3) } else { (10, 2) };
    let mut code = 0u32;
    let mut end = start;
    while let Some(digit) = bytes.get(end).and_then(|byte| char::from(*byte).to_digit(radix)) {
        code = code.saturating_mul(radix).saturating_add(digit);
        end += 1;
    }
    if end == start {
        return None;
    }
    end += usize::from(bytes.get(end) == Some(&b';'));
    Some((u8::try_from(code).ok()?, end))
}

/// `\x27`, `\u0027`
fn escape(bytes: &[u8]) -> Option<(u8, usize)> {
    let (code, taken) = match bytes {
        [b'\\', b'x' | b'X', a, b, ..] => (hex(&[*a, *b])?, 4),
        [b'\\', b'u' | b'U', a, b, c, d, ..] => (hex(&[*a, *b, *c, *d])?, 6),
        _ => return None,
    };
    Some((u8::try_from(code).ok().filter(u8::is_ascii)?, taken))
}

/// ASCII in two bytes, which no reader of UTF-8 should take and some do.
fn overlong(bytes: &[u8]) -> Option<(u8, usize)> {
    match bytes {
        [lead @ (0xc0 | 0xc1), next @ 0x80..=0xbf, ..] => Some(((lead & 1) << 6 | (next & 0x3f), 2)),
        _ => None,
    }
}

/// What `simplify` leaves as it is, once it is lower case.
static ORDINARY: [bool; 256] = {
    let mut ordinary = [true; 256];
    let mut byte = 0;
    while byte < 256 {
        ordinary[byte] = !matches!(byte as u8, 0..=b' ' | b'/' | b'*' | b'#' | b'-' | 0xa0 | 0xc2);
        byte += 1;
    }
    ordinary
};

/// Lower case, one space for several and for a comment of SQL, nothing for a NUL.
fn simplify(bytes: &mut Vec<u8>, comments: Comments) -> Had {
    let short = bytes.len() <= SHORT_BYTES && comments != Comments::LinesCut;
    // Once an end was looked for in vain there is none for any that follows.
    let (mut may_end, mut line_may_end) = (true, true);
    // `--` or `#` was there.
    let mut in_line = false;
    let mut had = Had::default();
    bytes.make_ascii_lowercase();
    let (mut from, mut to) = (0, 0);
    while from < bytes.len() {
        let byte = bytes[from];
        from += 1;
        let byte = match byte {
            byte if ORDINARY[usize::from(byte)] => byte,
            0 => continue,
            b'\n' => {
                had.lines |= in_line || short && breaks_out(&bytes[..to]);
                if short && to > 0 { b';' } else { b' ' }
            }
            // What SQL Server takes for a blank.
            0x01..=b' ' => b' ',
            // One that breaks no line, in UTF-8 and in Latin-1.
            0xc2 if bytes.get(from) == Some(&0xa0) => {
                from += 1;
                b' '
            }
            0xa0 if to == 0 || bytes[to - 1].is_ascii() => b' ',
            b'/' if comments == Comments::Kept && bytes.get(from) == Some(&b'*') => {
                from += 1;
                b' '
            }
            b'/' if bytes.get(from) == Some(&b'*') => match comment(&bytes[from + 1..], &mut may_end) {
                Some(taken) => {
                    had.comments = true;
                    had.lines |= in_line && bytes[from + 1..from + 1 + taken].contains(&b'\n');
                    from += 1 + taken;
                    b' '
                }
                None => b'/',
            },
            // The end of one that is code for MySQL.
            b'*' if bytes.get(from) == Some(&b'/') => {
                from += 1;
                b' '
            }
            b'#' | b'-' if byte == b'#' || bytes.get(from) == Some(&b'-') => {
                in_line = true;
                match line(&bytes[from..], comments, &mut line_may_end) {
                    Some(taken) => {
                        from += taken;
                        b' '
                    }
                    None => byte,
                }
            }
            byte => byte,
        };
        if byte == b' ' && to > 0 && bytes[to - 1] == b' ' {
            continue;
        }
        bytes[to] = byte;
        to += 1;
    }
    bytes.truncate(to);
    had
}

/// Whether what stands in the first line could end something of the server's, so that the next one is SQL and no sentence.
fn breaks_out(line: &[u8]) -> bool {
    let is_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    line.first().is_some_and(is_number) || line.iter().any(|byte| b"'\"`)\\".contains(byte))
}

/// Behind `/*`: what of it is a comment. `/*!50000union*/` is code; one without an end is what cuts off the rest.
fn comment(rest: &[u8], may_end: &mut bool) -> Option<usize> {
    if let [b'!', code @ ..] = rest {
        return Some(1 + code.iter().take_while(|byte| byte.is_ascii_digit()).count());
    }
    let end = may_end.then(|| rest.windows(2).position(|it| it == b"*/")).flatten();
    *may_end = end.is_some();
    end.map(|end| end + 2)
}

/// Behind `--` or `#`: what of it is a comment.
fn line(rest: &[u8], comments: Comments, may_end: &mut bool) -> Option<usize> {
    if !*may_end || comments != Comments::LinesCut {
        return None;
    }
    let end = rest.iter().position(|byte| *byte == b'\n');
    *may_end = end.is_some();
    end.map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str, plus: Plus) -> String {
        let mut out = Vec::new();
        normalize(text.as_bytes(), plus, Comments::Cut, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// As SQL reads it line by line, and whether that is looked for.
    fn by_lines(text: &str) -> (String, bool) {
        let mut out = Vec::new();
        let had = normalize(text.as_bytes(), Plus::Plus, Comments::Cut, &mut out);
        normalize(text.as_bytes(), Plus::Plus, Comments::LinesCut, &mut out);
        (String::from_utf8_lossy(&out).into_owned(), had.lines)
    }

    #[test]
    fn a_comment_of_a_line_is_a_blank_of_sql() {
        for (text, expected, is_looked_for) in [
            ("1 union-- x\nselect 2", "1 union select 2", true),
            ("1 union--%0aselect 2", "1 union select 2", true),
            ("1 union#x\r\nselect/**/2", "1 union select 2", true),
            ("union -- /*\nselect 1 -- */", "union select 1 -- ", true),
            ("/* -- */union#\n#\nselect", " union select", true),
            ("1 union\nselect", "1 union select", true),
            ("a' union\nselect", "a' union select", true),
            ("union\nselect", "union select", false),
            ("a - b #1", "a - b #1", false),
            ("admin'--", "admin'--", false),
        ] {
            assert_eq!(by_lines(text), (expected.to_owned(), is_looked_for), "{text:?}");
        }
        let long = "word ".repeat(20);
        assert!(!by_lines(&format!("{long}\n{long}")).1);
        assert!(by_lines(&format!("{long}# {long}\n{long}")).1);
    }

    #[test]
    fn a_value_is_read_as_servers_might() {
        for (text, expected) in [
            ("A  b\t C", "a b c"),
            ("%27%20OR%201", "' or 1"),
            ("%2527", "'"),
            ("%252527", "%27"),
            ("%u0027x", "'x"),
            ("100% sure %zz", "100% sure %zz"),
            ("&#39;&#x3C;&lt&lt;&quot;&AMP;", "'<&lt<\"&"),
            ("&#39or", "'or"),
            ("R&D &#; &#x;", "r&d &#; &#x;"),
            (r"\x27\u003Cb", "'<b"),
            (r"C:\users\xy", r"c:\users\xy"),
            ("union/**/select/*x*/1", "union select 1"),
            ("/*!50000UNION*/ select", " union select"),
            ("1/* cut", "1/* cut"),
            ("a\0b", "ab"),
            ("a\x01b\x0b\x0cc\u{a0}d", "a b c d"),
            ("à la", "à la"),
            ("ü&#252;", "ü"),
        ] {
            let found = normal(text, Plus::Plus);
            assert!(found.starts_with(expected), "{text:?}: {found:?}");
        }
        assert_eq!(normal("a+b%2Bc", Plus::Space), "a b+c");
        assert_eq!(normal("a+b", Plus::Plus), "a+b");
        assert_eq!(normal("..%c0%af..%c1%9c", Plus::Plus), "../..\\");
        assert_eq!(normal("x%0Aid", Plus::Plus), "x;id");
        assert_eq!(normal("x%A0id", Plus::Plus), "x id");
    }

    #[test]
    fn a_long_value_costs_its_length() {
        // Many beginnings of what has no end.
        for text in
            ["/*".repeat(50_000), "&#".repeat(50_000), "%".repeat(100_000), "&#1".repeat(30_000), "--".repeat(50_000)]
        {
            assert!(normal(&text, Plus::Plus).len() <= text.len());
            assert!(by_lines(&text).0.len() <= text.len());
        }
    }
}
