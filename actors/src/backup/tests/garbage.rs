//! What may be removed from the archive, and what never.

use std::collections::BTreeSet;

use storage::archive::ObjectInfo;
use storage::id::{DrillId, Id};

use super::samples::{backup_id, manifest_of, segment, tenant};
use crate::backup::garbage::{GarbageError, Inventory, garbage};
use crate::backup::manifest::{BackupManifest, TenantRef};
use crate::backup::name::ObjectName;

const YOUNG_MS: u64 = 1_000;

fn entry(name: &str) -> ObjectInfo {
    ObjectInfo { name: name.to_owned(), bytes: 100, modified_ms: YOUNG_MS - 1 }
}

fn snapshot_name(tenant: &TenantRef) -> String {
    tenant.snapshot.as_ref().unwrap().object.name.clone()
}

/// Three backups that share segments: 1 has 1 and 2, 2 has 2 and 3, 3 has 3 and 4.
fn manifests() -> Vec<BackupManifest> {
    let manifest = |n: u64| manifest_of(backup_id(n), vec![tenant(1, n)], &[n, n + 1]);
    (1..=3).map(manifest).collect()
}

/// Everything the manifests name, and themselves.
fn listing(manifests: &[BackupManifest]) -> Vec<ObjectInfo> {
    let mut names = BTreeSet::new();
    for manifest in manifests {
        names.insert(manifest.name().to_string());
        names.extend(manifest.objects().map(|object| object.name.clone()));
    }
    names.iter().map(|name| entry(name)).collect()
}

fn plan(
    manifests: &[BackupManifest],
    kept: &[u64],
    listing: &[ObjectInfo],
    needed: &[String],
) -> Result<Vec<String>, GarbageError> {
    let kept = kept.iter().copied().map(backup_id).collect();
    let needed = needed.iter().cloned().collect();
    garbage(&Inventory { manifests, kept: &kept, listing, needed: &needed, young_ms: YOUNG_MS })
}

#[test]
fn what_only_dropped_backups_need_goes_manifests_first() {
    let all = manifests();
    let doomed = plan(&all, &[2, 3], &listing(&all), &[]).unwrap();
    let wanted = [
        all[0].name().to_string(),
        all[0].anchors.name.clone(),
        all[0].keys.name.clone(),
        segment(1).object.name,
        snapshot_name(&all[0].tenants[0]),
    ];
    assert_eq!(doomed, wanted);
}

#[test]
fn nothing_goes_while_every_backup_is_kept() {
    let all = manifests();
    assert_eq!(plan(&all, &[1, 2, 3], &listing(&all), &[]), Ok(Vec::new()));
}

#[test]
fn after_any_removal_every_kept_backup_still_has_all_it_needs() {
    let all = manifests();
    for mask in 0..8u64 {
        let kept: Vec<_> = (1..=3).filter(|n| mask & (1 << (n - 1)) != 0).collect();
        let doomed = plan(&all, &kept, &listing(&all), &[]).unwrap();
        let mut left: BTreeSet<_> = listing(&all).into_iter().map(|object| object.name).collect();
        doomed.iter().for_each(|name| assert!(left.remove(name), "{name}"));
        let mut wanted = BTreeSet::new();
        for manifest in all.iter().filter(|m| kept.iter().any(|n| m.id == backup_id(*n))) {
            wanted.insert(manifest.name().to_string());
            wanted.extend(manifest.objects().map(|object| object.name.clone()));
        }
        assert_eq!(left, wanted, "{kept:?}");
    }
}

#[test]
fn what_point_in_time_restores_need_stays() {
    let all = manifests();
    let needed = [segment(1).object.name, snapshot_name(&all[0].tenants[0])];
    let doomed = plan(&all, &[2, 3], &listing(&all), &needed).unwrap();
    assert_eq!(doomed.len(), 3);
    assert!(needed.iter().all(|name| !doomed.contains(name)));
}

#[test]
fn unknown_names_and_reports_of_drills_are_never_removed() {
    let all = manifests();
    let drill = ObjectName::Drill(DrillId::new(1, [0; 10])).to_string();
    let mut listing = listing(&all);
    let unknown = [
        "README",
        "segments/notes.txt",
        "segments/1-00.seg",
        "snapshots/000.snap",
        "backups/readme.json",
        "backups/bk_1.json",
        "other/000000000000001f-abababababababab.seg",
        drill.as_str(),
    ];
    listing.extend(unknown.map(entry));
    let doomed = plan(&all, &[], &listing, &[]).unwrap();
    assert!(unknown.iter().all(|name| !doomed.iter().any(|other| other == name)));
    assert_eq!(doomed.len(), listing.len() - unknown.len());
}

#[test]
fn the_leftovers_of_a_backup_that_never_finished_go_once_they_are_old() {
    let keys = ObjectName::Keys(backup_id(77)).to_string();
    let lone = [entry(&keys), entry(&segment(50).object.name)];
    let wanted = Ok(vec![keys, segment(50).object.name]);
    assert_eq!(plan(&[], &[], &lone, &[]), wanted);
    let young = lone.map(|object| ObjectInfo { modified_ms: YOUNG_MS, ..object });
    assert_eq!(plan(&[], &[], &young, &[]), Ok(Vec::new()));
}

#[test]
fn a_manifest_too_young_to_go_keeps_what_it_names() {
    let all = manifests();
    let mut listing = listing(&all);
    let name = all[0].name().to_string();
    listing.iter_mut().filter(|object| object.name == name).for_each(|object| {
        object.modified_ms = YOUNG_MS;
    });
    assert_eq!(plan(&all, &[2, 3], &listing, &[]), Ok(Vec::new()));
}

#[test]
fn nothing_is_removed_while_a_listed_manifest_was_not_read() {
    let all = manifests();
    let name = all[0].name().to_string();
    let outcome = plan(&all[1..], &[2, 3], &listing(&all), &[]);
    assert_eq!(outcome, Err(GarbageError::Unread { name }));
}
