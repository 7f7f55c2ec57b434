//! Keys that customers hold: given, pulled, given back, moved and destroyed.

use super::*;

const OTHER: TenantId = TenantId::PLATFORM;

struct World {
    dir: tempfile::TempDir,
    mounted: tempfile::TempDir,
    store: KeyStore,
    tenant: TenantId,
    key: [u8; 32],
}

impl World {
    /// A tenant whose key a customer holds in a directory, beside one whose key nobody holds.
    fn new() -> Self {
        let (dir, mounted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, tenant) = (open(dir.path()).unwrap(), TenantId::from_bytes([5; 16]));
        store.create(OTHER).unwrap();
        let key = *store.create(tenant).unwrap().as_bytes();
        let world = Self { dir, mounted, store, tenant, key };
        put_key(&world.version("v1"), 1);
        world.store.hold_by_customer(tenant, &world.spec()).unwrap();
        world
    }
    fn version(&self, name: &str) -> PathBuf {
        self.mounted.path().join(name)
    }
    fn spec(&self) -> SourceSpec {
        SourceSpec::Directory { path: self.mounted.path().to_owned() }
    }
    fn opens(&self) {
        assert_eq!(self.store.load(self.tenant).unwrap().as_bytes(), &self.key);
        assert!(!self.store.is_withheld(self.tenant));
    }
    fn is_withheld(&self) {
        let refused = self.store.load(self.tenant).unwrap_err();
        assert!(matches!(refused, KeyError::Withheld { tenant, .. } if tenant == self.tenant));
        assert!(self.store.is_withheld(self.tenant) && !self.store.is_withheld(OTHER));
        assert!(self.store.contains(self.tenant).unwrap());
        self.store.load(OTHER).unwrap();
    }
}

#[test]
fn a_pulled_key_is_withheld_at_once_and_comes_back_when_given_back() {
    let world = World::new();
    world.opens();
    assert_eq!(world.store.customer_held(), [world.tenant]);
    assert_eq!(world.store.holder(world.tenant).unwrap(), Some(world.spec()));
    let key = fs::read(world.version("v1")).unwrap();
    fs::remove_file(world.version("v1")).unwrap();
    world.is_withheld();
    put_key(&world.version("v1"), 2);
    world.is_withheld();
    fs::write(world.version("v1"), key).unwrap();
    world.opens();

    let again = open(world.dir.path()).unwrap();
    assert!(again.customer_held().is_empty(), "nobody has looked yet");
    assert_eq!(again.load(world.tenant).unwrap().as_bytes(), &world.key);
    assert_eq!(again.customer_held(), [world.tenant]);
    assert_eq!(again.kek_status().unwrap().held_by_customers, 1);
}

#[test]
fn the_node_alone_cannot_open_it_and_rotates_its_own_layer_nevertheless() {
    let world = World::new();
    fs::rename(world.version("v1"), world.version(".away")).unwrap();
    world.store.rotate(1).unwrap();
    let outcome = world.store.rewrap_all(&mut |_, _| {}).unwrap();
    assert!(outcome.failed.is_empty() && outcome.retired.len() == 1, "{outcome:?}");
    world.is_withheld();
    fs::rename(world.version(".away"), world.version("v1")).unwrap();
    world.opens();
}

#[test]
fn the_customer_changes_versions_and_sources_and_gives_the_key_up() {
    let world = World::new();
    put_key(&world.version("v2"), 2);
    world.opens();
    world.store.hold_by_customer(world.tenant, &world.spec()).unwrap();
    fs::remove_file(world.version("v1")).unwrap();
    world.opens();

    let text = format!("echo {}", "0123456789abcdef".repeat(4));
    let argv = ["/bin/sh", "-c", &text].map(str::to_owned).to_vec();
    world.store.hold_by_customer(world.tenant, &SourceSpec::Exec { argv }).unwrap();
    fs::remove_file(world.version("v2")).unwrap();
    world.opens();

    world.store.release_to_node(world.tenant).unwrap();
    world.opens();
    assert!(world.store.customer_held().is_empty());
    assert_eq!(world.store.holder(world.tenant).unwrap(), None);
    let refused = world.store.release_to_node(world.tenant).unwrap_err();
    assert!(matches!(refused, KeyError::NotHeld { .. }));
}

