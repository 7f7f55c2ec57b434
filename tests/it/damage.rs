//! Data directories that were damaged, taken or filled: what is whole serves, what is not is refused,
//! and the operator is told which is which.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use storage::id::{Id, TenantId};

use crate::kit::{Dice, Launcher, Process, Tenant, name_schema};

/// Where the first record of a segment begins (docs/formats.md).
const FILE_HEADER_BYTES: usize = 24;
/// Length and checksum, which come before what the length counts.
const PREFIX_BYTES: usize = 8;
const MAGIC: &[u8] = b"BKr1";

/// Where a record lies in its segment, and whose it is.
#[derive(Debug)]
struct Frame {
    tenant: [u8; 16],
    start: usize,
    end: usize,
}

/// The whole frames of a segment, read independently of the product.
fn frames(segment: &Path) -> Vec<Frame> {
    let bytes = fs::read(segment).expect("a segment");
    let mut frames = Vec::new();
    let mut start = FILE_HEADER_BYTES;
    while bytes.get(start + 8..start + 12) == Some(MAGIC) {
        let length = u32::from_be_bytes(bytes[start..start + 4].try_into().expect("four bytes"));
        let end = start + PREFIX_BYTES + length as usize;
        let tenant = bytes[start + 12..start + 28].try_into().expect("sixteen bytes");
        frames.push(Frame { tenant, start, end });
        start = end;
    }
    frames
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("log")).expect("a log");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "seg")).collect();
    found.sort();
    found
}

/// A directory with a node to be started on it.
fn place() -> (tempfile::TempDir, Launcher) {
    let dir = tempfile::tempdir().expect("a directory");
    let launcher = Launcher::on(&dir.path().join("data"));
    (dir, launcher)
}

fn read(tenant: &Tenant, form: &str, id: &str, status: u16) -> crate::kit::Reply {
    tenant.owner.get(&format!("/v1/forms/{form}/submissions/{id}"), status)
}

/// A tenant with a form and some submissions.
fn settle(node: &Process, slug: &str, count: usize) -> (Tenant, String, Vec<String>) {
    let tenant = Tenant::sign_up(&node.client, slug);
    let form = tenant.form_with(json!({"title": "Damaged", "schema": name_schema()}));
    let ids =
        (0..count).map(|at| tenant.submit(&tenant.owner, &form, &format!("{slug} {at}"))).collect();
    (tenant, form, ids)
}

#[test]
fn a_torn_end_of_the_log_is_cut_and_said_so_and_every_whole_record_serves() {
    let (_dir, launcher) = place();
    let mut node = launcher.serve();
    let (mut tenant, form, ids) = settle(&node, "acme", 5);
    assert!(node.terminate().success());
    let segment = segments(&launcher.data).pop().expect("a segment");

    let mut bytes = fs::read(&segment).expect("a segment");
    let end = frames(&segment).last().expect("a record").end;
    let torn = Dice::thrown("torn end").text(300);
    bytes.splice(end..end + 300, torn.bytes().take(300));
    fs::write(&segment, bytes).expect("a damaged segment");
    let mut node = launcher.serve();
    assert!(node.stderr().contains(&format!("cut at byte {end}")), "{}", node.stderr());
    tenant.move_to(&node.client);
    for id in &ids {
        read(&tenant, &form, id, 200);
    }
    launcher.run(&["audit", "verify"]).expect(0);
    assert!(node.terminate().success());

    let (lost, whole) = ids.split_last().expect("submissions");
    // What was written after it, such as that a mail is on its way, is cut first.
    let mut node = loop {
        let last = frames(&segment).pop().expect("a record");
        let file = fs::OpenOptions::new().write(true).open(&segment).expect("a segment");
        file.set_len(last.end as u64 - 3).expect("a truncated segment");
        let mut node = launcher.serve();
        assert!(
            node.stderr().contains(&format!("cut at byte {}", last.start)),
            "{}",
            node.stderr()
        );
        tenant.move_to(&node.client);
        for id in whole {
            read(&tenant, &form, id, 200);
        }
        let place = format!("/v1/forms/{form}/submissions/{lost}");
        if tenant.owner.call("GET", &place, None).status == 404 {
            break node;
        }
        assert!(node.terminate().success());
    };
    // The view knew it; the log, which is the truth, does not any more.
    read(&tenant, &form, lost, 404);
    let again = tenant.submit(&tenant.owner, &form, "after the cut");
    read(&tenant, &form, &again, 200);
    // What a checkpoint had named is missing, and that is never glossed over.
    let report = launcher.run(&["audit", "verify", "--json"]).expect(1).json();
    assert_eq!(report["anchors"]["ok"], json!(true), "{report}");
    assert!(node.terminate().success());
}

