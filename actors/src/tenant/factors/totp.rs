//! One-time codes of the time (RFC 6238): HMAC-SHA-1, six digits, thirty seconds, as every authenticator
//! has them. Knows no person and no row.
//!
//! HMAC-SHA-1 is not broken by what broke SHA-1, and many authenticators know nothing else.

use std::fmt::Write as _;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

/// Bytes of a secret: as many as SHA-1 gives (RFC 4226 §4, R6).
pub const SECRET_BYTES: usize = 20;
/// Digits of a code.
pub const DIGITS: usize = 6;
/// How long one code stands, in seconds.
pub const STEP_S: u64 = 30;

/// Most letters of the issuer that an authenticator is told; a longer QR code is hard to read.
const ISSUER_CHARS_MAX: usize = 64;
const MODULUS: u32 = 10_u32.pow(DIGITS as u32);
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The step that a time, Unix milliseconds, lies in.
pub fn step_at(now_ms: u64) -> u64 {
    now_ms / 1_000 / STEP_S
}

/// The code of one step (RFC 4226 §5.3).
pub fn code_of(secret: &[u8], step: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[tag.len() - 1] & 0x0f);
    let word = tag[at..at + 4].iter().fold(0, |word, byte| (word << 8) | u32::from(*byte));
    format!("{:0DIGITS$}", (word & 0x7fff_ffff) % MODULUS)
}

/// The step that `code` is of: the present one or one beside it, and later than `last`. Takes the same
/// time whichever it is.
pub fn step_of(secret: &[u8], now_ms: u64, code: &str, last: Option<u64>) -> Option<u64> {
    let present = step_at(now_ms);
    let mut found = None;
    for step in present.saturating_sub(1)..=present.saturating_add(1) {
        let is_it = verify_slices_are_equal(code_of(secret, step).as_bytes(), code.as_bytes());
        if is_it.is_ok() && last.is_none_or(|last| step > last) {
            found = Some(step);
        }
    }
    found
}

/// RFC 4648 §6, without padding: how secrets are typed.
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(BASE32[(buffer >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(BASE32[(buffer << (5 - bits)) as usize & 31]));
    }
    text
}

/// What an authenticator reads from a QR code: the secret, whose it is and what for.
pub fn otpauth_uri(issuer: &str, account: &str, secret: &[u8]) -> String {
    // A colon ends the issuer in the label.
    let issuer: String = issuer.chars().filter(|c| *c != ':').take(ISSUER_CHARS_MAX).collect();
    let (issuer, account) = (escaped(issuer.trim()), escaped(account));
    let secret = base32(secret);
    format!(
        "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}"
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // A failed write to a `String` cannot happen.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8; SECRET_BYTES] = b"12345678901234567890";

    #[test]
    fn codes_are_those_of_rfc_6238_appendix_b_and_of_rfc_4226_appendix_d() {
        // The RFC shows eight digits; the last six of them are a code of six.
        for (time_s, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(code_of(SECRET, step_at(time_s * 1_000)), code[2..], "at {time_s} s");
        }
        for (step, code) in ["755224", "287082", "359152", "969429", "338314"].iter().enumerate() {
            assert_eq!(code_of(SECRET, step as u64), *code);
        }
    }

    #[test]
    fn a_code_is_good_one_step_early_and_late_but_never_after_a_later_one_was_used() {
        let (step, now_ms) = (1_000_000, 1_000_000 * STEP_S * 1_000 + 7);
        for (of, is_good) in
            [(step - 2, false), (step - 1, true), (step, true), (step + 1, true), (step + 2, false)]
        {
            let found = step_of(SECRET, now_ms, &code_of(SECRET, of), None);
            assert_eq!(found, is_good.then_some(of));
        }
        let code = code_of(SECRET, step);
        assert_eq!(step_of(SECRET, now_ms, &code, Some(step - 1)), Some(step));
        assert_eq!(step_of(SECRET, now_ms, &code, Some(step)), None);
        assert_eq!(step_of(SECRET, 0, &code_of(SECRET, 0), None), Some(0));
        for other in ["", "0", "00000", "0000000", "code"] {
            assert_eq!(step_of(SECRET, now_ms, other, None), None, "{other}");
        }
    }

    #[test]
    fn base32_is_that_of_rfc_4648_without_padding() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_uri_names_issuer_and_account_whatever_letters_they_have() {
        let uri = otpauth_uri("Acme: Söhne", "ann+x@acme.example", SECRET);
        assert_eq!(
            uri,
            "otpauth://totp/Acme%20S%C3%B6hne:ann%2Bx%40acme.example\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Acme%20S%C3%B6hne&algorithm=SHA1&digits=6&period=30"
        );
        let long =
            otpauth_uri(&"é".repeat(4_000), &format!("{}@b.example", "+".repeat(64)), SECRET);
        assert!(long.len() < 1_500, "{}", long.len());
    }
}
