//! What the edge counts, in Prometheus form.
//!
//! No label names a tenant or a person: the number of series is that of the route table. Each worker
//! resolves its series once, so that a request costs a few atomic additions and no look-up of texts.

use std::cell::RefCell;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry, TextEncoder,
};

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS_S: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];

/// The label of requests that matched no row of the table.
pub const UNMATCHED: &str = "unmatched";

/// The registry of one node. Cheap to clone; several nodes in one process have one each.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    refusals: IntCounterVec,
    panics: IntCounter,
}

impl Metrics {
    /// A registry with the edge's own series.
    ///
    /// # Errors
    /// Only if two series had the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("bulkhead_http_requests_total", "Requests answered, by route and status."),
            &["route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "bulkhead_http_request_duration_seconds",
                "Time from the head of a request to its answer, by route.",
            )
            .buckets(BUCKETS_S.to_vec()),
            &["route"],
        )?;
        let refusals = IntCounterVec::new(
            Opts::new(
                "bulkhead_http_refusals_total",
                "Requests refused before their handler ran, by problem.",
            ),
            &["problem"],
        )?;
        let panics =
            IntCounter::new("bulkhead_http_handler_panics_total", "Handlers that panicked.")?;
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(refusals.clone()))?;
        registry.register(Box::new(panics.clone()))?;
        Ok(Self { registry, requests, durations, refusals, panics })
    }

    /// Where other parts of the node register what they count.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything registered, in the Prometheus text format.
    ///
    /// # Errors
    /// Only if a registered collector gives something that is no metric.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// One worker's meter for one route.
    pub fn meter(&self, route: &'static str) -> Meter {
        Meter {
            route,
            duration: self.durations.with_label_values(&[route]),
            requests: self.requests.clone(),
            seen: RefCell::new(Vec::new()),
        }
    }

    /// Counts a request that was refused before its handler ran.
    pub(crate) fn refused(&self, problem: &'static str) {
        self.refusals.with_label_values(&[problem]).inc();
    }

    /// Counts a handler that panicked.
    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }
}

/// Counts one route's requests on one worker.
pub struct Meter {
    route: &'static str,
    duration: Histogram,
    requests: IntCounterVec,
    seen: RefCell<Vec<(u16, IntCounter)>>,
}

impl Meter {
    /// Counts one answer.
    pub fn count(&self, status: u16, duration_s: f64) {
        self.duration.observe(duration_s);
        let mut seen = self.seen.borrow_mut();
        if let Some((_, counter)) = seen.iter().find(|(known, _)| *known == status) {
            return counter.inc();
        }
        let counter = self.requests.with_label_values(&[self.route, &status.to_string()]);
        counter.inc();
        seen.push((status, counter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_route_and_status() {
        let metrics = Metrics::new().expect("names are unique");
        let meter = metrics.meter("forms.read");
        meter.count(200, 0.001);
        meter.count(200, 0.001);
        meter.count(404, 0.001);
        let text = metrics.text().expect("text");
        assert!(
            text.contains(r#"bulkhead_http_requests_total{route="forms.read",status="200"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"bulkhead_http_request_duration_seconds_count{route="forms.read"} 3"#),
            "{text}"
        );
    }

    #[test]
    fn two_nodes_in_one_process_count_apart() {
        let (one, other) = (Metrics::new().expect("one"), Metrics::new().expect("other"));
        one.meter(UNMATCHED).count(404, 0.0);
        assert!(!other.text().expect("text").contains("404"));
    }
}
