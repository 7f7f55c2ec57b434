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
use storage::txn::Value;
use storage::value;

use super::PortableError;
use super::bundle::{ROWS_TOLD, digest_of, travels};
use super::content::{Contents, Tally};
use super::key::BundleKey;
use super::manifest::{BundleManifest, FORMAT, PayloadRef, SignedManifest};
use super::proof::AnchorProof;
use crate::audit::chunk::{self, Chunk, ChunkRow};
use crate::audit::note::NoteSigner;
use crate::backup::signed::Signed;
use crate::env::Env;
use crate::tenant::error::TenantError;

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
        let archive = history.archive();
        let mut copy = Copy { writer, contents: Contents::new(None), written: 0, tell };
        copy.all(past, &mut |chunk| chunk::rows(&**archive, &own_keys, &chunk))?;
        let (tally, out) = copy.finish()?;
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
struct Copy<'a, W: Write> {
    writer: SnapshotWriter<W>,
    contents: Contents,
    written: u64,
    tell: &'a mut dyn FnMut(u64),
}

/// Reads rows of the audit log back from the archive.
type Unarchive<'a> = &'a mut dyn FnMut(Chunk) -> Result<Vec<(u64, Value)>, TenantError>;

impl<W: Write> Copy<'_, W> {
    /// Audit entries that are in the archive travel as if they had never left.
    fn all(&mut self, mut past: PastState, unarchive: Unarchive<'_>) -> Result<(), PortableError> {
        let mut archived = 0;
        while let Some((encoded, bytes)) = past.next_row()? {
            let key = Key::decode(&encoded).map_err(StoreError::from)?;
            match key {
                Key::AuditChunk { first } => {
                    let row: ChunkRow = value::decode(&bytes)?;
                    archived = row.last.seq;
                    for (seq, bytes) in unarchive(Chunk { first, row })? {
                        let key = Key::Audit { seq };
                        self.row(&key, &key.encode(), &bytes)?;
                    }
                }
                Key::Audit { seq } if seq <= archived => {}
                key if travels(&key) => self.row(&key, &encoded, &bytes)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn row(&mut self, key: &Key, encoded: &[u8], bytes: &[u8]) -> Result<(), PortableError> {
        self.contents.take(key, encoded, bytes)?;
        self.writer.push(encoded, bytes)?;
        self.written += 1;
        if self.written.is_multiple_of(ROWS_TOLD) {
            (self.tell)(self.written);
        }
        Ok(())
    }

    fn finish(self) -> Result<(Tally, W), PortableError> {
        (self.tell)(self.written);
        let tally = self.contents.finish()?;
        if tally.state.restore.is_some() {
            return Err(PortableError::RestoreRunning);
        }
        let (_, out) = self.writer.finish()?;
        Ok((tally, out))
    }
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
