//! Which backups stay: grandfather, father, son.
//!
//! All calendars are UTC. Of the backups that are there, these stay:
//!
//! | rule | representative | stays |
//! |---|---|---|
//! | daily | the newest backup of each day: the fullest picture of it | 7 × 24 hours from when it was taken |
//! | weekly | the first backup of each ISO week (ISO 8601, from Monday) | 30 × 24 hours |
//! | monthly | the first backup of each calendar month | 12 months: to the same date and time of the next year; one of 29 February to 1 March |
//! | newest | the newest of all that are not from the future | until there is a newer one |
//! | manual | every backup that somebody took with a note | 7 × 24 hours from when it was taken |
//! | future | every backup stamped later than now | until its time has come |
//!
//! Each term includes its last millisecond. Weeks and months are represented by their *first*
//! backup because that choice is settled the moment it is made: a later backup never displaces it,
//! so what was kept as a week's or a month's is never dropped before its term. A backup from the
//! future (the clock went back) represents nothing yet, and takes no other's place.
//!
//! The rules judge what is there. Where backups are taken without pause that is the same as judging
//! all that ever were. After a pause it may keep one more than that: a backup that outlived its
//! week's or month's first, being the newest for so long, is then itself the first. Never less.
//!
//! Refuses: to read a clock; to drop what cannot be dated (after the year 9999).

use std::collections::{BTreeMap, BTreeSet};

use storage::id::BackupId;
use time::{Date, Month, OffsetDateTime};

use super::manifest::BackupManifest;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a day's backup stays.
pub const DAILY_KEPT_MS: u64 = 7 * DAY_MS;
/// How long a week's backup stays.
pub const WEEKLY_KEPT_MS: u64 = 30 * DAY_MS;
/// Years that a month's backup stays.
const MONTHLY_KEPT_YEARS: i32 = 1;

/// When a finished backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackupTime {
    /// Which backup.
    pub id: BackupId,
    /// The moment it shows: Unix milliseconds.
    pub taken_ms: u64,
    /// Whether somebody took it for a reason of their own: it has a note.
    pub is_manual: bool,
}

impl From<&BackupManifest> for BackupTime {
    fn from(manifest: &BackupManifest) -> Self {
        let is_manual = manifest.note.is_some();
        Self { id: manifest.id, taken_ms: manifest.taken_ms, is_manual }
    }
}

/// Why a backup stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is a day's.
    Daily,
    /// Somebody took it with a note, within the term of a day's.
    Manual,
    /// It is a week's.
    Weekly,
    /// It is a month's.
    Monthly,
    /// There is no newer one.
    Newest,
    /// It is stamped later than now, or cannot be dated.
    Undated,
}

/// The backups that stay. The others may go.
pub fn kept(backups: &[BackupTime], now_ms: u64) -> BTreeSet<BackupId> {
    reasons(backups, now_ms).into_keys().collect()
}

/// The backups that stay, and why.
pub fn reasons(backups: &[BackupTime], now_ms: u64) -> BTreeMap<BackupId, BTreeSet<Reason>> {
    let mut reasons: BTreeMap<BackupId, BTreeSet<Reason>> = BTreeMap::new();
    let mut keep = |backup: &BackupTime, reason| {
        reasons.entry(backup.id).or_default().insert(reason);
    };
    let (mut past, future): (Vec<&BackupTime>, Vec<&BackupTime>) =
        backups.iter().partition(|backup| backup.taken_ms <= now_ms);
    past.sort_by_key(|backup| (backup.taken_ms, backup.id));
    future.into_iter().for_each(|backup| keep(backup, Reason::Undated));
    if let Some(newest) = past.last() {
        keep(newest, Reason::Newest);
    }
    let (mut days, mut weeks, mut months) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for backup in past {
        if backup.is_manual && now_ms - backup.taken_ms <= DAILY_KEPT_MS {
            keep(backup, Reason::Manual);
        }
        days.insert(day(backup.taken_ms), backup);
        weeks.entry(week(backup.taken_ms)).or_insert(backup);
        if let Some(month) = month(backup.taken_ms) {
            months.entry(month).or_insert(backup);
        } else {
            keep(backup, Reason::Undated);
        }
    }
    for backup in days.into_values().filter(|day| now_ms - day.taken_ms <= DAILY_KEPT_MS) {
        keep(backup, Reason::Daily);
    }
    for backup in weeks.into_values().filter(|week| now_ms - week.taken_ms <= WEEKLY_KEPT_MS) {
        keep(backup, Reason::Weekly);
    }
    for backup in months.into_values() {
        if next_year_ms(backup.taken_ms).is_none_or(|end_ms| now_ms <= end_ms) {
            keep(backup, Reason::Monthly);
        }
    }
    reasons
}

/// Days since 1 January 1970.
fn day(unix_ms: u64) -> u64 {
    unix_ms / DAY_MS
}

/// ISO weeks since that of 1 January 1970, a Thursday: three days after a Monday.
fn week(unix_ms: u64) -> u64 {
    (day(unix_ms) + 3) / 7
}

fn date_time(unix_ms: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok()
}

fn month(unix_ms: u64) -> Option<(i32, Month)> {
    date_time(unix_ms).map(|at| (at.year(), at.month()))
}

/// The same date and time one year later, Unix milliseconds.
fn next_year_ms(unix_ms: u64) -> Option<u64> {
    let at = date_time(unix_ms)?;
    let year = at.year() + MONTHLY_KEPT_YEARS;
    let date = Date::from_calendar_date(year, at.month(), at.day())
        .or_else(|_| Date::from_calendar_date(year, Month::March, 1))
        .ok()?;
    u64::try_from(at.replace_date(date).unix_timestamp_nanos() / 1_000_000).ok()
}
