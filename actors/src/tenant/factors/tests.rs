//! Factors are enrolled, used once, and kept from whoever guesses.

use super::own::{
    BeginTotp, Begun, Checked, ConfirmTotp, Confirmed, RecordWrongPassword, RemoveTotp,
    RenewRecoveryCodes,
};
use super::reset::ResetFactors;
use super::totp::{STEP_S, code_of, step_at};
use super::*;
use crate::audit::entry::Outcome;
use crate::permit::{Principal, Role};
use crate::tenant::cx::Command as _;
use crate::tenant::error::Conflict;
use crate::tenant::members::RemoveMember;
use crate::tenant::members::scene::{NODE, Scene, holder, person};
use crate::tenant::profile::UpdateProfile;
use crate::tenant::sessions::challenge::{
    BeginSession, ChallengeOutcome, ChallengeToken, CompleteSession, SignedIn,
};
use crate::tenant::sessions::own::ChangePassword;
use crate::tenant::sessions::{Credential, OpenSession, Opened};

const STEP_MS: u64 = STEP_S * 1_000;

/// Ann, who has an authenticator.
struct Ann {
    scene: Scene,
    opened: Opened,
    secret: Vec<u8>,
    recovery_codes: Vec<String>,
}

fn begin(scene: &mut Scene, who: &Principal, code: Option<String>) -> Result<Begun, TenantError> {
    match scene
        .run(who, BeginTotp { current_phc: Some("phc".to_owned()), shown: code.map(Shown::Code) })?
    {
        Checked::Done(begun) => Ok(begun),
        Checked::WrongFactor => Err(TenantError::BadCredentials),
    }
}

fn confirm(scene: &mut Scene, who: &Principal, code: String) -> Result<Confirmed, TenantError> {
    scene.run(who, ConfirmTotp { code })
}

impl Ann {
    fn enrolled() -> Self {
        let mut scene = Scene::new();
        let user = scene.add("ann@example.org", Role::Owner);
        let opened = scene.sign_in(user);
        let secret = begin(&mut scene, &holder(&opened), None).unwrap().secret.into_vec();
        let code = code_of(&secret, step_at(scene.now_ms));
        let Confirmed { recovery_codes, opened } =
            confirm(&mut scene, &holder(&opened), code).unwrap();
        scene.now_ms += 10 * STEP_MS;
        Self { scene, opened, secret, recovery_codes }
    }

    fn code(&self, steps: i64) -> String {
        code_of(&self.secret, step_at(self.scene.now_ms).checked_add_signed(steps).unwrap())
    }

    fn challenge(&mut self) -> String {
        let credential = Credential { user: self.opened.user, password_phc: "phc".to_owned() };
        match self.scene.run(&Principal::Anonymous, BeginSession { credential }).unwrap() {
            SignedIn::Challenged { mfa_token, methods } => {
                assert_eq!(methods.first(), Some(&Method::Totp));
                mfa_token
            }
            SignedIn::Opened(_) => panic!("no second factor was asked for"),
        }
    }

