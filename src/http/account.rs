//! The pages that mailed links lead to (accept an invitation, choose a new password, confirm an address), and the
//! one to sign in at.
//!
//! A page is the same for everybody; the one to sign in at says of a sign-in elsewhere what its address says went
//! wrong. Its script takes the secret part of the link from behind the `#`, which
//! no browser sends, out of the address at once, and gives it to the API in a body.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};

use crate::http::docs;
use crate::http::extract::{At, parse_pairs};
use crate::http::headers::ACCOUNT_POLICY;
use crate::http::problem::Problem;
use crate::http::routes::{Access, Route, Verb};

mod reasons;

/// The routes of this file.
pub const ROUTES: &[Route] = &[
    Route::new(Verb::Get, "/account/{page}", "account.page", Access::Public, || {
        web::get().to(page)
    })
    .summary("A page that a mailed link leads to, or the one to sign in at")
    .query(&["tenant", "return_to", "provider", "problem", "reason", "signed_in"])
    .answers_media("text/html"),
    Route::new(Verb::Get, "/account/{page}/script.js", "account.script", Access::Public, || {
        web::get().to(script)
    })
    .summary("The script of those pages")
    .answers_media("text/javascript"),
];

/// The script of the pages behind mailed links.
const SCRIPT: &str = include_str!("account/script.js");
/// The page to sign in at, and its script.
pub(crate) const SIGN_IN: &str = "/account/sign-in";
const SIGN_IN_NAME: &str = "sign-in";
const SIGN_IN_SCRIPT: &str = include_str!("account/sign-in.js");

/// A page's name in its address, and what stands on it.
struct Page {
    name: &'static str,
    title: &'static str,
    lead: &'static str,
    /// Where the link goes.
    api: &'static str,
    /// The member of the body that takes the password; nothing if none is asked for.
    password: Option<&'static str>,
    button: &'static str,
    done: &'static str,
}

const PAGES: [Page; 3] = [
    Page {
        name: "invite",
        title: "Join",
        lead: "You are invited. Choose the password that you will sign in with.",
        api: "/v1/auth/invites/accept",
        password: Some("password"),
        button: "Accept the invitation",
        done: "You are a member now, and can sign in.",
    },
    Page {
        name: "reset",
        title: "A new password",
        lead: "Choose a new password. Everybody who is signed in with the old one is signed out.",
        api: "/v1/auth/password/reset",
        password: Some("new_password"),
        button: "Set the password",
        done: "The password is set. Sign in with it.",
    },
    Page {
        name: "verify",
        title: "Confirm your address",
        lead: "One click, and your address is confirmed.",
        api: "/v1/auth/email/verify",
        password: None,
        button: "Confirm the address",
        done: "Your address is confirmed.",
    },
];

impl Page {
    fn markup(&self) -> Markup {
        let script = format!("/account/{}/script.js", self.name);
        let content = html! {
            div #about {}
            form #account method="post" data-kind=(self.name) data-api=(self.api) data-password=[self.password] data-done=(self.done) {
                @if self.password.is_some() {
                    p {
                        label for="password" { "Password" } br;
                        input #password type="password" autocomplete="new-password" minlength="10" maxlength="128" required;
                    }
                    p { small { "10 to 128 characters, and not easy to guess. A few words that do not belong together are good." } }
                }
                p { button type="submit" { (self.button) } }
            }
            p #outcome role="status" aria-live="polite" {}
            p #onward hidden { a href=(SIGN_IN) { "Sign in" } }
            noscript { p { "This page needs JavaScript. Without it, send the part of the link behind the # as token to " code { "POST " (self.api) } "." } }
            script src=(script) defer {}
        };
        docs::frame(self.title, self.lead, None, &content)
    }
}

/// Signing in: with a password, a passkey or another account, and with a second factor where one is due. `notice`
/// says why somebody is here again.
fn sign_in(notice: Option<&str>) -> Markup {
    let content = html! {
        @if let Some(notice) = notice { p #notice .notice role="alert" { (notice) } }
        form #start method="post" {
            p { label for="tenant" { "Organisation" } br; input #tenant autocomplete="organization" autocapitalize="none" spellcheck="false" required; }
            p { label for="email" { "E-mail address" } br; input #email type="email" autocomplete="username webauthn"; }
            p { label for="password" { "Password" } br; input #password type="password" autocomplete="current-password"; }
            p { button type="submit" { "Sign in" } button #with-passkey type="button" { "Sign in with a passkey" } }
            p { button #forgot type="button" { "Forgot the password?" } }
            details #elsewhere {
                summary { "Another account" }
                div {
                    p { label for="provider" { "What your organisation calls it" } br; input #provider autocapitalize="none" spellcheck="false" placeholder="google"; }
                    p { button #with-provider type="button" { "Go there" } }
                }
            }
        }
        form #second method="post" hidden {
            div #code-fields {
                p { label for="code" { "Code of your authenticator, or a recovery code" } br; input #code autocomplete="one-time-code" autocapitalize="none" spellcheck="false"; }
                p { button type="submit" { "Go on" } }
            }
            p { button #second-passkey type="button" hidden { "Use a passkey" } }
        }
        form #enrol method="post" hidden {
            p { "Everybody here needs a second factor. Set one up, and you are in." }
            p { button type="submit" { "Use an authenticator app" } button #enrol-passkey type="button" { "Use a passkey" } }
        }
        form #confirm method="post" hidden {
            p { "Scan this with your authenticator app, or type in the key below." }
            div #qr {}
            p { code #secret {} }
            p { label for="new-code" { "Code that it shows" } br; input #new-code autocomplete="one-time-code" autocapitalize="none" spellcheck="false"; }
            p { button type="submit" { "Confirm" } }
        }
        form #codes method="post" hidden {
            p { "Keep these recovery codes where you find them again. Each one lets you in once, if you lose the rest. They are shown this one time." }
            pre { code #recovery {} }
            p { button type="submit" { "I have kept them" } }
        }
        form #done method="post" hidden {
            p { "You are signed in as " strong #who {} "." }
            p { button type="submit" { "Sign out" } }
        }
        p #outcome role="status" aria-live="polite" {}
        noscript { p { "This page needs JavaScript. Without it, send " code { "POST /v1/auth/sign-in" } "." } }
        script src="/account/sign-in/script.js" defer {}
    };
    docs::frame("Sign in", "To your organisation.", None, &content)
}

fn named(name: &str) -> Result<&'static Page, Problem> {
    PAGES.iter().find(|page| page.name == name).ok_or_else(Problem::not_found)
}

async fn page(request: HttpRequest, At(name): At<String>) -> Result<HttpResponse, Problem> {
    let asked = parse_pairs(request.query_string())?;
    let of = |name: &str| asked.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    let notice =
        of("problem").map(|code| reasons::sentence(code, of("reason").unwrap_or_default()));
    let markup = if name == SIGN_IN_NAME { sign_in(notice) } else { named(&name)?.markup() };
    let text = markup.into_string();
    let mut response = HttpResponse::with_body(StatusCode::OK, BoxBody::new(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(ACCOUNT_POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn script(At(name): At<String>) -> Result<HttpResponse, Problem> {
    let script =
        if name == SIGN_IN_NAME { SIGN_IN_SCRIPT } else { named(&name).map(|_| SCRIPT)? };
    let media = HeaderValue::from_static("text/javascript; charset=utf-8");
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, media)).body(script))
}
