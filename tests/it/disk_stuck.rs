//! A disk that stands still: writers wait up to a bound and are refused at once beyond it, readers
//! are answered, and when the disk goes on everybody who waited is answered and nothing is lost.
//! Needs root and loop mounts; without them it says so and passes, and the stuck disk of the storage
//! tests stands in.

use std::collections::BTreeMap;
use std::time::Duration;

use actors::env::{Clock, SystemClock};
use actors::limits::IN_FLIGHT_MAX;
use serde_json::json;

use crate::kit::{Dice, Launcher, LoopDisk, Process, Tenant, at_once, eventually, name_schema};

const IMAGE_BYTES: u64 = 512 << 20;
/// More than a tenant may have under way.
const WRITERS: usize = IN_FLIGHT_MAX + 64;
const NAME_BYTES: usize = 20_000;
/// What the node may grow by while everybody waits.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
const READS: usize = 200;
/// Far below what a caller waits for a write.
const READ_MAX: Duration = Duration::from_secs(2);

fn resident_bytes(node: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

fn settled(node: &Process, slug: &str) -> (Tenant, String, String) {
    let tenant = Tenant::sign_up(&node.client, slug);
    let form = tenant.form_with(json!({"title": "Stuck", "schema": name_schema()}));
    let id = tenant.submit(&tenant.owner, &form, "before");
    (tenant, form, id)
}

/// Reads again and again; the longest it took.
fn read(tenant: &Tenant, form: &str, id: &str) -> Duration {
    let clock = SystemClock::new();
    let mut longest = Duration::ZERO;
    for _ in 0..READS {
        let start = clock.monotonic();
        tenant.owner.get(&format!("/v1/forms/{form}/submissions/{id}"), 200);
        longest = longest.max(clock.monotonic() - start);
    }
    longest
}

#[test]
fn while_the_disk_stands_still_writers_wait_within_bounds_readers_are_served_and_nothing_is_lost() {
    let disk = match LoopDisk::make(IMAGE_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: a disk that stands still under the real program: {why}");
            return;
        }
    };
    let mut dice = Dice::thrown("stuck disk");
    let launcher = Launcher::on(&disk.path().join("data"));
    let mut node = launcher.serve();
    let (stuck, form, _) = settled(&node, "stuck");
    let (other, other_form, other_id) = settled(&node, "other");
    let names: Vec<_> = (0..WRITERS).map(|_| dice.text(NAME_BYTES)).collect();
    let before_bytes = resident_bytes(&node);

    let frozen = disk.freeze().expect("a disk that can be frozen");
    let place = format!("/v1/forms/{form}/submissions");
    let create = |writer: usize| {
        let body = json!({"data": {"name": names[writer]}});
        stuck.owner.call("POST", &place, Some(&body))
    };
    let (replies, growth_bytes, slowest) = std::thread::scope(|scope| {
        let writers = scope.spawn(|| at_once(WRITERS, create));
        eventually("a tenant with all it takes under way", || {
            let actor = node.ops.get(&format!("/actors/{}", stuck.id), 200).json();
            (actor["in_flight"] == json!(IN_FLIGHT_MAX)).then_some(())
        });
        // One more is refused at once; another tenant is read as ever.
        let refused = stuck.owner.call("GET", &format!("/v1/forms/{form}"), None);
        assert_eq!(refused.problem(), "tenant-busy");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        let slowest = read(&other, &other_form, &other_id);
        let growth_bytes = resident_bytes(&node).saturating_sub(before_bytes);
        assert!(!writers.is_finished(), "somebody was told that a frozen disk has their data");
        drop(frozen);
        (writers.join().expect("writers"), growth_bytes, slowest)
    });
    let mut outcomes: BTreeMap<u16, usize> = BTreeMap::new();
    let mut kept = vec!["before".to_owned()];
    for (reply, name) in replies.iter().zip(&names) {
        *outcomes.entry(reply.status).or_default() += 1;
        match reply.status {
            201 => kept.push(name.clone()),
            _ => assert_eq!(reply.problem(), "tenant-busy"),
        }
    }
    kept.sort();
    let there = |tenant: &Tenant| -> Vec<String> {
        let mut names: Vec<_> =
            tenant.submissions(&form).into_iter().map(|(_, name)| name).collect();
        names.sort();
        names
    };
    assert!(outcomes[&201] >= IN_FLIGHT_MAX, "{outcomes:?}");
    assert_eq!(there(&stuck), kept);
    assert!(growth_bytes < GROWTH_BYTES_MAX, "grew by {growth_bytes} bytes");
    assert!(slowest < READ_MAX, "a reader waited {slowest:?}");
    assert!(node.terminate().success());
    launcher.run(&["audit", "verify"]).expect(0);
    println!(
        "stuck disk: {outcomes:?} of {WRITERS} writers, {READS} reads beside it, slowest \
         {slowest:?}, grew by {} KiB, 0 lost",
        growth_bytes >> 10
    );
}
