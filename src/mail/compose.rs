//! What letters say: a text and a page with the same content, and nothing to load from anywhere.
//!
//! Names that people chose stand in them escaped, on one line and cut to a sane length. A link's secret
//! part stands behind the `#`, which browsers send to nobody.

use std::time::{Duration, SystemTime};

use actors::env::rfc3339;
use actors::mail::{Change, Content, Letter, MailedLink, Seen, SupportNotice};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};
use maud::{DOCTYPE, html};
use time::OffsetDateTime;
use time::macros::format_description;

/// Characters of a name in a letter.
const NAME_CHARS_MAX: usize = 80;
/// Sign-in asks for it, and who was invited has seen it nowhere else.
const SHORT_NAME: &str = "Organisation to name when you sign in";

/// Writes letters.
#[derive(Debug, Clone)]
pub struct Compose {
    from: Mailbox,
    base_url: String,
}

/// A letter without its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The subject line.
    pub subject: String,
    /// For programs that show text.
    pub text: String,
    /// For those that show pages.
    pub page: String,
}

/// A letter cannot be put into the form of a mail.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The address is none that a mail server takes.
    #[error("the address cannot be used")]
    Address(#[from] lettre::address::AddressError),
    /// A part is missing.
    #[error("the mail is not complete")]
    Parts(#[from] lettre::error::Error),
}

/// What a letter is made from.
struct Parts {
    subject: String,
    said: String,
    button: Option<(&'static str, String, u64)>,
    closing: &'static str,
}

impl Compose {
    /// Letters from `from` whose links lead to `base_url`.
    pub fn new(from: Mailbox, base_url: &str) -> Self {
        Self { from, base_url: base_url.trim_end_matches('/').to_owned() }
    }

    /// The mail, as it goes over the wire.
    ///
    /// # Errors
    /// [`ComposeError`].
    pub fn message(&self, letter: &Letter) -> Result<Message, ComposeError> {
        let Written { subject, text, page } = self.write(letter);
        let to: Address = letter.to.parse()?;
        let domain = self.from.email.domain();
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(letter.created_ms);
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .date(date)
            // The same at each attempt, so that a mailbox can drop a second copy.
            .message_id(Some(format!("<{}@{domain}>", letter.id)))
            .multipart(MultiPart::alternative_plain_html(text, page))?;
        // RFC 3834: no automatic answers to this, please.
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(message)
    }

    /// What the letter says.
    pub fn write(&self, letter: &Letter) -> Written {
        let Parts { subject, said, button, closing } = self.parts(letter);
        let ends = |ends_ms: u64| format!("The link works once, until {}.", readable(ends_ms));
        let slug = letter.tenant_slug.as_str();
        let mut text = format!("{said}\n\n");
        if let Some((what, url, ends_ms)) = &button {
            text.push_str(&format!("{what}:\n{url}\n\n{}\n\n", ends(*ends_ms)));
        }
        text.push_str(&format!("{SHORT_NAME}: {slug}\n\n"));
        text.push_str(&format!("{closing}\n"));
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (subject) }
                }
                body style="font-family: sans-serif; line-height: 1.5; max-width: 36em; margin: 2em auto; padding: 0 1em; color: #1c2430" {
                    p { (said) }
                    @if let Some((what, url, ends_ms)) = &button {
                        p {
                            a href=(url) style="display: inline-block; padding: 0.6em 1.2em; border-radius: 4px; background: #14507a; color: #ffffff; text-decoration: none" { (what) }
                        }
                        p style="font-size: 0.9em" {
                            (ends(*ends_ms)) " If the button does not work, open this address:" br;
                            span style="word-break: break-all" { (url) }
                        }
                    }
                    p { (SHORT_NAME) ": " strong { (slug) } }
                    p style="font-size: 0.9em; color: #56606e" { (closing) }
                }
            }
        };
        Written { subject, text, page: page.into_string() }
    }

    fn parts(&self, letter: &Letter) -> Parts {
        let tenant = plain(&letter.tenant_name);
        let url = |page: &str, link: &MailedLink| {
            format!("{}/account/{page}#{}", self.base_url, link.token)
        };
        match &letter.content {
            Content::Invite { role, by, link } => {
                let who = by.as_deref().map_or_else(
                    || "You are".to_owned(),
                    |by| format!("{} has invited you, {},", plain(by), plain(&letter.to)),
                );
                let said = match by {
                    Some(_) => format!("{who} to join {tenant} as {role}."),
                    None => format!("{who} invited to join {tenant} as {role}."),
                };
                Parts {
                    subject: format!("Invitation to {tenant}"),
                    said,
                    button: Some(("Accept the invitation", url("invite", link), link.expires_ms)),
                    closing: "If you do not know what this is about, ignore this mail: nothing happens.",
                }
            }
            Content::Reset(link) => Parts {
                subject: format!("A new password for {tenant}"),
                said: format!(
                    "Somebody, hopefully you, asked for a new password for {} at {tenant}.",
                    plain(&letter.to)
                ),
                button: Some(("Choose a new password", url("reset", link), link.expires_ms)),
                closing: "If it was not you, ignore this mail: your password stays as it is.",
            },
            Content::Verify(link) => Parts {
                subject: format!("Confirm your address for {tenant}"),
                said: format!(
                    "Please confirm that {} is your address at {tenant}.",
                    plain(&letter.to)
                ),
                button: Some(("Confirm the address", url("verify", link), link.expires_ms)),
                closing: "If you did not sign up, ignore this mail.",
            },
            Content::Changed(change, seen) => changed(&tenant, letter, *change, seen.as_ref()),
            Content::Support(notice) => support(&tenant, notice),
        }
    }
}

