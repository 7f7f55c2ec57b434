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

/// What became of one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chain {
    Verified,
    /// Nobody can read it any more; the sealed records hold.
    Erased,
    /// Its customer withholds the key: nothing was found wrong, and nothing verified.
    Withheld,
    /// Its key is gone without a receipt.
    KeyGone,
    Broken,
}

impl Chain {
    fn of(report: &Value) -> Self {
        match (report["ok"] == true, report["no_key"].as_str()) {
            (true, _) if report["erased_at"].is_string() => Self::Erased,
            (true, _) => Self::Verified,
            (false, Some("withheld")) => Self::Withheld,
            (false, Some("gone")) => Self::KeyGone,
            (false, _) => Self::Broken,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Erased => "erased",
            Self::Withheld => "withheld",
            Self::KeyGone => "KEY GONE",
            Self::Broken => "BROKEN",
        }
    }
}

/// Why the whole is not ok.
fn verdict(report: &Value) -> String {
    let all = tenants(report);
    let count = |chain| all.iter().filter(|tenant| Chain::of(tenant) == chain).count();
    let mut parts = Vec::new();
    match count(Chain::Broken) {
        0 => {}
        bad => parts.push(format!("{bad} of {} chains do not verify", all.len())),
    }
    match count(Chain::KeyGone) {
        0 => {}
        gone => parts.push(format!("{gone} cannot be read, because their keys are gone")),
    }
    match count(Chain::Withheld) {
        0 => {}
        withheld => parts.push(format!(
            "{withheld} of {} chains could not be read, because customers withhold the keys; verify them when \
             the keys are back",
            all.len()
        )),
    }
    if report["anchors"]["ok"] != true {
        parts.push("the signed checkpoints do not verify".to_owned());
    }
    parts.join("; ")
}

fn text(report: &Value) -> String {
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
    let bad = |tenant: &Value| {
        let value = &tenant["first_bad"];
        match (value["what"].as_str(), Chain::of(tenant)) {
            (Some(what), Chain::Withheld | Chain::KeyGone) => what.to_owned(),
            (Some(what), _) => {
                format!("entry {}, record {}: {what}", value["seq"], value["lsn"])
            }
            (None, _) => String::new(),
        }
    };
    let rows: Vec<_> = tenants(report)
        .iter()
        .map(|tenant| {
            [
                tenant["tenant"].as_str().unwrap_or_default().to_owned(),
                Chain::of(tenant).name().to_owned(),
                number(&tenant["records"]),
                number(&tenant["entries"]),
                number(&tenant["anchored"]["seq"]),
                bad(tenant),
            ]
        })
        .collect();
    let anchors = &report["anchors"];
    let head = ["TENANT", "CHAIN", "RECORDS", "ENTRIES", "ANCHORED UP TO ENTRY", "WHAT IS WRONG"];
    let mut text = output::table(head, &rows);
    text.push_str(&format!(
        "checkpoints: {}, {}",
        number(&anchors["checkpoints"]),
        Chain::of(anchors).name()
    ));
    if let Some(what) = anchors["first_bad"]["what"].as_str() {
        text.push_str(&format!(
            " from checkpoint {} on: {what}",
            anchors["first_bad"]["checkpoint"]
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_called_broken() {
        let bad = json!({"seq": 1, "lsn": 1, "what": "the customer withholds the tenant's key"});
        let tenant = |more: Value| {
            let mut tenant = json!({"tenant": "tn_1", "ok": false, "first_bad": bad});
            for (name, value) in more.as_object().expect("an object") {
                tenant[name] = value.clone();
            }
            tenant
        };
        let cases = [
            (json!({"ok": true, "first_bad": null}), "verified"),
            (json!({"ok": true, "first_bad": null, "erased_at": "2031-05-17T08:30:00Z"}), "erased"),
            (json!({"no_key": "withheld"}), "withheld"),
            (json!({"no_key": "gone"}), "KEY GONE"),
            (json!({}), "BROKEN"),
        ];
        for (more, name) in cases {
            let report = json!({"tenants": [tenant(more)], "anchors": {"ok": true}});
            let text = text(&report);
            assert!(text.contains(name), "{text}");
            assert_eq!(text.contains("BROKEN"), name == "BROKEN", "{text}");
            assert_eq!(verdict(&report).contains("do not verify"), name == "BROKEN", "{name}");
        }
        let both = json!({
            "tenants": [tenant(json!({})), tenant(json!({"no_key": "withheld"}))],
            "anchors": {"ok": false, "checkpoints": 2, "first_bad": {"checkpoint": 2, "what": "x"}},
        });
        let said = verdict(&both);
        assert!(said.contains("1 of 2 chains do not verify"), "{said}");
        assert!(said.contains("withhold") && said.contains("checkpoints"), "{said}");
    }
}
