//! A tenant's audit log, to its own people, and the platform's own, to platform administrators. It can be read and checked, never changed: there is no
//! other method on these paths.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::audit::entry::{Entry, Outcome};
use actors::audit::feed;
use actors::audit::verify::{AuditReport, FirstBad};
use actors::call::Paging;
use actors::permit::{Action as _, ReadAudit, ReadFormAudit, ReadPlatformAudit};
use actors::tenant::audit::{AuditFilter, AuditList, ListAudit, ListFormAudit, ReadEntry};
use actors::tenant::error::FieldError;
use actors::tenant::platform::OfPlatform;
use serde::Deserialize;
use storage::id::FormId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::app::App;
use crate::http::extract::{At, Paged, Query};
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

/// What a list takes: [`Conditions`], and which page.
const CONDITIONS: &[&str] = &[
    "action",
    "actor",
    "target_kind",
    "target",
    "form",
    "outcome",
    "from",
    "to",
    "request_id",
    "sort",
    "limit",
    "cursor",
];

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/v1/audit", "audit.list", Access::Tenant(ReadAudit::ROW), || {
        web::get().to(list)
    })
    .summary("The tenant's audit log, newest entry first")
    .query(CONDITIONS)
    .answers_page::<Entry>(),
    Route::new(
        Verb::Get,
        "/v1/audit/verify",
        "audit.verify",
        Access::Tenant(ReadAudit::ROW),
        || web::get().to(verify),
    )
    .summary("Check the tenant's audit log: every hash, every link, and its end against the anchor")
    .answers::<AuditReport>(200),
    Route::new(Verb::Get, "/v1/audit/{seq}", "audit.read", Access::Tenant(ReadAudit::ROW), || {
        web::get().to(read)
    })
    .summary("One entry of the audit log")
    .answers::<Entry>(200),
    Route::new(
        Verb::Get,
        "/v1/forms/{id}/audit",
        "audit.form",
        Access::Tenant(ReadFormAudit::ROW),
        || web::get().to(list_form),
    )
    .summary("One form's part of the audit log")
    .query(&["sort", "limit", "cursor"])
    .answers_page::<Entry>(),
    Route::new(
        Verb::Get,
        "/v1/platform/audit",
        "platform.list-audit",
        Access::Tenant(ReadPlatformAudit::ROW),
        || web::get().to(list_platform),
    )
    .summary("The platform's own audit log, newest entry first: what its administrators and the node did")
    .query(CONDITIONS)
    .answers_page::<Entry>(),
    Route::new(
        Verb::Get,
        "/v1/platform/audit/{seq}",
        "platform.read-audit",
        Access::Tenant(ReadPlatformAudit::ROW),
        || web::get().to(read_platform),
    )
    .summary("One entry of the platform's own audit log")
    .answers::<Entry>(200),
];

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
enum Sort {
    /// Oldest first.
    #[serde(rename = "seq")]
    OldestFirst,
    /// Newest first.
    #[default]
    #[serde(rename = "-seq")]
    NewestFirst,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Conditions {
    action: Option<String>,
    actor: Option<String>,
    target_kind: Option<String>,
    target: Option<String>,
    form: Option<FormId>,
    outcome: Option<Outcome>,
    from: Option<String>,
    to: Option<String>,
    request_id: Option<String>,
    sort: Sort,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Order {
    sort: Sort,
}

impl Conditions {
    fn list(self, paging: Paging) -> Result<ListAudit, Problem> {
        let oldest_first = self.sort == Sort::OldestFirst;
        Ok(ListAudit { filter: self.filter()?, paging, oldest_first })
    }

    fn filter(self) -> Result<AuditFilter, Problem> {
        let (from, until) = (instant("query/from", self.from), instant("query/to", self.to));
        let (from_ms, until_ms) = match (from, until) {
            (Ok(from), Ok(until)) => (from, until),
            (from, until) => {
                let errors = [from.err(), until.err()].into_iter().flatten().collect();
                return Err(Problem::new(Kind::INVALID).errors(errors));
            }
        };
        Ok(AuditFilter {
            action: self.action,
            actor: self.actor,
            target_kind: self.target_kind,
            target: self.target,
            form: self.form,
            outcome: self.outcome,
            from_ms,
            until_ms,
            request_id: self.request_id,
        })
    }
}

/// An RFC 3339 time as Unix milliseconds.
fn instant(pointer: &str, text: Option<String>) -> Result<Option<u64>, FieldError> {
    let Some(text) = text else { return Ok(None) };
    let parsed = OffsetDateTime::parse(&text, &Rfc3339).ok();
    let at_ms = parsed.map(|at| at.unix_timestamp_nanos().div_euclid(1_000_000));
    match at_ms.map(u64::try_from) {
        Some(Ok(at_ms)) => Ok(Some(at_ms)),
        _ => Err(FieldError {
            pointer: pointer.to_owned(),
            message: "must be a time since 1970 such as 2031-05-17T08:30:00Z".to_owned(),
        }),
    }
}

async fn list(
    allowed: Allowed<ReadAudit>,
    Query(conditions): Query<Conditions>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    page(&allowed, conditions.list(paging)?).await
}

async fn list_platform(
    allowed: Allowed<ReadPlatformAudit>,
    Query(conditions): Query<Conditions>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    page(&allowed, OfPlatform(conditions.list(paging)?)).await
}

async fn list_form(
    allowed: Allowed<ReadFormAudit>,
    At(form): At<FormId>,
    Query(order): Query<Order>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    let oldest_first = order.sort == Sort::OldestFirst;
    page(&allowed, ListFormAudit { form, paging, oldest_first }).await
}

/// One page, which may reach into the archive.
async fn page<Q: AuditList>(
    allowed: &Allowed<Q::Action>,
    query: Q,
) -> Result<HttpResponse, Problem> {
    let ask = async |query| allowed.ask(query).await;
    Ok(answer::page(feed::list(allowed.store(), allowed.tenant(), query, ask).await?))
}

async fn read(
    request: HttpRequest,
    allowed: Allowed<ReadAudit>,
    At(seq): At<u64>,
) -> Result<HttpResponse, Problem> {
    let found = allowed.ask(ReadEntry { seq }).await?;
    let document = feed::read(allowed.store(), allowed.tenant(), seq, found).await?;
    Ok(answer::document(&request, document))
}

async fn read_platform(
    request: HttpRequest,
    allowed: Allowed<ReadPlatformAudit>,
    At(seq): At<u64>,
) -> Result<HttpResponse, Problem> {
    let found = allowed.ask(OfPlatform(ReadEntry { seq })).await?;
    let document = feed::read(allowed.store(), allowed.tenant(), seq, found).await?;
    Ok(answer::document(&request, document))
}

/// Checks what the feed shows, step by step so that the tenant serves others in between, and then
/// the log behind it.
async fn verify(app: web::Data<App>, allowed: Allowed<ReadAudit>) -> Result<HttpResponse, Problem> {
    let tenant = allowed.tenant();
    let ask = async |query| allowed.ask(query).await;
    let feed = feed::verify(allowed.store(), tenant, ask).await?;
    let mut report = app.anchor.verify([tenant].into()).await.map_err(busy)?;
    let mut report = report.tenants.pop().ok_or_else(Problem::not_found)?;
    if let Some(broken) = feed.broken {
        report.ok = false;
        report.first_bad.get_or_insert(FirstBad {
            seq: broken.seq,
            lsn: 0,
            what: format!("in the feed, though not in the log: {}", broken.what),
        });
    }
    answer::json(actix_web::http::StatusCode::OK, &report)
}

/// Others are being verified: come back.
pub(crate) fn busy(error: actors::audit::anchor::VerifyError) -> Problem {
    use actors::audit::anchor::VerifyError;
    match error {
        VerifyError::Busy => Problem::new(Kind::OVERLOADED),
        VerifyError::Panicked => Problem::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::extract::parse_query;

    #[test]
    fn times_are_read_with_any_offset_and_nothing_else_is_a_time() {
        let at = |text: &str| instant("query/from", Some(text.to_owned()));
        assert_eq!(at("1970-01-01T00:00:01Z"), Ok(Some(1_000)));
        assert_eq!(at("1970-01-01T02:00:01.5+02:00"), Ok(Some(1_500)));
        for bad in ["", "yesterday", "2031-05-17", "1969-12-31T23:59:59Z"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_wrong_times_are_named_at_once() {
        let conditions: Conditions = parse_query("from=x&to=y").expect("a query");
        let problem = conditions.filter().expect_err("two wrong times");
        let pointers: Vec<_> =
            problem.field_errors().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["query/from", "query/to"]);
    }

    #[test]
    fn conditions_read_what_the_route_names_and_refuse_the_rest() {
        let query = "action=form.*&outcome=refused&sort=seq&limit=5&cursor=x";
        let conditions: Conditions = parse_query(query).expect("a query");
        assert_eq!(conditions.sort, Sort::OldestFirst);
        assert_eq!(conditions.outcome, Some(Outcome::Refused));
        for bad in ["sort=at", "outcome=maybe", "form=us_1", "tenant=tn_1"] {
            assert!(parse_query::<Conditions>(bad).is_err(), "{bad}");
        }
    }
}
