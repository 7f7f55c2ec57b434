//! What the tests stand on: a running node, people in it, and a patient eye.

mod client;
mod clock;
mod eventually;
mod parallel;
mod walk;
mod world;

pub use client::{Client, Reply, raw};
pub use clock::TestClock;
pub use eventually::eventually;
pub use parallel::at_once;
pub use walk::{Fixture, ends_the_caller, in_walking_order};
pub use world::{PASSWORD, Tenant, World, WorldOptions, name_schema};
