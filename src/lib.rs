//! The edge of Bulkhead: speaks HTTP and shell, and puts the parts together.
//!
//! A library so that tests and benches can start whole nodes in their own process. Knows no keys of
//! stored rows and no byte layout; what acts is in `actors`, what lasts is in `storage`.

pub mod cli;
pub mod config;
pub mod control;
pub mod exports;
pub mod federation;
pub mod http;
pub mod jobs;
pub mod limits;
pub mod mail;
pub mod metrics;
pub mod ops;
pub mod runtime;
pub mod telemetry;
