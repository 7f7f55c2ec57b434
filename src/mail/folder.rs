//! Letters put into a directory, one file each, for nodes without a mail server.
//!
//! The files hold addresses and working links, so only the node's user can read them; those of a tenant
//! go with its erasure.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use actors::mail::{Carrier, Delivery, Letter};
use storage::id::TenantId;

use super::compose::Compose;

/// A directory of letters: `<tenant>/<mail>.eml`.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    compose: Compose,
}

impl Folder {
    /// Letters go to `dir`, which is made when the first one comes.
    pub fn new(dir: PathBuf, compose: Compose) -> Self {
        Self { dir, compose }
    }

    fn dir_of(&self, tenant: TenantId) -> PathBuf {
        self.dir.join(tenant.to_string())
    }
}

impl Carrier for Folder {
    fn carry(&self, letter: Letter) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(async move {
            let mail = match self.compose.message(&letter) {
                Ok(mail) => mail.formatted(),
                Err(error) => return Delivery::Never { reason: error.to_string() },
            };
            let (dir, name) = (self.dir_of(letter.tenant), letter.id.to_string());
            let put = tokio::task::spawn_blocking(move || put(&dir, &name, &mail)).await;
            match put {
                Ok(Ok(())) => Delivery::Sent,
                Ok(Err(error)) => {
                    tracing::warn!(mail.id = %letter.id, %error, "a mail cannot be written");
                    Delivery::Later
                }
                Err(_) => Delivery::Later,
            }
        })
    }

    fn forget(&self, tenant: TenantId) -> std::io::Result<()> {
        match std::fs::remove_dir_all(self.dir_of(tenant)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Writes a file whole: whoever sees it sees all of it.
fn put(dir: &Path, name: &str, mail: &[u8]) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let draft = dir.join(format!(".{name}.new"));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(mail)?;
    file.sync_all()?;
    std::fs::rename(&draft, dir.join(format!("{name}.eml")))
}
