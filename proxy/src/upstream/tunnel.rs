//! The upstream's side of a connection that has gone over to another protocol.

use std::fmt;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Failure,
    pool::{InFlight, Link},
    wire::Wire,
};

/// The connection behind the head of a 101 and what came in there, as soon as its task has let go of it.
pub(super) type Rest = Option<oneshot::Receiver<(Bytes, Wire)>>;

/// Holds the connection, which is closed with it and never used again.
pub struct Tunnel {
    link: Link,
    rest: Rest,
    _in_flight: InFlight,
}

impl Tunnel {
    pub(super) fn new(link: Link, in_flight: InFlight, rest: Rest) -> Self {
        Self { link, rest, _in_flight: in_flight }
    }

    /// The bytes that have been read already, then the stream.
    pub async fn open(&mut self) -> Result<(Bytes, Wire), Failure> {
        let (Link::Http1(_), Some(rest)) = (&self.link, self.rest.take()) else {
            return Err(Failure::Protocol("101 on a connection that cannot switch"));
        };
        rest.await.map_err(|_| Failure::Reset)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}
