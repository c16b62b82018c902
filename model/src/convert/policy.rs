//! Policies between prost and model. Long lists of networks are packed, so that a million fits into an entry of the log.

use std::net::IpAddr;

use ipnet::IpNet;
use quorumgate_proto::admin::v1::{self as admin, policy::Kind};

use super::{
    ai, anomaly, contract, mask, portal,
    resource::{meta_to, name_from, word},
};
use crate::{
    invalid::Invalid,
    resource::{
        BotPolicy, Brownout, Country, GraphqlPolicy, InjectionClass, InjectionException, InjectionPolicy,
        InspectedPlace, IpPolicy, IpWords, JsonPolicy, MultipartPolicy, Nets, Nowhere, Policy, PolicyKind, PolicyMode,
        PolicyWords, Tolerance, VersionPolicy, VersionState, XmlPolicy, plain,
    },
    units::{Moment, Size},
};

/// From so many networks on a list is packed.
const PACKED_FROM: usize = 256;
/// More than the prefix length, before the 16 bytes of an IPv6 network.
const IS_V6: u8 = 64;

pub fn policy_from(it: admin::Policy) -> Result<Policy, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let words = PolicyWords::new(name_from("name", &it.name)?, meta.labels, meta.owner, meta.description);
    match it.kind {
        None => words.try_into(),
        Some(Kind::Ip(ip)) => ip_from(words, ip),
        Some(Kind::Json(it)) => {
            let json = json_from(it).map_err(|invalid| invalid.under("json"))?;
            PolicyWords { json: Some(json), ..words }.try_into()
        }
        Some(Kind::Xml(it)) => {
            let xml = xml_from(it).map_err(|invalid| invalid.under("xml"))?;
            PolicyWords { xml: Some(xml), ..words }.try_into()
        }
        Some(Kind::Multipart(it)) => {
            let multipart = multipart_from(it).map_err(|invalid| invalid.under("multipart"))?;
            PolicyWords { multipart: Some(multipart), ..words }.try_into()
        }
        Some(Kind::Graphql(it)) => {
            let graphql = graphql_from(it).map_err(|invalid| invalid.under("graphql"))?;
            PolicyWords { graphql: Some(graphql), ..words }.try_into()
        }
        Some(Kind::Injection(it)) => {
            let injection = injection_from(it).map_err(|invalid| invalid.under("injection"))?;
            PolicyWords { injection: Some(injection), ..words }.try_into()
        }
        Some(Kind::Version(it)) => {
            let version = version_from(it).map_err(|invalid| invalid.under("version"))?;
            PolicyWords { version: Some(version), ..words }.try_into()
        }
        Some(Kind::Contract(it)) => {
            let contract = contract::from(it).map_err(|invalid| invalid.under("contract"))?;
            PolicyWords { contract: Some(contract), ..words }.try_into()
        }
        Some(Kind::Ai(it)) => {
            let ai = ai::from(it).map_err(|invalid| invalid.under("ai"))?;
            PolicyWords { ai: Some(ai), ..words }.try_into()
        }
        Some(Kind::Anomaly(it)) => {
            let anomaly = anomaly::from(it).map_err(|invalid| invalid.under("anomaly"))?;
            PolicyWords { anomaly: Some(anomaly), ..words }.try_into()
        }
        Some(Kind::Bot(it)) => {
            let bot = bot_from(it).map_err(|invalid| invalid.under("bot"))?;
            PolicyWords { bot: Some(bot), ..words }.try_into()
        }
        Some(Kind::Mask(it)) => {
            let mask = mask::from(it).map_err(|invalid| invalid.under("mask"))?;
            PolicyWords { mask: Some(mask), ..words }.try_into()
        }
        Some(Kind::Portal(it)) => {
            let portal = portal::from(it).map_err(|invalid| invalid.under("portal"))?;
            PolicyWords { portal: Some(portal), ..words }.try_into()
        }
    }
}

fn bot_from(it: admin::BotPolicy) -> Result<BotPolicy, Invalid> {
    let default = BotPolicy::default();
    Ok(BotPolicy {
        mode: mode(&it.mode, default.mode)?,
        allow: it.allow,
        deny: it.deny,
        missing: tolerance("missing", &it.missing, default.missing)?,
        scanners: tolerance("scanners", &it.scanners, default.scanners)?,
    })
}

