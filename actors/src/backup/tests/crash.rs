//! A crash at every change that a script makes to the disk and the archive, and a failure of every single
//! call of the archive: segments go to the archive and out of the log, snapshots and backups are taken, keys
//! are wrapped anew, the archive is tidied. What was acknowledged is there whatever happened, every state
//! comes back, every listed backup verifies, and the next run of everything succeeds.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use check::{Left, check};
use rig::{Failure, Rig};
use script::{Script, Wrong};

mod check;
mod rig;
mod script;

/// Each runs the script with failures of its own.
const WORKERS: usize = 2;

/// In memory where there is such a place: what survives a power cut, the rig says and not the disk.
fn scratch() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

#[test]
fn a_crash_at_any_change_of_disk_or_archive_loses_nothing_and_lists_no_backup_that_does_not_verify()
{
    let home = scratch();
    let rig = Rig::new();
    let model = Script::open(&rig, home.path()).unwrap().run().unwrap();
    assert!(model.backups.len() >= 4 && model.is_swept, "the script does what it should");
    let moments = rig.moments();
    let (mut kills, mut cuts, mut found) = (0, 0, Left::default());
    for moment in &moments {
        let place = scratch();
        let left = check(moment, home.path(), place.path());
        let left = left.unwrap_or_else(|wrong: Wrong| panic!("{moment}: {wrong}"));
        found.add(left);
        if moment.is_cut { cuts += 1 } else { kills += 1 }
    }
    println!(
        "crashes while archiving, snapshotting, backing up: {kills} kills and {cuts} power cuts, 0 lost; \
         {} backups verified, {} states brought back",
        found.backups, found.states
    );
    assert!(kills >= 100 && cuts >= 100, "{kills} kills and {cuts} cuts are too few");
}

#[test]
fn a_failure_of_any_call_of_the_archive_loses_nothing_and_the_next_try_succeeds() {
    let home = scratch();
    let rig = Rig::new();
    Script::open(&rig, home.path()).unwrap().run().unwrap();
    let calls = rig.calls();
    // A call that only reads fails in one way.
    let refused = (0..calls.len()).map(|call| (call, Failure::Refused));
    let changes = (0..calls.len()).filter(|call| calls[*call]);
    let failures: Vec<_> = refused.chain(changes.map(|call| (call, Failure::Unanswered))).collect();
    assert!(failures.len() >= 150, "{} failures are too few", failures.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((call, failure)) = failures.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(wrong) = fail(*call, *failure) {
                        panic!("call {call} of {}, {failure:?}: {wrong}", calls.len());
                    }
                }
            });
        }
    });
    println!("failed calls of the archive: {}, 0 lost, every next try succeeded", failures.len());
}

/// Runs the script with a failure in it.
fn fail(call: usize, failure: Failure) -> Result<(), Wrong> {
    let (home, place) = (scratch(), scratch());
    let rig = Rig::new();
    rig.fail_at(call, failure);
    Script::open(&rig, home.path())?.run()?;
    check(&rig.now(), home.path(), place.path()).map(drop)
}
