//! Policies that watch how callers behave, over all nodes together, and what becomes of those who behave unlike others.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    super::{Name, Secret, check, word::word_enum},
    plain,
};
use crate::{
    ban::{BAN_CREDENTIAL_BYTES_MAX, BAN_V4_PREFIX_MIN, BAN_V6_PREFIX_MIN, BanSubject},
    digest::Digest,
    invalid::Invalid,
    mutants::{self, Mutant},
    units::{Size, Span},
};

pub const ANOMALY_WINDOW_MIN: Span = Span::secs(10);
pub const ANOMALY_WINDOW_MAX: Span = Span::secs(3_600);
pub const ANOMALY_HOLD_MIN: Span = Span::secs(1);
pub const ANOMALY_HOLD_MAX: Span = Span::secs(30 * 86_400);
/// The field of its one secret.
pub const ANOMALY_SECRET: &str = "anomaly.webhook.secret";
const EXEMPT_MAX: usize = 256;
const STATUSES_MAX: usize = 32;
const PARAMETER_BYTES_MAX: usize = 64;

word_enum!(
    /// Whose requests are added up.
    AnomalyKey {
        Consumer = "consumer",
        Credential = "credential",
        Ip = "ip",
    }
);

word_enum!(AnomalyAction {
    /// It is told.
    Log = "log",
    /// The upstream is told too, by `x-anomaly`.
    Header = "header",
    /// 429 `abnormal_usage`.
    Throttle = "throttle",
    /// 401 `step_up_required`, until the caller has proved anew who it is (RFC 9470).
    Challenge = "challenge",
    /// An entry of the cluster's bans.
    Ban = "ban",
    /// Somebody else decides: the policy's webhook is told.
    Webhook = "webhook",
});

word_enum!(AnomalyFeature {
    Requests = "requests",
    Failures = "failures",
    Objects = "objects",
    Credentials = "credentials",
    Sequential = "sequential",
    BytesOut = "bytes_out",
    Countries = "countries",
});

/// How callers are watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnomalyPolicy {
    pub per: AnomalyKey,
    /// Of `per: ip`: addresses of one network of this size are one caller.
    pub v4_prefix: u8,
    pub v6_prefix: u8,
    /// It slides.
    pub window: Span,
    /// More than that in a window is unusual.
    pub over: AnomalyBounds,
    /// What tells objects apart: `path`, `params.NAME` of the route's template, `query.NAME`.
    pub object: String,
    /// Answers with these are failures.
    pub failure_statuses: Vec<u16>,
    pub action: AnomalyAction,
    /// For how long, from when it was found.
    pub hold: Span,
    /// Whose requests do not count, and who is never banned.
    pub exempt_cidrs: Vec<IpNet>,
    pub exempt_consumers: Vec<Name>,
    /// Who is told too, whatever the action is.
    pub webhook: Option<AnomalyWebhook>,
}

/// Where what is found is posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnomalyWebhook {
    pub url: String,
    /// Messages are signed with it.
    pub secret: Secret,
    /// Loopback and private addresses may be called too, and http.
    #[serde(default)]
    pub allow_private: bool,
}

/// None: it is not looked at. At least one is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnomalyBounds {
    pub requests: Option<u64>,
    pub failures: Option<u64>,
    /// Different ones that were asked for: a walk through what is others' (BOLA), a scraper.
    pub objects: Option<u64>,
    /// Different ones that were shown in vain: stolen passwords that are tried out.
    pub credentials: Option<u64>,
    /// Pairs of numbers side by side among the objects.
    pub sequential: Option<u64>,
    /// Of bodies.
    pub bytes_out: Option<Size>,
    /// Different ones that it came from: a credential that is somewhere new.
    pub countries: Option<u64>,
}

