//! The proxy over real sockets. One program, so that it is linked once.

mod bodies;
mod cache;
mod early_answers;
mod explained;
mod grpc;
mod grpc_web;
mod h2_errors;
mod h2_floods;
mod h2_raw;
#[cfg(feature = "http3")]
mod http3;
#[cfg(feature = "http3")]
mod http3_errors;
mod identity;
mod identity_keys;
mod identity_mtls;
mod identity_oauth;
mod identity_streams;
mod lifecycle;
mod limits;
mod listeners;
mod listeners_tls;
mod login;
mod protocols;
mod proxy_status;
mod quotas;
mod receivers;
mod routes;
mod smuggling;
mod smuggling_corpus;
mod stalled_clients;
mod support;
mod tls;
mod tokens;
mod traffic;
mod upstream_balance;
mod upstream_body;
mod upstream_faults;
mod upstream_h2;
mod upstream_pool;
mod upstream_retry;
mod upstream_support;
mod upstream_tls;
mod websocket;
mod websocket_h2;
mod world;
