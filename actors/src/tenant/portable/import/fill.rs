//! Writing a bundle's rows into a tenant that is held and has no profile yet.
//!
//! Rows whose key or value depends on the tenant's keys or its place are made anew: the index of e-mail
//! addresses, the markers that find repeated webhooks, the URLs of integrations under another short name.
//! Refuses nothing: what comes here was checked.

use std::io::Read;
use std::sync::Arc;

use storage::keys::{Key, Prefix};
use storage::snapshot::SnapshotReader;
use storage::store::StoreError;
use storage::txn::Scan;
use storage::value;

use crate::audit::chunk::form_of;
use crate::audit::entry::{Draft, Entry, Named};
use crate::call::Origin;
use crate::permit::{Operate, Principal};
use crate::quota::{Quota, Used};
use crate::tenant::core::Core;
use crate::tenant::cx::{Command, Cx, Reads as _};
use crate::tenant::error::TenantError;
use crate::tenant::integrations::{events, moving};
use crate::tenant::members::email_key;
use crate::tenant::people::UserRow;
use crate::tenant::portable::PortableError;
use crate::tenant::portable::content::{Part, part_of};
use crate::tenant::portable::manifest::BundleManifest;
use crate::tenant::state::{AuditHead, Profile};

/// Bytes of rows after which a record is written.
const CHUNK_BYTES: usize = 4 << 20;
/// Rows after which a record is written, however small they are.
const CHUNK_ROWS: usize = 16 * 1024;

/// A tenant without a profile takes commands of its founding only, and an import is one.
const FOUNDER: Principal = Principal::System("found");

/// Where a tenant came from, for its audit log.
pub(super) struct Provenance {
    pub manifest: BundleManifest,
    /// The public key that signed the bundle, as text.
    pub signer: String,
}

/// What the last record gives.
pub(super) struct Finish {
    pub profile: Arc<Profile>,
    pub used: Used,
    pub owners: u32,
    pub provenance: Provenance,
}

/// Removes what an import that was stopped had written, except for the audit log.
pub(super) fn clear(core: &mut Core) -> Result<(), TenantError> {
    // Only the tenant's own row comes before the audit log.
    let after = Some(Key::Audit { seq: u64::MAX });
    let scan = Scan { prefix: Prefix::all(), after, reverse: false, limit: CHUNK_ROWS };
    loop {
        let rows = core.shard().scan_within(&scan, CHUNK_BYTES).map_err(TenantError::from)?;
        if rows.is_empty() {
            return Ok(());
        }
        let gone = rows.into_iter().map(|(key, _)| key).collect();
        run(core, WriteImport { gone, ..WriteImport::default() })?;
    }
}

/// Writes all rows, and then what the tenant is.
pub(super) fn write<R: Read>(
    core: &mut Core,
    mut rows: SnapshotReader<R>,
    finish: Finish,
    tell: &dyn Fn(u64),
) -> Result<(), PortableError> {
    let known = core.state().audit;
    let slug = &finish.profile.slug;
    let new_slug = (*slug != finish.provenance.manifest.slug).then(|| slug.clone());
    let empty = || WriteImport { new_slug: new_slug.clone(), ..WriteImport::default() };
    let (mut chunk, mut bytes, mut done) = (empty(), 0, 0);
    while let Some((key, value)) = rows.next_row()? {
        done += 1;
        let key = Key::decode(&key).map_err(StoreError::from)?;
        match part_of(&key) {
            Part::State => continue,
            Part::Audit => {
                let entries: Vec<Entry> = value::decode(&value).map_err(TenantError::from)?;
                let Some((first, head)) = ends_of(&entries) else { continue };
                let forms = entries.iter().filter_map(form_of);
                let trail = forms.map(|form| (Key::AuditTrail { form, seq: first }, Vec::new()));
                chunk.rows.extend(trail);
                // Written by the import that was stopped.
                if head.seq <= known.seq {
                    continue;
                }
                chunk.audit = Some(head);
            }
            Part::Trail => continue,
            Part::Content | Part::Place => {}
        }
        bytes += value.len();
        chunk.rows.push((key, value.to_vec()));
        if bytes >= CHUNK_BYTES || chunk.rows.len() >= CHUNK_ROWS {
            run(core, std::mem::replace(&mut chunk, empty()))?;
            bytes = 0;
            tell(done);
        }
    }
    chunk.finish = Some(finish);
    run(core, chunk)?;
    tell(done);
    Ok(())
}

