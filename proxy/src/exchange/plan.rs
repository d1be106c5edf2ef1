//! Ask → decide: what a request is entitled to, and what is done to it before it goes anywhere.

use super::{
    forwarded,
    head::{Changes, Request},
};
use crate::{
    connection::Connection,
    endpoint::{
        balance::{random, random_below},
        sticky::Session,
    },
    fault::{Fault, Reason},
    record::{Record, RuleName},
    tables::Backend,
};
use http::{HeaderName, HeaderValue, header};
use std::{sync::Arc, time::Duration};
use weft_route::{
    Ask, Decision, HttpView, NoRoute, NoTarget, Target,
    edit::{Fields, Here},
};

/// What is to be done with a request.
pub enum Plan {
    /// It goes to a backend.
    Go(Box<Go>),
    /// It is answered in place of a backend: with a redirect, or with what a CORS preflight asked. Status and fields.
    Answer(u16, Vec<(HeaderName, HeaderValue)>),
}

/// Where a request goes, and under which rule.
pub struct Go {
    /// Whose edits the response gets; none where there are no rules.
    pub decision: Option<Decision>,
    /// Where it goes.
    pub backend: Arc<Backend>,
    /// Edits of the request that take effect when it is written.
    pub changes: Changes,
    /// From the request's head to the end of the response.
    pub request_timeout: Option<Duration>,
    /// The same for one attempt.
    pub backend_timeout: Option<Duration>,
    /// Where copies of it go.
    pub mirrors: Vec<Arc<Backend>>,
    /// How it stays at one endpoint with others of its client.
    pub session: Option<Box<Session>>,
    /// The rule allows another attempt after the one that is made.
    pub retries_left: bool,
}

/// Takes the fields that are added, of answers that have no others.
struct Added<'a>(&'a mut Vec<(HeaderName, HeaderValue)>);

impl Fields for Added<'_> {
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.add(name, value);
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.0.push((name.clone(), value.clone()));
    }

    fn remove(&mut self, _: &HeaderName) {}
}

/// Decides, and carries out the edits of the request. `own`: what an answer of weft's own is to say beside.
pub fn decide(
    request: &mut Request,
    connection: &Connection,
    own: &mut Vec<(HeaderName, HeaderValue)>,
    record: &mut Record,
) -> Result<Plan, Fault> {
    let (destination, listener) = connection.destination_of(&*request)?;
    let changes = forwarded::enter(request, &connection.facts)?;
    if let Some(listener) = &listener {
        record.listener(listener);
    }
    let mut decision = match destination
        .table
        .decide(&Ask::Http(&*request), random_below(usize::MAX) as u64)
    {
        Err(NoRoute::NoRules) => {
            let backend = destination.default_backend()?.clone();
            record.backend(&backend.id);
            backend.usable()?;
            return Ok(Plan::Go(Box::new(Go {
                decision: None,
                backend,
                changes,
                request_timeout: None,
                backend_timeout: None,
                mirrors: Vec::new(),
                session: None,
                retries_left: false,
            })));
        }
        Err(NoRoute::NoMatch) => return Err(Fault::new(Reason::NoRule)),
        Err(no @ (NoRoute::Ambiguous | NoRoute::BadHost)) => return Err(Fault::because(Reason::BadRequest, no)),
        Ok(decision) => decision,
    };
    record.rule(RuleName {
        route: decision.rule.route.clone(),
        rule: decision.rule.rule.clone(),
    });
    if let Some(fields) = decision.preflight() {
        return Ok(Plan::Answer(204, fields.to_vec()));
    }
    let session = Session::enter(
        &mut decision,
        &*request,
        &destination.sticky,
        &destination.backends,
        connection.facts.tls,
    );
    decision.edit_own_response(&mut Added(own));
    if decision.is_redirect() {
        let port = connection.facts.destination.port();
        let here = Here {
            scheme: connection.facts.scheme(),
            host: request.host(),
            port,
            target: request.target(),
        };
        if let Some((status, location)) = decision.redirect(&here) {
            let location = HeaderValue::from_bytes(&location).map_err(|_| Fault::new(Reason::BadEdit))?;
            let mut fields = std::mem::take(own);
            fields.push((header::LOCATION, location));
            return Ok(Plan::Answer(status, fields));
        }
    }
    let backend = match &decision.target {
        Target::Backend(index) => destination
            .backend(*index)
            .ok_or_else(|| Fault::because(Reason::InvalidBackend, "the destination has no backend of this number"))?
            .clone(),
        // The reason says already that it is not valid.
        Target::None(NoTarget::Reference(why)) => return Err(Fault::because(Reason::InvalidBackend, why.to_string())),
        Target::None(why) => return Err(Fault::because(Reason::InvalidBackend, why.to_string())),
    };
    record.backend(&backend.id);
    backend.usable()?;
    let changes = request.edit(&decision, changes)?;
    let timeouts = decision.timeouts();
    let mirrors = decision
        .mirrors(random)
        .filter_map(|index| destination.backend(index).cloned())
        .collect();
    Ok(Plan::Go(Box::new(Go {
        decision: Some(decision),
        backend,
        changes,
        request_timeout: timeouts.request,
        backend_timeout: timeouts.backend_request,
        mirrors,
        session: session.map(Box::new),
        retries_left: false,
    })))
}