/// What changed about how somebody signs in: for the subject, what and how, and in a sentence.
fn told(change: Change) -> (&'static str, &'static str, &'static str) {
    match change {
        Change::Password => (
            "password",
            "was changed",
            "The password was changed, and all other sessions have ended.",
        ),
        Change::FactorsReset => (
            "second factors",
            "were removed",
            "An administrator removed the authenticator, the passkeys and the recovery codes, and all sessions have \
             ended. The password is as it was.",
        ),
        Change::AuthenticatorAdded => (
            "authenticator",
            "was added",
            "An authenticator was added; an earlier one counts no more. There are new recovery codes, and all other \
             sessions have ended.",
        ),
        Change::AuthenticatorRemoved => {
            ("authenticator", "was removed", "The authenticator was removed.")
        }
        Change::FirstPasskeyAdded => (
            "passkeys",
            "were changed",
            "A passkey was added. There are new recovery codes, and all other sessions have ended.",
        ),
        Change::PasskeyAdded => ("passkeys", "were changed", "A passkey was added."),
        Change::PasskeyRemoved => ("passkeys", "were changed", "A passkey was removed."),
        Change::RecoveryCodesMade => (
            "recovery codes",
            "were made anew",
            "There is a new set of recovery codes. The earlier ones count no more.",
        ),
        Change::Address => (
            "e-mail address",
            "was changed",
            "An administrator or the directory of your organisation gave the account another e-mail address, and all \
             sessions have ended. Further mails go there.",
        ),
        Change::IdentityLinked => (
            "linked accounts",
            "were changed",
            "An account of another provider was linked: whoever signs in there gets in here.",
        ),
        Change::IdentityUnlinked => (
            "linked accounts",
            "were changed",
            "The link to an account of another provider was removed.",
        ),
    }
}

/// To a person: what changed about how they sign in, when, from where, and what to do if it was not them.
fn changed(tenant: &str, letter: &Letter, change: Change, seen: Option<&Seen>) -> Parts {
    let (what, how, sentence) = told(change);
    let place = seen.map_or_else(String::new, |seen| {
        let ip = seen.ip.as_deref().unwrap_or("an unknown address");
        let device = seen.device.as_deref().unwrap_or("an unknown program");
        format!(" from {ip} with {device}")
    });
    Parts {
        subject: format!("Your {what} for {tenant} {how}"),
        said: format!(
            "This is about the account of {} at {tenant}. {sentence} It was done on {}{place}.",
            plain(&letter.to),
            readable(letter.created_ms)
        ),
        button: None,
        closing: match change {
            Change::Password => {
                "If it was not you, ask for a new password at once, and tell your administrator."
            }
            Change::FactorsReset => {
                "If you did not ask for it, choose a new password at once, and tell your administrator."
            }
            Change::Address => "If you did not expect it, tell your administrator at once.",
            Change::IdentityLinked => {
                "If it was not you, sign in, remove the link, choose a new password, and tell your administrator."
            }
            _ => {
                "If it was not you, choose a new password at once, which ends all other sessions, and have your \
                 administrator remove your second factors, so that only you add them again."
            }
        },
    }
}

/// To owners and administrators: who looks in, why, and what they can do about it.
fn support(tenant: &str, notice: &SupportNotice) -> Parts {
    let SupportNotice { by, reason, ticket, minutes, is_waiting } = notice;
    let may = if *is_waiting { "asks to look" } else { "may look" };
    Parts {
        subject: format!("Support {may} into {tenant}"),
        said: format!(
            "{} of the platform {may} into {tenant} for {minutes} minutes. Case: {}. Reason: {}",
            plain(by),
            plain(ticket),
            plain(reason)
        ),
        button: None,
        closing: if *is_waiting {
            "Nothing is shown until an owner or administrator approves it at /v1/support-sessions. Each request will be in your audit log."
        } else {
            "Each request is in your audit log. An owner or administrator can end it at /v1/support-sessions."
        },
    }
}

