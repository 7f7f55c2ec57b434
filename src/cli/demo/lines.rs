//! The lines a newcomer pastes. Each stands alone: it needs no line before it and no variable.

use std::fmt::Write;
use std::path::Path;

use crate::cli::demo::people::{People, ROLES, TENANTS};
use crate::cli::demo::seed::Seeded;

/// What the lines are about.
pub struct Scene<'a> {
    /// URL of the API.
    pub http: &'a str,
    /// The API's address in a browser.
    pub browsers: &'a str,
    /// URL of the operators' listener.
    pub ops: &'a str,
    /// The data directory.
    pub data: &'a Path,
    /// The program itself.
    pub program: &'a Path,
    /// Who there is.
    pub people: &'a People,
    /// What they made.
    pub seeded: &'a Seeded,
}

/// Shows body and status.
const CURL: &str = r"curl -sS -w '\n%{http_code}\n'";

impl Scene<'_> {
    /// Everything to print.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.head(&mut text).expect("a String takes any text");
        for (title, lines) in self.lines() {
            write!(text, "\n# {title}\n{lines}\n").expect("a String takes any text");
        }
        text
    }

    fn head(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "bulkhead demo is ready; Ctrl-C ends it\n")?;
        writeln!(text, "  API        {}  (open {}/docs)", self.http, self.browsers)?;
        writeln!(text, "  operators  {}/actors", self.ops)?;
        writeln!(text, "  data       {}\n", self.data.display())?;
        writeln!(text, "  Two tenants ({}), in each: {}", TENANTS.join(", "), ROLES.join(", "))?;
        writeln!(text, "  e-mail ROLE@TENANT.example, password {}", self.people.password())?;
        writeln!(text, "\nPaste any of these lines; tokens are renewed while the demo runs.")
    }

    /// `-H @FILE` for somebody.
    fn as_(&self, tenant: &str, role: &str) -> String {
        format!("-H @{}", quoted(&self.people.header_file(tenant, role).display().to_string()))
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let Seeded { form, approved, .. } = self.seeded;
        let submission = format!("{}/v1/forms/{form}/submissions/{approved}", self.http);
        let get = |who: String, url: String| format!("{CURL} {who} {}", quoted(&url));
        let mut lines = vec![
            (
                "200, with an ETag: a member of acme reads their own submission, approved by an admin",
                get(format!("-i {}", self.as_("acme", "member")), submission.clone()),
            ),
            (
                "404: the owner of globex asks for the same submission; it might as well not exist",
                get(self.as_("globex", "owner"), submission.clone()),
            ),
            (
                "404, the same bytes: a submission that does not exist",
                get(self.as_("globex", "owner"), absent(&submission)),
            ),
        ];
        lines.extend(self.process());
        lines.extend(self.limits());
        lines.extend(self.webhooks());
        lines.extend(self.audit());
        lines.extend(self.operators());
        lines
    }

    fn process(&self) -> Vec<(&'static str, String)> {
        let Seeded { form, waiting, .. } = self.seeded;
        let http = self.http;
        let decide = format!("{http}/v1/forms/{form}/submissions/{waiting}/approve");
        let submit = format!("{http}/v1/forms/{form}/submissions");
        let form_body = r#"{"title":"Mine","schema":{"type":"object"}}"#;
        vec![
            (
                "403: a viewer may look, not create",
                self.post("acme", "viewer", &format!("{http}/v1/forms"), form_body),
            ),
            (
                "422: a submission that breaks the form's schema, with a JSON pointer to what is wrong",
                self.post("acme", "member", &submit, r#"{"data":{"item":"Cake","cents":-1}}"#),
            ),
            (
                "201: a good one",
                self.post("acme", "member", &submit, r#"{"data":{"item":"Cake","cents":1800}}"#),
            ),
            (
                "403: this form has an access list, so a member without a REVIEWER grant approves nothing",
                self.post("acme", "member", &decide, "{}"),
            ),
            (
                "200: an admin approves it (409 the second time)",
                self.post("acme", "admin", &decide, r#"{"comment":"Fine."}"#),
            ),
        ]
    }

    fn audit(&self) -> Vec<(&'static str, String)> {
        let http = self.http;
        vec![
            (
                "200: the owner reads the audit log: changes, and refusals for lack of rights",
                format!("{CURL} {} '{http}/v1/audit?limit=20'", self.as_("acme", "owner")),
            ),
            (
                "200: the same chain, verified",
                format!("{CURL} {} '{http}/v1/audit/verify'", self.as_("acme", "owner")),
            ),
        ]
    }

    fn post(&self, tenant: &str, role: &str, url: &str, body: &str) -> String {
        let who = self.as_(tenant, role);
        format!(
            "{CURL} {who} -H 'Content-Type: application/json' -d {} {}",
            quoted(body),
            quoted(url)
        )
    }

    fn limits(&self) -> Vec<(&'static str, String)> {
        let http = self.http;
        let sign_in = quoted(
            r#"{"tenant":"acme","email":"nobody@acme.example","password":"not the password"}"#,
        );
        let url = quoted(&format!("{http}/v1/auth/sign-in"));
        vec![
            (
                "402: globex is on a plan of one form, and has one",
                self.post(
                    "globex",
                    "owner",
                    &format!("{http}/v1/forms"),
                    r#"{"title":"Second","schema":{"type":"object"}}"#,
                ),
            ),
            (
                "200: what counts against its plan",
                format!("{CURL} {} '{http}/v1/usage'", self.as_("globex", "owner")),
            ),
            (
                "401 ten times, then 429: guessing one account's password",
                format!(
                    "for i in $(seq 12); do curl -sS -o /dev/null -w '%{{http_code}} ' -H 'Content-Type: application/json' -d {sign_in} {url}; done; echo"
                ),
            ),
            (
                "429 with Retry-After and RateLimit headers",
                format!("curl -sS -i -H 'Content-Type: application/json' -d {sign_in} {url}; echo"),
            ),
        ]
    }

    fn webhooks(&self) -> Vec<(&'static str, String)> {
        let Seeded { integration, secret, .. } = self.seeded;
        let url = quoted(&format!("{}/v1/hooks/acme/{integration}", self.http));
        let events = format!("{}/v1/integrations/{integration}/events", self.http);
        let deliver = |sent: &str| {
            let signed = r#"{"zen":"Keep it logically awesome."}"#;
            format!(
                "SIGNATURE=$(printf %s {} | openssl dgst -sha256 -hmac {} | sed 's/^.* //'); {CURL} -H 'Content-Type: application/json' -H 'X-GitHub-Event: ping' -H 'X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958' -H \"X-Hub-Signature-256: sha256=$SIGNATURE\" --data-binary {} {url}",
                quoted(signed),
                quoted(secret),
                quoted(sent)
            )
        };
        vec![
            (
                "200: a webhook signed as GitHub signs; paste it twice: a replay is answered alike",
                deliver(r#"{"zen":"Keep it logically awesome."}"#),
            ),
            (
                "401: the same signature over another body",
                deliver(r#"{"zen":"Keep it logically awful."}"#),
            ),
            (
                "200: what was received; a replay is in it once",
                format!("{CURL} {} {}", self.as_("acme", "admin"), quoted(&events)),
            ),
        ]
    }

    fn operators(&self) -> Vec<(&'static str, String)> {
        let ops = self.ops;
        let program = quoted(&self.program.display().to_string());
        let data = quoted(&self.data.display().to_string());
        vec![
            (
                "operators: readiness, actors, metrics",
                format!(
                    "curl -sS {ops}/readyz; echo; curl -sS {ops}/actors; echo; curl -sS {ops}/metrics | grep ^bulkhead_ | head -30"
                ),
            ),
            (
                "every tenant's chain, against the newest signed checkpoint",
                format!("{program} audit verify --data {data}"),
            ),
        ]
    }
}

/// The same URL with another last digit of the id.
fn absent(url: &str) -> String {
    let (rest, last) = url.split_at(url.len() - 1);
    format!("{rest}{}", if last == "0" { '1' } else { '0' })
}

/// A word that bash takes literally.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn bash_takes_a_quoted_text_literally() {
        for text in ["a b", "it's", "$HOME `x` \\ \"y\"", r#"{"a":"b!"}"#] {
            let output =
                Command::new("bash").args(["-c", &format!("printf %s {}", quoted(text))]).output();
            assert_eq!(output.expect("bash runs").stdout, text.as_bytes());
        }
    }

    #[test]
    fn every_line_is_one_line_that_bash_can_parse() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let people = People::new("pass".to_owned(), dir.path());
        let id = |prefix: &str| format!("{prefix}_{}", "0".repeat(32));
        let seeded = Seeded {
            form: id("fm"),
            approved: id("sb"),
            waiting: id("sb"),
            integration: id("in"),
            secret: "secret".to_owned(),
        };
        let scene = Scene {
            http: "http://127.0.0.1:8080",
            browsers: "http://localhost:8080",
            ops: "http://127.0.0.1:9090",
            data: dir.path(),
            program: Path::new("/bin/bulkhead"),
            people: &people,
            seeded: &seeded,
        };
        for (title, line) in scene.lines() {
            assert!(!line.contains('\n'), "{title}");
            let parsed =
                Command::new("bash").args(["-n", "-c", &line]).status().expect("bash runs");
            assert!(parsed.success(), "{title}: {line}");
        }
    }
}
