//! Which upstream of a split answers this request.

use std::{
    borrow::Cow,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, header};
use quorumgate_model::{
    resource::{Name, SplitOn},
    ruleset::Rule,
};

use crate::{identity::Caller, record::Record};

/// The route is one that splits. A request without what it is dealt out by draws, like any on a route that names nothing.
pub(crate) fn choose<'r>(record: &mut Record, rule: &'r Rule, headers: &HeaderMap) -> Option<&'r Name> {
    let (split, arms) = rule.split()?;
    let now_ms = match split.ramp {
        Some(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        None => 0,
    };
    let key = split.on.as_ref().and_then(|on| {
        let callers = record.identity.iter().flat_map(|it| it.callers());
        split_key(on, callers, record.client_ip, headers)
    });
    let place = key.map(|key| arms.of_key(split, &key, now_ms));
    let place = match (place, &split.on) {
        (Some(place), _) => place,
        (None, Some(SplitOn::Cookie { name, ttl: Some(ttl) })) => {
            let ids = &record.conn.worker.ids;
            let key = format!("{:016x}{:016x}", ids.random(), ids.random());
            let secure = if record.conn.tls { "; Secure" } else { "" };
            let age = ttl.0.as_secs();
            let text = format!("{name}={key}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
            record.cookies.extend(HeaderValue::try_from(text));
            arms.of_key(split, key.as_bytes(), now_ms)
        }
        (None, _) => arms.of_draw(split, record.conn.worker.ids.random(), now_ms),
    };
    let upstream = &split.arms.get(place)?.upstream;
    if let Some(passing) = &mut record.traffic {
        passing.arm = Some(upstream.clone());
    }
    Some(upstream)
}

/// What a request is dealt out by; None: it has none.
pub fn split_key<'a>(
    on: &SplitOn,
    mut callers: impl Iterator<Item = &'a Caller>,
    client_ip: IpAddr,
    headers: &'a HeaderMap,
) -> Option<Cow<'a, [u8]>> {
    let key = match on {
        SplitOn::Consumer => {
            let consumer = callers.find_map(|it| it.consumer.as_ref())?;
            Cow::Borrowed(consumer.name.as_bytes())
        }
        SplitOn::Credential => {
            let credential = callers.find_map(|it| it.credential.as_ref())?;
            Cow::Borrowed(credential.id.as_bytes())
        }
        SplitOn::Ip => Cow::Owned(match client_ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }),
        SplitOn::Header(name) => Cow::Borrowed(headers.get(name)?.as_bytes()),
        SplitOn::Cookie { name, .. } => Cow::Borrowed(cookie(headers, name)?),
    };
    Some(key).filter(|key| !key.is_empty())
}

/// The first of the name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let (key, value) = pair.split_at(pair.iter().position(|b| *b == b'=')?);
        (key == name.as_bytes()).then_some(&value[1..])
    })
}
