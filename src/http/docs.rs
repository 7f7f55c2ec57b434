//! Pages for people, made from the same tables as the documents for programs.
//!
//! They need no script and load nothing but one style sheet from this node, so the strictest policy
//! holds. They show no tenant's data.

use maud::{DOCTYPE, Markup, html};

use crate::http::problem::{KINDS, Kind};
use crate::http::routes::{Access, ROUTES, Route};

/// The one style sheet.
pub const STYLE: &str = include_str!("docs/style.css");
/// The picture beside a page's name.
pub const ICON: &str = include_str!("docs/icon.svg");
/// Where browsers look for that by themselves.
pub const ICON_PATH: &str = "/favicon.ico";

fn shell(title: &str, lead: &str, content: &Markup) -> Markup {
    let nav = html! {
        nav {
            a href="/docs" { "Routes" }
            a href="/problems" { "Problems" }
            a href="/openapi.json" { "OpenAPI 3.1" }
            a href="/v1/meta/capabilities" { "Role matrix" }
        }
    };
    frame(title, lead, Some(&nav), content)
}

/// A page in the look of all others; without `nav` for people who are not here to program.
pub(crate) fn frame(title: &str, lead: &str, nav: Option<&Markup>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Bulkhead" }
                link rel="stylesheet" href="/docs/style.css";
                link rel="icon" type="image/svg+xml" href=(ICON_PATH);
            }
            body {
                header {
                    h1 { (title) }
                    p.lead { (prose(lead)) }
                    @if let Some(nav) = nav { (nav) }
                }
                main { (content) }
                footer { "Bulkhead " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
}

/// Text of the tables, in which names for programs stand between backticks.
pub(crate) fn prose(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// The page at `/`.
pub fn landing() -> Markup {
    let content = html! {
        h2 { "Start" }
        p { "Make a tenant, then use the token of the answer:" }
        pre { code {
            "curl -s \"$BULKHEAD/v1/auth/sign-up\" -H 'content-type: application/json' \\\n"
            "  -d '{\"tenant\":{\"slug\":\"acme\",\"name\":\"Acme\"},\"email\":\"you@example.org\",\"password\":\"…\"}'\n\n"
            "curl -s \"$BULKHEAD/v1/me\" -H \"authorization: Bearer $TOKEN\""
        } }
    };
    shell(
        "Bulkhead",
        "The tenant runtime: every tenant is one supervised actor that alone owns its data.",
        &content,
    )
}

/// The page at `/docs`.
pub fn reference() -> Markup {
    let mut resources: Vec<&str> = Vec::new();
    for route in &ROUTES {
        if !resources.contains(&route.resource()) {
            resources.push(route.resource());
        }
    }
    let content = html! {
        nav aria-label="Resources" {
            @for name in &resources { a href={ "#" (name) } { (name) } }
        }
        @for name in &resources {
            h2 id=(name) { (name) }
            @for route in ROUTES.iter().filter(|route| route.resource() == *name) { (row(route)) }
        }
    };
    shell(
        "Routes",
        "Every route of this node. JSON in and out; every error is a problem document.",
        &content,
    )
}

fn row(route: &Route) -> Markup {
    let verb = route.verb.name();
    html! {
        details id=(route.id) {
            summary {
                span class={ "verb " (verb.to_ascii_lowercase()) } { (verb) }
                code { (route.path) }
                span.about { (prose(route.summary)) }
            }
            div {
                dl {
                    dt { "Id" } dd { code { (route.id) } }
                    dt { "Access" } dd { (access(route)) }
                    dt { "Rate class" } dd { code { (route.class.name()) } }
                    @if !route.query.is_empty() {
                        dt { "Query" }
                        dd { @for (at, name) in route.query.iter().enumerate() { @if at > 0 { ", " } code { (name) } } }
                    }
                    @for (name, means) in route.headers {
                        dt { "Header" } dd { code { (name) } " — " (prose(means)) }
                    }
                    @if route.idempotent { dt { "Header" } dd { code { "Idempotency-Key" } " — the effect happens once" } }
                    @if route.guarded { dt { "Header" } dd { code { "If-Match" } " — 412 if the version is not current" } }
                    @if let Some(answer) = &route.answer {
                        dt { "Answers" } dd { (answer.status) @if let Some(media) = answer.media { " " code { (media) } } }
                    }
                }
                @if let Some(body) = &route.body { pre { code { (pretty(body.sample)) } } }
            }
        }
    }
}

fn access(route: &Route) -> Markup {
    match route.access {
        Access::Public => html! { "Anyone" },
        Access::Hook => html! { "The provider's signature over the raw body" },
        Access::Tenant(capability) => html! {
            "Bearer token with " code { (capability.name) } " — " (prose(capability.means))
        },
    }
}

fn pretty(sample: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(sample);
    value
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| sample.to_owned())
}

/// The page at `/problems`.
pub fn problems() -> Markup {
    let content = html! {
        table {
            thead { tr { th { "Status" } th { "Problem" } th { "What to do" } } }
            tbody {
                @for kind in KINDS {
                    tr {
                        td { (kind.status.as_u16()) }
                        td { a href=(kind.uri()) { (kind.title) } br; code { (kind.code) } }
                        td { (prose(kind.docs)) }
                    }
                }
            }
        }
    };
    shell(
        "Problems",
        "Every way in which a request can be refused, and what to do about it.",
        &content,
    )
}

/// The page at `/problems/{code}`.
pub fn problem(kind: &Kind) -> Markup {
    let content = html! {
        dl {
            dt { "Status" } dd { (kind.status.as_u16()) }
            dt { "Type" } dd { code { (kind.uri()) } }
        }
    };
    shell(kind.title, kind.docs, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_shows_every_row() {
        let page = reference().into_string();
        for route in &ROUTES {
            assert!(page.contains(&format!("id=\"{}\"", route.id)), "{route}");
        }
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "pages load nothing from elsewhere"
        );
    }

    #[test]
    fn what_stands_between_backticks_is_code_and_no_backtick_is_shown() {
        assert_eq!(
            prose("Send `a<b` or `c`.").into_string(),
            "Send <code>a&lt;b</code> or <code>c</code>."
        );
        let all = KINDS.iter().map(|kind| problem(kind));
        for page in [landing(), reference(), problems()].into_iter().chain(all) {
            assert!(!page.into_string().contains('`'));
        }
    }

    #[test]
    fn text_from_tables_is_escaped() {
        let page = shell("<b>", "&", &html! {}).into_string();
        assert!(page.contains("&lt;b&gt;") && page.contains("&amp;"));
    }
}
