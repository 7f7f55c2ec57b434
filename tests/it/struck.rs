//! kill −9 in the midst of what operators do: a tenant is taken up, taken back to an earlier time, the
//! node is backed up, its keys are wrapped anew. Afterwards either nothing of it was done or all of it,
//! or it says itself that it is to be finished; and nobody else has noticed.
//!
//! Every round begins with a copy of one template directory, so that a round can be repeated alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actors::env::{Clock, SystemClock};
use serde_json::json;

use crate::kit::{
    Acks, Attempt, Client, Dice, Launcher, Outcome, Process, Tally, Tenant, eventually, number_from,
};

mod judge;
mod template;

use template::Template;

/// Rounds of the quick form: every command on a running and on a stopped node.
const ROUNDS: u64 = 8;
/// How long a command is thought to take before one was seen to end.
const FIRST_BOUND: Duration = Duration::from_millis(250);

/// Commands write about that much.
const WRITTEN_MAX: u64 = 5 << 18;

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Import,
    Backup,
    Restore,
    Rotation,
}

const WORKS: [Work; 4] = [Work::Import, Work::Backup, Work::Restore, Work::Rotation];

/// When it is struck, if it is not over by then.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after its start.
    After(Duration),
    /// When the log and the archive take so many bytes more of the disk.
    Written(u64),
}

/// What was found of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// Begun, and it says so: the same command brings it to its end.
    Begun,
    All,
}

/// How the rounds came out, and how long each command takes at most.
#[derive(Debug, Default)]
struct Course {
    nothing: u64,
    begun: u64,
    all: u64,
    struck: u64,
    bounds: BTreeMap<(Work, bool), Duration>,
}

impl Course {
    fn count(&mut self, found: Found) {
        match found {
            Found::Nothing => self.nothing += 1,
            Found::Begun => self.begun += 1,
            Found::All => self.all += 1,
        }
    }
}

/// One round: a copy of the template, what is done to it, and what others were promised meanwhile.
pub struct Round<'a> {
    pub template: &'a Template,
    pub work: Work,
    pub launcher: Launcher,
    dir: tempfile::TempDir,
    /// Whether a node serves while the command runs, and is what is killed.
    is_live: bool,
    acks: Acks,
    /// Access tokens of now, by short name: those of the template's time may be too old.
    tokens: RefCell<BTreeMap<String, String>>,
}

