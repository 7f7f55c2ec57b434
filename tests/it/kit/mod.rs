//! What the tests stand on: a running node, people in it, and a patient eye.

mod acks;
mod authenticator;
mod browser;
mod client;
mod clock;
mod dice;
mod eventually;
mod forge;
mod gate;
mod issuer;
mod loopdisk;
mod mailbox;
mod parallel;
mod passkey;
mod peers;
mod process;
mod stores;
mod surfer;
mod walk;
mod world;

pub use acks::{Acks, Attempt, Tally};
pub use authenticator::{Authenticator, STEP_MS, begin_enrolment, enrol};
pub use browser::Browser;
pub use client::{Client, Essence, Reply, raw};
pub use clock::TestClock;
pub use dice::{Dice, number_from};
pub use eventually::eventually;
pub use forge::{Forge, encode};
pub use gate::Gate;
pub use issuer::{Answer, Issuer, KeyServer};
pub use loopdisk::{FileSystem, LoopDisk};
pub use mailbox::{MailServer, link_in, written};
pub use parallel::at_once;
pub use passkey::{Device, LOCAL, enrol_passkey, options, sign_in_alone};
pub use peers::{Library, Otplib, Peer, Peers, SIGNERS, Signing};
pub use process::{Launcher, Outcome, Process};
pub use stores::{BUCKET, Emulator, ScriptedStore, service_account};
pub use surfer::{Surfer, parameter};
pub use walk::{
    Fixture, ask_support, ends_the_caller, exported, in_walking_order, restore_to, restored,
    support_session,
};
pub use world::{PASSWORD, Tenant, World, WorldOptions, api_key, name_schema};
