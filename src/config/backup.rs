//! When backups are taken, and how often a restore drill is held. Refuses times that would be no
//! schedule.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use actors::backup::keeper::BackupPolicy;
use serde::{Deserialize, Serialize};

use super::source::Sources;
use super::{Config, ConfigError};

/// The shortest time between two backups.
const EVERY_MIN: Duration = Duration::from_secs(60);
/// The longest time of either kind.
const SPAN_MAX: Duration = Duration::from_secs(3660 * 24 * 60 * 60);

/// Backups and drills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Whether backups are taken without being asked for.
    pub enabled: bool,
    /// How old the newest backup gets before the next is taken.
    pub every: Span,
    /// How old the last restore drill that passed gets before it is overdue.
    pub drill_overdue: Span,
}

impl Backup {
    /// What the keeper keeps to. `window` is how long every moment can be brought back.
    pub fn policy(&self, window: Duration) -> BackupPolicy {
        BackupPolicy {
            every: self.enabled.then_some(self.every.0),
            drill_overdue: self.drill_overdue.0,
            window,
        }
    }
}

/// A time such as `90s`, `15m`, `24h` or `92d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A text that is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number with a unit: s, m, h or d, such as \"24h\"")]
pub struct SpanError;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let unit = text.chars().next_back().ok_or(SpanError)?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(SpanError)?;
        let digits = text.strip_suffix(unit).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SpanError);
        }
        let number: u64 = digits.parse().map_err(|_| SpanError)?;
        number.checked_mul(*seconds).map(|s| Self(Duration::from_secs(s))).ok_or(SpanError)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let whole = |(_, size): &&(char, u64)| seconds > 0 && seconds.is_multiple_of(*size);
        let (unit, size) = UNITS.iter().find(whole).unwrap_or(&UNITS[3]);
        write!(f, "{}{unit}", seconds / size)
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What the schedule must fulfil beyond its types.
pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let backup = &config.backup;
    if !(EVERY_MIN..=SPAN_MAX).contains(&backup.every.0) {
        return Err(sources.wrong("backup.every", "must be from 60s to 3660d"));
    }
    if !(backup.every.0..=SPAN_MAX).contains(&backup.drill_overdue.0) {
        let reason = "must be at least backup.every, and at most 3660d";
        return Err(sources.wrong("backup.drill_overdue", reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn a_time_reads_back_in_its_largest_unit() {
        for (text, seconds, shown) in
            [("90s", 90, "90s"), ("120s", 120, "2m"), ("24h", 86_400, "1d"), ("0s", 0, "0s")]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0.as_secs(), span.to_string().as_str()), (seconds, shown));
        }
        for text in
            ["", "h", "24", "1.5h", "-1h", "+1h", "1 h", "hh", "1hh", "99999999999999999999d"]
        {
            assert_eq!(text.parse::<Span>(), Err(SpanError), "{text}");
        }
    }

    #[test]
    fn a_schedule_that_is_none_is_refused() {
        let load = |key: &str, value: &str| {
            let home = ("HOME".to_owned(), "/home/ada".to_owned());
            Config::load_from(None, [home], &Overrides::default().set(key, value))
        };
        let config = load("backup.every", "12h").unwrap();
        let policy = config.backup.policy(Duration::from_secs(1));
        assert_eq!(policy.every, Some(Duration::from_secs(12 * 3600)));
        for (key, value) in [
            ("backup.every", "59s"),
            ("backup.every", "often"),
            ("backup.every", "4000d"),
            ("backup.drill_overdue", "1h"),
        ] {
            let error = load(key, value).unwrap_err().to_string();
            assert!(error.contains(key), "{key} = {value}: {error}");
        }
    }
}
