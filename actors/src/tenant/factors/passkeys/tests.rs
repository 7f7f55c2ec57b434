//! Passkeys are enrolled, complete a sign-in or are one, and whatever is wrong with them is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use storage::id::Id as _;
use storage::keys::Key;

use super::device::Device;
use super::own::{
    AddPasskey, AskOwnPasskey, BeginPasskey, Enrolled, Enrolment, ListPasskeys, RemovePasskey,
};
use super::{Fault, PasskeyView, Presented, RelyingParty};
use crate::audit::entry::{Detail, Outcome};
use crate::limits;
use crate::permit::{Principal, Role};
use crate::tenant::error::{Conflict, TenantError};
use crate::tenant::factors::own::{Checked, RemoveTotp, RenewRecoveryCodes};
use crate::tenant::factors::reset::ResetFactors;
use crate::tenant::factors::{Method, ReadMfa, Shown};
use crate::tenant::members::RemoveMember;
use crate::tenant::members::scene::{NODE, Scene, holder, person};
use crate::tenant::people::Proof;
use crate::tenant::profile::UpdateProfile;
use crate::tenant::sessions::challenge::{
    AskPasskey, BeginSession, ChallengeOutcome, ChallengeToken, CompleteSession, SignedIn,
};
use crate::tenant::sessions::passkey::{AskAnyPasskey, OpenByPasskey};
use crate::tenant::sessions::{Credential, Opened};

const HERE: &str = "https://acme.example.com";

/// What is wrong, how the device comes to it, at which origin, and what is found.
type Wrong<F> = (&'static str, fn(&mut Device), &'static str, F);

fn party() -> RelyingParty {
    RelyingParty {
        id: "example.com".to_owned(),
        origins: vec!["https://api.example.com".to_owned()],
        tenants: Some(("https://".to_owned(), ".example.com".to_owned())),
        is_local: false,
    }
}

/// Ann, who may have passkeys.
struct Ann {
    scene: Scene,
    opened: Opened,
    recovery_codes: Vec<String>,
}

impl Ann {
    fn new() -> Self {
        let mut scene = Scene::new();
        let user = scene.add("ann@example.org", Role::Owner);
        let opened = scene.sign_in(user);
        Self { scene, opened, recovery_codes: Vec::new() }
    }

    fn with(device: &mut Device) -> Self {
        let mut ann = Self::new();
        let enrolled = ann.enrols(device, None).unwrap();
        ann.recovery_codes = enrolled.recovery_codes.unwrap();
        ann
    }

    fn begin(&mut self, shown: Option<Shown>) -> Result<Value, TenantError> {
        let command = BeginPasskey { current_phc: Some("phc".into()), shown, party: party() };
        match self.scene.run(&holder(&self.opened), command)? {
            Checked::Done(options) => Ok(options),
            Checked::WrongFactor => Err(TenantError::BadCredentials),
        }
    }

    fn add(&mut self, answer: &Value) -> Result<Enrolment, TenantError> {
        let credential = serde_json::from_value(answer.clone()).unwrap();
        let command = AddPasskey { name: "Laptop".to_owned(), credential, party: party() };
        let reply = self.scene.run(&holder(&self.opened), command)?;
        if let Enrolment::Done(enrolled) = &reply {
            self.opened = enrolled.opened.clone();
        }
        Ok(reply)
    }

    fn enrols(&mut self, device: &mut Device, shown: Option<Shown>) -> Option<Enrolled> {
        let options = self.begin(shown).unwrap();
        match self.add(&device.create(&options, HERE)).unwrap() {
            Enrolment::Done(enrolled) => Some(*enrolled),
            Enrolment::Refused(_) => None,
        }
    }

    fn list(&mut self) -> Vec<PasskeyView> {
        let page = self.scene.ask(&holder(&self.opened), ListPasskeys).unwrap();
        page.items.iter().map(|item| serde_json::from_slice(item).unwrap()).collect()
    }

    /// A sign-in with the right password that waits.
    fn challenge(&mut self) -> ChallengeToken {
        let credential = Credential { user: self.opened.user, password_phc: "phc".to_owned() };
        match self.scene.run(&Principal::Anonymous, BeginSession { credential }).unwrap() {
            SignedIn::Challenged { mfa_token, methods } => {
                assert!(methods.contains(&Method::Passkey));
                ChallengeToken::parse(&mfa_token).unwrap()
            }
            SignedIn::Opened(_) => panic!("no second factor was asked for"),
        }
    }

