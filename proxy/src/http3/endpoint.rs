//! A listener's QUIC socket: one a node, so that a connection whose client changes its address is still found. Driven by
//! one worker, which deals the connections out to all.

use std::{
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    sync::Arc,
};

use quinn::{Endpoint, EndpointConfig, Incoming, Runtime, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::doorkeeper::Doorkeeper;
use crate::{listeners::Order, reception::Open, worker::Worker};

/// What the kernel may hold; it cuts it to its own limit.
const SOCKET_BYTES: usize = 4 << 20;

/// A socket that is bound, on its way to the worker that drives it.
pub(crate) struct Opened {
    pub(crate) socket: UdpSocket,
    pub(crate) open: Arc<Open>,
    /// Stop taking connections here.
    pub(crate) close: CancellationToken,
    /// To every worker.
    pub(crate) workers: Vec<mpsc::Sender<Order>>,
}

pub(crate) fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Smaller ones work too.
    let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Until the listener is closed, or drained, and its last connection has ended.
pub(crate) async fn listen(worker: &Rc<Worker>, opened: Opened) {
    let Opened { socket, open, close, workers } = opened;
    let Some(quic) = open.reception.load().tls().and_then(|setup| setup.quic.clone()) else { return };
    let (config, closed) = ((*quic.0).clone(), CancellationToken::new());
    let endpoint = TokioRuntime.wrap_udp_socket(socket).and_then(|socket| {
        let socket = Arc::new(Doorkeeper::new(socket, quic, closed.clone()));
        let runtime = Arc::new(TokioRuntime);
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), Some(config), socket, runtime)
    });
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint,
        Err(error) => return tracing::error!(%error, "a QUIC socket cannot be used"),
    };
    let drain = worker.shared.drain.clone();
    let mut next = 0;
    while let Some(Some(Some(incoming))) = drain.run_until_cancelled(close.run_until_cancelled(endpoint.accept())).await
    {
        if let Some(incoming) = validated(incoming) {
            next = (next + 1) % workers.len();
            // A worker without room turns it away: dropped, it is refused.
            let _ = workers[next].try_send(Order::Connect(Box::new(incoming), open.clone()));
        }
    }
    // Nobody new; who is there is told by its own worker.
    closed.cancel();
    endpoint.set_server_config(None);
    endpoint.wait_idle().await;
}

/// Nothing is kept, and next to nothing sent, for a client that has not shown that it is where it says it is: it is told
/// to come again with a token (RFC 9000 section 8.1.2). Most are by the doorkeeper; here, those whose token is no good.
fn validated(incoming: Incoming) -> Option<Incoming> {
    if incoming.remote_address_validated() {
        return Some(incoming);
    }
    // It fails only for one that has come with a token, which the line above has let through.
    let _ = incoming.retry();
    None
}
