//! Taking a tenant up from a bundle, with the id it has and keys of its own.
//!
//! First the bundle is read to its end and checked against its manifest; nothing is made before. Then the
//! tenant gets its entry in the directory, suspended, and its rows are written by ordinary records: the
//! audit log first, byte for byte, with the end of the chain kept in step in each record. The last record
//! gives it its profile and says in its own audit log where it came from. Only then it is served.
//!
//! What stops an import midway leaves a tenant that nobody is served and that has no profile. The same
//! import repeated goes on with it: what was written of the audit log stays, the rest is written again. A
//! newer bundle of the same tenant does as well.
//!
//! Refuses: a tenant that is here already, a taken short name, a plan that is not here, and another region
//! unless that is wanted.

use std::io::{Read, Seek};
use std::sync::Arc;

use serde::Serialize;
use storage::id::TenantId;
use storage::store::StoreError;

use super::PortableError;
use super::admit::AdmitTenant;
use super::bundle::Bundle;
use super::content::Tally;
use super::key::BundleKey;
use super::manifest::BundleManifest;
use crate::audit::note::NoteVerifier;
use crate::backup::Told;
use crate::backup::digest::Digest;
use crate::call::Origin;
use crate::permit::{Permit, WriteTenants};
use crate::supervisor::{HeldTenant, Tenants};
use crate::tenant::directory::{DirectoryRow, Standing};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::profile::check_slug;
use crate::tenant::state::{AuditHead, Profile};

use fill::{Finish, Provenance};

mod fill;

/// How a tenant is taken up.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The short name it gets; its own if absent.
    pub slug: Option<String>,
    /// The plan it gets; its own if absent.
    pub plan: Option<String>,
    /// Whether it may come from another region.
    pub region_change: bool,
}

/// What an import made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Which tenant.
    pub tenant: TenantId,
    /// Its short name here.
    pub slug: String,
    /// The node it came from.
    pub origin: String,
    /// How many rows came along.
    pub rows: u64,
    /// How many audit entries came along.
    pub entries: u64,
    /// The hash of its content, as the bundle says and as it was found.
    pub content_hash: Digest,
}

/// What a tenant gets from where it goes.
struct Place {
    slug: String,
    plan: String,
    region: String,
}

impl Place {
    /// The profile of a tenant here that was `was` where it was.
    fn profile(&self, was: &Profile) -> Profile {
        Profile {
            slug: self.slug.clone(),
            name: was.name.clone(),
            plan: self.plan.clone(),
            region: self.region.clone(),
            created_ms: was.created_ms,
            trial_ends_ms: was.trial_ends_ms,
            version: was.version + 1,
            mfa_required: was.mfa_required,
            support_approval: was.support_approval,
        }
    }
}

/// A bundle that was found whole.
struct Checked<R> {
    bundle: Bundle<R>,
    key: BundleKey,
    tally: Tally,
    was: Arc<Profile>,
}

/// Takes up the tenant in a bundle. `signer` is the key that is trusted to have signed it; `permit` makes
/// permits to change the directory. `tell` hears how far it is.
///
/// # Errors
/// [`PortableError`] says what stands in the way. Nothing is served of a tenant that was not finished.
pub async fn import<R: Read + Seek + Send + 'static>(
    tenants: &Tenants,
    bundle: Bundle<R>,
    signer: NoteVerifier,
    key: BundleKey,
    options: ImportOptions,
    permit: fn() -> Permit<WriteTenants>,
    tell: impl Fn(Told<'_>) + Clone + Send + 'static,
) -> Result<Imported, PortableError> {
    let manifest = bundle.verify(&signer)?.clone();
    let tenant = manifest.tenant;
    let place = place(tenants, &manifest, options)?;
    let through = vacancy(tenants, tenant, &place.slug).await?;
    let telling = tell.clone();
    let checked = tokio::task::spawn_blocking(move || check(bundle, key, through, &telling)).await;
    let checked = checked.map_err(|_| PortableError::Panicked)??;
    let profile = Arc::new(place.profile(&checked.was));
    let provenance = Provenance { manifest, signer: signer.to_text() };

    tenants.admit(permit(), Origin::default(), admission(&profile, &provenance)).await.map_err(
        |error| match error {
            TenantError::Conflict(Conflict::SlugTaken) => {
                PortableError::SlugTaken { slug: profile.slug.clone() }
            }
            error => error.into(),
        },
    )?;
    let held = tenants.hold(tenant).await?;
    let filled =
        tokio::task::spawn_blocking(move || fill(&held, checked, profile, provenance, &tell)).await;
    let imported = filled.map_err(|_| PortableError::Panicked)??;
    tenants.resume(permit(), Origin::default(), None, tenant).await?;
    Ok(imported)
}

