//! Tests of backups' arithmetic, by module.

mod documents;
mod garbage;
mod rotation;
mod samples;