fn bot_to(it: &BotPolicy) -> admin::BotPolicy {
    admin::BotPolicy {
        mode: it.mode.word().to_owned(),
        allow: it.allow.clone(),
        deny: it.deny.clone(),
        missing: it.missing.word().to_owned(),
        scanners: it.scanners.word().to_owned(),
    }
}

fn version_from(it: admin::VersionPolicy) -> Result<VersionPolicy, Invalid> {
    let brownout = |(place, it): (usize, admin::Brownout)| {
        let status = match it.status {
            0 => 503,
            status => u16::try_from(status).map_err(|_| {
                Invalid::field(format!("brownouts[{place}].status")).found(status).allowed("410 or 503")
            })?,
        };
        Ok(Brownout { start: Moment(it.start_ms), end: Moment(it.end_ms), status })
    };
    Ok(VersionPolicy {
        api: name_from("api", &it.api)?,
        version: it.version,
        state: word("state", &it.state, VersionState::ALL, VersionState::word)?.unwrap_or(VersionState::Published),
        preview_groups: it.preview_groups,
        deprecated_at: it.deprecated_at_ms.map(Moment),
        sunset: it.sunset_ms.map(Moment),
        successor: it.successor,
        successor_url: it.successor_url,
        deprecation_url: it.deprecation_url,
        sunset_url: it.sunset_url,
        brownouts: it.brownouts.into_iter().enumerate().map(brownout).collect::<Result<_, Invalid>>()?,
    })
}

fn injection_from(it: admin::InjectionPolicy) -> Result<InjectionPolicy, Invalid> {
    let default = InjectionPolicy::default();
    let exception = |(place, it): (usize, admin::InjectionException)| {
        let exception = || {
            Ok(InjectionException {
                place: word("in", &it.r#in, InspectedPlace::ALL, InspectedPlace::word)?,
                pointer: it.pointer,
                classes: classes(&it.classes)?,
            })
        };
        exception().map_err(|invalid: Invalid| invalid.under(format!("exceptions[{place}]")))
    };
    Ok(InjectionPolicy {
        mode: mode(&it.mode, default.mode)?,
        threshold: it.threshold.unwrap_or(default.threshold),
        classes: classes(&it.classes)?,
        exceptions: it.exceptions.into_iter().enumerate().map(exception).collect::<Result<_, _>>()?,
        body_max: it.body_max.map_or(default.body_max, Size),
    })
}

fn classes(words: &[String]) -> Result<Vec<InjectionClass>, Invalid> {
    let class = |(place, text): (usize, &String)| {
        let field = format!("classes[{place}]");
        let found = word(&field, text, InjectionClass::ALL, InjectionClass::word)?;
        found.ok_or_else(|| Invalid::field(field).found("nothing").allowed("a class such as sqli"))
    };
    words.iter().enumerate().map(class).collect()
}

fn ip_from(words: PolicyWords, mut ip: admin::IpPolicy) -> Result<Policy, Invalid> {
    let (allow, deny) = (std::mem::take(&mut ip.allow_packed), std::mem::take(&mut ip.deny_packed));
    let unknown = word("unknown_place", &ip.unknown_place, Nowhere::ALL, Nowhere::word);
    let said = IpWords {
        allow: ip.allow,
        deny: ip.deny,
        allow_countries: ip.allow_countries,
        deny_countries: ip.deny_countries,
        allow_asns: ip.allow_asns,
        deny_asns: ip.deny_asns,
        unknown_place: unknown.map_err(|invalid| invalid.under("ip"))?.unwrap_or(Nowhere::Unlisted),
    };
    if allow.is_empty() && deny.is_empty() {
        return PolicyWords { ip: Some(said), ..words }.try_into();
    }
    let unpacked = || {
        let both = |field: &'static str, said: &[String], packed: &[u8]| match said.is_empty() {
            true => Nets::new(field, unpack(field, packed)?),
            false => unpack(field, packed).and_then(|mut nets| {
                nets.extend(Nets::parse(field, said)?.as_slice());
                Nets::new(field, nets)
            }),
        };
        let (allow, deny) = (both("allow", &said.allow, &allow)?, both("deny", &said.deny, &deny)?);
        IpPolicy { allow, deny, places: said.places()? }.checked()
    };
    let ip = unpacked().map_err(|invalid: Invalid| invalid.under("ip"))?;
    Policy::with(words, PolicyKind::Ip(ip))
}

