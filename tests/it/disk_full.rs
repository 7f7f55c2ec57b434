//! A real file system that is really full: writes are refused, reads go on, and space given back is
//! enough to go on. Needs root and loop mounts; without them it says so and passes.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde_json::json;
use storage::log::segment::SegmentOptions;

use crate::kit::{
    Client, Dice, Launcher, LoopDisk, Reply, Tenant, eventually, name_schema, number_from,
};

const IMAGE_BYTES: u64 = 192 << 20;
/// What a round leaves behind, at most.
const ROUND_BYTES: u64 = 20 << 20;
/// What is left to the node when the rest is taken, beyond what it never touches.
const LEFT_BYTES: u64 = 6 << 20;
const NAME_BYTES: usize = 60_000;

/// Takes so many bytes, or all there are.
fn ballast(path: &Path, bytes: u64) {
    let mut file = fs::File::create(path).expect("a file");
    let mut taken = 0;
    while taken < bytes {
        match file.write(&[0; 1 << 16]) {
            Ok(written) => taken += written as u64,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                break;
            }
        }
    }
    file.sync_all().expect("ballast on the disk");
}

fn submit(tenant: &Tenant, form: &str, name: &str) -> Reply {
    let place = format!("/v1/forms/{form}/submissions");
    tenant.owner.call("POST", &place, Some(&json!({"data": {"name": name}})))
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_when_space_is_freed() {
    let rounds = number_from("BULKHEAD_ATTACK_ROUNDS", 3);
    let disk = match LoopDisk::make(IMAGE_BYTES + rounds * ROUND_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: a full disk under the real program: {why}");
            return;
        }
    };
    let mut dice = Dice::thrown("disk full");
    let launcher = Launcher::on(&disk.path().join("data")).set("data.segment_bytes", "1048576");
    let mut node = launcher.serve();
    let mut tenant = Tenant::sign_up(&node.client, "acme");
    let form = tenant.form_with(json!({"title": "Full", "schema": name_schema()}));
    let mut kept: Vec<(String, String)> = Vec::new();
    let mut refusals = 0;
    let reserve_bytes = SegmentOptions::default().reserve_bytes;
    for round in 1..=rounds {
        // Every third time somebody else takes most of the reserve as well.
        let left_bytes =
            if round % 3 == 0 { reserve_bytes / 2 } else { reserve_bytes + LEFT_BYTES };
        let file = disk.path().join("ballast");
        ballast(&file, disk.free_bytes() - left_bytes);
        let refused = fill(&tenant, &form, &mut dice, &mut kept);
        let what = format!("{refused:?}\n{}", node.stderr());
        assert_eq!((refused.status, refused.problem().as_str()), (503, "storage-full"), "{what}");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        refusals += 1;
        // At the very edge a smaller write may still find room; then it is full a moment later.
        eventually("a node that says it is full", || {
            let refused = fill(&tenant, &form, &mut dice, &mut kept);
            assert_eq!(refused.problem(), "storage-full");
            says_it_is_full(&node.ops).then_some(())
        });
        check_ends(&tenant, &form, &kept);
        fs::remove_file(&file).expect("ballast");
        let name = format!("after round {round}");
        let id = eventually("a write after space was freed", || {
            let reply = submit(&tenant, &form, &name);
            (reply.status == 201).then(|| reply.str("/id"))
        });
        kept.push((id, name));
        assert_eq!(node.ops.get("/readyz", 200).json(), json!({"ready": true}));
        let log = node.stderr();
        for line in ["the disk is full: writes are refused", "the disk has space again"] {
            assert!(log.matches(line).count() as u64 >= round, "{line}: {log}");
        }
    }
    // Now all there is. The view may fail for good; the log does not, and a restart makes it good.
    let file = disk.path().join("ballast");
    ballast(&file, disk.free_bytes());
    let refused = fill(&tenant, &form, &mut dice, &mut kept);
    // That the view failed is a fault of ours, and said as one.
    let said = ["storage-full", "writes-stopped", "internal"];
    assert!(refused.status >= 500 && said.contains(&refused.problem().as_str()), "{refused:?}");
    check_ends(&tenant, &form, &kept);
    fs::remove_file(&file).expect("ballast");
    let _may_say_that_the_view_failed = node.terminate();
    let mut node = launcher.serve();
    tenant.move_to(&node.client);
    assert_eq!(tenant.submissions(&form), kept);
    launcher.run(&["audit", "verify"]).expect(0);
    assert!(node.terminate().success());
    drop(node);
    println!(
        "ATTACK full rounds={rounds} refused={refusals} acknowledged={} lost=0 failed_reopenings=0",
        kept.len()
    );
}

