//! What every round begins with: a stopped node with tenants, a history and a backup, and a bundle of a
//! tenant of another node.

use std::path::{Path, PathBuf};

use super::text;
use crate::kit::{Dice, Launcher, Tenant, eventually};
use actors::env::{Clock, SystemClock, rfc3339};

/// Large enough that commands take a while, and small enough that many rounds are soon over.
const SUBMISSIONS: usize = 60;
const SUBMISSION_BYTES: usize = 40 << 10;
const BYSTANDERS: usize = 2;

/// All that the tenant that goes back shows of itself.
pub type Shown = (String, Vec<(String, String)>);

pub struct Template {
    home: tempfile::TempDir,
    /// The tenant that is taken back, and its form.
    pub acme: (Tenant, String),
    /// The time it is taken back to, and what it was then and is now.
    pub at: String,
    pub then: Shown,
    pub now: Shown,
    pub bystanders: Vec<(Tenant, String)>,
    pub bundle: PathBuf,
    pub key: PathBuf,
    pub signer: String,
    pub content_hash: String,
    /// The version of the key-encryption key.
    pub kek: String,
}

/// The program on a directory; small segments, so that there are many.
pub fn launcher(data: &Path) -> Launcher {
    Launcher::on(data).set("backup.enabled", "false").set("data.segment_bytes", "1048576")
}

/// A tenant as it shows itself to its owner.
pub fn shown(tenant: &Tenant, form: &str) -> Shown {
    (tenant.owner.get("/v1/forms", 200).text(), tenant.submissions(form))
}

fn fill(tenant: &Tenant, form: &str, dice: &mut Dice) {
    for _ in 0..SUBMISSIONS {
        tenant.submit(&tenant.owner, form, &dice.text(SUBMISSION_BYTES));
    }
}

impl Template {
    pub fn make(dice: &mut Dice) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let (bundle, key) =
            (home.path().join("mover.bundle"), home.path().join("mover.bundle.key"));
        let elsewhere =
            launcher(&home.path().join("elsewhere")).set("node.origin", "else.example/n");
        let mut node = elsewhere.serve();
        let mover = Tenant::sign_up(&node.client, "mover");
        fill(&mover, &mover.form("Moves"), dice);
        let words = ["tenant", "export", "mover", "--out", text(&bundle), "--json"];
        let exported = elsewhere.run(&words).expect(0).json();
        assert!(node.terminate().success());

        let launcher = launcher(&home.path().join("data"));
        let mut node = launcher.serve();
        let tenant = |slug: &str| {
            let tenant = Tenant::sign_up(&node.client, slug);
            let form = tenant.form("Before");
            tenant.submit(&tenant.owner, &form, "first");
            (tenant, form)
        };
        let bystanders = (0..BYSTANDERS).map(|n| tenant(&format!("bystander-{n}"))).collect();
        let acme = tenant("acme");
        fill(&acme.0, &acme.1, dice);
        let then = shown(&acme.0, &acme.1);
        let clock = SystemClock::new();
        let at_ms = clock.now_ms();
        eventually("a later time", || (clock.now_ms() > at_ms).then_some(()));
        launcher.run(&["backup", "run"]).expect(0);
        fill(&acme.0, &acme.1, dice);
        acme.0.form("After");
        let now = shown(&acme.0, &acme.1);
        let keys = launcher.run(&["keys", "status", "--json"]).expect(0).json();
        assert!(node.terminate().success());
        let found = |name: &str| exported[name].as_str().expect("a text").to_owned();
        Self {
            acme,
            at: rfc3339(at_ms),
            then,
            now,
            bystanders,
            signer: found("signer"),
            content_hash: found("content_hash"),
            kek: keys["versions"][0]["id"].as_str().expect("an id").to_owned(),
            bundle,
            key,
            home,
        }
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }
}
