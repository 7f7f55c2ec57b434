//! Submissions to forms, decisions on them, and comments.

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use actors::call::Answered;
use actors::permit::{
    Action as _, CommentSubmissions, CreateSubmissions, DecideSubmissions, ReadSubmissions,
    UpdateSubmissions,
};
use actors::tenant::submissions::commands::{
    CreateSubmission, DeleteSubmission, SubmitSubmission, UpdateSubmission,
};
use actors::tenant::submissions::comments::{
    CommentBody, CommentSubmission, CommentView, ListComments,
};
use actors::tenant::submissions::decisions::{ApproveSubmission, DecisionBody, RejectSubmission};
use actors::tenant::submissions::queries::{ListSubmissions, ReadSubmission, SubmissionFilter};
use actors::tenant::submissions::{
    CreateSubmissionBody, Place, SubmissionStatus, SubmissionView, UpdateSubmissionBody,
};
use futures_util::future::LocalBoxFuture;
use serde::Deserialize;
use storage::id::{FormId, SubmissionId, UserId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::extract::{At, IfMatch, Json, Paged, Query, RawBody};
use crate::http::forms::{REASON_HEADER, reason};
use crate::http::past::AS_OF;
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

const LIST_QUERY: &[&str] =
    &["limit", "cursor", "sort", "status", "created_by", "created_after", "created_before", AS_OF];

/// The rows of submissions.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Post,
        "/v1/forms/{id}/submissions",
        "submissions.create",
        Access::Tenant(CreateSubmissions::ROW),
        || web::post().to(create),
    )
    .summary("Submit to a form, or begin a draft")
    .body::<CreateSubmissionBody>(r#"{"data":{"days":3}}"#)
    .answers::<SubmissionView<'static>>(201)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/forms/{id}/submissions",
        "submissions.list",
        Access::Tenant(ReadSubmissions::ROW),
        || web::get().to(list),
    )
    .summary("List a form's submissions; customers see their own")
    .answers_page::<SubmissionView<'static>>()
    .query(LIST_QUERY)
    .headers(REASON_HEADER),
    Route::new(
        Verb::Get,
        "/v1/forms/{id}/submissions/{submission}",
        "submissions.read",
        Access::Tenant(ReadSubmissions::ROW),
        || web::get().to(read),
    )
    .summary("Read a submission")
    .answers::<SubmissionView<'static>>(200)
    .query(&[AS_OF])
    .headers(REASON_HEADER),
    Route::new(
        Verb::Patch,
        "/v1/forms/{id}/submissions/{submission}",
        "submissions.update",
        Access::Tenant(UpdateSubmissions::ROW),
        || web::patch().to(update),
    )
    .summary("Change a submission that is not decided on yet")
    .body::<UpdateSubmissionBody>(r#"{"data":{"days":4}}"#)
    .answers::<SubmissionView<'static>>(200)
    .guarded(),
    Route::new(
        Verb::Delete,
        "/v1/forms/{id}/submissions/{submission}",
        "submissions.delete",
        Access::Tenant(UpdateSubmissions::ROW),
        || web::delete().to(delete),
    )
    .summary("Remove a submission: one's own draft, or any as owner or administrator")
    .answers_nothing()
    .guarded(),
    Route::new(
        Verb::Post,
        "/v1/forms/{id}/submissions/{submission}/submit",
        "submissions.submit",
        Access::Tenant(UpdateSubmissions::ROW),
        || web::post().to(submit),
    )
    .summary("Hand a draft in")
    .answers::<SubmissionView<'static>>(200)
    .guarded(),
    Route::new(
        Verb::Post,
        "/v1/forms/{id}/submissions/{submission}/approve",
        "submissions.approve",
        Access::Tenant(DecideSubmissions::ROW),
        || web::post().to(approve),
    )
    .summary("Approve somebody else's submission")
    .body::<DecisionBody>(r#"{"comment":"Enjoy"}"#)
    .answers::<SubmissionView<'static>>(200)
    .guarded(),
    Route::new(
        Verb::Post,
        "/v1/forms/{id}/submissions/{submission}/reject",
        "submissions.reject",
        Access::Tenant(DecideSubmissions::ROW),
        || web::post().to(reject),
    )
    .summary("Reject somebody else's submission")
    .body::<DecisionBody>(r#"{"comment":"Too long"}"#)
    .answers::<SubmissionView<'static>>(200)
    .guarded(),
    Route::new(
        Verb::Post,
        "/v1/forms/{id}/submissions/{submission}/comment",
        "submissions.comment",
        Access::Tenant(CommentSubmissions::ROW),
        || web::post().to(comment),
    )
    .summary("Comment on a submission")
    .body::<CommentBody>(r#"{"text":"Which days?"}"#)
    .answers::<CommentView>(201)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/forms/{id}/submissions/{submission}/comments",
        "submissions.comments",
        Access::Tenant(ReadSubmissions::ROW),
        || web::get().to(comments),
    )
    .summary("List the comments on a submission")
    .answers_page::<CommentView>()
    .query(&["limit", "cursor", AS_OF])
    .headers(REASON_HEADER),
];

async fn create(
    allowed: Allowed<CreateSubmissions>,
    At(form): At<FormId>,
    Json(body): Json<CreateSubmissionBody>,
) -> Result<HttpResponse, Problem> {
    let Answered { reply, replayed } = allowed.command(CreateSubmission { form, body }).await?;
    let location = format!("/v1/forms/{form}/submissions/{}", reply.id);
    Ok(answer::created(Answered { reply: reply.document, replayed }, &location))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    sort: Option<String>,
    status: Option<SubmissionStatus>,
    created_by: Option<UserId>,
    created_after: Option<String>,
    created_before: Option<String>,
}

async fn list(
    allowed: Allowed<ReadSubmissions>,
    At(form): At<FormId>,
    Query(query): Query<ListQuery>,
    Paged(paging): Paged,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let filter = SubmissionFilter {
        status: query.status,
        created_by: query.created_by,
        created_after_ms: instant("query/created_after", query.created_after.as_deref())?,
        created_before_ms: instant("query/created_before", query.created_before.as_deref())?,
    };
    let reverse = query.sort.as_deref().map_or(Ok(false), ListSubmissions::parse_sort)?;
    let read = ListSubmissions { form, filter, reverse, paging };
    Ok(allowed.look_into(read, reason(&request)).await?.page())
}

/// An RFC 3339 time in Unix milliseconds. Times before 1970 count as 1970: nothing is older.
fn instant(pointer: &str, text: Option<&str>) -> Result<Option<u64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        Problem::invalid(pointer, "must be an RFC 3339 time such as 2026-01-31T08:00:00Z")
    })?;
    let unix_ms = at.unix_timestamp_nanos().div_euclid(1_000_000);
    Ok(Some(u64::try_from(unix_ms).unwrap_or(0)))
}