/// The number of an audit row's first entry, and where the chain is after it.
fn ends_of(entries: &[Entry]) -> Option<(u64, AuditHead)> {
    let (first, last) = (entries.first()?, entries.last()?);
    Some((first.seq, AuditHead { seq: last.seq, hash: last.compute_hash() }))
}

fn run(core: &mut Core, command: WriteImport) -> Result<(), TenantError> {
    core.run_now(&FOUNDER, Origin::default(), command)
}

/// Writes some rows of a bundle.
#[derive(Default)]
struct WriteImport {
    gone: Vec<Key>,
    rows: Vec<(Key, Vec<u8>)>,
    /// Where the chain is after these rows, if any of them is of the audit log.
    audit: Option<AuditHead>,
    /// The short name the tenant gets, if it is another.
    new_slug: Option<String>,
    finish: Option<Finish>,
}

impl Command for WriteImport {
    type Action = Operate;
    type Reply = ();
    const NAME: &'static str = "tenant.import";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("tenant", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        cx.exempt_from_quotas();
        for key in &self.gone {
            cx.delete(key)?;
        }
        for (key, bytes) in self.rows {
            match (&key, &self.new_slug) {
                (Key::User { id }, _) => {
                    let row: UserRow = value::decode(&bytes)?;
                    let index = email_key(cx, &row.email);
                    cx.put(&index, id)?;
                }
                (Key::Event { integration, .. }, _) => {
                    let (marker, event) = events::marker(cx, *integration, &bytes)?;
                    cx.put(&marker, &event)?;
                }
                (Key::Integration { .. }, Some(slug)) => {
                    let bytes = moving::moved(&bytes, slug)?;
                    cx.put_bytes(&key, bytes)?;
                    continue;
                }
                _ => {}
            }
            cx.put_bytes(&key, bytes)?;
        }
        if let Some(head) = self.audit {
            cx.state_mut().audit = head;
        }
        if let Some(finish) = self.finish {
            finish.give(cx);
        }
        Ok(())
    }
}

impl Finish {
    fn give(self, cx: &mut Cx<'_, '_>) {
        let Self { profile, used, owners, provenance } = self;
        let target = Named::new("tenant", cx.tenant());
        let draft = provenance.draft(target, &profile);
        let state = cx.state_mut();
        state.profile = Some(profile);
        state.owners = owners;
        // Stored bytes are counted as they are written.
        for quota in Quota::ALL.into_iter().filter(|quota| *quota != Quota::StorageBytes) {
            state.used.set(quota, used.of(quota));
        }
        cx.audit_as(Named::new("system", "import"), draft);
    }
}

impl Provenance {
    /// Says where the tenant came from, and keeps the proof that its audit log was anchored there.
    fn draft(self, target: Named, profile: &Profile) -> Draft {
        let Self { manifest, signer } = self;
        let draft = Draft::success(WriteImport::NAME, target)
            .with("origin", manifest.origin)
            .with("signer", signer)
            .with("from_slug", manifest.slug)
            .with("from_region", manifest.region)
            .with("slug", profile.slug.as_str())
            .with("content_hash", manifest.content_hash.to_string())
            .with("lsn", manifest.source.lsn)
            .with("seq", manifest.audit.seq)
            .with("head", manifest.audit.hash.to_string());
        let Some(proof) = manifest.checkpoint else { return draft };
        let path: Vec<_> = proof.path.iter().map(ToString::to_string).collect();
        draft
            .with("checkpoint", proof.note)
            .with("checkpoint_lsn", proof.lsn)
            .with("checkpoint_record", proof.record.to_string())
            .with("checkpoint_seq", proof.seq)
            .with("checkpoint_index", proof.index)
            .with("checkpoint_path", path.join(" "))
    }
}
