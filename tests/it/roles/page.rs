//! `docs/roles.md`: made from the tables, and read back as what the tests expect.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use actors::permit::{CAPABILITIES, Role};
use actors::tenant::acl::{FormAction, Level};

const TEXT: &str = include_str!("../../../docs/roles.md");
/// The column for API keys.
pub const KEY: &str = "API key";
/// The column for support sessions.
pub const SUPPORT: &str = "support";
/// The columns of the matrix.
pub const COLUMNS: [&str; 8] =
    ["owner", "admin", "member", "viewer", "customer", "platform-admin", SUPPORT, KEY];
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
| support | a platform administrator in a support session: for a reason, for a while, in the tenant's own log; no form with an access list |
| API key | a program in the place of whoever made it, with the scopes it was given, as far as that person still has them |

Without a credential nothing of a tenant can be had (`401`). Of a suspended tenant nobody of it has anything (`403`, `tenant-suspended`).

## Capabilities

A refusal of a capability in *italics* is written to the tenant's audit log. The last column says whether an API key can have it, as a scope; that for
support, what a session can show, and of changes, what it can make if the tenant approved them. The three without a role are not for people: signing in,
delivering a webhook and running the node.

";

const FORMS: &str = "
## Access lists of forms

A form without an access list is open: the capability decides, but archiving it and setting its list are for its creator, owners and admins, and its
trail is for owners and admins. A form with one is restricted: then the role's capability *and* a grant have to allow what is done. Grants go to a
person, a role or a team, at one of three levels.

";

const RULES_HEAD: &str = "
## Rules

Each is held by the tests named beside it, in `tests/it/acl/rules.rs`.

| # | rule | test |
| --- | --- | --- |
";

/// The rules, each with the tests that hold it.
const RULES: [(&str, &[&str]); 10] = [
    (
        "Without an access list the role decides. With one, role and grant both have to allow an act: a list narrows, and lifts nobody above their role. To members, viewers and customers without a grant the form is absent",
        &[
            "rule_1_all_nine_kinds_of_grant_allow_exactly_their_column",
            "rule_1_without_a_list_the_role_decides_and_a_list_only_narrows",
            "rule_1_a_restricted_form_is_absent_for_whoever_has_no_grant",
        ],
    ),
    (
        "Grants go to a person, a role or a team. Of several each adds what it allows; none takes anything away",
        &["rule_2_the_best_of_several_grants_counts_and_none_takes_away"],
    ),
    (
        "Owners and admins may set any list, on record, and do not read by that. An owner without a grant reads with a reason; the form's trail, which its OWNERs read, tells of it",
        &["rule_3_owners_and_admins_set_any_list_and_only_owners_read_with_a_reason"],
    ),
    (
        "A list keeps an OWNER and a tenant an owner: taking the last one away is `409`, and so is removing or leaving as the last one, or deleting the team that is",
        &["rule_4_the_last_owner_of_a_form_and_of_a_tenant_stays"],
    ),
    (
        "Nobody decides on a submission of their own, by an API key of theirs neither: `403`, `four-eyes`",
        &["rule_5_nobody_decides_on_a_submission_of_their_own"],
    ),
    (
        "Nobody gives a role or a scope above their own, themselves included: `403`",
        &["rule_6_nobody_gives_a_role_or_a_scope_above_their_own"],
    ),
    (
        "A changed role, team or grant counts at the next request. A token from before a change of role is `401`: refresh it",
        &["rule_7_a_changed_role_team_or_grant_counts_at_the_next_request"],
    ),
    (
        "A role is one tenant's. The same address in another tenant is another person, with a role of its own",
        &["rule_8_a_role_in_one_tenant_is_none_in_another"],
    ),
    (
        "The grants of a team or person that is deleted are gone with it; the form stays restricted. A grant says where it comes from, such as `via TEAM Reviewers`",
        &["rule_9_the_grants_of_a_deleted_team_or_person_vanish_and_each_says_where_it_is_from"],
    ),
    (
        "A customer sees records of their own, and no list, count or cursor tells of others'",
        &["rule_10_a_customer_sees_their_own_records_and_no_sign_of_others"],
    ),
];

/// The page as it should be.
fn made() -> String {
    let mut text = String::from(HEAD);
    table(&mut text, "capability", &COLUMNS, "lets one");
    for row in CAPABILITIES {
        let name =
            if row.privileged { format!("*`{}`*", row.name) } else { format!("`{}`", row.name) };
        let cell = |column: &&str| match Role::parse(column) {
            Some(role) => row.roles.contains(role),
            None if *column == SUPPORT => row.is_shown_to_support() || row.takes_consent(),
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
    text.push_str(RULES_HEAD);
    for (number, (rule, tests)) in (1..).zip(RULES) {
        let tests: Vec<_> = tests.iter().map(|test| format!("`{test}`")).collect();
        let _ = writeln!(text, "| {number} | {rule} | {} |", tests.join(", "));
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

#[test]
fn every_rule_of_the_page_names_a_test_that_exists_and_every_such_test_is_named() {
    let source = include_str!("../acl/rules.rs");
    let there: BTreeSet<&str> = source
        .split("#[test]\nfn ")
        .skip(1)
        .filter_map(|rest| rest.split_once('(').map(|(name, _)| name))
        .collect();
    let named: BTreeSet<&str> = RULES.iter().flat_map(|(_, tests)| tests.iter().copied()).collect();
    assert_eq!(named, there);
    for (number, (_, tests)) in (1..).zip(RULES) {
        let start = format!("rule_{number}_");
        assert!(tests.iter().all(|test| test.starts_with(&start)), "{number}: {tests:?}");
    }
}
