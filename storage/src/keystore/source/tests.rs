//! What counts as a key, and what a source's description may say.

use super::*;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn key() -> [u8; 32] {
    std::array::from_fn(|at| u8::try_from(at).unwrap())
}

#[test]
fn a_key_is_read_raw_in_hexadecimal_and_in_base64() {
    let spellings = [
        key().to_vec(),
        HEX.as_bytes().to_vec(),
        HEX.to_uppercase().into_bytes(),
        format!("  {HEX}\r\n").into_bytes(),
        BASE64.as_bytes().to_vec(),
        BASE64.trim_end_matches('=').as_bytes().to_vec(),
    ];
    for bytes in spellings {
        assert_eq!(*decode_key(&bytes, "a test").unwrap(), key(), "{bytes:02x?}");
    }
    let high = "-".repeat(42) + "8";
    assert!(decode_key(high.as_bytes(), "a test").is_ok(), "base64url is base64 too");
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let half = "0123456789abcdef0123456789abcdef";
    let texts = ["", "short", half, "no key: try again later, please.", &HEX[1..], "\u{fffd}"];
    let wrong = texts.iter().map(|text| text.as_bytes().to_vec());
    let raw = [key()[..31].to_vec(), [&key()[..], b"\n"].concat(), vec![0; 32], vec![7; 32]];
    let zeros = ["0".repeat(64).into_bytes(), "A".repeat(42).into_bytes(), HEX[..43].into()];
    let odd = [HEX.replace('f', "g").into_bytes(), format!("{BASE64}{BASE64}").into_bytes()];
    for bytes in wrong.chain(raw).chain(zeros).chain(odd) {
        let refused = decode_key(&bytes, "/run/kek/1").unwrap_err();
        let said = format!("{refused} {refused:?}");
        assert!(said.contains("/run/kek/1"), "{said}");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.trim().is_empty() || !said.contains(text.trim()), "{said}");
    }
}

#[test]
fn keys_do_not_show_in_debug_output() {
    let kek = RawKek::new(&key(), "one", Some(1));
    let versions = versions_of(vec![kek], 0, "a test").unwrap();
    let shown = format!("{versions:?}");
    assert!(shown.contains("one") && !shown.contains("1, 2, 3") && !shown.contains(&HEX[..16]));
}

#[test]
fn a_description_names_what_is_wrong_with_it() {
    let text = |text: &str| text.to_owned();
    let token = |module: &str, token: &str, key: &str| SourceSpec::Pkcs11 {
        module: module.into(),
        token: text(token),
        pin_file: "/etc/pin".into(),
        key: text(key),
    };
    let cases = [
        (SourceSpec::File { path: "kek".into() }, "absolute"),
        (SourceSpec::Directory { path: "../keys".into() }, "absolute"),
        (SourceSpec::Exec { argv: vec![] }, "no program"),
        (SourceSpec::Exec { argv: vec![text("kek")] }, "absolute"),
        (SourceSpec::Exec { argv: vec![text("/bin/kek"), text("a\0b")] }, "arguments"),
        (SourceSpec::Exec { argv: vec![text("/bin/kek"); 65] }, "arguments"),
        (token("module.so", "t", "k"), "module"),
        (token("/lib/module.so", "", "k"), "token's label"),
        (token("/lib/module.so", "t", "k\n"), "key's label"),
    ];
    for (spec, hint) in cases {
        let refused = spec.check().unwrap_err().to_string();
        assert!(refused.contains(hint), "{spec:?}: {refused}");
        assert!(spec.versions().is_err());
    }
    assert!(token("/lib/module.so", "t", "k").check().is_ok());
}

#[test]
fn one_key_under_two_names_is_one_version() {
    let kek = |name| RawKek::new(&key(), name, None);
    let versions = versions_of(vec![kek("a"), kek("b")], 1, "a test").unwrap();
    assert_eq!((versions.current.name(), versions.older.len()), ("b", 0));
    assert!(
        matches!(versions_of(vec![], 0, "here"), Err(SourceError::Empty { place }) if place == "here")
    );
}
