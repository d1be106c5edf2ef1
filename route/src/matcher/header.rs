//! Header fields.

use std::{borrow::Cow, sync::Arc};

use smallvec::SmallVec;

use super::text::TextTest;
use crate::{Host, ask::HttpView, host, rule::ValueMatch};

/// A compiled condition on a header field.
#[derive(Debug)]
pub(crate) struct HeaderTest {
    pub(crate) name: Arc<str>,
    value: TextTest,
}

impl HeaderTest {
    pub(crate) fn new(condition: &ValueMatch) -> Result<Self, String> {
        if condition.name.parse::<http::HeaderName>().is_err() {
            return Err(format!("'{}' is not the name of a header field", condition.name));
        }
        Ok(HeaderTest {
            name: condition.name.to_ascii_lowercase().into(),
            value: TextTest::new(&condition.value)?,
        })
    }

    pub(crate) fn holds(&self, view: &dyn HttpView) -> bool {
        if &*self.name == "host" {
            return view.host().is_some_and(|authority| self.host_holds(authority));
        }
        let mut values = SmallVec::<[&[u8]; 4]>::new();
        view.each_header(&self.name, &mut |value| values.push(value));
        match &values[..] {
            [] => false,
            [value] => self.value.holds(value),
            // Fields of one name are one list (RFC 9110 5.2 and 5.3); HTTP/2 may split `cookie` (RFC 9113 8.2.3).
            several => {
                let between: &[u8] = if &*self.name == "cookie" { b"; " } else { b", " };
                self.value.holds(&several.join(between))
            }
        }
    }

    /// Hosts are compared in their one form, with the port only where the rule says one.
    fn host_holds(&self, authority: &[u8]) -> bool {
        let Ok(sent) = Host::parse(authority) else { return false };
        let port = host::port_of(authority);
        match &self.value {
            TextTest::Exact(exact) => {
                let wanted_port = host::port_of(exact.as_bytes());
                Host::parse(exact.as_bytes()).is_ok_and(|wanted| wanted == sent)
                    && (wanted_port.is_none() || wanted_port == port)
            }
            regex => {
                let text = match port {
                    Some(port) => Cow::Owned([sent.as_str().as_bytes(), b":", port].concat()),
                    None => Cow::Borrowed(sent.as_str().as_bytes()),
                };
                regex.holds(&text)
            }
        }
    }
}
