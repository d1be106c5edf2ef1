//! Plain TCP to a server, and what every socket of weft is set to.

use std::{io, net::SocketAddr};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use weft_proto::limits;

use crate::fault::Fault;

/// Dials, for a bounded time.
pub async fn dial(address: SocketAddr) -> Result<TcpStream, Fault> {
    let stream = tokio::time::timeout(limits::CONNECT_TIME, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(Fault::dial)?;
    prepare(&stream);
    Ok(stream)
}

/// Sets what every connection needs, on either side: no delay of small writes, and an end of peers that are gone.
pub fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(limits::KEEPALIVE)
        .with_interval(limits::KEEPALIVE / 6)
        .with_retries(3);
    // Each fails only on a socket that is gone already, which the next read tells.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// For clients of a gateway that speak HTTP: they are strangers, and one that takes nothing holds a server.
pub fn prepare_stranger(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(limits::GATEWAY_CLIENT_STALL));
}

/// Between two wefts also an end when data is not acknowledged. Not towards applications: Linux counts a window that
/// stays closed as well, and an application may take its time.
pub fn prepare_mesh(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(limits::USER_TIMEOUT));
}