    fn ask(&mut self, token: &ChallengeToken) -> Value {
        let command = AskPasskey { token: token.clone(), party: party() };
        self.scene.run(&Principal::Anonymous, command).unwrap()
    }

    fn complete(&mut self, token: &ChallengeToken, answer: &Value) -> Option<Opened> {
        let command = CompleteSession { token: token.clone(), shown: shown(answer) };
        opened(self.scene.run(&Principal::Anonymous, command))
    }

    fn ask_any(&mut self) -> Value {
        self.scene.run(&Principal::Anonymous, AskAnyPasskey { party: party() }).unwrap()
    }

    /// Signs in by passkey alone.
    fn present(&mut self, answer: &Value) -> Option<Opened> {
        let command = OpenByPasskey {
            presented: presented(answer),
            is_known: true,
            account: "acme".to_owned(),
        };
        opened(self.scene.run(&Principal::Anonymous, command))
    }

    fn last_fault(&self) -> Option<String> {
        let (_, draft) = self.scene.drafts.last().unwrap();
        assert_eq!(draft.outcome, Outcome::Failed);
        match draft.detail.get("fault")? {
            Detail::Text(fault) => Some(fault.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

fn opened(outcome: Result<ChallengeOutcome, TenantError>) -> Option<Opened> {
    match outcome.unwrap() {
        ChallengeOutcome::Opened(opened) => Some(*opened),
        ChallengeOutcome::Refused => None,
    }
}

fn presented(answer: &Value) -> Presented {
    Presented { assertion: serde_json::from_value(answer.clone()).unwrap(), party: party() }
}

fn shown(answer: &Value) -> Shown {
    Shown::Passkey(Box::new(presented(answer)))
}

fn amr(scene: &mut Scene, opened: &Opened) -> Vec<Proof> {
    let rows = scene.sessions(opened.user);
    rows.into_iter().find(|row| row.id == opened.session).unwrap().amr
}

#[test]
fn the_first_passkey_gives_recovery_codes_and_ends_what_never_saw_it() {
    let mut device = Device::new(1);
    let mut ann = Ann::new();
    let other = ann.scene.sign_in(ann.opened.user);
    let before = ann.opened.clone();
    let enrolled = ann.enrols(&mut device, None).unwrap();
    assert_eq!(enrolled.recovery_codes.map(|codes| codes.len()), Some(limits::RECOVERY_CODES));
    assert_eq!(
        (enrolled.opened.session, enrolled.opened.authz),
        (before.session, before.authz + 1)
    );
    assert!(!ann.scene.has(&Key::Session { user: other.user, id: other.session }));
    assert_eq!(amr(&mut ann.scene, &before), [Proof::Password, Proof::Key]);
    let listed = ann.list();
    assert_eq!((listed.len(), &listed[0]), (1, &enrolled.passkey));
    assert_eq!((listed[0].id.as_str(), listed[0].name.as_str()), (device.id().as_str(), "Laptop"));
    assert!(listed[0].verifies_user && !listed[0].possible_clone && !listed[0].synced);
    let view = ann.scene.ask(&holder(&ann.opened), ReadMfa).unwrap();
    assert_eq!((view.methods, view.recovery_codes_left), (vec![Method::Passkey], 10));
}

#[test]
fn options_name_no_address_as_the_user_and_ask_for_what_is_needed() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    let code = ann.recovery_codes[0].clone();
    let options = ann.begin(Some(Shown::Code(code))).unwrap();
    let handle = URL_SAFE_NO_PAD.encode(ann.opened.user.as_bytes());
    assert_eq!(options["user"]["id"], handle);
    assert_eq!(options["rp"], serde_json::json!({"id": "example.com", "name": "Acme"}));
    assert_eq!(options["excludeCredentials"][0]["id"], device.id());
    assert_eq!(options["excludeCredentials"][0]["transports"], serde_json::json!(["internal"]));
    assert_eq!(options["attestation"], "none");
    let any = ann.ask_any();
    assert_eq!(any["allowCredentials"], serde_json::json!([]));
    assert_eq!(
        (&any["userVerification"], &any["rpId"]),
        (&"required".into(), &"example.com".into())
    );
    assert_ne!(any["challenge"], ann.ask_any()["challenge"]);
}

#[test]
fn an_enrolment_is_refused_whose_answer_is_wrong_and_its_challenge_is_used_up() {
    let wrongs: [Wrong<Fault>; 6] = [
        ("another tenant's origin", |_| {}, "https://bob.example.com", Fault::Origin),
        ("an origin below", |_| {}, "https://x.acme.example.com", Fault::Origin),
        ("without TLS", |_| {}, "http://acme.example.com", Fault::Origin),
        ("in a frame", |device| device.is_framed = true, HERE, Fault::Origin),
        ("another party", |device| device.rp_id = Some("evil.org".to_owned()), HERE, Fault::Party),
        ("the other ceremony", |device| device.kind = Some("webauthn.get"), HERE, Fault::Kind),
    ];
    for (what, change, origin, expected) in wrongs {
        let (mut ann, mut device) = (Ann::new(), Device::new(1));
        change(&mut device);
        let options = ann.begin(None).unwrap();
        let Enrolment::Refused(fault) = ann.add(&device.create(&options, origin)).unwrap() else {
            panic!("{what} was taken");
        };
        assert_eq!(fault, expected, "{what}");
        let again = ann.add(&Device::new(1).create(&options, HERE));
        assert!(matches!(again, Err(TenantError::Conflict(Conflict::EnrolmentNotBegun))), "{what}");
        assert!(ann.list().is_empty());
    }
    let mut ann = Ann::new();
    let mut device = Device::new(1);
    let older = ann.begin(None).unwrap();
    let newer = ann.begin(None).unwrap();
    let Enrolment::Refused(fault) = ann.add(&device.create(&older, HERE)).unwrap() else {
        panic!("an older challenge was taken");
    };
    assert_eq!(fault, Fault::Challenge);
    assert!(ann.add(&device.create(&newer, HERE)).is_err(), "it was used up");
    let late = ann.begin(None).unwrap();
    ann.scene.now_ms += limits::CHALLENGE_MS;
    assert!(ann.add(&device.create(&late, HERE)).is_err(), "late");
}

#[test]
fn a_further_passkey_takes_a_factor_that_is_there_and_there_is_a_bound() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    assert!(matches!(ann.begin(None), Err(TenantError::Invalid(_))));
    let wrong = ann.begin(Some(Shown::Code("000000".to_owned())));
    assert!(matches!(wrong, Err(TenantError::BadCredentials)));
    for number in 2..=limits::PASSKEYS_MAX as u8 {
        let who = holder(&ann.opened);
        let asked = ann.scene.run(&who, AskOwnPasskey { party: party() }).unwrap();
        let answer = device.get(&asked, HERE);
        let enrolled = ann.enrols(&mut Device::new(number), Some(shown(&answer))).unwrap();
        assert!(enrolled.recovery_codes.is_none(), "the codes there are stay");
        let again = ann.begin(Some(shown(&answer)));
        assert!(again.is_err(), "an answer counted twice");
    }
    let code = Shown::Code(ann.recovery_codes[0].clone());
    let full = ann.begin(Some(code));
    assert!(matches!(full, Err(TenantError::Conflict(Conflict::TooManyPasskeys))));
    assert_eq!(ann.list().len(), limits::PASSKEYS_MAX);
}

#[test]
fn a_passkey_completes_a_sign_in_once() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    let token = ann.challenge();
    let options = ann.ask(&token);
    assert_eq!(options["allowCredentials"][0]["id"], device.id());
    let answer = device.get(&options, HERE);
    let session = ann.complete(&token, &answer).expect("a session");
    assert_eq!(amr(&mut ann.scene, &session), [Proof::Password, Proof::Key]);
    assert!(!session.enrolment_required);
    let (_, draft) = ann.scene.drafts.last().unwrap();
    assert_eq!(draft.detail["factor"], "passkey".into());
    assert!(ann.complete(&token, &answer).is_none(), "the wait is over");

    let token = ann.challenge();
    assert!(ann.complete(&token, &answer).is_none(), "nothing was asked for");
    let options = ann.ask(&token);
    assert!(ann.complete(&token, &answer).is_none(), "an older answer");
    let answer = device.get(&options, HERE);
    assert!(ann.complete(&token, &answer).is_none(), "the challenge was used up by a wrong answer");
    let options = ann.ask(&token);
    let answer = device.get(&options, HERE);
    assert!(ann.complete(&token, &answer).is_some());
}

#[test]
fn a_passkey_that_does_not_ask_who_holds_it_is_a_second_factor_and_no_more() {
    let mut device = Device::new(1);
    device.verifies = false;
    let mut ann = Ann::with(&mut device);
    assert!(!ann.list()[0].verifies_user);
    let token = ann.challenge();
    let options = ann.ask(&token);
    let answer = device.get(&options, HERE);
    assert!(ann.complete(&token, &answer).is_some());
    let any = ann.ask_any();
    let answer = device.get(&any, HERE);
    assert!(ann.present(&answer).is_none());
    assert_eq!(ann.last_fault().as_deref(), Some("user-verification"));
}

#[test]
fn a_passkey_alone_signs_in_once_for_each_challenge_and_within_five_minutes() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    let any = ann.ask_any();
    let answer = device.get(&any, HERE);
    let session = ann.present(&answer).expect("a session");
    assert_eq!(session.user, ann.opened.user);
    assert_eq!(amr(&mut ann.scene, &session), [Proof::Key, Proof::ManyFactors]);
    assert!(ann.present(&answer).is_none(), "a replay");
    // The counter would tell a replay as well; a fresh signature over an old challenge it would not.
    assert!(ann.present(&device.get(&any, HERE)).is_none(), "the challenge counted twice");
    assert_eq!(ann.last_fault().as_deref(), Some("challenge"));
    let any = ann.ask_any();
    ann.scene.now_ms += limits::CHALLENGE_MS;
    assert!(ann.present(&device.get(&any, HERE)).is_none(), "it is too old");
    let any = ann.ask_any();
    ann.scene.now_ms += limits::CHALLENGE_MS - 1;
    assert!(ann.present(&device.get(&any, HERE)).is_some());
}

