//! Export and import while no node runs, and the proofs that outlive the node they were made on.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;

use actors::audit::note::NoteVerifier;
use actors::tenant::portable::bundle::Bundle;
use serde_json::json;

use super::{ORIGIN_A, ORIGIN_B, text};
use crate::kit::{Launcher, Tenant};

#[test]
fn a_tenant_moves_between_stopped_nodes_and_its_old_proof_still_verifies() {
    let home = tempfile::tempdir().expect("a directory");
    let place =
        |name: &str, origin: &str| Launcher::on(&home.path().join(name)).set("node.origin", origin);
    let (a, b) = (place("a", ORIGIN_A), place("b", ORIGIN_B));
    let mut node = a.serve();
    let acme = Tenant::sign_up(&node.client, "acme");
    let form = acme.form("Leave");
    acme.submit(&acme.owner, &form, "Ada");
    // A clean stop anchors what is left.
    assert!(node.terminate().success());

    let (bundle, key) = (home.path().join("acme.bundle"), home.path().join("acme.key"));
    let words = ["tenant", "export", "acme", "--out", text(&bundle), "--print-key", "--json"];
    let outcome = a.run(&words).expect(0);
    assert!(!outcome.stderr.is_empty(), "no progress was shown");
    let first = outcome.json();
    assert!(first["key_file"].is_null() && !home.path().join("acme.bundle.key").exists());
    std::fs::write(&key, first["key"].as_str().expect("a key")).expect("a key file");
    let mode = std::fs::metadata(&bundle).expect("a bundle").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(first["anchored_seq"], first["entries"]);

    // Anybody may look, without a key and without a node.
    let shown = a.run(&["tenant", "inspect-bundle", text(&bundle), "--json"]).expect(0).json();
    assert_eq!(shown["content_hash"], first["content_hash"]);
    assert!(shown["key"].is_null());
    let card = a.run(&["tenant", "inspect-bundle", text(&bundle)]).expect(0).stdout;
    assert!(card.contains("acme") && !card.contains("Ada"), "{card}");

    let signer = first["signer"].as_str().expect("a key");
    let words = ["tenant", "import", text(&bundle), "--key-file", text(&key), "--trust", signer];
    let made = b.run(&[&words[..], &["--json"]].concat()).expect(0);
    assert!(made.stderr.contains(" of "), "no progress: {}", made.stderr);
    assert_eq!(made.json()["entries"], first["entries"]);
    assert_eq!(b.run(&["audit", "verify", "--json"]).expect(0).json()["ok"], json!(true));

    let mut node = b.serve();
    let body =
        json!({"tenant": "acme", "email": "owner@acme.example", "password": crate::kit::PASSWORD});
    let token = node.client.post("/v1/auth/sign-in", body, 200).str("/access_token");
    let owner = node.client.with_token(&token);
    let found = owner.get(&format!("/v1/forms/{form}/submissions"), 200);
    assert!(found.text().contains("Ada"), "{}", found.text());
    // That it was taken, its own log said before it was.
    let noted = owner.get("/v1/audit?action=tenant.copy", 200);
    assert_eq!(noted.str("/items/0/target/id"), "bundle");
    assert_eq!(noted.str("/items/0/detail/name"), "acme.bundle");

    // The old node's checkpoint covers an entry that the new node shows, under the old node's key.
    let bundle = Bundle::open(File::open(&bundle).expect("a bundle")).expect("a bundle");
    let verifier = bundle.claimed_signer().expect("a key");
    assert_eq!(verifier.to_text(), signer);
    let manifest = bundle.verify(&verifier).expect("a signature");
    let proof = manifest.checkpoint.clone().expect("an anchored history");
    let entry = owner.get(&format!("/v1/audit/{}", proof.seq), 200);
    assert_eq!(entry.str("/hash"), proof.hash.to_string());
    let import = owner.get("/v1/audit?action=tenant.import", 200).json();
    assert_eq!(import["items"][0]["detail"]["checkpoint"], json!(proof.note));
    let other = NoteVerifier::new(ORIGIN_A, [7; 32]).expect("a key");
    proof.verify(manifest.tenant, &other).expect_err("another key");
    let mut moved = proof;
    moved.seq -= 1;
    moved.verify(manifest.tenant, &verifier).expect_err("another leaf");
    assert!(node.terminate().success());
}