#[test]
fn a_damaged_record_in_the_middle_stops_its_tenant_and_no_other() {
    let (_dir, launcher) = place();
    let launcher = launcher.set("data.segment_bytes", "1048576");
    let mut dice = Dice::thrown("damaged middle");
    let mut node = launcher.serve();
    let (mut hurt, hurt_form, hurt_ids) = settle(&node, "hurt", 2);
    let (mut well, well_form, well_ids) = settle(&node, "well", 2);
    while segments(&launcher.data).len() < 3 {
        for (tenant, form) in [(&hurt, &hurt_form), (&well, &well_form)] {
            tenant.submit(&tenant.owner, form, &dice.text(100_000));
        }
    }
    assert!(node.terminate().success());

    let sealed = &segments(&launcher.data)[1];
    let id: TenantId = hurt.id.parse().expect("an id");
    let theirs = frames(sealed).into_iter().find(|frame| frame.tenant == *id.as_bytes());
    let frame = theirs.expect("a record of the tenant");
    let mut bytes = fs::read(sealed).expect("a segment");
    bytes[frame.end - 1] ^= 0x10;
    fs::write(sealed, bytes).expect("a damaged segment");
    let report = launcher.run(&["audit", "verify", "--json"]).expect(1).json();
    for tenant in report["tenants"].as_array().expect("tenants") {
        assert_eq!(tenant["ok"], json!(tenant["tenant"] != json!(hurt.id)), "{tenant}");
    }

    // With the view gone, the history is all there is.
    fs::remove_dir_all(launcher.data.join("view")).expect("a view");
    let mut node = launcher.serve();
    hurt.move_to(&node.client);
    well.move_to(&node.client);
    let refused = read(&hurt, &hurt_form, &hurt_ids[0], 503);
    assert_eq!(refused.problem(), "tenant-faulted");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    read(&well, &well_form, &well_ids[0], 200);
    let fresh = well.submit(&well.owner, &well_form, "still at work");
    read(&well, &well_form, &fresh, 200);
    let actor = node.ops.get(&format!("/actors/{}", hurt.id), 200).json();
    assert_eq!(actor["state"], json!("faulted"), "{actor}");
    assert!(actor["last_fault"].is_string(), "{actor}");
    node.ops.get("/readyz", 200);
    assert!(node.terminate().success());
}

#[test]
fn a_deleted_view_is_made_again_with_the_same_answers() {
    let (_dir, launcher) = place();
    let mut node = launcher.serve();
    let (mut tenant, form, ids) = settle(&node, "acme", 20);
    let team = json!({"name": "Reviewers", "members": [tenant.owner_id]});
    tenant.owner.post("/v1/teams", team, 201);
    let place = format!("/v1/forms/{form}/submissions/{}/comment", ids[3]);
    tenant.owner.post(&place, json!({"text": "seen"}), 201);
    let paths = [
        format!("/v1/forms/{form}"),
        format!("/v1/forms/{form}/submissions?limit=200"),
        format!("/v1/forms/{form}/submissions/{}/comments", ids[3]),
        "/v1/audit?limit=200".to_owned(),
        "/v1/usage".to_owned(),
        "/v1/teams".to_owned(),
        "/v1/members".to_owned(),
    ];
    let answers = |tenant: &Tenant| -> Vec<_> {
        paths.iter().map(|path| tenant.owner.get(path, 200).essence()).collect()
    };
    let before = answers(&tenant);
    assert!(node.terminate().success());
    fs::remove_dir_all(launcher.data.join("view")).expect("a view");
    let node = launcher.serve();
    tenant.move_to(&node.client);
    assert_eq!(answers(&tenant), before);
}

#[test]
fn a_data_directory_in_use_is_refused_with_the_pid_of_its_user() {
    let (_dir, launcher) = place();
    let node = launcher.serve();
    let refused = launcher.run(&["serve"]).expect(1);
    assert!(refused.stderr.contains(&node.pid().to_string()), "{}", refused.stderr);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    node.client.get("/v1/meta/capabilities", 200);
}

#[test]
fn a_port_in_use_is_refused_with_the_port_and_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for key in ["http.bind", "ops.bind"] {
        let (_dir, launcher) = place();
        let refused = launcher.set(key, &address).run(&["serve"]).expect(1);
        assert!(
            refused.stderr.contains(key) && refused.stderr.contains(&address),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn a_mistyped_configuration_key_is_answered_with_the_nearest_right_one() {
    let (dir, launcher) = place();
    let file = dir.path().join("node.toml");
    fs::write(&file, "[data]\nsegmnt_bytes = 1048576\n").expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    let refused = launcher.run(&["serve", "--config", file]).expect(2);
    let said = refused.stderr;
    assert!(said.contains("data.segmnt_bytes") && said.contains("`data.segment_bytes`"), "{said}");
    assert!(said.contains(file), "{said}");
    assert!(!launcher.data.exists(), "a refused configuration touches nothing");
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_advice() {
    let (_dir, launcher) = place();
    assert!(launcher.serve().terminate().success());
    let kek = launcher.data.join("keys/kek");
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o644)).expect("a mode");
    let refused = launcher.run(&["serve"]).expect(1);
    let advice = format!("chmod 600 {}", kek.display());
    assert!(refused.stderr.contains(&advice), "{}", refused.stderr);
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert!(launcher.serve().terminate().success());
}

#[test]
fn a_directory_of_a_newer_format_is_refused_and_left_alone() {
    let (_dir, launcher) = place();
    assert!(launcher.serve().terminate().success());
    let format = launcher.data.join("FORMAT");
    let ours = fs::read(&format).expect("a format");
    fs::write(&format, "bulkhead 99\n").expect("a newer format");
    let before = fs::read(&segments(&launcher.data)[0]).expect("a segment");
    let refused = launcher.run(&["serve"]).expect(1);
    assert!(refused.stderr.contains("format 99"), "{}", refused.stderr);
    assert_eq!(fs::read(&segments(&launcher.data)[0]).expect("a segment"), before);
    fs::write(&format, ours).expect("our format");
    assert!(launcher.serve().terminate().success());
}

#[test]
fn a_start_that_fails_behind_the_listeners_says_why_and_nothing_else() {
    let (_dir, launcher) = place();
    assert!(launcher.serve().terminate().success());
    for entry in fs::read_dir(launcher.data.join("keys")).expect("the keys") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "sealed") {
            fs::write(&path, "no key").expect("a file");
        }
    }
    let refused = launcher.run(&["serve"]).expect(1);
    assert!(refused.stderr.contains("is damaged"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("Can not start"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
}
