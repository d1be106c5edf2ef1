//! The answer: which rule takes a request, where it goes, and what is done to it on the way.

use std::{fmt, sync::Arc};

use crate::{
    backend::{Compiled, Target},
    edit::{Edit, Fields, HeaderEdit, Here, redirect, rewrite},
    rule::{Redirect, Rewrite, Timeouts},
};

/// What a request is entitled to. Cheap to make and to keep: the rule is shared, the rest are numbers.
///
/// A caller asks in this order: [`redirect`](Decision::redirect), which answers in place of a backend; `target`, where
/// the request goes; then, for the request that is sent, [`rewritten_target`](Decision::rewritten_target),
/// [`rewritten_host`](Decision::rewritten_host) and [`edit_request`](Decision::edit_request); for the response,
/// [`edit_response`](Decision::edit_response).
#[derive(Clone, Debug)]
pub struct Decision {
    /// The rule that takes the request.
    pub rule: Arc<Compiled>,
    /// Which of the rule's matches did, from 0.
    pub matched: u32,
    /// Which of the rule's shares was drawn: index into [`Compiled::shares`]. `None` where there is none to draw.
    pub share: Option<u32>,
    /// Where the request goes.
    pub target: Target,
    /// Bytes of the path prefix that matched, in the path's canonical form.
    pub(crate) prefix: usize,
}

/// No rule takes the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// There are no rules for what was asked: the caller uses the destination's default backend.
    NoRules,
    /// There are rules, and none of them matches: answer 404 (a gRPC call: `UNIMPLEMENTED`).
    NoMatch,
    /// The path has more than one reading, and they lead to different rules: answer 400.
    Ambiguous,
    /// Rules look at the host, and the request's is not one: answer 400.
    BadHost,
}

impl fmt::Display for NoRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoRoute::NoRules => "there are no rules",
            NoRoute::NoMatch => "no rule matches",
            NoRoute::Ambiguous => "the path can be read in more than one way, and the readings lead to different rules",
            NoRoute::BadHost => "the host is not valid",
        })
    }
}

impl std::error::Error for NoRoute {}

impl Decision {
    /// Everything that is done to the request or its response: the rule's edits, then those of the backend drawn.
    pub fn edits(&self) -> impl Iterator<Item = &Edit> {
        let share = self.share.and_then(|index| self.rule.shares.get(index as usize));
        self.rule
            .edits
            .iter()
            .chain(share.into_iter().flat_map(|share| &share.edits))
    }

    /// Limits of the request.
    pub fn timeouts(&self) -> Timeouts {
        self.rule.timeouts
    }

    /// The answer, where the rule is to redirect: the status and the `Location`.
    pub fn redirect(&self, here: &Here<'_>) -> Option<(u16, Vec<u8>)> {
        self.first_redirect()
            .map(|redirect| (redirect.status, redirect::location(redirect, here, self.prefix)))
    }

    /// Whether the rule answers with a redirect.
    pub fn is_redirect(&self) -> bool {
        self.first_redirect().is_some()
    }

    fn first_redirect(&self) -> Option<&Redirect> {
        self.edits().find_map(|edit| {
            if let Edit::Redirect(redirect) = edit {
                Some(redirect)
            } else {
                None
            }
        })
    }

    fn rewrites(&self) -> impl Iterator<Item = &Rewrite> {
        self.edits().filter_map(|edit| {
            if let Edit::Rewrite(rewrite) = edit {
                Some(rewrite)
            } else {
                None
            }
        })
    }

    /// The path and query to send in place of `target`, which is as the client sent it. `None`: `target` itself.
    pub fn rewritten_target(&self, target: &[u8]) -> Option<Vec<u8>> {
        let change = self.rewrites().filter_map(|rewrite| rewrite.path.as_ref()).last()?;
        Some(rewrite::target(change, target, self.prefix))
    }

    /// The host to send in place of the client's. `None`: the client's itself.
    pub fn rewritten_host(&self) -> Option<&str> {
        self.rewrites().filter_map(|rewrite| rewrite.host.as_deref()).last()
    }

    /// Changes the request's header fields.
    pub fn edit_request(&self, fields: &mut (impl Fields + ?Sized)) {
        self.edits().for_each(|edit| {
            if let Edit::RequestHeaders(change) = edit {
                HeaderEdit::apply(change, fields)
            }
        });
    }

    /// Changes the response's header fields.
    pub fn edit_response(&self, fields: &mut (impl Fields + ?Sized)) {
        self.edits().for_each(|edit| {
            if let Edit::ResponseHeaders(change) = edit {
                HeaderEdit::apply(change, fields)
            }
        });
    }
}

/// Two decisions are equal where they lead to the same place by the same rule.
impl PartialEq for Decision {
    fn eq(&self, other: &Self) -> bool {
        self.rule.id == other.rule.id
            && self.matched == other.matched
            && self.share == other.share
            && self.target == other.target
            && self.prefix == other.prefix
    }
}
