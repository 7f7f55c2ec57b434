//! Power cuts under a running node, on a real file system that forgets what was not synced.
//!
//! The tool is checked before it is believed: a disk that keeps too much proves nothing, one that
//! keeps too little accuses the innocent. Without root or loop devices the test says that it was
//! skipped; the cuts on the simulated disk (`log_faults` and `shard_model` of the storage tests)
//! stand in for it.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::attack::{Scene, Siege, launch_until_it_reads};
use crate::kit::{FileSystem, Launcher, LoopDisk, eventually, number_from};

/// As small as XFS gets, nearly.
const CHECK_BYTES: u64 = 320 << 20;
const IMAGE_BYTES: u64 = 1 << 30;
/// Small, so that a round also strikes while a segment is sealed.
const SEGMENT_BYTES: &str = "1048576";
const ANSWERS_MAX: u64 = 400;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ANOTHER_BOOT_ID: &str = "00000000-0000-4000-8000-000000000000";

/// Shows that a cut keeps what was synced and nothing else.
fn check_the_tool(kind: FileSystem) -> Result<(), String> {
    const WRITES: usize = 1_000;
    let mut disk = LoopDisk::make_as(kind, CHECK_BYTES)?;
    let file = |name: &str| disk.path().join(name);
    let (whole, half, never) = (file("whole"), file("half"), file("never"));
    let text = |error: std::io::Error| error.to_string();
    let switch = disk.arm()?;
    let mut writer = fs::File::create(&whole).map_err(text)?;
    for at in 0..WRITES {
        writer.write_all(&[at as u8; 512]).map_err(text)?;
        writer.sync_data().map_err(text)?;
    }
    drop(writer);
    let mut writer = fs::File::create(&half).map_err(text)?;
    writer.write_all(&[1; 1 << 16]).map_err(text)?;
    writer.sync_all().map_err(text)?;
    // After the last sync: one that came later would take the names and lengths along.
    writer.write_all(&[2; 1 << 16]).map_err(text)?;
    fs::write(&never, [3; 1 << 16]).map_err(text)?;
    drop(writer);
    switch.cut();
    disk.restart()?;
    let kept = fs::read(&whole).map_err(text)?;
    let wanted: Vec<u8> = (0..WRITES).flat_map(|at| [at as u8; 512]).collect();
    if kept != wanted {
        return Err(format!("{} of {} synced bytes are left", kept.len(), wanted.len()));
    }
    let kept = fs::read(&half).map_err(text)?;
    if kept != [1; 1 << 16] {
        return Err(format!("a file of 65536 synced bytes has {} after a cut", kept.len()));
    }
    if never.exists() {
        return Err("a file that was never synced is still there".to_owned());
    }
    Ok(())
}

/// Kernels are started anew after a power cut, which the node knows by the boot id. This kernel was
/// not, so the marks of the view get the id of another boot, as a node would find them.
fn pretend_a_new_boot(data: &Path) {
    let this_boot = fs::read_to_string(BOOT_ID).expect("a boot id");
    let Ok(entries) = fs::read_dir(data.join("view")) else { return };
    for path in entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()) {
        if let Ok(mark) = fs::read_to_string(&path) {
            let other = mark.replace(this_boot.trim(), ANOTHER_BOOT_ID);
            fs::write(&path, other).expect("a mark");
        }
    }
}

fn restart(disk: &mut LoopDisk, data: &Path) {
    disk.restart().expect("a disk that can be mounted again");
    pretend_a_new_boot(data);
}

#[test]
fn a_power_cut_at_any_time_loses_nothing_acknowledged_and_does_nothing_twice() {
    cut_again_and_again("power", FileSystem::Ext4, 3);
}

#[test]
fn a_power_cut_on_xfs_loses_nothing_acknowledged_and_does_nothing_twice() {
    cut_again_and_again("xfs", FileSystem::Xfs, 2);
}

fn cut_again_and_again(attack: &'static str, kind: FileSystem, rounds: u64) {
    let checked = check_the_tool(kind).and_then(|()| LoopDisk::make_as(kind, IMAGE_BYTES));
    let mut disk = match checked {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: power cuts on a real {kind:?} file system: {why}");
            return;
        }
    };
    let rounds = number_from("BULKHEAD_ATTACK_ROUNDS", rounds);
    let data = disk.path().join("data");
    // What was let go of comes from the archive then, which is on the same disk.
    let launcher = Launcher::on(&data)
        .set("data.segment_bytes", SEGMENT_BYTES)
        .set("archive.roll_after_s", "1")
        .set("archive.local_audit_entries", "16")
        .set("archive.local_bytes", "0");
    let mut siege = Siege::begin(attack, launcher, rounds);
    for round in 0..rounds {
        let answers = usize::try_from(siege.dice.below(ANSWERS_MAX)).expect("a small number");
        let lives_on = siege.dice.below(2) == 0;
        let switch = disk.arm().expect("a switch");
        let written = siege.write_until_struck(answers, |Scene { strike, is_silent, .. }| {
            strike.begin();
            strike.cut(switch.cut());
            // In every other round the node lives on without its disk until it has refused everybody.
            if lives_on {
                eventually("nobody is answered", || is_silent().then_some(()));
            }
        });
        restart(&mut disk, &data);
        if round % 5 == 4 {
            let switch = disk.arm().expect("a switch");
            let mut node = launch_until_it_reads(&siege.launcher);
            switch.cut();
            node.kill();
            restart(&mut disk, &data);
        }
        if !siege.recover(written) {
            break;
        }
    }
    siege.tally.close();
}
