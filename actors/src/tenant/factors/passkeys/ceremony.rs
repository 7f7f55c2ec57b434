//! The two ceremonies of WebAuthn: making a passkey and using one. Verification is webauthn-rs's; what it
//! leaves to its caller is here: whose challenge it is, the exact origin, frames, and the bounds.
//!
//! Pure: knows no row and no clock. Takes two kinds of keys, ES256 and RS256, which every authenticator has
//! one of, and asks for no attestation: who made an authenticator is nothing we decide by.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use storage::id::{Id, UserId};
use url::Url;
use webauthn_rs_core::WebauthnCore;
use webauthn_rs_core::error::WebauthnError;
use webauthn_rs_core::proto::{
    AuthenticationState, AuthenticatorAssertionResponseRaw, AuthenticatorAttestationResponseRaw,
    COSEAlgorithm, COSEEC2Key, COSEKey, COSEKeyType, COSERSAKey, Credential, ECDSACurve,
    ParsedAttestation, PublicKeyCredential, RegisterPublicKeyCredential, RegisteredExtensions,
    RegistrationState, UserVerificationPolicy,
};

use super::party::{Assertion, CREDENTIAL_ID_BYTES_MAX, ClientData, NewCredential, RelyingParty};
use super::{Fault, Passkey};
use crate::limits;

const CREATE: &str = "webauthn.create";
const GET: &str = "webauthn.get";
const PUBLIC_KEY: &str = "public-key";
/// The ways to reach an authenticator that browsers know. Others are dropped.
const TRANSPORTS: [&str; 6] = ["usb", "nfc", "ble", "smart-card", "hybrid", "internal"];

/// A public key, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PublicKey {
    /// ECDSA on P-256 with SHA-256: the point's coordinates.
    Es256(ByteBuf, ByteBuf),
    /// RSASSA-PKCS1-v1_5 with SHA-256: modulus and exponent.
    Rs256(ByteBuf, [u8; 3]),
}

impl PublicKey {
    fn of(key: COSEKey) -> Result<Self, Fault> {
        match (key.type_, key.key) {
            (COSEAlgorithm::ES256, COSEKeyType::EC_EC2(key))
                if key.curve == ECDSACurve::SECP256R1 =>
            {
                Ok(Self::Es256(ByteBuf::from(key.x), ByteBuf::from(key.y)))
            }
            (COSEAlgorithm::RS256, COSEKeyType::RSA(key)) => {
                Ok(Self::Rs256(ByteBuf::from(key.n), key.e))
            }
            _ => Err(Fault::Unreadable),
        }
    }

    fn cose(&self) -> COSEKey {
        match self {
            Self::Es256(x, y) => COSEKey {
                type_: COSEAlgorithm::ES256,
                key: COSEKeyType::EC_EC2(COSEEC2Key {
                    curve: ECDSACurve::SECP256R1,
                    x: x.to_vec(),
                    y: y.to_vec(),
                }),
            },
            Self::Rs256(n, e) => COSEKey {
                type_: COSEAlgorithm::RS256,
                key: COSEKeyType::RSA(COSERSAKey { n: n.to_vec(), e: *e }),
            },
        }
    }

    /// The base point of P-256 (SEC 2): nobody has signed with the key 1.
    fn nobodys() -> Self {
        let coordinate = |text| ByteBuf::from(hex::decode(text).unwrap_or_default());
        Self::Es256(
            coordinate("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            coordinate("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
        )
    }
}

/// Who makes or uses a passkey where.
pub(super) struct Place<'a> {
    pub party: &'a RelyingParty,
    /// The tenant's short name.
    pub slug: Option<&'a str>,
    /// What the tenant is called.
    pub name: &'a str,
}

/// How much an authenticator has to know of who holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verification {
    /// By PIN or body: it stands for a password as well.
    Required,
    /// As it can: the password was asked for.
    Preferred,
}

impl Verification {
    const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Preferred => "preferred",
        }
    }
}

/// What the use of a passkey showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub counter: u32,
    pub is_verified: bool,
    pub is_backed_up: bool,
}

fn described(passkeys: &[Passkey]) -> Vec<Value> {
    let one = |passkey: &Passkey| json!({"type": PUBLIC_KEY, "id": passkey.id(), "transports": passkey.transports});
    passkeys.iter().map(one).collect()
}

