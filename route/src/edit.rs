//! What a rule does to a request, to its response, or in place of both. Pure functions over bytes and one small trait,
//! so that HTTP/1's list of fields and HTTP/2's map are edited by the same code.

pub mod cors;
pub mod headers;
pub mod redirect;
pub mod rewrite;

pub use cors::{CorsAnswer, CorsEdit};
pub use headers::{Fields, HeaderEdit};

use std::fmt;

use crate::rule::{Filter, Mirror, PathChange, Redirect, Rewrite};

/// A filter, ready for use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Change the request's header fields.
    RequestHeaders(HeaderEdit),
    /// Change the response's header fields.
    ResponseHeaders(HeaderEdit),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Change host or path on the way to the backend.
    Rewrite(Rewrite),
    /// Send a copy elsewhere.
    Mirror(Mirror),
    /// Cross-origin resource sharing.
    Cors(Box<CorsEdit>),
}

impl Edit {
    /// Makes a filter ready, or says what is wrong with it.
    pub(crate) fn new(filter: &Filter) -> Result<Self, String> {
        Ok(match filter {
            Filter::RequestHeaders(change) => Edit::RequestHeaders(HeaderEdit::new(change)?),
            Filter::ResponseHeaders(change) => Edit::ResponseHeaders(HeaderEdit::new(change)?),
            Filter::Redirect(redirect) => {
                redirect::check(redirect)?;
                Edit::Redirect(redirect.clone())
            }
            Filter::Rewrite(rewrite) => {
                rewrite::check(rewrite)?;
                Edit::Rewrite(rewrite.clone())
            }
            Filter::Mirror(mirror) if mirror.denominator == 0 => {
                return Err("a mirror's share of requests has the denominator 0".into());
            }
            Filter::Mirror(mirror) => Edit::Mirror(mirror.clone()),
            Filter::Cors(cors) => Edit::Cors(Box::new(CorsEdit::new(cors)?)),
        })
    }
}

/// For people.
impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edit::RequestHeaders(change) => write!(f, "request headers: {change}"),
            Edit::ResponseHeaders(change) => write!(f, "response headers: {change}"),
            Edit::Redirect(redirect) => {
                write!(f, "redirect {}", redirect.status)?;
                part(f, "scheme", redirect.scheme.as_ref())?;
                part(f, "host", redirect.host.as_ref())?;
                part(f, "port", redirect.port.as_ref())?;
                path(f, redirect.path.as_ref())
            }
            Edit::Rewrite(rewrite) => {
                f.write_str("rewrite")?;
                part(f, "host", rewrite.host.as_ref())?;
                path(f, rewrite.path.as_ref())
            }
            Edit::Mirror(mirror) => {
                let (numerator, denominator) = (mirror.numerator, mirror.denominator);
                match &mirror.backend {
                    Ok(_) => write!(f, "mirror {numerator} of {denominator} requests"),
                    Err(reason) => write!(f, "mirror nothing: {reason}"),
                }
            }
            Edit::Cors(_) => f.write_str("CORS"),
        }
    }
}

fn part(f: &mut fmt::Formatter<'_>, name: &str, value: Option<&impl fmt::Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, ", {name} {value}"))
}

fn path(f: &mut fmt::Formatter<'_>, change: Option<&PathChange>) -> fmt::Result {
    match change {
        None => Ok(()),
        Some(PathChange::Full(path)) => write!(f, ", path {path}"),
        Some(PathChange::Prefix(prefix)) => write!(f, ", matched prefix by {prefix}"),
    }
}

/// Where a redirect is answered from.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// `http` or `https`, as the client speaks.
    pub scheme: &'a str,
    /// The request's host as sent, port included; `None` where it has none.
    pub host: Option<&'a [u8]>,
    /// The port that the client dialled.
    pub port: u16,
    /// The request's path and query as sent.
    pub target: &'a [u8],
}
