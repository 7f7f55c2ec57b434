//! The node's numbers, as metrics. Asks nobody but the webhook inbox, and that for a second at most.

use std::collections::BTreeMap;

use actors::quota::Quota;
use actors::quota::keeper::KeeperHandle;
use actors::supervisor::State;
use actors::webhook::inbox::InboxReport;
use storage::log::Health;

use super::exposition::{Exposition, Kind};
use super::process::ProcessUse;
use crate::http::app::App;

use Kind::{Counter, Gauge};

/// What there is to say before the node has started.
pub fn starting() -> String {
    let mut text = Exposition::default();
    text.value(Gauge, "bulkhead_ready", "Whether the node should get traffic.", false);
    process(&mut text);
    text.finish()
}

/// Everything.
pub async fn node(app: &App, keeper: &KeeperHandle, is_ready: bool) -> String {
    let mut text = Exposition::default();
    let version = [([("version", env!("CARGO_PKG_VERSION").to_owned())], true)];
    text.family(Gauge, "bulkhead_build_info", "The running version.", version);
    text.value(Gauge, "bulkhead_ready", "Whether the node should get traffic.", is_ready);
    storage(&mut text, app);
    archive(&mut text, app);
    mail(&mut text, app);
    secrets(&mut text, app);
    tenants(&mut text, app);
    rates(&mut text, app);
    if let Some(report) = app.inbox.report().await {
        webhooks(&mut text, &report);
    }
    anchor(&mut text, app);
    backups(&mut text, app);
    quotas(&mut text, keeper);
    process(&mut text);
    match app.metrics.text() {
        Ok(edge) => text.append(&edge),
        Err(error) => tracing::error!(%error, "the edge's metrics cannot be shown"),
    }
    text.finish()
}

fn storage(text: &mut Exposition, app: &App) {
    let stats = app.store.log().stats();
    let is_writable = app.store.health() == Health::Writable;
    text.value(
        Gauge,
        "bulkhead_log_writable",
        "Whether the log goes on after its last write.",
        is_writable,
    );
    let is_full = app.store.log().shortage().is_some();
    let help = "Whether writes are refused because the disk is down to its reserve.";
    text.value(Gauge, "bulkhead_storage_full", help, is_full);
    text.value(Counter, "bulkhead_log_records_total", "Records made durable.", stats.records);
    text.value(Counter, "bulkhead_log_bytes_total", "Bytes written to the log.", stats.bytes);
    text.value(
        Counter,
        "bulkhead_log_commits_total",
        "Group commits: one write and one sync each.",
        stats.groups,
    );
    text.value(Gauge, "bulkhead_log_segments", "Log segments on disk.", stats.segments);
    text.value(
        Gauge,
        "bulkhead_view_backlog_rows",
        "Durable rows that the view does not have yet.",
        app.store.backlog(),
    );
    text.value(Gauge, "bulkhead_view_bytes", "Bytes of the view on disk.", app.store.view_bytes());
}

fn archive(text: &mut Exposition, app: &App) {
    let stats = app.archivist.stats();
    let counters = [
        ("bulkhead_archive_segments_total", "Segments put into the archive.", stats.archived),
        ("bulkhead_archive_snapshots_total", "Snapshots put into the archive.", stats.snapshots),
        ("bulkhead_archive_let_go_total", "Archived segments removed from the log.", stats.let_go),
        ("bulkhead_archive_failures_total", "Rounds of archiving that failed.", stats.failures),
    ];
    for (name, help, value) in counters {
        text.value(Counter, name, help, value);
    }
    text.value(
        Gauge,
        "bulkhead_archive_segments_waiting",
        "Complete segments that are not in the archive.",
        stats.waiting,
    );
    let is_failing = stats.failing.is_some();
    text.value(
        Gauge,
        "bulkhead_archive_failing",
        "Whether the last round of archiving failed.",
        is_failing,
    );
    let audit = app.audit_archiver.stats();
    text.value(
        Counter,
        "bulkhead_archive_audit_entries_total",
        "Audit entries that left the view for the archive.",
        audit.entries,
    );
    let is_failing = audit.failing.is_some();
    text.value(
        Gauge,
        "bulkhead_archive_audit_failing",
        "Whether the archive did not take audit entries last time.",
        is_failing,
    );
    if let Some(at_ms) = stats.succeeded_ms {
        let at = std::time::Duration::from_millis(at_ms).as_secs_f64();
        let name = "bulkhead_archive_last_success_timestamp_seconds";
        text.value(Gauge, name, "When a round last succeeded.", at);
    }
}

