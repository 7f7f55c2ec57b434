//! The parties that a tenant lets vouch for its people. Their secrets come in and never go out.

use actix_web::{HttpRequest, HttpResponse, web};
use actors::call::Answered;
use actors::permit::{Action as _, ReadIdentityProviders, WriteIdentityProviders};
use actors::tenant::identities::providers::{
    CreateIdentityProvider, DeleteIdentityProvider, IdentityProviderChanges, IdentityProviderView,
    KeySource, ListIdentityProviders, ReadIdentityProvider, UpdateIdentityProvider,
};
use storage::id::IdentityProviderId;

use crate::federation::Federation;
use crate::federation::keys::KeySet;
use crate::http::allowed::Allowed;
use crate::http::answer;
use crate::http::app::App;
use crate::http::extract::{At, IfMatch, Json};
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(
        Verb::Post,
        "/v1/identity-providers",
        "identity-providers.create",
        Access::Tenant(WriteIdentityProviders::ROW),
        || web::post().to(create),
    )
    .summary("Let a party vouch for people; its secret is never shown again")
    .body::<CreateIdentityProvider>(
        r#"{"name":"company","kind":"firebase","audience":"acme-app","domains":["example.org"],"default_role":"member"}"#,
    )
    .answers::<IdentityProviderView>(201)
    .idempotent(),
    Route::new(
        Verb::Get,
        "/v1/identity-providers",
        "identity-providers.list",
        Access::Tenant(ReadIdentityProviders::ROW),
        || web::get().to(list),
    )
    .summary("List the parties that may vouch for people, oldest first, all on one page")
    .answers_page::<IdentityProviderView>(),
    Route::new(
        Verb::Get,
        "/v1/identity-providers/{identity_provider}",
        "identity-providers.read",
        Access::Tenant(ReadIdentityProviders::ROW),
        || web::get().to(read),
    )
    .summary("Read one of them, without its secret")
    .answers::<IdentityProviderView>(200),
    Route::new(
        Verb::Patch,
        "/v1/identity-providers/{identity_provider}",
        "identity-providers.update",
        Access::Tenant(WriteIdentityProviders::ROW),
        || web::patch().to(update),
    )
    .summary("Change one of them, or switch it on or off; its name, kind and issuer stay")
    .body::<IdentityProviderChanges>(r#"{"domains":["example.org","example.com"]}"#)
    .answers::<IdentityProviderView>(200)
    .guarded(),
    Route::new(
        Verb::Delete,
        "/v1/identity-providers/{identity_provider}",
        "identity-providers.delete",
        Access::Tenant(WriteIdentityProviders::ROW),
        || web::delete().to(delete),
    )
    .summary("Let it vouch no more; the identities linked through it end, sessions go on")
    .answers_nothing(),
];

/// Refuses what this node would not call, and keys that verify nothing.
fn check_keys(federation: &Federation, keys: Option<&KeySource>) -> Result<(), Problem> {
    match keys {
        None => Ok(()),
        Some(KeySource::Url(url)) => check_url(federation, "/jwks/url", url),
        Some(KeySource::Keys(keys)) => {
            let text = serde_json::to_vec(keys).map_err(Problem::internal)?;
            let message = "must have a public key that signatures are verified with: RSA from 2048 bits on, \
                 P-256, P-384 or Ed25519";
            let usable = KeySet::parse_list(&text).map(drop);
            usable.ok_or_else(|| Problem::invalid("/jwks/keys", message))
        }
    }
}

fn check_url(federation: &Federation, pointer: &str, url: &str) -> Result<(), Problem> {
    federation.check_url(url).map_err(|forbidden| Problem::invalid(pointer, forbidden.to_string()))
}

async fn create(
    app: web::Data<App>,
    allowed: Allowed<WriteIdentityProviders>,
    Json(command): Json<CreateIdentityProvider>,
) -> Result<HttpResponse, Problem> {
    check_keys(&app.federation, command.jwks.as_ref())?;
    if let Some(issuer) = command.issuer.as_deref().filter(|_| command.kind.redirects()) {
        check_url(&app.federation, "/issuer", issuer)?;
    }
    let Answered { reply: (id, reply), replayed } = allowed.command(command).await?;
    Ok(answer::created(Answered { reply, replayed }, &format!("/v1/identity-providers/{id}")))
}

async fn list(allowed: Allowed<ReadIdentityProviders>) -> Result<HttpResponse, Problem> {
    Ok(answer::page(allowed.query(ListIdentityProviders).await?))
}

async fn read(
    request: HttpRequest,
    allowed: Allowed<ReadIdentityProviders>,
    At(provider): At<IdentityProviderId>,
) -> Result<HttpResponse, Problem> {
    let document = allowed.query(ReadIdentityProvider { provider }).await?;
    Ok(answer::document(&request, document))
}

async fn update(
    app: web::Data<App>,
    allowed: Allowed<WriteIdentityProviders>,
    At(provider): At<IdentityProviderId>,
    IfMatch(if_match): IfMatch,
    Json(changes): Json<IdentityProviderChanges>,
) -> Result<HttpResponse, Problem> {
    check_keys(&app.federation, changes.jwks.as_ref())?;
    let command = UpdateIdentityProvider { provider, changes, if_match };
    Ok(answer::updated(allowed.command(command).await?))
}

async fn delete(
    allowed: Allowed<WriteIdentityProviders>,
    At(provider): At<IdentityProviderId>,
) -> Result<HttpResponse, Problem> {
    allowed.command(DeleteIdentityProvider { provider }).await?;
    Ok(answer::no_content())
}