#[test]
fn answered_challenges_beyond_the_bound_take_all_older_ones_along() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    let first = ann.ask_any();
    for _ in 0..=limits::CHALLENGES_SPENT_MAX {
        ann.scene.now_ms += 1;
        let any = ann.ask_any();
        assert!(ann.present(&device.get(&any, HERE)).is_some());
    }
    assert!(ann.present(&device.get(&first, HERE)).is_none(), "one that may have been forgotten");
    let any = ann.ask_any();
    assert!(ann.present(&device.get(&any, HERE)).is_some());
}

#[test]
fn whatever_is_wrong_with_a_passkey_alone_it_is_refused_and_on_record() {
    let wrongs: [Wrong<&str>; 8] = [
        ("another tenant's origin", |_| {}, "https://bob.example.com", "origin"),
        ("another site", |_| {}, "https://example.com.evil.org", "origin"),
        ("in a frame", |device| device.is_framed = true, HERE, "origin"),
        (
            "another party",
            |device| device.rp_id = Some("evil.org".to_owned()),
            HERE,
            "relying-party",
        ),
        ("the other ceremony", |device| device.kind = Some("webauthn.create"), HERE, "type"),
        ("no verification", |device| device.verifies = false, HERE, "user-verification"),
        ("no user handle", |device| device.handle = Some(None), HERE, "unknown-passkey"),
        (
            "a handle of nobody",
            |device| device.handle = Some(Some(vec![7; 16])),
            HERE,
            "unknown-passkey",
        ),
    ];
    for (what, change, origin, fault) in wrongs {
        let mut device = Device::new(1);
        let mut ann = Ann::with(&mut device);
        change(&mut device);
        let any = ann.ask_any();
        assert!(ann.present(&device.get(&any, origin)).is_none(), "{what}");
        assert_eq!(ann.last_fault().as_deref(), Some(fault), "{what}");
    }
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    // Another authenticator under the same credential id, and a signature over something else.
    let any = ann.ask_any();
    let mut forged = Device::new(1);
    forged.handle = Some(Some(ann.opened.user.as_bytes().to_vec()));
    assert!(ann.present(&forged.get(&any, HERE)).is_none());
    assert_eq!(ann.last_fault().as_deref(), Some("signature"));
    let mut tampered = device.get(&any, HERE);
    tampered["response"]["signature"] = device.get(&any, HERE)["response"]["signature"].clone();
    assert!(ann.present(&tampered).is_none());
    assert_eq!(ann.last_fault().as_deref(), Some("signature"));
    let mut other = Ann::with(&mut Device::new(1));
    let foreign = other.ask_any();
    assert!(ann.present(&device.get(&foreign, HERE)).is_none(), "another tenant's challenge");
    assert_eq!(ann.last_fault().as_deref(), Some("challenge"));
    let answer = device.get(&ann.ask_any(), HERE);
    assert!(ann.present(&answer).is_some(), "none of it harmed the passkey");
}