fn json_from(it: admin::JsonPolicy) -> Result<JsonPolicy, Invalid> {
    let default = JsonPolicy::default();
    Ok(JsonPolicy {
        mode: mode(&it.mode, default.mode)?,
        max_depth: it.max_depth.unwrap_or(default.max_depth),
        max_keys: it.max_keys.unwrap_or(default.max_keys),
        max_array: it.max_array.unwrap_or(default.max_array),
        max_string: it.max_string.map_or(default.max_string, Size),
        duplicate_keys: tolerance("duplicate_keys", &it.duplicate_keys, default.duplicate_keys)?,
        body_max: it.body_max.map_or(default.body_max, Size),
        other_types: tolerance("other_types", &it.other_types, default.other_types)?,
    })
}

fn xml_from(it: admin::XmlPolicy) -> Result<XmlPolicy, Invalid> {
    let default = XmlPolicy::default();
    Ok(XmlPolicy {
        mode: mode(&it.mode, default.mode)?,
        max_depth: it.max_depth.unwrap_or(default.max_depth),
        max_elements: it.max_elements.unwrap_or(default.max_elements),
        max_attributes: it.max_attributes.unwrap_or(default.max_attributes),
        max_text: it.max_text.map_or(default.max_text, Size),
        dtd: tolerance("dtd", &it.dtd, default.dtd)?,
        body_max: it.body_max.map_or(default.body_max, Size),
        other_types: tolerance("other_types", &it.other_types, default.other_types)?,
    })
}

fn multipart_from(it: admin::MultipartPolicy) -> Result<MultipartPolicy, Invalid> {
    let default = MultipartPolicy::default();
    Ok(MultipartPolicy {
        mode: mode(&it.mode, default.mode)?,
        max_parts: it.max_parts.unwrap_or(default.max_parts),
        max_files: it.max_files.unwrap_or(default.max_files),
        max_part: it.max_part.map_or(default.max_part, Size),
        max_name: it.max_name.map_or(default.max_name, Size),
        body_max: it.body_max.map_or(default.body_max, Size),
        other_types: tolerance("other_types", &it.other_types, default.other_types)?,
    })
}

fn graphql_from(it: admin::GraphqlPolicy) -> Result<GraphqlPolicy, Invalid> {
    let default = GraphqlPolicy::default();
    Ok(GraphqlPolicy {
        mode: mode(&it.mode, default.mode)?,
        max_depth: it.max_depth.unwrap_or(default.max_depth),
        max_aliases: it.max_aliases.unwrap_or(default.max_aliases),
        max_complexity: it.max_complexity.unwrap_or(default.max_complexity),
        max_batch: it.max_batch.unwrap_or(default.max_batch),
        introspection: tolerance("introspection", &it.introspection, default.introspection)?,
        body_max: it.body_max.map_or(default.body_max, Size),
        other_types: tolerance("other_types", &it.other_types, default.other_types)?,
    })
}

pub(super) fn mode(text: &str, default: PolicyMode) -> Result<PolicyMode, Invalid> {
    Ok(word("mode", text, PolicyMode::ALL, PolicyMode::word)?.unwrap_or(default))
}

pub(super) fn tolerance(field: &str, text: &str, default: Tolerance) -> Result<Tolerance, Invalid> {
    Ok(word(field, text, Tolerance::ALL, Tolerance::word)?.unwrap_or(default))
}

/// Leaves of every secret its fingerprint.
pub fn hide_secrets(it: &mut admin::Policy) {
    if let Some(Kind::Anomaly(it)) = &mut it.kind {
        anomaly::hide_secret(it);
    }
}

