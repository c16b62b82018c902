//! XML held against the bounds of a policy while its library reads it: nothing is expanded and nothing is fetched, so that no
//! entity can become anything.

use std::borrow::Cow;

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};
use quorumgate_model::resource::{Tolerance, XmlPolicy};

use super::found::{ERRORS_MAX, Step, Violation, pointer};

/// Those that stand for themselves without a DTD.
const ENTITIES: [&[u8]; 5] = [b"amp", b"lt", b"gt", b"quot", b"apos"];

/// Empty: it is as the policy wants it.
pub(super) fn check(bytes: &[u8], limits: &XmlPolicy) -> Vec<Violation> {
    let mut walk = Walk { limits, path: Vec::new(), depth: 0, elements: 0, roots: 0, found: Vec::new() };
    let mut reader = Reader::from_reader(bytes);
    while walk.found.len() < ERRORS_MAX {
        match reader.read_event() {
            Ok(Event::Eof) => {
                walk.end();
                break;
            }
            Ok(event) => walk.event(&event),
            Err(error) => {
                let at = reader.error_position();
                walk.find("syntax", format!("this is not XML: {error} at byte {at}"));
                break;
            }
        }
    }
    walk.found
}

struct Walk<'p> {
    limits: &'p XmlPolicy,
    /// Down to the deepest that is allowed.
    path: Vec<Step<'static>>,
    depth: u32,
    elements: u32,
    roots: u32,
    found: Vec<Violation>,
}

