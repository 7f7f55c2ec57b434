//! Tests of backups' arithmetic, by module, and of what a crash leaves of them.

mod crash;
mod documents;
mod garbage;
mod rotation;
mod samples;
