//! How QUIC is spoken: its TLS, the room that a connection has, and the keys of address tokens.

use std::{sync::Arc, time::Duration};

use ::aws_lc_rs::{
    hkdf::{HKDF_SHA256, Prk, Salt},
    rand::{SecureRandom, SystemRandom},
};
use anyhow::Context;
use quinn::{
    IdleTimeout, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
    crypto::{HandshakeTokenKey, rustls::QuicServerConfig},
};

use super::session::Sessions;
use crate::connection::H2_STREAMS_MAX;

/// The control stream, the two of QPACK, and some of a kind that we do not know.
const UNI_STREAMS_MAX: u32 = 16;
/// Of a body, and of a connection, that come in before somebody takes them.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Sent and not acknowledged yet.
const SEND_WINDOW: u64 = 2 << 20;
/// A connection on which nothing at all comes in; the worker's clock ends idle ones earlier.
const IDLE: Duration = Duration::from_secs(330);
/// Connections whose handshake waits to begin, and what their first packets may hold.
const INCOMING_MAX: usize = 1_024;
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_TOTAL_BYTES_MAX: u64 = 16 << 20;
/// Address tokens that a client gets for its next connections.
const TOKENS_SENT: u32 = 2;

/// For the handshakes of one listener.
#[derive(Clone)]
pub(crate) struct Quic(pub(super) Arc<ServerConfig>, pub(super) Arc<dyn HandshakeTokenKey>);

/// What address tokens (Retry, NEW_TOKEN) are sealed under: of this process, since they are bound to its sockets.
#[derive(Clone)]
pub(crate) struct TokenKey(Arc<Prk>);

impl TokenKey {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut secret = [0; 64];
        SystemRandom::new().fill(&mut secret).ok().context("no random numbers")?;
        Ok(Self(Arc::new(Salt::new(HKDF_SHA256, &[]).extract(&secret))))
    }
}

impl Quic {
    pub(crate) fn new(mut tls: rustls::ServerConfig, key: &TokenKey) -> anyhow::Result<Self> {
        tls.alpn_protocols = vec![b"h3".to_vec()];
        // A request in early data could be played again.
        tls.max_early_data_size = 0;
        let crypto = QuicServerConfig::try_from(tls).context("TLS for QUIC")?;
        let mut config = ServerConfig::new(Arc::new(Sessions(Arc::new(crypto))), key.0.clone());
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(H2_STREAMS_MAX))
            .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(SEND_WINDOW)
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(Some(IdleTimeout::try_from(IDLE)?));
        config.transport_config(Arc::new(transport));
        config.max_incoming(INCOMING_MAX);
        config.incoming_buffer_size(INCOMING_BYTES_MAX);
        config.incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(TOKENS_SENT);
        config.validation_token_config(tokens);
        Ok(Self(Arc::new(config), key.0.clone()))
    }
}