pub fn policy_to(it: &Policy) -> admin::Policy {
    let kind = match &it.kind {
        PolicyKind::Ip(ip) => Kind::Ip(ip_to(ip)),
        PolicyKind::Json(it) => Kind::Json(json_to(it)),
        PolicyKind::Xml(it) => Kind::Xml(xml_to(it)),
        PolicyKind::Multipart(it) => Kind::Multipart(multipart_to(it)),
        PolicyKind::Graphql(it) => Kind::Graphql(graphql_to(it)),
        PolicyKind::Injection(it) => Kind::Injection(injection_to(it)),
        PolicyKind::Version(it) => Kind::Version(version_to(it)),
        PolicyKind::Contract(it) => Kind::Contract(contract::to(it)),
        PolicyKind::Ai(it) => Kind::Ai(ai::to(it)),
        PolicyKind::Anomaly(it) => Kind::Anomaly(anomaly::to(it)),
        PolicyKind::Bot(it) => Kind::Bot(bot_to(it)),
        PolicyKind::Mask(it) => Kind::Mask(mask::to(it)),
        PolicyKind::Portal(it) => Kind::Portal(portal::to(it)),
    };
    admin::Policy { name: it.name.to_string(), meta: meta_to(&it.labels, &it.owner, &it.description), kind: Some(kind) }
}

fn ip_to(ip: &IpPolicy) -> admin::IpPolicy {
    let countries = |list: &[Country]| list.iter().map(Country::to_string).collect();
    let places = &ip.places;
    let mut message = admin::IpPolicy {
        allow_countries: countries(&places.allow_countries),
        deny_countries: countries(&places.deny_countries),
        allow_asns: places.allow_asns.clone(),
        deny_asns: places.deny_asns.clone(),
        // What lists of networks alone were stored as before there were places.
        unknown_place: match places.unknown {
            Nowhere::Unlisted => String::new(),
            other => other.word().to_owned(),
        },
        ..Default::default()
    };
    for (nets, words, packed) in [
        (&ip.allow, &mut message.allow, &mut message.allow_packed),
        (&ip.deny, &mut message.deny, &mut message.deny_packed),
    ] {
        match nets.as_slice().len() < PACKED_FROM {
            true => *words = nets.as_slice().iter().map(ToString::to_string).collect(),
            false => *packed = pack(nets.as_slice()),
        }
    }
    message
}

fn json_to(it: &JsonPolicy) -> admin::JsonPolicy {
    admin::JsonPolicy {
        mode: it.mode.word().to_owned(),
        max_depth: Some(it.max_depth),
        max_keys: Some(it.max_keys),
        max_array: Some(it.max_array),
        max_string: Some(it.max_string.0),
        duplicate_keys: it.duplicate_keys.word().to_owned(),
        body_max: Some(it.body_max.0),
        other_types: it.other_types.word().to_owned(),
    }
}

fn version_to(it: &VersionPolicy) -> admin::VersionPolicy {
    let brownout = |it: &Brownout| admin::Brownout { start_ms: it.start.0, end_ms: it.end.0, status: it.status.into() };
    admin::VersionPolicy {
        api: it.api.to_string(),
        version: it.version.clone(),
        state: it.state.word().to_owned(),
        preview_groups: it.preview_groups.clone(),
        deprecated_at_ms: it.deprecated_at.map(|at| at.0),
        sunset_ms: it.sunset.map(|at| at.0),
        successor: it.successor.clone(),
        successor_url: it.successor_url.clone(),
        deprecation_url: it.deprecation_url.clone(),
        sunset_url: it.sunset_url.clone(),
        brownouts: it.brownouts.iter().map(brownout).collect(),
    }
}

fn injection_to(it: &InjectionPolicy) -> admin::InjectionPolicy {
    let words = |classes: &[InjectionClass]| classes.iter().map(|it| it.word().to_owned()).collect();
    let exception = |it: &InjectionException| admin::InjectionException {
        r#in: it.place.map(InspectedPlace::word).unwrap_or_default().to_owned(),
        pointer: it.pointer.clone(),
        classes: words(&it.classes),
    };
    admin::InjectionPolicy {
        mode: it.mode.word().to_owned(),
        threshold: Some(it.threshold),
        classes: words(&it.classes),
        exceptions: it.exceptions.iter().map(exception).collect(),
        body_max: Some(it.body_max.0),
    }
}

fn xml_to(it: &XmlPolicy) -> admin::XmlPolicy {
    admin::XmlPolicy {
        mode: it.mode.word().to_owned(),
        max_depth: Some(it.max_depth),
        max_elements: Some(it.max_elements),
        max_attributes: Some(it.max_attributes),
        max_text: Some(it.max_text.0),
        dtd: it.dtd.word().to_owned(),
        body_max: Some(it.body_max.0),
        other_types: it.other_types.word().to_owned(),
    }
}

