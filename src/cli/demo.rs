//! `bulkhead demo`: a throw-away node with two seeded tenants, and lines to paste.
//!
//! Everything but the two tenants themselves is made through the public API, by the people who would
//! make it. The data is fresh each time, and gone afterwards unless `--data` names a place.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_rt::System;
use actors::env::Env;

use crate::cli::output::{Output, complain};
use crate::cli::password::random_text;
use crate::cli::serve::StopSignals;
use crate::cli::{CliError, Place};
use crate::config::{Config, Overrides};
use crate::control::client::ClientError;
use crate::control::{ControlCommand, Person, execute};
use crate::runtime::Node;
use crate::telemetry;

mod caller;
mod lines;
mod people;
mod seed;

use caller::Caller;
use lines::Scene;
use people::{People, ROLES, TENANTS};
use seed::Seeded;

/// How often tokens are renewed; they last a quarter of an hour.
const RENEW_EVERY: Duration = Duration::from_secs(10 * 60);

/// Runs a throw-away node.
#[derive(Debug, Clone, clap::Args)]
pub struct Demo {
    #[command(flatten)]
    place: Place,
}

/// Where a demo keeps its things; what it made itself is removed with it.
struct Stage {
    /// The data directory.
    data: PathBuf,
    /// The header files with tokens.
    tokens: PathBuf,
    /// What is removed at the end.
    scratch: PathBuf,
}

impl Stage {
    fn set_up(data: Option<&Path>, env: &Env) -> Result<Self, CliError> {
        let name = format!("bulkhead-demo-{}", hex::encode(env.random::<6>()));
        let scratch = std::env::temp_dir().join(name);
        let tokens = scratch.join("tokens");
        let data = data.map_or_else(|| scratch.join("data"), Path::to_owned);
        let used = data.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if used {
            let reason = "is not empty: a demo begins with a fresh data directory";
            return Err(CliError::Usage(format!("{} {reason}", data.display())));
        }
        private_dir(&scratch)?;
        let stage = Self { data, tokens, scratch };
        private_dir(&stage.tokens)?;
        Ok(stage)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.scratch) {
            tracing::warn!(%error, dir = %self.scratch.display(), "the demo's directory stays");
        }
    }
}

fn private_dir(dir: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
    made.map_err(CliError::system(format!("{} cannot be made", dir.display())))
}

impl Demo {
    /// Does it.
    pub fn run(self) -> Result<(), CliError> {
        let env = Env::real();
        let stage = Stage::set_up(self.place.data.as_deref(), &env)?;
        let config = self.config(&stage)?;
        telemetry::install(&config.log)?;
        let people = Arc::new(People::new(random_text(&env), &stage.tokens));
        System::new().block_on(async {
            let mut stop = StopSignals::listen()?;
            let node = Node::start(config).await?;
            let played = play(&node, &people, &mut stop).await;
            node.stop().await?;
            played
        })
    }

    fn config(&self, stage: &Stage) -> Result<Config, CliError> {
        let overrides = Overrides { data_dir: Some(stage.data.clone()), settings: Vec::new() }
            .set("data.allow_temporary", true)
            .set("log.level", "warn")
            // A plan that is used up at once, to show what happens then.
            .set("plans.tiny.forms", 1)
            .set("plans.tiny.members", 10)
            .set("plans.tiny.submissions", 10);
        let file = self.place.config.as_deref();
        let mut config = Config::load(file, &overrides)?;
        for address in [&mut config.http.bind, &mut config.ops.bind] {
            // Another node may have the port; a demo takes any other.
            if TcpListener::bind(*address).is_err() {
                complain(&format!("{address} is in use; the demo takes a free port instead"));
                address.set_port(0);
            }
        }
        Ok(config)
    }
}

/// Seeds, prints, and keeps tokens fresh until told to stop.
async fn play(node: &Node, people: &Arc<People>, stop: &mut StopSignals) -> Result<(), CliError> {
    for (tenant, name, plan) in [("acme", "Acme", "pro"), ("globex", "Globex", "tiny")] {
        let owner = Some(Person {
            email: People::email(tenant, "owner"),
            password: people.password().to_owned(),
        });
        let (slug, name) = (tenant.to_owned(), name.to_owned());
        let command =
            ControlCommand::CreateTenant { slug, name, plan: Some(plan.to_owned()), owner };
        execute(node.app(), command).await.map_err(ClientError::from)?;
    }
    let caller = Caller::new(node.http_url());
    let (seeding, seeded_people) = (caller.clone(), people.clone());
    let seeded = blocking(move || populate(&seeding, &seeded_people)).await?;
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("bulkhead"));
    let scene = Scene {
        http: node.http_url(),
        browsers: node.browser_url(),
        ops: node.ops_url(),
        data: &node.config().data.dir,
        program: &program,
        people,
        seeded: &seeded,
    };
    match Output::new(false).line(&scene.text()) {
        Err(error) if error.is_reader_gone() => {}
        printed => printed?,
    }
    loop {
        tokio::select! {
            () = stop.first() => return Ok(()),
            () = pause() => {}
        }
        let (caller, people) = (caller.clone(), people.clone());
        if let Err(error) = blocking(move || people.renew(&caller)).await {
            complain(&format!("the demo's tokens could not be renewed: {error}"));
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the demo waits for the wall clock, no test runs this"
)]
async fn pause() {
    actix_rt::time::sleep(RENEW_EVERY).await;
}

fn populate(caller: &Caller, people: &People) -> Result<Seeded, CliError> {
    for tenant in TENANTS {
        people.sign_in(caller, tenant, "owner")?;
        seed::people(caller, people, tenant)?;
        for role in ROLES.into_iter().filter(|&role| role != "owner") {
            people.sign_in(caller, tenant, role)?;
        }
    }
    seed::globex(caller, people)?;
    seed::acme(caller, people)
}

/// Runs what blocks, such as this process calling its own API, off the serving threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(CliError::Failed("the demo panicked".to_owned())))
}