impl Walk<'_> {
    fn find(&mut self, rule: &'static str, detail: impl Into<Cow<'static, str>>) {
        if self.found.len() < ERRORS_MAX {
            self.found.push(Violation::body(pointer(&self.path), rule, detail));
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Start(start) => {
                self.element(start);
                self.depth += 1;
                if self.depth <= self.limits.max_depth {
                    let name = String::from_utf8_lossy(start.name().as_ref()).into_owned();
                    self.path.push(Step::Key(name.into()));
                } else if self.depth == self.limits.max_depth + 1 {
                    self.find("max_depth", format!("elements are nested deeper than {}", self.limits.max_depth));
                }
                self.attributes(start);
            }
            Event::Empty(start) => {
                self.element(start);
                if self.depth == self.limits.max_depth {
                    self.find("max_depth", format!("elements are nested deeper than {}", self.limits.max_depth));
                }
                self.attributes(start);
            }
            Event::End(_) => {
                if self.depth <= self.limits.max_depth {
                    self.path.pop();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            Event::Text(text) => {
                self.text("text", text);
                if self.depth == 0 && !text.trim_ascii().is_empty() && !text.starts_with(b"\xef\xbb\xbf") {
                    self.find("syntax", "this is not XML: there is text outside of its element");
                }
            }
            Event::CData(text) => self.text("text", text),
            Event::Comment(text) => self.text("comment", text),
            Event::PI(text) => self.text("instruction", text),
            Event::GeneralRef(name) => {
                if !name.is_char_ref() {
                    self.entity(name);
                }
            }
            Event::DocType(_) => {
                if self.limits.dtd == Tolerance::Refuse {
                    self.find("dtd", "there is a document type definition");
                }
            }
            Event::Decl(declaration) => {
                if let Some(Ok(encoding)) = declaration.encoding() {
                    self.encoding(&encoding);
                }
            }
            Event::Eof => {}
        }
    }

    fn end(&mut self) {
        match (self.roots, self.depth) {
            (1, 0) => {}
            (0, _) => self.find("syntax", "this is not XML: there is no element"),
            (1, _) => self.find("syntax", "this is not XML: an element has no end"),
            _ => self.find("syntax", "this is not XML: there are several elements outside of any"),
        }
    }

    fn element(&mut self, start: &BytesStart<'_>) {
        self.roots += u32::from(self.depth == 0);
        self.elements = self.elements.saturating_add(1);
        if self.elements == self.limits.max_elements + 1 {
            self.find("max_elements", format!("there are more than {} elements", self.limits.max_elements));
        }
        self.text("name", start.name().as_ref());
    }

    fn attributes(&mut self, start: &BytesStart<'_>) {
        for (place, attribute) in start.attributes().enumerate() {
            if place == self.limits.max_attributes as usize {
                let max = self.limits.max_attributes;
                return self.find("max_attributes", format!("the element has more than {max} attributes"));
            }
            match attribute {
                Ok(it) => {
                    self.text("attribute", &it.value);
                    self.text("name", it.key.as_ref());
                    let references = it.value.split(|byte| *byte == b'&').skip(1);
                    for reference in references {
                        let name = reference.split(|byte| *byte == b';').next().unwrap_or_default();
                        if !name.starts_with(b"#") {
                            self.entity(name);
                        }
                    }
                }
                Err(error) => return self.find("syntax", format!("this is not XML: {error}")),
            }
        }
    }

    fn text(&mut self, what: &str, text: &[u8]) {
        if text.len() as u64 > self.limits.max_text.0 {
            self.find("max_text", format!("the {what} is longer than {} bytes", self.limits.max_text.0));
        }
    }

    /// Without a DTD there are no others.
    fn entity(&mut self, name: &[u8]) {
        if self.limits.dtd == Tolerance::Refuse && !ENTITIES.contains(&name) {
            self.find("dtd", "there is an entity that only a document type definition could define");
        }
    }

    /// What is written in another one would read otherwise behind us.
    fn encoding(&mut self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        let is_like_ascii = name == b"utf-8"
            || name == b"us-ascii"
            || name.starts_with(b"iso-8859-")
            || name.starts_with(b"windows-125");
        if !is_like_ascii {
            self.find(
                "encoding",
                "the encoding is none that is looked through: UTF-8, US-ASCII, ISO-8859, Windows-125x",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::units::Size;

    use super::*;

    #[track_caller]
    fn check(xml: &str, expected: &[(&str, &str)]) {
        let limits =
            XmlPolicy { max_depth: 3, max_elements: 6, max_attributes: 2, max_text: Size(9), ..XmlPolicy::default() };
        let found = super::check(xml.as_bytes(), &limits);
        let found: Vec<_> = found.iter().map(|it| (it.rule, it.pointer.as_str())).collect();
        assert_eq!(found, expected, "{xml}");
    }

    #[test]
    fn what_is_within_its_bounds_passes() {
        check("<a/>", &[]);
        check("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a><b x='1' y=\"&lt;2&gt;\"><c/></b>&amp;&#38;</a>\n", &[]);
        check("<a><![CDATA[<b>]]><!-- c --></a>", &[]);
        check("\u{feff}<a/>", &[]);
    }

    #[test]
    fn each_bound_is_told_by_its_place() {
        check("<a><b><c><d/></c></b></a>", &[("max_depth", "/a/b/c")]);
        check("<a><b><c><d><e/></d></c></b><b/></a>", &[("max_depth", "/a/b/c")]);
        check("<a><b/><b/><b/><b/><b/><b/><b/></a>", &[("max_elements", "/a")]);
        check("<a><b x='1' y='2' z='3'/></a>", &[("max_attributes", "/a")]);
        check("<a><b>1234567890</b></a>", &[("max_text", "/a/b")]);
        check("<a x='1234567890'/>", &[("max_text", "")]);
        check("<a x='1' x='2'/>", &[("syntax", "")]);
        check("<?xml version='1.0' encoding='utf-7'?><a/>", &[("encoding", "")]);
    }

    #[test]
    fn no_entity_and_no_dtd_passes() {
        check("<!DOCTYPE a><a/>", &[("dtd", "")]);
        check("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", &[("dtd", ""), ("dtd", "/a")]);
        check("<a>&x;</a>", &[("dtd", "/a")]);
        check("<a b='&x;'/>", &[("dtd", "")]);
        let lax = XmlPolicy { dtd: Tolerance::Allow, ..XmlPolicy::default() };
        assert_eq!(super::check(b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", &lax), []);
    }

    #[test]
    fn what_is_not_well_formed_is_told() {
        for xml in ["", "hello", "<a>", "<a></b>", "<a/><b/>", "<a/>x", "<a", "<a b></a>", "<a>&x</a>"] {
            let found = super::check(xml.as_bytes(), &XmlPolicy::default());
            assert_eq!(found.first().map(|it| it.rule), Some("syntax"), "{xml}: {found:?}");
        }
        // Of another width: nothing of it is read as markup.
        let wide: Vec<u8> = "<a/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(!super::check(&wide, &XmlPolicy::default()).is_empty());
    }

    #[test]
    fn bombs_cost_what_reading_them_costs() {
        let laughs: String = (1..10).map(|n| format!("<!ENTITY l{n} \"&l{};&l{};\">", n - 1, n - 1)).collect();
        let laughs = format!("<!DOCTYPE l [<!ENTITY l0 \"lol\">{laughs}]><l>&l9;</l>");
        assert_eq!(super::check(laughs.as_bytes(), &XmlPolicy::default())[0].rule, "dtd");
        let deep = "<a>".repeat(300_000);
        let rules: Vec<_> = super::check(deep.as_bytes(), &XmlPolicy::default()).iter().map(|it| it.rule).collect();
        assert_eq!(rules, ["max_depth", "max_elements", "syntax"]);
        let wide = format!("<a {}/>", (0..50_000).map(|n| format!("a{n}='' ")).collect::<String>());
        assert_eq!(super::check(wide.as_bytes(), &XmlPolicy::default())[0].rule, "max_attributes");
    }
}
