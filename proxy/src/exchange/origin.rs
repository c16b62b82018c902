//! Who asks: the client's address behind trusted proxies, and the ids by which the request is known.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use quorumgate_model::mutants::{self, Mutant};
use uuid::Uuid;

use super::{
    forwarded::{self, Elements},
    head,
    hops::{TRACEPARENT, TRACESTATE, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID},
};
use crate::{ids::Ids, recent::Traced, settings::TrustedField};

pub(super) fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|net| net.contains(&ip)) || mutants::is(Mutant::AnybodyIsTrusted)
}

/// An inbound id counts only if it is a UUID and its sender is trusted.
pub(super) fn request_id(headers: &HeaderMap, trusted: bool, ids: &Ids) -> Uuid {
    let inbound = || Uuid::try_parse_ascii(headers.get(X_REQUEST_ID)?.as_bytes()).ok();
    trusted.then(inbound).flatten().unwrap_or_else(|| ids.request_id())
}

pub(crate) fn id_value(id: Uuid) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_bytes(&text).expect("a UUID is ASCII")
}

/// From right to left, the first address that is not a trusted proxy's; an entry that is no address ends the walk at
/// the last one that was. `told_by`: None where the peer is none of those.
pub(super) fn client_ip(headers: &HeaderMap, peer: IpAddr, told_by: Option<TrustedField>, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let Some(told_by) = told_by else { return peer };
    if told_by == TrustedField::XForwardedFor && headers.contains_key(X_FORWARDED_FOR) {
        let entries = values(headers, X_FORWARDED_FOR).flat_map(|value| value.rsplit(|b| *b == b','));
        let address = |entry: &[u8]| forwarded::address(std::str::from_utf8(entry.trim_ascii()).ok()?);
        return walk(entries.map(address), peer, trusted);
    }
    walk(elements(headers).map(|element| forwarded::client(element?)), peer, trusted)
}

/// In reverse: a header map iterates from both ends. As bytes: what a client wrote in front of an address need not be text.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).iter().rev().map(HeaderValue::as_bytes)
}

/// RFC 9110 5.6.1: an empty element is none.
fn elements(headers: &HeaderMap) -> impl Iterator<Item = Option<&[u8]>> {
    values(headers, header::FORWARDED).flat_map(Elements::of).filter(|it| it.is_none_or(|it| !it.is_empty()))
}

/// Of a peer that says by Forwarded who asks: X-Forwarded-* become what it says there of how, and nothing else, since it has
/// looked at no other field.
pub(super) fn retell(headers: &mut HeaderMap, trusted: &[IpNet]) {
    let said = outermost(headers, trusted);
    let proto = said.and_then(|it| scheme(&forwarded::value(it, b"proto")?));
    let host = said.and_then(|it| authority(&forwarded::value(it, b"host")?));
    for (name, value) in [(X_FORWARDED_FOR, None), (X_FORWARDED_PROTO, proto), (X_FORWARDED_HOST, host)] {
        match value {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
}

/// The last element, from right to left, that a trusted proxy has written: how its client asked, even if it hides whom.
fn outermost<'a>(headers: &'a HeaderMap, trusted: &[IpNet]) -> Option<&'a [u8]> {
    let mut said = None;
    for element in elements(headers) {
        let Some(element) = element else { break };
        said = Some(element);
        if !forwarded::client(element).is_some_and(|ip| is_trusted(ip, trusted)) {
            break;
        }
    }
    said
}

/// Of HTTP; any other says nothing.
fn scheme(proto: &[u8]) -> Option<HeaderValue> {
    let known = ["http", "https"].into_iter().find(|it| it.as_bytes().eq_ignore_ascii_case(proto));
    known.map(HeaderValue::from_static)
}

/// RFC 7239 5.3: as Host has it.
fn authority(host: &[u8]) -> Option<HeaderValue> {
    head::split(std::str::from_utf8(host).ok()?).ok()?;
    HeaderValue::from_bytes(host).ok()
}

/// None: an entry that is no address.
fn walk(entries: impl Iterator<Item = Option<IpAddr>>, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    for entry in entries {
        let Some(ip) = entry else { return nearest };
        nearest = ip;
        if !is_trusted(ip, trusted) {
            return ip;
        }
    }
    nearest
}

