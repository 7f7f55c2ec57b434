//! The key-encryption key, as operators see and change it. Shows ids, names and ages; no key ever
//! leaves the store.

use actors::call::Origin;
use actors::env::rfc3339;
use actors::tenant::directory::by_the_node;
use actors::tenant::platform::{RecordRotation, RecordRotationBegun};
use serde::{Deserialize, Serialize};
use storage::id::TenantId;
use storage::keystore::rotate::{KekStatus, Rewrapped};
use storage::keystore::source::KekId;
use storage::keystore::{KeyError, KeyStore};

use super::{ControlError, ControlReply, REASON, error_chain};
use crate::http::app::App;

/// How many failures a reply and the log spell out.
const FAILURES_SHOWN_MAX: usize = 20;

/// One version of the key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KekLine {
    /// Its id.
    pub id: String,
    /// What its keeper calls it.
    pub name: String,
    /// Whether new keys are wrapped with it.
    pub current: bool,
    /// When it was made, or first met, RFC 3339 UTC; absent if nobody knows.
    pub created_at: Option<String>,
    /// How many keys and secrets are wrapped with it.
    pub wrapped: u64,
}

/// The versions of the key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysReport {
    /// `file`, `directory`, `exec` or `pkcs11`.
    pub source: String,
    /// The versions, the current one first.
    pub versions: Vec<KekLine>,
    /// How long the current version has been there, in seconds.
    pub age_s: u64,
    /// Files wrapped with none of these versions, or damaged.
    pub unreadable: u64,
    /// Tenants whose keys customers hold.
    pub held_by_customers: u64,
    /// `none`, `running`, `interrupted`, or `due`: the source calls another version current.
    pub rotation: String,
}

/// The public key of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKeyReport {
    /// The key as `--trust` takes it: `NAME+ID+KEY`.
    pub public_key: String,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationReport {
    /// `file`, `directory`, `exec` or `pkcs11`.
    pub source: String,
    /// The version that was current, or that keys were still wrapped with.
    pub previous: String,
    /// The version that is.
    pub current: String,
    /// How many keys and secrets were wrapped again.
    pub rewrapped: u64,
    /// How many there are.
    pub total: u64,
    /// How many could not be wrapped again.
    pub failed: u64,
    /// The first of those, with the reason.
    pub failures: Vec<String>,
    /// Versions that nothing needs any more.
    pub retired: Vec<String>,
    /// Those of them that the node kept itself, and has destroyed. The others are for the keeper of
    /// their source to destroy.
    pub destroyed: Vec<String>,
    /// Why the audit log does not have the end of this rotation. It has its begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_recorded: Option<String>,
}

fn refused(error: &KeyError) -> ControlError {
    ControlError::Refused { message: error_chain(error) }
}

/// Work on the key store blocks on the disk, and on the source.
async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&KeyStore) -> Result<T, KeyError> + Send + 'static,
) -> Result<T, ControlError> {
    let keystore = app.store.keystore().clone();
    let done = tokio::task::spawn_blocking(move || work(&keystore)).await;
    let done = done.map_err(|error| ControlError::Refused { message: error.to_string() })?;
    done.map_err(|error| refused(&error))
}

/// Shows the versions.
pub(super) async fn status(app: &App) -> Result<ControlReply, ControlError> {
    let now_ms = app.env.now_ms();
    let report = blocking(app, move |keystore| {
        Ok(report(&keystore.kek_status()?, keystore.kek_age_seconds(now_ms)))
    });
    report.await.map(ControlReply::Keys)
}

/// Shows the key that checks what this node signs: checkpoints, backups, bundles, receipts.
pub(super) fn public(app: &App) -> ControlReply {
    ControlReply::PublicKey(PublicKeyReport { public_key: app.anchor.verifier().to_text() })
}