impl Place<'_> {
    /// What a browser is asked to make a passkey by (PublicKeyCredentialCreationOptionsJSON).
    pub fn creation_options(
        &self,
        user: UserId,
        email: &str,
        challenge: &[u8],
        held: &[Passkey],
    ) -> Value {
        json!({
            "rp": {"id": self.party.id, "name": self.name},
            // Not the address: authenticators keep it in clear, and it changes.
            "user": {"id": URL_SAFE_NO_PAD.encode(user.as_bytes()), "name": email, "displayName": email},
            "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "pubKeyCredParams": [
                {"type": PUBLIC_KEY, "alg": COSEAlgorithm::ES256 as i64},
                {"type": PUBLIC_KEY, "alg": COSEAlgorithm::RS256 as i64},
            ],
            "timeout": limits::CHALLENGE_MS,
            "excludeCredentials": described(held),
            "authenticatorSelection": {
                "residentKey": "preferred",
                "requireResidentKey": false,
                "userVerification": Verification::Preferred.name(),
            },
            "attestation": "none",
        })
    }

    /// What a browser is asked to use a passkey by (PublicKeyCredentialRequestOptionsJSON). Without
    /// passkeys that are meant, it offers those it finds.
    pub fn request_options(
        &self,
        challenge: &[u8],
        meant: &[Passkey],
        verification: Verification,
    ) -> Value {
        json!({
            "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "timeout": limits::CHALLENGE_MS,
            "rpId": self.party.id,
            "allowCredentials": described(meant),
            "userVerification": verification.name(),
        })
    }

    fn verifier(&self, origin: &str) -> Result<WebauthnCore, Fault> {
        let origin = Url::parse(origin).map_err(|_| Fault::Origin)?;
        let timeout = Duration::from_millis(limits::CHALLENGE_MS);
        let (id, exactly) = (&self.party.id, Some(false));
        // The crate's wrapper makes and keeps challenges of its own; ours are the tenant's, see ADR 11.
        Ok(WebauthnCore::new_unsafe_experts_only(
            self.name,
            id,
            vec![origin],
            timeout,
            exactly,
            exactly,
        ))
    }

    /// Takes a new passkey that answers `challenge`.
    pub fn created(&self, challenge: &[u8], made: NewCredential) -> Result<Passkey, Fault> {
        let data = ClientData::read(&made.response.client_data.0)?;
        data.check(CREATE, challenge, self.party, self.slug)?;
        if made.kind != PUBLIC_KEY || made.id.0.len() > CREDENTIAL_ID_BYTES_MAX {
            return Err(Fault::Unreadable);
        }
        let NewCredential { id, response, .. } = made;
        let credential = RegisterPublicKeyCredential {
            id: URL_SAFE_NO_PAD.encode(&id.0),
            raw_id: id.0.clone(),
            response: AuthenticatorAttestationResponseRaw {
                attestation_object: response.attestation_object.0,
                client_data_json: response.client_data.0,
                transports: None,
            },
            type_: made.kind,
            extensions: Default::default(),
        };
        let verifier = self.verifier(&data.origin)?;
        let state = registration_state(challenge);
        let made = verifier.register_credential(&credential, &state, None).map_err(fault)?;
        if made.cred_id != id.0 {
            return Err(Fault::Unreadable);
        }
        let known = |name: &String| TRANSPORTS.contains(&name.as_str());
        let mut transports: Vec<String> = response.transports.into_iter().filter(known).collect();
        transports.sort_unstable();
        transports.dedup();
        Ok(Passkey {
            id: ByteBuf::from(made.cred_id),
            key: PublicKey::of(made.cred)?,
            name: String::new(),
            created_ms: 0,
            used_ms: None,
            counter: made.counter,
            is_verified: made.user_verified,
            is_synced: made.backup_eligible,
            is_backed_up: made.backup_state,
            transports,
            is_suspect: false,
        })
    }

    /// Whether `used` answers `challenge` with `passkey`. Without a passkey it is refused, after the same
    /// work.
    pub fn used(
        &self,
        challenge: &[u8],
        used: Assertion,
        passkey: Option<&Passkey>,
        verification: Verification,
    ) -> Result<Use, Fault> {
        let data = ClientData::read(&used.response.client_data.0)?;
        data.check(GET, challenge, self.party, self.slug)?;
        if used.kind != PUBLIC_KEY || used.id.0.len() > CREDENTIAL_ID_BYTES_MAX {
            return Err(Fault::Unreadable);
        }
        let verifier = self.verifier(&data.origin)?;
        let credential = known_credential(&used.id.0, passkey);
        let state = authentication_state(challenge, verification);
        let assertion = asserted(used);
        let outcome = verifier.authenticate_single_credential(&assertion, &state, &credential);
        let Some(_) = passkey else { return Err(Fault::Unknown) };
        let outcome = outcome.map_err(fault)?;
        Ok(Use {
            counter: outcome.counter(),
            is_verified: outcome.user_verified(),
            is_backed_up: outcome.backup_state(),
        })
    }
}

