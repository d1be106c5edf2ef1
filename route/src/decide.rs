//! The answer: which rule takes a request, where it goes, and what is done to it on the way.

use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue};

use crate::{
    HttpView,
    backend::{Compiled, Target},
    edit::{CorsAnswer, Edit, Fields, HeaderEdit, Here, redirect, rewrite},
    rule::{Redirect, Retry, Rewrite, Timeouts},
    session::Sessions,
};

/// What a request is entitled to. Cheap to make and to keep: the rule is shared, the rest are numbers.
///
/// A caller asks in this order: [`preflight`](Decision::preflight) and [`redirect`](Decision::redirect), which answer in
/// place of a backend; [`sessions`](Decision::sessions), and [`choose`](Decision::choose) where the request shows one;
/// `target`, where the request goes, and [`mirrors`](Decision::mirrors), where copies of it go; then, for the request
/// that is sent, [`rewritten_target`](Decision::rewritten_target), [`rewritten_host`](Decision::rewritten_host) and
/// [`edit_request`](Decision::edit_request); for the response, [`edit_response`](Decision::edit_response).
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
    /// What the rule's CORS filter has to say to this request, where it has one.
    pub(crate) cors: Option<Box<CorsAnswer>>,
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

    /// When the request is tried again. `None`: never.
    pub fn retry(&self) -> Option<&Retry> {
        self.rule.retry.as_deref()
    }

    /// How requests of the rule stay at one endpoint. `None`: they do not.
    pub fn sessions(&self) -> Option<&Sessions> {
        self.rule.sessions.as_deref()
    }

    /// Sends the request to another share than was drawn, whatever its weight, since its session is there: "persistence
    /// to a single backend MUST be maintained across services, even if the weight is set to 0" (GEP-1619). A share that
    /// is not there, or has no backend, changes nothing.
    pub fn choose(&mut self, share: u32, view: &dyn HttpView) {
        let chosen = self.rule.shares.get(share as usize);
        if let Some(Ok(backend)) = chosen.map(|share| &share.backend)
            && self.rule.invalid.is_none()
        {
            self.target = Target::Backend(*backend);
            self.share = Some(share);
            self.ask_cors(view);
        }
    }

    /// Backends that get a copy of the request. `random` gives numbers that are uniform over all of `u64`: each mirror
    /// takes one, and its share of requests by itself.
    pub fn mirrors(&self, mut random: impl FnMut() -> u64) -> impl Iterator<Item = u32> {
        self.edits().filter_map(move |edit| match edit {
            Edit::Mirror(mirror) => {
                let point = (u128::from(random()) * u128::from(mirror.denominator)) >> 64;
                mirror
                    .backend
                    .as_ref()
                    .ok()
                    .copied()
                    .filter(|_| point < u128::from(mirror.numerator))
            }
            _ => None,
        })
    }

    pub(crate) fn ask_cors(&mut self, view: &dyn HttpView) {
        if self.rule.has_cors {
            // The share's own filter is the last, and the more specific.
            let cors = self
                .edits()
                .filter_map(|edit| if let Edit::Cors(cors) = edit { Some(cors) } else { None })
                .last();
            self.cors = cors.map(|cors| Box::new(cors.answer(view)));
        }
    }

    /// What to answer to a CORS preflight, beside the status 204: nothing of it goes to a backend, also where the origin
    /// may not do what it asks for. `None`: the request is not a preflight, or the rule has no CORS filter.
    pub fn preflight(&self) -> Option<&[(HeaderName, HeaderValue)]> {
        self.cors.as_deref().and_then(CorsAnswer::preflight)
    }

    /// Tells the browser of a response that does not come from a backend what the rule's CORS filter allows: without
    /// that, a script sees no error of weft's own, only that there was one.
    pub fn edit_own_response(&self, fields: &mut (impl Fields + ?Sized)) {
        if let Some(cors) = &self.cors {
            cors.apply(fields);
        }
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
        let mut cors = self.cors.as_deref();
        self.edits().for_each(|edit| match edit {
            Edit::ResponseHeaders(change) => HeaderEdit::apply(change, fields),
            Edit::Cors(_) => {
                if let Some(cors) = cors.take() {
                    cors.apply(fields);
                }
            }
            _ => {}
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
            && self.cors == other.cors
    }
}