#[test]
fn another_persons_passkey_completes_no_sign_in() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    let bob = ann.scene.add("bob@example.org", Role::Admin);
    let bob = ann.scene.sign_in(bob);
    let anns = std::mem::replace(&mut ann.opened, bob);
    let mut bobs = Device::new(2);
    ann.enrols(&mut bobs, None).unwrap();
    ann.opened = anns;
    let token = ann.challenge();
    let options = ann.ask(&token);
    let answer = bobs.get(&options, HERE);
    assert!(ann.complete(&token, &answer).is_none());
    assert_eq!(ann.last_fault().as_deref(), Some("unknown-passkey"));
    // Under Ann's name it is no better.
    let options = ann.ask(&token);
    bobs.handle = Some(Some(ann.opened.user.as_bytes().to_vec()));
    let answer = bobs.get(&options, HERE);
    assert!(ann.complete(&token, &answer).is_none());
    let any = ann.ask_any();
    assert!(ann.present(&bobs.get(&any, HERE)).is_none());
}

#[test]
fn a_counter_that_goes_back_is_refused_noted_and_shown() {
    let mut device = Device::new(1);
    device.counter = 40;
    let mut ann = Ann::with(&mut device);
    device.counter = 12;
    let any = ann.ask_any();
    assert!(ann.present(&device.get(&any, HERE)).is_none());
    assert_eq!(ann.last_fault().as_deref(), Some("counter"));
    assert_eq!(ann.scene.noted("passkey.possible_clone"), 1);
    assert!(ann.list()[0].possible_clone);
    device.counter = 40;
    let any = ann.ask_any();
    assert!(ann.present(&device.get(&any, HERE)).is_some());
    assert!(ann.list()[0].possible_clone);
}

