//! Lists of users and groups (RFC 7644 §3.4.2): filtered, counted, and the wanted part of them.
//!
//! A list names how many there are, so all of them are looked at, up to a bound. A filter that asks for
//! one `userName` or `id` looks at that person alone. Refuses: to look at more than [`ROWS_MAX`].

use serde_json::Value;
use storage::id::{Id as _, TeamId, UserId};
use storage::keys::{Key, Prefix};
use storage::txn::Scan;
use storage::value;

use super::filter::{Filter, Test};
use super::groups::{self, teams_of};
use super::person::{self, ProvisionedRow};
use super::schema::{GROUP, Schema, USER};
use super::{Attributes, Fault};
use crate::limits;
use crate::permit::ProvisionPeople;
use crate::tenant::cx::{Query, ReadCx, Reads, Stored};
use crate::tenant::error::TenantError;
use crate::tenant::members::find_by_email;
use crate::tenant::people::UserRow;
use crate::tenant::teams::{Present, TeamRow, all_teams};

/// Rows that one list looks at.
pub const ROWS_MAX: usize = 10_000;
/// Resources of one answer at most.
pub const RESULTS_MAX: usize = limits::PAGE_MAX;
/// Rows read at a time.
const CHUNK_ROWS: usize = 256;

/// Lists users, groups, or both.
#[derive(Debug)]
pub struct ListResources {
    /// Of which kinds, in this order.
    pub schemas: &'static [&'static Schema],
    /// Which of them.
    pub filter: Option<Filter>,
    /// The first of the wanted part, from 1 on.
    pub start: usize,
    /// How many of them.
    pub count: usize,
    /// Where this node is, for addresses in the answer.
    pub base: String,
}

/// A part of a list.
#[derive(Debug)]
pub struct Listed {
    /// How many there are.
    pub total: usize,
    /// The part, each with what it is made of.
    pub resources: Vec<(&'static Schema, Attributes)>,
}

impl Query for ListResources {
    type Action = ProvisionPeople;
    type Reply = Listed;

    fn run(self, cx: &mut ReadCx<'_>) -> Result<Listed, TenantError> {
        let mut page = Page {
            base: &self.base,
            skip: self.start.saturating_sub(1),
            left: self.count.min(RESULTS_MAX),
            total: 0,
            resources: Vec::new(),
            people: Vec::new(),
        };
        for schema in self.schemas {
            let test = self.filter.as_ref().map(|filter| filter.about(schema)).transpose();
            let test = match test {
                // Of several kinds, one may have what the others have not.
                Err(_) if self.schemas.len() > 1 => continue,
                test => test?,
            };
            if **schema == USER {
                page.users(cx, test.as_ref())?;
            } else {
                page.groups(cx, test.as_ref())?;
            }
        }
        page.finish(cx)
    }
}

struct Page<'a> {
    base: &'a str,
    skip: usize,
    left: usize,
    total: usize,
    resources: Vec<(&'static Schema, Attributes)>,
    /// Whose teams are to be added, and where.
    people: Vec<(UserId, usize)>,
}

impl Page<'_> {
    /// Counts one; whether it is in the wanted part.
    fn is_wanted(&mut self) -> bool {
        self.total += 1;
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let is_wanted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_wanted
    }

    fn users(&mut self, cx: &ReadCx<'_>, test: Option<&Test>) -> Result<(), TenantError> {
        if let Some(test) = test {
            let pinned = if let Some(name) = test.pinned("userName") {
                Some(find_by_email(cx, name)?)
            } else if let Some(id) = test.pinned("id") {
                let id: Option<UserId> = id.parse().ok();
                Some(id.map(|id| cx.row(&Key::User { id })).transpose()?.flatten())
            } else {
                None
            };
            if let Some(found) = pinned {
                return found.map_or(Ok(()), |user| self.user(cx, &user, Some(test)));
            }
        }
        let all = Prefix::kind(&Key::User { id: UserId::from_bytes([0; 16]) });
        each(cx, all, |_, bytes| match test {
            // What is not in the part and not filtered is counted without being looked at.
            None if self.skip > 0 || self.left == 0 => {
                self.is_wanted();
                Ok(())
            }
            test => self.user(cx, &value::decode(bytes)?, test),
        })
    }

    fn user(
        &mut self,
        cx: &ReadCx<'_>,
        user: &UserRow,
        test: Option<&Test>,
    ) -> Result<(), TenantError> {
        let row = ProvisionedRow::find(cx, user.id)?;
        let attributes = person::render(self.base, user, &row);
        if test.is_none_or(|test| test.passes(&attributes)) && self.is_wanted() {
            self.people.push((user.id, self.resources.len()));
            self.resources.push((&USER, attributes));
        }
        Ok(())
    }

    fn groups(&mut self, cx: &ReadCx<'_>, test: Option<&Test>) -> Result<(), TenantError> {
        let mut present = Present::default();
        each(cx, all_teams(), |key, bytes| {
            let Key::Team { id } = *key else { return Ok(()) };
            let row: TeamRow = value::decode(bytes)?;
            self.group(cx, &mut present, (id, &row), test)
        })
    }

    fn group(
        &mut self,
        cx: &ReadCx<'_>,
        present: &mut Present,
        team: (TeamId, &TeamRow),
        test: Option<&Test>,
    ) -> Result<(), TenantError> {
        let attributes = groups::render(cx, present, self.base, team)?;
        if test.is_none_or(|test| test.passes(&attributes)) && self.is_wanted() {
            self.resources.push((&GROUP, attributes));
        }
        Ok(())
    }

    fn finish(mut self, cx: &ReadCx<'_>) -> Result<Listed, TenantError> {
        let people: Vec<UserId> = self.people.iter().map(|(user, _)| *user).collect();
        let mut teams = teams_of(cx, &people)?;
        for (user, at) in &self.people {
            let (_, attributes) = &mut self.resources[*at];
            person::add_groups(self.base, attributes, &teams.remove(user).unwrap_or_default());
        }
        Ok(Listed { total: self.total, resources: self.resources })
    }
}

/// Visits all rows of a kind, up to the bound.
fn each(
    cx: &ReadCx<'_>,
    prefix: Prefix,
    mut visit: impl FnMut(&Key, &Stored) -> Result<(), TenantError>,
) -> Result<(), TenantError> {
    let mut scan = Scan { limit: CHUNK_ROWS, ..Scan::all(prefix) };
    let mut seen = 0;
    loop {
        let rows = cx.rows(&scan)?;
        seen += rows.len();
        if seen > ROWS_MAX {
            return Err(Fault::TooMany(format!(
                "there are more than {ROWS_MAX} to look at; filter by userName or id"
            ))
            .into());
        }
        for (key, bytes) in &rows {
            visit(key, bytes)?;
        }
        if rows.len() < CHUNK_ROWS {
            return Ok(());
        }
        scan.after = rows.into_iter().next_back().map(|(last, _)| last);
    }
}

/// A list as it is answered, with the parts of its resources that are asked for.
pub fn response(listed: Listed, start: usize, projection: &super::shape::Projection) -> Value {
    let resources = listed
        .resources
        .into_iter()
        .map(|(schema, attributes)| Value::Object(projection.of(schema, attributes)))
        .collect();
    super::schema::list_response(listed.total, start.max(1), resources)
}
