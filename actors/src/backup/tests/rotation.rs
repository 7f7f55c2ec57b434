//! The kept set against a second, naive reading of the same rules.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use storage::id::{BackupId, Id};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::backup::rotation::{BackupTime, Reason, kept, reasons};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn ms(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap()
}

fn backup(taken_ms: u64) -> BackupTime {
    BackupTime { id: BackupId::new(taken_ms, [0; 10]), taken_ms, is_manual: false }
}

/// Year, month, day by counting days from 1970, without a calendar library.
fn civil(unix_ms: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut left, mut year) = (unix_ms / DAY_MS, 1970);
    while left >= if is_leap(year) { 366 } else { 365 } {
        left -= if is_leap(year) { 366 } else { 365 };
        year += 1;
    }
    let mut month = 1;
    loop {
        let days = match month {
            2 if is_leap(year) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if left < days {
            return (year, month, left + 1);
        }
        left -= days;
        month += 1;
    }
}

/// The year and number of the ISO week, by the calendar library.
fn iso_week(unix_ms: u64) -> (i32, u8) {
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_ms / 1000).unwrap()).unwrap();
    let (year, week, _) = at.to_iso_week_date();
    (year, week)
}

/// A backup with what the calendar says of it.
struct Dated {
    order: (u64, BackupId),
    civil: (u64, u64, u64),
    iso_week: (i32, u8),
}

impl Dated {
    fn new(backup: &BackupTime) -> Self {
        let (order, at) = ((backup.taken_ms, backup.id), backup.taken_ms);
        Self { order, civil: civil(at), iso_week: iso_week(at) }
    }
    /// Whether it stays, by asking each rule, among all that are not from the future.
    fn stays(&self, past: &[Self], now_ms: u64) -> bool {
        let at = self.order.0;
        let age_ms = now_ms - at;
        let daily = || past.iter().all(|b| b.civil != self.civil || b.order <= self.order);
        let weekly = || past.iter().all(|b| b.iso_week != self.iso_week || b.order >= self.order);
        let (year, month, day) = self.civil;
        let is_same_month = |b: &Self| (b.civil.0, b.civil.1) == (year, month);
        let monthly = || past.iter().all(|b| !is_same_month(b) || b.order >= self.order);
        let last_date = if (month, day) == (2, 29) { (3, 1) } else { (month, day) };
        let last = (year + 1, last_date, at % DAY_MS);
        let (now_year, now_month, now_day) = civil(now_ms);
        let is_within_a_year = (now_year, (now_month, now_day), now_ms % DAY_MS) <= last;
        (age_ms <= 168 * HOUR_MS && daily())
            || (age_ms <= 720 * HOUR_MS && weekly())
            || (is_within_a_year && monthly())
            || past.iter().all(|b| b.order <= self.order)
    }
}

fn naive(all: &[BackupTime], now_ms: u64) -> BTreeSet<BackupId> {
    let future = all.iter().filter(|backup| backup.taken_ms > now_ms).map(|backup| backup.id);
    let past = all.iter().filter(|backup| backup.taken_ms <= now_ms);
    let past: Vec<_> = past.map(Dated::new).collect();
    let staying = past.iter().filter(|backup| backup.stays(&past, now_ms));
    staying.map(|backup| backup.order.1).chain(future).collect()
}

fn dates(ids: &BTreeSet<BackupId>, backups: &[BackupTime]) -> Vec<String> {
    let kept = backups.iter().filter(|backup| ids.contains(&backup.id));
    let text = |(year, month, day)| format!("{year}-{month:02}-{day:02}");
    kept.map(|backup| text(civil(backup.taken_ms))).collect()
}

/// A generator whose whole state is its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Thirteen months, hour by hour: backups at the hours `is_due` says, and rotation every hour.
/// Returns how many sets were compared, and the most backups there were at once.
fn simulate(start: OffsetDateTime, mut is_due: impl FnMut(u64) -> bool) -> (usize, usize) {
    let (mut there, mut ever) = (Vec::new(), Vec::new());
    let (mut compared, mut most) = (0usize, 0);
    let end = start.replace_year(start.year() + 1).unwrap() + Duration::days(31);
    let mut now_ms = ms(start);
    while now_ms < ms(end) {
        if is_due((now_ms - ms(start)) / HOUR_MS) {
            there.push(backup(now_ms));
            ever.push(backup(now_ms));
        }
        let (got, wanted) = (kept(&there, now_ms), naive(&there, now_ms));
        assert_eq!(dates(&got, &there), dates(&wanted, &there), "at {:?}", civil(now_ms));
        assert_eq!(got, wanted);
        there.retain(|backup| got.contains(&backup.id));
        compared += 1;
        most = most.max(there.len());
        // Rotating as one goes never loses what the rules keep of all there ever was.
        if compared.is_multiple_of(311) {
            assert!(naive(&ever, now_ms).is_subset(&got), "at {:?}", civil(now_ms));
        }
        now_ms += HOUR_MS;
    }
    (compared, most)
}

