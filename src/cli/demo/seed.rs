//! What the demo begins with: two tenants, their people, and one form through its whole process.

use serde_json::{Value, json};

use crate::cli::CliError;
use crate::cli::demo::caller::{Caller, text};
use crate::cli::demo::people::{People, ROLES};

/// What the printed lines talk about.
pub struct Seeded {
    /// Acme's restricted form.
    pub form: String,
    /// A member's submission to it, approved by an admin.
    pub approved: String,
    /// Another one, waiting for a decision.
    pub waiting: String,
    /// Acme's GitHub integration.
    pub integration: String,
    /// Its secret, which the API shows only once.
    pub secret: String,
}

/// Adds the people that the owners' own sign-up did not make.
pub fn people(caller: &Caller, people: &People, tenant: &str) -> Result<(), CliError> {
    let owner = people.token(tenant, "owner")?;
    for role in ROLES.into_iter().filter(|&role| role != "owner") {
        let body = json!({ "email": People::email(tenant, role), "role": role, "password": people.password() });
        caller.post("/v1/members", Some(&owner), &body)?;
    }
    Ok(())
}

/// Acme: a form with an access list, one submission approved and one waiting, an integration.
pub fn acme(caller: &Caller, people: &People) -> Result<Seeded, CliError> {
    let token = |role| people.token("acme", role);
    let (owner, admin, member) = (token("owner")?, token("admin")?, token("member")?);
    let body = json!({
        "title": "Purchase request",
        "schema": schema(),
        "approval": { "required": true },
    });
    let form = text(&caller.post("/v1/forms", Some(&owner), &body)?, "/id")?;
    let owner_id = people.id("acme", "owner")?;
    let grants = json!({ "grants": [
        { "principal": { "kind": "user", "id": owner_id }, "level": "OWNER" },
        { "principal": { "kind": "role", "id": "admin" }, "level": "REVIEWER" },
        { "principal": { "kind": "role", "id": "member" }, "level": "EDITOR" },
    ]});
    caller.put(&format!("/v1/forms/{form}/acl"), &owner, &grants)?;

    let submissions = format!("/v1/forms/{form}/submissions");
    let submit = |item: &str, cents: u64| -> Result<String, CliError> {
        let body = json!({ "data": { "item": item, "cents": cents } });
        text(&caller.post(&submissions, Some(&member), &body)?, "/id")
    };
    let approved = submit("A standing desk", 48_900)?;
    let comment = json!({ "text": "Within this quarter's budget." });
    caller.post(&format!("{submissions}/{approved}/comment"), Some(&admin), &comment)?;
    let approval = json!({ "comment": "Go ahead." });
    caller.post(&format!("{submissions}/{approved}/approve"), Some(&admin), &approval)?;
    let waiting = submit("Two monitors", 61_800)?;

    let body = json!({ "source": "github", "name": "Source control" });
    let made = caller.post("/v1/integrations", Some(&owner), &body)?;
    let secret = secret_of(&made)?;
    Ok(Seeded { form, approved, waiting, integration: text(&made, "/id")?, secret })
}

/// Globex: one form, which is all its plan allows.
pub fn globex(caller: &Caller, people: &People) -> Result<(), CliError> {
    let body = json!({ "title": "Visitor log", "schema": { "type": "object" } });
    caller.post("/v1/forms", Some(&people.token("globex", "owner")?), &body)?;
    Ok(())
}

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["item", "cents"],
        "additionalProperties": false,
        "properties": {
            "item": { "type": "string", "minLength": 1, "maxLength": 200 },
            "cents": { "type": "integer", "minimum": 1 },
        },
    })
}

/// The secret in the answer to a creation.
fn secret_of(made: &Value) -> Result<String, CliError> {
    text(made, "/secret").or_else(|_| text(made, "/secrets/0/secret"))
}
