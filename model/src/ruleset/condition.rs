//! What a route asks of a request beside host, path and method.

use std::{borrow::Cow, fmt, net::IpAddr};

use ipnet::IpNet;
use regex::Regex;

use super::request::Request;
use crate::resource::{HostPattern, Name};

#[derive(Debug)]
pub enum Condition {
    Header(Field),
    Query(Field),
    Cookie(Field),
    ClientCidrs(Vec<IpNet>),
    Sni(Vec<HostPattern>),
    Listeners(Vec<Name>),
}

/// Of several fields of one name it is enough that one passes; `Absent` asks that there is none.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub test: Test,
}

#[derive(Debug)]
pub enum Test {
    Exact(String),
    /// Of the whole value.
    Regex(Regex),
    Present,
    Absent,
}

impl Condition {
    pub fn holds(&self, request: &Request<'_>) -> bool {
        let view = request.view;
        match self {
            Condition::Header(_) | Condition::Cookie(_) if request.preflight => true,
            Condition::Header(field) => match field.test {
                Test::Present => view.headers.has(&field.name),
                Test::Absent => !view.headers.has(&field.name),
                Test::Exact(_) | Test::Regex(_) => {
                    view.headers.any(&field.name, &mut |value| field.test.passes(Some(value)))
                }
            },
            Condition::Query(field) => {
                let mut pairs = view.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
                let passes = pairs.any(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    *decode(name) == *field.name.as_bytes()
                        && field.test.passes(std::str::from_utf8(&decode(value)).ok())
                });
                field.test.wants(passes)
            }
            Condition::Cookie(field) => {
                let passes = view.headers.any("cookie", &mut |value| {
                    value
                        .split(';')
                        .filter_map(|pair| pair.trim_ascii().split_once('='))
                        .any(|(name, value)| name == field.name && field.test.passes(Some(value)))
                });
                field.test.wants(passes)
            }
            Condition::ClientCidrs(nets) => {
                let ip: IpAddr = view.client_ip.to_canonical();
                nets.iter().any(|net| net.contains(&ip))
            }
            Condition::Sni(hosts) => view.sni.is_some_and(|sni| {
                let sni = sni.to_ascii_lowercase();
                hosts.iter().any(|host| host.takes(&sni))
            }),
            Condition::Listeners(names) => view.listener.is_some_and(|by| names.iter().any(|name| **name == *by)),
        }
    }
}

impl Test {
    /// Whether a value counts (None: it is not UTF-8).
    fn passes(&self, value: Option<&str>) -> bool {
        match self {
            Test::Exact(text) => value == Some(text),
            Test::Regex(regex) => value.is_some_and(|value| regex.is_match(value)),
            Test::Present | Test::Absent => true,
        }
    }

    fn wants(&self, passes: bool) -> bool {
        passes != matches!(self, Test::Absent)
    }
}

/// Percent codes and `+` decoded, as forms and URLs of browsers are written; a stray percent sign stays.
pub(super) fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let code = match byte {
            b'%' => after.get(..2).and_then(|digits| data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()),
            _ => None,
        };
        match (byte, code) {
            (_, Some(code)) => {
                out.push(code[0]);
                rest = &after[2..];
            }
            (b'+', _) => out.push(b' '),
            (byte, None) => out.push(*byte),
        }
    }
    Cow::Owned(out)
}

/// Why it does not hold, as `route match` says it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, field) = match self {
            Condition::Header(field) => ("header", field),
            Condition::Query(field) => ("query parameter", field),
            Condition::Cookie(field) => ("cookie", field),
            Condition::ClientCidrs(nets) => {
                let nets: Vec<String> = nets.iter().map(IpNet::to_string).collect();
                return write!(f, "the client's address is not in {}", nets.join(", "));
            }
            Condition::Sni(hosts) => {
                let hosts: Vec<String> = hosts.iter().map(HostPattern::to_string).collect();
                return write!(f, "the TLS server name is not {}", hosts.join(", "));
            }
            Condition::Listeners(names) => {
                let names: Vec<&str> = names.iter().map(|name| &**name).collect();
                return write!(f, "the listener is not {}", names.join(", "));
            }
        };
        match &field.test {
            Test::Exact(text) => write!(f, "{what} {} is not {text:?}", field.name),
            Test::Regex(_) => write!(f, "{what} {} does not match the regular expression", field.name),
            Test::Present => write!(f, "{what} {} is absent", field.name),
            Test::Absent => write!(f, "{what} {} is present", field.name),
        }
    }
}