fn asserted(used: Assertion) -> PublicKeyCredential {
    let Assertion { id, kind, response } = used;
    PublicKeyCredential {
        id: URL_SAFE_NO_PAD.encode(&id.0),
        raw_id: id.0,
        response: AuthenticatorAssertionResponseRaw {
            authenticator_data: response.authenticator_data.0,
            client_data_json: response.client_data.0,
            signature: response.signature.0,
            user_handle: response.user_handle.map(|handle| handle.0),
        },
        extensions: Default::default(),
        type_: kind,
    }
}

/// A passkey in the library's form; without one, a key that nobody has.
fn known_credential(id: &[u8], passkey: Option<&Passkey>) -> Credential {
    let key = passkey.map_or_else(PublicKey::nobodys, |passkey| passkey.key.clone());
    Credential {
        cred_id: passkey.map_or_else(|| id.to_vec(), |passkey| passkey.id.to_vec()),
        cred: key.cose(),
        counter: passkey.map_or(0, |passkey| passkey.counter),
        transports: None,
        user_verified: passkey.is_some_and(|passkey| passkey.is_verified),
        backup_eligible: passkey.is_some_and(|passkey| passkey.is_synced),
        backup_state: passkey.is_some_and(|passkey| passkey.is_backed_up),
        registration_policy: UserVerificationPolicy::Preferred,
        extensions: RegisteredExtensions::none(),
        attestation: ParsedAttestation::default(),
        attestation_format: webauthn_rs_core::proto::AttestationFormat::None,
    }
}

/// What the library keeps between the two halves of a ceremony, around a challenge of the tenant's.
fn registration_state(challenge: &[u8]) -> RegistrationState {
    let state = json!({
        "policy": Verification::Preferred.name(),
        "exclude_credentials": [],
        "challenge": URL_SAFE_NO_PAD.encode(challenge),
        "credential_algorithms": [COSEAlgorithm::ES256, COSEAlgorithm::RS256],
        "require_resident_key": false,
        "authenticator_attachment": null,
        "extensions": {},
        "allow_synchronised_authenticators": true,
    });
    serde_json::from_value(state).expect("the form that this very release of the library keeps")
}

fn authentication_state(challenge: &[u8], verification: Verification) -> AuthenticationState {
    let state = json!({
        "credentials": [],
        "policy": verification.name(),
        "challenge": URL_SAFE_NO_PAD.encode(challenge),
        "appid": null,
        "allow_backup_eligible_upgrade": false,
    });
    serde_json::from_value(state).expect("the form that this very release of the library keeps")
}

fn fault(error: WebauthnError) -> Fault {
    match error {
        WebauthnError::InvalidClientDataType => Fault::Kind,
        WebauthnError::MismatchedChallenge => Fault::Challenge,
        WebauthnError::InvalidRPOrigin | WebauthnError::CredentialCrossOrigin => Fault::Origin,
        WebauthnError::InvalidRPIDHash => Fault::Party,
        WebauthnError::UserNotPresent | WebauthnError::UserNotVerified => Fault::NotVerified,
        WebauthnError::CredentialNotFound => Fault::Unknown,
        WebauthnError::AuthenticationFailure | WebauthnError::SignatureInvalid => Fault::Signature,
        WebauthnError::CredentialPossibleCompromise => Fault::Counter,
        _ => Fault::Unreadable,
    }
}
