//! Who may ask the operators' listener.
//!
//! On loopback: whoever is on the machine, but no browser that was sent here under another name
//! (DNS rebinding). Bound wider: whoever holds the token, but for `/healthz`. A credential that is
//! not an operator's gets the answer of a place where nothing is, whatever it is good for elsewhere.

use std::net::{IpAddr, SocketAddr};

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::InternalError;
use actix_web::http::{StatusCode, header};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use futures_util::future::{Ready, ready};

/// What is decided about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass, as an operator's.
    Operator,
    /// It may pass, to what everyone on the machine may see.
    Local,
    /// No credential where one is needed.
    Anonymous,
    /// Nothing is here.
    Hidden,
}

/// The rule.
#[derive(Clone)]
pub struct Guard {
    is_loopback: bool,
    /// Made new at each start; kept in the data directory.
    operator_token: String,
    /// The one of `ops.token_file`, if there is one.
    scrape_token: Option<String>,
}

impl Guard {
    /// For a listener at `bound`.
    pub fn new(bound: SocketAddr, operator_token: String, scrape_token: Option<String>) -> Self {
        Self { is_loopback: bound.ip().is_loopback(), operator_token, scrape_token }
    }

    /// Judges a request.
    pub fn judge(&self, request: &ServiceRequest) -> Verdict {
        let headers = request.headers();
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        self.decide(text(header::HOST), text(header::AUTHORIZATION))
    }

    fn decide(&self, host: Option<&str>, authorization: Option<&str>) -> Verdict {
        if self.is_loopback && !host.is_none_or(is_loopback_host) {
            return Verdict::Hidden;
        }
        match authorization {
            Some(value) => match value.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                    self.holder(token.trim())
                }
                _ => Verdict::Hidden,
            },
            None if self.is_loopback => Verdict::Local,
            None => Verdict::Anonymous,
        }
    }

    fn holder(&self, token: &str) -> Verdict {
        let is = |known: &str| verify_slices_are_equal(known.as_bytes(), token.as_bytes()).is_ok();
        if is(&self.operator_token) {
            Verdict::Operator
        } else if self.scrape_token.as_deref().is_some_and(is) {
            Verdict::Local
        } else {
            Verdict::Hidden
        }
    }
}

fn is_loopback_host(host: &str) -> bool {
    // A port, or nothing, may follow the name; anything else makes it another name.
    let is_end = |rest: &str| {
        rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    };
    let (name, rest) = match host.strip_prefix('[') {
        Some(inner) => inner.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    is_end(rest) && (name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback))
}

/// Proof that an operator asks: a handler that takes it answers nobody else, whatever path led to it.
pub struct ByOperator(());

impl FromRequest for ByOperator {
    type Error = InternalError<&'static str>;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let verdict = request.extensions().get::<Verdict>().copied();
        ready(match verdict {
            Some(Verdict::Operator) => Ok(Self(())),
            _ => Err(InternalError::from_response(
                "not an operator",
                super::problem(StatusCode::UNAUTHORIZED),
            )),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(bound: &str) -> Guard {
        let bound = bound.parse().expect("an address");
        Guard::new(bound, "operator".to_owned(), Some("scraper".to_owned()))
    }

    #[test]
    fn on_loopback_everyone_may_look_but_not_under_another_name() {
        let guard = guard("127.0.0.1:9090");
        assert_eq!(guard.decide(Some("localhost:9090"), None), Verdict::Local);
        assert_eq!(guard.decide(Some("[::1]:9090"), None), Verdict::Local);
        for name in [
            "evil.example:9090",
            "[::1]evil.example",
            "[::1].evil.example:80",
            "localhost.evil.example",
            "localhost:80:evil",
            "127.0.0.1:evil.example",
            "[::1",
            "",
        ] {
            assert_eq!(guard.decide(Some(name), None), Verdict::Hidden, "{name}");
        }
    }

    #[test]
    fn bound_wider_a_token_is_needed() {
        let guard = guard("0.0.0.0:9090");
        assert_eq!(guard.decide(Some("node.example"), None), Verdict::Anonymous);
        assert_eq!(guard.decide(Some("node.example"), Some("Bearer scraper")), Verdict::Local);
        assert_eq!(guard.decide(Some("node.example"), Some("bearer operator")), Verdict::Operator);
    }

    #[test]
    fn a_tenants_token_finds_nothing_here() {
        for bound in ["127.0.0.1:9090", "0.0.0.0:9090"] {
            let verdict = guard(bound).decide(None, Some("Bearer eyJhbGciOi.eyJ0aWQ.c2ln"));
            assert_eq!(verdict, Verdict::Hidden);
        }
        assert_eq!(guard("[::1]:1").decide(None, Some("Basic b3A6")), Verdict::Hidden);
    }
}
