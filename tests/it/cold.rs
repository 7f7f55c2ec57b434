//! The log stays short while the archive takes the history, here and in an object store, and nothing is
//! missing afterwards.

use std::path::Path;

use crate::kit::{BUCKET, Client, Emulator, Tenant, World, WorldOptions, eventually};

const SEGMENT_BYTES: i64 = 1 << 20;
/// Three of these fill a segment.
const NAME_BYTES: usize = 12 * 1024;

fn options(dir: &Path) -> WorldOptions {
    WorldOptions::default()
        .data(&dir.join("data"))
        .set("data.segment_bytes", SEGMENT_BYTES)
        .set("archive.roll_after_s", 1)
        .set("archive.local_bytes", 0)
}

/// A figure of the operators' listener.
fn figure(world: &World, name: &str) -> Option<f64> {
    let text = world.ops.get("/metrics", 200).text();
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Names that neither compress nor repeat, so that segments fill.
fn name(n: usize) -> String {
    let seed = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &n.to_be_bytes());
    let mut state = u64::from_be_bytes(seed.as_ref()[..8].try_into().expect("eight bytes"));
    let letter = |state: &mut u64| {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((*state >> 33) % 90).expect("below 90"))
    };
    (0..NAME_BYTES).map(|_| letter(&mut state)).collect()
}

fn write(tenant: &Tenant, form: &str, names: std::ops::Range<usize>) {
    for n in names {
        tenant.submit(&tenant.owner, form, &name(n));
    }
}

fn expect_all(tenant: &Tenant, form: &str, count: usize) {
    let found: Vec<_> = tenant.submissions(form).into_iter().map(|(_, name)| name).collect();
    assert!(found.iter().eq((0..count).map(name).collect::<Vec<_>>().iter()), "every submission");
}

fn until_archived(world: &World) {
    eventually("all complete segments are archived and let go", || {
        let waiting = figure(world, "bulkhead_archive_segments_waiting")?;
        let let_go = figure(world, "bulkhead_archive_let_go_total")?;
        (waiting < 1.0 && let_go >= 2.0).then_some(())
    });
}

fn log_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("data/log")).expect("a log");
    files.map(|file| file.expect("a file").metadata().expect("its size").len()).sum()
}

fn verify(admin: &Client, tenant: &Tenant) {
    let report = admin.get(&format!("/v1/platform/audit/verify?tenant={}", tenant.id), 200);
    assert_eq!(report.json()["ok"], true, "{}", report.text());
}

#[test]
fn what_the_log_let_go_is_still_there_even_without_the_view() {
    let home = tempfile::tempdir().expect("a directory");
    let mut world = options(home.path()).start();
    let mut tenant = world.tenant("acme");
    let mut quiet = world.tenant("quiet");
    let form = tenant.form("Cold");
    let quiet_form = quiet.form("Quiet");
    write(&quiet, &quiet_form, 0..1);
    write(&tenant, &form, 0..300);
    until_archived(&world);
    world.stop();
    let bytes = log_bytes(home.path());
    println!("log after 300 submissions of {NAME_BYTES} bytes: {bytes} bytes");
    assert!(bytes < 2 * SEGMENT_BYTES as u64, "the log kept {bytes} bytes");
    std::fs::remove_dir_all(home.path().join("data/view")).expect("a removable view");

    let world = options(home.path()).start();
    tenant.move_to(&world.client);
    quiet.move_to(&world.client);
    expect_all(&tenant, &form, 300);
    expect_all(&quiet, &quiet_form, 1);
    write(&tenant, &form, 300..301);
    expect_all(&tenant, &form, 301);
    let admin = world.platform_admin();
    verify(&admin, &tenant);
    verify(&admin, &quiet);
}

#[test]
fn while_an_object_store_is_away_writes_go_on_and_the_lag_is_told() {
    let Some(store) = Emulator::s3() else { return };
    let home = tempfile::tempdir().expect("a directory");
    let secret = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).expect("a file");
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, owner_only).expect("permissions");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let (id, key) = (secret("id", "a-key"), secret("key", "its-secret"));
    let options = |url: &str| {
        options(home.path())
            .set("archive.url", format!("s3://{BUCKET}/node-1"))
            .set("archive.endpoint", url)
            .set("archive.region", "us-east-1")
            .set("archive.access_key_id_file", id.as_str())
            .set("archive.secret_access_key_file", key.as_str())
            .set("archive.allow_http", true)
            .set("archive.timeout_ms", 2_000)
    };
    let mut world = options(&store.url).start();
    let tenant = world.tenant("acme");
    let form = tenant.form("Cold");
    write(&tenant, &form, 0..300);
    until_archived(&world);
    assert!(!home.path().join("data/archive").exists(), "the archive is not here");
    drop(store);
    write(&tenant, &form, 300..500);
    eventually("the lag is told", || {
        let waiting = figure(&world, "bulkhead_archive_segments_waiting")?;
        let failing = figure(&world, "bulkhead_archive_failing")?;
        (waiting >= 2.0 && failing > 0.0).then_some(())
    });
    write(&tenant, &form, 500..510);
    expect_all(&tenant, &form, 510);
    world.stop();
    println!("log while the store was away: {} bytes", log_bytes(home.path()));
}
