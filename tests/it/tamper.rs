//! History that was changed on disk is found, named, and does not take the others along.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use storage::id::{Id as _, TenantId};

use crate::kit::{Client, Tenant, World, WorldOptions};

/// Magic, tenant, three numbers and two hashes: what a frame has before its sealed body.
const FRAME_HEAD_BYTES: usize = 4 + 16 + 3 * 8 + 2 * 32;

struct Scene {
    home: tempfile::TempDir,
    ada: Tenant,
    bob: Tenant,
}

fn options(dir: &Path) -> WorldOptions {
    WorldOptions::default().data(dir).set("data.segment_bytes", 1 << 20)
}

impl Scene {
    /// A stopped node with a sealed segment, all of whose last records are Ada's.
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let mut world = options(&home.path().join("data")).start();
        let (ada, bob) = (world.tenant("ada"), world.tenant("bob"));
        bob.form("Of Bob");
        let form = ada.form_with(json!({"title": "Large", "schema": {}}));
        for number in 0..14 {
            let body = json!({"data": {"number": number, "text": noise(number)}});
            ada.owner.post(&format!("/v1/forms/{form}/submissions"), body, 201);
        }
        for number in 0..4 {
            ada.form(&format!("Small {number}"));
        }
        world.stop();
        Self { home, ada, bob }
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The log's segments, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir().join("log")).expect("a log");
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.retain(|path| path.is_file());
        paths.sort();
        assert!(paths.len() >= 2, "no sealed segment: {paths:?}");
        paths
    }

    fn verify(&self, more: &[&str]) -> (Output, Value) {
        let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["audit", "verify", "--json", "--data"])
            .arg(self.dir())
            .args(more)
            .env("BULKHEAD__DATA__ALLOW_TEMPORARY", "true")
            .output()
            .expect("the command line");
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output, report)
    }

    /// Demands that verification fails, names Ada, and finds Bob in order.
    fn assert_ada_is_named(&self) {
        let (output, report) = self.verify(&[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("do not verify"), "{output:?}");
        let of = |tenant: &Tenant| {
            let tenants = report["tenants"].as_array().expect("reports");
            tenants
                .iter()
                .find(|one| one["tenant"] == tenant.id.as_str())
                .expect("a report")
                .clone()
        };
        assert_eq!(of(&self.ada)["ok"], false, "{report}");
        assert!(of(&self.ada)["first_bad"]["lsn"].as_u64() > Some(0), "{report}");
        assert_eq!(of(&self.bob)["ok"], true, "{report}");
        assert_eq!(self.verify(&["--tenant", "ada"]).0.status.code(), Some(1));
        assert_eq!(self.verify(&["--tenant", "bob"]).0.status.code(), Some(0));
    }

    fn restart(&self) -> World {
        options(&self.dir()).start()
    }
}

/// Text that does not compress away.
fn noise(seed: u64) -> String {
    let mut bytes = vec![0; 90_000];
    let mut state = seed;
    for chunk in bytes.chunks_mut(8) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes()[..chunk.len()]);
    }
    hex::encode(bytes)
}

/// Where the frames of a tenant begin in a segment, counted from their magic.
fn frames(bytes: &[u8], tenant: &Tenant) -> Vec<usize> {
    let tenant: TenantId = tenant.id.parse().expect("an id");
    let wanted = [&b"BKr1"[..], tenant.as_bytes()].concat();
    let windows = bytes.windows(wanted.len()).enumerate();
    windows.filter(|(_, window)| *window == wanted).map(|(at, _)| at).collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("a segment");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("a writable segment");
}

#[test]
fn an_untouched_history_verifies_on_a_stopped_node() {
    let scene = Scene::new();
    let (output, report) = scene.verify(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((&report["ok"], &report["anchors"]["ok"]), (&json!(true), &json!(true)));
    assert_eq!(scene.verify(&["--tenant", "nobody"]).0.status.code(), Some(1));
}

#[test]
fn a_changed_byte_in_an_old_record_is_found_and_named() {
    let scene = Scene::new();
    change(&scene.segments()[0], |bytes| {
        let frame = frames(bytes, &scene.ada)[2];
        bytes[frame + FRAME_HEAD_BYTES + 100] ^= 1;
    });
    scene.assert_ada_is_named();

    let world = scene.restart();
    let bob = sign_in(&world, &scene.bob);
    assert_eq!(bob.get("/v1/audit/verify", 200).json()["ok"], true);
    let admin = world.platform_admin();
    let report = admin.get("/v1/platform/audit/verify", 200).json();
    assert_eq!(report["ok"], false, "{report}");
    let only = admin.get(&format!("/v1/platform/audit/verify?tenant={}", scene.bob.id), 200).json();
    assert_eq!(only["ok"], true, "{only}");
}

/// Ada goes on from her last whole record, and no number of new records hides what is gone.
fn assert_ada_stays_named(scene: &Scene) {
    scene.assert_ada_is_named();
    let mut world = scene.restart();
    let (ada, bob) = (sign_in(&world, &scene.ada), sign_in(&world, &scene.bob));
    for number in 0..6 {
        let body = json!({"title": format!("Afterwards {number}"), "schema": {}});
        ada.post("/v1/forms", body, 201);
    }
    let report = ada.get("/v1/audit/verify", 200).json();
    assert_eq!(report["ok"], false, "{report}");
    assert_eq!(bob.get("/v1/audit/verify", 200).json()["ok"], true);
    let admin = world.platform_admin();
    let report = admin.get("/v1/platform/audit/verify", 200).json();
    assert_eq!(report["ok"], false, "{report}");
    world.stop();
    scene.assert_ada_is_named();
}

fn sign_in(world: &World, tenant: &Tenant) -> Client {
    world.sign_in(&tenant.slug, &format!("owner@{}.example", tenant.slug))
}

#[test]
fn a_history_whose_end_was_cut_off_is_named_from_then_on() {
    let scene = Scene::new();
    change(scene.segments().last().expect("a segment"), |bytes| {
        let last = *frames(bytes, &scene.ada).last().expect("a frame");
        // The length and the checksum stand before the magic.
        bytes.truncate(last - 8);
    });
    assert_ada_stays_named(&scene);
}

#[test]
fn a_changed_byte_in_the_last_record_is_named_from_then_on() {
    let scene = Scene::new();
    change(scene.segments().last().expect("a segment"), |bytes| {
        let last = *frames(bytes, &scene.ada).last().expect("a frame");
        bytes[last + FRAME_HEAD_BYTES + 10] ^= 0x80;
    });
    assert_ada_stays_named(&scene);
}
