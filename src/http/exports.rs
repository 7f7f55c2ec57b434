//! A tenant's own people write it to a bundle, see how far that is, and fetch it.
//!
//! Asking answers 202 with the key, which is never shown again; the bundle is written in the background.
//! Who takes it up, and how, is the command line's business. What an export is and what is refused stands in
//! `actors::tenant::portable`.

use std::io::{self, Read};

use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use actors::call::Answered;
use actors::permit::{Action as _, CreateExports, ReadExports};
use actors::tenant::portable::exports::{
    ExpiredExports, ExportMade, ExportView, FetchExport, Found, ListExports, Listed, ReadExport,
    RequestExport,
};
use actors::tenant::portable::key::BundleKey;
use futures_util::stream::{self, Stream};
use storage::archive::ArchiveError;
use storage::id::ExportId;

use crate::exports;
use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::app::App;
use crate::http::extract::{At, Paged};
use crate::http::problem::{Kind, Problem};
use crate::http::routes::{Access, Route, Verb};

/// How much of a bundle is read at a time.
const READ_BYTES: usize = 256 * 1024;

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Post,
        "/v1/tenant/exports",
        "exports.request",
        Access::Tenant(CreateExports::ROW),
        || web::post().to(request),
    )
    .summary("Write the whole tenant to a sealed bundle; the answer has its key, once")
    .answers::<ExportMade>(202)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/tenant/exports",
        "exports.list",
        Access::Tenant(ReadExports::ROW),
        || web::get().to(list),
    )
    .summary("List exports that are kept, newest first")
    .query(&["limit", "cursor"])
    .answers_page::<ExportView>(),
    Route::new(
        Verb::Get,
        "/v1/tenant/exports/{export}",
        "exports.read",
        Access::Tenant(ReadExports::ROW),
        || web::get().to(read),
    )
    .summary("Read how far an export is")
    .answers::<ExportView>(200),
    Route::new(
        Verb::Get,
        "/v1/tenant/exports/{export}/content",
        "exports.fetch",
        Access::Tenant(ReadExports::ROW),
        || web::get().to(fetch),
    )
    .summary("Download an export")
    .answers_media("application/octet-stream"),
];

async fn request(
    app: web::Data<App>,
    asking: Allowed<CreateExports>,
    doing: Allowed<CreateExports>,
) -> Result<HttpResponse, Problem> {
    let tenant = doing.tenant();
    let expired = asking.query(ExpiredExports).await?;
    if !expired.is_empty() {
        exports::remove(&app, tenant, expired);
    }
    let id: ExportId = app.env.new_id();
    let key = BundleKey::generate(&app.env);
    let running = app.exports.enter(id);
    // To its end also if the caller goes away: what is on record is written.
    let asked = actix_web::rt::spawn(async move {
        let command = RequestExport { id, key: key.clone() };
        let asked = doing.command(command).await;
        if asked.as_ref().is_ok_and(|answered| !answered.replayed) {
            exports::start(app.get_ref().clone(), tenant, key, running);
        }
        asked
    });
    let Answered { reply: (id, reply), replayed } = asked.await.map_err(Problem::internal)??;
    let location = format!("/v1/tenant/exports/{id}");
    let mut response = answer::created(Answered { reply, replayed }, &location);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

async fn list(
    app: web::Data<App>,
    allowed: Allowed<ReadExports>,
    Paged(paging): Paged,
) -> Result<HttpResponse, Problem> {
    let tenant = allowed.tenant();
    let is_written = app.exports.is_written();
    let Listed { page, expired } = allowed.query(ListExports { paging, is_written }).await?;
    if !expired.is_empty() {
        exports::remove(&app, tenant, expired);
    }
    Ok(answer::page(page))
}

async fn read(
    app: web::Data<App>,
    allowed: Allowed<ReadExports>,
    At(id): At<ExportId>,
) -> Result<HttpResponse, Problem> {
    let tenant = allowed.tenant();
    let is_written = app.exports.is_written();
    let Found::Kept(view) = allowed.query(ReadExport { id, is_written }).await? else {
        exports::remove(&app, tenant, vec![id]);
        return Err(Problem::not_found());
    };
    answer::json(StatusCode::OK, &view)
}

async fn fetch(
    app: web::Data<App>,
    allowed: Allowed<ReadExports>,
    At(id): At<ExportId>,
) -> Result<HttpResponse, Problem> {
    let tenant = allowed.tenant();
    if allowed.command(FetchExport { id }).await?.reply == Found::Expired {
        exports::remove(&app, tenant, vec![id]);
        return Err(Problem::not_found());
    }
    let opened = web::block(move || exports::open(&app, tenant, id)).await;
    let (bytes, reader) = opened.map_err(Problem::internal)?.map_err(unreadable)?;
    let disposition = format!("attachment; filename=\"{id}.bundle\"");
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
        .insert_header((header::CONTENT_DISPOSITION, disposition))
        .body(SizedStream::new(bytes, pieces(reader))))
}

/// The archive does not give what it has.
fn unreadable(error: ArchiveError) -> Problem {
    match error {
        ArchiveError::Missing { .. } => Problem::not_found(),
        ArchiveError::Unreachable { .. } => Problem::new(Kind::OVERLOADED),
        error => Problem::internal(error),
    }
}

/// The bytes of a reader that blocks, piece by piece, each read off the async threads.
fn pieces(reader: Box<dyn Read + Send>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(reader, |mut reader| async move {
        let read = web::block(move || {
            let mut piece = Vec::with_capacity(READ_BYTES);
            reader.by_ref().take(READ_BYTES as u64).read_to_end(&mut piece)?;
            Ok::<_, io::Error>((reader, piece))
        });
        let (reader, piece) = read.await.map_err(io::Error::other)??;
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), reader)))
    })
}
