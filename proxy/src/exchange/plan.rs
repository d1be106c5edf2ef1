//! Ask → decide: what a request is entitled to, and what is done to it before it goes anywhere.

use super::{
    forwarded,
    head::{Changes, Request},
};
use crate::{
    connection::Connection,
    endpoint::balance::random_below,
    fault::{Fault, Reason},
    record::{Record, RuleName},
    tables::Backend,
};
use std::{sync::Arc, time::Duration};
use weft_route::{Ask, Decision, HttpView, NoRoute, NoTarget, Target, edit::Here};

/// What is to be done with a request.
pub enum Plan {
    /// It goes to a backend.
    Go(Box<Go>),
    /// It is answered with a redirect: the status and the `Location`.
    Redirect(u16, Vec<u8>),
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
}

/// Decides, and carries out the edits of the request.
pub fn decide(request: &mut Request, connection: &Connection, record: &mut Record) -> Result<Plan, Fault> {
    let (destination, listener) = connection.destination_of(&*request)?;
    let changes = forwarded::enter(request, &connection.facts);
    if let Some(listener) = &listener {
        record.listener(listener);
    }
    let decision = match destination
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
    if decision.is_redirect() {
        let port = connection.facts.destination.port();
        let here = Here {
            scheme: connection.facts.scheme(),
            host: request.host(),
            port,
            target: request.target(),
        };
        if let Some((status, location)) = decision.redirect(&here) {
            return Ok(Plan::Redirect(status, location));
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
    Ok(Plan::Go(Box::new(Go {
        decision: Some(decision),
        backend,
        changes,
        request_timeout: timeouts.request,
        backend_timeout: timeouts.backend_request,
    })))
}
