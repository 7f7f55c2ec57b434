//! Tests of shards from outside: against a map, on a real directory, and with failing parts.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod directory;
mod failing;
mod golden;
mod kit;
mod model;
mod power;
mod view_loss;