#[test]
fn a_first_start_on_a_disk_that_is_too_small_says_how_much_is_needed() {
    let disk = match LoopDisk::make(100 << 20) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: a full disk under the real program: {why}");
            return;
        }
    };
    let data = disk.path().join("data");
    let why = Launcher::on(&data).try_serve().err().expect("it does not start");
    assert!(why.contains("at least 136 MiB must be free"), "{why}");
    assert!(!data.join("keys/kek").exists(), "nothing was made");
    let node = Launcher::on(&data).set("data.segment_bytes", "1048576").serve();
    drop(node);
}

#[test]
fn a_node_starts_on_a_full_disk_and_serves_reads() {
    let disk = match LoopDisk::make(IMAGE_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: a full disk under the real program: {why}");
            return;
        }
    };
    let launcher = Launcher::on(&disk.path().join("data")).set("data.segment_bytes", "1048576");
    let mut node = launcher.serve();
    let mut tenant = Tenant::sign_up(&node.client, "acme");
    let form = tenant.form_with(json!({"title": "Full", "schema": name_schema()}));
    let id = submit(&tenant, &form, "Ada").str("/id");
    assert!(node.terminate().success());
    let reserve_bytes = SegmentOptions::default().reserve_bytes;
    ballast(&disk.path().join("ballast"), disk.free_bytes() - reserve_bytes / 2);
    let node = launcher.serve();
    tenant.move_to(&node.client);
    check_ends(&tenant, &form, &[(id, "Ada".to_owned())]);
    let refused = submit(&tenant, &form, "Grace");
    assert_eq!((refused.status, refused.problem().as_str()), (503, "storage-full"), "{refused:?}");
}

#[test]
fn a_rotation_on_a_full_disk_is_refused_before_any_key_is_changed() {
    let disk = match LoopDisk::make(IMAGE_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: a full disk under the real program: {why}");
            return;
        }
    };
    let launcher = Launcher::on(&disk.path().join("data")).set("data.segment_bytes", "1048576");
    let node = launcher.serve();
    let kek = disk.path().join("data/keys/kek");
    let before = fs::read(&kek).expect("a key");
    let file = disk.path().join("ballast");
    ballast(&file, disk.free_bytes() - SegmentOptions::default().reserve_bytes / 2);
    for words in [&["keys", "rotate"][..], &["keys", "rotate", "--resume"]] {
        let refused = launcher.run(words).expect(1);
        assert!(refused.stderr.contains("no space is left; no key was changed"), "{refused:?}");
    }
    assert_eq!(fs::read(&kek).expect("a key"), before);
    fs::remove_file(&file).expect("ballast");
    eventually("a rotation after space was freed", || {
        (launcher.run(&["keys", "rotate"]).code == 0).then_some(())
    });
    assert_ne!(fs::read(&kek).expect("a key"), before);
    drop(node);
}

/// Submits until it is refused.
fn fill(tenant: &Tenant, form: &str, dice: &mut Dice, kept: &mut Vec<(String, String)>) -> Reply {
    loop {
        let name = dice.text(NAME_BYTES);
        let reply = submit(tenant, form, &name);
        match reply.status {
            201 => kept.push((reply.str("/id"), name)),
            _ => return reply,
        }
    }
}

/// Whether operators are told, by a node that still is ready.
fn says_it_is_full(ops: &Client) -> bool {
    let ready = ops.get("/readyz", 200).json();
    assert_eq!(ready["ready"], true);
    let metrics = ops.get("/metrics", 200).text();
    ready["writes"] == "storage-full" && metrics.contains("\nbulkhead_storage_full 1\n")
}

/// Reads the first and the last that were acknowledged.
fn check_ends(tenant: &Tenant, form: &str, kept: &[(String, String)]) {
    for (id, name) in [&kept[0], &kept[kept.len() - 1]] {
        let reply = tenant.owner.get(&format!("/v1/forms/{form}/submissions/{id}"), 200);
        assert_eq!(reply.str("/data/name"), *name);
    }
}
