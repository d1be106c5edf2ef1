//! Rules for connections: of TLSRoutes, which look at the server name of a ClientHello, and of TCPRoutes, which take
//! every connection. There is nothing else to compare, so the first rule of each name is the only one ever asked.

use crate::{Host, explain::Trace, listener::Names, matcher::Refusal, table::Candidate};

/// The candidates of TLSRoutes and TCPRoutes, each list in order of precedence.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    tls: Box<[Candidate]>,
    tcp: Box<[Candidate]>,
    /// By server name: index of the first candidate.
    names: Names<u32>,
}

impl Connections {
    pub(crate) fn new(tls: Box<[Candidate]>, tcp: Box<[Candidate]>) -> Self {
        let mut names = Names::default();
        for (index, candidate) in tls.iter().enumerate() {
            // Candidates come in order of precedence: whoever has the name already comes before.
            let _ = names.claim(candidate.host.as_deref(), index as u32);
        }
        Connections { tls, tcp, names }
    }

    /// Whether there is a rule for connections that begin with a ClientHello.
    pub(crate) fn take_tls(&self) -> bool {
        !self.tls.is_empty() || !self.tcp.is_empty()
    }

    /// Whether there is a rule for every connection.
    pub(crate) fn take_all(&self) -> bool {
        !self.tcp.is_empty()
    }

    /// The rule of the most specific name, else that of all connections.
    pub(crate) fn tls<T: Trace>(&self, sni: Option<&str>, trace: &mut T) -> Option<&Candidate> {
        // What is no name is none that a rule could have meant.
        let name = sni
            .filter(|name| !name.contains([':', '[']))
            .and_then(|name| Host::parse(name.as_bytes()).ok());
        let name = name.as_ref().map(Host::as_str);
        if T::EVERYTHING {
            let mut found = None;
            for candidate in &self.tls {
                let refusal = (!candidate.host_holds(name)).then_some(Refusal::ServerName);
                let is_past = found.is_some();
                if refusal.is_none() && !is_past {
                    found = Some(candidate);
                }
                trace.note(candidate, refusal, is_past);
            }
            return self.all_from(found, trace);
        }
        let named = self.names.find(name).map(|index| &self.tls[*index as usize]);
        named.or_else(|| self.tcp.first())
    }

    /// The rule of all connections.
    pub(crate) fn all<T: Trace>(&self, trace: &mut T) -> Option<&Candidate> {
        self.all_from(None, trace)
    }

    fn all_from<'a, T: Trace>(&'a self, mut found: Option<&'a Candidate>, trace: &mut T) -> Option<&'a Candidate> {
        for candidate in &self.tcp {
            trace.note(candidate, None, found.is_some());
            found = found.or(Some(candidate));
        }
        found
    }
}
