//! Who is shut out for a while, whatever the routes say: a client's address or network, a consumer, a credential.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use imbl::OrdMap;
use ipnet::IpNet;

use crate::{
    convert,
    digest::Digest,
    invalid::Invalid,
    resource::{Name, plain},
};

/// How many bans there may be, and how many one command may bring or lift.
pub const BANS_MAX: usize = 100_000;
pub const BANS_AT_ONCE_MAX: usize = 1_000;
/// The widest networks that may be banned: a slip of the hand must not shut out the world. Policies deny more.
pub const BAN_V4_PREFIX_MIN: u8 = 8;
pub const BAN_V6_PREFIX_MIN: u8 = 16;
/// How long the id of a credential may be, bytes.
pub const BAN_CREDENTIAL_BYTES_MAX: usize = 256;
/// How long the reason of a ban may be, bytes: each entry keeps its own.
pub const BAN_REASON_BYTES_MAX: usize = 1_024;

/// Whom a ban shuts out. As text: `203.0.113.7`, `203.0.113.0/24`, `consumer:acme`, `credential:ID`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BanSubject {
    /// Without host bits; one address is a network of its whole length.
    Net(IpNet),
    /// Everything that speaks for it.
    Consumer(Name),
    /// A stored credential's id, a token's `jti` or a certificate's fingerprint, as logs have it.
    Credential(Arc<str>),
}

const ALLOWED: &str = "an address or a network (203.0.113.0/24), consumer:NAME or credential:ID";

impl FromStr for BanSubject {
    type Err = Invalid;

    /// Field path `subject`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |allowed: &str| Invalid::field("subject").found(format!("{text:?}")).allowed(allowed);
        if let Some(name) = text.strip_prefix("consumer:") {
            return name.parse().map(Self::Consumer).map_err(|_| wrong(Name::ALLOWED));
        }
        if let Some(id) = text.strip_prefix("credential:") {
            let fits = (1..=BAN_CREDENTIAL_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control);
            return match fits {
                true => Ok(Self::Credential(id.into())),
                false => Err(wrong("an id of 1 to 256 bytes without control characters")),
            };
        }
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let net = net.map(plain).ok_or_else(|| wrong(ALLOWED))?;
        if net.trunc() != net {
            return Err(wrong(&format!("a network without host bits: {}", net.trunc())));
        }
        let widest = match net {
            IpNet::V4(_) => BAN_V4_PREFIX_MIN,
            IpNet::V6(_) => BAN_V6_PREFIX_MIN,
        };
        match net.prefix_len() >= widest {
            true => Ok(Self::Net(net)),
            false => Err(wrong(&format!("a network of /{widest} or longer; a policy of kind ip denies more"))),
        }
    }
}

impl fmt::Display for BanSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Net(net) => write!(f, "{net}"),
            Self::Consumer(name) => write!(f, "consumer:{name}"),
            Self::Credential(id) => write!(f, "credential:{id}"),
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    pub subject: BanSubject,
    /// Log-clock instant, microseconds.
    pub expires_at_us: u64,
    /// Of the command that made it, or made it longer.
    pub index: u64,
    pub wall_ms: u64,
    pub reason: Arc<str>,
    pub actor: Arc<str>,
}

/// All of them, and the order in which they end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bans {
    entries: OrdMap<BanSubject, Arc<Ban>>,
    /// Follows from `entries`; neither stored nor hashed.
    ends: OrdMap<(u64, BanSubject), ()>,
    hash: Digest,
}

impl Bans {
    pub fn entries(&self) -> &OrdMap<BanSubject, Arc<Ban>> {
        &self.entries
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum of the entries' hashes (`Digest::plus`): changes with any of them.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The entry that was there before.
    pub(crate) fn insert(&mut self, ban: Arc<Ban>) -> Option<Arc<Ban>> {
        let before = self.remove(&ban.subject);
        self.hash = self.hash.plus(convert::ban::hash(&ban));
        self.ends.insert((ban.expires_at_us, ban.subject.clone()), ());
        self.entries.insert(ban.subject.clone(), ban);
        before
    }

    pub(crate) fn remove(&mut self, subject: &BanSubject) -> Option<Arc<Ban>> {
        let gone = self.entries.remove(subject)?;
        self.hash = self.hash.minus(convert::ban::hash(&gone));
        self.ends.remove(&(gone.expires_at_us, gone.subject.clone()));
        Some(gone)
    }

    /// Forgets what has ended by this instant, at most so many.
    pub(crate) fn forget(&mut self, clock_us: u64, budget: usize) {
        for _ in 0..budget {
            match self.ends.get_min() {
                Some(((end, subject), ())) if *end <= clock_us => {
                    let subject = subject.clone();
                    self.remove(&subject);
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_come_back_as_they_were_written() {
        for (text, shown) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7/32", "203.0.113.7"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8::/48", "2001:db8::/48"),
            ("consumer:acme", "consumer:acme"),
            ("credential:00ff", "credential:00ff"),
        ] {
            let subject: BanSubject = text.parse().unwrap();
            assert_eq!(subject.to_string(), shown);
            assert_eq!(shown.parse(), Ok(subject));
        }
        for (text, mention) in [
            ("acme", "an address or a network"),
            ("10.0.0.1/8", "without host bits: 10.0.0.0/8"),
            ("0.0.0.0/0", "/8 or longer"),
            ("2000::/3", "/16 or longer"),
            ("consumer:", "a-z"),
            ("credential:", "1 to 256 bytes"),
        ] {
            let error = text.parse::<BanSubject>().unwrap_err().to_string();
            assert!(error.contains(mention) && error.contains("subject"), "{text}: {error}");
        }
    }

    #[test]
    fn what_has_ended_goes_in_its_order() {
        let mut bans = Bans::default();
        let ban = |text: &str, expires_at_us| {
            let (reason, actor) = ("".into(), "".into());
            Arc::new(Ban { subject: text.parse().unwrap(), expires_at_us, index: 1, wall_ms: 2, reason, actor })
        };
        for (text, end) in [("10.0.0.1", 30), ("consumer:a", 10), ("10.0.0.1", 20), ("credential:x", 40)] {
            bans.insert(ban(text, end));
        }
        bans.forget(20, 1);
        assert_eq!(bans.len(), 2, "one at a time");
        bans.forget(20, 9);
        assert_eq!(bans.entries().keys().map(ToString::to_string).collect::<Vec<_>>(), ["credential:x"]);
        let mut alone = Bans::default();
        alone.insert(ban("credential:x", 40));
        assert_eq!(bans, alone, "nothing is left of what went");
    }
}
