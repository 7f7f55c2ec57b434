//! API keys at the edge: their tenant proves one, and says until when that need not be done again: to the
//! end of the day at most, so that each day of use can be noted.
//!
//! Refuses: to say why a key is not good. For a tenant that does not exist the platform does the same
//! work and finds nothing.

use actors::call::Origin;
use actors::permit::{Grant, Permit};
use actors::tenant::api_keys::commands::NoteApiKeyUse;
use actors::tenant::api_keys::queries::ProveApiKey;
use actors::tenant::api_keys::text::PresentedKey;
use actors::tenant::error::TenantError;
use actors::tenant::handle::TenantHandle;

use crate::http::app::App;
use crate::http::cookies::door_or_platform;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Has the tenant prove a key: as whom it asks, and until when to remember that. Nothing, whatever is
/// wrong with it.
///
/// # Errors
/// Those of a tenant that cannot answer now.
pub(crate) async fn prove(
    app: &App,
    presented: PresentedKey,
) -> Result<Option<(Grant, u64)>, TenantError> {
    let door = door_or_platform(app, presented.tenant).await?;
    let query = ProveApiKey { presented: presented.clone() };
    let proven = match door.query(Permit::anonymous(door.tenant()), query).await {
        Err(TenantError::NotFound) => None,
        proven => proven?,
    };
    let Some(proven) = proven else { return Ok(None) };
    let grant = Grant::of_service(door.tenant(), proven.principal);
    let until_ms = proven.expires_ms.min((app.env.now_ms() / DAY_MS + 1) * DAY_MS);
    if proven.is_first_of_day {
        actix_web::rt::spawn(note_use(door, presented));
    }
    Ok(Some((grant, until_ms)))
}

/// Has the day of use noted. Nobody waits for it: a tenant that cannot write now can still be read.
async fn note_use(door: TenantHandle, presented: PresentedKey) {
    let (permit, key) = (Permit::anonymous(door.tenant()), presented.id);
    let noted = door.command(permit, Origin::default(), None, NoteApiKeyUse { presented }).await;
    if let Err(error) = noted {
        tracing::debug!(api_key.id = %key, %error, "a day of use was not noted");
    }
}
