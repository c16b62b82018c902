//! Policies of kind `bot` as requests meet them: what a client calls itself, held against patterns in linear time.

use std::{borrow::Cow, sync::Arc};

use regex::Regex;

use super::{Rule, Ruleset, addresses::Asked, rule::regex_within};
use crate::{
    invalid::Invalid,
    mutants::{self, Mutant},
    resource::{BotPolicy, Name, Policy, PolicyMode, Tolerance},
};

/// Tools that look for holes, by a word that they call themselves with; each stands at the beginning of a word.
const SCANNERS: [&str; 30] = [
    "acunetix",
    "arachni",
    "commix",
    "dirbuster",
    "dirsearch",
    "feroxbuster",
    "ffuf",
    "fimap",
    "fuzz faster u fool",
    "gobuster",
    "havij",
    "jaeles",
    "masscan",
    "morfeus",
    "nessus",
    "netsparker",
    "nikto",
    "nmap",
    "nuclei",
    "openvas",
    "qualys",
    "skipfish",
    "sqlmap",
    "w3af",
    "wapiti",
    "wfuzz",
    "whatweb",
    "wpscan",
    "zgrab",
    "zmeu",
];

/// One policy of kind `bot`.
#[derive(Debug)]
pub(super) struct Agents {
    policy: Arc<Policy>,
    mode: PolicyMode,
    allow: Vec<Regex>,
    deny: Vec<Regex>,
    missing: Tolerance,
    scanners: Tolerance,
    /// This build does not take one of its patterns.
    broken: bool,
}

/// What one policy finds in what a client calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwelcome {
    pub policy: Name,
    pub how: BotFound,
    /// Or it is told of, and goes on.
    pub is_refused: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BotFound {
    /// By this pattern.
    Denied(Arc<str>),
    Missing,
    Scanner(&'static str),
    /// By no build like this one: some pattern cannot be carried out.
    Unknown,
}

impl BotFound {
    /// The word of the policy that decides.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Denied(_) => "deny",
            Self::Missing => "missing",
            Self::Scanner(_) => "scanners",
            Self::Unknown => "patterns",
        }
    }

    pub fn detail(&self) -> &str {
        match self {
            Self::Denied(pattern) => pattern,
            Self::Scanner(name) => name,
            Self::Missing | Self::Unknown => "",
        }
    }
}

/// Whether every pattern compiles here.
pub fn check(it: &BotPolicy) -> Result<(), Invalid> {
    patterns("allow", &it.allow)?;
    patterns("deny", &it.deny).map(drop)
}

fn patterns(field: &str, texts: &[String]) -> Result<Vec<Regex>, Invalid> {
    let pattern = |(place, text): (usize, &String)| {
        let field = format!("{field}[{place}]");
        match text.is_empty() {
            true => Err(Invalid::field(field).found("\"\"").allowed("a pattern of one character or more")),
            false => regex_within(&field, text),
        }
    };
    texts.iter().enumerate().map(pattern).collect()
}

impl Agents {
    pub(super) fn new(policy: &Arc<Policy>, it: &BotPolicy) -> Self {
        let (allow, deny) = (patterns("allow", &it.allow), patterns("deny", &it.deny));
        Self {
            policy: policy.clone(),
            mode: it.mode,
            missing: it.missing,
            scanners: it.scanners,
            broken: allow.is_err() || deny.is_err(),
            allow: allow.unwrap_or_default(),
            deny: deny.unwrap_or_default(),
        }
    }

    fn find(&self, agents: &[Cow<'_, str>]) -> Option<BotFound> {
        if self.broken {
            return Some(BotFound::Unknown);
        }
        let any = |pattern: &&Regex| agents.iter().any(|agent| pattern.is_match(agent));
        if self.allow.iter().any(|pattern| any(&pattern)) && !mutants::is(Mutant::AllowedBotsDenied) {
            return None;
        }
        if let Some(pattern) = self.deny.iter().find(any) {
            return Some(BotFound::Denied(pattern.as_str().into()));
        }
        if self.missing == Tolerance::Refuse && agents.iter().all(|agent| agent.trim().is_empty()) {
            return Some(BotFound::Missing);
        }
        if self.scanners == Tolerance::Refuse && !mutants::is(Mutant::ScannersWelcome) {
            return agents.iter().find_map(|agent| scanner(agent)).map(BotFound::Scanner);
        }
        None
    }
}

fn scanner(agent: &str) -> Option<&'static str> {
    let agent = agent.to_ascii_lowercase();
    let begins = |at: usize| !agent[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    SCANNERS.into_iter().find(|name| agent.match_indices(name).any(|(at, _)| begins(at)))
}

impl Ruleset {
    /// What the route's policies of kind `bot` find, in its order; nothing is asked of the request where there are none.
    pub fn unwelcome<'a>(&self, rule: &Rule, agents: impl FnOnce() -> Vec<Cow<'a, str>>) -> Vec<Unwelcome> {
        let mut asked = rule.route.policies.iter().filter_map(|name| match self.policies.get(name) {
            Some(Asked::Agents(it)) if it.mode != PolicyMode::Off => Some(it),
            _ => None,
        });
        let Some(first) = asked.next() else { return Vec::new() };
        let agents = agents();
        let unwelcome = |it: &Arc<Agents>| {
            let (policy, is_refused) = (it.policy.name.clone(), it.mode == PolicyMode::Enforce);
            Some(Unwelcome { policy, how: it.find(&agents)?, is_refused })
        };
        std::iter::once(first).chain(asked).filter_map(unwelcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{Kind, PolicyKind, Resource};

    fn find(words: serde_json::Value, agents: &[&str]) -> String {
        let Resource::Policy(it) = Kind::Policy.parse(json!({ "name": "p", "bot": words })).unwrap() else {
            panic!("another kind")
        };
        let PolicyKind::Bot(bot) = &it.kind else { panic!("another kind") };
        let agents: Vec<_> = agents.iter().map(|it| Cow::Borrowed(*it)).collect();
        let found = Agents::new(&it, bot).find(&agents);
        found.map(|it| format!("{} {}", it.word(), it.detail()).trim().to_owned()).unwrap_or_default()
    }

    #[test]
    fn clients_are_told_by_what_they_call_themselves() {
        let words = json!({ "deny": ["(?i)curl", "^Java/"], "allow": ["^curl/8 monitor$"], "missing": "refuse" });
        for (agents, expected) in [
            (&["Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"][..], ""),
            (&["cURL/7"], "deny (?i)curl"),
            (&["Java/21"], "deny ^Java/"),
            (&["NotJava/21"], ""),
            (&["curl/8 monitor"], ""),
            (&["Mozilla/5.0", "curl/8"], "deny (?i)curl"),
            (&[], "missing"),
            (&["  "], "missing"),
            (&["sqlmap/1.8#stable (https://sqlmap.org)"], "scanners sqlmap"),
            (&["Mozilla/5.0 (compatible; Nmap Scripting Engine)"], "scanners nmap"),
            (&["Mozilla/5.00 (Nikto/2.5.0) (Evasions:None)"], "scanners nikto"),
            (&["Xnmapper/1"], ""),
        ] {
            assert_eq!(find(words.clone(), agents), expected, "{agents:?}");
        }
        assert_eq!(find(json!({}), &[]), "", "by default it may be missing");
        assert_eq!(find(json!({ "scanners": "allow" }), &["nuclei"]), "");
    }
}
