//! Length-prefixed prost messages on a QUIC stream. The length is checked before anything is allocated for it.

use std::io;

use bytes::{BufMut, BytesMut};
use prost::Message;
use quinn::{RecvStream, SendStream};

/// The longest frame of a member: a log entry of 8 MiB and its batch fit.
pub const FRAME_MAX: usize = 16 << 20;
/// The longest frame of whom we do not know yet.
pub const STRANGER_FRAME_MAX: usize = 64 << 10;
/// Snapshot files travel in chunks of this size.
pub const CHUNK_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {found} bytes; allowed: {allowed}")]
    TooLong { found: usize, allowed: usize },
    #[error("a frame was cut short: {0}")]
    Cut(#[from] quinn::ReadExactError),
    #[error("a frame that cannot be decoded: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("the stream ended")]
    Ended,
}

/// The next frame; None at the stream's orderly end.
pub async fn read<M: Message + Default>(from: &mut RecvStream, allowed: usize) -> Result<Option<M>, FrameError> {
    match read_bytes(from, allowed).await? {
        Some(body) => Ok(Some(M::decode(&body[..])?)),
        None => Ok(None),
    }
}

/// A frame that must come.
pub async fn expect<M: Message + Default>(from: &mut RecvStream, allowed: usize) -> Result<M, FrameError> {
    read(from, allowed).await?.ok_or(FrameError::Ended)
}

pub async fn read_bytes(from: &mut RecvStream, allowed: usize) -> Result<Option<Vec<u8>>, FrameError> {
    let mut head = [0; 4];
    match from.read_exact(&mut head).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut body = vec![0; body_bytes(head, allowed)?];
    from.read_exact(&mut body).await?;
    Ok(Some(body))
}

/// How long the body behind this head is.
pub fn body_bytes(head: [u8; 4], allowed: usize) -> Result<usize, FrameError> {
    match u32::from_be_bytes(head) as usize {
        found if found > allowed => Err(FrameError::TooLong { found, allowed }),
        found => Ok(found),
    }
}

pub async fn write<M: Message>(to: &mut SendStream, message: &M) -> io::Result<()> {
    let length = message.encoded_len();
    if length > FRAME_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes; allowed: {FRAME_MAX}")));
    }
    let mut frame = BytesMut::with_capacity(4 + length);
    frame.put_u32(length as u32);
    message.encode(&mut frame).map_err(io::Error::other)?;
    to.write_chunk(frame.freeze()).await.map_err(io::Error::from)
}

pub async fn write_bytes(to: &mut SendStream, body: &[u8]) -> io::Result<()> {
    to.write_all(&(body.len() as u32).to_be_bytes()).await?;
    to.write_all(body).await?;
    Ok(())
}
