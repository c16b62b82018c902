//! Whose budget a request counts against: the values that a limit's `per` takes for it, as one text.

use std::{fmt::Write, net::IpAddr};

use http::HeaderMap;
use quorumgate_model::{
    ledger::KEY_BYTES_MAX,
    resource::{LimitPart, Name},
};
use serde_json::Value;

use crate::identity::{Caller, authorize::Callers};

/// What stands between the values of several parts.
const BETWEEN: char = '|';

/// What a limit may look at of a request.
pub(crate) struct Asked<'a> {
    pub(crate) route: &'a Name,
    /// Everyone that it has shown itself to be, the first one first.
    pub(crate) callers: Callers<'a>,
    pub(crate) client_ip: IpAddr,
    pub(crate) headers: &'a HeaderMap,
}

impl Asked<'_> {
    /// Whether a limit is for this request: of those for some plans alone the consumer's decides.
    pub(super) fn is_meant(&self, plans: &[String]) -> bool {
        let all = || self.callers.first.into_iter().chain(self.callers.also);
        let plan = || all().find_map(|caller: &Caller| caller.consumer.as_ref())?.plan.as_ref();
        plans.is_empty() || plan().is_some_and(|plan| plans.contains(plan))
    }
}

/// Writes the key over whatever `out` holds. A part that the request does not have is empty, so that all without it share
/// one key. A text that is too long for the ledger is told by its hash.
pub(super) fn write(parts: &[LimitPart], asked: &Asked<'_>, out: &mut String) {
    out.clear();
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            out.push(BETWEEN);
        }
        let begin = out.len();
        write_part(part, asked, out);
        // So that no two lists of values give one text.
        if parts.len() > 1 && out[begin..].contains([BETWEEN, '\\']) {
            let value = out[begin..].replace('\\', "\\\\").replace(BETWEEN, "\\|");
            out.truncate(begin);
            out.push_str(&value);
        }
    }
    if out.len() > KEY_BYTES_MAX {
        let hash = blake3::hash(out.as_bytes()).to_hex();
        out.clear();
        out.push_str("blake3:");
        out.push_str(&hash);
    }
}

fn write_part(part: &LimitPart, asked: &Asked<'_>, out: &mut String) {
    let all = || asked.callers.first.into_iter().chain(asked.callers.also);
    let consumer = || all().find_map(|caller: &Caller| caller.consumer.as_ref());
    match part {
        LimitPart::Global => {}
        LimitPart::Route => out.push_str(asked.route),
        LimitPart::Consumer => {
            if let Some(consumer) = consumer() {
                out.push_str(&consumer.name);
            }
        }
        // Who owns a consumer is the tenant that it belongs to, where no label says otherwise.
        LimitPart::Tenant => {
            if let Some(consumer) = consumer() {
                out.push_str(consumer.labels.get("tenant").unwrap_or(&consumer.owner));
            }
        }
        LimitPart::Credential => {
            if let Some(credential) = all().find_map(|caller: &Caller| caller.credential.as_ref()) {
                out.push_str(&credential.id);
            }
        }
        LimitPart::Ip { v4, v6 } => write_network(asked.client_ip, *v4, *v6, out),
        LimitPart::Header(name) => {
            if let Some(value) = asked.headers.get(name) {
                match value.to_str() {
                    Ok(value) => out.push_str(value),
                    Err(_) => out.push_str(&String::from_utf8_lossy(value.as_bytes())),
                }
            }
        }
        LimitPart::Claim(name) => {
            let mut claims = all().filter_map(|caller: &Caller| caller.claims.as_ref());
            match claims.find_map(|claims| claims.get(name)) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => out.push_str(text),
                // Of a number or a list the JSON text.
                Some(other) => out.push_str(&other.to_string()),
            }
        }
    }
}

fn write_network(ip: IpAddr, v4: u8, v6: u8, out: &mut String) {
    // A String takes whatever is written.
    let _ = match ip.to_canonical() {
        IpAddr::V4(ip) if v4 >= 32 => write!(out, "{ip}"),
        IpAddr::V4(ip) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(v4)).unwrap_or(0);
            write!(out, "{}/{v4}", std::net::Ipv4Addr::from(u32::from(ip) & kept))
        }
        IpAddr::V6(ip) if v6 >= 128 => write!(out, "{ip}"),
        IpAddr::V6(ip) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(v6)).unwrap_or(0);
            write!(out, "{}/{v6}", std::net::Ipv6Addr::from(u128::from(ip) & kept))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[LimitPart], ip: &str, fields: &[(&'static str, &str)], expected: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let route: Name = "orders".parse().unwrap();
        let asked =
            Asked { route: &route, callers: Callers::default(), client_ip: ip.parse().unwrap(), headers: &headers };
        let mut out = "left over".to_owned();
        write(parts, &asked, &mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn a_key_is_the_values_of_its_parts() {
        let ip = |v4, v6| LimitPart::Ip { v4, v6 };
        let who = || LimitPart::Header("x-who".into());
        check(&[LimitPart::Global], "192.0.2.7", &[], "");
        check(&[LimitPart::Route], "192.0.2.7", &[], "orders");
        check(&[ip(32, 64)], "192.0.2.7", &[], "192.0.2.7");
        check(&[ip(24, 64)], "192.0.2.7", &[], "192.0.2.0/24");
        check(&[ip(0, 64)], "192.0.2.7", &[], "0.0.0.0/0");
        check(&[ip(32, 64)], "::ffff:192.0.2.7", &[], "192.0.2.7");
        check(&[ip(32, 64)], "2001:db8:1:2:3::4", &[], "2001:db8:1:2::/64");
        check(&[ip(32, 128)], "2001:db8::4", &[], "2001:db8::4");
        check(&[who()], "::1", &[("x-who", "a|b")], "a|b");
        check(&[who()], "::1", &[], "");
        check(&[who(), LimitPart::Route], "::1", &[("x-who", "a|b\\")], "a\\|b\\\\|orders");
        check(&[LimitPart::Consumer, LimitPart::Route], "::1", &[], "|orders");
        let long = "x".repeat(2_000);
        let hash = format!("blake3:{}", blake3::hash(long.as_bytes()).to_hex());
        check(&[who()], "::1", &[("x-who", &long)], &hash);
    }
}
