//! Every key a compartment can hold, and its one byte encoding.
//!
//! Encoded order equals `Ord` order, because range scans are how lists are read. Every part has a
//! fixed width and numbers are big-endian, so nothing is escaped. A tag byte, once shipped, is
//! never reused: retire the variant, keep the byte.
//!
//! Keys rest in clear in the view, so they never hold personal data: people and provider ids enter
//! as keyed digests (see `seal.rs`). The tenant is not part of a `Key`; the view puts it in front.

use crate::id::{
    ApiKeyId, CommentId, EventId, ExportId, FormId, Id, IdentityId, IdentityProviderId,
    IntegrationId, InviteId, MailId, RestoreId, SessionId, SubmissionId, SupportId, TeamId,
    TenantId, TicketId, UserId,
};

/// A keyed digest: HMAC-SHA-256 under the tenant's index key.
pub type Digest = [u8; 32];

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident = $tag:literal, $counted:literal { $($field:ident: $ty:ty),* };)*) => {
        /// Variants are declared in tag order, so that derived `Ord` matches the bytes.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the fields' names and types say all there is")]
        pub enum Key {
            $($(#[$doc])* $name { $($field: $ty),* },)*
        }

        impl Key {
            /// Every tag with its variant's name, in order: for documentation and tests.
            pub const TAGS: &'static [(u8, &'static str)] = &[$(($tag, stringify!($name))),*];

            /// The bytes of this key.
            pub fn encode(&self) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(50);
                match self {
                    $(Key::$name { $($field),* } => {
                        bytes.push($tag);
                        $(Part::write($field, &mut bytes);)*
                    })*
                }
                bytes
            }

            /// Reads a key back.
            pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
                let (tag, mut rest) = bytes.split_first().ok_or(KeyError::Empty)?;
                let key = match *tag {
                    $($tag => Key::$name { $($field: <$ty as Part>::read(&mut rest)?),* },)*
                    tag => return Err(KeyError::UnknownTag { tag }),
                };
                if rest.is_empty() { Ok(key) } else { Err(KeyError::TrailingBytes) }
            }

            /// Whether the row's size counts towards the tenant's `storage_bytes` quota.
            pub fn is_counted(tag: u8) -> bool {
                match tag { $($tag => $counted,)* _ => false }
            }
        }
    };
}

