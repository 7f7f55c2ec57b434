//! Tests of snapshots from outside: round trips, damage and attack, and the merge against a map.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod damage;
mod format;
mod kit;
mod merging;
