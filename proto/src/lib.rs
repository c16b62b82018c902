//! Generated code and nothing else: the admin API, the peer frames and the stored forms.
#![allow(clippy::all, clippy::pedantic, missing_docs)]

pub mod admin {
    pub mod v1 {
        tonic::include_proto!("quorumgate.admin.v1");
    }
}

pub mod peer {
    pub mod v1 {
        tonic::include_proto!("quorumgate.peer.v1");
    }
}

pub mod store {
    pub mod v1 {
        tonic::include_proto!("quorumgate.store.v1");
    }
}

pub mod telemetry {
    pub mod v1 {
        tonic::include_proto!("quorumgate.telemetry.v1");
    }
}

/// The serialized FileDescriptorSet of every package, for gRPC reflection and the golden test.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quorumgate.bin"));