#[test]
fn thirteen_months_of_daily_backups_keep_exactly_the_policys_set() {
    // Over a leap day, so that every length of February, and 53-week years, are met.
    for start in [datetime!(2027-11-01 00:00 UTC), datetime!(2020-06-17 00:00 UTC)] {
        let (compared, most) = simulate(start, |hour| hour % 24 == 2);
        assert!(compared > 395 * 24);
        assert!((20..=27).contains(&most), "{most} backups at once");
    }
}

#[test]
fn thirteen_months_of_six_backups_a_day_keep_exactly_the_policys_set() {
    let (_, most) = simulate(datetime!(2027-11-01 00:00 UTC), |hour| hour % 4 == 1);
    assert!((20..=27).contains(&most), "{most} backups at once");
}

#[test]
fn thirteen_months_with_pauses_and_random_hours_keep_exactly_the_policys_set() {
    for seed in 1..=4 {
        println!("seed {seed}");
        let (mut dice, mut pause) = (Dice(seed), 0);
        simulate(datetime!(2023-12-09 00:00 UTC), |_| {
            if pause == 0 && dice.below(24 * 15) == 0 {
                pause = dice.below(24 * 50);
            }
            pause = u64::saturating_sub(pause, 1);
            pause == 0 && dice.below(11) == 0
        });
    }
}

#[test]
fn without_pauses_rotating_as_one_goes_keeps_what_rotating_once_keeps() {
    let start = ms(datetime!(2027-11-01 02:00 UTC));
    let (mut there, mut ever) = (Vec::new(), Vec::new());
    for day in 0..396 {
        let now_ms = start + day * DAY_MS;
        there.push(backup(now_ms));
        ever.push(backup(now_ms));
        let got = kept(&there, now_ms);
        there.retain(|backup| got.contains(&backup.id));
        assert_eq!(got, naive(&ever, now_ms), "day {day}");
    }
}

#[test]
fn the_kept_set_of_a_known_day_is_this_one() {
    let first = ms(datetime!(2024-11-10 02:00 UTC));
    let all: Vec<_> = (0..396).map(|day| backup(first + day * DAY_MS)).collect();
    // Wednesday, an hour after the night's backup, 396 days later.
    let now_ms = ms(datetime!(2025-12-10 03:00 UTC));
    let wanted = [
        // First of the month, for twelve months: 2024-12-01 is just over.
        "2025-01-01",
        "2025-02-01",
        "2025-03-01",
        "2025-04-01",
        "2025-05-01",
        "2025-06-01",
        "2025-07-01",
        "2025-08-01",
        "2025-09-01",
        "2025-10-01",
        "2025-11-01",
        // Mondays, for thirty days: 2025-11-10 is thirty days and an hour old.
        "2025-11-17",
        "2025-11-24",
        "2025-12-01",
        // Each of the last seven days; Monday the 8th is a week's as well.
        "2025-12-04",
        "2025-12-05",
        "2025-12-06",
        "2025-12-07",
        "2025-12-08",
        "2025-12-09",
        "2025-12-10",
    ];
    assert_eq!(dates(&kept(&all, now_ms), &all), wanted);
}

#[test]
fn each_term_ends_after_its_last_millisecond() {
    // A Tuesday, a Monday and a first of the month, with one before each in its day, week or month
    // where that makes it none of the others.
    let monday = ms(datetime!(2025-11-10 02:00 UTC));
    let cases = [
        (monday + DAY_MS, vec![monday], 7 * DAY_MS, Reason::Daily),
        (monday, vec![monday - 5 * DAY_MS], 30 * DAY_MS, Reason::Weekly),
        (ms(datetime!(2025-11-01 02:00 UTC)), vec![], 365 * DAY_MS, Reason::Monthly),
        (ms(datetime!(2023-11-01 02:00 UTC)), vec![], 366 * DAY_MS, Reason::Monthly),
        (ms(datetime!(2024-02-29 02:00 UTC)), vec![], 366 * DAY_MS, Reason::Monthly),
    ];
    for (taken_ms, earlier, term_ms, reason) in cases {
        let mut all: Vec<_> = earlier.into_iter().map(backup).collect();
        all.extend([backup(taken_ms), backup(taken_ms + term_ms)]);
        let id = backup(taken_ms).id;
        let last = reasons(&all, taken_ms + term_ms);
        assert!(last[&id].contains(&reason), "{reason:?} {taken_ms}");
        assert!(!kept(&all, taken_ms + term_ms + 1).contains(&id), "{reason:?} {taken_ms}");
    }
}

