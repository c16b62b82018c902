//! The canonical path: one form for all spellings, and never a wider one.

use std::borrow::Cow;

use quorumgate_model::canonical::{Slashes, path};

pub fn check(input: &[u8]) {
    let Ok(raw) = std::str::from_utf8(input) else { return };
    let [merged, kept] = [Slashes::Merge, Slashes::Keep].map(|slashes| {
        let clean = path(raw, slashes);
        if let Ok(clean) = &clean {
            assert_eq!(matches!(clean, Cow::Borrowed(_)), **clean == *raw, "{raw:?}: borrowed where it was canonical");
            sound(raw, clean, slashes);
        }
        assert_eq!(clean.as_deref().ok(), reference(raw, slashes).as_deref(), "{raw:?}, {slashes:?}");
        clean
    });
    assert_eq!(merged.is_ok(), kept.is_ok(), "{raw:?}: what is refused does not depend on slashes");
    if let (Ok(merged), Ok(kept)) = (merged, kept) {
        assert_eq!(path(&kept, Slashes::Merge).as_deref(), Ok(&*merged), "{raw:?}: merging later is merging at once");
    }
}

fn sound(raw: &str, clean: &str, slashes: Slashes) {
    assert_eq!(path(clean, slashes).as_deref(), Ok(clean), "{raw:?}: again");
    assert!(clean.starts_with('/') && clean.is_ascii() && !clean.contains(['\\', ' ', '?', '#']), "{clean:?}");
    assert!(slashes == Slashes::Keep || !clean.contains("//"), "{clean:?}");
    // Whatever a server behind us makes of parameters, it finds no way up.
    for segment in clean.split('/') {
        assert!(!matches!(segment.split(';').next(), Some("." | "..")), "{clean:?}");
    }
    // Any character in its other spelling is the same path: whoever matches what is canonical cannot be got around.
    let spelled: String = spell(raw, |byte| format!("%{byte:02x}"));
    assert_eq!(path(&spelled, slashes).as_deref(), Ok(clean), "{raw:?} spelled {spelled:?}");
}

/// Every unreserved character outside of a percent code, spelled otherwise.
fn spell(raw: &str, other: impl Fn(u8) -> String) -> String {
    let (mut out, mut code) = (String::new(), 0);
    for character in raw.chars() {
        match character {
            '%' if code == 0 => {
                code = 2;
                out.push(character);
            }
            _ if code > 0 => {
                code -= 1;
                out.push(character);
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' => out.push_str(&other(character as u8)),
            _ => out.push(character),
        }
    }
    out
}

/// From the documentation, with a stack of segments and no care for speed. None: refused.
fn reference(raw: &str, slashes: Slashes) -> Option<String> {
    let bytes = raw.strip_prefix('/').map(|_| raw.as_bytes())?;
    let (mut decoded, mut at) = (Vec::<String>::new(), 0);
    while at < bytes.len() {
        let mut byte = bytes[at];
        let escaped = byte == b'%';
        if escaped {
            let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
            byte = digits.bytes().all(|it| it.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())??;
            at += 2;
        }
        at += 1;
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let allowed = plain || (!escaped && b"/!$&'()*+,;=:@".contains(&byte));
        match byte {
            0 => return None,
            b'\\' | 1..=0x1f | 0x7f if !escaped => return None,
            _ if allowed => decoded.push(char::from(byte).to_string()),
            _ => decoded.push(format!("%{byte:02X}")),
        }
    }
    let decoded = decoded.concat();
    let mut stack: Vec<&str> = Vec::new();
    let segments: Vec<&str> = decoded[1..].split('/').collect();
    for (place, segment) in segments.iter().enumerate() {
        if let Some((name, _)) = segment.split_once(';')
            && matches!(name, "" | "." | "..")
        {
            return None;
        }
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    stack.pop();
                }
                if place + 1 == segments.len() {
                    stack.push("");
                }
            }
            name => stack.push(name),
        }
    }
    let joined = format!("/{}", stack.join("/"));
    if slashes == Slashes::Keep {
        return Some(joined);
    }
    let mut merged = String::new();
    for character in joined.chars() {
        if !(character == '/' && merged.ends_with('/')) {
            merged.push(character);
        }
    }
    Some(merged)
}