impl<'a> Round<'a> {
    fn new(template: &'a Template, work: Work, is_live: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        copy_dir(&template.data(), &data);
        let launcher = template::launcher(&data);
        let (acks, tokens) = (Acks::default(), RefCell::default());
        Self { template, work, launcher, dir, is_live, acks, tokens }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn run(&self, words: &[&str]) -> Outcome {
        self.launcher.run(words)
    }

    /// A tenant of the template at this round's node.
    pub fn owned(&self, client: &Client, tenant: &Tenant) -> Tenant {
        let mut tokens = self.tokens.borrow_mut();
        let token = tokens.entry(tenant.slug.clone()).or_insert_with(|| {
            let body = json!({"refresh_token": tenant.refresh_token});
            client.post("/v1/auth/refresh", body, 200).str("/access_token")
        });
        Tenant { owner: client.with_token(token), ..tenant.clone() }
    }

    /// The words of the command.
    pub fn words(&self) -> Vec<String> {
        let template = self.template;
        let words: &[&str] = match self.work {
            Work::Import => &[
                "tenant",
                "import",
                text(&template.bundle),
                "--key-file",
                text(&template.key),
                "--trust",
                &template.signer,
            ],
            Work::Backup => &["backup", "run"],
            Work::Restore => &["tenant", "restore", "--tenant", "acme", "--at", &template.at],
            Work::Rotation => &["keys", "rotate"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn launch(&self) -> Process {
        let words = self.words();
        self.launcher.launch(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts the command and kills whoever does the work at that moment: the node, or the command itself
    /// where there is none. Answers how long the command took, if it was quicker.
    fn strike(&mut self, moment: Moment) -> Option<Duration> {
        if self.is_live {
            return self.strike_live(moment);
        }
        let mut command = self.launch();
        let took = until_over_or(&mut command, &self.launcher.data, moment);
        command.kill();
        took
    }

    /// The node is killed, under people who write.
    fn strike_live(&mut self, moment: Moment) -> Option<Duration> {
        let mut node = self.launcher.serve();
        // Over connections of their own.
        let client = Client::new(&node.client.base);
        let bystanders = self.template.bystanders.iter();
        let tenants: Vec<_> =
            bystanders.map(|(tenant, form)| (self.owned(&client, tenant), form)).collect();
        let (mut took, mut acks) = (None, Acks::default());
        let mut command = self.launch();
        std::thread::scope(|scope| {
            let writers: Vec<_> = tenants
                .iter()
                .enumerate()
                .map(|(home, (tenant, form))| scope.spawn(move || write(home, tenant, form)))
                .collect();
            took = until_over_or(&mut command, &self.launcher.data, moment);
            node.kill();
            // Nobody answers it any more.
            command.kill();
            for writer in writers {
                acks.absorb(writer.join().expect("a writer that ends"));
            }
        });
        self.acks = acks;
        took
    }
}

/// Waits until a command is over, but no longer than until that moment. How long it took, if it is over.
fn until_over_or(command: &mut Process, data: &Path, moment: Moment) -> Option<Duration> {
    let (clock, before) = (SystemClock::new(), bytes_on_disk(data));
    eventually("the moment of the strike", || {
        let is_over = command.is_over();
        let passed = clock.monotonic();
        let is_due = match moment {
            Moment::After(after) => passed >= after,
            Moment::Written(bytes) => bytes_on_disk(data) >= before + bytes,
        };
        (is_over || is_due).then_some(is_over.then_some(passed))
    })
}

/// What the log and the archive take.
fn bytes_on_disk(data: &Path) -> u64 {
    let mut bytes = 0;
    for folder in ["log", "archive/segments", "archive/snapshots", "archive/backups"] {
        let files = fs::read_dir(data.join(folder)).into_iter().flatten();
        // A file may go while one looks.
        bytes +=
            files.flatten().flat_map(|file| file.metadata()).map(|file| file.len()).sum::<u64>();
    }
    bytes
}

/// Writes into a bystander's form until nobody answers any more.
fn write(home: usize, tenant: &Tenant, form: &str) -> Acks {
    let mut acks = Acks::default();
    for step in 0_u64.. {
        let name = format!("meanwhile-{home}-{step}");
        let body = json!({"data": {"name": name}}).to_string();
        let attempt = Attempt { home, form: form.to_owned(), name, key: None, answered_ms: 0 };
        let place = format!("/v1/forms/{form}/submissions");
        match tenant.owner.try_send("POST", &place, Some("application/json"), body.as_bytes()) {
            Ok(reply) if reply.status == 201 => {
                acks.acknowledged.push((attempt, reply.str("/id")));
            }
            Ok(reply) => panic!("refused: {reply:?}"),
            Err(_) => {
                acks.unknown.push(attempt);
                break;
            }
        }
    }
    acks
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Copies a directory with all that is in it. Nobody writes into it meanwhile.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("a type").is_dir() {
            true => copy_dir(&from, &to),
            false => drop(fs::copy(&from, &to).expect("a copy")),
        }
    }
}

#[test]
fn a_command_killed_at_any_time_is_done_or_not_or_says_so_and_nobody_else_notices() {
    let rounds = number_from("BULKHEAD_ATTACK_ROUNDS", ROUNDS);
    let mut dice = Dice::thrown_by("commands", "BULKHEAD_ATTACK_SEED");
    let template = Template::make(&mut dice);
    let mut tally = Tally::new("commands", dice.seed(), 2 + template.bystanders.len());
    let mut course = Course::default();
    for at in 0..rounds {
        let work = WORKS[usize::try_from(at % 4).expect("small")];
        let is_live = at / 4 % 2 == 0;
        let mut round = Round::new(&template, work, is_live);
        let bound = course.bounds.entry((work, is_live)).or_insert(FIRST_BOUND);
        let millis = u64::try_from(bound.as_millis()).expect("a short time");
        let moment = match dice.below(2) {
            0 if work != Work::Rotation => Moment::Written(dice.below(WRITTEN_MAX) + 1),
            _ => Moment::After(Duration::from_millis(dice.below(millis + 1))),
        };
        match round.strike(moment) {
            // Later strikes hit earlier; a little beyond the end is of use as well.
            Some(took) => *bound = took,
            None => {
                *bound = bound.mul_f64(1.1);
                course.struck += 1;
            }
        }
        let before = (course.nothing, course.begun, course.all);
        if let Some(found) = round.judge(&mut tally) {
            course.count(found);
        }
        tally.rounds += 1;
        println!(
            "round {at}: {work:?} {} struck {moment:?}: {before:?} -> {:?}",
            if is_live { "on a running node" } else { "on a stopped node" },
            (course.nothing, course.begun, course.all)
        );
        if !tally.is_spotless() {
            break;
        }
    }
    let Course { nothing, begun, all, struck, .. } = &course;
    println!(
        "commands: {struck} of {rounds} struck midway; found: {nothing} nothing, {begun} begun, {all} all"
    );
    tally.close();
}
