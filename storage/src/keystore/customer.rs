//! Keys that customers hold.
//!
//! A tenant's data key may be wrapped twice: first by the customer's own source, then by the node. The
//! node alone cannot open it, and neither can the customer. The description of the customer's source
//! rests in the tenant's key file, in clear, and is authenticated by the node's layer. What the
//! customer wrapped is `customer's KEK id (8) · sealed`, bound to `BKCK` · version · KEK id · tenant.
//!
//! Refuses: to remember a customer's key. Each load asks; who does not answer withholds.

use std::sync::PoisonError;

use zeroize::Zeroizing;

use super::files::read_if_any;
use super::frame::{TENANT_MAGIC, encode_spec};
use super::source::{KekId, SourceError, SourceSpec, Versions};
use super::{KeyError, KeyStore, lock};
use crate::id::TenantId;

const MAGIC: &[u8; 4] = b"BKCK";
const VERSION: u8 = 1;
/// How often a change is begun anew because somebody else changed the file meanwhile.
const TRIES_MAX: u32 = 8;

fn aad(kek: KekId, tenant: TenantId) -> Vec<u8> {
    [&MAGIC[..], &[VERSION], &kek.0, tenant.to_string().as_bytes()].concat()
}

/// Wraps a data key with the version that the customer's source calls current, and makes sure that the
/// source opens it again.
fn wrap_inner(tenant: TenantId, spec: &SourceSpec, key: &[u8; 32]) -> Result<Vec<u8>, SourceError> {
    let Versions { current, .. } = spec.versions()?;
    let wrapped = current.wrap(&aad(current.id(), tenant), key)?;
    let inner = [&current.id().0[..], &wrapped].concat();
    let back = unwrap_with(tenant, &spec.versions()?, &inner)?;
    if back[..] != key[..] {
        return Err(SourceError::Refused { kek: current.id() });
    }
    Ok(inner)
}

fn unwrap_with(
    tenant: TenantId,
    versions: &Versions,
    inner: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let Some((kek, wrapped)) = inner.split_first_chunk::<8>() else {
        return Err(SourceError::Refused { kek: versions.current.id() });
    };
    let kek = KekId(*kek);
    let version = versions.find(kek).ok_or(SourceError::NotOffered { kek })?;
    version.unwrap(&aad(kek, tenant), wrapped)
}

/// Asks the customer's source to open what it wrapped.
pub(super) fn unwrap_inner(
    tenant: TenantId,
    spec: &SourceSpec,
    inner: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let opened = spec.versions().and_then(|versions| unwrap_with(tenant, &versions, inner));
    opened.map_err(|source| KeyError::Withheld { tenant, source })
}

impl KeyStore {
    /// Puts a tenant's data key under a key of the customer as well. From then on [`load`] needs the
    /// customer's source each time. If a customer holds the key already, this moves it to the new
    /// source, or to the newest version of the same one. The data key itself stays the same.
    ///
    /// [`load`]: KeyStore::load
    ///
    /// # Errors
    /// [`KeyError::Source`] if the new source does not wrap, or does not open what it wrapped;
    /// [`KeyError::Withheld`] if the holder of before does not give the key. Nothing has changed then.
    pub fn hold_by_customer(&self, tenant: TenantId, spec: &SourceSpec) -> Result<(), KeyError> {
        spec.check()?;
        let encoded = encode_spec(spec).ok_or_else(|| SourceError::BadSpec {
            reason: "the description of the source is over 65535 bytes".to_owned(),
        })?;
        self.change_holder(tenant, |key| {
            Ok((Some(encoded.clone()), Zeroizing::new(wrap_inner(tenant, spec, key)?)))
        })?;
        lock(&self.held).insert(tenant);
        Ok(())
    }

    /// Takes the customer's layer off again. Needs the customer's source once more.
    ///
    /// # Errors
    /// [`KeyError::NotHeld`] if there is no such layer; [`KeyError::Withheld`] if the source does not
    /// give the key.
    pub fn release_to_node(&self, tenant: TenantId) -> Result<(), KeyError> {
        if self.holder(tenant)?.is_none() {
            return Err(KeyError::NotHeld { tenant });
        }
        self.change_holder(tenant, |key| Ok((None, Zeroizing::new(key.to_vec()))))?;
        lock(&self.held).remove(&tenant);
        Ok(())
    }

    /// Where the customer's key is, if a customer holds the key of this tenant. Asks nobody.
    pub fn holder(&self, tenant: TenantId) -> Result<Option<SourceSpec>, KeyError> {
        let opened = self.read_tenant(tenant)?.ok_or(KeyError::Missing { tenant })?;
        Ok(opened.spec)
    }

    /// Whether the tenant's key is withheld at this moment. Asks the customer's source if there is one,
    /// so it may take as long as that source's timeout; else it is one small read. What else may be
    /// wrong with a key is [`load`](KeyStore::load)'s to say.
    pub fn is_withheld(&self, tenant: TenantId) -> bool {
        matches!(self.load(tenant), Err(KeyError::Withheld { .. }))
    }

    /// The tenants whose keys customers hold, of those that this process has met: every awake tenant
    /// is one. Looks at no file.
    pub fn customer_held(&self) -> Vec<TenantId> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().copied().collect()
    }

    /// Rewrites a tenant's file with what `wrap` makes of the data key. Sources are asked before the
    /// lock is taken: a slow one holds up nobody else.
    fn change_holder(
        &self,
        tenant: TenantId,
        wrap: impl Fn(&[u8; 32]) -> Result<(Option<Vec<u8>>, Zeroizing<Vec<u8>>), KeyError>,
    ) -> Result<(), KeyError> {
        let path = self.tenant_path(tenant);
        for _ in 0..TRIES_MAX {
            let before = read_if_any(&*self.disk, &path)?.ok_or(KeyError::Missing { tenant })?;
            let key = self.load(tenant)?;
            let (spec, plain) = wrap(key.as_bytes())?;
            let _changing = lock(&self.changing);
            let now = read_if_any(&*self.disk, &path)?.ok_or(KeyError::Missing { tenant })?;
            if now == before {
                let name = tenant.to_string();
                return self.write(&path, TENANT_MAGIC, &name, spec.as_deref(), &plain);
            }
        }
        Err(KeyError::Rotating)
    }
}
