//! A tenant moves from one node to another with all it has, and what is no whole bundle moves nobody.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kit::{Client, Launcher, Outcome, Tenant, World, WorldOptions, name_schema};

mod asked;
mod bad;
mod stopped;

const SECRET: &str = "the-secret-of-the-sender-of-webhooks";
const ORIGIN_A: &str = "a.example/node";
const ORIGIN_B: &str = "b.example/node";

/// The command line on the directory of a running node.
pub struct Operator {
    launcher: Launcher,
    files: tempfile::TempDir,
}

impl Operator {
    pub fn of(data: &Path) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        Self { launcher: Launcher::on(data), files }
    }
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
    pub fn run(&self, words: &[&str]) -> Outcome {
        self.launcher.run(words)
    }
    /// What a command prints that succeeds.
    pub fn json(&self, words: &[&str]) -> Value {
        self.run(&[words, &["--json"]].concat()).expect(0).json()
    }
    /// What a command complains of that fails.
    pub fn refused(&self, words: &[&str], code: i32) -> String {
        let outcome = self.run(words).expect(code);
        assert_eq!(outcome.stdout, "", "{words:?}");
        outcome.stderr
    }
    /// Exports a tenant; answers with the bundle, its key file, and what was printed.
    pub fn export(&self, tenant: &str, name: &str) -> Exported {
        let bundle = self.file(name);
        let report = self.json(&["tenant", "export", tenant, "--out", text(&bundle)]);
        let key = PathBuf::from(report["key_file"].as_str().expect("a path"));
        Exported { bundle, key, report }
    }
}

pub struct Exported {
    pub bundle: PathBuf,
    pub key: PathBuf,
    pub report: Value,
}

impl Exported {
    pub fn signer(&self) -> &str {
        self.report["signer"].as_str().expect("a key")
    }
    /// The words of an import that trusts the signer.
    pub fn import<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let words = [
            "tenant",
            "import",
            text(&self.bundle),
            "--key-file",
            text(&self.key),
            "--trust",
            self.signer(),
        ];
        [&words, more].concat()
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

pub fn node_a() -> WorldOptions {
    WorldOptions::default().set("node.origin", ORIGIN_A)
}

pub fn node_b() -> WorldOptions {
    WorldOptions::default().set("node.origin", ORIGIN_B)
}

/// A tenant with something of everything.
pub struct Furnished {
    pub tenant: Tenant,
    member: String,
    form: String,
    hidden: String,
    submission: String,
    integration: String,
}

impl Furnished {
    pub fn on(world: &World) -> Self {
        let tenant = world.tenant("acme");
        let (ann, member) = world.member_named(&tenant, "ann", "member");
        world.member(&tenant, "viewer");
        let owner = &tenant.owner;
        let team = json!({"name": "Night shift", "members": [member]});
        let team = owner.post("/v1/teams", team, 201).str("/id");
        let form = tenant.form_with(
            json!({"title": "Leave", "schema": name_schema(), "approval": {"required": true}}),
        );
        let hidden = tenant.form("Salaries");
        let gone = tenant.form("Gone");
        owner.act(&format!("/v1/forms/{gone}/archive"), 200);
        let grants = json!({"grants": [
            {"principal": {"kind": "user", "id": tenant.owner_id}, "level": "OWNER"},
            {"principal": {"kind": "team", "id": team}, "level": "REVIEWER"},
        ]});
        owner.put(&format!("/v1/forms/{hidden}/acl"), grants, 200);
        let submission = tenant.submit(&ann, &form, "Ann");
        let place = format!("/v1/forms/{form}/submissions/{submission}");
        ann.post(&format!("{place}/comment"), json!({"text": "two weeks, please"}), 201);
        owner.act(&format!("{place}/approve"), 200);
        tenant.submit(&ann, &form, "Ann again");
        tenant.submit(owner, &hidden, "secret");
        let body = json!({"source": "github", "name": "Code", "secrets": [SECRET]});
        let integration = owner.post("/v1/integrations", body, 201).str("/id");
        let furnished = Self { tenant, member, form, hidden, submission, integration };
        assert_eq!(furnished.deliver(&world.client, "acme", "first").status, 200);
        furnished
    }

    /// A delivery signed with the old secret.
    fn deliver(&self, client: &Client, slug: &str, event: &str) -> crate::kit::Reply {
        let body = br#"{"zen":"moving"}"#;
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = hex::encode(aws_lc_rs::hmac::sign(&key, body));
        let sender = client
            .with_header("x-hub-signature-256", &format!("sha256={signature}"))
            .with_header("x-github-event", "ping")
            .with_header("x-github-delivery", event);
        let place = format!("/v1/hooks/{slug}/{}", self.integration);
        sender.send("POST", &place, Some("application/json"), body)
    }

