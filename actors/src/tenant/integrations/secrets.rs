//! Rotation: a new secret beside the old ones, and the end of those.
//!
//! A sender is moved without losing a delivery: add the new secret here, give it to the sender, let
//! the old one run out. Refuses: to show a secret that was not made in the same request.

use schemars::JsonSchema;
use serde::Deserialize;
use storage::id::{IntegrationId, SecretId};

use crate::audit::entry::{Draft, Named};
use crate::call::Document;
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::integrations::{IntegrationRow, SecretRow};
use crate::webhook::scheme::Secret;

/// The longest that older secrets can be kept at a rotation: 30 days.
pub const EXPIRE_AFTER_S_MAX: u32 = 30 * 86_400;

/// A new secret for an integration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// The secret, if the sender already has it; otherwise one is generated and shown once.
    pub secret: Option<Secret>,
    /// Seconds until the older secrets stop verifying, at most 30 days; 0: now. Absent: they stay.
    pub expire_others_after_s: Option<u32>,
}

/// Adds a secret, and lets the older ones run out if asked to.
#[derive(Debug)]
pub struct RotateSecret {
    /// Whose.
    pub integration: IntegrationId,
    /// The new one.
    pub new: NewSecret,
}

impl Command for RotateSecret {
    type Action = permit::WriteIntegrations;
    type Reply = (SecretId, Document);
    const NAME: &'static str = "integration.secret_rotate";

    fn target(&self) -> Named {
        Named::new("integration", self.integration)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(SecretId, Document), TenantError> {
        let mut row: IntegrationRow = cx.need(&IntegrationRow::key(self.integration))?;
        let NewSecret { secret: given, expire_others_after_s } = self.new;
        let given_error = given.as_ref().and_then(|secret| row.source.check_secret(secret).err());
        if let Some(message) = given_error {
            return Err(TenantError::invalid("/secret", message));
        }
        if expire_others_after_s.is_some_and(|seconds| seconds > EXPIRE_AFTER_S_MAX) {
            let message = format!("must be at most {EXPIRE_AFTER_S_MAX}");
            return Err(TenantError::invalid("/expire_others_after_s", message));
        }
        let now_ms = cx.now_ms();
        if let Some(seconds) = expire_others_after_s {
            let end_ms = now_ms.saturating_add(u64::from(seconds) * 1_000);
            for old in &mut row.secrets {
                old.expires_ms = Some(old.expires_ms.map_or(end_ms, |known| known.min(end_ms)));
            }
        }
        row.secrets.retain(|old| old.is_active(now_ms));
        if row.secrets.len() >= limits::SECRETS_MAX {
            return Err(TenantError::Conflict(Conflict::TooManySecrets));
        }
        if given.as_ref().is_some_and(|new| row.secrets.iter().any(|old| old.secret == *new)) {
            return Err(TenantError::invalid("/secret", "is active already"));
        }
        let generated = given.is_none().then(|| row.source.generate_secret(&cx.random()));
        let secret = generated.clone().or(given).expect("it was given or generated");
        let added = SecretRow::new(cx, secret);
        let mut draft = Draft::success(Self::NAME, row.named())
            .with("secret", added.id.to_string())
            .with("generated", generated.is_some());
        if let Some(seconds) = expire_others_after_s {
            draft = draft.with("expire_others_after_s", u64::from(seconds));
        }
        let id = added.id;
        row.secrets.push(added);
        let answer = row.save_with(cx, generated)?;
        cx.audit(draft);
        Ok((id, answer))
    }
}

/// Ends a secret at once. An integration without any refuses every delivery until it gets one.
#[derive(Debug)]
pub struct RemoveSecret {
    /// Whose.
    pub integration: IntegrationId,
    /// Which.
    pub secret: SecretId,
}

impl Command for RemoveSecret {
    type Action = permit::WriteIntegrations;
    type Reply = ();
    const NAME: &'static str = "integration.secret_remove";

    fn target(&self) -> Named {
        Named::new("integration", self.integration)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<(), TenantError> {
        let mut row: IntegrationRow = cx.need(&IntegrationRow::key(self.integration))?;
        let at = row.secrets.iter().position(|one| one.id == self.secret);
        row.secrets.remove(at.ok_or(TenantError::NotFound)?);
        row.save(cx)?;
        let draft = Draft::success(Self::NAME, row.named());
        cx.audit(draft.with("secret", self.secret.to_string()));
        Ok(())
    }
}