/// The tenant's entry in the directory.
fn admission(profile: &Profile, provenance: &Provenance) -> AdmitTenant {
    let Provenance { manifest, signer } = provenance;
    AdmitTenant {
        row: DirectoryRow {
            id: manifest.tenant,
            slug: profile.slug.clone(),
            name: profile.name.clone(),
            plan: profile.plan.clone(),
            region: profile.region.clone(),
            standing: Standing::Suspended,
            created_ms: profile.created_ms,
            erasure: None,
        },
        origin: manifest.origin.clone(),
        signer: signer.clone(),
        content_hash: manifest.content_hash.to_string(),
    }
}

/// What the tenant gets here, if it can.
fn place(
    tenants: &Tenants,
    manifest: &BundleManifest,
    options: ImportOptions,
) -> Result<Place, PortableError> {
    let region = tenants.region().to_owned();
    if manifest.region != region && !options.region_change {
        let found = manifest.region.clone();
        return Err(PortableError::OtherRegion { found, here: region });
    }
    let slug = options.slug.unwrap_or_else(|| manifest.slug.clone());
    if let Err(error) = check_slug("/slug", &slug) {
        return Err(PortableError::BadSlug { slug, rule: error.message });
    }
    let plan = options.plan.unwrap_or_else(|| manifest.plan.clone());
    let plans = &tenants.shared().plans;
    if plans.get(&plan).is_none() {
        let known = plans.0.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(PortableError::NoPlan { plan, known });
    }
    Ok(Place { slug, plan, region })
}

/// Finds that there is room for the tenant. If an import of it was begun: where its audit log ended.
async fn vacancy(
    tenants: &Tenants,
    tenant: TenantId,
    slug: &str,
) -> Result<Option<AuditHead>, PortableError> {
    if tenants.by_slug(slug).is_some_and(|holder| holder != tenant) {
        return Err(PortableError::SlugTaken { slug: slug.to_owned() });
    }
    let store = tenants.store();
    let is_empty = store.log().tail(tenant).map_err(StoreError::from)?.lsn == 0;
    let Some(summary) = tenants.summary(tenant) else {
        let has_key = store.keystore().contains(tenant).map_err(StoreError::from)?;
        return if is_empty && !has_key {
            Ok(None)
        } else {
            Err(PortableError::WasHere { tenant })
        };
    };
    match summary.standing {
        Standing::Suspended => {}
        Standing::Active | Standing::Erasing => return Err(PortableError::AlreadyHere { tenant }),
        Standing::Erased => return Err(PortableError::WasHere { tenant }),
    }
    if *summary.slug != *slug {
        return Err(PortableError::SlugTaken { slug: slug.to_owned() });
    }
    if is_empty {
        return Ok(None);
    }
    let held = tenants.hold(tenant).await?;
    let opened = tokio::task::spawn_blocking(move || {
        let core = held.open(&mut |_, _| {})?;
        let state = core.state();
        let is_whole = state.profile.is_some();
        Ok::<_, TenantError>((is_whole, state.audit))
    });
    match opened.await.map_err(|_| PortableError::Panicked)?? {
        (true, _) => Err(PortableError::AlreadyHere { tenant }),
        (false, audit) => Ok(Some(audit)),
    }
}

/// Reads the bundle to its end. Gives it back with what is in it.
fn check<R: Read + Seek>(
    mut bundle: Bundle<R>,
    key: BundleKey,
    through: Option<AuditHead>,
    tell: &dyn Fn(Told<'_>),
) -> Result<Checked<R>, PortableError> {
    let payload = &bundle.claimed().payload;
    let (bytes, rows) = (payload.bytes, payload.rows);
    tell(Told::Step { name: "checking bytes", total: bytes });
    bundle.check_payload(&mut |done| tell(Told::At(done)))?;
    tell(Told::Step { name: "checking rows", total: rows });
    let tally = bundle.check_rows(&key, through, &mut |done| tell(Told::At(done)))?;
    if tally.state.restore.is_some() {
        return Err(PortableError::Contents("it is of the midst of a restore"));
    }
    let was = tally.state.profile.clone();
    let was = was.ok_or(PortableError::Contents("it has no profile"))?;
    Ok(Checked { bundle, key, tally, was })
}

/// Writes everything into the held tenant.
fn fill<R: Read + Seek>(
    held: &HeldTenant,
    checked: Checked<R>,
    profile: Arc<Profile>,
    provenance: Provenance,
    tell: &dyn Fn(Told<'_>),
) -> Result<Imported, PortableError> {
    let Checked { mut bundle, key, tally, .. } = checked;
    let mut core = held.open(&mut |_, _| {})?;
    if core.state().profile.is_some() {
        return Err(PortableError::AlreadyHere { tenant: held.tenant() });
    }
    tell(Told::Step { name: "writing rows", total: tally.rows });
    fill::clear(&mut core)?;
    let imported = Imported {
        tenant: provenance.manifest.tenant,
        slug: profile.slug.clone(),
        origin: provenance.manifest.origin.clone(),
        rows: tally.rows,
        entries: tally.audit.entries,
        content_hash: tally.content_hash,
    };
    let finish = Finish { profile, used: tally.used, owners: tally.owners, provenance };
    fill::write(&mut core, bundle.rows(&key)?, finish, &|done| tell(Told::At(done)))?;
    Ok(imported)
}
