//! XML held against the bounds of a policy while its library reads it: nothing is expanded and nothing is fetched, so that no
//! entity can become anything.

use std::borrow::Cow;

use quick_xml::{
    Reader,
    events::{BytesDecl, BytesStart, Event},
};
use quorumgate_model::resource::{Tolerance, XmlPolicy};

use super::{
    found::{ERRORS_MAX, Step, Violation, pointer},
    well_formed::{self, Reference},
};

/// Those that stand for themselves without a DTD.
const ENTITIES: [&[u8]; 5] = [b"amp", b"lt", b"gt", b"quot", b"apos"];

/// Empty: it is as the policy wants it.
pub(super) fn check(bytes: &[u8], limits: &XmlPolicy) -> Vec<Violation> {
    let mut walk = Walk {
        limits,
        path: Vec::new(),
        depth: 0,
        elements: 0,
        roots: 0,
        is_begun: false,
        is_utf8: true,
        found: Vec::new(),
    };
    if let Some(at) = well_formed::control(bytes) {
        walk.find("syntax", format!("this is not XML: there is a control character at byte {at}"));
    }
    let mut reader = Reader::from_reader(bytes);
    reader.config_mut().check_comments = true;
    while walk.found.len() < ERRORS_MAX {
        match reader.read_event() {
            Ok(Event::Eof) => {
                walk.end(bytes);
                break;
            }
            Ok(event) => {
                walk.event(&event);
                walk.is_begun = true;
            }
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
    /// Something was read: no declaration may follow.
    is_begun: bool,
    /// As far as it says.
    is_utf8: bool,
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
                if !text.trim_ascii().is_empty() && !text.starts_with(b"\xef\xbb\xbf") {
                    self.within();
                }
                if text.windows(3).any(|it| it == b"]]>") {
                    self.find("syntax", "this is not XML: there is ]]> in a text");
                }
            }
            Event::CData(text) => {
                self.text("text", text);
                self.within();
            }
            Event::Comment(text) => self.text("comment", text),
            Event::PI(text) => {
                self.text("instruction", text);
                if !well_formed::is_target(text.target()) {
                    self.find("syntax", "this is not XML: an instruction has no name that it may have");
                }
            }
            Event::GeneralRef(name) => {
                self.within();
                self.reference(well_formed::reference(name));
            }
            Event::DocType(_) => {
                if self.limits.dtd == Tolerance::Refuse {
                    self.find("dtd", "there is a document type definition");
                } else if self.roots > 0 {
                    self.find("syntax", "this is not XML: its document type definition is not before its element");
                }
            }
            Event::Decl(declaration) => self.declaration(declaration),
            Event::Eof => {}
        }
    }

    fn within(&mut self) {
        if self.depth == 0 {
            self.find("syntax", "this is not XML: there is text outside of its element");
        }
    }

    fn declaration(&mut self, declaration: &BytesDecl<'_>) {
        if self.is_begun {
            self.find("syntax", "this is not XML: <?xml stands where it does not begin");
        }
        if declaration.version().is_err() || !well_formed::are_parted(declaration) {
            self.find("syntax", "this is not XML: its declaration is not one");
        }
        if let Some(Ok(encoding)) = declaration.encoding() {
            self.encoding(&encoding);
        }
    }

    fn end(&mut self, bytes: &[u8]) {
        if let Some(at) = well_formed::not_text(bytes).filter(|_| self.is_utf8) {
            self.find("syntax", format!("this is not XML: what is at byte {at} is no character of UTF-8"));
        }
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
        self.name(start.name().as_ref());
    }

    fn name(&mut self, name: &[u8]) {
        self.text("name", name);
        if !well_formed::is_name(name) {
            self.find("syntax", "this is not XML: there is a name that is none");
        }
    }

    fn attributes(&mut self, start: &BytesStart<'_>) {
        if !well_formed::are_parted(start.attributes_raw()) {
            return self.find("syntax", "this is not XML: there is no blank behind an attribute");
        }
        for (place, attribute) in start.attributes().enumerate() {
            if place == self.limits.max_attributes as usize {
                let max = self.limits.max_attributes;
                return self.find("max_attributes", format!("the element has more than {max} attributes"));
            }
            match attribute {
                Ok(it) => {
                    self.text("attribute", &it.value);
                    self.name(it.key.as_ref());
                    if it.value.contains(&b'<') {
                        self.find("syntax", "this is not XML: there is a < in an attribute");
                    }
                    well_formed::references(&it.value).for_each(|it| self.reference(it));
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

    fn reference(&mut self, reference: Reference<'_>) {
        match reference {
            Reference::Character => {}
            Reference::Wrong => self.find("syntax", "this is not XML: there is an & that refers to no character"),
            // Without a DTD there are no others.
            Reference::Entity(name) if self.limits.dtd == Tolerance::Refuse && !ENTITIES.contains(&name) => {
                self.find("dtd", "there is an entity that only a document type definition could define");
            }
            Reference::Entity(_) => {}
        }
    }

    /// What is written in another one would read otherwise behind us.
    fn encoding(&mut self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        self.is_utf8 = matches!(&*name, b"utf-8" | b"us-ascii");
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
        check("\u{feff}<?xml version='1.0'?><!-- - --><?p x?><a>]]&gt;\t&#x9;&#x1F600;\u{7f}</a>", &[]);
        check("<x:a xmlns:x = 'u'\n\tb.-1='&#10;'  />", &[]);
        check("<größe/>", &[]);
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
        for xml in [
            "<a b=\"<\"/>",
            "<a b='&#0;'/>",
            "<a b='x & y'/>",
            "<a b=\"1\"c=\"2\"/>",
            "<a>&#0;</a>",
            "<a>&#x110000;</a>",
            "<a>&1;</a>",
            "<a>]]></a>",
            "<a>\u{1}</a>",
            "<a>\u{ffff}</a>",
            "<a b='\u{1}'/>",
            "<a><!-- a -- b --></a>",
            "<a><!-- a ---></a>",
            "<1a/>",
            "<a><$x/></a>",
            "<a><$x></$x></a>",
            "<a 1b='c'/>",
            "<a\"b\"='c'/>",
            "<a><?1 x?></a>",
            "<?XML version='1.0'?><a/>",
            "<a><?xml version='1.0'?></a>",
            " <?xml version='1.0'?><a/>",
            "<?xml version='1.0'?><?xml version='1.0'?><a/>",
            "<?xml encoding='utf-8'?><a/>",
            "<?xml version='1.0'encoding='utf-8'?><a/>",
            "<a/><![CDATA[x]]>",
            "<a/>&amp;",
        ] {
            let found = super::check(xml.as_bytes(), &XmlPolicy::default());
            assert_eq!(found.iter().map(|it| it.rule).collect::<Vec<_>>(), ["syntax"], "{xml}: {found:?}");
        }
        assert_eq!(super::check(b"<a>\xff</a>", &XmlPolicy::default())[0].rule, "syntax");
        let latin = b"<?xml version='1.0' encoding='iso-8859-1'?><a>\xff</a>";
        assert_eq!(super::check(latin, &XmlPolicy::default()), []);
        let lax = XmlPolicy { dtd: Tolerance::Allow, ..XmlPolicy::default() };
        assert_eq!(super::check(b"<a/><!DOCTYPE a>", &lax)[0].rule, "syntax");
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
