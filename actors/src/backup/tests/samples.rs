//! Small documents to test with.

use storage::id::{BackupId, DrillId, Id, TenantId};

use crate::audit::note::NoteSigner;
use crate::backup::digest::Digest;
use crate::backup::manifest::{
    AuditRef, BackupManifest, ChunkRef, ObjectRef, SegmentRef, SnapshotRef, TailRef, TenantRef,
};
use crate::backup::name::ObjectName;
use crate::backup::report::{DrillCounts, DrillLine, DrillOutcome, DrillReport};

pub const ORIGIN: &str = "example.org/node";

pub fn signer(seed: u8) -> NoteSigner {
    NoteSigner::from_seed(ORIGIN, &[seed; 32]).unwrap()
}

pub fn backup_id(number: u64) -> BackupId {
    BackupId::new(number, [0; 10])
}

pub fn tenant_id(number: u64) -> TenantId {
    TenantId::new(number, [0; 10])
}

fn object(name: ObjectName, sha256: Digest) -> ObjectRef {
    ObjectRef { name: name.to_string(), sha256, bytes: 100 }
}

pub fn segment(number: u64) -> SegmentRef {
    let sha256 = Digest::of(&number.to_be_bytes());
    let name = ObjectName::Segment { number, prefix: sha256.prefix() };
    SegmentRef { number, object: object(name, sha256) }
}

fn key(tenant: TenantId, sha256: Digest) -> ObjectRef {
    object(ObjectName::TenantKey { tenant, prefix: sha256.prefix() }, sha256)
}

fn chunk(tenant: TenantId, last: u64) -> ChunkRef {
    let sha256 = Digest::of(&last.to_le_bytes());
    let name = ObjectName::AuditChunk { tenant, last, prefix: sha256.prefix() };
    ChunkRef { last, object: object(name, sha256) }
}

pub fn tenant(number: u64, lsn: u64) -> TenantRef {
    let (tenant, sha256) = (tenant_id(number), Digest::of(&lsn.to_be_bytes()));
    let name = ObjectName::Snapshot { tenant, lsn, prefix: sha256.prefix() };
    TenantRef {
        tenant,
        tail: TailRef { lsn: lsn + 2, epoch: 1, hash: Digest([3; 32]) },
        snapshot: Some(SnapshotRef { lsn, object: object(name, sha256) }),
        key: Some(key(tenant, Digest::of(b"wrapped"))),
        audit: Some(AuditRef { seq: 4, hash: Digest([5; 32]) }),
        audit_chunks: vec![chunk(tenant, 2), chunk(tenant, 3)],
    }
}

pub fn manifest_of(id: BackupId, tenants: Vec<TenantRef>, segments: &[u64]) -> BackupManifest {
    let mut manifest = BackupManifest {
        format: 1,
        id,
        origin: ORIGIN.to_owned(),
        region: "local".to_owned(),
        taken_ms: 1_000,
        finished_ms: 2_000,
        note: None,
        store_format: 1,
        base: None,
        new_bytes: 100,
        total_bytes: 0,
        tenants,
        segments: segments.iter().copied().map(segment).collect(),
        keys: object(ObjectName::Keys(id), Digest([6; 32])),
        keks: vec!["00".repeat(8)],
        anchors: object(ObjectName::Anchors(id), Digest([7; 32])),
    };
    manifest.total_bytes = manifest.sum_bytes().unwrap();
    manifest
}

pub fn manifest() -> BackupManifest {
    let bare = TenantRef { snapshot: None, key: None, audit: None, ..tenant(2, 1) };
    manifest_of(backup_id(9), vec![tenant(1, 7), bare], &[1, 2])
}

pub fn line(number: u64, outcome: DrillOutcome) -> DrillLine {
    DrillLine {
        tenant: tenant_id(number),
        records_verified: 40,
        chain_head_ok: true,
        rows: 12,
        state_hash: (outcome == DrillOutcome::Passed).then_some(Digest([8; 32])),
        audit_entries: 5,
        outcome,
    }
}

pub fn report_of(lines: Vec<DrillLine>) -> DrillReport {
    DrillReport {
        format: 1,
        id: DrillId::new(11, [0; 10]),
        origin: ORIGIN.to_owned(),
        backup: backup_id(9),
        started_ms: 1_700_000_000_000,
        finished_ms: 1_700_000_500_000,
        rpo_ms: 61_000,
        rto_ms: 400_000,
        tenants: DrillCounts::of(&lines),
        lines,
        failures: Vec::new(),
    }
}
