//! `bulkhead tenant erase` and `verify-receipt`: destroying a tenant's key, and the proof of it.

use std::path::PathBuf;

use actors::backup::signed::Document as _;
use actors::env::rfc3339;
use actors::erasure::receipt::{ErasureReceipt, SignedReceipt};
use actors::tenant::directory::Standing;

use crate::cli::output::{self, Output};
use crate::cli::tenant::{Common, unexpected};
use crate::cli::trust::Trust;
use crate::cli::{CliError, read_small};
use crate::control::erasure::{ErasureOrder, ErasureReport};
use crate::control::{ControlCommand, ControlReply, error_chain};

/// An erasure.
#[derive(Debug, clap::Args)]
pub struct Erase {
    /// Its id or short name.
    tenant: String,
    /// Why: goes into the receipt.
    #[arg(long)]
    reason: Option<String>,
    /// Do not wait for erasure.delay: for legal requests. Cannot be taken back.
    #[arg(long, requires = "reason")]
    force: bool,
    /// Take back an erasure that is not due yet.
    #[arg(long, conflicts_with_all = ["force", "reason"])]
    cancel: bool,
    #[command(flatten)]
    common: Common,
}

impl Erase {
    /// Does it. The receipt goes to standard output, as it is.
    pub fn run(self) -> Result<(), CliError> {
        let Self { tenant, reason, force, cancel, common } = self;
        let order = ErasureOrder { tenant, reason, force, cancel };
        let ControlReply::Erasure(report) = common.place.control(ControlCommand::Erase(order))?
        else {
            return Err(unexpected());
        };
        match &report.receipt {
            Some(receipt) if !common.json => {
                output::complain(&format!(
                    "{} is erased; keep its receipt, check it with `bulkhead tenant verify-receipt`",
                    report.tenant
                ));
                common.output().line(receipt)
            }
            _ => common.output().either(&report, || card(&report)),
        }
    }
}

fn card(report: &ErasureReport) -> String {
    let none = || "-".to_owned();
    let text = format!(
        "tenant     {}\nslug       {}\nstatus     {}\nrequested  {}\ndue        {}\nreason     {}",
        report.tenant,
        report.slug,
        crate::cli::tenant::standing(report.status),
        report.requested_at.clone().unwrap_or_else(none),
        report.due_at.clone().unwrap_or_else(none),
        report.reason.clone().unwrap_or_else(none),
    );
    match report.status {
        Standing::Erasing => {
            text + "\nUntil it is due, `bulkhead tenant erase --cancel` takes it back."
        }
        _ => text,
    }
}

/// The check of a receipt, without any node.
#[derive(Debug, clap::Args)]
pub struct VerifyReceipt {
    /// The receipt.
    file: PathBuf,
    /// The public key of the node that must have signed it: NAME+ID+KEY, as `bulkhead keys public` prints it,
    /// or a file with that line.
    #[arg(long, value_name = "KEY", value_parser = Trust::parse)]
    trust: Trust,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl VerifyReceipt {
    /// Does it. A receipt that is not believed is a failure.
    pub fn run(self) -> Result<(), CliError> {
        let bytes = read_small(&self.file, ErasureReceipt::BYTES_MAX as u64 + 1, "a receipt")?;
        let failed = |error| CliError::Failed(error_chain(&error));
        let signed = SignedReceipt::parse(bytes.trim_ascii_end()).map_err(failed)?;
        let verifier = self.trust.verifier(&signed.claimed().origin).ok_or_else(|| {
            CliError::Failed("the receipt names a node that no key can be of".to_owned())
        })?;
        let receipt = signed.verify(&verifier).map_err(failed)?;
        Output::new(self.json).either(receipt, || told(receipt))
    }
}

fn told(receipt: &ErasureReceipt) -> String {
    let anchored = receipt.anchored.as_ref().map_or_else(
        || "-".to_owned(),
        |it| {
            format!("record {}, audit entry {}, checkpoint {}", it.lsn, it.audit_seq, it.checkpoint)
        },
    );
    format!(
        "valid\ntenant     {}\nnode       {}\nrequested  {}\nerased     {}\nforced     {}\nreason     \
         {}\nhow        {}\nhistory    ended with record {} ({})\nanchored   {}\nkept       {} segments, \
         {} snapshots and {} runs of audit entries, which nobody can read\nremoved    {} copies of the key, {} exports",
        receipt.tenant,
        receipt.origin,
        rfc3339(receipt.requested_ms),
        rfc3339(receipt.erased_ms),
        if receipt.forced { "yes" } else { "no" },
        receipt.reason.as_deref().unwrap_or("-"),
        receipt.how,
        receipt.last_lsn,
        receipt.last_record,
        anchored,
        receipt.kept.segments,
        receipt.kept.snapshots,
        receipt.kept.audit_chunks,
        receipt.removed.keys,
        receipt.removed.exports,
    )
}
