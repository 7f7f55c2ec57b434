//! An authenticator and the browser around it, for tests: it knows WebAuthn and a key, nothing of the code
//! that is tested. What it says wrong is for the test to choose.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const HAS_CREDENTIAL: u8 = 0x40;

/// One passkey and who holds it.
pub struct Device {
    key: EcdsaKeyPair,
    id: Vec<u8>,
    user_handle: Vec<u8>,
    /// What it has counted.
    pub counter: u32,
    /// Whether it asks for a PIN.
    pub verifies: bool,
    /// Another relying party than it was asked by.
    pub rp_id: Option<String>,
    /// Whether it stands in a frame of another page.
    pub is_framed: bool,
    /// Another type of client data.
    pub kind: Option<&'static str>,
    /// Another user handle, or none.
    pub handle: Option<Option<Vec<u8>>>,
}

impl Device {
    /// A new one, without a passkey yet. `number` tells devices apart.
    pub fn new(number: u8) -> Self {
        Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"),
            id: vec![number; 32],
            user_handle: Vec::new(),
            counter: 0,
            verifies: true,
            rp_id: None,
            is_framed: false,
            kind: None,
            handle: None,
        }
    }

    /// The credential id.
    pub fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.id)
    }

    /// What `navigator.credentials.create` gives for these options on a page at `origin`.
    pub fn create(&mut self, options: &Value, origin: &str) -> Value {
        self.user_handle = bytes(&options["user"]["id"]);
        let client_data = self.client_data("webauthn.create", options, origin);
        let mut data = self.authenticator_data(&options["rp"]["id"], HAS_CREDENTIAL);
        data.extend([0; 16]);
        data.extend((self.id.len() as u16).to_be_bytes());
        data.extend(&self.id);
        let point = self.key.public_key().as_ref();
        // {1: 2, 3: -7, -1: 1, -2: x, -3: y}
        data.extend([0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 0x20]);
        data.extend(&point[33..65]);
        // {"fmt": "none", "attStmt": {}, "authData": data}
        let mut object = vec![0xa3, 0x63];
        object.extend(b"fmt\x64none\x67attStmt\xa0\x68authData\x59");
        object.extend((data.len() as u16).to_be_bytes());
        object.extend(data);
        json!({
            "id": self.id(), "rawId": self.id(), "type": "public-key",
            "authenticatorAttachment": "platform", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": URL_SAFE_NO_PAD.encode(client_data),
                "attestationObject": URL_SAFE_NO_PAD.encode(object),
                "transports": ["internal", "telepathy"],
            },
        })
    }

    /// What `navigator.credentials.get` gives for these options on a page at `origin`.
    pub fn get(&mut self, options: &Value, origin: &str) -> Value {
        self.counter += 1;
        let client_data = self.client_data("webauthn.get", options, origin);
        let data = self.authenticator_data(&options["rpId"], 0);
        let mut signed = data.clone();
        signed.extend(digest::digest(&digest::SHA256, &client_data).as_ref());
        let signature = self.key.sign(&SystemRandom::new(), &signed).expect("a signature");
        let handle = self.handle.clone().unwrap_or_else(|| Some(self.user_handle.clone()));
        json!({
            "id": self.id(), "rawId": self.id(), "type": "public-key",
            "authenticatorAttachment": "platform", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": URL_SAFE_NO_PAD.encode(client_data),
                "authenticatorData": URL_SAFE_NO_PAD.encode(data),
                "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()),
                "userHandle": handle.map(|handle| URL_SAFE_NO_PAD.encode(handle)),
            },
        })
    }

    fn client_data(&self, kind: &str, options: &Value, origin: &str) -> Vec<u8> {
        let data = json!({
            "type": self.kind.unwrap_or(kind),
            "challenge": options["challenge"],
            "origin": origin,
            "crossOrigin": self.is_framed,
        });
        data.to_string().into_bytes()
    }

    fn authenticator_data(&self, rp_id: &Value, flags: u8) -> Vec<u8> {
        let rp_id = self.rp_id.as_deref().or(rp_id.as_str()).expect("a relying party");
        let verified = if self.verifies { USER_VERIFIED } else { 0 };
        let mut data = digest::digest(&digest::SHA256, rp_id.as_bytes()).as_ref().to_vec();
        data.push(USER_PRESENT | verified | flags);
        data.extend(self.counter.to_be_bytes());
        data
    }
}

fn bytes(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().expect("a text")).expect("base64url")
}