    /// Everything its owner and others see of it.
    pub fn seen(&self, owner: &Client) -> Vec<(String, Value)> {
        let Self { member, form, hidden, submission, integration, .. } = self;
        [
            "/v1/members?limit=200".to_owned(),
            format!("/v1/members/{member}"),
            "/v1/teams".to_owned(),
            "/v1/forms?limit=200".to_owned(),
            format!("/v1/forms/{form}"),
            format!("/v1/forms/{hidden}/acl"),
            format!("/v1/forms/{form}/submissions?limit=200"),
            format!("/v1/forms/{hidden}/submissions?limit=200"),
            format!("/v1/forms/{form}/submissions/{submission}"),
            format!("/v1/forms/{form}/submissions/{submission}/comments"),
            "/v1/integrations".to_owned(),
            format!("/v1/integrations/{integration}"),
            format!("/v1/integrations/{integration}/events"),
        ]
        .into_iter()
        .map(|path| {
            let seen = owner.get(&path, 200).json();
            (path, seen)
        })
        .collect()
    }
}

/// The audit log, oldest entry first.
pub fn audit(owner: &Client) -> Vec<Value> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = owner.get(&format!("/v1/audit?sort=seq&limit=200{cursor}"), 200).json();
        found.extend(page["items"].as_array().expect("a list").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// What is used of the plan, without the bytes that answers to idempotency keys take.
pub fn counted(owner: &Client) -> Value {
    let usage = owner.get("/v1/usage", 200).json();
    let text = usage.to_string();
    assert!(text.contains("members") && text.contains("submissions"), "{text}");
    usage
}

#[test]
fn a_tenant_moves_with_all_it_has_and_moves_on() {
    let (a, b) = (node_a().start(), node_b().start());
    let furnished = Furnished::on(&a);
    let Furnished { tenant, .. } = &furnished;
    let at_a = Operator::of(&a.dir);
    let first = at_a.export("acme", "acme.bundle");
    let (before, before_used) = (furnished.seen(&tenant.owner), counted(&tenant.owner));

    let at_b = Operator::of(&b.dir);
    let words = ["tenant", "import", text(&first.bundle), "--key-file", text(&first.key)];
    let said = at_b.refused(&words, 1);
    assert!(said.contains(&format!("--trust {}", first.signer())), "{said}");
    assert!(first.signer().starts_with(ORIGIN_A), "{}", first.signer());
    let made = at_b.json(&first.import(&[]));
    assert_eq!((&made["tenant"], &made["slug"]), (&json!(tenant.id), &json!("acme")));
    assert_eq!(made["content_hash"], first.report["content_hash"]);

    let owner = b.sign_in("acme", "owner@acme.example");
    assert_eq!(furnished.seen(&owner), before);
    assert_eq!(counted(&owner), before_used);
    let ann = b.sign_in("acme", "ann@acme.example");
    ann.get(&format!("/v1/forms/{}", furnished.hidden), 200);
    let viewer = b.sign_in("acme", "viewer@acme.example");
    viewer.get(&format!("/v1/forms/{}", furnished.hidden), 404);
    let wrong = json!({"tenant": "acme", "email": "ann@acme.example", "password": "another word"});
    b.client.post("/v1/auth/sign-in", wrong, 401);
    // Sessions of the old node are none here.
    b.client.with_token(&tenant.owner.token.clone().expect("a token")).get("/v1/me", 401);

    let again = furnished.deliver(&b.client, "acme", "first");
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(furnished.seen(&owner), before, "a repeated delivery was kept twice");
    assert_eq!(furnished.deliver(&b.client, "acme", "second").status, 200);
    assert_ne!(furnished.seen(&owner), before, "a new delivery was not kept");

    let report = at_b.json(&["audit", "verify", "--tenant", "acme"]);
    assert_eq!(report["ok"], json!(true), "{report}");
    owner.get("/v1/audit/verify", 200);
    tenant.submit(&owner, &furnished.form, "life goes on");
    let events = owner.get("/v1/audit?action=tenant.import", 200).json();
    let import = &events["items"][0];
    assert_eq!(import["detail"]["origin"], json!(ORIGIN_A), "{events}");
    assert_eq!(import["detail"]["head"], first.report["audit_hash"]);
    assert_eq!(import["prev"], first.report["audit_hash"]);
}

#[test]
fn export_import_export_gives_the_same_content_and_the_audit_log_goes_on() {
    let (a, b) = (node_a().start(), node_b().start());
    let furnished = Furnished::on(&a);
    let at_a = Operator::of(&a.dir);
    let first = at_a.export("acme", "acme.bundle");
    let old = audit(&furnished.tenant.owner);
    assert_eq!(first.report["entries"], json!(old.len()));

    let at_b = Operator::of(&b.dir);
    let card = at_b.run(&first.import(&["--slug", "acme-two"])).expect(0).stdout;
    assert!(card.contains("slug     acme-two"), "{card}");
    let second = at_b.export("acme-two", "acme.bundle");
    assert_eq!(second.report["content_hash"], first.report["content_hash"]);
    assert_eq!(second.report["tenant"], first.report["tenant"]);
    assert_ne!(second.report["signer"], first.report["signer"]);

    let owner = b.sign_in("acme-two", "owner@acme.example");
    let new = audit(&owner);
    assert_eq!(new[..old.len()], old);
    assert_eq!(new[old.len()]["action"], json!("tenant.import"));
    let hook = owner.get(&format!("/v1/integrations/{}", furnished.integration), 200);
    assert_eq!(hook.str("/hook_path"), format!("/v1/hooks/acme-two/{}", furnished.integration));
    assert_eq!(furnished.deliver(&b.client, "acme-two", "first").status, 200);

    // What changes is seen: another submission is another content.
    furnished.tenant.submit(&furnished.tenant.owner, &furnished.form, "one more");
    let third = at_a.export("acme", "later.bundle");
    assert_ne!(third.report["content_hash"], first.report["content_hash"]);
    assert_eq!(b.sign_in("acme-two", "ann@acme.example").get("/v1/me", 200).status, 200);
}