fn multipart_to(it: &MultipartPolicy) -> admin::MultipartPolicy {
    admin::MultipartPolicy {
        mode: it.mode.word().to_owned(),
        max_parts: Some(it.max_parts),
        max_files: Some(it.max_files),
        max_part: Some(it.max_part.0),
        max_name: Some(it.max_name.0),
        body_max: Some(it.body_max.0),
        other_types: it.other_types.word().to_owned(),
    }
}

fn graphql_to(it: &GraphqlPolicy) -> admin::GraphqlPolicy {
    admin::GraphqlPolicy {
        mode: it.mode.word().to_owned(),
        max_depth: Some(it.max_depth),
        max_aliases: Some(it.max_aliases),
        max_complexity: Some(it.max_complexity),
        max_batch: Some(it.max_batch),
        introspection: it.introspection.word().to_owned(),
        body_max: Some(it.body_max.0),
        other_types: it.other_types.word().to_owned(),
    }
}

/// As clients are shown it: every network in words.
pub fn spell_out(it: &mut admin::Policy) {
    let Some(Kind::Ip(ip)) = &mut it.kind else { return };
    for (words, packed) in [(&mut ip.allow, &mut ip.allow_packed), (&mut ip.deny, &mut ip.deny_packed)] {
        let nets = unpack("packed", &std::mem::take(packed)).unwrap_or_default();
        words.extend(nets.iter().map(ToString::to_string));
    }
}

fn pack(nets: &[IpNet]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(nets.len() * 5);
    for net in nets {
        match net {
            IpNet::V4(it) => {
                bytes.push(it.prefix_len());
                bytes.extend(it.network().octets());
            }
            IpNet::V6(it) => {
                bytes.push(IS_V6 + it.prefix_len());
                bytes.extend(it.network().octets());
            }
        }
    }
    bytes
}

fn unpack(field: &str, mut bytes: &[u8]) -> Result<Vec<IpNet>, Invalid> {
    let wrong =
        || Invalid::field(format!("{field}_packed")).found("something else").allowed("networks without host bits");
    let mut nets = Vec::with_capacity(bytes.len() / 5);
    while let Some((mark, rest)) = bytes.split_first() {
        let (address, prefix, rest): (IpAddr, u8, &[u8]) = match mark.checked_sub(IS_V6) {
            None => {
                let (octets, rest) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
                ((*octets).into(), *mark, rest)
            }
            Some(prefix) => {
                let (octets, rest) = rest.split_first_chunk::<16>().ok_or_else(wrong)?;
                ((*octets).into(), prefix, rest)
            }
        };
        let net = IpNet::new(address, prefix).ok().filter(|net| net.trunc() == *net).ok_or_else(wrong)?;
        nets.push(plain(net));
        bytes = rest;
    }
    Ok(nets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_packed_and_comes_back_as_it_was() {
        let mut nets: Vec<IpNet> =
            (0..1_000u32).map(|n| IpNet::new(IpAddr::V4((n << 8).into()), 24).unwrap()).collect();
        nets.extend(
            ["::/0", "2001:db8::/32", "2001:db8::1/128", "2001:db8:0:0:8000::/126"]
                .map(|it| it.parse::<IpNet>().unwrap()),
        );
        let ip =
            IpPolicy { allow: Nets::new("allow", nets).unwrap(), deny: Nets::default(), places: Default::default() };
        let words = PolicyWords::new("p".parse().unwrap(), Default::default(), String::new(), String::new());
        let policy = Policy::with(words, PolicyKind::Ip(ip)).unwrap();
        let mut message = policy_to(&policy);
        let Some(Kind::Ip(stored)) = &message.kind else { panic!("another kind") };
        assert_eq!((stored.allow.len(), stored.allow_packed.len()), (0, 5_000 + 4 * 17));
        assert_eq!(policy_from(message.clone()).unwrap(), policy);
        spell_out(&mut message);
        let Some(Kind::Ip(shown)) = &message.kind else { panic!("another kind") };
        assert_eq!((shown.allow.len(), shown.allow_packed.len()), (1_004, 0));
        assert_eq!(policy_from(message).unwrap(), policy);
        for wrong in [&[24, 10, 0, 0][..], &[33, 10, 0, 0, 0], &[8, 10, 0, 0, 1], &[200], &[64]] {
            assert!(unpack("allow", wrong).is_err(), "{wrong:?}");
        }
    }
}