/// The 32 hex digits of a valid traceparent, else nothing.
pub(super) fn trace_id(headers: &HeaderMap) -> &str {
    let value = headers.get(TRACEPARENT).filter(|value| is_traceparent(value.as_bytes()));
    value.and_then(|value| value.to_str().ok()?.get(3..35)).unwrap_or_default()
}

/// W3C Trace Context 3.2: version, trace id, parent id, flags; neither id is all zero.
pub(super) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    let zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    let whole = match value.len() {
        55 => value,
        56.. if value.starts_with(b"00") || value[55] != b'-' => return false,
        56.. => &value[..55],
        _ => return false,
    };
    let (version, trace, parent, flags) = (&whole[..2], &whole[3..35], &whole[36..52], &whole[53..]);
    [2, 35, 52].iter().all(|at| whole[*at] == b'-')
        && hex(version)
        && version != b"ff"
        && hex(trace)
        && !zero(trace)
        && hex(parent)
        && !zero(parent)
        && hex(flags)
}

/// Takes part in the trace that the request is of, or begins one: those behind see this exchange as their parent. Whether a
/// trace is sampled was decided where it began; of those that begin here, by their id.
pub(super) fn join_trace(headers: &mut HeaderMap, below: u64, ids: &Ids) -> Traced {
    let mut text = *b"00-................................-................-00";
    let came = headers.get(TRACEPARENT).map(|value| value.as_bytes()).filter(|value| is_traceparent(value));
    let (parent_id, sampled) = match came {
        Some(value) => {
            text[3..35].copy_from_slice(&value[3..35]);
            // Its lowest bit; of a hex digit that is the lowest bit of what it stands for.
            let digit = char::from(value[54]).to_digit(16).unwrap_or_default();
            (number(&value[36..52]), digit & 1 == 1)
        }
        None => {
            headers.remove(TRACESTATE);
            let low = ids.random() | 1;
            hex(ids.random(), &mut text[3..19]);
            hex(low, &mut text[19..35]);
            (None, low >> 2 < below)
        }
    };
    let span_id = ids.random() | 1;
    hex(span_id, &mut text[36..52]);
    text[54] = if sampled { b'1' } else { b'0' };
    headers.insert(TRACEPARENT, HeaderValue::from_bytes(&text).expect("hex digits are ASCII"));
    Traced { span_id, parent_id, sampled }
}

fn number(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A trace that begins here; not sampled.
pub(super) fn traceparent(ids: &Ids) -> HeaderValue {
    let mut text = *b"00-................................-................-00";
    // The lowest bit keeps an id from being all zero, which is not an id.
    hex(ids.random(), &mut text[3..19]);
    hex(ids.random() | 1, &mut text[19..35]);
    hex(ids.random() | 1, &mut text[36..52]);
    HeaderValue::from_bytes(&text).expect("hex digits are ASCII")
}

fn hex(number: u64, digits: &mut [u8]) {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&HEX[usize::from(byte)]);
    }
}

