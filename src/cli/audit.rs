//! `bulkhead audit`: whether the histories still say what they said.

use clap::Subcommand;
use serde_json::Value;

use crate::cli::tenant::{Common, unexpected};
use crate::cli::{CliError, output};
use crate::control::{ControlCommand, ControlReply};

/// What to do with audit chains.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Verify every record and audit entry, and compare with the newest signed checkpoint.
    Verify {
        /// One tenant's id or short name; all when absent.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

impl Audit {
    /// Does it. A chain that does not verify is a failure.
    pub fn run(self) -> Result<(), CliError> {
        let Self::Verify { tenant, common } = self;
        let reply = common.place.control(ControlCommand::VerifyAudit { tenant })?;
        let ControlReply::Audit { ok, report } = reply else { return Err(unexpected()) };
        common.output().either(&report, || text(&report))?;
        if ok { Ok(()) } else { Err(CliError::Failed(verdict(&report))) }
    }
}

fn tenants(report: &Value) -> &[Value] {
    report["tenants"].as_array().map_or(&[], Vec::as_slice)
}

fn verdict(report: &Value) -> String {
    let bad = tenants(report).iter().filter(|tenant| tenant["ok"] != true).count();
    let chains = format!("{bad} of {} chains do not verify", tenants(report).len());
    match report["anchors"]["ok"] == true {
        true => chains,
        false => format!("{chains}, and the signed checkpoints do not either"),
    }
}

fn text(report: &Value) -> String {
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
    let bad = |value: &Value| match value["what"].as_str() {
        Some(what) => format!("entry {}, record {}: {what}", value["seq"], value["lsn"]),
        None => String::new(),
    };
    let rows: Vec<_> = tenants(report)
        .iter()
        .map(|tenant| {
            [
                tenant["tenant"].as_str().unwrap_or_default().to_owned(),
                verified(tenant),
                number(&tenant["records"]),
                number(&tenant["entries"]),
                number(&tenant["anchored"]["seq"]),
                bad(&tenant["first_bad"]),
            ]
        })
        .collect();
    let anchors = &report["anchors"];
    let mut text =
        output::table(["TENANT", "CHAIN", "RECORDS", "ENTRIES", "ANCHORED", "FIRST BAD"], &rows);
    text.push_str(&format!(
        "checkpoints: {}, {}",
        number(&anchors["checkpoints"]),
        verified(anchors)
    ));
    if let Some(what) = anchors["first_bad"]["what"].as_str() {
        text.push_str(&format!(
            " from checkpoint {} on: {what}",
            anchors["first_bad"]["checkpoint"]
        ));
    }
    text
}

fn verified(report: &Value) -> String {
    match (report["ok"] == true, report["erased_at"].is_string()) {
        (true, false) => "verified",
        (true, true) => "erased",
        (false, _) => "BROKEN",
    }
    .to_owned()
}