/// Which part of a request is its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnomalyObject<'a> {
    Path,
    Param(&'a str),
    Query(&'a str),
}

impl Default for AnomalyPolicy {
    fn default() -> Self {
        Self {
            per: AnomalyKey::Consumer,
            v4_prefix: 32,
            v6_prefix: 64,
            window: Span::secs(60),
            over: AnomalyBounds::default(),
            object: "path".to_owned(),
            failure_statuses: vec![401, 403],
            action: AnomalyAction::Log,
            hold: Span::secs(600),
            exempt_cidrs: Vec::new(),
            exempt_consumers: Vec::new(),
            webhook: None,
        }
    }
}

impl AnomalyBounds {
    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = (AnomalyFeature, u64)> {
        let all = [
            (AnomalyFeature::Requests, self.requests),
            (AnomalyFeature::Failures, self.failures),
            (AnomalyFeature::Objects, self.objects),
            (AnomalyFeature::Credentials, self.credentials),
            (AnomalyFeature::Sequential, self.sequential),
            (AnomalyFeature::BytesOut, self.bytes_out.map(|it| it.0)),
            (AnomalyFeature::Countries, self.countries),
        ];
        all.into_iter().filter_map(|(feature, over)| Some((feature, over?)))
    }
}

impl AnomalyPolicy {
    pub fn checked(mut self) -> Result<Self, Invalid> {
        if self.over.iter().next().is_none() {
            let allowed = "at least one bound, such as { failures: 50 }";
            return Err(Invalid::field("over").found("nothing").allowed(allowed));
        }
        if let Some((feature, _)) = self.over.iter().find(|(_, over)| *over == 0) {
            return Err(Invalid::field(format!("over.{}", feature.word())).found("0").allowed("1 or more"));
        }
        // As a ban may be.
        check::number("v4_prefix", self.v4_prefix.into(), BAN_V4_PREFIX_MIN.into(), 32)?;
        check::number("v6_prefix", self.v6_prefix.into(), BAN_V6_PREFIX_MIN.into(), 128)?;
        check::span_up_to("window", self.window, ANOMALY_WINDOW_MIN, ANOMALY_WINDOW_MAX)?;
        check::span_up_to("hold", self.hold, ANOMALY_HOLD_MIN, ANOMALY_HOLD_MAX)?;
        object(&self.object)?;
        check::count("failure_statuses", self.failure_statuses.len(), STATUSES_MAX)?;
        check::once("failure_statuses", &self.failure_statuses, u16::to_string)?;
        if let Some(place) = self.failure_statuses.iter().position(|status| !(200..=599).contains(status)) {
            let field = format!("failure_statuses[{place}]");
            return Err(Invalid::field(field).found(self.failure_statuses[place]).allowed("200 to 599"));
        }
        check::count("exempt_cidrs", self.exempt_cidrs.len(), EXEMPT_MAX)?;
        for (place, net) in self.exempt_cidrs.iter_mut().enumerate() {
            if net.trunc() != *net {
                let allowed = format!("a network without host bits: {}", net.trunc());
                return Err(Invalid::field(format!("exempt_cidrs[{place}]")).found(*net).allowed(allowed));
            }
            *net = plain(*net);
        }
        check::count("exempt_consumers", self.exempt_consumers.len(), EXEMPT_MAX)?;
        check::once("exempt_consumers", &self.exempt_consumers, Name::to_string)?;
        if self.per == AnomalyKey::Ip && self.action == AnomalyAction::Ban && !self.exempt_consumers.is_empty() {
            let allowed =
                "none of them where addresses are banned, which shuts out whoever comes from there: exempt_cidrs";
            let found = format!("{} names", self.exempt_consumers.len());
            return Err(Invalid::field("exempt_consumers").found(found).allowed(allowed));
        }
        if let Some(it) = &self.webhook {
            it.check().map_err(|invalid| invalid.under("webhook"))?;
        } else if self.action == AnomalyAction::Webhook {
            return Err(Invalid::field("webhook")
                .found("nothing")
                .allowed("a url and a secret, as action: webhook needs"));
        }
        Ok(self)
    }

    /// Tells what it says from what it said before: what was found by another is not found by this one. Who is told of it
    /// makes no other one of it, nor does what messages are signed with.
    pub fn spec(&self) -> u64 {
        // Of words alone, which JSON always takes.
        let words = serde_json::to_vec(&Self { webhook: None, ..self.clone() }).unwrap_or_default();
        let digest = Digest::of(&words).0;
        digest[..8].iter().fold(0, |spec, byte| spec << 8 | u64::from(*byte))
    }

    pub fn object(&self) -> AnomalyObject<'_> {
        object(&self.object).unwrap_or(AnomalyObject::Path)
    }

    /// The network that stands for an address.
    pub fn net_of(&self, address: IpAddr) -> IpNet {
        let (address, prefix) = match address.to_canonical() {
            it @ IpAddr::V4(_) => (it, self.v4_prefix),
            it @ IpAddr::V6(_) => (it, self.v6_prefix),
        };
        IpNet::new(address, prefix).map_or_else(|_| IpNet::from(address), |net| net.trunc())
    }

    /// Who would be banned for a key; None: nobody could be without one who is exempt, or by that.
    pub fn subject(&self, key: &str) -> Option<BanSubject> {
        match self.per {
            AnomalyKey::Consumer => {
                let name: Name = key.parse().ok()?;
                let is_exempt = self.exempt_consumers.contains(&name) && !mutants::is(Mutant::ExemptBanned);
                (!is_exempt).then_some(BanSubject::Consumer(name))
            }
            AnomalyKey::Credential => {
                let fits = (1..=BAN_CREDENTIAL_BYTES_MAX).contains(&key.len()) && !key.chars().any(char::is_control);
                fits.then(|| BanSubject::Credential(key.into()))
            }
            AnomalyKey::Ip => {
                let net: IpNet = key.parse().ok().or_else(|| key.parse::<IpAddr>().ok().map(IpNet::from))?;
                let touches = |exempt: &IpNet| exempt.contains(&net) || net.contains(exempt);
                (!self.exempt_cidrs.iter().any(touches)).then_some(BanSubject::Net(net))
            }
        }
    }
}

