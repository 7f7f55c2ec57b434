//! What a restore drill found: whether a backup, restored to scratch, gives back every tenant, how
//! much of the newest data would be lost (recovery point, RPO) and how long it took (recovery time, RTO).
//!
//! It refuses to be signed when its counts are not those of its lines, so that a report cannot say
//! "all well" over a tenant that failed.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use storage::id::{BackupId, DrillId, TenantId};

use super::digest::Digest;
use super::manifest::TEXT_BYTES_MAX;
use super::name::ObjectName;
use super::signed::{Document, Flaw, Signed, must};
use crate::env::rfc3339;

/// The format written and the newest read.
pub const FORMAT: u32 = 1;
/// Bytes of a report at most: a quarter of a million tenants.
pub const REPORT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Data older than this may not be all that a restore gives back: milliseconds (24 hours).
pub const RPO_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// A restore may not take longer than this: milliseconds (4 hours).
pub const RTO_MS_MAX: u64 = 4 * 60 * 60 * 1000;

/// How it went with one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillOutcome {
    /// Everything is as it was.
    Passed,
    /// Its keys were destroyed: the chain of its records holds, nothing of it can be read.
    Erased,
    /// Its customer withholds the key: the chain of its records holds, nothing of it can be read now.
    Withheld,
    /// Something is missing, wrong or unreadable: what.
    Failed(String),
}

/// What was found of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillLine {
    /// Which tenant.
    pub tenant: TenantId,
    /// Records whose hash and place in the chain were checked.
    pub records_verified: u64,
    /// Whether the last record is the one the manifest, and the anchors, name.
    pub chain_head_ok: bool,
    /// Rows of the restored state.
    pub rows: u64,
    /// Digest over the restored state, if it could be read.
    pub state_hash: Option<Digest>,
    /// Audit entries whose chain was checked.
    pub audit_entries: u64,
    /// How it went.
    pub outcome: DrillOutcome,
}

/// How many tenants went how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillCounts {
    /// All of them.
    pub total: u64,
    /// As they were.
    pub passed: u64,
    /// Without keys.
    pub erased: u64,
    /// Whose keys are withheld.
    #[serde(default, skip_serializing_if = "is_none")]
    pub withheld: u64,
    /// Not as they were.
    pub failed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl DrillCounts {
    /// Counts lines.
    pub fn of(lines: &[DrillLine]) -> Self {
        let mut counts = Self::default();
        for line in lines {
            counts.total += 1;
            match line.outcome {
                DrillOutcome::Passed => counts.passed += 1,
                DrillOutcome::Erased => counts.erased += 1,
                DrillOutcome::Withheld => counts.withheld += 1,
                DrillOutcome::Failed(_) => counts.failed += 1,
            }
        }
        counts
    }
}

/// A drill's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillReport {
    /// The format: [`FORMAT`].
    pub format: u32,
    /// Its name.
    pub id: DrillId,
    /// The name of the node that held the drill.
    pub origin: String,
    /// The backup that was restored.
    pub backup: BackupId,
    /// When the restore began: Unix milliseconds.
    pub started_ms: u64,
    /// When all was checked: Unix milliseconds.
    pub finished_ms: u64,
    /// How far back what was written is not in the backup, at the start: milliseconds; 0 if all is.
    pub rpo_ms: u64,
    /// From the start until every tenant could be served: milliseconds.
    pub rto_ms: u64,
    /// How many tenants went how.
    pub tenants: DrillCounts,
    /// The tenants, in id order.
    pub lines: Vec<DrillLine>,
    /// What went wrong beyond single tenants.
    pub failures: Vec<String>,
}

/// A report as the archive keeps it.
pub type SignedReport = Signed<DrillReport>;

impl DrillReport {
    /// Whether everything came back. How fast, and how fresh, is judged apart
    /// ([`DrillReport::is_in_time`]).
    pub fn is_passed(&self) -> bool {
        self.tenants.failed == 0 && self.failures.is_empty()
    }
    /// Whether RPO and RTO are within [`RPO_MS_MAX`] and [`RTO_MS_MAX`].
    pub fn is_in_time(&self) -> bool {
        self.rpo_ms <= RPO_MS_MAX && self.rto_ms <= RTO_MS_MAX
    }
    /// The name of the object it is kept as.
    pub fn name(&self) -> ObjectName {
        ObjectName::Drill(self.id)
    }

