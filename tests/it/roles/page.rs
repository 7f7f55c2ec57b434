//! `docs/roles.md`: made from the tables, and read back as what the tests expect.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use actors::permit::{CAPABILITIES, Role};
use actors::tenant::acl::{FormAction, Level};

const TEXT: &str = include_str!("../../../docs/roles.md");
/// The column for API keys.
pub const KEY: &str = "API key";
/// The columns of the matrix.
pub const COLUMNS: [&str; 7] =
    ["owner", "admin", "member", "viewer", "customer", "platform-admin", KEY];
const YES: &str = "✓";
const NO: &str = "–";

const HEAD: &str = "\
# Roles, capabilities and access lists of forms

Who may do what. The tables are those that the server checks (`actors/src/permit.rs`, `actors/src/tenant/acl.rs`) and publishes at
`/v1/meta/capabilities`; this page is made from them by a test, and another one calls every route as everybody and compares it with this page
(`tests/it/roles.rs`).

| principal | is |
| --- | --- |
| owner | may do everything within the tenant; there is always one |
| admin | runs the tenant, short of what only owners may |
| member | works with forms and submissions; `staff` is an alias |
| viewer | may look, not touch |
| customer | an end user outside the organisation: own records only |
| platform-admin | runs the platform from a compartment of its own; sees no tenant's content |
| API key | a program in the place of whoever made it, with the scopes it was given, as far as that person still has them |

Without a credential nothing of a tenant can be had (`401`). Of a suspended tenant nobody of it has anything (`403`, `tenant-suspended`).

## Capabilities

A refusal of a capability in *italics* is written to the tenant's audit log. The last column says whether an API key can have it, as a scope. The three
without a role are not for people: signing in, delivering a webhook and running the node.

";

const FORMS: &str = "
## Access lists of forms

A form without an access list is open: the capability decides, but archiving it and setting its list are for its creator, owners and admins. A form with
one is restricted: then the role's capability *and* a grant have to allow what is done. Grants go to a person, a role or a team, at one of three levels.

";

/// The page as it should be.
fn made() -> String {
    let mut text = String::from(HEAD);
    table(&mut text, "capability", &COLUMNS, "lets one");
    for row in CAPABILITIES {
        let name =
            if row.privileged { format!("*`{}`*", row.name) } else { format!("`{}`", row.name) };
        let cell = |column: &&str| match Role::parse(column) {
            Some(role) => row.roles.contains(role),
            None => row.is_scope(),
        };
        line(&mut text, &name, COLUMNS.iter().map(cell), row.means);
    }
    text.push_str(FORMS);
    table(&mut text, "action", &Level::ALL.map(Level::name), "is");
    for action in FormAction::ALL {
        let cells = Level::ALL.into_iter().map(|level| level.allows(action));
        let means = format!("{} Takes `{}`.", action.means(), action.capability().name);
        line(&mut text, &format!("`{}`", action.name()), cells, &means);
    }
    text
}

fn table(text: &mut String, first: &str, columns: &[&str], last: &str) {
    let rule = " :-: |".repeat(columns.len());
    // A failed write to a `String` cannot happen.
    let _ = writeln!(text, "| {first} | {} | {last} |\n| --- |{rule} --- |", columns.join(" | "));
}

fn line(text: &mut String, name: &str, cells: impl Iterator<Item = bool>, means: &str) {
    let cells: Vec<_> = cells.map(|is| if is { YES } else { NO }).collect();
    let _ = writeln!(text, "| {name} | {} | {means} |", cells.join(" | "));
}

/// What the page says.
#[derive(Clone)]
pub struct Page {
    /// Names and columns that are ticked.
    ticked: BTreeSet<(String, String)>,
}

impl Page {
    /// Reads the page as it lies in the repository.
    pub fn read() -> Self {
        let mut ticked = BTreeSet::new();
        let mut columns: Vec<&str> = Vec::new();
        for line in TEXT.lines() {
            let Some(inner) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |"))
            else {
                columns.clear();
                continue;
            };
            let cells: Vec<&str> = inner.split(" | ").collect();
            if columns.is_empty() {
                columns = cells;
                continue;
            }
            let name = cells[0].trim_matches(['*', '`']);
            for (column, cell) in columns.iter().zip(&cells) {
                if *cell == YES {
                    ticked.insert((name.to_owned(), (*column).to_owned()));
                }
            }
        }
        Self { ticked }
    }

    /// Whether the cell is ticked.
    pub fn allows(&self, name: &str, column: &str) -> bool {
        self.ticked.contains(&(name.to_owned(), column.to_owned()))
    }

    /// The same page with one cell turned over.
    pub fn turned(&self, name: &str, column: &str) -> Self {
        let cell = (name.to_owned(), column.to_owned());
        let mut turned = self.clone();
        if !turned.ticked.remove(&cell) {
            turned.ticked.insert(cell);
        }
        turned
    }
}

#[test]
fn the_page_of_roles_is_the_tables() {
    let made = made();
    if TEXT != made {
        let path = std::env::temp_dir().join("roles.md");
        std::fs::write(&path, made).expect("a writable temporary directory");
        panic!("docs/roles.md is not the tables; copy {} over it", path.display());
    }
}
