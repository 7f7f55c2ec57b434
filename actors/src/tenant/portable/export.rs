//! Writing a bundle of a tenant, while it serves.
//!
//! The state after the tenant's last record is read from its history, not from the tenant, which goes on.
//! Blocks. Refuses: a tenant in the midst of a restore or an import.

use std::io::{self, Write};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use storage::anchor_log::AnchorLog;
use storage::history::PastState;
use storage::id::TenantId;
use storage::keys::Key;
use storage::log::Tail;
use storage::snapshot::{NO_STAMP, RowSource as _, SnapshotHeader, SnapshotWriter};
use storage::store::{Store, StoreError};

use super::PortableError;
use super::bundle::{ROWS_TOLD, digest_of, travels};
use super::content::{Contents, Tally};
use super::key::BundleKey;
use super::manifest::{BundleManifest, FORMAT, PayloadRef, SignedManifest};
use super::proof::AnchorProof;
use crate::audit::note::NoteSigner;
use crate::backup::signed::Signed;
use crate::env::Env;

/// The node that exports.
#[derive(Clone)]
pub struct Exporter {
    /// Where the histories are.
    pub store: Arc<Store>,
    /// Its signed checkpoints.
    pub anchors: Arc<AnchorLog>,
    /// What signs for it ([`signing_key`](crate::audit::anchor::signing_key)).
    pub signer: Arc<NoteSigner>,
    /// Time.
    pub env: Env,
}

impl Exporter {
    /// Writes the tenant's rows to `out`, sealed under `key`, and signs what they are. A bundle is
    /// [`write_head`](super::bundle::write_head) and then these bytes. `tell` hears how many rows were
    /// written.
    ///
    /// # Errors
    /// [`PortableError::RestoreRunning`], [`PortableError::NoHistory`]; whatever reading the history and
    /// writing to `out` may say.
    pub fn write_rows(
        &self,
        tenant: TenantId,
        key: &BundleKey,
        out: impl Write,
        tell: &mut dyn FnMut(u64),
    ) -> Result<SignedManifest, PortableError> {
        let history = self.store.history().ok_or(PortableError::NoHistory)?;
        let own_keys = self.store.tenant_keys(tenant)?;
        let tail = self.store.log().tail(tenant).map_err(StoreError::from)?;
        let past = history.state_after(&own_keys, tail.lsn)?;
        let exported_ms = self.env.now_ms();
        let header = SnapshotHeader {
            tenant,
            lsn: tail.lsn,
            epoch: tail.epoch,
            head: tail.hash,
            since_lsn: 0,
            at_min_ms: NO_STAMP,
            at_max_ms: exported_ms,
        };
        let out = Hashing { out, digest: Context::new(&SHA256), bytes: 0 };
        let writer = SnapshotWriter::new(out, &key.keys(tenant), header)?;
        let (tally, out) = copy(past, writer, tell)?;
        let payload = PayloadRef {
            sha256: digest_of(out.digest),
            bytes: out.bytes,
            rows: tally.rows,
            key_id: key.id(),
        };
        self.sign(tenant, tail, exported_ms, payload, tally)
    }

    fn sign(
        &self,
        tenant: TenantId,
        tail: Tail,
        exported_ms: u64,
        payload: PayloadRef,
        tally: Tally,
    ) -> Result<SignedManifest, PortableError> {
        let profile = tally.state.profile.ok_or(PortableError::Contents("it has no profile"))?;
        let manifest = BundleManifest {
            format: FORMAT,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            origin: self.signer.name().to_owned(),
            region: profile.region.clone(),
            tenant,
            slug: profile.slug.clone(),
            name: profile.name.clone(),
            plan: profile.plan.clone(),
            exported_ms,
            source: tail.into(),
            payload,
            content_hash: tally.content_hash,
            audit: tally.audit,
            checkpoint: AnchorProof::find(&self.anchors, tenant, tail.lsn)?,
        };
        Ok(Signed::sign(manifest, &self.signer)?)
    }
}

/// Copies the rows that travel, and counts them.
fn copy<W: Write>(
    mut past: PastState,
    mut writer: SnapshotWriter<W>,
    tell: &mut dyn FnMut(u64),
) -> Result<(Tally, W), PortableError> {
    let mut contents = Contents::new(None);
    let mut written: u64 = 0;
    while let Some((encoded, bytes)) = past.next_row()? {
        let key = Key::decode(&encoded).map_err(StoreError::from)?;
        if !travels(&key) {
            continue;
        }
        contents.take(&key, &encoded, &bytes)?;
        writer.push(&encoded, &bytes)?;
        written += 1;
        if written.is_multiple_of(ROWS_TOLD) {
            tell(written);
        }
    }
    tell(written);
    let tally = contents.finish()?;
    if tally.state.restore.is_some() {
        return Err(PortableError::RestoreRunning);
    }
    let (_, out) = writer.finish()?;
    Ok((tally, out))
}

/// Counts and hashes what passes.
struct Hashing<W> {
    out: W,
    digest: Context,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