#[test]
fn the_last_factor_goes_with_its_codes_and_not_where_everybody_needs_one() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    let remove = |ann: &mut Ann, id: String, code: &str| {
        let shown = Shown::Code(code.to_owned());
        let command = RemovePasskey { current_phc: Some("phc".into()), shown, passkey: id };
        ann.scene.run(&holder(&ann.opened), command)
    };
    let codes = ann.recovery_codes.clone();
    assert!(matches!(remove(&mut ann, device.id(), "000000"), Ok(Checked::WrongFactor)));
    let required = |ann: &mut Ann, required| {
        let command = UpdateProfile { mfa_required: Some(required), ..UpdateProfile::default() };
        ann.scene.run(&holder(&ann.opened), command).unwrap();
    };
    required(&mut ann, true);
    let kept = remove(&mut ann, device.id(), &codes[0]);
    assert!(matches!(kept, Err(TenantError::Conflict(Conflict::FactorRequired))));
    required(&mut ann, false);
    let shown = || Shown::Code(codes[0].clone());
    let none = RemoveTotp { current_phc: Some("phc".into()), shown: shown() };
    let none = ann.scene.run(&holder(&ann.opened), none);
    assert!(matches!(none, Err(TenantError::NotFound)), "there is no authenticator");
    let renew = RenewRecoveryCodes { current_phc: Some("phc".into()), shown: shown() };
    let Ok(Checked::Done(codes)) = ann.scene.run(&holder(&ann.opened), renew) else {
        panic!("no new codes");
    };
    assert!(matches!(remove(&mut ann, device.id(), &codes[0]), Ok(Checked::Done(()))));
    assert!(!ann.scene.has(&Key::SecondFactors { user: ann.opened.user }));
    ann.scene.sign_in(ann.opened.user);
}

#[test]
fn who_is_reset_or_removed_leaves_no_passkey_behind() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    let other = ann.scene.add("eve@example.org", Role::Owner);
    let user = ann.opened.user;
    ann.scene.run(&person(other, Role::Owner), ResetFactors { user }).unwrap();
    let any = ann.ask_any();
    assert!(ann.present(&device.get(&any, HERE)).is_none());
    let mut ann = Ann::with(&mut device);
    ann.scene.add("eve@example.org", Role::Owner);
    let user = ann.opened.user;
    ann.scene.run(&NODE, RemoveMember { user }).unwrap();
    let any = ann.ask_any();
    assert!(ann.present(&device.get(&any, HERE)).is_none());
    assert!(!ann.scene.has(&Key::SecondFactors { user }));
}

#[test]
fn a_tenant_that_does_not_exist_asks_and_refuses_as_any_other() {
    let mut device = Device::new(1);
    let mut ann = Ann::with(&mut device);
    let any = ann.ask_any();
    let command = OpenByPasskey {
        presented: presented(&device.get(&any, HERE)),
        is_known: false,
        account: "nowhere ann".to_owned(),
    };
    assert!(opened(ann.scene.run(&Principal::Anonymous, command)).is_none());
    let (_, draft) = ann.scene.drafts.last().unwrap();
    assert_eq!(draft.detail["reason"], "unknown-tenant".into());
    assert_eq!(draft.target.kind, "account");
    assert!(!format!("{draft:?}").contains("nowhere"), "what was typed is in the audit log");
}
