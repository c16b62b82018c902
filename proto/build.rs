//! Compiles the .proto files with protox, so that no protoc is needed, and writes the descriptor set for reflection.
use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 19] = [
    "quorumgate/admin/v1/header.proto",
    "quorumgate/admin/v1/observe.proto",
    "quorumgate/admin/v1/resources.proto",
    "quorumgate/admin/v1/admin.proto",
    "quorumgate/admin/v1/ai.proto",
    "quorumgate/admin/v1/anomalies.proto",
    "quorumgate/admin/v1/apis.proto",
    "quorumgate/admin/v1/approvals.proto",
    "quorumgate/admin/v1/authority.proto",
    "quorumgate/admin/v1/bans.proto",
    "quorumgate/admin/v1/caches.proto",
    "quorumgate/admin/v1/credentials.proto",
    "quorumgate/admin/v1/lately.proto",
    "quorumgate/admin/v1/limits.proto",
    "quorumgate/admin/v1/overview.proto",
    "quorumgate/admin/v1/upstreams.proto",
    "quorumgate/telemetry/v1/otlp.proto",
    "quorumgate/store/v1/store.proto",
    "quorumgate/peer/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("quorumgate.bin"), descriptors.encode_to_vec())?;
    // Ordered maps: equal messages must encode to equal bytes, etags and state hashes stand on that.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
