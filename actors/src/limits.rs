//! Every cap of this crate, in one place.

use std::time::Duration;

/// Requests a tenant may have under way at once. The next one is refused at once, with a hint when
/// to come back. Large enough that a burst of a hundred people is answered, small enough that one
/// tenant's queue is drained in well under a second.
pub const IN_FLIGHT_MAX: usize = 128;
/// How long a caller waits for a tenant before the outcome counts as unknown.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(15);
/// How long holding a tenant waits for what is under way there; twice what any caller waits.
pub const HOLD_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands that may share one record.
pub const BATCH_COMMANDS_MAX: usize = 128;
/// Bytes of writes after which a record takes no further command.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Time after which a record takes no further command, so that neighbours on the thread go on.
pub const BATCH_TIME_MAX: Duration = Duration::from_millis(1);
/// Messages a tenant handles before it lets its neighbours on the same thread go first.
pub const MESSAGES_PER_TURN: usize = 16;
/// How long a tenant stays awake with nothing to do.
pub const IDLE_AFTER: Duration = Duration::from_secs(300);
/// How often the supervisor looks for idle tenants.
pub const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Panics within [`PANIC_WINDOW`] after which a tenant is `Faulted`.
pub const PANICS_MAX: usize = 5;
/// The window that [`PANICS_MAX`] counts in.
pub const PANIC_WINDOW: Duration = Duration::from_secs(60);
/// The first pause of a faulted tenant; doubles with each further fault, up to [`BACK_OFF_MAX`].
pub const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// The longest pause of a faulted tenant.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// Tenants that may be waking at once; waking reads the disk.
pub const WAKING_MAX: usize = 64;
/// How long an answer is kept for its idempotency key.
pub const IDEMPOTENCY_DAYS: u32 = 1;
/// Items on a page when the caller does not say.
pub const PAGE_DEFAULT: usize = 50;
/// Items on a page at most.
pub const PAGE_MAX: usize = 200;
/// Bytes of items after which a page takes no further item: a page has at most this and one item.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Rows one list request looks at before it answers with what it has and a cursor.
pub const SCAN_ROWS_MAX: usize = 5_000;
/// Runs of archived audit entries that are looked through at a time for one that may hold what is wanted.
pub const AUDIT_CHUNKS_AT_ONCE: usize = 64;
/// Audit entries that go into one object of the archive.
pub const AUDIT_CHUNK_ENTRIES: u64 = 2_048;
/// Bytes of rows after which such an object takes no further row.
pub const AUDIT_CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of rows that its filter drops one list request looks at, likewise.
pub const SCAN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest title, name or comment, in bytes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Largest form schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Largest submission, in bytes of JSON.
pub const SUBMISSION_BYTES_MAX: usize = 256 * 1024;
/// Longest title of a form, in bytes; it is part of the cursor of lists sorted by title.
pub const TITLE_BYTES_MAX: usize = 400;
/// Longest reason for breaking the glass, in bytes.
pub const REASON_BYTES_MAX: usize = 500;
/// Containers inside each other in a form schema.
pub const SCHEMA_DEPTH_MAX: usize = 64;
/// Containers inside each other in a submission. Recursive schemas are weighed up to this depth.
pub const DATA_DEPTH_MAX: usize = 32;
/// Subschemas that may apply to one path through a submission, references unfolded.
pub const SCHEMA_COST_MAX: u64 = 5_000;
/// Steps from a schema's root to its furthest subschema, references followed. Bounds the stack that
/// validation takes.
pub const SCHEMA_PATH_MAX: usize = 256;
/// Subschemas and references that follow each other for one value.
pub const SCHEMA_CHAIN_MAX: usize = 32;
/// Regular expressions in one form schema.
pub const SCHEMA_PATTERNS_MAX: u64 = 8;
/// States of all regular expressions of a form schema, estimated.
pub const PATTERN_STATES_MAX: u64 = 2_000;
/// How often a regular expression may ask for a repetition.
pub const PATTERN_REPEAT_MAX: u64 = 100;
/// Bytes one compiled regular expression of a form schema may take.
pub const PATTERN_BYTES_MAX: usize = 128 * 1024;
/// Bytes the states of one regular expression may take that are made while it runs.
pub const PATTERN_CACHE_BYTES_MAX: usize = 64 * 1024;
/// Bytes a compiled regular expression takes for each of its states, about.
pub const PATTERN_STATE_BYTES: usize = 512;
/// Longest text a regular expression or a format is tested on, in bytes.
pub const PATTERN_INPUT_BYTES_MAX: usize = 16 * 1024;
/// Steps of validating one submission, at most: keeps one submission from holding up the thread
/// that other tenants share. One step is about 20 ns, so this is about 20 ms.
pub const VALIDATION_WORK_MAX: u64 = 1_000_000;
/// The same, up to which every error is collected; beyond it the answer names none.
pub const VALIDATION_WORK_EXPLAINED_MAX: u64 = 50_000;
/// Validation errors one answer lists.
pub const ERRORS_MAX: usize = 20;
/// People besides its author who may change one submission. All are remembered: none of them decides.
pub const EDITORS_MAX: usize = 100;
/// Comments on one submission.
pub const COMMENTS_MAX: usize = 1_000;
/// Teams of one tenant.
pub const TEAMS_MAX: usize = 1_000;
/// Compiled schemas an awake tenant keeps.
pub const SCHEMAS_CACHED_MAX: usize = 16;
/// Bytes of compiled schemas an awake tenant keeps, estimated.
pub const SCHEMAS_CACHED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes a compiled schema takes for each byte of its text, about.
pub const SCHEMA_RESIDENT_FACTOR: usize = 32;
/// Grants on one form.
pub const GRANTS_MAX: usize = 200;
/// Members of one team.
pub const TEAM_MEMBERS_MAX: usize = 1_000;
/// Active secrets of one integration.
pub const SECRETS_MAX: usize = 4;
/// Sessions one user may have; the oldest ends when another starts.
pub const SESSIONS_MAX: usize = 50;
/// API keys one tenant may have.
pub const API_KEYS_MAX: usize = 500;
/// API keys of one person that have not ended. Keys that have ended make room for new ones.
pub const API_KEYS_EACH_MAX: usize = 50;
/// How long an API key lasts when nobody says: 90 days.
pub const API_KEY_MS_DEFAULT: u64 = 90 * 24 * 60 * 60 * 1000;
/// How long an API key may last: 365 days.
pub const API_KEY_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1000;
/// How long a sign-in waits for its second factor, milliseconds: 5 minutes.
pub const CHALLENGE_MS: u64 = 5 * 60 * 1000;
/// Sign-ins of one person that wait for a second factor at once; the oldest ends when another begins.
pub const CHALLENGES_MAX: usize = 8;
/// Wrong codes after which a sign-in that waits for one is void.
pub const WRONG_CODES_MAX: u32 = 5;
/// Wrong codes in a row, in whatever sign-ins, after which no code of an authenticator is taken for a
/// while: a code has 20 bits, and whoever knows the password may begin as many sign-ins as they like.
pub const WRONG_CODES_BEFORE_PAUSE: u32 = 10;
/// The first such pause, milliseconds; it doubles with every [`WRONG_CODES_MAX`] more.
pub const CODE_PAUSE_MS_FIRST: u64 = 60 * 1000;
/// The longest, milliseconds.
pub const CODE_PAUSE_MS_MAX: u64 = 60 * 60 * 1000;
/// Passkeys of one person.
pub const PASSKEYS_MAX: usize = 10;
/// Answered challenges of signing in by passkey that are remembered for one person, until they are too old.
pub const CHALLENGES_SPENT_MAX: usize = 32;
/// How long the enrolment of a second factor waits for its first code, milliseconds: 15 minutes.
pub const ENROLMENT_MS: u64 = 15 * 60 * 1000;
/// Recovery codes of one set.
pub const RECOVERY_CODES: usize = 10;
/// How long a session lasts after it was last refreshed.
pub const SESSION_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// Past states that are kept in memory for those who look at them.
pub const PASTS_MAX: usize = 4;
/// Bytes that these may take together.
pub const PASTS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes that one of them may take; a larger state is not held, and cannot be looked at.
pub const PAST_STATE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Past states that are being made at once; whoever wants another one waits.
pub const PASTS_MADE_AT_ONCE_MAX: usize = 2;
/// How long a past state is kept after it was made.
pub const PAST_KEPT_FOR: Duration = Duration::from_secs(60);
/// Restores that a tenant's own people may ask for in 24 hours.
pub const RESTORES_A_DAY_MAX: usize = 10;
/// How often it is tried to hold a tenant that is to be restored.
pub const RESTORE_RETRY_EVERY: Duration = Duration::from_secs(1);
/// How many times.
pub const RESTORE_TRIES_MAX: usize = 60;
/// Exports that a tenant's own people have kept at once.
pub const EXPORTS_MAX: usize = 10;
/// How long an export is kept, milliseconds: 7 days.
pub const EXPORT_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Mails of one tenant that may wait to be sent at once.
pub const MAILS_MAX: u32 = 500;
/// How long after signing in a person without a password may change how they sign in, milliseconds.
pub const FRESH_MS: u64 = 10 * 60 * 1000;
/// Support sessions that a tenant keeps, open or over.
pub const SUPPORT_MAX: usize = 100;
/// Owners and administrators who are told of a support session by mail.
pub const SUPPORT_TOLD_MAX: usize = 10;
/// Longest support session, in minutes: eight hours.
pub const SUPPORT_MINUTES_MAX: u32 = 8 * 60;
/// How long a support session waits to be approved, milliseconds: a day.
pub const SUPPORT_WAIT_MS: u64 = 24 * 60 * 60 * 1000;
/// Invitations of one tenant that nobody has accepted yet.
pub const INVITES_MAX: usize = 500;
/// How long an invitation stands, milliseconds: 7 days.
pub const INVITE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Mailed links of one person that count at once; the oldest ends when another is made.
pub const TICKETS_MAX: usize = 5;
/// Identity providers of one tenant.
pub const IDENTITY_PROVIDERS_MAX: usize = 32;
/// Domains that one identity provider lets people in from.
pub const IDENTITY_DOMAINS_MAX: usize = 20;
/// Largest key set that is given in full, in bytes.
pub const KEY_SET_BYTES_MAX: usize = 64 * 1024;
/// Longest subject that a party may call a person by, in bytes (OpenID Connect Core §2).
pub const SUBJECT_BYTES_MAX: usize = 255;
/// Identities of one person.
pub const IDENTITIES_MAX: usize = 10;
/// How long a sign-in at an identity provider may take, milliseconds: 10 minutes.
pub const AUTHORIZATION_MS: u64 = 10 * 60 * 1000;
/// How long a mailed link counts, milliseconds: an hour (ASVS 5.0, 6.5.5 asks for short-lived ones).
pub const TICKET_MS: u64 = 60 * 60 * 1000;
