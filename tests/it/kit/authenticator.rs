//! An authenticator of the tests' own: it knows RFC 6238 and a secret, nothing of the code that is tested.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::world::PASSWORD;

/// What a person holds beside their password: the secret of an authenticator, and recovery codes.
pub struct Authenticator {
    secret: Vec<u8>,
    used: Mutex<Used>,
}

struct Used {
    step: u64,
    recovery_codes: Vec<String>,
}

/// How long one code stands, milliseconds.
pub const STEP_MS: u64 = 30_000;

impl Authenticator {
    /// Takes the answer to the beginning of an enrolment.
    pub fn of(begun: &Reply) -> Self {
        let used = Used { step: 0, recovery_codes: Vec::new() };
        Self { secret: from_base32(&begun.str("/secret")), used: Mutex::new(used) }
    }

    /// The code of a step.
    pub fn code_of(&self, step: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.secret);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let at = usize::from(tag.as_ref()[19] & 0x0f);
        let word: [u8; 4] = tag.as_ref()[at..at + 4].try_into().expect("four bytes");
        format!("{:06}", (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000)
    }

    /// The code at a time, Unix milliseconds.
    pub fn code_at(&self, now_ms: u64) -> String {
        self.code_of(now_ms / STEP_MS)
    }

    /// Takes recovery codes as they were answered.
    pub fn keep(&self, answer: &Value) {
        let codes = answer["recovery_codes"].as_array().expect("recovery codes");
        let text = |code: &Value| code.as_str().expect("a text").to_owned();
        self.lock().recovery_codes = codes.iter().map(text).collect();
    }

    /// A code that was not used: of now, of the next half minute, or a recovery code.
    pub fn fresh_code(&self, now_ms: u64) -> String {
        let present = now_ms / STEP_MS;
        let step = present.max(self.lock().step + 1);
        if step > present + 1 {
            return self.recovery_code();
        }
        self.lock().step = step;
        self.code_of(step)
    }

    /// A recovery code that was not used.
    pub fn recovery_code(&self) -> String {
        self.lock().recovery_codes.pop().expect("a recovery code that is left")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn from_base32(text: &str) -> Vec<u8> {
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => panic!("{text:?} is not Base32"),
        };
        buffer = (buffer << 5) | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    bytes
}

/// Begins to enrol an authenticator for somebody who has none.
pub fn begin_enrolment(person: &Client) -> Authenticator {
    let begun = person.post("/v1/me/mfa/totp", json!({"password": PASSWORD}), 201);
    Authenticator::of(&begun)
}

/// Enrols one; the person with their new token, and it.
pub fn enrol(person: &Client, now_ms: u64) -> (Client, Authenticator) {
    let authenticator = begin_enrolment(person);
    let body = json!({"code": authenticator.fresh_code(now_ms)});
    let confirmed = person.post("/v1/me/mfa/totp/confirm", body, 200);
    authenticator.keep(&confirmed.json());
    (person.with_token(&confirmed.str("/access_token")), authenticator)
}
