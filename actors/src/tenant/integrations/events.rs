//! Deliveries: verified, found to be new, and stored, in one record.
//!
//! The marker that finds a repetition is written with the event, so an event is stored once however
//! often and however concurrently its sender tries. A delivery whose signature is wrong changes
//! nothing at all here; the inbox counts it. Refuses: to change or delete an event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::value::RawValue;
use storage::id::{EventId, Id, IntegrationId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::audit::entry::Named;
use crate::call::{Document, Page, Paging};
use crate::env::rfc3339;
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Query, ReadCx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::integrations::{IntegrationRow, json, read_cursor, write_cursor};
use crate::webhook::inbox::{DeliveryEnded, InboxHandle, Outcome};
use crate::webhook::scheme::{self, Headers, Secret, Source};

/// The label of the digest that finds repetitions.
const EVENT_LABEL: &str = "webhook.event";
/// Rows a list reads at a time: a row may hold a whole body.
const ROWS_AT_ONCE: usize = 16;
/// Bytes of rows after which a page ends early, with a cursor.
const PAGE_ROW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A received event, as lists show it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventView {
    /// Which one.
    #[schemars(with = "String")]
    pub id: EventId,
    /// What its sender calls it.
    pub provider_event_id: String,
    /// What kind of event its sender says it is.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Stripe Connect's connected account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// When it was received.
    pub received_at: String,
    /// The size of its payload.
    pub payload_bytes: usize,
}

/// A received event with its payload.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventWithPayload<'a> {
    /// The event.
    #[serde(flatten)]
    pub event: EventView,
    /// The payload, if it is JSON: byte for byte as it was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub payload: Option<&'a RawValue>,
    /// The payload in base64, if it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// The stored row.
#[derive(Debug, Serialize, Deserialize)]
struct EventRow {
    id: EventId,
    provider_event_id: String,
    event_type: String,
    account: Option<String>,
    received_ms: u64,
    body: ByteBuf,
}

impl EventRow {
    fn key(integration: IntegrationId, id: EventId) -> Key {
        Key::Event { integration, id }
    }

    fn view(&self) -> EventView {
        EventView {
            id: self.id,
            provider_event_id: self.provider_event_id.clone(),
            event_type: self.event_type.clone(),
            account: self.account.clone(),
            received_at: rfc3339(self.received_ms),
            payload_bytes: self.body.len(),
        }
    }

    fn document(&self) -> Document {
        // Verbatim, except that blanks around a JSON text are not part of it.
        let payload: Option<&RawValue> = serde_json::from_slice(&self.body).ok();
        let payload_base64 = payload.is_none().then(|| BASE64_STANDARD.encode(&self.body));
        let shown = EventWithPayload { event: self.view(), payload, payload_base64 };
        Document { version: 1, json: json(&shown) }
    }
}

/// What finds a repetition of an event, made of the event's own row.
pub(crate) fn marker(
    cx: &impl Reads,
    integration: IntegrationId,
    bytes: &[u8],
) -> Result<(Key, EventId), TenantError> {
    let row: EventRow = value::decode(bytes)?;
    let digest = cx.digest(EVENT_LABEL, row.provider_event_id.as_bytes());
    Ok((Key::ProviderEvent { integration, digest }, row.id))
}

/// Receives one delivery.
pub struct ReceiveWebhook {
    /// For which integration.
    pub integration: IntegrationId,
    /// The headers that signatures live in.
    pub headers: Headers,
    /// The body as it came over the wire.
    pub body: Vec<u8>,
    /// Is told of deliveries that are not believed.
    pub inbox: InboxHandle,
}

/// A delivery that is stored, now or before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// As which event.
    pub event: EventId,
    /// With which scheme it was signed.
    pub source: Source,
    /// Whether it had been received before.
    pub duplicate: bool,
    /// What the sender wants to hear, if it asked.
    pub challenge: Option<String>,
}

