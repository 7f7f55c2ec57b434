//! What the tests stand on: a running node, people in it, and a patient eye.

mod client;
mod clock;
mod dice;
mod eventually;
mod forge;
mod parallel;
mod peers;
mod process;
mod walk;
mod world;

pub use client::{Client, Reply, raw};
pub use clock::TestClock;
pub use dice::{Dice, number_from};
pub use eventually::eventually;
pub use forge::{Forge, encode};
pub use parallel::at_once;
pub use peers::{Library, Peers, SIGNERS, Signing};
pub use process::{Launcher, Outcome, Process};
pub use walk::{Fixture, ends_the_caller, in_walking_order};
pub use world::{PASSWORD, Tenant, World, WorldOptions, name_schema};
