//! What a body says that it is.

use http::{HeaderMap, header};

/// The media types of Content-Type, without parameters. Where a client sends several, a server may go by any of them: so do
/// the policies.
#[derive(Debug)]
pub(crate) struct Media {
    types: Vec<String>,
    /// Its texts are of letters that nothing here reads.
    is_foreign: bool,
}

impl Media {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let values =
            headers.get_all(header::CONTENT_TYPE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let mut types = Vec::new();
        for value in values {
            let without = |it: &str| it.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            types.extend(value.split(',').map(without).filter(|it| it.contains('/')));
        }
        let is_foreign = headers.get_all(header::CONTENT_TYPE).iter().any(|it| has_foreign_charset(it.as_bytes()));
        Self { types, is_foreign }
    }

    /// A `charset` in which other bytes than those of ASCII may be its letters: what a server reads is not what stands there.
    pub(crate) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// The type, where it is said, and no other as well.
    pub(crate) fn only(&self) -> Option<&str> {
        let (first, rest) = self.types.split_first()?;
        rest.iter().all(|it| it == first).then_some(first)
    }

    /// Nothing that is a type.
    pub(crate) fn is_missing(&self) -> bool {
        self.types.is_empty()
    }

    fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        // Messages of gRPC have frames of their own, whatever is in them.
        self.types.iter().any(|it| is(it) && !it.starts_with("application/grpc"))
    }

    /// RFC 8259 and RFC 6839.
    pub(crate) fn is_json(&self) -> bool {
        self.any(|it| it == "application/json" || it == "text/json" || it.ends_with("+json"))
    }

    /// RFC 7303.
    pub(crate) fn is_xml(&self) -> bool {
        self.any(|it| it == "application/xml" || it == "text/xml" || it.ends_with("+xml"))
    }

    /// RFC 7578.
    pub(crate) fn is_multipart(&self) -> bool {
        self.any(|it| it == "multipart/form-data")
    }

    /// What HTML forms send.
    pub(crate) fn is_form(&self) -> bool {
        self.any(|it| it == "application/x-www-form-urlencoded")
    }

    /// For people: of the values in it nothing more is known.
    pub(crate) fn is_plain_text(&self) -> bool {
        self.any(|it| it == "text/plain" || it == "text/csv")
    }

    pub(crate) fn is_graphql(&self) -> bool {
        self.any(|it| it == "application/graphql")
    }
}

/// UTF-16 and UTF-32 are known by their bytes.
const CHARSETS: [&str; 4] = ["utf-8", "utf8", "us-ascii", "ascii"];
const CHARSETS_BEGIN: [&str; 4] = ["utf-16", "utf-32", "iso-8859-", "windows-125"];

fn has_foreign_charset(kind: &[u8]) -> bool {
    if !kind.contains(&b'=') {
        return false;
    }
    let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
    let pairs = kind.split([';', ',']).filter_map(|it| it.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim().trim_matches(['"', '\'']))).any(|(name, value)| match name {
        "charset" => {
            let is_known = CHARSETS.contains(&value) || CHARSETS_BEGIN.iter().any(|it| value.starts_with(it));
            !value.is_empty() && !is_known
        }
        // In pieces, or in a charset of its own (RFC 2231).
        name => name.starts_with("charset*"),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn any_type_that_a_client_names_counts() {
        let of = |values: &[&'static str]| {
            let pairs = values.iter().map(|value| (header::CONTENT_TYPE, HeaderValue::from_static(value)));
            Media::of(&HeaderMap::from_iter(pairs))
        };
        for json in [
            &["application/json"][..],
            &["Application/JSON; charset=utf-8"],
            &["application/vnd.api+json"],
            &["text/json"],
            &["text/plain, application/json"],
        ] {
            assert!(of(json).is_json(), "{json:?}");
        }
        for other in
            [&["text/plain"][..], &["application/jsonl"], &["application/grpc"], &["application/grpc-web-text+json"]]
        {
            let media = of(other);
            assert!(!media.is_json() && !media.is_missing(), "{other:?}");
        }
        assert!(
            of(&[]).is_missing()
                && of(&["json"]).is_missing()
                && of(&["text/plain; x=application/json"]).types.len() == 1
        );
        let mut both = HeaderMap::new();
        both.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        both.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(Media::of(&both).is_json());
    }

    #[test]
    fn a_charset_that_nothing_here_reads_is_foreign() {
        let is_foreign = |kind: &'static str| {
            Media::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))])).is_foreign()
        };
        for known in
            ["", "; charset=UTF-8", "; charset=\"utf-8\"", "; charset=iso-8859-15", "; charset=utf-16le", "; x=y"]
        {
            let kind = format!("application/json{known}");
            assert!(!has_foreign_charset(kind.as_bytes()), "{known}");
        }
        for foreign in [
            "application/json; charset=utf-7",
            "text/xml;Charset = \"IBM037\"",
            "application/json; charset=utf-8, application/json; charset=utf-7",
            "application/json; charset*=utf-8''utf-7",
            "application/json; charset*0=utf-7",
        ] {
            assert!(is_foreign(foreign), "{foreign}");
        }
    }
}
