//! A running node in this process, on a data directory and ports of its own, and tenants in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use actors::env::{Clock, Env, Faults, SystemClock};
use bulkhead::config::{Config, Overrides};
use bulkhead::runtime::Node;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::authenticator::{Authenticator, enrol};
use super::client::{Client, Reply};

/// A password that every person of the tests has.
pub const PASSWORD: &str = "correct horse battery";

/// Every rate there is, as class and scope.
pub fn rates() -> impl Iterator<Item = (&'static str, &'static str)> {
    const CLASSES: [&str; 6] = ["sign_in", "sign_up", "recover", "api", "public", "hooks"];
    const SCOPES: [&str; 4] = ["per_ip", "per_account", "per_tenant", "per_token"];
    CLASSES.into_iter().flat_map(|class| SCOPES.into_iter().map(move |scope| (class, scope)))
}

/// What differs from the usual node.
#[derive(Default)]
pub struct WorldOptions {
    settings: Vec<(String, toml::Value)>,
    clock: Option<Arc<dyn Clock>>,
    faults: Option<Arc<dyn Faults>>,
    /// A data directory to use instead of a fresh one.
    data: Option<PathBuf>,
}

impl WorldOptions {
    /// Sets one configuration key.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.settings.push((key.to_owned(), value.into()));
        self
    }
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }
    pub fn faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }
    pub fn data(mut self, dir: &Path) -> Self {
        self.data = Some(dir.to_owned());
        self
    }

    pub fn config(&self, data: &Path) -> Config {
        let mut overrides = Overrides::default()
            .set("http.bind", "127.0.0.1:0")
            .set("ops.bind", "127.0.0.1:0")
            .set("data.dir", data.to_str().expect("a path in UTF-8"))
            .set("data.allow_temporary", true)
            .set("http.workers", 2)
            .set("signup.plan", "pro")
            // A node that backs itself up writes records of its own; tests of that switch it on.
            .set("backup.enabled", false)
            // As does one that sends mail.
            .set("signup.verify_email", false);
        for (class, scope) in rates() {
            overrides = overrides.set(&format!("rate.{class}.{scope}"), "off");
        }
        for (key, value) in &self.settings {
            overrides = overrides.set(key, value.clone());
        }
        Config::load_from(None, Vec::new(), &overrides).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn start(self) -> World {
        World::start_with(self)
    }
}

/// A running node.
pub struct World {
    pub client: Client,
    pub ops: Client,
    pub dir: PathBuf,
    clock: Arc<dyn Clock>,
    /// What people hold beside their passwords, by tenant and address.
    authenticators: Mutex<HashMap<String, Arc<Authenticator>>>,
    platform: OnceLock<Client>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    // Last: the directory goes when the node is gone.
    _home: Option<tempfile::TempDir>,
}

/// A tenant and its owner.
#[derive(Clone)]
pub struct Tenant {
    pub id: String,
    pub slug: String,
    pub owner: Client,
    pub owner_id: String,
    pub refresh_token: String,
}

impl World {
    pub fn start() -> Self {
        WorldOptions::default().start()
    }

