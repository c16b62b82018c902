//! The proxy over real sockets. One program, so that it is linked once.

mod bodies;
mod early_answers;
mod grpc;
mod identity;
mod identity_keys;
mod identity_mtls;
mod identity_oauth;
mod identity_streams;
mod lifecycle;
mod limits;
mod login;
mod protocols;
mod receivers;
mod routes;
mod smuggling;
mod stalled_clients;
mod support;
mod tokens;
mod upstream_balance;
mod upstream_body;
mod upstream_h2;
mod upstream_pool;
mod upstream_retry;
mod upstream_support;
mod websocket;
mod world;