    /// The report for people: the figures, and every tenant that did not pass.
    pub fn to_text(&self) -> String {
        let verdict = match (self.is_passed(), self.is_in_time()) {
            (false, _) => "FAILED",
            (true, false) => "PASSED, BUT NOT IN TIME",
            (true, true) => "PASSED",
        };
        let sum = |of: fn(&DrillLine) -> u64| self.lines.iter().map(of).sum::<u64>();
        let DrillCounts { total, passed, erased, withheld, failed } = self.tenants;
        let (started, finished) = (rfc3339(self.started_ms), rfc3339(self.finished_ms));
        let mut text = format!(
            "Restore drill {} of {}: {verdict}\n\n\
             backup    {}\n\
             started   {started}\n\
             finished  {finished}\n\
             RPO       {}\n\
             RTO       {}\n\
             tenants   {total}: {passed} passed, {erased} erased, {withheld} withheld, {failed} failed\n\
             checked   {} records, {} rows, {} audit entries\n",
            self.id,
            printable(&self.origin),
            self.backup,
            bounded(self.rpo_ms, RPO_MS_MAX),
            bounded(self.rto_ms, RTO_MS_MAX),
            sum(|line| line.records_verified),
            sum(|line| line.rows),
            sum(|line| line.audit_entries),
        );
        for failure in &self.failures {
            push_line(&mut text, "failure", &printable(failure));
        }
        for line in &self.lines {
            match &line.outcome {
                DrillOutcome::Passed => {}
                DrillOutcome::Erased => push_line(&mut text, "erased", &line.tenant.to_string()),
                DrillOutcome::Withheld => {
                    push_line(&mut text, "withheld", &line.tenant.to_string());
                }
                DrillOutcome::Failed(reason) => {
                    let what = format!("{}: {}", line.tenant, printable(reason));
                    push_line(&mut text, "failed", &what);
                }
            }
        }
        text
    }
}

fn push_line(text: &mut String, label: &str, what: &str) {
    writeln!(text, "{label:<9} {what}").expect("a String takes every text");
}

/// The text without what could steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn bounded(ms: u64, ms_max: u64) -> String {
    let verdict = if ms <= ms_max { "met" } else { "NOT MET" };
    format!("{} (at most {}: {verdict})", duration(ms), duration(ms_max))
}

/// A duration in its two largest units.
fn duration(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
    let first = units.iter().position(|(_, size)| ms >= *size).unwrap_or(units.len() - 1);
    let mut rest = ms;
    let mut parts = Vec::new();
    for (name, size) in units.iter().skip(first).take(2) {
        if rest >= *size || parts.is_empty() {
            parts.push(format!("{} {name}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

impl DrillLine {
    fn check(&self, field: &str) -> Result<(), Flaw> {
        let has_state = self.state_hash.is_some();
        match &self.outcome {
            DrillOutcome::Passed => {
                must(self.chain_head_ok && has_state, field, "passed without its state or head")
            }
            DrillOutcome::Erased | DrillOutcome::Withheld => {
                must(self.chain_head_ok && !has_state, field, "is sealed with a state, or no head")
            }
            DrillOutcome::Failed(reason) => {
                let is_said = !reason.is_empty() && reason.len() <= TEXT_BYTES_MAX;
                must(is_said, field, "failed without a reason, or with too long a one")
            }
        }
    }
}

impl Document for DrillReport {
    const KIND: &'static str = "drill-report";
    const FORMAT: u32 = FORMAT;
    const BYTES_MAX: usize = REPORT_BYTES_MAX;

    fn format(&self) -> u32 {
        self.format
    }
    fn origin(&self) -> &str {
        &self.origin
    }
    fn check(&self) -> Result<(), Flaw> {
        let is_named = !self.origin.is_empty() && self.origin.len() <= TEXT_BYTES_MAX;
        must(is_named, "origin", "is empty or too long")?;
        must(self.started_ms <= self.finished_ms, "finished_ms", "is before the start")?;
        let is_within = self.rto_ms <= self.finished_ms - self.started_ms;
        must(is_within, "rto_ms", "is longer than the drill")?;
        must(self.tenants == DrillCounts::of(&self.lines), "tenants", "are not as the lines say")?;
        let is_sorted = self.lines.is_sorted_by(|a, b| a.tenant < b.tenant);
        must(is_sorted, "lines", "are not in tenant order, each once")?;
        let is_short = |text: &String| text.len() <= TEXT_BYTES_MAX;
        must(self.failures.iter().all(is_short), "failures", "have too long a text")?;
        for (at, line) in self.lines.iter().enumerate() {
            line.check(&format!("lines[{at}]"))?;
        }
        Ok(())
    }
}
