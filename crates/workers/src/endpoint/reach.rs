//! Names that lead inside are not followed: whoever controls a name could otherwise have jobs posted to what only this machine or its
//! network may reach.

use hyper_util::client::legacy::connect::dns::Name;
use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec::IntoIter,
};
use tower_service::Service;

/// A name leads nowhere but inside.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} leads to {address}, which is inside this machine or a private network; allow it with --allow-inside"
)]
pub struct InsideError {
    name: String,
    address: IpAddr,
}

/// Looks names up, when a connection is made, and keeps the addresses outside. An address in the URL itself is what somebody wrote there,
/// and so is `localhost`: they are not looked up here, or not judged.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    pub(super) everywhere: bool,
}

impl Service<Name> for Outside {
    type Response = IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let everywhere = self.everywhere || name.as_str() == "localhost";
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            judge(name.as_str(), found, everywhere).map(Vec::into_iter)
        })
    }
}

fn judge(name: &str, found: Vec<SocketAddr>, everywhere: bool) -> io::Result<Vec<SocketAddr>> {
    if everywhere {
        return Ok(found);
    }
    let inside = found.iter().map(SocketAddr::ip).find(|address| is_inside(*address));
    // One address inside is enough: the next lookup might give that one alone.
    match inside {
        Some(address) => Err(io::Error::other(InsideError { name: name.to_owned(), address })),
        None => Ok(found),
    }
}

/// Whether an address is not one of the public network, by the registries of special addresses (RFC 6890).
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_inside_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped().or_else(|| embedded(address)) {
            Some(inner) => is_inside_v4(inner),
            None => {
                let first = address.segments()[0];
                address.is_loopback()
                    || address.is_unspecified()
                    || address.is_multicast()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
                    // Site-local, of old.
                    || first & 0xffc0 == 0xfec0
            }
        },
    }
}

fn is_inside_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || a == 0
        // Carriers' networks, protocol assignments, benchmarks, reserved.
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240
}

/// The address of version 4 in one of 6to4 or NAT64, which a router sends there.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0x2002, high, low, ..] => Some(of(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_known() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "198.18.0.1",
            "192.0.0.8",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "2002:7f00:1::",
            "64:ff9b::a00:1",
        ] {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.2.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn one_address_inside_is_enough_to_refuse_a_name() {
        let found: Vec<SocketAddr> = vec!["1.1.1.1:0".parse().unwrap(), "10.0.0.1:0".parse().unwrap()];
        let why = judge("evil.example", found.clone(), false).unwrap_err().to_string();
        assert!(why.contains("evil.example leads to 10.0.0.1"), "{why}");
        assert_eq!(judge("evil.example", found.clone(), true).unwrap(), found);
    }

    #[tokio::test]
    async fn localhost_is_what_somebody_wrote_himself() {
        let name = std::str::FromStr::from_str("localhost").unwrap();
        let found = Outside { everywhere: false }.call(name).await.unwrap();
        assert!(found.len() > 0);
    }
}