async fn read(
    allowed: Allowed<ReadSubmissions>,
    At((form, id)): At<(FormId, SubmissionId)>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let read = ReadSubmission { at: Place { form, id } };
    Ok(allowed.look_into(read, reason(&request)).await?.document(&request))
}

async fn update(
    allowed: Allowed<UpdateSubmissions>,
    At((form, id)): At<(FormId, SubmissionId)>,
    IfMatch(if_match): IfMatch,
    Json(body): Json<UpdateSubmissionBody>,
) -> Result<HttpResponse, Problem> {
    let at = Place { form, id };
    Ok(answer::updated(allowed.command(UpdateSubmission { at, body, if_match }).await?))
}

async fn delete(
    allowed: Allowed<UpdateSubmissions>,
    At((form, id)): At<(FormId, SubmissionId)>,
    IfMatch(if_match): IfMatch,
) -> Result<HttpResponse, Problem> {
    allowed.command(DeleteSubmission { at: Place { form, id }, if_match }).await?;
    Ok(answer::no_content())
}

async fn submit(
    allowed: Allowed<UpdateSubmissions>,
    At((form, id)): At<(FormId, SubmissionId)>,
    IfMatch(if_match): IfMatch,
) -> Result<HttpResponse, Problem> {
    let command = SubmitSubmission { at: Place { form, id }, if_match };
    Ok(answer::updated(allowed.command(command).await?))
}

/// The body of a decision, which may be left out.
struct Decision(DecisionBody);

impl FromRequest for Decision {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        // Clients frame an empty body in many ways, so only reading it tells that it is empty.
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            let body = RawBody::from_request(request, payload);
            return Box::pin(async move {
                let RawBody(bytes) = body.await?;
                let is_absent = bytes.is_empty();
                let body = is_absent.then(DecisionBody::default);
                body.map(Self).ok_or_else(|| Problem::new(Kind::UNSUPPORTED_MEDIA))
            });
        }
        let body = Json::<DecisionBody>::from_request(request, payload);
        Box::pin(async move { body.await.map(|Json(body)| Self(body)) })
    }
}

async fn approve(
    allowed: Allowed<DecideSubmissions>,
    At((form, id)): At<(FormId, SubmissionId)>,
    IfMatch(if_match): IfMatch,
    Decision(body): Decision,
) -> Result<HttpResponse, Problem> {
    let at = Place { form, id };
    Ok(answer::updated(allowed.command(ApproveSubmission { at, body, if_match }).await?))
}

async fn reject(
    allowed: Allowed<DecideSubmissions>,
    At((form, id)): At<(FormId, SubmissionId)>,
    IfMatch(if_match): IfMatch,
    Decision(body): Decision,
) -> Result<HttpResponse, Problem> {
    let at = Place { form, id };
    Ok(answer::updated(allowed.command(RejectSubmission { at, body, if_match }).await?))
}

async fn comment(
    allowed: Allowed<CommentSubmissions>,
    At((form, id)): At<(FormId, SubmissionId)>,
    Json(body): Json<CommentBody>,
) -> Result<HttpResponse, Problem> {
    let at = Place { form, id };
    let Answered { reply, replayed } = allowed.command(CommentSubmission { at, body }).await?;
    let location = format!("/v1/forms/{form}/submissions/{id}/comments");
    Ok(answer::created(Answered { reply: reply.document, replayed }, &location))
}

async fn comments(
    allowed: Allowed<ReadSubmissions>,
    At((form, id)): At<(FormId, SubmissionId)>,
    Paged(paging): Paged,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let read = ListComments { at: Place { form, id }, paging };
    Ok(allowed.look_into(read, reason(&request)).await?.page())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_any_offset_and_refused_in_any_other_form() {
        let ms = |text| instant("query/created_after", Some(text)).ok().flatten();
        assert_eq!(ms("1970-01-01T00:00:01.500Z"), Some(1_500));
        assert_eq!(ms("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(ms("1969-12-31T23:59:59Z"), Some(0));
        assert_eq!(ms("yesterday"), None);
    }
}
