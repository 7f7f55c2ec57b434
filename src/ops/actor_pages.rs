//! Who acts on this node and how they are: as data, and as a page for people.

use actors::env::rfc3339;
use actors::quota::keeper::KeeperHandle;
use actors::supervisor::ActorHealth;
use maud::{DOCTYPE, Markup, html};
use serde::Serialize;
use serde_json::{Value, json};
use storage::id::TenantId;

use super::measure::state_name;
use crate::http::app::App;
use crate::http::docs;

/// Everyone who acts.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The actors beside the tenants.
    supervisors: Vec<Supervisor>,
    /// One line a tenant, the platform's own compartment first.
    tenants: Vec<Line>,
}

/// An actor beside the tenants.
#[derive(Debug, Serialize)]
struct Supervisor {
    name: &'static str,
    owns: &'static str,
    counters: Value,
}

/// A tenant's actor.
#[derive(Debug, Serialize)]
pub struct Line {
    slug: String,
    #[serde(flatten)]
    health: ActorHealth,
    /// RFC 3339; absent if nothing was committed since the start.
    last_commit_at: Option<String>,
}

/// One tenant's line, if there is such a tenant.
pub fn line(app: &App, tenant: TenantId) -> Option<Line> {
    app.tenants.health_of(tenant).map(|health| line_of(app, health))
}

fn line_of(app: &App, health: ActorHealth) -> Line {
    let slug = app.tenants.summary(health.tenant);
    Line {
        slug: slug.map_or_else(|| "platform".to_owned(), |summary| summary.slug.to_string()),
        last_commit_at: (health.last_commit_ms > 0).then(|| rfc3339(health.last_commit_ms)),
        health,
    }
}

/// Looks at everyone.
pub async fn report(app: &App, keeper: &KeeperHandle) -> Report {
    let health = app.tenants.health();
    let awake = health.iter().filter(|one| state_name(one.state) == "awake").count();
    let tenants = json!({ "tenants": health.len(), "awake": awake });
    let usage = keeper.usage();
    let quotas = json!({
        "tenants": usage.tenants,
        "near_limit": usage.near_count,
        "at_limit": usage.full_count,
        "trials_ending": usage.trials.len(),
    });
    let rates = app.limits.usage();
    let rates = json!({
        "policies": rates.len(),
        "refused": rates.iter().map(|one| one.refused).sum::<u64>(),
        "keys": rates.iter().map(|one| one.keys).sum::<usize>(),
    });
    let stats = app.anchor.stats();
    let anchor = json!({
        "checkpoints": stats.checkpoints,
        "age_ms": stats.age_ms,
        "waiting": stats.waiting,
        "failures": stats.failures,
        "suspects": stats.suspects,
    });
    let inbox = app.inbox.report().await;
    let inbox = inbox.map_or(Value::Null, |report| json!(report));
    let mut supervisors = vec![
        Supervisor { name: "Supervisor", owns: "the life of every tenant", counters: tenants },
        Supervisor { name: "RateLimiter", owns: "how fast anybody may ask", counters: rates },
        Supervisor {
            name: "QuotaKeeper",
            owns: "what all tenants use of their plans",
            counters: quotas,
        },
        Supervisor {
            name: "AuditAnchor",
            owns: "signed checkpoints over all histories",
            counters: anchor,
        },
    ];
    supervisors.extend(keepers(app));
    supervisors.push(Supervisor {
        name: "WebhookInbox",
        owns: "the admission of webhook deliveries",
        counters: inbox,
    });
    let mail = app.postman.as_ref().map(|postman| postman.stats()).unwrap_or_default();
    supervisors.push(Supervisor {
        name: "Postman",
        owns: "the way of mails from the tenants' outboxes",
        counters: json!({
            "sent": mail.sent,
            "deferred": mail.deferred,
            "failed": mail.failed,
            "tenants_waiting": mail.waiting,
        }),
    });
    let tenants = health.into_iter().map(|health| line_of(app, health)).collect();
    Report { supervisors, tenants }
}

