//! An issuer of identity tokens that is ours to misuse, and a server for its keys that counts who asks.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Client, Reply};

/// Whom tokens are for.
pub const AUDIENCE: &str = "acme-app";

/// Holds an RSA key.
pub struct Issuer {
    pub name: String,
    pub kid: String,
    pair: KeyPair,
}

impl Issuer {
    pub fn new(name: &str, kid: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        Self { name: name.to_owned(), kid: kid.to_owned(), pair }
    }

    /// The modulus: in the DER of a public key of 2048 bits it has one place.
    pub fn modulus(&self) -> Vec<u8> {
        let der = self.pair.public_key().as_ref();
        assert_eq!(der.len(), 270, "another form than RSAPublicKey of 2048 bits");
        der[9..265].to_vec()
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        let n = URL_SAFE_NO_PAD.encode(self.modulus());
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": "AQAB"})
    }

    /// Sound claims about somebody.
    pub fn claims(&self, subject: &str, now_s: u64) -> Value {
        json!({
            "iss": self.name, "aud": AUDIENCE, "sub": subject, "iat": now_s, "auth_time": now_s,
            "exp": now_s + 3600, "email": format!("{subject}@example.org"), "email_verified": true,
        })
    }

    pub fn header(&self) -> Value {
        json!({"alg": "RS256", "kid": self.kid, "typ": "JWT"})
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_texts(&self.header().to_string(), &claims.to_string())
    }

    /// Signs texts as they are.
    pub fn sign_texts(&self, header: &str, claims: &str) -> String {
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair
            .sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature)
            .expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Has a tenant trust it, by its keys themselves.
    pub fn trusted_by(&self, owner: &Client, name: &str, changes: &Value) -> Reply {
        let mut body = json!({
            "name": name, "kind": "jwks", "issuer": self.name, "audience": AUDIENCE,
            "jwks": {"keys": [self.jwk()]}, "default_role": "member",
        });
        for (member, value) in changes.as_object().expect("an object") {
            body[member] = value.clone();
        }
        owner.post("/v1/identity-providers", body, 201)
    }
}

/// What a server of keys answers with.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: &'static str,
    pub body: String,
}

impl Answer {
    pub fn ok(body: &Value) -> Self {
        Self { status: 200, headers: "", body: body.to_string() }
    }
}

/// Serves keys on loopback until dropped.
pub struct KeyServer {
    pub url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let answer = Arc::new(Mutex::new(answer));
        let asked = Arc::new(AtomicUsize::new(0));
        let (serves, counts) = (answer.clone(), asked.clone());
        // Ends with the process: a thread that waits for connections holds nobody up.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let mut head = [0; 2048];
                let _request = stream.read(&mut head);
                counts.fetch_add(1, Ordering::SeqCst);
                let Answer { status, headers, body } = serves.lock().expect("no panic").clone();
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                     connection: close\r\n{headers}\r\n{body}"
                );
                let _answered = stream.write_all(text.as_bytes());
            }
        });
        Self { url, answer, asked }
    }

    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().expect("no panic") = answer;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