/// Of every byte its two digits.
const HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [b"0123456789abcdef"[byte >> 4], b"0123456789abcdef"[byte & 15]];
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ip(fields: &[(&'static str, &'static str)], expected: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        assert_eq!(behind_a_proxy(&headers).to_string(), expected, "{fields:?}");
    }

    fn behind_a_proxy(headers: &HeaderMap) -> IpAddr {
        told_by(TrustedField::default(), headers)
    }

    fn told_by(field: TrustedField, headers: &HeaderMap) -> IpAddr {
        client_ip(headers, "10.0.0.1".parse().unwrap(), Some(field), &["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn a_proxy_that_writes_forwarded_passes_on_another_field_for_nothing() {
        let line = |name: HeaderName, text| (name, HeaderValue::from_static(text));
        let forged = line(X_FORWARDED_FOR, "6.6.6.6");
        let both = HeaderMap::from_iter([forged.clone(), line(header::FORWARDED, "for=192.0.2.9")]);
        assert_eq!(told_by(TrustedField::Forwarded, &both).to_string(), "192.0.2.9");
        assert_eq!(told_by(TrustedField::XForwardedFor, &both).to_string(), "6.6.6.6");
        assert_eq!(told_by(TrustedField::Forwarded, &HeaderMap::from_iter([forged])).to_string(), "10.0.0.1");
    }

    #[track_caller]
    fn check_retold(lines: &[&'static str], expected: (Option<&str>, Option<&str>)) {
        let other = [(X_FORWARDED_FOR, "6.6.6.6"), (X_FORWARDED_PROTO, "gopher"), (X_FORWARDED_HOST, "evil.test")];
        let mut headers = HeaderMap::new();
        for (name, text) in other {
            headers.append(name.clone(), HeaderValue::from_static(text));
            headers.append(name, HeaderValue::from_static(text));
        }
        for &line in lines {
            headers.append(header::FORWARDED, HeaderValue::from_static(line));
        }
        retell(&mut headers, &["10.0.0.0/8".parse().unwrap()]);
        let said = |name: HeaderName| {
            let mut values = headers.get_all(name).iter().map(|it| it.to_str().unwrap());
            let first = values.next();
            assert!(values.next().is_none(), "{lines:?}");
            first
        };
        assert_eq!((said(X_FORWARDED_PROTO), said(X_FORWARDED_HOST)), expected, "{lines:?}");
        assert_eq!(said(X_FORWARDED_FOR), None, "{lines:?}");
    }

    #[test]
    fn a_proxy_that_writes_forwarded_says_there_how_it_was_asked() {
        let (tls, both) = ((Some("https"), None), (Some("https"), Some("api.test:8443")));
        check_retold(&[], (None, None));
        check_retold(&["for=192.0.2.9"], (None, None));
        check_retold(&["for=192.0.2.9;proto=HTTPS;host=\"api.test:8443\""], both);
        check_retold(&["for=6.6.6.6;proto=http;host=evil.test, for=192.0.2.9;proto=https"], tls);
        check_retold(
            &["for=6.6.6.6;proto=http", "for=192.0.2.9;proto=https, for=10.1.1.1;proto=http;host=a.test"],
            tls,
        );
        check_retold(&["for=10.2.2.2;proto=https, for=10.1.1.1;proto=http"], tls);
        // Whoever hides an address has written the element all the same, and what is in front of it may be anybody's.
        check_retold(&["for=6.6.6.6;proto=http, for=_hidden;proto=https"], tls);
        check_retold(&["for=6.6.6.6;proto=http, proto=https"], tls);
        check_retold(&["for=\"6.6.6.6;proto=http, for=10.1.1.1;proto=https"], tls);
        check_retold(&["for=192.0.2.9;proto=https;host=\"a@b\""], tls);
        check_retold(&["for=192.0.2.9;proto=https;host=\"a b\""], tls);
        for unsaid in ["proto=ftp", "proto=https;proto=http", "proto=https;host", "host=a.test;host=b.test"] {
            check_retold(&[unsaid], (None, None));
        }
    }

    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        check_ip(&[], "10.0.0.1");
        check_ip(&[("x-forwarded-for", "192.0.2.9")], "192.0.2.9");
        check_ip(&[("x-forwarded-for", "6.6.6.6, 192.0.2.9, 10.1.1.1")], "192.0.2.9");
        check_ip(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.9")], "192.0.2.9");
        check_ip(&[("x-forwarded-for", "6.6.6.6, junk, 10.1.1.1")], "10.1.1.1");
        check_ip(&[("x-forwarded-for", "[2001:db8::1]:443")], "2001:db8::1");
        check_ip(&[("forwarded", "for=6.6.6.6, for=\"[2001:db8::1]:80\";proto=https")], "2001:db8::1");
        check_ip(&[("forwarded", "for=_hidden, for=10.2.2.2")], "10.2.2.2");
        check_ip(&[("forwarded", "for=6.6.6.6, for=192.0.2.9;for=10.2.2.2, for=10.1.1.1")], "10.1.1.1");
        check_ip(&[("forwarded", "for=6.6.6.6, for=unknown, for=10.1.1.1")], "10.1.1.1");
        check_ip(&[("forwarded", "for=6.6.6.6, for=\"192.0.2.9, for=10.1.1.1")], "10.1.1.1");
        check_ip(&[("forwarded", "for=6.6.6.6, for=\"192.0.2.9")], "10.0.0.1");
        check_ip(&[("forwarded", "for=192.0.2.9, ,for=10.1.1.1,")], "192.0.2.9");
        check_ip(&[("forwarded", "for=6.6.6.6;host=\""), ("forwarded", "for=192.0.2.9;host=\"a\"")], "192.0.2.9");
        check_ip(&[("forwarded", "for=6.6.6.6, for=192.0.2.9"), ("forwarded", "for=\"10.1.1.1:80\"")], "192.0.2.9");
        let spoofed = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static("6.6.6.6"))]);
        let peer = "192.0.2.1".parse().unwrap();
        assert_eq!(client_ip(&spoofed, peer, None, &[]), peer);
    }

    /// As a trusted proxy says who asked, and that in a quoted string, with another such proxy behind it.
    #[test]
    fn whatever_a_client_writes_it_is_the_one_that_a_trusted_proxy_saw() {
        const PARTS: [&str; 8] = ["\"", "\\", ",", ";", "=", "for=6.6.6.6", " ", "x"];
        const PARTS_MAX: usize = 5;
        let (mut texts, mut longest) = (vec![String::new()], vec![String::new()]);
        for _ in 0..PARTS_MAX {
            longest = longest.iter().flat_map(|text| PARTS.map(|part| format!("{text}{part}"))).collect();
            texts.extend(longest.iter().cloned());
        }
        for text in texts {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            for lines in [
                &[format!("for=192.0.2.9;host=\"{quoted}\"")][..],
                &[format!("host=\"{quoted}\";for=\"192.0.2.9:80\", for=10.1.1.1;host=\"{quoted}\"")],
                // What the client has said itself is left in front.
                &[format!("{text},for=192.0.2.9;host=\"{quoted}\",for=10.1.1.1")],
                &[text.clone(), format!("for=192.0.2.9;host=\"{quoted}\"")],
            ] {
                let mut headers = HeaderMap::new();
                for line in lines {
                    headers.append(header::FORWARDED, HeaderValue::from_str(line).unwrap());
                }
                assert_eq!(behind_a_proxy(&headers).to_string(), "192.0.2.9", "{lines:?}");
            }
        }
    }

    #[test]
    fn what_is_no_text_hides_nobody() {
        for (name, line) in [
            (X_FORWARDED_FOR, &b"\xff\xfe, 192.0.2.9, 10.1.1.1"[..]),
            (X_FORWARDED_FOR, b"\", 192.0.2.9"),
            (header::FORWARDED, b"\xff, for=192.0.2.9;host=\"\xe4\", for=10.1.1.1"),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_bytes(line).unwrap())]);
            assert_eq!(behind_a_proxy(&headers).to_string(), "192.0.2.9", "{headers:?}");
        }
    }

    #[test]
    fn a_trace_goes_on_with_this_exchange_as_the_parent_of_what_is_behind() {
        let ids = Ids::new();
        let joined = |came: Option<&'static str>, below| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
            came.map(|came| headers.insert(TRACEPARENT, HeaderValue::from_static(came)));
            let traced = join_trace(&mut headers, below, &ids);
            (traced, headers[TRACEPARENT].to_str().unwrap().to_owned(), headers.contains_key(TRACESTATE))
        };
        let came = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (traced, sent, stated) = joined(Some(came), 1);
        assert_eq!((traced.parent_id, traced.sampled, stated), (Some(0x00f0_67aa_0ba9_02b7), true, true));
        assert_eq!(sent, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01", traced.span_id));
        let unsampled = came.replace("-01", "-00");
        let unsampled: &'static str = unsampled.leak();
        assert!(!joined(Some(unsampled), u64::MAX).0.sampled, "decided where it began");
        let (begun, sent, stated) = joined(None, u64::MAX);
        assert_eq!((begun.parent_id, begun.sampled, stated), (None, true, false), "no state of another trace");
        assert!(is_traceparent(sent.as_bytes()) && sent.ends_with("-01"), "{sent}");
        let sampled = (0..1_000).filter(|_| joined(None, (1 << 62) / 10).0.sampled).count();
        assert!((30..300).contains(&sampled), "a tenth of a thousand: {sampled}");
    }

    #[test]
    fn traceparents_are_checked() {
        let good = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good));
        assert!(is_traceparent(traceparent(&Ids::new()).as_bytes()));
        for bad in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }
}