    fn start_with(options: WorldOptions) -> Self {
        let home = options.data.is_none().then(|| tempfile::tempdir().expect("a directory"));
        let dir = match (&options.data, &home) {
            (Some(dir), _) => dir.clone(),
            (None, Some(home)) => home.path().join("data"),
            (None, None) => unreachable!("one of the two is made above"),
        };
        let config = options.config(&dir);
        let clock = options.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let mut env = Env::real().with_clock(clock.clone());
        if let Some(faults) = options.faults {
            env = env.with_faults(faults);
        }
        let (started, urls) = mpsc::channel();
        let (stop, stopping) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let node = Node::start_in(config, env).await.expect("a node that starts");
                started
                    .send((node.http_url().to_owned(), node.ops_url().to_owned()))
                    .expect("a waiting test");
                // Dropping the sender stops the node as well.
                let _told = stopping.await;
                node.stop().await.expect("a clean stop");
            });
        });
        let (http, ops) = urls.recv().expect("a node that starts");
        let (client, ops) = (Client::new(&http), Client::new(&ops));
        Self {
            client,
            ops,
            dir,
            clock,
            authenticators: Mutex::default(),
            platform: OnceLock::new(),
            stop: Some(stop),
            thread: Some(thread),
            _home: home,
        }
    }

    /// Stops the node and waits for its end. The data directory stays if the caller brought it.
    pub fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the node did not stop cleanly");
        }
    }

    /// Signs up a tenant.
    pub fn tenant(&self, slug: &str) -> Tenant {
        Tenant::sign_up(&self.client, slug)
    }

    /// The node's time, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Signs someone in, with the second factor they enrolled here if they did.
    pub fn sign_in(&self, slug: &str, email: &str) -> Client {
        self.client.with_token(&self.signed_in(slug, email).str("/access_token"))
    }

    /// Someone in a browser, who means what they do.
    pub fn browser(&self, slug: &str, email: &str) -> Client {
        let cookie = self.signed_in(slug, email).cookie();
        self.client.with_header("cookie", &cookie).with_header("x-bulkhead-csrf", "1")
    }

    fn signed_in(&self, slug: &str, email: &str) -> Reply {
        let body = json!({"tenant": slug, "email": email, "password": PASSWORD});
        let mut reply = self.client.post("/v1/auth/sign-in", body, 200);
        if reply.json()["mfa_required"] == true {
            let known = self.authenticators.lock().unwrap_or_else(PoisonError::into_inner);
            let held = known.get(&format!("{slug} {email}")).expect("an authenticator").clone();
            let (token, code) = (reply.str("/mfa_token"), held.fresh_code(self.now_ms()));
            reply =
                self.client.post("/v1/auth/mfa", json!({"mfa_token": token, "code": code}), 200);
        }
        reply
    }

    /// Enrols an authenticator for someone who is signed in; they, with their new token.
    pub fn enrol(&self, slug: &str, email: &str, person: &Client) -> Client {
        let (person, authenticator) = enrol(person, self.now_ms());
        let mut known = self.authenticators.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(format!("{slug} {email}"), Arc::new(authenticator));
        person
    }

    /// Adds someone to a tenant and signs them in.
    pub fn member(&self, tenant: &Tenant, role: &str) -> Client {
        self.member_named(tenant, role, role).0
    }

    /// Adds someone with a name of their own; answers with their user id as well.
    pub fn member_named(&self, tenant: &Tenant, name: &str, role: &str) -> (Client, String) {
        let email = format!("{name}@{}.example", tenant.slug);
        let body = json!({"email": email, "role": role, "password": PASSWORD});
        let id = tenant.owner.post("/v1/members", body, 201).str("/id");
        (self.sign_in(&tenant.slug, &email), id)
    }

    /// A platform administrator, made with the command line on the running node, with the second factor
    /// that all of them need.
    pub fn platform_admin(&self) -> Client {
        let (slug, email) = ("platform", "root@platform.example");
        let made = || self.enrol(slug, email, &self.new_platform_admin(email));
        self.platform.get_or_init(made).clone()
    }

    /// A platform administrator who has not enrolled a second factor yet.
    pub fn new_platform_admin(&self, email: &str) -> Client {
        let file = self.dir.join("password.txt");
        std::fs::write(&file, PASSWORD).expect("a password file");
        let made = std::process::Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["platform-admin", "create", "--email", email, "--password-file"])
            .arg(&file)
            .arg("--data")
            .arg(&self.dir)
            .env("BULKHEAD__DATA__ALLOW_TEMPORARY", "true")
            .output()
            .expect("the command line");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::remove_file(file).expect("a removable file");
        self.sign_in("platform", email)
    }
}

impl Tenant {
    /// Signs up a tenant on any node.
    pub fn sign_up(client: &Client, slug: &str) -> Self {
        let body = json!({
            "tenant": {"slug": slug, "name": format!("Tenant {slug}")},
            "email": format!("owner@{slug}.example"),
            "password": PASSWORD,
        });
        let reply = client.post("/v1/auth/sign-up", body, 201);
        Self {
            id: reply.str("/tenant/id"),
            slug: slug.to_owned(),
            owner: client.with_token(&reply.str("/access_token")),
            owner_id: reply.str("/user/id"),
            refresh_token: reply.str("/refresh_token"),
        }
    }
    /// The same owner, with the same token, at a node that was started anew.
    pub fn move_to(&mut self, client: &Client) {
        let token = self.owner.token.clone().expect("an owner has a token");
        self.owner = client.with_token(&token);
    }
    /// The id and the name of every submission to a form, oldest first.
    pub fn submissions(&self, form: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let place = format!("/v1/forms/{form}/submissions?limit=200&sort=created_at{cursor}");
            let page = self.owner.get(&place, 200).json();
            let text = |item: &Value, at| {
                item.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let items = page["items"].as_array().expect("a list");
            found.extend(items.iter().map(|item| (text(item, "/id"), text(item, "/data/name"))));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }
    /// A form whose data must have a `name`.
    pub fn form(&self, title: &str) -> String {
        self.form_with(json!({"title": title, "schema": name_schema()}))
    }
    pub fn form_with(&self, body: Value) -> String {
        self.owner.post("/v1/forms", body, 201).str("/id")
    }
    pub fn submit(&self, by: &Client, form: &str, name: &str) -> String {
        let body = json!({"data": {"name": name}});
        by.post(&format!("/v1/forms/{form}/submissions"), body, 201).str("/id")
    }
}

/// Makes an API key with these scopes: whoever uses it, and its id.
pub fn api_key(by: &Client, scopes: &[&str]) -> (Client, String) {
    let body = json!({"name": "Test", "scopes": scopes});
    let made = by.post("/v1/api-keys", body, 201);
    (by.with_token(&made.str("/key")), made.str("/id"))
}

/// An object with a `name`.
pub fn name_schema() -> Value {
    json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}
