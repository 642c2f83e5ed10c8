//! Where a server is, and how it is spoken to.

use crate::Error;
use std::{fmt, path::PathBuf, time::Duration};

/// The port of a server that names none.
const PORT: u16 = 7077;

/// How [`crate::Pond::connect_with`] connects. Start from [`Connect::default`].
#[derive(Clone)]
pub struct Connect {
    /// Shown to the server, if it asks for one. Default: what is in the environment as `MILLPOND_TOKEN`.
    pub token: Option<String>,
    /// The name in the histories of jobs and in the list of workers. Default: the machine's and the process's, `host:pid`.
    pub name: Option<String>,
    /// What the list of workers shows beside the name, such as a version or a zone; the server keeps 16. Default: none.
    pub labels: Vec<String>,
    /// Something is sent at least this often, 100 ms to 60 s. A link that is silent two and a half times as long is given up and
    /// made anew. Default 400 ms.
    pub heartbeat: Duration,
    /// How long a call waits for a link that is down, before it fails. Default 10 s.
    pub patience: Duration,
    /// A file of certificates in PEM: a server under TLS is believed if its own leads to one of them. Default: what is in the
    /// environment as `MILLPOND_CA`, or else those that this system trusts.
    pub ca: Option<PathBuf>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            token: std::env::var("MILLPOND_TOKEN").ok().filter(|token| !token.is_empty()),
            name: None,
            labels: Vec::new(),
            heartbeat: Duration::from_millis(wire::HEARTBEAT_MS.1),
            patience: Duration::from_secs(10),
            ca: std::env::var_os("MILLPOND_CA").filter(|path| !path.is_empty()).map(PathBuf::from),
        }
    }
}

/// Without the token.
impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, name, labels, heartbeat, patience, ca } = self;
        f.debug_struct("Connect")
            .field("token", &token.as_ref().map(|_| "…"))
            .field("name", name)
            .field("labels", labels)
            .field("heartbeat", heartbeat)
            .field("patience", patience)
            .field("ca", ca)
            .finish()
    }
}

/// The name of this machine; empty if the system does not say.
pub(crate) fn host() -> String {
    let said = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    said.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default().trim().to_owned()
}

/// Host and port, and whether TLS is spoken there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `millpond://host:port` or `http://host:port`, with TLS `millpond+tls://host:port` or `https://host:port`.
    pub(crate) fn read(url: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Err(Error::Address { url: url.into(), reason: reason.into() });
        let Some((scheme, rest)) = url.split_once("://") else {
            return bad("begins with millpond:// or http://, such as millpond://127.0.0.1:7077");
        };
        let tls = match scheme {
            "millpond" | "http" | "ws" => false,
            "https" | "wss" | "millpond+tls" if cfg!(feature = "tls") => true,
            "https" | "wss" | "millpond+tls" => {
                return bad("asks for TLS: build with the feature `tls` of the crate `millpond`");
            }
            _ => return bad("begins with millpond:// or http://, with TLS millpond+tls:// or https://"),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) || authority.contains(char::is_whitespace) {
            return bad("has only a host and a port; the token goes into Connect::token");
        }
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return bad("has a port from 1 to 65535"),
            },
            _ => (authority, PORT),
        };
        if host.is_empty() || port == 0 {
            return bad("names no host, or port 0");
        }
        Ok(Self { tls, host: host.into(), port })
    }

    /// As the resolver takes it.
    pub(crate) fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_perhaps_a_port() {
        for (url, host, port) in [
            ("millpond://127.0.0.1:7077", "127.0.0.1", 7077),
            ("http://queue.example/", "queue.example", 7077),
            ("millpond://[::1]:80", "::1", 80),
            ("millpond://[::1]", "::1", 7077),
        ] {
            let address = Address::read(url).unwrap();
            assert_eq!((address.bare_host(), address.port), (host, port), "{url}");
        }
    }

    #[test]
    fn a_scheme_says_whether_tls_is_spoken() {
        for (url, tls) in
            [("millpond://a", false), ("http://a", false), ("https://a", true), ("millpond+tls://a", true)]
        {
            match Address::read(url) {
                Ok(address) => assert_eq!(address.tls, tls, "{url}"),
                Err(error) => {
                    assert!(!cfg!(feature = "tls") && tls && error.to_string().contains("feature `tls`"))
                }
            }
        }
    }

    #[test]
    fn what_is_no_address_is_said_to_be_none() {
        for url in [
            "127.0.0.1:7077",
            "ftp://a",
            "millpond://",
            "millpond://a:0",
            "millpond://a:b",
            "millpond://a:70000",
            "millpond://token@a",
            "millpond://a/b",
            "millpond://a b",
        ] {
            let error = Address::read(url).unwrap_err();
            assert!(matches!(error, Error::Address { .. }), "{url}: {error}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let connect = Connect { token: Some("mp_secret".into()), ..Connect::default() };
        assert!(!format!("{connect:?}").contains("mp_secret"));
    }
}
