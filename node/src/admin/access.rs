//! Which role each call needs: the one table, checked against the descriptors by a test.

use quorumgate_model::command::AdminRole::{self, Admin, Operator, Viewer};

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Without any credentials.
    Open,
    /// Reads, and writes of resources: a token that is scoped to an owner may call it, apply checks what it writes.
    Scoped(AdminRole),
    /// As `Scoped`; with `validate_only` it writes nothing, and a viewer may call it (`Call::may_write` tells the rest).
    Rehearsed(AdminRole),
    /// Concerns the whole cluster: a token that is scoped to an owner may not.
    Whole(AdminRole),
}

const TABLE: &[(&str, Access)] = &[
    ("/grpc.health.v1.Health/Check", Access::Open),
    ("/grpc.health.v1.Health/Watch", Access::Open),
    ("/grpc.health.v1.Health/List", Access::Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Scoped(Viewer)),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ApplyConfig", Access::Rehearsed(Operator)),
    ("/quorumgate.admin.v1.Config/GetConfig", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListRevisions", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/DiffRevisions", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/Rollback", Access::Rehearsed(Operator)),
    ("/quorumgate.admin.v1.Config/ConfirmTrial", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/AbortTrial", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/WatchConfig", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/GetRoute", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListRoutes", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateRoute", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdateRoute", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeleteRoute", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetUpstream", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListUpstreams", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateUpstream", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdateUpstream", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeleteUpstream", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetConsumer", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListConsumers", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateConsumer", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdateConsumer", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeleteConsumer", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetAuth", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListAuths", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateAuth", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdateAuth", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeleteAuth", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetCertificateAuthority", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListCertificateAuthorities", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateCertificateAuthority", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdateCertificateAuthority", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeleteCertificateAuthority", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetLimit", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListLimits", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateLimit", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdateLimit", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeleteLimit", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetCertificate", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListCertificates", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateCertificate", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdateCertificate", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeleteCertificate", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetListener", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListListeners", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateListener", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdateListener", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeleteListener", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetPolicy", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListPolicies", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreatePolicy", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/UpdatePolicy", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/DeletePolicy", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Config/GetTenant", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListTenants", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateTenant", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Config/UpdateTenant", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Config/DeleteTenant", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Config/GetGuardrail", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/ListGuardrails", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Config/CreateGuardrail", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Config/UpdateGuardrail", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Config/DeleteGuardrail", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/GetStatus", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Cluster/ListNodes", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Cluster/DrainNode", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Cluster/UndrainNode", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Cluster/LeaveNode", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/PromoteNode", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/DemoteNode", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/RemoveNode", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/TransferLeader", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Cluster/SetMaxRtt", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/CreateJoinToken", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/ListJoinTokens", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/RemoveJoinToken", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/CreateAdminToken", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/ListAdminTokens", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Cluster/RemoveAdminToken", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Key/CreateKey", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Key/BatchCreateKeys", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Key/ListKeys", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Key/GetKey", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Key/RotateKey", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Key/RevokeKey", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Key/DisableKey", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Key/EnableKey", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Revocation/RevokeToken", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Revocation/BatchRevoke", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Revocation/ListRevocations", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Revocation/CheckToken", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Revocation/InspectToken", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.LimitUsage/GetUsage", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.LimitUsage/ResetUsage", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.LimitUsage/GrantBonus", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Ai/ListAiUsage", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Apis/ListApis", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Apis/ListCallers", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Caches/Purge", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Approvals/ListPending", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Approvals/GetPending", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Approvals/Approve", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Approvals/Reject", Access::Scoped(Operator)),
    ("/quorumgate.admin.v1.Bans/AddBans", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Bans/LiftBans", Access::Whole(Operator)),
    ("/quorumgate.admin.v1.Bans/ListBans", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Anomalies/ListAnomalies", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Observe/ExplainMatch", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Observe/StateHash", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Observe/ListAudit", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Observe/WatchAudit", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Observe/VerifyAudit", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Observe/EraseActor", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Observe/Doctor", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Observe/ExplainRequest", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Observe/Tap", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Observe/GetStats", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Observe/WatchLogs", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Observe/SetLogLevel", Access::Whole(Viewer)),
    ("/quorumgate.admin.v1.Maintenance/Backup", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Maintenance/VerifyState", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Maintenance/RotateCa", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Maintenance/RotateSealingKey", Access::Whole(Admin)),
    ("/quorumgate.admin.v1.Upstreams/GetUpstreamHealth", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Overview/WhoAmI", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Overview/WatchOverview", Access::Scoped(Viewer)),
    ("/quorumgate.admin.v1.Overview/GetTraffic", Access::Scoped(Viewer)),
];

/// A call that the table does not know needs the most.
pub fn of(path: &str) -> Access {
    TABLE.iter().find(|(known, _)| *known == path).map_or(Access::Whole(Admin), |(_, access)| *access)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn every_call_of_the_admin_api_is_in_the_table() {
        let set = prost_types::FileDescriptorSet::decode(quorumgate_proto::DESCRIPTORS).unwrap();
        let files = set.file.iter().filter(|file| file.package() == "quorumgate.admin.v1");
        let mut calls = 0;
        for service in files.flat_map(|file| &file.service) {
            for method in &service.method {
                let path = format!("/quorumgate.admin.v1.{}/{}", service.name(), method.name());
                assert!(TABLE.iter().any(|(known, _)| *known == path), "{path} has no role");
                calls += 1;
            }
        }
        assert_eq!(calls, TABLE.iter().filter(|(path, _)| path.starts_with("/quorumgate.")).count());
    }

    #[test]
    fn an_unknown_call_needs_an_admin() {
        assert_eq!(of("/quorumgate.admin.v1.Config/Other"), Access::Whole(Admin));
    }
}
