//! What a configuration must fulfil beyond its types. Pure, but for looking at files it names.

use std::path::Path;

use super::source::Sources;
use super::{Config, ConfigError, archive, place};

/// Largest request body that may be configured, in bytes.
const BODY_BYTES_CEILING: usize = 64 * 1024 * 1024;
/// Most serving threads that may be configured.
const WORKERS_MAX: usize = 256;

/// Checks everything and reports the first thing wrong.
pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    http(config, sources)?;
    ops(config, sources)?;
    data(config, sources)?;
    super::keys::check(&config.keys, sources)?;
    archive::check(config, sources)?;
    super::backup::check(config, sources)?;
    super::erasure::check(config, sources)?;
    super::mail::check(config, sources)?;
    node(config, sources)?;
    limits(config, sources)?;
    plans(config, sources)?;
    crate::telemetry::filter(&config.log.level)
        .map(|_| ())
        .map_err(|error| sources.wrong("log.level", error.to_string()))
}

fn http(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let http = &config.http;
    if let Some(url) = &http.public_url {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let sane = rest.is_some_and(|host| {
            !host.is_empty() && !host.ends_with('/') && !host.contains(['?', '#', '@', ' '])
        });
        if !sane {
            let reason = "must be an http or https URL without user, query or slash at the end";
            return Err(sources.wrong("http.public_url", reason));
        }
    }
    if let Some(domain) = &http.base_domain {
        let sane = domain.split('.').all(is_label) && domain.len() <= 190;
        if !sane {
            let reason = "must be a plain lower-case domain name such as example.com";
            return Err(sources.wrong("http.base_domain", reason));
        }
    }
    if http.workers_wanted > WORKERS_MAX {
        let reason = format!("must be from 0 (one per core) to {WORKERS_MAX}");
        return Err(sources.wrong("http.workers", reason));
    }
    if let Some(tls) = &http.tls {
        readable(sources, "http.tls.cert", &tls.cert)?;
        readable(sources, "http.tls.key", &tls.key)?;
    }
    let same = http.bind.port() != 0 && http.bind == config.ops.bind;
    if same {
        return Err(sources.wrong("ops.bind", "must differ from http.bind"));
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(inside)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn ops(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    match &config.ops.token_file {
        Some(file) => readable(sources, "ops.token_file", file),
        None if config.ops.bind.ip().is_loopback() => Ok(()),
        None => Err(sources.wrong(
            "ops.bind",
            "is not a loopback address, so ops.token_file must name a file with a bearer token",
        )),
    }
}

fn readable(sources: &Sources, key: &str, file: &Path) -> Result<(), ConfigError> {
    std::fs::File::open(file).map(|_| ()).map_err(|error| {
        sources.wrong(key, format!("the file {} cannot be read: {error}", file.display()))
    })
}

fn data(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let data = &config.data;
    if !(1 << 20..=1 << 40).contains(&data.cache_bytes) {
        return Err(sources.wrong("data.cache_bytes", "must be from 1 MiB to 1 TiB"));
    }
    if !(1 << 20..=1 << 30).contains(&data.segment_bytes) {
        return Err(sources.wrong("data.segment_bytes", "must be from 1 MiB to 1 GiB"));
    }
    if data.dir.exists() && !data.dir.is_dir() {
        return Err(sources.wrong("data.dir", "is not a directory"));
    }
    match place::temporary(&data.dir) {
        Some(because) if !data.allow_temporary => {
            Err(ConfigError::Temporary { dir: data.dir.clone(), because })
        }
        _ => Ok(()),
    }
}

fn node(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let node = &config.node;
    let line =
        |text: &str| !text.is_empty() && text.len() <= 200 && !text.contains(char::is_control);
    // The origin is the first line of a checkpoint, and the key name of its signature (C2SP).
    if !line(&node.origin) || node.origin.contains(['+', ' ']) {
        return Err(sources.wrong("node.origin", "must be one word without plus signs"));
    }
    if !line(&node.region) {
        return Err(sources.wrong("node.region", "must be one short line"));
    }
    let schemes = ["mailto:", "https://", "tel:"];
    if !line(&node.security_contact)
        || !schemes.iter().any(|s| node.security_contact.starts_with(s))
    {
        let reason = "must be a mailto:, https:// or tel: URI (RFC 9116)";
        return Err(sources.wrong("node.security_contact", reason));
    }
    Ok(())
}

fn limits(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let limits = &config.limits;
    if !(1024..=BODY_BYTES_CEILING).contains(&limits.body_bytes_max) {
        return Err(sources.wrong("limits.body_bytes_max", "must be from 1 KiB to 64 MiB"));
    }
    let times = [
        ("limits.header_timeout_ms", limits.header_timeout_ms),
        ("limits.request_timeout_ms", limits.request_timeout_ms),
        ("limits.keep_alive_ms", limits.keep_alive_ms),
        ("limits.drain_timeout_ms", limits.drain_timeout_ms),
    ];
    for (key, time_ms) in times {
        if !(100..=600_000).contains(&time_ms) {
            return Err(sources.wrong(key, "must be from 100 to 600000 milliseconds"));
        }
    }
    if !(1..=1_000_000).contains(&limits.connections_max) {
        return Err(sources.wrong("limits.connections_max", "must be from 1 to 1000000"));
    }
    Ok(())
}

fn plans(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    if config.plans.get(&config.signup.plan).is_none() {
        let names: Vec<_> = config.plans.0.keys().map(String::as_str).collect();
        let reason =
            format!("no plan {:?}; the plans are {}", config.signup.plan, names.join(", "));
        return Err(sources.wrong("signup.plan", reason));
    }
    for (name, plan) in &config.plans.0 {
        if !is_label(&name.replace('_', "-")) {
            let reason = "a plan's name is lower-case letters, digits, dashes and underscores";
            return Err(sources.wrong(&format!("plans.{name}"), reason));
        }
        if plan.days.is_some_and(|days| !(1..=3650).contains(&days)) {
            let key = format!("plans.{name}.days");
            return Err(sources.wrong(&key, "must be from 1 to 3650"));
        }
    }
    Ok(())
}
