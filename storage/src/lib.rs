//! What lasts: the commit log, the records in it, and the view made from them.
//!
//! # What a compartment promises
//!
//! A tenant's data lives in one [`shard::Shard`], which one actor owns. A change is *durable* when its
//! record is in the [`log`]; only then does it show in the view and only then is anybody answered. The
//! view can be deleted at any time: it is made again from the log. Values rest sealed under the tenant's
//! own key, in the log and in the view.
//!
//! # What it does not promise
//!
//! Nothing is promised about a record whose append answered `Unknown` until the tail has been read.
//! Two shards share nothing but the disk: there is no transaction over two tenants.

pub mod anchor_log;
pub mod archive;
pub mod background;
pub mod disk;
pub mod history;
pub mod id;
pub mod keys;
pub mod keystore;
pub mod log;
pub mod record;
pub mod scratch;
pub mod seal;
pub mod shard;
pub mod snapshot;
pub mod store;
pub mod txn;
pub mod value;
pub mod view;
