//! The sockets that workers accept on, one set per worker (SO_REUSEPORT).

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel cuts it to its own limit.
const BACKLOG: i32 = 16_384;

/// One socket a worker, and the address that port 0 became.
pub(crate) fn bind(mut address: SocketAddr, workers: usize) -> std::io::Result<(Vec<TcpListener>, SocketAddr)> {
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