/// A time for people: `29 November 2026, 09:22 UTC`.
fn readable(at_ms: u64) -> String {
    let form =
        format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    at.ok().and_then(|at| at.format(form).ok()).unwrap_or_else(|| rfc3339(at_ms))
}

/// A name that people chose, on one line and cut.
fn plain(name: &str) -> String {
    let line: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(NAME_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use actors::permit::Role;
    use storage::id::{Id as _, MailId, TenantId};

    use super::*;

    fn letter(content: Content) -> Letter {
        Letter {
            id: MailId::new(1, [1; 10]),
            tenant: TenantId::new(1, [2; 10]),
            tenant_name: "Acme <script>alert(1)</script>\r\nBcc: all@example.org".to_owned(),
            tenant_slug: "acme".to_owned(),
            to: "ann@example.org".to_owned(),
            content,
            created_ms: 1_700_000_000_000,
        }
    }

    fn link() -> MailedLink {
        MailedLink { token: "bkt_AAAA".to_owned(), expires_ms: 1_700_003_600_000 }
    }

    fn notice() -> Content {
        Content::Changed(Change::Password, None)
    }

    fn compose() -> Compose {
        let from = "Acme <no-reply@example.com>".parse().expect("an address");
        Compose::new(from, "https://app.example.com/")
    }

    #[test]
    fn text_and_page_say_the_same_and_carry_the_link_behind_the_hash() {
        let by = Some("bob@example.org".to_owned());
        for (content, page) in [
            (Content::Invite { role: Role::Member, by, link: link() }, "invite"),
            (Content::Reset(link()), "reset"),
            (Content::Verify(link()), "verify"),
        ] {
            let written = compose().write(&letter(content));
            let url = format!("https://app.example.com/account/{page}#bkt_AAAA");
            assert!(written.text.contains(&url), "{}", written.text);
            assert!(written.page.contains(&format!("href=\"{url}\"")), "{}", written.page);
            assert!(written.text.contains("until 14 November 2023, 23:13 UTC"), "{}", written.text);
        }
    }

    #[test]
    fn a_notice_says_what_when_from_where_and_what_to_do_and_leads_nowhere() {
        let seen =
            Seen { ip: Some("192.0.2.7".to_owned()), device: Some("Chrome on Linux".to_owned()) };
        for (change, what) in [
            (Change::Password, "The password was changed"),
            (Change::AuthenticatorAdded, "An authenticator was added"),
            (Change::AuthenticatorRemoved, "The authenticator was removed"),
            (Change::FirstPasskeyAdded, "A passkey was added. There are new recovery codes"),
            (Change::PasskeyAdded, "A passkey was added. It was done"),
            (Change::PasskeyRemoved, "A passkey was removed"),
            (Change::RecoveryCodesMade, "There is a new set of recovery codes"),
            (Change::IdentityLinked, "An account of another provider was linked"),
            (Change::IdentityUnlinked, "The link to an account of another provider was removed"),
        ] {
            let notice = compose().write(&letter(Content::Changed(change, Some(seen.clone()))));
            for text in [&notice.text, &notice.page] {
                assert!(text.contains(what), "{text}");
                let place = "It was done on 14 November 2023, 22:13 UTC from 192.0.2.7 with Chrome on Linux.";
                assert!(text.contains(place), "{text}");
                assert!(text.contains("If it was not you, "), "{text}");
            }
            assert!(!notice.text.contains("http") && !notice.page.contains("href"));
        }
        let unknown = Some(Seen { ip: None, device: None });
        let notice = compose().write(&letter(Content::Changed(Change::Password, unknown)));
        assert!(notice.text.contains("from an unknown address with an unknown program"));
        let notice = compose().write(&letter(Content::Changed(Change::FactorsReset, None)));
        assert!(notice.text.contains("An administrator removed") && notice.text.contains("UTC."));
        assert!(notice.text.contains("when you sign in: acme\n"), "{}", notice.text);
        assert!(notice.page.contains("when you sign in: <strong>acme"), "{}", notice.page);
    }

    #[test]
    fn a_name_cannot_become_markup_or_a_header() {
        let message = compose().message(&letter(notice())).expect("a mail");
        let raw = String::from_utf8(message.formatted()).expect("ASCII");
        let head = raw.split("\r\n\r\n").next().expect("a head");
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(head.contains("Auto-Submitted: auto-generated"), "{head}");
        let written = compose().write(&letter(notice()));
        assert!(!written.page.contains("<script>"), "{}", written.page);
    }

    #[test]
    fn every_attempt_has_the_same_id() {
        let id = |message: Message| {
            let raw = String::from_utf8(message.formatted()).expect("ASCII");
            raw.lines().find(|line| line.starts_with("Message-ID")).map(str::to_owned)
        };
        let one = compose().message(&letter(notice())).expect("a mail");
        let other = compose().message(&letter(notice())).expect("a mail");
        assert!(id(one).is_some_and(|one| Some(one) == id(other)));
    }
}
