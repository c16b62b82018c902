//! Which paths there are, and the RPC that each is.

use http::Method;
use quorumgate_model::resource::Kind;
use tonic::{Code, Status};

use super::PREFIX;
use crate::admin::failure;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Cluster,
    Nodes,
    Node(String, NodeVerb),
    Doctor,
    Stats,
    Config,
    Apply,
    Revisions,
    Rollback,
    Confirm,
    Abort,
    Audit,
    Verify,
    Exchange(String),
    Match,
    WhoAmI,
    /// The cluster at a glance, as it changes.
    Stream,
    Traffic,
    /// Exchanges as they end.
    Tap,
    /// Versions; "": of all APIs.
    Apis(String),
    /// "": of all APIs.
    Callers(String),
    /// Of models.
    AiUsage,
    /// Of an upstream's servers.
    Health(String),
    Diff,
    Keys,
    CreateKey,
    RotateKey(String),
    Key(String, KeyVerb),
    Revocations,
    Revoke,
    Bans,
    /// Callers that behave unlike others.
    Anomalies,
    Approvals,
    Approval(String, ApprovalVerb),
    /// "": of every limit.
    Usage(String),
    TransferLeader,
    Events,
    Objects(Kind),
    Object(Kind, String),
    Put(Kind, String),
    Delete(Kind, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeVerb {
    Drain,
    Undrain,
    Promote,
    Demote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyVerb {
    Revoke,
    Disable,
    Enable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalVerb {
    Get,
    Approve,
    Reject,
}

/// All of them, for whoever asks for another.
pub const KNOWN: &[&str] = &[
    "GET whoami",
    "GET stream",
    "GET traffic",
    "GET tap",
    "GET cluster",
    "POST transfer-leader",
    "GET nodes",
    "POST nodes/NAME/drain",
    "POST nodes/NAME/undrain",
    "POST nodes/NAME/promote",
    "POST nodes/NAME/demote",
    "GET doctor",
    "GET stats",
    "GET config",
    "POST config",
    "GET revisions",
    "GET diff",
    "POST rollback",
    "POST confirm",
    "POST abort",
    "GET audit",
    "GET audit/verify",
    "GET requests/ID",
    "GET match",
    "GET keys",
    "POST keys",
    "POST keys/ID/rotate",
    "POST keys/ID/revoke",
    "POST keys/ID/disable",
    "POST keys/ID/enable",
    "GET revocations",
    "POST revocations",
    "GET bans",
    "GET anomalies",
    "GET approvals",
    "GET approvals/ID",
    "POST approvals/ID/approve",
    "POST approvals/ID/reject",
    "GET usage",
    "GET usage/LIMIT",
    "GET upstreams/NAME/health",
    "GET ai/usage",
    "GET apis",
    "GET apis/NAME",
    "GET callers",
    "GET callers/NAME",
    "GET events",
    "GET KINDS",
    "GET KINDS/NAME",
    "PUT KINDS/NAME",
    "DELETE KINDS/NAME",
];

/// What is asked for, and the path of the RPC that it is.
pub fn find(method: &Method, path: &str) -> Result<(Asked, String), Status> {
    let parts: Vec<&str> = path.strip_prefix(PREFIX).unwrap_or_default().split('/').collect();
    let found = match (method.as_str(), parts.as_slice()) {
        ("GET", ["whoami"]) => Some((Asked::WhoAmI, "Overview/WhoAmI".into())),
        ("GET", ["stream"]) => Some((Asked::Stream, "Overview/WatchOverview".into())),
        ("GET", ["traffic"]) => Some((Asked::Traffic, "Overview/GetTraffic".into())),
        ("GET", ["tap"]) => Some((Asked::Tap, "Observe/Tap".into())),
        ("GET", ["cluster"]) => Some((Asked::Cluster, "Cluster/GetStatus".into())),
        ("GET", ["nodes"]) => Some((Asked::Nodes, "Cluster/ListNodes".into())),
        ("POST", ["transfer-leader"]) => Some((Asked::TransferLeader, "Cluster/TransferLeader".into())),
        ("POST", ["nodes", name, verb]) => node(name, verb),
        ("GET", ["doctor"]) => Some((Asked::Doctor, "Observe/Doctor".into())),
        ("GET", ["stats"]) => Some((Asked::Stats, "Observe/GetStats".into())),
        ("GET", ["config"]) => Some((Asked::Config, "Config/GetConfig".into())),
        ("POST", ["config"]) => Some((Asked::Apply, "Config/ApplyConfig".into())),
        ("GET", ["revisions"]) => Some((Asked::Revisions, "Config/ListRevisions".into())),
        ("GET", ["diff"]) => Some((Asked::Diff, "Config/DiffRevisions".into())),
        ("POST", ["rollback"]) => Some((Asked::Rollback, "Config/Rollback".into())),
        ("POST", ["confirm"]) => Some((Asked::Confirm, "Config/ConfirmTrial".into())),
        ("POST", ["abort"]) => Some((Asked::Abort, "Config/AbortTrial".into())),
        ("GET", ["audit"]) => Some((Asked::Audit, "Observe/ListAudit".into())),
        ("GET", ["audit", "verify"]) => Some((Asked::Verify, "Observe/VerifyAudit".into())),
        ("GET", ["requests", id]) => Some((Asked::Exchange((*id).into()), "Observe/ExplainRequest".into())),
        ("GET", ["match"]) => Some((Asked::Match, "Observe/ExplainMatch".into())),
        ("GET", ["keys"]) => Some((Asked::Keys, "Key/ListKeys".into())),
        ("POST", ["keys"]) => Some((Asked::CreateKey, "Key/CreateKey".into())),
        ("POST", ["keys", id, verb]) => key(id, verb),
        ("GET", ["revocations"]) => Some((Asked::Revocations, "Revocation/ListRevocations".into())),
        ("POST", ["revocations"]) => Some((Asked::Revoke, "Revocation/RevokeToken".into())),
        ("GET", ["bans"]) => Some((Asked::Bans, "Bans/ListBans".into())),
        ("GET", ["anomalies"]) => Some((Asked::Anomalies, "Anomalies/ListAnomalies".into())),
        ("GET", ["approvals"]) => Some((Asked::Approvals, "Approvals/ListPending".into())),
        ("GET", ["approvals", id]) => {
            Some((Asked::Approval((*id).into(), ApprovalVerb::Get), "Approvals/GetPending".into()))
        }
        ("POST", ["approvals", id, verb]) => approval(id, verb),
        ("GET", ["upstreams", name, "health"]) => {
            Some((Asked::Health((*name).into()), "Upstreams/GetUpstreamHealth".into()))
        }
        ("GET", ["ai", "usage"]) => Some((Asked::AiUsage, "Ai/ListAiUsage".into())),
        ("GET", ["apis"]) => Some((Asked::Apis(String::new()), "Apis/ListApis".into())),
        ("GET", ["apis", name]) => Some((Asked::Apis((*name).into()), "Apis/ListApis".into())),
        ("GET", ["callers"]) => Some((Asked::Callers(String::new()), "Apis/ListCallers".into())),
        ("GET", ["callers", name]) => Some((Asked::Callers((*name).into()), "Apis/ListCallers".into())),
        ("GET", ["usage"]) => Some((Asked::Usage(String::new()), "LimitUsage/GetUsage".into())),
        ("GET", ["usage", limit]) => Some((Asked::Usage((*limit).into()), "LimitUsage/GetUsage".into())),
        ("GET", ["events"]) => Some((Asked::Events, "Config/WatchConfig".into())),
        (verb, [list, name @ ..]) if name.len() < 2 => object(verb, list, name.first().copied()),
        _ => None,
    };
    let (asked, rpc) = found.ok_or_else(|| {
        let known = KNOWN.join(", ");
        failure::status(Code::NotFound, "NOT_FOUND", format!("{method} {path}; allowed below {PREFIX}: {known}"))
    })?;
    Ok((asked, format!("/quorumgate.admin.v1.{rpc}")))
}

fn node(name: &str, verb: &str) -> Option<(Asked, String)> {
    let (verb, rpc) = match verb {
        "drain" => (NodeVerb::Drain, "DrainNode"),
        "undrain" => (NodeVerb::Undrain, "UndrainNode"),
        "promote" => (NodeVerb::Promote, "PromoteNode"),
        "demote" => (NodeVerb::Demote, "DemoteNode"),
        _ => return None,
    };
    Some((Asked::Node(name.into(), verb), format!("Cluster/{rpc}")))
}

fn key(id: &str, verb: &str) -> Option<(Asked, String)> {
    let (verb, rpc) = match verb {
        "rotate" => return Some((Asked::RotateKey(id.into()), "Key/RotateKey".into())),
        "revoke" => (KeyVerb::Revoke, "RevokeKey"),
        "disable" => (KeyVerb::Disable, "DisableKey"),
        "enable" => (KeyVerb::Enable, "EnableKey"),
        _ => return None,
    };
    Some((Asked::Key(id.into(), verb), format!("Key/{rpc}")))
}

fn approval(id: &str, verb: &str) -> Option<(Asked, String)> {
    let (verb, rpc) = match verb {
        "approve" => (ApprovalVerb::Approve, "Approve"),
        "reject" => (ApprovalVerb::Reject, "Reject"),
        _ => return None,
    };
    Some((Asked::Approval(id.into(), verb), format!("Approvals/{rpc}")))
}

fn object(verb: &str, list: &str, name: Option<&str>) -> Option<(Asked, String)> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.list() == list)?;
    let message = title(kind);
    Some(match (verb, name) {
        ("GET", None) => (Asked::Objects(kind), format!("Config/List{}", plural(&message))),
        ("GET", Some(name)) => (Asked::Object(kind, name.into()), format!("Config/Get{message}")),
        ("PUT", Some(name)) => (Asked::Put(kind, name.into()), "Config/ApplyConfig".into()),
        ("DELETE", Some(name)) => (Asked::Delete(kind, name.into()), "Config/ApplyConfig".into()),
        _ => return None,
    })
}

/// `certificate_authority` → `CertificateAuthority`
fn title(kind: Kind) -> String {
    let upper = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    kind.word().split('_').map(upper).collect()
}

fn plural(message: &str) -> String {
    match message.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{message}s"),
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::command::AdminRole;

    use super::*;
    use crate::admin::access::{self, Access};

    #[test]
    fn every_path_is_a_call_that_the_table_of_roles_knows() {
        for known in KNOWN {
            let (method, name) = known.split_once(' ').unwrap();
            let kinds: Vec<&str> = match name.contains("KINDS") {
                true => Kind::ALL.iter().map(|kind| kind.list()).collect(),
                false => vec![""],
            };
            for kind in kinds {
                let path = format!("{PREFIX}{}", name.replace("KINDS", kind));
                let (_, rpc) = find(&method.parse().unwrap(), &path).unwrap();
                // What the table does not know needs an admin of the whole.
                let is_known = access::of(&rpc) != Access::Whole(AdminRole::Admin)
                    || rpc.ends_with("PromoteNode")
                    || rpc.ends_with("DemoteNode");
                assert!(is_known, "{known}: {rpc}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for (method, path) in [
            (Method::DELETE, "/api/v1/config"),
            (Method::GET, "/api/v1/"),
            (Method::GET, "/api/v1/routes/a/b"),
            (Method::POST, "/api/v1/nodes/n1/reboot"),
            (Method::PUT, "/api/v1/routes"),
        ] {
            assert_eq!(find(&method, path).unwrap_err().code(), Code::NotFound, "{method} {path}");
        }
    }
}
