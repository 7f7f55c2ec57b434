//! Inbound webhooks: who may say they come from where, and how much of it a node takes.
//!
//! [`scheme`] verifies signatures, purely; [`inbox`] bounds deliveries and counts what became of them.
//! The tenant that a delivery is for verifies, de-duplicates and stores it
//! (see [`tenant::integrations`](crate::tenant::integrations)). Refuses: to parse a byte before it is
//! verified, and to say to a sender why a signature was wrong.

pub mod inbox;
pub mod scheme;

mod github;
mod razorpay;
mod slack;
mod standard;
mod stripe;