#[test]
fn a_backup_with_a_note_stays_seven_days_and_takes_no_others_place() {
    let now_ms = ms(datetime!(2025-12-10 03:00 UTC));
    // A Thursday: neither its week's first nor its month's, and the night's backup follows it.
    let taken_ms = ms(datetime!(2025-12-04 15:00 UTC));
    let noted = BackupTime { is_manual: true, ..backup(taken_ms) };
    let first = ms(datetime!(2025-11-01 02:00 UTC));
    let mut all: Vec<_> = (0..40).map(|day| backup(first + day * DAY_MS)).collect();
    all.push(backup(taken_ms + HOUR_MS));
    let without = kept(&all, now_ms);
    all.push(noted);
    let with = reasons(&all, now_ms);
    assert_eq!(with[&noted.id], BTreeSet::from([Reason::Manual]));
    let others: BTreeSet<_> = with.into_keys().filter(|id| *id != noted.id).collect();
    assert_eq!(others, without);
    assert!(kept(&all, taken_ms + 7 * DAY_MS).contains(&noted.id));
    assert!(!kept(&all, taken_ms + 7 * DAY_MS + 1).contains(&noted.id));
    // Without its note it would have gone the same hour.
    let plain: Vec<_> = all.iter().map(|one| BackupTime { is_manual: false, ..*one }).collect();
    assert!(!kept(&plain, now_ms).contains(&noted.id));
}

#[test]
fn the_newest_backup_stays_however_old_it_is() {
    let all = [backup(DAY_MS), backup(2 * DAY_MS), backup(3 * DAY_MS)];
    let kept = kept(&all, 100 * 365 * DAY_MS);
    assert_eq!(kept, BTreeSet::from([backup(3 * DAY_MS).id]));
}

#[test]
fn a_backup_from_the_future_stays_and_takes_no_others_place() {
    let now_ms = ms(datetime!(2025-12-10 03:00 UTC));
    let old = backup(now_ms - 1000 * DAY_MS);
    let earlier_today = backup(now_ms - HOUR_MS);
    let later_today = backup(now_ms + HOUR_MS);
    let mad = backup((1 << 48) - 1);
    let all = [mad, later_today, old, earlier_today];
    let kept_now = reasons(&all, now_ms);
    assert_eq!(kept_now[&mad.id], BTreeSet::from([Reason::Undated]));
    assert_eq!(kept_now[&later_today.id], BTreeSet::from([Reason::Undated]));
    assert!(kept_now[&earlier_today.id].contains(&Reason::Newest));
    assert!(!kept_now.contains_key(&old.id));
}

#[test]
fn what_cannot_be_dated_stays() {
    let mad = BackupTime { id: backup(1).id, ..backup(u64::MAX - 1) };
    let newer = BackupTime { id: backup(2).id, ..backup(u64::MAX) };
    assert_eq!(kept(&[mad, newer], u64::MAX).len(), 2);
    assert!(kept(&[], u64::MAX).is_empty());
}

proptest! {
    #[test]
    fn any_set_of_backups_is_judged_as_the_naive_reading_judges_it(
        hours in vec(0..24 * 420u64, 0..80),
        now_hour in 24 * 300..24 * 430u64,
        base in 0..60 * 365u64,
    ) {
        let base_ms = base * DAY_MS;
        let times: BTreeSet<_> = hours.iter().map(|hour| base_ms + hour * HOUR_MS).collect();
        let mut all: Vec<_> = times.into_iter().map(backup).collect();
        let now_ms = base_ms + now_hour * HOUR_MS;
        let got = kept(&all, now_ms);
        prop_assert_eq!(&got, &naive(&all, now_ms));
        // The order they are told in does not matter, and judging again changes nothing.
        all.reverse();
        prop_assert_eq!(&got, &kept(&all, now_ms));
        all.retain(|backup| got.contains(&backup.id));
        prop_assert_eq!(&got, &kept(&all, now_ms));
        prop_assert!(all.is_empty() == hours.is_empty());
    }

    #[test]
    fn backups_of_the_same_millisecond_are_told_apart_by_their_ids(copies in 2..9u8) {
        let all: Vec<_> = (0..copies)
            .map(|n| BackupTime { id: BackupId::new(DAY_MS, [n; 10]), ..backup(DAY_MS) })
            .collect();
        // The first is the week's and the month's, the last the day's and the newest.
        let wanted = BTreeSet::from([all[0].id, all[all.len() - 1].id]);
        prop_assert_eq!(kept(&all, DAY_MS), wanted);
    }
}
