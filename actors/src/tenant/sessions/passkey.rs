//! Signing in by passkey alone: nobody says who they are, the authenticator does. It asks for a PIN, a finger
//! or a face, so this is two factors in one act.
//!
//! Anybody may ask for a challenge, so none is stored: it is a message to ourselves, made with the tenant's
//! own key over when it was made. Whoever answers one has it struck out in their own row. Refuses: older
//! than five minutes, another tenant's, and whatever else is wrong, all alike and on record.

use storage::keys::Key;

use super::challenge::ChallengeOutcome;
use super::{OpenSession, begin, unknown_account};
use crate::audit::entry::{Draft, Named};
use crate::limits;
use crate::permit;
use crate::tenant::cx::{Command, Cx, Reads};
use crate::tenant::error::TenantError;
use crate::tenant::factors::passkeys::{
    Fault, Passkeys, Presented, RelyingParty, ask_for_any, use_alone,
};
use crate::tenant::factors::{FactorsRow, factors_of};
use crate::tenant::people::{Proof, UserRow};

const LABEL: &str = "passkey";
const NONCE_BYTES: usize = 16;
const NAMED_BYTES: usize = NONCE_BYTES + 8;
const CHALLENGE_BYTES: usize = NAMED_BYTES + 32;

/// A challenge of ours that counts.
struct Authentic {
    nonce: [u8; NONCE_BYTES],
    issued_ms: u64,
}

fn issue(cx: &Cx<'_, '_>) -> Vec<u8> {
    let named = [&cx.random::<NONCE_BYTES>()[..], &cx.now_ms().to_be_bytes()].concat();
    let mac = cx.keys().mac(LABEL, &named);
    [&named[..], &mac[..]].concat()
}

fn authentic(cx: &Cx<'_, '_>, challenge: &[u8]) -> Option<Authentic> {
    let challenge: &[u8; CHALLENGE_BYTES] = challenge.try_into().ok()?;
    let (named, mac) = challenge.split_first_chunk::<NAMED_BYTES>()?;
    let (nonce, issued_ms) = named.split_first_chunk::<NONCE_BYTES>()?;
    let issued_ms = u64::from_be_bytes(issued_ms.try_into().ok()?);
    let age_ms = cx.now_ms().checked_sub(issued_ms)?;
    let counts = cx.keys().verify_mac(LABEL, named, mac);
    (counts && age_ms < limits::CHALLENGE_MS).then_some(Authentic { nonce: *nonce, issued_ms })
}

/// Begins to sign in by passkey alone: answers what the browser has to be asked. Changes nothing.
pub struct AskAnyPasskey {
    /// Whom passkeys are made for here.
    pub party: RelyingParty,
}

impl Command for AskAnyPasskey {
    type Action = permit::SignIn;
    type Reply = serde_json::Value;
    const NAME: &'static str = "sign_in.passkey_options";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("account", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<serde_json::Value, TenantError> {
        let challenge = issue(cx);
        Ok(ask_for_any(cx, &self.party, &challenge))
    }
}

/// Signs in by passkey alone.
pub struct OpenByPasskey {
    /// What the browser answered.
    pub presented: Presented,
    /// Whether there is a tenant of the name given; if not, the platform refuses and notes it.
    pub is_known: bool,
    /// The tenant's name and the person, as given; kept as a keyed digest only.
    pub account: String,
}

impl Command for OpenByPasskey {
    type Action = permit::SignIn;
    type Reply = ChallengeOutcome;
    const NAME: &'static str = "sign_in";
    const AFTER_TRIAL: bool = true;

    fn target(&self) -> Named {
        Named::new("account", "-")
    }

    fn run(self, cx: &mut Cx<'_, '_>) -> Result<ChallengeOutcome, TenantError> {
        let Self { presented, is_known, account } = self;
        let named = presented.assertion.user().filter(|_| is_known);
        let user: Option<UserRow> = match named {
            Some(id) => cx.row(&Key::User { id })?,
            None => None,
        };
        let mut row = match &user {
            Some(user) => factors_of(cx, user.id)?,
            None => FactorsRow::default(),
        };
        let outcome = answer(cx, user.as_ref(), row.passkeys_mut(), presented);
        if let Some(user) = user.as_ref().filter(|_| row.is_enrolled()) {
            cx.put(&Key::SecondFactors { user: user.id }, &row)?;
        }
        match (user, outcome) {
            (Some(user), Ok(())) => {
                let amr = vec![Proof::Key, Proof::ManyFactors];
                Ok(ChallengeOutcome::Opened(Box::new(begin(cx, &user, amr, "passkey")?)))
            }
            (user, outcome) => {
                let target =
                    user.map_or_else(|| unknown_account(cx, &account), |user| user.named());
                let reason = if is_known { "wrong-passkey" } else { "unknown-tenant" };
                let fault = outcome.err().unwrap_or(Fault::Unknown);
                let draft = Draft::failed(OpenSession::NAME, target).with("reason", reason);
                cx.audit(draft.with("fault", fault.name()));
                Ok(ChallengeOutcome::Refused)
            }
        }
    }
}

/// Whether what was presented answers a challenge of ours that was not answered before.
fn answer(
    cx: &mut Cx<'_, '_>,
    user: Option<&UserRow>,
    passkeys: &mut Passkeys,
    presented: Presented,
) -> Result<(), Fault> {
    let challenge = presented.assertion.challenge().ok_or(Fault::Unreadable)?;
    let Authentic { nonce, issued_ms } = authentic(cx, &challenge).ok_or(Fault::Challenge)?;
    use_alone(cx, user, passkeys, &challenge, presented)?;
    if passkeys.spend(&nonce, issued_ms, cx.now_ms()) { Ok(()) } else { Err(Fault::Challenge) }
}
