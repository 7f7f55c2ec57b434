//! Keys that customers hold, as operators give them and take them back. A customer's key itself never
//! passes here: only where it is.
//!
//! Refuses: a source that does not open at once what it wrapped, and to change the key of a tenant that is
//! being erased.

use std::path::PathBuf;

use actors::call::Origin;
use actors::key_watch::RecordKey;
use actors::permit::Operate;
use actors::tenant::directory::Standing;
use serde::{Deserialize, Serialize};
use storage::id::TenantId;
use storage::keystore::KeyError;
use storage::keystore::source::SourceSpec;

use super::{ControlError, ControlReply, by_the_operator, error_chain, find};
use crate::http::app::App;

/// What is to become of a tenant's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeyOrder {
    /// A customer's source holds it from now on; or another, or its newest version.
    Hold {
        /// The tenant's id or short name.
        tenant: String,
        /// Where the customer's key is.
        source: SourceSpec,
    },
    /// The node holds it alone again.
    Release {
        /// The tenant's id or short name.
        tenant: String,
    },
}

/// Who holds a tenant's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderReport {
    /// The tenant.
    pub tenant: TenantId,
    /// Its short name.
    pub slug: String,
    /// `node`, or the kind of the customer's source: `file`, `directory`, `exec` or `pkcs11`.
    pub holder: String,
}

/// Carries it out, and writes it to the platform's audit log and to the tenant's own.
pub(super) async fn execute(app: &App, order: KeyOrder) -> Result<ControlReply, ControlError> {
    let (text, source) = match order {
        KeyOrder::Hold { tenant, source } => (tenant, Some(source)),
        KeyOrder::Release { tenant } => (tenant, None),
    };
    let tenant = find(&app.tenants, &text)?;
    let summary = app.tenants.summary(tenant).ok_or(ControlError::NoTenant { tenant: text })?;
    if !matches!(summary.standing, Standing::Active | Standing::Suspended) {
        let message = "the tenant is being erased: its key is not changed any more".to_owned();
        return Err(ControlError::Refused { message });
    }
    let holder = source.as_ref().map_or("node", SourceSpec::kind);
    let event = if source.is_some() { "key.hold" } else { "key.release" };
    let keystore = app.store.keystore().clone();
    let changed = tokio::task::spawn_blocking(move || match source {
        Some(source) => keystore.hold_by_customer(tenant, &source),
        None => keystore.release_to_node(tenant),
    });
    let changed = changed.await.map_err(|error| refused(error.to_string()))?;
    changed.map_err(|error| match error {
        // Its own words would call it the node's key.
        KeyError::Source(error) => refused(error_chain(&error)),
        error => refused(error_chain(&error)),
    })?;
    for log in [TenantId::PLATFORM, tenant] {
        let details = vec![("holder", holder.to_owned())];
        let record = RecordKey { event, tenant, details };
        let door = app.tenants.find_any(log).await?;
        let permit = by_the_operator::<Operate>(log);
        door.command(permit, Origin::default(), None, record).await?;
    }
    let slug = summary.slug.to_string();
    Ok(ControlReply::KeyHolder(HolderReport { tenant, slug, holder: holder.to_owned() }))
}

fn refused(message: String) -> ControlError {
    ControlError::Refused { message }
}

/// Reads the description of a source: `file:/PATH`, `directory:/PATH`, `exec:/PROGRAM ARGUMENT…` (split at
/// spaces; a JSON array where an argument has some), or a PKCS#11 URI (RFC 7512) with `token`, `object`,
/// `module-path` and `pin-source`.
///
/// # Errors
/// What is wrong, for people.
pub fn parse_source(text: &str) -> Result<SourceSpec, String> {
    let (kind, rest) = text.split_once(':').ok_or_else(unknown_source)?;
    let spec = match kind {
        "file" => SourceSpec::File { path: rest.into() },
        "directory" => SourceSpec::Directory { path: rest.into() },
        "exec" if rest.starts_with('[') => {
            let argv = serde_json::from_str(rest);
            SourceSpec::Exec { argv: argv.map_err(|error| format!("exec: {error}"))? }
        }
        "exec" => SourceSpec::Exec { argv: rest.split_whitespace().map(str::to_owned).collect() },
        "pkcs11" => parse_token(rest)?,
        _ => return Err(unknown_source()),
    };
    spec.check().map_err(|error| error.to_string())?;
    Ok(spec)
}

fn unknown_source() -> String {
    "a source is file:/PATH, directory:/PATH, exec:/PROGRAM or pkcs11:token=…;object=…?module-path=…&\
     pin-source=…"
        .to_owned()
}

fn parse_token(text: &str) -> Result<SourceSpec, String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let mut found = std::collections::BTreeMap::new();
    for attribute in path.split(';').chain(query.split('&')).filter(|it| !it.is_empty()) {
        let (name, value) = attribute
            .split_once('=')
            .ok_or_else(|| format!("pkcs11: {attribute:?} has no value"))?;
        let value = unescape(value).ok_or_else(|| format!("pkcs11: {name} is not UTF-8 text"))?;
        if found.insert(name, value).is_some() {
            return Err(format!("pkcs11: {name} is given twice"));
        }
    }
    let mut take =
        |name: &str| found.remove(name).ok_or_else(|| format!("pkcs11: {name} is missing"));
    let pin_file = take("pin-source")?;
    let spec = SourceSpec::Pkcs11 {
        module: take("module-path")?.into(),
        token: take("token")?,
        pin_file: PathBuf::from(pin_file.strip_prefix("file:").unwrap_or(&pin_file)),
        key: take("object")?,
    };
    match found.keys().next() {
        Some(name) => Err(format!("pkcs11: {name} is not known")),
        None => Ok(spec),
    }
}

/// Undoes percent-encoding (RFC 3986 §2.1).
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).ok()?;
        bytes.push(byte[0]);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_source_can_be_written_in_one_word() {
        let exec = |words: &[&str]| SourceSpec::Exec {
            argv: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        for (text, spec) in [
            ("file:/a b", SourceSpec::File { path: "/a b".into() }),
            ("directory:/a", SourceSpec::Directory { path: "/a".into() }),
            ("exec:/bin/kek --once", exec(&["/bin/kek", "--once"])),
            (r#"exec:["/bin/sh","-c","cat /k"]"#, exec(&["/bin/sh", "-c", "cat /k"])),
        ] {
            assert_eq!(parse_source(text).as_ref(), Ok(&spec), "{text}");
        }
        let uri = "pkcs11:token=My%20HSM;object=kek?module-path=/m.so&pin-source=file:/pin";
        let token = SourceSpec::Pkcs11 {
            module: "/m.so".into(),
            token: "My HSM".to_owned(),
            pin_file: "/pin".into(),
            key: "kek".to_owned(),
        };
        assert_eq!(parse_source(uri), Ok(token));
    }

    #[test]
    fn what_is_no_source_is_named() {
        for (text, hint) in [
            ("vault", "a source is"),
            ("vault:/x", "a source is"),
            ("file:relative", "absolute"),
            ("exec:", "no program"),
            ("exec:[1]", "exec:"),
            ("pkcs11:token=a;object=b?module-path=/m.so", "pin-source is missing"),
            ("pkcs11:token=a;token=b", "token is given twice"),
            ("pkcs11:token=a;object=b?module-path=/m&pin-source=/p&pin-value=1", "pin-value"),
            ("pkcs11:token=%zz", "token is not"),
        ] {
            let error = parse_source(text).expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
