//! Sessions stay where they began (GEP-1619): which endpoint a client's token names, of all that its rule may send to.
//!
//! A token holds a keyed hash of the pod's UID. What the hashes of a destination's pods are is computed when the first token
//! asks, and kept with the destination, so that a request costs one look into a map.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, HeaderValue};
use weft_proto::limits;
use weft_route::{
    Decision, HttpView,
    session::{EndpointId, Shown},
};

use super::Endpoint;
use crate::tables::Backend;

/// An endpoint that a session may be at: which of the rule's shares it is of, and itself.
type Place = (u32, Arc<Endpoint>);

/// Endpoints of one destination by what tokens call them; `None` for those that are not there.
#[derive(Debug, Default)]
pub struct Index(RwLock<HashMap<(u32, EndpointId), Option<Place>, foldhash::fast::RandomState>>);

/// The session of one request.
#[derive(Debug)]
pub struct Session {
    /// What the client showed, and the endpoint that it leads to.
    at: Option<(Shown, Arc<Endpoint>)>,
    over_tls: bool,
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Session {
    /// The session of a request that this decision is about; none where the rule has none. Where the client shows one that
    /// is at an endpoint still there, the decision is for its share from now on.
    pub fn enter(
        decision: &mut Decision,
        view: &dyn HttpView,
        index: &Index,
        backends: &[Arc<Backend>],
        over_tls: bool,
    ) -> Option<Self> {
        let shown = decision.sessions()?.shown(view, now());
        let found = shown.and_then(|shown| Some((shown, index.find(decision, &shown, backends)?)));
        let at = found.map(|(shown, (share, endpoint))| {
            decision.choose(share, view);
            (shown, endpoint)
        });
        Some(Self { at, over_tls })
    }

    /// Where the request is to go, if it can.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.at.as_ref().map(|(_, endpoint)| endpoint)
    }

    /// The field that tells the client its session, now that this endpoint has answered; none where it knows.
    pub fn field(&self, decision: &Decision, endpoint: &Arc<Endpoint>) -> Option<(HeaderName, HeaderValue)> {
        if endpoint.pod_uid.is_empty() {
            return None;
        }
        // One that could not be reached has lost its sessions.
        let shown = self.at.as_ref().filter(|(_, own)| own.pod_uid == endpoint.pod_uid);
        let shown = shown.map(|(shown, _)| shown);
        decision
            .sessions()?
            .field(shown, &endpoint.pod_uid, now(), self.over_tls)
    }
}

impl Index {
    fn find(&self, decision: &Decision, shown: &Shown, backends: &[Arc<Backend>]) -> Option<Place> {
        let sessions = decision.sessions()?;
        let rule = decision.rule.id;
        // What is written below is whole at any time.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.get(&(rule, shown.endpoint)) {
            return place.clone();
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::STICKY {
            known.clear();
        }
        let shares = decision.rule.shares.iter().enumerate();
        for (share, backend) in shares {
            let Some(backend) = backend.backend.as_ref().ok().and_then(|at| backends.get(*at as usize)) else {
                continue;
            };
            for endpoint in backend.endpoints.iter().filter(|endpoint| !endpoint.pod_uid.is_empty()) {
                let id = sessions.endpoint(shown, &endpoint.pod_uid);
                known
                    .entry((rule, id))
                    .or_insert_with(|| Some((share as u32, endpoint.clone())));
            }
        }
        // A pod that is gone is not looked for again either.
        known.entry((rule, shown.endpoint)).or_insert(None).clone()
    }
}