fn mail(text: &mut Exposition, app: &App) {
    let stats = app.postman.as_ref().map(|postman| postman.stats()).unwrap_or_default();
    let counters = [
        ("bulkhead_mail_sent_total", "Mails that were taken.", stats.sent),
        ("bulkhead_mail_deferred_total", "Attempts to send that failed for now.", stats.deferred),
        ("bulkhead_mail_failed_total", "Mails that were given up.", stats.failed),
    ];
    for (name, help, value) in counters {
        text.value(Counter, name, help, value);
    }
    let help = "Tenants with mails that wait to be sent.";
    text.value(Gauge, "bulkhead_mail_tenants_waiting", help, stats.waiting);
}

fn secrets(text: &mut Exposition, app: &App) {
    let age_s = app.store.keystore().kek_age_seconds(app.env.now_ms());
    let ages = [([("secret", "kek".to_owned())], age_s)];
    text.family(Gauge, "secret_age_seconds", "Age of each secret's current version.", ages);
    let watch = app.key_watch.stats();
    text.value(
        Counter,
        "bulkhead_keys_pulled_total",
        "How often a customer's key was found withheld.",
        watch.pulled,
    );
    text.value(
        Counter,
        "bulkhead_key_answers_late_total",
        "How often a customer's source did not answer in time.",
        watch.late,
    );
}

fn tenants(text: &mut Exposition, app: &App) {
    let mut states = BTreeMap::new();
    let (mut in_flight, mut queue, mut restarts, mut resident) = (0, 0, 0, 0);
    for name in ["asleep", "waking", "awake", "stopping", "faulted", "held", "sealed"] {
        states.insert(name, 0_u64);
    }
    for health in app.tenants.health() {
        *states.entry(state_name(health.state)).or_default() += 1;
        in_flight += health.in_flight;
        queue += health.queue;
        restarts += health.restarts;
        resident += health.resident_bytes;
    }
    let states = states.into_iter().map(|(name, count)| ([("state", name.to_owned())], count));
    text.family(
        Gauge,
        "bulkhead_tenants",
        "Tenants by state, the platform's own included.",
        states,
    );
    text.value(
        Gauge,
        "bulkhead_tenant_jobs_in_flight",
        "Jobs under way in all tenants.",
        in_flight,
    );
    text.value(Gauge, "bulkhead_tenant_commands_queued", "Commands waiting for a record.", queue);
    text.value(
        Counter,
        "bulkhead_tenant_panics_total",
        "Panics, each contained in its tenant.",
        restarts,
    );
    text.value(
        Gauge,
        "bulkhead_tenant_resident_bytes",
        "Memory of awake tenants, roughly.",
        resident,
    );
}

/// A state's name, as `/actors` shows it too.
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Asleep => "asleep",
        State::Waking => "waking",
        State::Awake => "awake",
        State::Stopping => "stopping",
        State::Faulted => "faulted",
        State::Held => "held",
        State::Sealed => "sealed",
    }
}

fn rates(text: &mut Exposition, app: &App) {
    let usage = app.limits.usage();
    let labels =
        |class: &str, scope: &str| [("class", class.to_owned()), ("scope", scope.to_owned())];
    let refused = usage.iter().map(|one| (labels(one.class.name(), one.scope.name()), one.refused));
    text.family(Counter, "bulkhead_rate_refused_total", "Requests over a rate.", refused);
    let keys = usage.iter().map(|one| (labels(one.class.name(), one.scope.name()), one.keys));
    text.family(Gauge, "bulkhead_rate_keys", "Budgets that are not whole.", keys);
}