impl Command for ReceiveWebhook {
    type Action = permit::ReceiveWebhook;
    type Reply = Received;
    const NAME: &'static str = "webhook.receive";
    /// The event may be the payment that ends the trial.
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("integration", self.integration)
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<Received, TenantError> {
        let row: IntegrationRow = cx.need(&IntegrationRow::key(self.integration))?;
        if !row.enabled {
            return Err(TenantError::NotFound);
        }
        let now_ms = cx.now_ms();
        let active = row.secrets.iter().filter(|secret| secret.is_active(now_ms));
        let secrets: Vec<Secret> = active.map(|secret| secret.secret.clone()).collect();
        let verified = scheme::verify(row.source, &self.headers, &self.body, &secrets, now_ms)
            .map_err(|reason| {
                self.inbox.tell(DeliveryEnded {
                    integration: Some((cx.tenant(), row.id)),
                    source: Some(row.source),
                    outcome: Outcome::Refused(reason),
                });
                TenantError::BadSignature
            })?;
        let digest = cx.digest(EVENT_LABEL, verified.provider_event_id.as_bytes());
        let marker = Key::ProviderEvent { integration: row.id, digest };
        let (source, challenge) = (row.source, verified.challenge);
        if let Some(event) = cx.row(&marker)? {
            return Ok(Received { event, source, duplicate: true, challenge });
        }
        let event = EventRow {
            id: cx.new_id(),
            provider_event_id: verified.provider_event_id,
            event_type: verified.event_type,
            account: verified.account,
            received_ms: now_ms,
            body: ByteBuf::from(self.body),
        };
        cx.put(&EventRow::key(row.id, event.id), &event)?;
        cx.put(&marker, &event.id)?;
        Ok(Received { event: event.id, source, duplicate: false, challenge })
    }
}

/// Lists what an integration received, latest first.
#[derive(Debug)]
pub struct ListEvents {
    /// Whose.
    pub integration: IntegrationId,
    /// Which part.
    pub paging: Paging,
}

impl Query for ListEvents {
    type Action = permit::ReadIntegrations;
    type Reply = Page;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Page, TenantError> {
        let _exists: IntegrationRow = cx.need(&IntegrationRow::key(self.integration))?;
        let cursor = self.paging.cursor.as_deref().map(read_cursor::<EventId>).transpose()?;
        let wanted = self.paging.limit.clamp(1, limits::PAGE_MAX);
        let mut after = cursor.map(|id| EventRow::key(self.integration, id));
        let prefix = Prefix::owner(&EventRow::key(self.integration, EventId::from_bytes([0; 16])));
        let (mut page, mut bytes_read) = (Page::default(), 0);
        loop {
            let limit = ROWS_AT_ONCE.min(wanted + 1 - page.items.len());
            let scan = Scan { prefix: prefix.clone(), after, reverse: true, limit };
            let rows = cx.rows(&scan)?;
            for (_, bytes) in &rows {
                // Another row behind a full page is how the next page is known to exist.
                if page.items.len() == wanted || bytes_read > PAGE_ROW_BYTES_MAX {
                    return Ok(page);
                }
                bytes_read += bytes.len();
                let row: EventRow = value::decode(bytes)?;
                page.next = Some(write_cursor(row.id));
                page.items.push(json(&row.view()));
            }
            if rows.len() < limit {
                page.next = None;
                return Ok(page);
            }
            after = rows.into_iter().next_back().map(|(key, _)| key);
        }
    }
}

/// Reads one event with its payload.
#[derive(Debug)]
pub struct ReadEvent {
    /// Whose.
    pub integration: IntegrationId,
    /// Which one.
    pub event: EventId,
}

impl Query for ReadEvent {
    type Action = permit::ReadIntegrations;
    type Reply = Document;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Document, TenantError> {
        let row: EventRow = cx.need(&EventRow::key(self.integration, self.event))?;
        Ok(row.document())
    }
}