#[test]
fn a_source_that_gives_nothing_takes_no_key_over() {
    let world = World::new();
    let before = fs::read(world.store.tenant_path(world.tenant)).unwrap();
    let refusing = [
        SourceSpec::File { path: world.version("none") },
        SourceSpec::File { path: "relative".into() },
        SourceSpec::Exec { argv: vec!["/bin/false".to_owned()] },
        // Another key each time: what was wrapped would never open again.
        SourceSpec::Exec {
            argv: ["/bin/sh", "-c", "head -c 32 /dev/urandom"].map(str::to_owned).to_vec(),
        },
    ];
    for spec in refusing {
        let refused = world.store.hold_by_customer(world.tenant, &spec).unwrap_err();
        assert!(matches!(refused, KeyError::Source(_)), "{spec:?}: {refused:?}");
    }
    fs::rename(world.version("v1"), world.version(".away")).unwrap();
    assert!(matches!(world.store.release_to_node(world.tenant), Err(KeyError::Withheld { .. })));
    let missing = TenantId::from_bytes([9; 16]);
    let refused = world.store.hold_by_customer(missing, &world.spec()).unwrap_err();
    assert!(matches!(refused, KeyError::Missing { .. }), "{refused:?}");
    assert_eq!(fs::read(world.store.tenant_path(world.tenant)).unwrap(), before);
}

#[test]
fn a_withheld_key_can_be_destroyed_with_all_that_belongs_to_it() {
    let world = World::new();
    fs::remove_file(world.version("v1")).unwrap();
    let path = world.store.tenant_path(world.tenant);
    fs::write(path.with_extension("key.new"), b"half of it").unwrap();
    world.store.destroy(world.tenant).unwrap();
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    assert!(matches!(world.store.load(world.tenant), Err(KeyError::Missing { .. })));
    assert!(!world.store.is_withheld(world.tenant) && world.store.customer_held().is_empty());
}

#[test]
fn every_changed_byte_and_every_truncation_of_a_held_key_is_damage_and_not_withheld() {
    let world = World::new();
    let path = world.store.tenant_path(world.tenant);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        let refused = world.store.load(world.tenant).unwrap_err();
        assert!(matches!(refused, KeyError::Damaged { .. }), "byte {at}: {refused:?}");

        // The same by somebody who knows how to make the checksum right again.
        let end = whole.len() - 4;
        let crc = crc32c::crc32c(&flipped[..end]).to_le_bytes();
        flipped[end..].copy_from_slice(&crc);
        fs::write(&path, &flipped).unwrap();
        assert!(at >= end || world.store.load(world.tenant).is_err(), "byte {at}");
        assert!(at >= end || !world.store.is_withheld(world.tenant), "byte {at}");

        fs::write(&path, &whole[..at]).unwrap();
        let refused = world.store.load(world.tenant).unwrap_err();
        assert!(matches!(refused, KeyError::Damaged { .. }), "cut at {at}: {refused:?}");
    }
}

#[test]
fn nothing_secret_shows_in_debug_output_or_in_errors() {
    let world = World::new();
    let spelled = hex::encode(world.key);
    let customers = String::from_utf8(fs::read(world.version("v1")).unwrap()).unwrap();
    let key = world.store.load(world.tenant).unwrap();
    let mut shown = format!("{:?} {key:?} {:?}", world.store, world.spec().versions().unwrap());
    fs::write(world.version("v2"), &customers[..40]).unwrap();
    fs::set_permissions(world.version("v2"), fs::Permissions::from_mode(0o600)).unwrap();
    let refused = world.store.load(world.tenant).unwrap_err();
    shown.push_str(&format!("{refused} {refused:?}"));
    for secret in [&spelled[..16], &customers[..16], &format!("{:?}", &world.key[..4])] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn the_description_of_a_source_rests_in_the_file_as_documented() {
    let bytes = |spec: &SourceSpec| frame::encode_spec(spec).unwrap();
    let file = SourceSpec::File { path: "/k".into() };
    assert_eq!(bytes(&file), b"\x81\xa4file\x91\xa2/k");
    let exec = SourceSpec::Exec { argv: vec!["/p".to_owned(), "a".to_owned()] };
    assert_eq!(bytes(&exec), b"\x81\xa4exec\x91\x92\xa2/p\xa1a");
    let text = str::to_owned;
    let (module, pin_file) = ("/m".into(), "/p".into());
    let token = SourceSpec::Pkcs11 { module, token: text("t"), pin_file, key: text("k") };
    assert_eq!(bytes(&token), b"\x81\xa6pkcs11\x94\xa2/m\xa1t\xa2/p\xa1k");
    for spec in [file, exec, token] {
        assert_eq!(frame::decode_spec(Path::new("x"), &bytes(&spec)).unwrap(), spec);
    }
}
