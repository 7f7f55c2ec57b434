//! A random workload against a model of it: every answer there was, by the time it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actors::env::{Clock as _, parse_rfc3339, rfc3339};
use serde_json::{Value, json};

use super::{ids, items, log, then};
use crate::kit::{Dice, Reply, Tenant, TestClock, World, WorldOptions, name_schema, restore_to};

/// Answers by path.
type Answers = BTreeMap<String, Value>;

/// A tenant at work, and a model of it: after each change when that was, and every answer from then on.
struct Work {
    acme: Tenant,
    clock: Arc<TestClock>,
    dice: Dice,
    past: Vec<(u64, Answers)>,
    serial: u64,
}

impl Work {
    fn begin(world: &World, clock: Arc<TestClock>, dice: Dice) -> Self {
        let mut work =
            Self { acme: world.tenant("acme"), clock, dice, past: Vec::new(), serial: 0 };
        work.remember();
        work
    }

    fn get(&self, path: &str) -> Value {
        self.acme.owner.get(path, 200).json()
    }

    /// What is answered now, on every path there is.
    fn answers(&self) -> Answers {
        let mut answers = Answers::new();
        for path in ["/v1/forms?limit=200", "/v1/members?limit=200", "/v1/teams?limit=200"] {
            answers.insert(path.to_owned(), self.get(path));
        }
        let kinds =
            [("/v1/members", "/v1/members?limit=200"), ("/v1/teams", "/v1/teams?limit=200")];
        for (kind, list) in kinds {
            for id in ids(&answers[list]) {
                let path = format!("{kind}/{id}");
                answers.insert(path.clone(), self.get(&path));
            }
        }
        for form in ids(&answers["/v1/forms?limit=200"]) {
            let place = format!("/v1/forms/{form}");
            answers.insert(place.clone(), self.get(&place));
            let list = format!("{place}/submissions?limit=200");
            let page = self.get(&list);
            if let Some(last) = ids(&page).last() {
                let one = format!("{place}/submissions/{last}");
                let comments = format!("{one}/comments");
                answers.insert(comments.clone(), self.get(&comments));
                answers.insert(one.clone(), self.get(&one));
            }
            answers.insert(list, page);
        }
        answers
    }

    fn remember(&mut self) {
        self.past.push((self.clock.now_ms(), self.answers()));
    }

    fn now(&self) -> &Answers {
        &self.past.last().expect("something is remembered").1
    }

    fn pick(&mut self, list: &str) -> Option<String> {
        let all = ids(&self.now()[list]);
        let at = self.dice.below(all.len().max(1) as u64);
        all.into_iter().nth(usize::try_from(at).expect("an index"))
    }

    fn pick_form(&mut self) -> Option<String> {
        let form = self.pick("/v1/forms?limit=200")?;
        let is_open = self.now()[&format!("/v1/forms/{form}")]["status"] != "archived";
        is_open.then_some(form)
    }

    /// After a while, one change that is remembered.
    fn step(&mut self) {
        self.clock.advance(Duration::from_millis(1 + self.dice.below(3_000)));
        self.serial += 1;
        let name = format!("Number {}", self.serial);
        if self.change(&name).is_some() {
            self.remember();
        }
    }

    /// One change, if it can be made.
    fn change(&mut self, name: &str) -> Option<Reply> {
        let owner = self.acme.owner.clone();
        let forms = "/v1/forms";
        Some(match self.dice.below(10) {
            0 | 1 => {
                let body = json!({"title": name, "schema": name_schema()});
                owner.post(forms, body, 201)
            }
            2 => {
                let form = self.pick_form()?;
                owner.patch(&format!("{forms}/{form}"), json!({"title": name}), 200)
            }
            3 => {
                let form = self.pick_form()?;
                owner.delete(&format!("{forms}/{form}"), 204)
            }
            4..=6 => {
                let form = self.pick_form()?;
                let body = json!({"data": {"name": name}});
                owner.post(&format!("{forms}/{form}/submissions"), body, 201)
            }
            7 => {
                let place = format!("{forms}/{}/submissions", self.pick_form()?);
                let at = format!("{place}/{}", self.pick(&format!("{place}?limit=200"))?);
                if self.dice.below(2) == 0 {
                    owner.delete(&at, 204)
                } else {
                    owner.post(&format!("{at}/comment"), json!({"text": name}), 201)
                }
            }
            8 => owner.post("/v1/teams", json!({"name": name, "members": []}), 201),
            _ => {
                let team = self.pick("/v1/teams?limit=200")?;
                owner.delete(&format!("/v1/teams/{team}"), 204)
            }
        })
    }

