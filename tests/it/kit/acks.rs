//! What writers were promised, and what is left of it: the oracle of every attack. It trusts nothing
//! that the node says of itself.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// Findings printed; the rest is counted.
const SHOWN_MAX: usize = 20;

/// A create that was sent.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Whose: an index into the homes of the attack.
    pub home: usize,
    /// The form it went to.
    pub form: String,
    /// The name it gives its submission. No other attempt has it.
    pub name: String,
    /// The idempotency key.
    pub key: Option<String>,
    /// When its answer came, in Unix milliseconds; 0 while there is none.
    pub answered_ms: u64,
}

/// What the writers know.
#[derive(Debug, Default)]
pub struct Acks {
    /// Answered with 201 and this id.
    pub acknowledged: Vec<(Attempt, String)>,
    /// Refused or never answered: done or not, but not both and not twice.
    pub unknown: Vec<Attempt>,
    /// Answered with 201 when the power was off already; they are among the unknown ones.
    pub ghosts: usize,
    /// Sent after the disk was gone, and yet answered with 201.
    pub late: Vec<Attempt>,
}

impl Acks {
    pub fn absorb(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.ghosts += other.ghosts;
        self.late.extend(other.late);
    }

    /// Takes what was answered from `cut_ms` on for what it is: not a promise.
    pub fn forget_since(&mut self, cut_ms: u64) {
        let all = std::mem::take(&mut self.acknowledged);
        let (promised, ghosts): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(attempt, _)| attempt.answered_ms < cut_ms);
        self.acknowledged = promised;
        self.ghosts += ghosts.len();
        self.unknown.extend(ghosts.into_iter().map(|(attempt, _)| attempt));
    }

    /// Compares what `list` finds in a form with what was promised about that form, for every form
    /// that `is_wanted`. `list` gives ids and names.
    pub fn compare(
        &self,
        tally: &mut Tally,
        is_wanted: impl Fn(&Attempt) -> bool,
        list: impl Fn(usize, &str) -> Vec<(String, String)>,
    ) {
        let mut forms: HashMap<(usize, &str), Promises<'_>> = HashMap::new();
        for (attempt, id) in self.acknowledged.iter().filter(|(attempt, _)| is_wanted(attempt)) {
            let promises = forms.entry((attempt.home, &attempt.form)).or_default();
            promises.acknowledged.push((&attempt.name, id));
        }
        for attempt in self.unknown.iter().filter(|attempt| is_wanted(attempt)) {
            let promises = forms.entry((attempt.home, &attempt.form)).or_default();
            promises.unknown.insert(&attempt.name);
        }
        for ((home, form), promises) in forms {
            promises.judge(tally, list(home, form));
        }
    }
}

/// The promises about one form.
#[derive(Default)]
struct Promises<'a> {
    acknowledged: Vec<(&'a String, &'a String)>,
    unknown: HashSet<&'a String>,
}

impl Promises<'_> {
    fn judge(self, tally: &mut Tally, found: Vec<(String, String)>) {
        let mut there: HashMap<String, String> = HashMap::new();
        for (id, name) in found {
            if let Some(first) = there.insert(name.clone(), id.clone()) {
                tally.duplicate(format!("{name} was done twice: {first} and {id}"));
            }
        }
        for (name, id) in self.acknowledged {
            match there.remove(name) {
                Some(kept) if kept == *id => {}
                Some(kept) => tally.duplicate(format!("{name} was {id} and is {kept} now")),
                None => tally.lost(format!("{name} was acknowledged as {id} and is gone")),
            }
        }
        for name in there.keys().filter(|name| !self.unknown.contains(name)) {
            tally.duplicate(format!("nobody has asked for {name}"));
        }
    }
}

/// The counts of an attack. Those that have a method of their own must be zero in the end.
#[derive(Debug, Default)]
pub struct Tally {
    attack: &'static str,
    seed: u64,
    tenants: usize,
    pub rounds: u64,
    pub acknowledged: usize,
    pub unanswered: usize,
    pub ghosts: usize,
    pub sent_again: usize,
    /// Records in the histories when they were last verified.
    pub records: u64,
    /// The slowest start after an attack.
    pub reopening_ms_max: u128,
    lost: usize,
    duplicates: usize,
    gaps: usize,
    failed_reopenings: usize,
    late: usize,
    findings: Vec<String>,
}

impl Tally {
    /// Nothing yet. `attack` is one word.
    pub fn new(attack: &'static str, seed: u64, tenants: usize) -> Self {
        Self { attack, seed, tenants, ..Self::default() }
    }
    fn note(&mut self, finding: String) {
        if self.findings.len() < SHOWN_MAX {
            let round = self.rounds;
            self.findings.push(format!("round {round}: {finding}"));
        }
    }
    /// Something acknowledged is gone.
    pub fn lost(&mut self, finding: String) {
        self.lost += 1;
        self.note(finding);
    }
    /// Something was done twice, or that nobody asked for.
    pub fn duplicate(&mut self, finding: String) {
        self.duplicates += 1;
        self.note(finding);
    }
    /// A history does not hold.
    pub fn gap(&mut self, finding: String) {
        self.gaps += 1;
        self.note(finding);
    }
    /// The node did not start again.
    pub fn failed_reopening(&mut self, finding: String) {
        self.failed_reopenings += 1;
        self.note(finding);
    }
    /// Something was acknowledged that cannot be on the disk.
    pub fn late(&mut self, finding: String) {
        self.late += 1;
        self.note(finding);
    }

    /// Whether nothing was found.
    pub fn is_spotless(&self) -> bool {
        self.findings.is_empty()
    }

    /// Prints the counts and fails if one of them is not zero that must be.
    pub fn close(self) {
        println!("{self}");
        assert!(self.is_spotless(), "{self}\n{}", self.findings.join("\n"));
    }
}

/// One line that `tests/attack` reads as well.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ATTACK {} seed={} rounds={} tenants={} acknowledged={} lost={} duplicates={} gaps={} \
             failed_reopenings={} late_acknowledgements={} unanswered={} answered_by_ghosts={} sent_again={} records={} \
             reopening_ms_max={}",
            self.attack,
            self.seed,
            self.rounds,
            self.tenants,
            self.acknowledged,
            self.lost,
            self.duplicates,
            self.gaps,
            self.failed_reopenings,
            self.late,
            self.unanswered,
            self.ghosts,
            self.sent_again,
            self.records,
            self.reopening_ms_max
        )
    }
}