impl AnomalyWebhook {
    fn check(&self) -> Result<(), Invalid> {
        check::url("url", &self.url, self.allow_private)?;
        self.secret.check_signing("secret")
    }
}

fn object(text: &str) -> Result<AnomalyObject<'_>, Invalid> {
    let named = |name: &str| !name.is_empty() && name.len() <= PARAMETER_BYTES_MAX && !name.contains(char::is_control);
    match text.split_once('.') {
        None if text == "path" => Ok(AnomalyObject::Path),
        Some(("params", name)) if named(name) => Ok(AnomalyObject::Param(name)),
        Some(("query", name)) if named(name) => Ok(AnomalyObject::Query(name)),
        _ => {
            let allowed = "path, params.NAME (of the route's path_template) or query.NAME";
            Err(Invalid::field("object").found(format!("{text:?}")).allowed(allowed))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::PolicyKind, *};
    use crate::resource::{Kind, Resource};

    fn policy(words: serde_json::Value) -> Result<Resource, serde_json::Error> {
        Kind::Policy.parse(json!({ "name": "p", "anomaly": words }))
    }

    #[test]
    fn mistakes_name_their_place() {
        let shown = serde_json::to_value(policy(json!({ "over": { "failures": 50 } })).unwrap()).unwrap();
        let expected = json!({
            "per": "consumer", "v4_prefix": 32, "v6_prefix": 64, "window": "1m", "object": "path",
            "over": { "requests": null, "failures": 50, "objects": null, "credentials": null, "sequential": null, "bytes_out": null, "countries": null },
            "failure_statuses": [401, 403], "action": "log", "hold": "10m", "exempt_cidrs": [], "exempt_consumers": [],
            "webhook": null,
        });
        assert_eq!(shown["anomaly"], expected);
        let with = |field: &str, value: serde_json::Value| {
            let mut words = json!({ "over": { "requests": 1 } });
            words[field] = value;
            words
        };
        for (words, mention) in [
            (json!({}), "anomaly.over: found nothing; allowed: at least one bound"),
            (json!({ "over": { "bytes_out": 0 } }), "anomaly.over.bytes_out: found 0"),
            (json!({ "over": { "speed": 1 } }), "speed"),
            (with("per", json!("route")), "route"),
            (with("window", json!("1s")), "anomaly.window: found 1s; allowed: 10s to 1h"),
            (with("hold", json!("0s")), "anomaly.hold"),
            (with("v4_prefix", json!(4)), "anomaly.v4_prefix: found 4; allowed: 8 to 32"),
            (with("object", json!("body.id")), "anomaly.object: found \"body.id\""),
            (with("object", json!("params.")), "anomaly.object"),
            (with("failure_statuses", json!([401, 99])), "anomaly.failure_statuses[1]: found 99"),
            (with("failure_statuses", json!([401, 401])), "anomaly.failure_statuses[1]"),
            (with("exempt_cidrs", json!(["10.0.0.1/8"])), "anomaly.exempt_cidrs[0]: found 10.0.0.1/8"),
            (with("exempt_consumers", json!(["a", "a"])), "anomaly.exempt_consumers[1]"),
            (
                json!({ "per": "ip", "action": "ban", "over": { "requests": 1 }, "exempt_consumers": ["a"] }),
                "anomaly.exempt_consumers: found 1 names",
            ),
            (with("action", json!("webhook")), "anomaly.webhook: found nothing; allowed: a url and a secret"),
            (with("webhook", json!({ "url": "https://a.test/" })), "secret"),
            (
                with("webhook", json!({ "url": "http://a.test/", "secret": SECRET })),
                "anomaly.webhook.url: found \"http://a.test/\"",
            ),
            (with("webhook", json!({ "url": "https://a.test/", "secret": "plain:short" })), "anomaly.webhook.secret"),
        ] {
            let error = policy(words).unwrap_err().to_string();
            assert!(error.contains(mention), "{error} instead of {mention}");
        }
    }

    const SECRET: &str = "plain:0123456789abcdef0123456789abcdef";

    #[test]
    fn who_is_told_makes_no_other_policy_of_it() {
        let spec = |words| match policy(words).unwrap() {
            Resource::Policy(it) => match &it.kind {
                PolicyKind::Anomaly(it) => it.spec(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let told = |url: &str| json!({ "over": { "requests": 1 }, "webhook": { "url": url, "secret": SECRET } });
        let silent = spec(json!({ "over": { "requests": 1 } }));
        assert_eq!([spec(told("https://a.test/")), spec(told("https://b.test/x"))], [silent, silent]);
        assert_ne!(spec(json!({ "over": { "requests": 2 } })), silent);
    }

    #[test]
    fn nobody_is_banned_with_one_who_is_exempt() {
        let of = |words| match policy(words).unwrap() {
            Resource::Policy(it) => match &it.kind {
                PolicyKind::Anomaly(it) => (**it).clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let ip =
            of(json!({ "per": "ip", "v4_prefix": 24, "over": { "requests": 1 }, "exempt_cidrs": ["192.0.2.7/32"] }));
        let subject = |it: &AnomalyPolicy, key: &str| it.subject(key).map(|it| it.to_string()).unwrap_or_default();
        assert_eq!(ip.net_of("::ffff:192.0.2.9".parse().unwrap()).to_string(), "192.0.2.0/24");
        assert_eq!(ip.net_of("2001:db8::9".parse().unwrap()).to_string(), "2001:db8::/64");
        assert_eq!(subject(&ip, "192.0.2.0/24"), "", "one of them is exempt");
        assert_eq!(subject(&ip, "192.0.3.0/24"), "192.0.3.0/24");
        assert_eq!(subject(&ip, "no address"), "");
        let consumer = of(json!({ "over": { "requests": 1 }, "exempt_consumers": ["partner"] }));
        assert_eq!((subject(&consumer, "acme"), subject(&consumer, "partner")), ("consumer:acme".into(), "".into()));
        let credential = of(json!({ "per": "credential", "over": { "requests": 1 } }));
        assert_eq!(subject(&credential, "00ff"), "credential:00ff");
    }
}
