//! Whole nodes, attacked from outside.

mod kit;

mod isolation;
mod roles;