    /// A time within what is remembered, and what was answered then.
    fn moment(&mut self) -> (u64, u64, Answers) {
        let (from, until) = (self.past[0].0, self.clock.now_ms());
        let at_ms = from + self.dice.below(until - from + 1);
        let known = self.past.iter().rev().find(|(since, _)| *since <= at_ms);
        let (since, answers) = known.expect("nothing is older than the first").clone();
        (at_ms, since, answers)
    }

    /// Every path that ever led anywhere.
    fn paths(&self) -> Vec<String> {
        let all: BTreeSet<_> =
            self.past.iter().flat_map(|(_, answers)| answers.keys().cloned()).collect();
        all.into_iter().collect()
    }

    /// Looks at a random moment on every path; answers how many comparisons that were.
    fn look_back(&mut self) -> usize {
        let (at_ms, since, answers) = self.moment();
        let paths = self.paths();
        for path in &paths {
            let reply = then(&self.acme.owner, path, at_ms);
            let what = format!("{path} as of {}", rfc3339(at_ms));
            match answers.get(path) {
                Some(expected) => {
                    assert_eq!(reply.status, 200, "{what}: {}", reply.text());
                    assert_eq!(&reply.json(), expected, "{what}");
                    assert_eq!(reply.header("etag"), None, "{what}");
                    let stamp = reply.header("bulkhead-as-of").expect("a stamp");
                    assert_eq!(parse_rfc3339(stamp), Some(since), "{what}: stamped {stamp}");
                }
                // What was gone from the lists may still have been there by its name.
                None => assert!([200, 404].contains(&reply.status), "{what}: {}", reply.text()),
            }
        }
        paths.len()
    }

    /// Goes back to a random moment, and on from there.
    fn go_back(&mut self) {
        self.clock.advance(Duration::from_secs(1));
        let (at_ms, _, expected) = self.moment();
        let before = log(&self.acme.owner);
        let asked = restore_to(&self.acme.owner, &rfc3339(at_ms));
        let restored = self.acme.owner.get(asked.header("location").expect("a place"), 200);
        assert_eq!(restored.str("/status"), "done", "{}", restored.text());
        assert_eq!(restored.str("/at"), rfc3339(at_ms));
        self.remember();
        assert_eq!(self.now(), &expected, "the present is not what was at {}", rfc3339(at_ms));

        let after = log(&self.acme.owner);
        assert_eq!(after[..before.len()], before, "an old entry changed");
        let told: Vec<_> = after[before.len()..]
            .iter()
            .map(|entry| (entry["action"].clone(), entry["detail"]["restore"].clone()))
            .collect();
        let id = json!(asked.str("/id"));
        let both = ["tenant.restore_request", "tenant.restore"];
        assert_eq!(told, both.map(|action| (json!(action), id.clone())));
        let verified = self.acme.owner.get("/v1/audit/verify", 200).json();
        assert_eq!(verified["ok"], true, "{verified}");
        self.recount();
    }

    /// The quotas say what a count of the lists says.
    fn recount(&self) {
        let lists = self.now();
        let forms = items(&lists["/v1/forms?limit=200"]);
        let open = forms.iter().filter(|form| form["status"] != "archived").count();
        let submissions: usize = lists
            .iter()
            .filter(|(path, _)| path.ends_with("/submissions?limit=200"))
            .map(|(_, page)| items(page).len())
            .sum();
        let members = items(&lists["/v1/members?limit=200"]).len();
        let used = self.get("/v1/usage");
        let of = |quota: &str| used["quotas"][quota]["used"].clone();
        let counted = [members, open, submissions].map(|count| json!(count));
        assert_eq!(["members", "forms", "submissions"].map(of), counted);
    }
}

#[test]
fn what_was_is_answered_as_it_was_and_comes_back_as_it_was() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let mut work = Work::begin(&world, clock, Dice::thrown("time travel"));
    let (mut looks, mut restores) = (0, 0);
    for step in 1..=40 {
        work.step();
        if step % 8 == 0 {
            looks += work.look_back();
        }
        if step % 13 == 0 {
            work.go_back();
            restores += 1;
            looks += work.look_back();
        }
    }
    println!("time travel: {looks} looks and {restores} restores equal the model");
}