    /// Whether a sign-in that waits is completed by a code.
    fn complete(&mut self, token: &str, code: &str) -> bool {
        let token = ChallengeToken::parse(token).unwrap();
        let command = CompleteSession { token, shown: Shown::Code(code.to_owned()) };
        match self.scene.run(&Principal::Anonymous, command) {
            Ok(ChallengeOutcome::Opened(_)) => true,
            Ok(ChallengeOutcome::Refused) | Err(TenantError::BadCredentials) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether a new sign-in with the password is completed by a code.
    fn signs_in(&mut self, code: &str) -> bool {
        let token = self.challenge();
        self.complete(&token, code)
    }

    fn remove(&mut self, code: &str) -> Result<Checked<()>, TenantError> {
        let command =
            RemoveTotp { current_phc: Some("phc".to_owned()), shown: Shown::Code(code.to_owned()) };
        self.scene.run(&holder(&self.opened), command)
    }

    fn view(&mut self) -> MfaView {
        self.scene.ask(&holder(&self.opened), ReadMfa).unwrap()
    }
}

#[test]
fn an_authenticator_counts_once_it_proved_itself_and_ends_what_never_saw_it() {
    let mut scene = Scene::new();
    let user = scene.add("ann@example.org", Role::Owner);
    let (other, mine) = (scene.sign_in(user), scene.sign_in(user));
    let none = confirm(&mut scene, &holder(&mine), "123456".to_owned()).err();
    assert!(matches!(none, Some(TenantError::Conflict(Conflict::EnrolmentNotBegun))));
    let begun = begin(&mut scene, &holder(&mine), None).unwrap();
    assert_eq!((begun.issuer.as_str(), begun.account.as_str()), ("Acme", "ann@example.org"));
    let view = scene.ask(&holder(&mine), ReadMfa).unwrap();
    assert_eq!((view.methods.len(), view.recovery_codes_left), (0, 0), "it did not prove itself");
    scene.sign_in(user);

    let late = code_of(&begun.secret, step_at(scene.now_ms) - 2);
    let wrong = confirm(&mut scene, &holder(&mine), late).err();
    assert!(matches!(wrong, Some(TenantError::Invalid(_))), "{wrong:?}");
    let code = code_of(&begun.secret, step_at(scene.now_ms));
    let confirmed = confirm(&mut scene, &holder(&mine), code).unwrap();
    assert_eq!((confirmed.opened.session, confirmed.opened.authz), (mine.session, mine.authz + 1));
    assert_eq!(confirmed.recovery_codes.len(), limits::RECOVERY_CODES);
    let page = scene.ask(&holder(&confirmed.opened), crate::tenant::sessions::own::ListSessions);
    let listed = page.unwrap().items;
    let session: serde_json::Value = serde_json::from_slice(&listed[0]).unwrap();
    assert_eq!((listed.len(), &session["amr"]), (1, &serde_json::json!(["pwd", "otp"])));
    assert_ne!(session["id"], other.session.to_string());
    let credential = Credential { user, password_phc: "phc".to_owned() };
    let alone = scene.run(&Principal::Anonymous, OpenSession { credential });
    assert!(matches!(alone, Err(TenantError::BadCredentials)), "a password alone opened a session");
}

#[test]
fn an_enrolment_waits_for_its_first_code_a_quarter_of_an_hour() {
    let mut scene = Scene::new();
    let user = scene.add("ann@example.org", Role::Owner);
    let opened = scene.sign_in(user);
    let begun = begin(&mut scene, &holder(&opened), None).unwrap();
    scene.now_ms += limits::ENROLMENT_MS;
    let code = code_of(&begun.secret, step_at(scene.now_ms));
    let late = confirm(&mut scene, &holder(&opened), code).err();
    assert!(matches!(late, Some(TenantError::Conflict(Conflict::EnrolmentNotBegun))));
}

#[test]
fn each_step_completes_one_sign_in_and_none_before_it_does_later() {
    let mut ann = Ann::enrolled();
    for (steps, is_good) in
        [(-2, false), (2, false), (-1, true), (-1, false), (1, true), (0, false)]
    {
        let code = ann.code(steps);
        assert_eq!(ann.signs_in(&code), is_good, "{steps} steps away");
    }
    ann.scene.now_ms += 2 * STEP_MS;
    let code = ann.code(0);
    assert!(ann.signs_in(&format!(" {} {} ", &code[..3], &code[3..])));
}

#[test]
fn a_recovery_code_is_good_once_and_says_how_many_are_left() {
    let mut ann = Ann::enrolled();
    let code = ann.recovery_codes[3].clone();
    assert!(ann.signs_in(&code.to_uppercase().replace('-', " ")));
    let used = ann.scene.drafts.iter().find(|(_, draft)| draft.action == "mfa.recovery_code");
    assert_eq!(used.unwrap().1.detail["codes_left"], 9_u64.into());
    let (_, signed_in) = ann.scene.drafts.last().unwrap();
    assert_eq!(signed_in.detail["factor"], "recovery_code".into());
    assert!(!ann.signs_in(&code), "twice");
    assert_eq!(ann.view().recovery_codes_left, 9);
    let renew =
        RenewRecoveryCodes { current_phc: Some("phc".to_owned()), shown: Shown::Code(ann.code(0)) };
    let Checked::Done(codes) = ann.scene.run(&holder(&ann.opened), renew).unwrap() else {
        panic!("the code was right");
    };
    let older = ann.recovery_codes[0].clone();
    assert!(!ann.signs_in(&older), "of the set before");
    assert!(ann.signs_in(&codes[0]));
}

#[test]
fn a_sign_in_that_waits_is_void_after_five_wrong_codes_one_right_one_and_five_minutes() {
    let mut ann = Ann::enrolled();
    let token = ann.challenge();
    for _ in 0..limits::WRONG_CODES_MAX {
        assert!(!ann.complete(&token, "000000"));
    }
    let code = ann.code(0);
    assert!(!ann.complete(&token, &code), "it outlived five wrong codes");
    let (_, draft) = ann.scene.drafts.last().unwrap();
    assert_eq!((draft.action, draft.outcome), ("sign_in", Outcome::Failed));
    assert_eq!(draft.detail["reason"], "challenge-over".into());

    let token = ann.challenge();
    assert!(ann.complete(&token, &code));
    let next = ann.code(1);
    assert!(!ann.complete(&token, &next), "it was used");

    let token = ann.challenge();
    ann.scene.now_ms += limits::CHALLENGE_MS;
    let code = ann.code(0);
    assert!(!ann.complete(&token, &code), "it is too old");
    assert!(ann.signs_in(&code), "a code that was never looked at is as good as before");
}

#[test]
fn the_oldest_sign_in_that_waits_gives_way() {
    let mut ann = Ann::enrolled();
    let oldest = ann.challenge();
    let tokens: Vec<_> = (0..limits::CHALLENGES_MAX).map(|_| ann.challenge()).collect();
    let code = ann.code(0);
    assert!(!ann.complete(&oldest, &code));
    assert!(ann.complete(&tokens[0], &code));
}

#[test]
fn whoever_knows_the_password_and_guesses_codes_is_made_to_wait() {
    let mut ann = Ann::enrolled();
    for _ in 0..limits::WRONG_CODES_BEFORE_PAUSE {
        assert!(!ann.signs_in("000000"));
    }
    let code = ann.code(0);
    assert!(!ann.signs_in(&code), "no pause");
    ann.scene.now_ms += limits::CODE_PAUSE_MS_FIRST;
    for _ in 0..limits::WRONG_CODES_MAX {
        assert!(!ann.signs_in("000000"));
    }
    ann.scene.now_ms += limits::CODE_PAUSE_MS_FIRST;
    let code = ann.code(0);
    assert!(!ann.signs_in(&code), "the pause did not double");
    // Who it is about still gets in, and is not made to wait after that.
    let recovery = ann.recovery_codes[0].clone();
    assert!(ann.signs_in(&recovery));
    assert!(ann.signs_in(&code));
}

#[test]
fn changed_and_foreign_tokens_and_those_of_an_older_password_complete_nothing() {
    let mut ann = Ann::enrolled();
    let (token, code) = (ann.challenge(), ann.code(0));
    let bytes = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&text[4..]).unwrap()
    };
    let text = |bytes: Vec<u8>| {
        use base64::Engine as _;
        format!("bkm_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
    };
    for index in [0, 16, 32, 47, 48, 79] {
        let mut forged = bytes(&token);
        forged[index] ^= 1;
        assert!(!ann.complete(&text(forged), &code), "byte {index}");
    }
    for text in ["", "bkm_", &token[1..], &format!("{token}="), &token.replace("bkm_", "bkr_")] {
        assert_eq!(ChallengeToken::parse(text), None, "{text}");
    }
    let mut other = Ann::enrolled();
    assert!(!other.complete(&token, &code), "another tenant's key made it");
    let (current_phc, new_phc) = ("phc".to_owned(), "newer".to_owned());
    ann.scene.run(&holder(&ann.opened), ChangePassword { current_phc, new_phc }).unwrap();
    assert!(!ann.complete(&token, &code), "the password is another");
}

#[test]
fn an_authenticator_is_replaced_and_removed_with_a_code_of_it_and_never_without() {
    let mut ann = Ann::enrolled();
    let without = begin(&mut ann.scene, &holder(&ann.opened), None).err();
    assert!(matches!(without, Some(TenantError::Invalid(_))), "{without:?}");
    let wrong = begin(&mut ann.scene, &holder(&ann.opened), Some("000000".to_owned())).err();
    assert!(matches!(wrong, Some(TenantError::BadCredentials)));
    assert!(matches!(ann.remove("000000").unwrap(), Checked::WrongFactor));
    assert_eq!(ann.scene.noted("mfa.totp_remove"), 1, "a wrong code is not written down");
    let command =
        RemoveTotp { current_phc: Some("older".to_owned()), shown: Shown::Code(ann.code(0)) };
    let older = ann.scene.run(&holder(&ann.opened), command);
    assert!(matches!(older, Err(TenantError::BadCredentials)));

    let code = ann.code(0);
    let begun = begin(&mut ann.scene, &holder(&ann.opened), Some(code)).unwrap();
    let still = ann.code(1);
    assert!(ann.signs_in(&still), "the old one counts until the new one proved itself");
    let code = code_of(&begun.secret, step_at(ann.scene.now_ms));
    let confirmed = confirm(&mut ann.scene, &holder(&ann.opened), code).unwrap();
    (ann.opened, ann.secret) = (confirmed.opened, begun.secret.into_vec());
    let (old, new) = (ann.recovery_codes[0].clone(), confirmed.recovery_codes[0].clone());
    assert!(!ann.signs_in(&old), "a recovery code of the one before");
    assert!(matches!(ann.remove(&new).unwrap(), Checked::Done(())));
    assert_eq!((ann.view().methods.len(), ann.view().recovery_codes_left), (0, 0));
    assert!(matches!(ann.remove(&new), Err(TenantError::NotFound)));
    ann.scene.sign_in(ann.opened.user);
}

#[test]
fn wrong_passwords_are_written_down_and_nothing_secret_ever_is() {
    let mut ann = Ann::enrolled();
    let action = BeginTotp::NAME;
    ann.scene.run(&holder(&ann.opened), RecordWrongPassword { action }).unwrap();
    let (_, draft) = ann.scene.drafts.last().unwrap();
    assert_eq!((draft.action, draft.outcome), (action, Outcome::Failed));
    let codes = [ann.code(0), ann.recovery_codes[0].clone()];
    for code in &codes {
        assert!(ann.signs_in(code));
    }
    let drafts = format!("{:?}", ann.scene.drafts);
    for secret in codes.iter().chain([&totp::base32(&ann.secret)]) {
        assert!(!drafts.contains(secret.as_str()), "{secret}");
    }
}

#[test]
fn where_everybody_needs_one_it_is_replaced_and_not_removed() {
    let mut ann = Ann::enrolled();
    assert!(!ann.view().required);
    let command = UpdateProfile { mfa_required: Some(true), ..UpdateProfile::default() };
    ann.scene.run(&holder(&ann.opened), command).unwrap();
    assert!(ann.view().required);
    let code = ann.code(0);
    let refused = ann.remove(&code);
    assert!(matches!(refused, Err(TenantError::Conflict(Conflict::FactorRequired))));
    assert!(begin(&mut ann.scene, &holder(&ann.opened), Some(code)).is_ok());
}

#[test]
fn administrators_ask_everybody_for_one_and_only_owners_stop_to() {
    let mut scene = Scene::new();
    let owner = person(scene.add("ann@example.org", Role::Owner), Role::Owner);
    let admin = person(scene.add("bob@example.org", Role::Admin), Role::Admin);
    let set = |scene: &mut Scene, who: &Principal, required: bool| {
        let command = UpdateProfile { mfa_required: Some(required), ..UpdateProfile::default() };
        scene.run(who, command).map(|document| document.version)
    };
    assert_eq!(set(&mut scene, &admin, false).unwrap(), 1, "it was off already");
    assert_eq!(set(&mut scene, &admin, true).unwrap(), 2);
    assert_eq!(set(&mut scene, &admin, true).unwrap(), 2);
    let off = set(&mut scene, &admin, false);
    assert!(matches!(off, Err(TenantError::Forbidden { action: "tenant:mfa-off" })));
    assert_eq!(set(&mut scene, &owner, false).unwrap(), 3);
    assert_eq!(scene.noted("tenant.mfa_policy"), 2);
    let rename =
        |name: &str| UpdateProfile { name: Some(name.to_owned()), ..UpdateProfile::default() };
    let renamed = scene.run(&admin, rename("Theirs"));
    assert!(matches!(renamed, Err(TenantError::Forbidden { action: "tenant:rename" })));
    scene.run(&owner, rename("Ours")).unwrap();
}

#[test]
fn who_is_removed_leaves_no_factors_behind() {
    let mut ann = Ann::enrolled();
    ann.scene.add("bob@example.org", Role::Owner);
    let user = ann.opened.user;
    ann.scene.run(&NODE, RemoveMember { user }).unwrap();
    assert!(!ann.scene.has(&Key::SecondFactors { user }));
}

#[test]
fn an_administrator_resets_the_factors_of_others_up_to_their_own_role_and_never_their_own() {
    let mut ann = Ann::enrolled();
    let admin = ann.scene.add("bob@example.org", Role::Admin);
    let user = ann.opened.user;
    let reset = |scene: &mut Scene, who: &Principal| scene.run(who, ResetFactors { user });
    let above = reset(&mut ann.scene, &person(admin, Role::Admin));
    assert!(matches!(above, Err(TenantError::Forbidden { action: "members:role-above-own" })));
    let own = reset(&mut ann.scene, &person(user, Role::Owner));
    assert!(matches!(own, Err(TenantError::Forbidden { action: "members:mfa-own" })));
    assert!(ann.scene.has(&Key::SecondFactors { user }));

    let other = ann.scene.add("eve@example.org", Role::Owner);
    let before = ann.scene.user(user).unwrap();
    reset(&mut ann.scene, &person(other, Role::Owner)).unwrap();
    assert!(!ann.scene.has(&Key::SecondFactors { user }));
    assert!(!ann.scene.has(&Key::Session { user, id: ann.opened.session }));
    assert_eq!(ann.scene.user(user).unwrap().authz, before.authz + 1);
    assert_eq!((ann.scene.noted("member.mfa_reset"), ann.scene.state.mail.waiting), (1, 2));
    // Nothing is left to take away, so nothing is written down.
    reset(&mut ann.scene, &person(other, Role::Owner)).unwrap();
    assert_eq!((ann.scene.noted("member.mfa_reset"), ann.scene.state.mail.waiting), (1, 2));
    ann.scene.sign_in(user);
}

#[test]
fn a_row_of_a_release_without_passkeys_is_read() {
    #[derive(Serialize)]
    struct Challenge(serde_bytes::ByteBuf, u64, u32);
    #[derive(Serialize)]
    struct Older {
        totp: Option<Totp>,
        begun: Option<BegunTotp>,
        recovery: RecoveryCodes,
        challenges: Vec<Challenge>,
        wrong: u32,
        paused_until_ms: u64,
    }
    let older = Older {
        totp: Some(Totp { secret: [7; totp::SECRET_BYTES], last_step: 3, confirmed_ms: 4 }),
        begun: None,
        recovery: RecoveryCodes::default(),
        challenges: vec![Challenge(serde_bytes::ByteBuf::from([1; 16]), 900, 2)],
        wrong: 5,
        paused_until_ms: 6,
    };
    let row: FactorsRow = storage::value::decode(&storage::value::encode(&older)).unwrap();
    assert!(row.is_enrolled() && row.passkeys.is_empty() && row.is_waiting(&[1; 16], 899));
    assert_eq!((row.wrong, row.paused_until_ms), (5, 6));
}
