//! Where the client meant to go, as the kernel remembers it, and whether a connection may be taken at all.
//!
//! A connection that was not redirected, that leads back to the proxy, or that names an address which is not the role's
//! to serve is refused here, before a byte is read (RELIABILITY T30-T32).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    fault::{Blame, Fault, Reason},
    role::{Role, Takes},
    tables::is_reserved,
};

/// The original destination of an accepted connection, when this role takes it. `own`: the pod's addresses.
pub fn read(stream: &TcpStream, role: &Role, own: &[IpAddr]) -> Result<SocketAddr, Fault> {
    let local = canonical(stream.local_addr().map_err(gone)?);
    let original = match local {
        SocketAddr::V4(_) => SockRef::from(stream).original_dst_v4(),
        SocketAddr::V6(_) => SockRef::from(stream).original_dst_v6(),
    };
    let original = match original {
        Ok(address) => canonical(
            address
                .as_socket()
                .ok_or_else(|| Fault::new(Reason::NoOriginalDestination))?,
        ),
        // No entry in the connection tracking: nothing has redirected this connection.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => local,
        Err(error) => return Err(gone(error)),
    };
    check(original, local, role, own)
}

fn gone(error: io::Error) -> Fault {
    Fault::because(Reason::NoOriginalDestination, error)
}

/// IPv4 as IPv4, also where the socket is of the other family.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn refused(reason: Reason, why: &'static str) -> Result<SocketAddr, Fault> {
    Err(Fault::because(reason, why).blaming(Blame::Client))
}

/// Pure, so that the whole matrix can be tested.
fn check(original: SocketAddr, local: SocketAddr, role: &Role, own: &[IpAddr]) -> Result<SocketAddr, Fault> {
    if original == local && role.listeners.iter().any(|listener| listener.port() == local.port()) {
        return refused(Reason::NoOriginalDestination, "dialled directly, not redirected");
    }
    let is_own = own.contains(&original.ip());
    match role.takes {
        Takes::OwnPod if !is_own => refused(
            Reason::NoOriginalDestination,
            "the original destination is not this pod",
        ),
        Takes::OwnPod if is_reserved(original.port()) => {
            refused(Reason::Loop, "the original destination is weft's own port")
        }
        Takes::Redirected if original.ip().is_loopback() || original.ip().is_unspecified() => {
            refused(Reason::Loop, "the original destination is loopback")
        }
        Takes::Redirected if is_own && is_reserved(original.port()) => {
            refused(Reason::Loop, "the original destination is weft's own port")
        }
        Takes::OwnPod | Takes::Redirected | Takes::Listener => Ok(original),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::{inbound, outbound};
    use rstest::rstest;

    const OWN: [&str; 2] = ["10.0.0.7", "fd00::7"];

    #[rstest]
    #[case::redirected("10.0.0.7:80", "10.0.0.7:15006", None)]
    #[case::redirected_v6("[fd00::7]:80", "[fd00::7]:15006", None)]
    #[case::t31_direct("10.0.0.7:15006", "10.0.0.7:15006", Some(Reason::NoOriginalDestination))]
    #[case::t31_direct_v6("[fd00::7]:15006", "[fd00::7]:15006", Some(Reason::NoOriginalDestination))]
    #[case::t31_direct_over_loopback("127.0.0.1:15006", "127.0.0.1:15006", Some(Reason::NoOriginalDestination))]
    #[case::t32_another_pod("10.0.0.8:80", "10.0.0.7:15006", Some(Reason::NoOriginalDestination))]
    #[case::t32_loopback("127.0.0.1:80", "10.0.0.7:15006", Some(Reason::NoOriginalDestination))]
    #[case::t30_outbound_port("10.0.0.7:15001", "10.0.0.7:15006", Some(Reason::Loop))]
    #[case::t30_metrics_port("10.0.0.7:15020", "10.0.0.7:15006", Some(Reason::Loop))]
    fn inbound_takes_what_was_redirected_to_its_pod(
        #[case] original: &str,
        #[case] local: &str,
        #[case] refused: Option<Reason>,
    ) {
        decides(&inbound::role(), original, local, refused);
    }

    #[rstest]
    #[case::service("10.96.0.1:80", "127.0.0.1:15001", None)]
    #[case::service_v6("[fd00:96::1]:80", "[::1]:15001", None)]
    #[case::itself("10.0.0.7:80", "127.0.0.1:15001", None)]
    #[case::another_pod_on_a_port_that_is_weft_s_here("10.0.0.8:15006", "127.0.0.1:15001", None)]
    #[case::t31_direct("127.0.0.1:15001", "127.0.0.1:15001", Some(Reason::NoOriginalDestination))]
    #[case::t31_direct_v6("[::1]:15001", "[::1]:15001", Some(Reason::NoOriginalDestination))]
    #[case::t30_own_inbound("10.0.0.7:15006", "127.0.0.1:15001", Some(Reason::Loop))]
    #[case::t30_loopback("127.0.0.2:80", "127.0.0.1:15001", Some(Reason::Loop))]
    fn outbound_takes_what_was_redirected_and_leads_elsewhere(
        #[case] original: &str,
        #[case] local: &str,
        #[case] refused: Option<Reason>,
    ) {
        decides(&outbound::role(), original, local, refused);
    }

    fn decides(role: &Role, original: &str, local: &str, refused: Option<Reason>) {
        let own = OWN.map(|ip| ip.parse().unwrap());
        let original: SocketAddr = original.parse().unwrap();
        let decided = check(original, local.parse().unwrap(), role, &own);
        match refused {
            None => assert_eq!(decided.unwrap(), original),
            Some(reason) => assert_eq!(decided.unwrap_err().reason, reason),
        }
    }

    #[test]
    fn an_ipv4_address_stays_one_on_a_socket_of_both_families() {
        assert_eq!(
            canonical("[::ffff:10.0.0.7]:80".parse().unwrap()),
            "10.0.0.7:80".parse().unwrap()
        );
    }

    #[tokio::test]
    async fn t31_a_connection_that_nothing_redirected_is_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut role = outbound::role();
        role.listeners = vec![address];
        let refused = read(&accepted.unwrap().0, &role, &[]).unwrap_err();
        assert_eq!(refused.reason, Reason::NoOriginalDestination);
        drop(client);
    }
}
