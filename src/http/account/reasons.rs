//! Why a sign-in that went elsewhere came back without one, in the words of whoever signs in: what happened, and
//! what to do. One table; the page to sign in at shows a row of it.
//!
//! Refuses: to say more than the problem does. Why a state, a code or a token is not believed stands in no row.

use crate::http::problem::Kind;

/// A kind of problem, the name that goes with it (none: any other), and the sentence.
type Row = (&'static Kind, &'static str, &'static str);

/// What is said of anything that has no row.
const OTHERWISE: &str =
    "Signing in there did not work. Try again in a few minutes, or sign in another way.";

const SENTENCES: &[Row] = &[
    (
        Kind::BAD_CREDENTIALS,
        "",
        "Signing in there did not work. It may have taken more than ten minutes, or have begun in another browser, or \
         your organisation has just changed it. Begin again here.",
    ),
    (
        Kind::SIGN_IN_DECLINED,
        "access_denied",
        "You declined there, or your account may not be used here. Begin again, or sign in another way.",
    ),
    (Kind::SIGN_IN_DECLINED, "login_required", NOT_ASKED),
    (Kind::SIGN_IN_DECLINED, "interaction_required", NOT_ASKED),
    (Kind::SIGN_IN_DECLINED, "consent_required", NOT_ASKED),
    (Kind::SIGN_IN_DECLINED, "account_selection_required", NOT_ASKED),
    (Kind::SIGN_IN_DECLINED, "server_error", AWAY),
    (Kind::SIGN_IN_DECLINED, "temporarily_unavailable", AWAY),
    (Kind::SIGN_IN_DECLINED, "invalid_request", SET_UP),
    (Kind::SIGN_IN_DECLINED, "invalid_scope", SET_UP),
    (Kind::SIGN_IN_DECLINED, "unauthorized_client", SET_UP),
    (Kind::SIGN_IN_DECLINED, "unsupported_response_type", SET_UP),
    (
        Kind::SIGN_IN_DECLINED,
        "",
        "You were not signed in there. Begin again, or sign in another way.",
    ),
    (Kind::PROVIDER_UNAVAILABLE, "", AWAY),
    (
        Kind::IDENTITY_NOT_LINKED,
        "",
        "Somebody here has that e-mail address already, and the account you used is not linked to them. If it is you, \
         sign in the way you did before. If you cannot, ask an administrator of your organisation.",
    ),
    (
        Kind::IDENTITY_NOT_ADMITTED,
        "domain",
        "The account you used is not one of your organisation's. Begin again and choose the one that is, or ask an \
         administrator of your organisation.",
    ),
    (
        Kind::IDENTITY_NOT_ADMITTED,
        "no-email",
        "The account you used has no e-mail address that can be used here. Begin again and choose another one.",
    ),
    (
        Kind::IDENTITY_NOT_ADMITTED,
        "email-unverified",
        "The e-mail address of the account you used is not confirmed. Confirm it there, then begin again here.",
    ),
    (
        Kind::IDENTITY_NOT_ADMITTED,
        "not-invited",
        "You are not a member yet. Ask an administrator of your organisation to invite the e-mail address of the \
         account you used, then begin again.",
    ),
    (
        Kind::IDENTITY_NOT_ADMITTED,
        "removed",
        "You are not a member any more. If that is a mistake, ask an administrator of your organisation to invite you.",
    ),
    (
        Kind::IDENTITY_NOT_ADMITTED,
        "role",
        "Your role may do more than the account you used can vouch for. Sign in with a password or a passkey; if you \
         were invited, use the link in the mail.",
    ),
    (
        Kind::IDENTITY_NOT_ADMITTED,
        "provider-unconfirmed",
        "Nobody new can come in that way at the moment, because whoever set it up is no administrator any more. Ask an \
         administrator of your organisation to confirm it.",
    ),
    (
        Kind::IDENTITY_NOT_ADMITTED,
        "",
        "The account you used may not come in. Ask an administrator of your organisation.",
    ),
    (
        Kind::PLAN_QUOTA,
        "",
        "There is no room for another member. Ask an administrator of your organisation to make some, then begin again.",
    ),
    (
        Kind::TRIAL_ENDED,
        "",
        "The trial of your organisation has ended, so nobody new can come in. Ask an administrator of it.",
    ),
    (
        Kind::TENANT_SUSPENDED,
        "",
        "Your organisation is suspended, so nobody can sign in. Ask an administrator of it.",
    ),
    (
        Kind::TENANT_SEALED,
        "",
        "The data of your organisation is locked, so nobody can sign in. Ask an administrator of it.",
    ),
    (
        Kind::IDENTITY_TAKEN,
        "",
        "The account you used belongs to somebody else here. Sign in as before, and link another one.",
    ),
    (
        Kind::TOO_MANY_IDENTITIES,
        "",
        "You have linked as many accounts as a person may have. Sign in as before, and remove one first.",
    ),
    (
        Kind::NOT_FOUND,
        "",
        "There is no such organisation, or it has no account of that name to sign in with. Check both and begin again.",
    ),
    (Kind::INVALID, "", "The address that led there is not complete. Begin again here."),
];

const NOT_ASKED: &str =
    "You were not asked there for what is needed. Begin again, or sign in another way.";
const AWAY: &str = "The place you sign in at cannot be used just now. Try again in a few minutes, or sign in another way.";
const SET_UP: &str = "The place you sign in at does not take how your organisation is set up there. Sign in another way, \
     and tell an administrator.";

/// What to say of a problem with that code and name.
pub(super) fn sentence(code: &str, reason: &str) -> &'static str {
    let of = |name: &str| SENTENCES.iter().find(|row| row.0.code == code && row.1 == name);
    of(reason).or_else(|| of("")).map_or(OTHERWISE, |row| row.2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actors::tenant::identities::sign_in::Unwanted;

    use super::*;
    use crate::federation::Doubt;
    use crate::http::external::{problem, unwanted};
    use crate::http::oidc::reason_of;
    use crate::http::problem::Problem;

    const UNWANTED: [Unwanted; 11] = [
        Unwanted::ProviderChanged,
        Unwanted::NotLinked,
        Unwanted::Domain,
        Unwanted::NoEmail,
        Unwanted::EmailUnverified,
        Unwanted::NotInvited,
        Unwanted::Removed,
        Unwanted::Role,
        Unwanted::Full { limit: 3 },
        Unwanted::TrialEnded,
        Unwanted::Unconfirmed,
    ];

    /// Where each stands above; one that is new does not compile until it is put there.
    fn place(why: Unwanted) -> usize {
        match why {
            Unwanted::ProviderChanged => 0,
            Unwanted::NotLinked => 1,
            Unwanted::Domain => 2,
            Unwanted::NoEmail => 3,
            Unwanted::EmailUnverified => 4,
            Unwanted::NotInvited => 5,
            Unwanted::Removed => 6,
            Unwanted::Role => 7,
            Unwanted::Full { .. } => 8,
            Unwanted::TrialEnded => 9,
            Unwanted::Unconfirmed => 10,
        }
    }

    fn said(problem: &Problem) -> &'static str {
        sentence(problem.kind().code, reason_of(problem))
    }

    #[test]
    fn every_reason_not_to_let_somebody_in_has_a_sentence_of_its_own() {
        let mut sentences = BTreeSet::new();
        for (at, why) in UNWANTED.into_iter().enumerate() {
            assert_eq!(place(why), at, "{why:?}");
            let said = said(&unwanted(why));
            assert!(said != OTHERWISE && sentences.insert(said), "{why:?}: {said}");
        }
        assert!(!sentences.contains(sentence("identity-not-admitted", "new")));
    }

    #[test]
    fn what_fails_elsewhere_has_a_sentence_and_what_is_not_believed_has_one_for_all() {
        let refused =
            ["state", "code", "nonce", "keys"].map(|why| said(&problem(Doubt::Refused(why))));
        assert!(
            refused.iter().all(|said| *said == refused[0] && *said != OTHERWISE),
            "{refused:?}"
        );
        let away = Doubt::Unavailable { reason: "keys", retry_after_s: 1 };
        assert_eq!(said(&problem(away)), AWAY);
        let declined = |error: &'static str| {
            said(&Problem::new(Kind::SIGN_IN_DECLINED).with("provider_error", error))
        };
        assert_eq!(declined("temporarily_unavailable"), AWAY);
        assert_eq!(declined("interaction_required"), NOT_ASKED);
        assert_eq!(declined("invalid_scope"), SET_UP);
        assert!(![OTHERWISE, declined("access_denied")].contains(&declined("other")));
        assert_eq!(sentence("internal", ""), OTHERWISE);
        assert_eq!(sentence("<script>", "<b>"), OTHERWISE);
    }

    #[test]
    fn sentences_are_for_people() {
        for (kind, reason, words) in SENTENCES {
            let is_plain = !words.contains(['`', '_', '/', '<']) && words.ends_with('.');
            assert!(is_plain, "{} {reason}: {words}", kind.code);
        }
    }
}
