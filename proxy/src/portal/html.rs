//! Pages as text: what comes from outside can only be written escaped, and links lead to this site or to the web alone.

use std::fmt::{self, Display};

/// Of one text from outside; the rest is left out, and said to be.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// A page that grows. Markup is what this program has in itself, all else is text.
pub(super) struct Html {
    out: String,
    bytes_max: usize,
}

/// Where a link leads.
pub(super) struct Href(String);

impl Html {
    /// Writers ask `is_full` before each further part, and leave off.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { out: String::new(), bytes_max }
    }

    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= self.bytes_max
    }

    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// For what stands between tags and for what stands in quoted attributes.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        let mut writer = Escaped { out: &mut self.out, left: TEXT_BYTES_MAX };
        // It ends early where there is no room.
        if fmt::Write::write_fmt(&mut writer, format_args!("{text}")).is_err() {
            self.out.push('…');
        }
        self
    }

    /// `<p>text</p>` and such: the tag is markup.
    pub(super) fn tag(&mut self, open: &'static str, text: impl Display, close: &'static str) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    pub(super) fn link(&mut self, href: &Href, text: impl Display) -> &mut Self {
        self.raw("<a href=\"").text(&href.0).raw("\"");
        if !href.0.starts_with(['/', '#']) {
            self.raw(" rel=\"noopener noreferrer nofollow\"");
        }
        self.raw(">").text(text).raw("</a>")
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

impl Href {
    /// A path of this portal: `base` is of its route, the rest is encoded, piece by piece.
    pub(super) fn own(base: &str, pieces: &[&str]) -> Self {
        let mut path = base.to_owned();
        for piece in pieces {
            path.push('/');
            push_encoded(&mut path, piece);
        }
        if path.is_empty() {
            path.push('/');
        }
        Self(path)
    }

    /// A place on the page itself.
    pub(super) fn anchor(prefix: &'static str, name: &str) -> Self {
        Self(format!("#{}", anchor(prefix, name)))
    }

    /// Elsewhere, over HTTP. None: another scheme, which could be a program, or a host in disguise.
    pub(super) fn outside(url: &str) -> Option<Self> {
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        let is_path = url.starts_with('/') && !url.starts_with("//") && !url.starts_with("/\\");
        let is_plain = url.bytes().all(|b| b.is_ascii_graphic());
        ((is_web || is_path) && is_plain).then(|| Self(url.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name as an id of the page: ids of different names differ.
pub(super) fn anchor(prefix: &'static str, name: &str) -> String {
    let mut id = prefix.to_owned();
    for byte in name.bytes().take(TEXT_BYTES_MAX) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => id.push(char::from(byte)),
            _ => id.push_str(&format!("_{byte:02x}")),
        }
    }
    id
}

fn push_encoded(path: &mut String, piece: &str) {
    for byte in piece.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
}

struct Escaped<'a> {
    out: &'a mut String,
    left: usize,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for it in text.chars() {
            self.left = self.left.checked_sub(it.len_utf8()).ok_or(fmt::Error)?;
            match it {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                '\n' | '\t' => self.out.push(it),
                // Such as U+202E, which turns what follows around.
                it if it.is_control() || is_invisible(it) => self.out.push('\u{fffd}'),
                it => self.out.push(it),
            }
        }
        Ok(())
    }
}

/// What changes how other characters are shown.
fn is_invisible(it: char) -> bool {
    matches!(it, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        let check = |text: &str, expected: &str| {
            let mut html = Html::new(100);
            html.tag("<p title=\"", text, "\">");
            assert_eq!(html.finish(), format!("<p title=\"{expected}\">"));
        };
        check("a", "a");
        check("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;");
        check("\" onload='x'&", "&quot; onload=&#39;x&#39;&amp;");
        check("a\u{0}\u{202e}\u{7f}b\n", "a\u{fffd}\u{fffd}\u{fffd}b\n");
        check("[x](javascript:alert(1))", "[x](javascript:alert(1))");
        let long = "é".repeat(TEXT_BYTES_MAX);
        check(&long, &format!("{}…", "é".repeat(TEXT_BYTES_MAX / 2)));
    }

    #[test]
    fn links_lead_to_this_site_or_the_web() {
        for wrong in [
            "javascript:alert(1)",
            " javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "//evil.test",
            "/\\evil.test",
            "https://a.test/\nx",
            "ftp://a",
            "",
        ] {
            assert!(Href::outside(wrong).is_none(), "{wrong}");
        }
        for right in ["https://a.test/b?c=1&d", "http://a.test", "/v2/docs"] {
            let mut html = Html::new(100);
            html.link(&Href::outside(right).unwrap(), "<x>");
            assert!(html.finish().contains("&lt;x&gt;"), "{right}");
        }
        assert_eq!(Href::own("/dev", &["apis", "a/b", "v 1"]).as_str(), "/dev/apis/a%2Fb/v%201");
        assert_eq!(Href::own("", &[]).as_str(), "/");
        assert_eq!(Href::anchor("s-", "A b_c").as_str(), "#s-A_20b_5fc");
    }
}
