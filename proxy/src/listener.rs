//! The sockets that workers accept on, one set per worker (SO_REUSEPORT).

use std::{
    net::{SocketAddr, TcpListener},
    sync::OnceLock,
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel cuts it to its own limit.
const BACKLOG: i32 = 16_384;

/// What whoever started this process has opened for it, as systemd does for a socket unit.
static HANDED: OnceLock<Vec<TcpListener>> = OnceLock::new();

/// Once, before anything is bound: these are used where a listener has their address.
pub fn hand_over(listeners: Vec<TcpListener>) {
    // A second time there is nothing left to hand over.
    let _ = HANDED.set(listeners);
}

/// The one that was handed over for this address. It stays open, for a listener that comes back.
pub fn handed(address: SocketAddr) -> std::io::Result<Option<TcpListener>> {
    let found = HANDED.get().into_iter().flatten().find(|it| it.local_addr().is_ok_and(|it| it == address));
    let Some(found) = found else { return Ok(None) };
    let socket = found.try_clone()?;
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

/// One socket a worker, and the address that port 0 became. Of one that was handed over the workers share the queue.
pub(crate) fn bind(mut address: SocketAddr, workers: usize) -> std::io::Result<(Vec<TcpListener>, SocketAddr)> {
    if let Some(socket) = handed(address)? {
        let sockets = (0..workers).map(|_| socket.try_clone()).collect::<std::io::Result<_>>()?;
        return Ok((sockets, address));
    }
    // SO_REUSEPORT would share an address with another process in silence: the first socket must have it alone.
    drop(alone(address)?);
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = listen(address)?;
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((sockets, address))
}

fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn alone(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
