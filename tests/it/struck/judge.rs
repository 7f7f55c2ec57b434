//! What is asked of a node after its command was struck: first of everybody who had no part in it, then
//! of the command, which is then run again to its end.

use serde_json::json;

use super::template::shown;
use super::{Found, Round, Work, text};
use crate::kit::{Outcome, PASSWORD, Process, Tally, eventually};

impl Round<'_> {
    /// Starts the node again and asks. Nothing if it does not start.
    pub fn judge(self, tally: &mut Tally) -> Option<Found> {
        let node = match self.launcher.try_serve() {
            Ok(node) => node,
            Err(why) => {
                tally.failed_reopening(format!("{:?}: {why}", self.work));
                return None;
            }
        };
        tally.reopening_ms_max = tally.reopening_ms_max.max(node.ready_after.as_millis());
        let found = match self.work {
            Work::Import => self.judge_import(&node, tally),
            Work::Backup => self.judge_backup(tally),
            Work::Restore => self.judge_restore(&node, tally),
            Work::Rotation => self.judge_rotation(tally),
        };
        tally.acknowledged += self.acks.acknowledged.len();
        tally.unanswered += self.acks.unknown.len();
        self.ask_bystanders(&node, tally);
        let verified = self.run(&["audit", "verify", "--json"]);
        if verified.code != 0 || verified.json()["ok"] != json!(true) {
            tally.gap(format!("{:?}: a history does not hold: {verified:?}", self.work));
        }
        drop(node);
        // What was mended once stays so.
        match self.launcher.try_serve() {
            Ok(node) => self.ask_bystanders(&node, tally),
            Err(why) => tally.failed_reopening(format!("a second time, {:?}: {why}", self.work)),
        }
        Some(found)
    }

    /// Everybody else has what they were promised, once, and can write.
    fn ask_bystanders(&self, node: &Process, tally: &mut Tally) {
        let bystanders: Vec<_> = self
            .template
            .bystanders
            .iter()
            .map(|(tenant, form)| (self.owned(&node.client, tenant), form.clone()))
            .collect();
        let list = |home: usize, form: &str| {
            let (tenant, _) = &bystanders[home];
            let mut found = tenant.submissions(form);
            found.retain(|(_, name)| name != "first" && name != "afterwards");
            found
        };
        self.acks.compare(tally, |_| true, list);
        for (tenant, form) in &bystanders {
            let found = tenant.submissions(form);
            if found.first().is_none_or(|(_, name)| name != "first") {
                tally.lost(format!("{} has lost what it had before", tenant.slug));
            }
            tenant.submit(&tenant.owner, form, "afterwards");
        }
    }

    fn again(&self) -> Outcome {
        let words = self.words();
        self.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn judge_import(&self, node: &Process, tally: &mut Tally) -> Found {
        let show = self.run(&["tenant", "show", "mover", "--json"]);
        let standing = match show.code {
            0 => show.json()["status"].as_str().expect("a standing").to_owned(),
            _ => String::new(),
        };
        let found = match standing.as_str() {
            "" => Found::Nothing,
            "active" => Found::All,
            _ => Found::Begun,
        };
        if found != Found::All {
            let body =
                json!({"tenant": "mover", "email": "owner@mover.example", "password": PASSWORD});
            let entered = node.client.call("POST", "/v1/auth/sign-in", Some(&body));
            if entered.status < 400 {
                tally.gap(format!("an import that was not finished is served: {entered:?}"));
            }
            let again = self.again();
            let is_whole = again.code == 1 && again.stderr.contains("is already here");
            if is_whole {
                self.run(&["tenant", "resume", "mover"]).expect(0);
            } else if again.code != 0 {
                tally.lost(format!("an import cannot be repeated: {again:?}"));
                return found;
            }
        }
        let bundle = self.path("again.bundle");
        let words = ["tenant", "export", "mover", "--out", text(&bundle), "--json"];
        let hash = self.run(&words).expect(0).json()["content_hash"].clone();
        if hash != json!(self.template.content_hash) {
            tally.lost(format!("what was taken up is {hash}, not {}", self.template.content_hash));
        }
        found
    }

    fn judge_backup(&self, tally: &mut Tally) -> Found {
        let listed = self.run(&["backup", "list", "--json"]).expect(0).json();
        let count = |what: &str| listed[what].as_array().map_or(0, Vec::len);
        if count("damaged") > 0 {
            tally.lost(format!("a backup that is not believed: {listed}"));
        }
        self.verify_all(tally);
        self.again().expect(0);
        self.verify_all(tally);
        let drill = self.run(&["drill", "--json"]);
        if drill.code != 0 {
            tally.lost(format!("a drill fails: {drill:?}"));
        }
        // The template has one.
        if count("backups") > 1 { Found::All } else { Found::Nothing }
    }

    fn verify_all(&self, tally: &mut Tally) {
        let verified = self.run(&["backup", "verify", "--all", "--json"]);
        if verified.code != 0 {
            tally.lost(format!("a listed backup does not verify: {verified:?}"));
        }
    }

    fn judge_restore(&self, node: &Process, tally: &mut Tally) -> Found {
        let acme = &self.template.acme;
        let (tenant, form) = (self.owned(&node.client, &acme.0), &acme.1);
        let asked = eventually("a restore that is over", || {
            let reply = tenant.owner.call("GET", "/v1/tenant/restores", None);
            let restores = (reply.status == 200).then(|| reply.json()["items"].clone())?;
            let all = restores.as_array().expect("a list").clone();
            all.iter().all(|restore| restore["status"] != "running").then_some(all)
        });
        let found = shown(&tenant, form);
        let is_done = match asked.as_slice() {
            [] => false,
            [restore] if restore["status"] == "done" => true,
            other => {
                tally.lost(format!("restores that were not done: {other:?}"));
                false
            }
        };
        let wanted = if is_done { &self.template.then } else { &self.template.now };
        if found != *wanted {
            tally.lost(format!("half a restore, of which it is said: {asked:?}"));
        }
        self.again().expect(0);
        if shown(&tenant, form) != self.template.then {
            tally.lost("a restore after a restore is another".to_owned());
        }
        if is_done { Found::All } else { Found::Nothing }
    }

    fn judge_rotation(&self, tally: &mut Tally) -> Found {
        let status = || self.run(&["keys", "status", "--json"]).expect(0).json();
        let before = status();
        if before["unreadable"] != json!(0) {
            tally.lost(format!("keys that nothing opens: {before}"));
        }
        let found = match before["rotation"].as_str() {
            Some("interrupted") => Found::Begun,
            _ if before["versions"][0]["id"] == json!(self.template.kek) => Found::Nothing,
            _ => Found::All,
        };
        let resumed = self.run(&["keys", "rotate", "--resume", "--json"]);
        let after = status();
        let is_finished = after["rotation"] == "none" && after["unreadable"] == json!(0);
        if resumed.code != 0 || !is_finished {
            tally.lost(format!("a rotation that cannot be finished: {resumed:?}, {after}"));
        }
        self.again().expect(0);
        let last = status();
        let versions = last["versions"].as_array().map_or(0, Vec::len);
        if versions != 1 || last["versions"][0]["id"] == after["versions"][0]["id"] {
            tally.lost(format!("a next rotation does not rotate: {last}"));
        }
        found
    }
}
