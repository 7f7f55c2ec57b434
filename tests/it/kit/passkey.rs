//! Passkeys of the tests' own: enrolled, used and removed over HTTP.

use bulkhead::http::routes::Route;
use serde_json::{Value, json};

#[path = "../../../actors/src/tenant/factors/passkeys/device.rs"]
mod device;

use super::client::{Client, Reply};
use super::world::PASSWORD;
pub use device::Device;

/// A page on the developer's own machine.
pub const LOCAL: &str = "http://localhost:8080";

/// The `publicKey` member of an answer.
pub fn options(reply: &Reply) -> Value {
    reply.json()["publicKey"].clone()
}

/// Enrols the first passkey of somebody; the answer.
pub fn enrol_passkey(person: &Client, device: &mut Device) -> Reply {
    let begun = person.post("/v1/me/passkeys/options", json!({"password": PASSWORD}), 200);
    let credential = device.create(&options(&begun), LOCAL);
    let body = json!({"name": "Laptop", "credential": credential});
    person.call("POST", "/v1/me/passkeys", Some(&body))
}

/// Signs in by passkey alone.
pub fn sign_in_alone(client: &Client, tenant: &str, device: &mut Device, origin: &str) -> Reply {
    let asked = client.post("/v1/auth/passkey/options", json!({"tenant": tenant}), 200);
    let credential = device.get(&options(&asked), origin);
    let body = json!({"tenant": tenant, "credential": credential});
    client.call("POST", "/v1/auth/passkey", Some(&body))
}

/// Calls a route that takes a passkey, as somebody who has no second factor before or after; nothing for
/// other routes, for who cannot enrol one, and for who would have to name one that is not at `home`.
pub fn call_with_passkey(route: &Route, client: &Client, home: Option<&str>) -> Option<Reply> {
    if !["passkeys.add", "passkeys.remove", "mfa.passkey-options"].contains(&route.id) {
        return None;
    }
    if route.id == "passkeys.remove" {
        let me = client.call("GET", "/v1/me", None);
        if me.status != 200 || Some(me.str("/tenant/slug").as_str()) != home {
            return None;
        }
    }
    let mfa = client.call("GET", "/v1/me/mfa", None);
    if mfa.status != 200 || mfa.json()["methods"] != json!([]) {
        return None;
    }
    let mut device = Device::new(1);
    let added = enrol_passkey(client, &mut device);
    if added.status != 201 {
        return Some(added);
    }
    let person = client.with_token(&added.str("/access_token"));
    let asked = (route.id == "mfa.passkey-options").then(|| person.call("POST", route.path, None));
    let body = json!({"password": PASSWORD, "code": added.str("/recovery_codes/0")});
    let place = format!("/v1/me/passkeys/{}", device.id());
    let removed = person.call("DELETE", &place, Some(&body));
    assert!([204, 409].contains(&removed.status), "{}", removed.text());
    Some(match route.id {
        "passkeys.add" => added,
        "passkeys.remove" => removed,
        _ => asked?,
    })
}
