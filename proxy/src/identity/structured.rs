//! Structured fields (RFC 9651) as message signatures use them: dictionaries of byte sequences, and of lists of texts
//! with parameters. What the RFC lets a reader overlook is refused: a signature is not to mean two things.

use data_encoding::BASE64;

/// Members, items of a list, and parameters of one item.
const MEMBERS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bare {
    Integer(i64),
    Text(String),
    Token(String),
    Bytes(Vec<u8>),
    Flag(bool),
}

pub(super) type Parameters = Vec<(String, Bare)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) bare: Bare,
    pub(super) parameters: Parameters,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Member {
    Item(Item),
    List { items: Vec<Item>, parameters: Parameters },
}

/// None for anything that is malformed, a key that occurs twice, and the types that signatures have no use for.
pub(super) fn dictionary(text: &str) -> Option<Vec<(String, Member)>> {
    let mut reader = Reader { rest: text.trim_matches(' ').as_bytes() };
    let mut members: Vec<(String, Member)> = Vec::new();
    while !reader.rest.is_empty() {
        let key = reader.key()?;
        let member = match reader.skip(b'=') {
            true if reader.rest.first() == Some(&b'(') => reader.list()?,
            true => Member::Item(reader.item()?),
            false => Member::Item(Item { bare: Bare::Flag(true), parameters: reader.parameters()? }),
        };
        if members.len() >= MEMBERS_MAX || members.iter().any(|(other, _)| *other == key) {
            return None;
        }
        members.push((key, member));
        reader.blanks();
        if !reader.rest.is_empty() {
            reader.skip(b',').then_some(())?;
            reader.blanks();
            // A comma at the end.
            (!reader.rest.is_empty()).then_some(())?;
        }
    }
    Some(members)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn skip(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn blanks(&mut self) {
        let end = self.rest.iter().position(|it| !matches!(it, b' ' | b'\t')).unwrap_or(self.rest.len());
        self.rest = &self.rest[end..];
    }

    fn take(&mut self, is_part: impl Fn(u8) -> bool) -> &str {
        let end = self.rest.iter().position(|it| !is_part(*it)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        // Only ever called for ASCII.
        std::str::from_utf8(taken).unwrap_or_default()
    }

    fn key(&mut self) -> Option<String> {
        matches!(self.rest.first()?, b'a'..=b'z' | b'*').then_some(())?;
        let key = self.take(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'));
        Some(key.to_owned())
    }

    fn list(&mut self) -> Option<Member> {
        self.skip(b'(').then_some(())?;
        let mut items = Vec::new();
        loop {
            self.take(|it| it == b' ');
            if self.skip(b')') {
                return Some(Member::List { items, parameters: self.parameters()? });
            }
            let item = self.item()?;
            (items.len() < MEMBERS_MAX && matches!(self.rest.first()?, b' ' | b')')).then_some(())?;
            items.push(item);
        }
    }

    fn item(&mut self) -> Option<Item> {
        Some(Item { bare: self.bare()?, parameters: self.parameters()? })
    }

    fn parameters(&mut self) -> Option<Parameters> {
        let mut parameters: Parameters = Vec::new();
        while self.skip(b';') {
            self.take(|it| it == b' ');
            let key = self.key()?;
            let value = if self.skip(b'=') { self.bare()? } else { Bare::Flag(true) };
            if parameters.len() >= MEMBERS_MAX || parameters.iter().any(|(other, _)| *other == key) {
                return None;
            }
            parameters.push((key, value));
        }
        Some(parameters)
    }

    fn bare(&mut self) -> Option<Bare> {
        match *self.rest.first()? {
            b'"' => self.text(),
            b':' => {
                self.skip(b':');
                let encoded = self.take(|it| it != b':').to_owned();
                self.skip(b':').then_some(())?;
                Some(Bare::Bytes(BASE64.decode(encoded.as_bytes()).ok()?))
            }
            b'?' => {
                self.skip(b'?');
                let flag = if self.skip(b'1') { true } else { self.skip(b'0').then_some(false)? };
                Some(Bare::Flag(flag))
            }
            b'-' | b'0'..=b'9' => {
                let negative = self.skip(b'-');
                let digits = self.take(|it| it.is_ascii_digit());
                let number: i64 = (1..=15).contains(&digits.len()).then(|| digits.parse().ok())??;
                // A decimal.
                (self.rest.first() != Some(&b'.')).then_some(())?;
                Some(Bare::Integer(if negative { -number } else { number }))
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'*' => {
                let is_part = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&it);
                Some(Bare::Token(self.take(is_part).to_owned()))
            }
            _ => None,
        }
    }

    fn text(&mut self) -> Option<Bare> {
        self.skip(b'"');
        let mut text = String::new();
        loop {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            match first {
                b'"' => return Some(Bare::Text(text)),
                b'\\' => {
                    let (escaped, rest) = self.rest.split_first()?;
                    matches!(escaped, b'"' | b'\\').then_some(())?;
                    self.rest = rest;
                    text.push(char::from(*escaped));
                }
                b' '..=b'~' => text.push(char::from(*first)),
                _ => return None,
            }
        }
    }
}

/// The one way to write it (RFC 9651 §4.1): what a signature is over.
pub(super) fn write_list(items: &[Item], parameters: &Parameters) -> String {
    let mut out = String::from("(");
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push(' ');
        }
        write_item(&mut out, item);
    }
    out.push(')');
    write_parameters(&mut out, parameters);
    out
}

pub(super) fn write_item(out: &mut String, item: &Item) {
    write_bare(out, &item.bare);
    write_parameters(out, &item.parameters);
}

fn write_parameters(out: &mut String, parameters: &Parameters) {
    for (key, value) in parameters {
        out.push(';');
        out.push_str(key);
        if *value != Bare::Flag(true) {
            out.push('=');
            write_bare(out, value);
        }
    }
}

fn write_bare(out: &mut String, bare: &Bare) {
    match bare {
        Bare::Integer(number) => out.push_str(&number.to_string()),
        Bare::Text(text) => {
            out.push('"');
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
        }
        Bare::Token(token) => out.push_str(token),
        Bare::Bytes(bytes) => {
            out.push(':');
            out.push_str(&BASE64.encode(bytes));
            out.push(':');
        }
        Bare::Flag(flag) => out.push_str(if *flag { "?1" } else { "?0" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_the_rfc_has_it() {
        let check = |text: &str, expected: Option<&str>| {
            let members = dictionary(text);
            let written = members.as_ref().and_then(|members| match &members.first()?.1 {
                Member::List { items, parameters } => Some(write_list(items, parameters)),
                Member::Item(item) => {
                    let mut out = String::new();
                    write_item(&mut out, item);
                    Some(out)
                }
            });
            assert_eq!(written.as_deref(), expected, "{text:?}");
        };
        check(r#"a=("x" "y";req);created=1;keyid="k\"1""#, Some(r#"("x" "y";req);created=1;keyid="k\"1""#));
        check(r#"a=(  "x"   "y" );b=?1;c=?0;d=tok/en, e=1"#, Some(r#"("x" "y");b;c=?0;d=tok/en"#));
        check("a=()", Some("()"));
        check("a=:YWI=:", Some(":YWI=:"));
        check("a=-5 ,\tb=2", Some("-5"));
        check("a", Some("?1"));
        check("", None);
        for malformed in [
            "a=1,",
            "a=1,,b=2",
            "a=1 b=2",
            "a=1, a=2",
            "A=1",
            "a=",
            "a=(",
            "a=(\"x\"",
            "a=(\"x\"\"y\")",
            "a=\"x",
            "a=\"x\\y\"",
            "a=\"é\"",
            "a=:YWI:",
            "a=:YR==:",
            "a=:YWI=",
            "a=1.5",
            "a=@1659578233",
            "a=1234567890123456",
            "a=?2",
            "a=1;b=1;b=2",
        ] {
            assert_eq!(dictionary(malformed), None, "{malformed:?}");
        }
        let many: Vec<String> = (0..=MEMBERS_MAX).map(|id| format!("a{id}=1")).collect();
        assert_eq!(dictionary(&many.join(", ")), None);
    }
}