/// Those who keep what tenants had, and the keys to it.
fn keepers(app: &App) -> [Supervisor; 3] {
    let archive = app.archivist.stats();
    let archive = json!({
        "archived": archive.archived,
        "waiting": archive.waiting,
        "snapshots": archive.snapshots,
        "let_go": archive.let_go,
        "failures": archive.failures,
        "failing": archive.failing,
    });
    let audit = app.audit_archiver.stats();
    let audit = json!({ "entries": audit.entries, "failing": audit.failing });
    let watch = app.key_watch.stats();
    let watch = json!({ "sealed": watch.sealed, "pulled": watch.pulled, "late": watch.late });
    let history = "the way of history from the log to the archive";
    let entries = "the way of old audit entries from the views to the archive";
    let keys = "which customers withhold their tenants' keys";
    [
        Supervisor { name: "Archivist", owns: history, counters: archive },
        Supervisor { name: "AuditArchiver", owns: entries, counters: audit },
        Supervisor { name: "KeyWatch", owns: keys, counters: watch },
    ]
}

fn frame(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Bulkhead" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" type="image/svg+xml" href=(docs::ICON_PATH);
            }
            body {
                nav { a href="/actors" { "actors" } a href="/metrics" { "metrics" } a href="/readyz" { "readiness" } }
                h1 { (title) }
                (body)
            }
        }
    }
}

/// The page of all actors.
pub fn overview(report: &Report, now_ms: u64) -> Markup {
    frame(
        "Actors",
        html! {
            h2 { "Beside the tenants" }
            div.scroll tabindex="0" { table {
                tr { th { "Actor" } th { "Owns" } th { "Counters" } }
                @for one in &report.supervisors {
                    tr { td { (one.name) } td { (one.owns) } td { (counters(&one.counters)) } }
                }
            } }
            h2 { "Tenants (" (report.tenants.len()) ")" }
            div.scroll tabindex="0" { table {
                tr {
                    th { "Tenant" } th { "State" }
                    th.number { "In flight" } th.number { "Queue" } th.number { "LSN" } th.number { "View LSN" }
                    th { "Last commit" } th.number { "Restarts" } th.number { "Resident" } th { "Last fault" }
                }
                @for line in &report.tenants {
                    @let health = &line.health;
                    tr {
                        td { a href={ "/actors/" (health.tenant) } { (line.slug) } }
                        td class=(state_name(health.state)) { (state_name(health.state)) }
                        td.number { (health.in_flight) }
                        td.number { (health.queue) }
                        td.number { (health.lsn) }
                        td.number { (health.view_lsn) }
                        td { (ago(health.last_commit_ms, now_ms)) }
                        td.number { (health.restarts) }
                        td.number { (kilobytes(health.resident_bytes)) }
                        td { (health.last_fault.as_deref().unwrap_or("")) }
                    }
                }
            } }
        },
    )
}

/// The page of one tenant's actor.
pub fn one(line: &Line, now_ms: u64) -> Markup {
    let health = &line.health;
    let rows: [(&str, String); 11] = [
        ("Id", health.tenant.to_string()),
        ("State", state_name(health.state).to_owned()),
        ("Jobs in flight", health.in_flight.to_string()),
        ("Commands queued", health.queue.to_string()),
        ("Last durable record (LSN)", health.lsn.to_string()),
        ("Last record in the view (LSN)", health.view_lsn.to_string()),
        ("Last commit", ago(health.last_commit_ms, now_ms)),
        ("Restarts by a panic", health.restarts.to_string()),
        ("Times woken", health.wakes.to_string()),
        ("Last fault", health.last_fault.clone().unwrap_or_else(|| "none".to_owned())),
        ("Resident memory, roughly", kilobytes(health.resident_bytes)),
    ];
    frame(
        &line.slug,
        html! {
            table.facts { @for (name, value) in &rows { tr { th { (name) } td { (value) } } } }
        },
    )
}

fn counters(value: &Value) -> Markup {
    let Some(fields) = value.as_object() else { return html! { "not answering" } };
    html! {
        @for (name, value) in fields {
            @if let Some(items) = value.as_array() {
                div { (name) ": " (items.len()) }
            } @else {
                div { (name) ": " (value) }
            }
        }
    }
}

fn kilobytes(bytes: usize) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

fn ago(at_ms: u64, now_ms: u64) -> String {
    if at_ms == 0 {
        return "not since the start".to_owned();
    }
    match now_ms.saturating_sub(at_ms) / 1000 {
        s @ 0..120 => format!("{s} s ago"),
        s @ 120..7200 => format!("{} min ago", s / 60),
        s => format!("{} h ago", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_unit_people_would_use() {
        assert_eq!(ago(0, 5), "not since the start");
        assert_eq!(ago(1_000, 6_000), "5 s ago");
        assert_eq!(ago(1, 600_000), "9 min ago");
    }
}
