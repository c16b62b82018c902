//! A joiner's one call: to a seed whose CA has the hash that the token pins, before anything secret is sent.

use std::{net::SocketAddr, time::Duration};

use quorumgate_model::command::Reason;
use quorumgate_proto::peer::v1::{self as pb, request::Call, response::Answer};
use tokio::time::timeout;

use super::{frame, hello, lost, resolve, tls};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinFailure {
    /// Another seed may do.
    #[error("{0}")]
    Seed(String),
    /// Another seed may do; this one belongs to another cluster.
    #[error("{0}")]
    AnotherCluster(String),
    /// The cluster has said no.
    #[error("{message}")]
    Refused { reason: Option<Reason>, message: String },
}

/// Asks one seed.
pub async fn ask_to_join(
    seed: &str,
    ca_spki_sha256: [u8; 32],
    request: pb::JoinRequest,
    deadline: Duration,
) -> Result<pb::JoinResponse, JoinFailure> {
    let asked = timeout(deadline, ask(seed, ca_spki_sha256, request)).await;
    asked.unwrap_or_else(|_| Err(JoinFailure::Seed(format!("{seed} did not answer within {deadline:?}"))))
}

async fn ask(seed: &str, pin: [u8; 32], request: pb::JoinRequest) -> Result<pb::JoinResponse, JoinFailure> {
    let failed = |error: String| JoinFailure::Seed(format!("{seed}: {error}"));
    let address = resolve(seed, None).await.map_err(|error| failed(error.to_string()))?;
    let local: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let endpoint = quinn::Endpoint::client(local).map_err(|error| failed(error.to_string()))?;
    let config = tls::joiner(pin).map_err(|error| failed(error.to_string()))?;
    let connecting = endpoint.connect_with(config, address, tls::SERVER_NAME).map_err(|e| failed(e.to_string()))?;
    let connection = connecting.await.map_err(|error| match &error {
        quinn::ConnectionError::TransportError(transport) if is_certificate_code(transport.code) => {
            let why = "its cluster CA is not the one that the token was made for";
            JoinFailure::AnotherCluster(format!("{seed}: {why}"))
        }
        _ => failed(error.to_string()),
    })?;
    let exchange = async {
        let hello = super::exchange_hello(&connection, hello::stranger()).await?;
        if !hello.refused.is_empty() {
            return Err(super::CallError::Refused(hello.refused));
        }
        let (mut to, mut from) = connection.open_bi().await.map_err(lost)?;
        frame::write(&mut to, &pb::Request { call: Some(Call::Join(request)) }).await.map_err(lost)?;
        let _ = to.finish();
        let response: pb::Response = frame::expect(&mut from, frame::STRANGER_FRAME_MAX).await.map_err(lost)?;
        Ok(response.answer)
    };
    let answer = exchange.await.map_err(|error| failed(error.to_string()))?;
    connection.close(0u32.into(), b"done");
    let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    match answer {
        Some(Answer::Join(response)) => Ok(response),
        Some(Answer::Failure(failure)) if failure.reason() == pb::failure::Reason::Refused => {
            let reason = Reason::from_word(&failure.rejection);
            Err(JoinFailure::Refused { reason, message: failure.message })
        }
        Some(Answer::Failure(failure)) => Err(failed(failure.message)),
        _ => Err(failed("an answer of another kind".into())),
    }
}

/// TLS alerts 42 to 48 are about certificates; they travel as QUIC crypto errors 0x100 + alert (RFC 9001, 4.8).
fn is_certificate_code(code: quinn::TransportErrorCode) -> bool {
    (0x100 + 42..=0x100 + 48).contains(&u64::from(code))
}
