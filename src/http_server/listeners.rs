//! Sockets that take both address families.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Listens at an address. `[::]` is every address of both families, whatever `net.ipv6.bindv6only` says, and every address of
/// IPv4 where the kernel has no IPv6.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let everywhere = address.is_ipv6() && address.ip().is_unspecified();
    match bound(address, everywhere) {
        Err(error) if everywhere && error.kind() != io::ErrorKind::AddrInUse => {
            bound(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())), false)
        }
        bound => bound,
    }
}

fn bound(address: SocketAddr, both: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if both {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Case B34.
    #[tokio::test]
    async fn the_unspecified_address_takes_peers_of_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
        for (host, expected) in [("127.0.0.1", true), ("[::1]", has_ipv6)] {
            let reached = tokio::net::TcpStream::connect(format!("{host}:{port}")).await.is_ok();
            assert_eq!(reached, expected, "{host}");
        }
        let taken = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn any_other_address_is_that_one() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
    }
}
