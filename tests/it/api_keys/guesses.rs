//! Whatever is wrong with a key, it is told nothing, and its text rests nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

/// The text with some of its bytes changed.
fn forged(text: &str, change: impl FnOnce(&mut [u8])) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(&text[3..]).expect("base64url");
    change(&mut bytes);
    format!("bk_{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn bad_keys_of_every_kind_get_the_same_answer() {
    let clock = TestClock::new();
    let world = WorldOptions::default().clock(clock.clone()).start();
    let (acme, other) = (world.tenant("acme"), world.tenant("other"));
    let (good, _) = api_key(&acme.owner, &["forms:read"]);
    let text = good.token.clone().expect("a token");
    let (revoked, id) = api_key(&acme.owner, &["forms:read"]);
    acme.owner.delete(&format!("/v1/api-keys/{id}"), 204);
    let ends = rfc3339(clock.now_ms() + 1_000);
    let body = json!({"name": "K", "scopes": ["forms:read"], "expires_at": ends});
    let ended = acme.owner.post("/v1/api-keys", body, 201).str("/key");
    clock.advance(std::time::Duration::from_secs(1));
    let foreign_id = api_key(&other.owner, &["forms:read"]).0.token.expect("a token");
    let foreign_id = URL_SAFE_NO_PAD.decode(&foreign_id[3..]).expect("base64url");
    let texts = [
        ("nothing", "bk_".to_owned()),
        ("another form", "bk_0123".to_owned()),
        ("padded", format!("{text}=")),
        ("one digit less", text[..text.len() - 1].to_owned()),
        ("an unknown tenant", forged(&text, |bytes| bytes[..16].fill(7))),
        ("the platform", forged(&text, |bytes| bytes[..16].fill(0))),
        ("another tenant", forged(&text, |bytes| bytes[..16].copy_from_slice(&foreign_id[..16]))),
        ("an unknown key", forged(&text, |bytes| bytes[16] ^= 1)),
        (
            "another tenant's key",
            forged(&text, |bytes| bytes[16..32].copy_from_slice(&foreign_id[16..32])),
        ),
        ("a wrong secret", forged(&text, |bytes| bytes[32] ^= 1)),
        ("a secret of zeros", forged(&text, |bytes| bytes[32..].fill(0))),
        ("revoked", revoked.token.expect("a token")),
        ("ended", ended),
    ];
    let nonsense = world.client.with_token("nonsense").get("/v1/forms", 401).essence();
    for (what, text) in &texts {
        // Again, now that anything about it might be remembered.
        for _ in 0..2 {
            let reply = world.client.with_token(text).get("/v1/forms", 401);
            assert_eq!(reply.essence(), nonsense, "{what}");
        }
    }
    good.get("/v1/forms", 200);
    println!("api keys: {} kinds of bad keys, one answer", texts.len());
}

#[test]
fn guesses_spend_the_budget_of_their_address_and_of_nobody_else() {
    let world =
        WorldOptions::default().clock(TestClock::new()).set("rate.api.per_ip", "5/1h").start();
    let acme = world.tenant("acme");
    let (good, _) = api_key(&acme.owner, &["forms:read"]);
    good.get("/v1/forms", 200);
    let guess = forged(good.token.as_deref().expect("a token"), |bytes| bytes[40] ^= 1);
    let guess = world.client.with_token(&guess);
    let statuses: Vec<_> = (0..8).map(|_| guess.call("GET", "/v1/forms", None).status).collect();
    assert!(statuses.starts_with(&[401]) && statuses.ends_with(&[429, 429]), "{statuses:?}");
    // Known already, so it needs nothing of the address; nor do people.
    good.get("/v1/forms", 200);
    acme.owner.get("/v1/forms", 200);
}

#[test]
fn the_text_of_a_key_is_shown_once_and_rests_nowhere() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut world = WorldOptions::default().data(&data).start();
    let acme = world.tenant("acme");
    let (key, id) = api_key(&acme.owner, &["forms:read"]);
    key.get("/v1/forms", 200);
    key.get("/v1/members", 403);
    let text = key.token.expect("a token");
    // The part that proves it.
    let secret = &text[text.len() - 40..];
    let place = format!("/v1/api-keys/{id}");
    for shown in [&*place, "/v1/api-keys", "/v1/audit?limit=50"] {
        assert!(!acme.owner.get(shown, 200).text().contains(secret), "{shown}");
    }
    let changed = acme.owner.patch(&place, json!({"name": "Other"}), 200);
    assert!(!changed.text().contains(secret) && changed.json().get("key").is_none());
    world.stop();
    let bytes = URL_SAFE_NO_PAD.decode(&text[3..]).expect("base64url");
    let marks =
        [secret.as_bytes().to_vec(), bytes[32..].to_vec(), hex::encode(&bytes[32..]).into()];
    let mut files = 0;
    let mut folders = vec![data];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = std::fs::read(&path).expect("a file");
            for mark in &marks {
                let is_there = content.windows(mark.len()).any(|window| window == &mark[..]);
                assert!(!is_there, "{}", path.display());
            }
            files += 1;
        }
    }
    assert!(files > 5, "{files} files");
}

#[test]
fn exactly_one_credential_is_taken() {
    let world = World::start();
    let acme = world.tenant("acme");
    let (key, _) = api_key(&acme.owner, &["forms:read"]);
    let text = key.token.clone().expect("a token");
    let twice = key.with_header("authorization", &format!("Bearer {text}"));
    assert_eq!(twice.get("/v1/forms", 401).problem(), "unauthenticated");
    let basic = world.client.with_header("authorization", &format!("Basic {text}"));
    assert_eq!(basic.get("/v1/forms", 401).problem(), "unauthenticated");
    let refresh = json!({"refresh_token": text});
    assert_eq!(world.client.post("/v1/auth/refresh", refresh, 401).problem(), "bad-credentials");
    let header = world.client.with_header("x-api-key", &text);
    assert_eq!(header.get("/v1/forms", 401).problem(), "unauthenticated");
}
