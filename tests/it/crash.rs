//! kill −9, again and again, under concurrent writers who remember what they were promised.

use crate::attack::{Siege, launch_until_it_reads};
use crate::kit::{Launcher, number_from};

/// Small, so that a round also strikes while a segment is sealed.
const SEGMENT_BYTES: &str = "1048576";
const ANSWERS_MAX: u64 = 400;

#[test]
fn kill_9_at_any_time_loses_nothing_acknowledged_and_does_nothing_twice() {
    let rounds = number_from("BULKHEAD_ATTACK_ROUNDS", 10);
    let dir = tempfile::tempdir().expect("a directory");
    // Few entries stay, so a round also strikes while audit entries move to the archive.
    let launcher = Launcher::on(&dir.path().join("data"))
        .set("data.segment_bytes", SEGMENT_BYTES)
        .set("archive.local_audit_entries", "16");
    let mut siege = Siege::begin("kill", launcher, rounds);
    for round in 0..rounds {
        let answers = usize::try_from(siege.dice.below(ANSWERS_MAX)).expect("a small number");
        let written = siege.write_until_struck(answers, |scene| {
            scene.strike.begin();
            scene.node.kill();
        });
        if round % 5 == 4 {
            launch_until_it_reads(&siege.launcher).kill();
        }
        if !siege.recover(written) {
            break;
        }
    }
    siege.tally.close();
}
