//! Whole nodes, attacked from outside.

mod kit;

mod acl;
mod audit;
mod auth;
mod cli;
mod crash;
mod damage;
mod disk_full;
mod forms;
mod hashing;
mod isolation;
mod jwt;
mod lists;
mod openapi;
mod ops;
mod people;
mod problems;
mod quiet;
mod quota;
mod rate;
mod roles;
mod supervision;
mod tamper;
mod tls;
mod webhooks;