keys! {
    /// The compartment's own state: plan, counters, chain heads. Written with what changes it.
    State = b'!', false {};
    /// Audit entries that are in the archive, by the first one's sequence number.
    AuditChunk = b'A', false { first: u64 };
    /// What a directory says of a person besides their address and role.
    Provisioned = b'G', true { user: UserId };
    /// An invitation that nobody has accepted yet.
    Invite = b'I', false { id: InviteId };
    /// A person's identity at an identity provider.
    Identity = b'L', false { user: UserId, id: IdentityId };
    /// A mail that waits to be sent.
    Mail = b'M', false { id: MailId };
    /// A sign-in that is under way at an identity provider, by when it ends (Unix seconds).
    Authorization = b'O', false { ends_s: u64, digest: Digest };
    /// A party that the tenant lets vouch for people, with its secret.
    IdentityProvider = b'P', false { id: IdentityProviderId };
    /// A single-use link that was mailed to a person.
    Ticket = b'R', false { user: UserId, id: TicketId };
    /// A support session: in its tenant as it stands, in the platform's compartment as it was asked for.
    Support = b'S', false { id: SupportId };
    /// Audit entries of one record, by the first one's sequence number.
    Audit = b'a', false { seq: u64 };
    /// Points from a form to the audit rows that mention it.
    AuditTrail = b'b', false { form: FormId, seq: u64 };
    /// A comment on a submission.
    Comment = b'c', true { submission: SubmissionId, id: CommentId };
    /// Platform only: one tenant's directory entry.
    Directory = b'd', false { tenant: TenantId };
    /// An accepted inbound webhook.
    Event = b'e', true { integration: IntegrationId, id: EventId };
    /// A form.
    Form = b'f', true { id: FormId };
    /// One day's answers to idempotency keys (`day`: days since the Unix epoch).
    Idempotency = b'i', true { day: u32, digest: Digest };
    /// A source of inbound webhooks.
    Integration = b'j', true { id: IntegrationId };
    /// An API key, without what proves it.
    ApiKey = b'k', false { id: ApiKeyId };
    /// Whose identity an issuer's subject is, by the keyed digest of both and of the provider.
    IdentityBySubject = b'l', false { digest: Digest };
    /// What a person signs in with besides a password, and their sign-ins that wait for it.
    SecondFactors = b'm', false { user: UserId };
    /// Platform only: which tenant has a short name, by its keyed digest.
    Slug = b'n', false { digest: Digest };
    /// A bundle that the tenant's own people asked for.
    Export = b'o', false { id: ExportId };
    /// Which stored event a provider's event id became.
    ProviderEvent = b'p', false { integration: IntegrationId, digest: Digest };
    /// A restore to an earlier time.
    Restore = b'r', false { id: RestoreId };
    /// A session.
    Session = b's', false { user: UserId, id: SessionId };
    /// A team.
    Team = b't', true { id: TeamId };
    /// A person.
    User = b'u', true { id: UserId };
    /// Who has an e-mail address, by its keyed digest.
    UserByEmail = b'v', false { digest: Digest };
    /// A submission.
    Submission = b'w', true { form: FormId, id: SubmissionId };
    /// Points from a person to a submission they made.
    Authored = b'x', false { user: UserId, form: FormId, id: SubmissionId };
}

/// Why bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No bytes.
    #[error("a key is empty")]
    Empty,
    /// A tag this release does not know.
    #[error("a key has the unknown tag {tag:#04x}")]
    UnknownTag {
        /// The tag found.
        tag: u8,
    },
    /// Fewer bytes than the variant takes.
    #[error("a key is too short")]
    TooShort,
    /// More bytes than the variant takes.
    #[error("a key is too long")]
    TrailingBytes,
}

/// One fixed-width part of a key.
trait Part: Sized {
    fn write(&self, bytes: &mut Vec<u8>);
    fn read(bytes: &mut &[u8]) -> Result<Self, KeyError>;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], KeyError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(KeyError::TooShort)?;
    *bytes = rest;
    Ok(*head)
}

macro_rules! number_parts {
    ($($ty:ty),*) => {$(
        impl Part for $ty {
            fn write(&self, bytes: &mut Vec<u8>) { bytes.extend_from_slice(&self.to_be_bytes()); }
            fn read(bytes: &mut &[u8]) -> Result<Self, KeyError> { Ok(Self::from_be_bytes(take(bytes)?)) }
        }
    )*};
}
number_parts!(u32, u64);

impl Part for Digest {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }
    fn read(bytes: &mut &[u8]) -> Result<Self, KeyError> {
        take(bytes)
    }
}

impl<T: Id> Part for T {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }
    fn read(bytes: &mut &[u8]) -> Result<Self, KeyError> {
        Ok(T::from_bytes(take(bytes)?))
    }
}

/// A contiguous run of keys: all that start with one tag and, if given, one owning id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Vec<u8>);

impl Prefix {
    /// Every key there is.
    pub fn all() -> Self {
        Self(Vec::new())
    }
    /// All keys of one kind, named by any key of it (`Prefix::kind(&Key::State {})`).
    pub fn kind(key: &Key) -> Self {
        Self(key.encode()[..1].to_vec())
    }
    /// All keys of one kind whose first part is the same sixteen-byte id as in `key`.
    pub fn owner(key: &Key) -> Self {
        Self(key.encode()[..17].to_vec())
    }
    /// The bytes every key of the run starts with.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
