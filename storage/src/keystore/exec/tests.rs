//! Programs that print keys, and programs that do something else.

use super::*;
use crate::keystore::source::Kek as _;

const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const TWO: &str = "/////wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw=";

fn script(text: &str) -> ExecSource {
    ExecSource::new(["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

fn refusal(text: &str) -> String {
    let refused = script(text).versions().expect_err(text);
    assert!(!format!("{refused} {refused:?}").contains("SECRET"), "{refused:?}");
    refused.to_string()
}

#[test]
fn the_first_line_is_current_and_the_others_are_older() {
    let versions = script(&format!("echo {ONE}")).versions().unwrap();
    assert!(versions.older.is_empty());
    let versions = script(&format!("echo; echo '2024  {TWO}'; echo '2023 {ONE}'")).versions();
    let versions = versions.unwrap();
    assert_eq!((versions.current.name(), versions.older[0].name()), ("2024", "2023"));

    let raw = script("printf '\\001\\002\\003\\0040000000000000000000000000000'").versions();
    let again = RawKek::new(b"\x01\x02\x03\x040000000000000000000000000000", "", None);
    assert_eq!(raw.unwrap().current.id(), again.id());
}

#[test]
fn the_program_sees_no_environment_no_input_and_no_shell() {
    let source = script("test -z \"$HOME\" && ! read x && test \"$PATH\" || exit 9; echo $KEK");
    assert!(source.versions().unwrap_err().to_string().contains("no key"));
    let argv = ["/bin/echo", "$(touch /nowhere)", ONE].map(str::to_owned).to_vec();
    let versions = ExecSource::new(argv).versions();
    assert!(matches!(versions, Err(SourceError::NotAKey { .. })), "{versions:?}");
}

#[test]
fn a_program_that_does_not_print_keys_is_refused_with_the_reason() {
    assert!(refusal("echo SECRET >&2; exit 1").contains("status 1"));
    assert!(refusal("echo SECRET; kill -9 $$").contains("signal 9"));
    assert!(refusal("exit 0").contains("offers no key"));
    assert!(refusal("echo SECRET garbage").contains("holds no key"));
    assert!(refusal("printf '\\377\\376SECRET'").contains("neither 32 bytes nor lines"));
    assert!(refusal(&format!("echo {ONE}; echo SECRET")).contains("holds no key"));
    assert!(refusal("head -c 10000000 /dev/zero").contains("more than 16384 bytes"));
    assert!(refusal("exec cat /dev/zero").contains("more than 16384 bytes"));
    let missing = ExecSource::new(vec!["/nowhere/kek".to_owned()]).versions().unwrap_err();
    assert!(missing.to_string().contains("/nowhere/kek"), "{missing}");
}

#[test]
fn a_program_that_hangs_is_ended_with_everything_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Reading ends when nobody holds the pipe open for writing any more.
    let read = pipe.clone();
    let reader = std::thread::spawn(move || std::fs::read(read).unwrap());
    let text = format!("exec 9>{}; echo started >&9; sleep 1000 & wait", pipe.display());
    let argv = ["/bin/sh", "-c", &text].map(str::to_owned).to_vec();
    let source = ExecSource::with_timeout(argv, Duration::from_millis(500));
    let refused = source.versions().unwrap_err();
    assert!(matches!(refused, SourceError::Timeout { .. }), "{refused}");
    assert!(refused.to_string().contains("/bin/sh") && refused.to_string().contains("500 ms"));
    assert_eq!(reader.join().unwrap(), b"started\n");
}
