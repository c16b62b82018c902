//! `security_headers`: fields that tell browsers what not to do with an answer. A word of files and of the APIs alone, which
//! becomes edits of the answer's fields, so that what the cluster keeps needs no other.

use super::HeaderEdits;
use crate::resource::word::word_enum;

word_enum!(
    /// For whom the answers are.
    SecurityHeaders {
        /// Programs: a browser is to show nothing of them.
        Api = "api",
        /// People, in a browser.
        Web = "web",
    }
);

/// A year; the domain's other hosts are not this route's to decide for.
const HSTS: (&str, &str) = ("strict-transport-security", "max-age=31536000");
const NO_SNIFF: (&str, &str) = ("x-content-type-options", "nosniff");

impl SecurityHeaders {
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Api => &[
                HSTS,
                NO_SNIFF,
                ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
                ("referrer-policy", "no-referrer"),
                ("x-frame-options", "DENY"),
            ],
            Self::Web => &[
                HSTS,
                NO_SNIFF,
                ("content-security-policy", "base-uri 'self'; frame-ancestors 'self'; object-src 'none'"),
                ("cross-origin-opener-policy", "same-origin"),
                ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
                ("referrer-policy", "strict-origin-when-cross-origin"),
                ("x-frame-options", "SAMEORIGIN"),
            ],
        }
    }

    /// What the route says of a field itself stands.
    pub(super) fn set(self, edits: &mut HeaderEdits) {
        for (name, value) in self.fields() {
            let said = edits.remove.iter().any(|it| it == name) || edits.add.contains_key(*name);
            if !said {
                edits.set.entry((*name).to_owned()).or_insert_with(|| (*value).to_owned());
            }
        }
    }
}
