//! The demo's people and their access tokens. Tokens last minutes, and a demo may stay open for hours,
//! so they rest in header files that `curl -H @FILE` reads and that are renewed while the demo runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::cli::CliError;
use crate::cli::demo::caller::{Caller, text};

/// The tenants.
pub const TENANTS: [&str; 2] = ["acme", "globex"];
/// The roles, one person each per tenant.
pub const ROLES: [&str; 5] = ["owner", "admin", "member", "viewer", "customer"];

struct Session {
    id: String,
    access: String,
    refresh: String,
}

/// Who there is, with one password for all.
pub struct People {
    password: String,
    dir: PathBuf,
    sessions: Mutex<BTreeMap<(String, String), Session>>,
}

impl People {
    /// Nobody yet. Header files go into `dir`.
    pub fn new(password: String, dir: &Path) -> Self {
        Self { password, dir: dir.to_owned(), sessions: Mutex::default() }
    }

    /// The password of everyone.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Somebody's address.
    pub fn email(tenant: &str, role: &str) -> String {
        format!("{role}@{tenant}.example")
    }

    /// Somebody's header file.
    pub fn header_file(&self, tenant: &str, role: &str) -> PathBuf {
        self.dir.join(format!("{tenant}-{role}.header"))
    }

    /// Signs somebody in.
    pub fn sign_in(&self, caller: &Caller, tenant: &str, role: &str) -> Result<(), CliError> {
        let email = Self::email(tenant, role);
        let body = json!({ "tenant": tenant, "email": email, "password": self.password });
        let answer = caller.post("/v1/auth/sign-in", None, &body)?;
        let session = Session {
            id: text(&answer, "/user/id")?,
            access: text(&answer, "/access_token")?,
            refresh: text(&answer, "/refresh_token")?,
        };
        self.keep(tenant, role, session)
    }

    /// Renews every token.
    pub fn renew(&self, caller: &Caller) -> Result<(), CliError> {
        let known: Vec<_> =
            self.lock().iter().map(|(who, one)| (who.clone(), one.refresh.clone())).collect();
        for ((tenant, role), refresh) in known {
            let answer =
                caller.post("/v1/auth/refresh", None, &json!({ "refresh_token": refresh }))?;
            let id = self.id(&tenant, &role)?;
            let access = text(&answer, "/access_token")?;
            let refresh = text(&answer, "/refresh_token")?;
            self.keep(&tenant, &role, Session { id, access, refresh })?;
        }
        Ok(())
    }

    /// Somebody's access token.
    pub fn token(&self, tenant: &str, role: &str) -> Result<String, CliError> {
        self.session(tenant, role, |session| session.access.clone())
    }

    /// Somebody's user id.
    pub fn id(&self, tenant: &str, role: &str) -> Result<String, CliError> {
        self.session(tenant, role, |session| session.id.clone())
    }

    fn session(
        &self,
        tenant: &str,
        role: &str,
        field: impl Fn(&Session) -> String,
    ) -> Result<String, CliError> {
        let key = (tenant.to_owned(), role.to_owned());
        let sessions = self.lock();
        let absent = || CliError::Failed(format!("the {role} of {tenant} is not signed in"));
        sessions.get(&key).map(field).ok_or_else(absent)
    }

    fn keep(&self, tenant: &str, role: &str, session: Session) -> Result<(), CliError> {
        let path = self.header_file(tenant, role);
        let draft = path.with_extension("new");
        let line = format!("Authorization: Bearer {}\n", session.access);
        let mut options = std::fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(CliError::system(format!("{} cannot be written", path.display())))?;
        self.lock().insert((tenant.to_owned(), role.to_owned()), session);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Session>> {
        // Every change is one insertion, so a panic elsewhere leaves nothing half done.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
