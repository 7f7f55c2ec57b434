//! A real file system that is really full: writes are refused, reads go on, and space given back is
//! enough to go on. Needs root and loop mounts; without them it says so and passes.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use storage::log::segment::SegmentOptions;

use crate::kit::{Dice, Launcher, Reply, Tenant, eventually, name_schema};

const IMAGE_BYTES: u64 = 256 << 20;
/// What is left to the node when the rest is taken, beyond what it never touches.
const LEFT_BYTES: u64 = 6 << 20;
const NAME_BYTES: usize = 60_000;

/// A small ext4 file system, gone with this value.
struct Mount {
    at: PathBuf,
    _image: tempfile::TempDir,
}

impl Mount {
    fn make() -> Result<Self, String> {
        let home = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, at) = (home.path().join("image"), home.path().join("mount"));
        fs::create_dir(&at).map_err(|error| error.to_string())?;
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Self { at, _image: home })
    }

    fn free_bytes(&self) -> u64 {
        let df =
            Command::new("df").args(["--output=avail", "-B1"]).arg(&self.at).output().expect("df");
        let text = String::from_utf8(df.stdout).expect("text");
        text.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number of bytes")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.at)) {
            eprintln!("{} stays mounted: {error}", self.at.display());
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    output.status.success().then_some(()).ok_or_else(|| format!("{command:?}: {said}"))
}

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
    let mount = match Mount::make() {
        Ok(mount) => mount,
        Err(why) => {
            println!("disk full: skipped, no small file system can be mounted here: {why}");
            return;
        }
    };
    let mut dice = Dice::thrown("disk full");
    let launcher = Launcher::on(&mount.at.join("data")).set("data.segment_bytes", "1048576");
    let mut node = launcher.serve();
    let mut tenant = Tenant::sign_up(&node.client, "acme");
    let form = tenant.form_with(json!({"title": "Full", "schema": name_schema()}));
    let mut kept: Vec<(String, String)> = Vec::new();
    let mut refusals = 0;
    let reserve_bytes = SegmentOptions::default().reserve_bytes;
    // The last time somebody else takes most of the reserve as well.
    for (round, left_bytes) in
        [reserve_bytes + LEFT_BYTES, reserve_bytes + LEFT_BYTES, reserve_bytes / 2]
            .into_iter()
            .enumerate()
    {
        let file = mount.at.join("ballast");
        ballast(&file, mount.free_bytes() - left_bytes);
        let refused = fill(&tenant, &form, &mut dice, &mut kept);
        let what = format!("{refused:?}\n{}", node.stderr());
        assert_eq!((refused.status, refused.problem().as_str()), (503, "storage-full"), "{what}");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        refusals += 1;
        check_ends(&tenant, &form, &kept);
        fs::remove_file(&file).expect("ballast");
        let name = format!("after round {round}");
        let id = eventually("a write after space was freed", || {
            let reply = submit(&tenant, &form, &name);
            (reply.status == 201).then(|| reply.str("/id"))
        });
        kept.push((id, name));
    }
    // Now all there is. The view may fail for good; the log does not, and a restart makes it good.
    let file = mount.at.join("ballast");
    ballast(&file, mount.free_bytes());
    let refused = fill(&tenant, &form, &mut dice, &mut kept);
    assert!(
        ["storage-full", "writes-stopped"].contains(&refused.problem().as_str()),
        "{refused:?}"
    );
    check_ends(&tenant, &form, &kept);
    fs::remove_file(&file).expect("ballast");
    let _may_say_that_the_view_failed = node.terminate();
    let mut node = launcher.serve();
    tenant.move_to(&node.client);
    assert_eq!(tenant.submissions(&form), kept);
    launcher.run(&["audit", "verify"]).expect(0);
    assert!(node.terminate().success());
    drop(node);
    println!("disk full: {refusals} refusals, {} acknowledged, 0 lost", kept.len());
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

/// Reads the first and the last that were acknowledged.
fn check_ends(tenant: &Tenant, form: &str, kept: &[(String, String)]) {
    for (id, name) in [&kept[0], &kept[kept.len() - 1]] {
        let reply = tenant.owner.get(&format!("/v1/forms/{form}/submissions/{id}"), 200);
        assert_eq!(reply.str("/data/name"), *name);
    }
}