fn report(status: &KekStatus, age_s: u64) -> KeysReport {
    let line = |version: &storage::keystore::rotate::KekVersion| KekLine {
        id: version.id.to_string(),
        name: version.name.clone(),
        current: version.is_current,
        created_at: version.created_ms.map(rfc3339),
        wrapped: version.files,
    };
    let rotation = match (status.is_rotating, status.is_interrupted, status.is_due()) {
        (true, ..) => "running",
        (false, true, _) => "interrupted",
        (false, false, true) => "due",
        (false, false, false) => "none",
    };
    KeysReport {
        source: status.source.to_owned(),
        versions: status.versions.iter().map(line).collect(),
        age_s,
        unreadable: status.unreadable,
        held_by_customers: status.held_by_customers,
        rotation: rotation.to_owned(),
    }
}

/// Rotates, wraps everything again, and writes begin and end to the platform's audit log. Tenants
/// notice nothing. On a full disk the begin cannot be written, and then nothing is changed.
pub(super) async fn rotate(app: &App, resume: bool) -> Result<ControlReply, ControlError> {
    let now_ms = app.env.now_ms();
    let platform = app.tenants.find(TenantId::PLATFORM).await?;
    let previous = app.store.keystore().kek_id().to_string();
    let begun = RecordRotationBegun { previous, resume };
    platform.command(by_the_node(REASON), Origin::default(), None, begun).await.map_err(
        |error| match ControlError::from(error) {
            ControlError::Refused { message } => {
                ControlError::refused(format!("{message}; no key was changed"))
            }
            other => other,
        },
    )?;
    let mut report = blocking(app, move |keystore| {
        let current = || keystore.kek_id().to_string();
        let (previous, current) = match resume {
            true => (current(), current()),
            false => {
                let rotation = keystore.rotate(now_ms)?;
                (rotation.previous.to_string(), rotation.current.to_string())
            }
        };
        let outcome = keystore.rewrap_all(&mut told())?;
        Ok(summary(keystore.source_kind(), previous, current, &outcome))
    })
    .await?;
    for failure in &report.failures {
        tracing::error!(failure, "a key could not be wrapped again");
    }
    let record = RecordRotation {
        previous: report.previous.clone(),
        current: report.current.clone(),
        rewrapped: report.rewrapped,
        failed: report.failed,
        retired: report.retired.len() as u64,
    };
    // What is done is done: whoever asked must learn of it, also where its end cannot be written.
    if let Err(error) = platform.command(by_the_node(REASON), Origin::default(), None, record).await
    {
        let why = error_chain(&error);
        tracing::error!(error = why, "the audit log does not have the end of a key rotation");
        report.not_recorded = Some(why);
    }
    Ok(ControlReply::Rotated(report))
}

fn summary(
    source: &str,
    mut previous: String,
    current: String,
    outcome: &Rewrapped,
) -> RotationReport {
    let failures = outcome.failed.iter().take(FAILURES_SHOWN_MAX);
    let texts = |ids: &[KekId]| ids.iter().map(ToString::to_string).collect();
    // The rotation that is resumed, or the node's start with another source, changed what is current.
    if previous == current
        && let Some(from) = outcome.from.first()
    {
        previous = from.to_string();
    }
    RotationReport {
        source: source.to_owned(),
        previous,
        current,
        rewrapped: outcome.rewrapped,
        total: outcome.total,
        failed: outcome.failed.len() as u64,
        failures: failures.map(|(_, error)| error_chain(error)).collect(),
        retired: texts(&outcome.retired),
        destroyed: texts(&outcome.destroyed),
        not_recorded: None,
    }
}

/// Tells the log how far a rotation is, a tenth at a time.
fn told() -> impl FnMut(u64, u64) {
    let mut tenths = 0;
    move |done, total| {
        let now = (done * 10).checked_div(total).unwrap_or(10);
        if now > tenths {
            tenths = now;
            tracing::info!(done, total, "keys are wrapped again");
        }
    }
}

/// How long a number of seconds is, for people.
pub fn age(age_s: u64) -> String {
    match age_s {
        0..120 => format!("{age_s} s"),
        120..7200 => format!("{} min", age_s / 60),
        7200..172_800 => format!("{} h", age_s / 3600),
        _ => format!("{} days", age_s / 86_400),
    }
}
