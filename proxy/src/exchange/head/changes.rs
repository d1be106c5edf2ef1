//! Changes that rules make to a head, kept until it is written as HTTP/1.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;
use weft_route::{Decision, edit::Fields};
use weft_wire::h1::Edit;

/// What rules change of a response.
#[derive(Clone, Copy, Default)]
pub struct Edits<'a> {
    /// Whose edits are carried out.
    pub decision: Option<&'a Decision>,
    /// A field that is added after them.
    pub added: Option<&'a (HeaderName, HeaderValue)>,
}

impl Edits<'_> {
    /// Carries them out.
    pub fn apply(&self, fields: &mut impl Fields) {
        if let Some(decision) = self.decision {
            decision.edit_response(fields);
        }
        if let Some((name, value)) = self.added {
            fields.add(name, value);
        }
    }
}

/// Changes of a request or a response that is written as HTTP/1.
#[derive(Clone, Default)]
pub struct Changes {
    /// Changes of fields.
    pub fields: FieldChanges,
    /// Another target.
    pub target: Option<String>,
}

/// Changes of fields, in their order.
#[derive(Clone, Default)]
pub struct FieldChanges(Vec<Change>);

#[derive(Clone)]
enum Change {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
}

impl Fields for FieldChanges {
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.0.push(Change::Set(name.clone(), value.clone()));
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.0.push(Change::Add(name.clone(), value.clone()));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.push(Change::Remove(name.clone()));
    }
}

impl FieldChanges {
    /// As the codec wants them.
    pub fn list(&self) -> SmallVec<[Edit<'_>; 4]> {
        self.0
            .iter()
            .map(|change| match change {
                Change::Set(name, value) => Edit::Set(name.as_str(), value.as_bytes()),
                Change::Add(name, value) => Edit::Add(name.as_str(), value.as_bytes()),
                Change::Remove(name) => Edit::Remove(name.as_str()),
            })
            .collect()
    }

    /// The host that a rewrite set.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.0.iter().rev().find_map(|change| match change {
            Change::Set(name, value) if name == header::HOST => Some(value),
            _ => None,
        })
    }

    /// Carries the changes out on a map.
    pub(super) fn apply(&self, fields: &mut HeaderMap) {
        for change in &self.0 {
            match change {
                Change::Set(name, value) => Fields::set(fields, name, value),
                Change::Add(name, value) => Fields::add(fields, name, value),
                Change::Remove(name) => Fields::remove(fields, name),
            }
        }
    }
}