fn webhooks(text: &mut Exposition, report: &InboxReport) {
    let totals = report.totals.iter().map(|total| {
        let source = total.source.map_or("unknown", |source| source.name());
        ([("source", source.to_owned()), ("outcome", total.outcome.to_owned())], total.count)
    });
    text.family(
        Counter,
        "bulkhead_webhook_deliveries_total",
        "Webhook deliveries by outcome.",
        totals,
    );
    text.value(Gauge, "bulkhead_webhook_in_flight", "Deliveries under way.", report.in_flight);
    text.value(Counter, "bulkhead_webhook_uncounted_total", "Outcomes not counted.", report.lost);
}

fn anchor(text: &mut Exposition, app: &App) {
    let stats = app.anchor.stats();
    text.value(Gauge, "bulkhead_anchor_checkpoints", "Signed checkpoints.", stats.checkpoints);
    text.value(
        Gauge,
        "bulkhead_anchor_waiting",
        "Histories with ends not anchored yet.",
        stats.waiting,
    );
    text.value(
        Counter,
        "bulkhead_anchor_failures_total",
        "Checkpoints that failed.",
        stats.failures,
    );
    text.value(
        Gauge,
        "bulkhead_anchor_suspects",
        "Tenants whose log is not what was anchored.",
        stats.suspects.len(),
    );
    if let Some(age_ms) = stats.age_ms {
        let age = std::time::Duration::from_millis(age_ms).as_secs_f64();
        text.value(Gauge, "bulkhead_anchor_age_seconds", "Age of the newest checkpoint.", age);
    }
}

fn backups(text: &mut Exposition, app: &App) {
    let stats = app.backups.stats();
    let seconds = |ms: u64| std::time::Duration::from_millis(ms).as_secs_f64();
    if let Some(at_ms) = stats.succeeded_ms {
        text.value(
            Gauge,
            "bulkhead_backup_last_success_timestamp_seconds",
            "When the newest backup was taken.",
            seconds(at_ms),
        );
    }
    text.value(
        Counter,
        "bulkhead_backup_failures_total",
        "Backups that failed since the start.",
        stats.failures,
    );
    if let Some(at_ms) = stats.drilled_ms {
        text.value(
            Gauge,
            "bulkhead_drill_last_success_timestamp_seconds",
            "When the newest restore drill passed.",
            seconds(at_ms),
        );
    }
    text.value(
        Gauge,
        "bulkhead_drill_overdue",
        "Whether the last restore drill that passed is too long ago.",
        stats.is_drill_overdue,
    );
}

fn quotas(text: &mut Exposition, keeper: &KeeperHandle) {
    let usage = keeper.usage();
    let totals =
        Quota::ALL.map(|quota| ([("quota", quota.name().to_owned())], usage.totals.of(quota)));
    text.family(
        Gauge,
        "bulkhead_quota_used",
        "Use of each quota in all tenants that told.",
        totals,
    );
    text.value(Gauge, "bulkhead_quota_near_limit", "Uses at 80 % or more.", usage.near_count);
    text.value(Gauge, "bulkhead_quota_at_limit", "Uses at their limit.", usage.full_count);
    let plans = usage.plans.iter().map(|(plan, &count)| ([("plan", plan.clone())], count));
    text.family(Gauge, "bulkhead_tenants_by_plan", "Tenants that told, by plan.", plans);
    text.value(
        Gauge,
        "bulkhead_trials_ending",
        "Trials that end soon or have.",
        usage.trials.len(),
    );
}

fn process(text: &mut Exposition) {
    let process = ProcessUse::read();
    let gauges = [
        ("process_resident_memory_bytes", "Memory in RAM.", process.resident_bytes),
        ("process_virtual_memory_bytes", "Address space.", process.virtual_bytes),
        ("process_open_fds", "Open files.", process.open_files),
        ("process_max_fds", "Files that may be open.", process.open_files_max),
        ("process_threads", "Threads.", process.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            text.value(Gauge, name, help, value);
        }
    }
    if let Some(cpu_s) = process.cpu_s {
        text.value(Counter, "process_cpu_seconds_total", "Processor time used.", cpu_s);
    }
}
