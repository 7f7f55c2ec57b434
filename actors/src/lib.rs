//! Who acts. Knows no HTTP and no byte layout.
//!
//! # The actor map
//!
//! | actor | started by | may be asked or told by |
//! |---|---|---|
//! | [`supervisor::Supervisor`] | the node | the edge, through [`supervisor::Tenants`] |
//! | [`tenant::Tenant`], one each | the supervisor, on an HTTP worker's thread | the edge, through its [`tenant::handle::TenantHandle`] |
//! | [`rate::RateLimiter`] | the node | told by a timer; the check itself is a direct call |
//! | [`quota::keeper::QuotaKeeper`] | the node | told by tenants, after each record |
//! | [`audit::anchor::AuditAnchor`] | the node | told by tenants, after each record |
//! | [`key_watch::KeyWatch`] | the node | nobody; a timer wakes it |
//! | [`erasure::Eraser`] | the node | nobody; a timer wakes it |
//! | [`webhook::inbox::WebhookInbox`] | the node | told by the edge, after each delivery |
//! | [`mail::Postman`] | the node | tenants, after each commit, through a shared set |
//! | [`backup::keeper::BackupKeeper`] | the node | nobody; a timer wakes it; backups and drills on demand go through its handle |
//!
//! Asks go down, news goes up. No two actors await each other.

pub mod archivist;
pub mod audit;
pub mod background;
pub mod backup;
pub mod call;
pub mod env;
pub mod erasure;
pub mod host;
pub mod key_watch;
pub mod limits;
pub mod mail;
pub mod permit;
pub mod quota;
pub mod rate;
pub mod standing;
pub mod supervisor;
pub mod tenant;
pub mod travel;
pub mod webhook;
