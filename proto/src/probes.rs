//! The probes that a strict pod lets in without mTLS, typed: the kubelet has no certificate of the mesh. And those over HTTPS, which
//! the proxy makes itself on its behalf.
//!
//! The injector reads them from the Pod's spec and writes them into the proxy's environment; the proxy reads them. What
//! a request must look like to be one of them is the proxy's matter.

use std::{fmt, str::FromStr};

use crate::skip::{BadEntry, entries, number};

/// One probe that is answered by the application itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// `httpGet` over plain HTTP.
    Http {
        /// The port.
        port: u16,
        /// The path that the kubelet asks for, without query; it begins with `/`.
        path: String,
    },
    /// `httpGet` over HTTPS: asked for on weft's own port, made by the proxy.
    Https {
        /// The port.
        port: u16,
        /// As of [`Probe::Http`].
        path: String,
    },
    /// `grpc`: the health service on this port.
    Grpc {
        /// The port.
        port: u16,
    },
}

impl Probe {
    /// An `httpGet` probe of this `path`, as a Pod's spec says it: the kubelet adds a leading `/` where it is missing,
    /// and sends no fragment. The query is left away.
    pub fn http(port: u16, path: &str) -> Self {
        Self::Http { port, path: sent(path) }
    }

    /// The same over HTTPS.
    pub fn https(port: u16, path: &str) -> Self {
        Self::Https { port, path: sent(path) }
    }
}

fn sent(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{slash}{path}")
}

/// Probes, as `http:8080:/healthz,grpc:50051`; sorted, each once. In a path every byte but printable ASCII is
/// percent-encoded, and `,` and `%` too. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes(Vec<Probe>);

impl Probes {
    /// Every probe, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Probe> {
        self.0.iter()
    }

    /// Adds one, unless it is there.
    pub fn add(&mut self, probe: Probe) {
        if let Err(at) = self.0.binary_search(&probe) {
            self.0.insert(at, probe);
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc { port } => write!(f, "grpc:{port}"),
            Self::Http { port, path } | Self::Https { port, path } => {
                let scheme = if matches!(self, Self::Http { .. }) {
                    "http"
                } else {
                    "https"
                };
                write!(f, "{scheme}:{port}:")?;
                path.bytes().try_for_each(|byte| match byte {
                    b'!'..=b'~' if byte != b',' && byte != b'%' => write!(f, "{}", char::from(byte)),
                    _ => write!(f, "%{byte:02X}"),
                })
            }
        }
    }
}

impl fmt::Display for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, probe) in self.0.iter().enumerate() {
            write!(f, "{}{probe}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Probes {
    type Err = BadEntry;
    fn from_str(text: &str) -> Result<Self, BadEntry> {
        let mut probes = Self::default();
        let all = entries(text, read, "a probe such as http:8080:/healthz or grpc:50051")?;
        all.into_iter().for_each(|probe| probes.add(probe));
        Ok(probes)
    }
}

fn read(entry: &str) -> Option<Probe> {
    let port = |text: &str| number(text).filter(|port: &u16| *port > 0);
    match entry.split_once(':')? {
        ("grpc", rest) => Some(Probe::Grpc { port: port(rest)? }),
        (scheme @ ("http" | "https"), rest) => {
            let (number, path) = rest.split_once(':')?;
            let (port, path) = (port(number)?, decoded(path)?);
            // What is left away in a probe is no part of one.
            (sent(&path) == path).then_some(match scheme {
                "http" => Probe::Http { port, path },
                _ => Probe::Https { port, path },
            })
        }
        _ => None,
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high << 4 | low).ok()?
            }
            b'!'..=b'~' => byte,
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back_sorted_and_each_once() {
        let text = "grpc:50051, https:8443:/healthz,http:8080:/healthz,http:80:/,http:8080:/healthz";
        let probes: Probes = text.parse().unwrap();
        assert_eq!(
            probes.to_string(),
            "http:80:/,http:8080:/healthz,https:8443:/healthz,grpc:50051"
        );
        assert_eq!(probes.iter().count(), 4);
        assert_eq!("".parse::<Probes>().unwrap(), Probes::default());
    }

    #[test]
    fn a_path_is_what_the_kubelet_sends_of_it() {
        for (written, sent) in [
            ("", "/"),
            ("healthz", "/healthz"),
            ("/healthz?full=1", "/healthz"),
            ("/a#b?c", "/a"),
        ] {
            let probe = Probe::http(80, written);
            assert!(
                matches!(&probe, Probe::Http { path, .. } if path == sent),
                "{written}: {probe}"
            );
        }
        assert_eq!(
            Probe::http(80, "/a,b%20c d$(X)").to_string(),
            "http:80:/a%2Cb%2520c%20d$(X)"
        );
    }

    #[test]
    fn nothing_but_probes_is_taken() {
        for bad in [
            "http:8080",
            "http:8080:",
            "http:8080:healthz",
            "http:8080:/a?b",
            "http:8080:/a%3Fb",
            "http:8080:/a%2",
            "http:8080:/%+1",
            "http:8080:/%FF",
            "http:0:/",
            "http:+80:/",
            "http:8080:/a b",
            "https:8443",
            "https:0:/",
            "https:8443:healthz",
            "HTTPS:8443:/",
            "grpc:",
            "grpc:0",
            "grpc:50051:x",
            "tcp:80",
            "GRPC:80",
            "http:80:/,",
        ] {
            assert!(bad.parse::<Probes>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "tcp:80".parse::<Probes>().unwrap_err().to_string(),
            "'tcp:80' is not a probe such as http:8080:/healthz or grpc:50051"
        );
    }

    proptest! {
        #[test]
        fn any_path_is_read_back(paths in proptest::collection::vec((1u16.., any::<String>()), 0..4), port in 1u16..) {
            let mut probes = Probes::default();
            paths.iter().for_each(|(port, path)| probes.add(Probe::http(*port, path)));
            paths.iter().for_each(|(port, path)| probes.add(Probe::https(*port, path)));
            probes.add(Probe::Grpc { port });
            prop_assert_eq!(probes.to_string().parse::<Probes>(), Ok(probes));
        }
    }
}
