//! Argon2id (RFC 9106) in memory that is used again.
//!
//! One hash fills 19 MiB. Taken from the system anew each time, it costs thousands of page faults, and giving it
//! back stops every thread of the process for a moment; so the memory of one hash goes to the next. Of what
//! many at once needed, one hash's worth is kept when all are done.

use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::Error;
use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::PasswordError;

/// Memory of one hash, in KiB (OWASP: at least 19 MiB).
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;

/// The hash function, and the memory it works in. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Argon(Arc<Mutex<Memories>>);

#[derive(Default)]
struct Memories {
    spare: Vec<Vec<Block>>,
    in_use: usize,
}

/// The memory of one hash; it goes back when this is dropped.
struct Memory<'a> {
    of: &'a Argon,
    blocks: Vec<Block>,
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        let mut memories = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        memories.spare.push(std::mem::take(&mut self.blocks));
        memories.in_use -= 1;
        if memories.in_use == 0 {
            memories.spare.truncate(1);
        }
    }
}

fn params() -> Params {
    Params::new(MEMORY_KIB, PASSES, LANES, None).expect("within Argon2's bounds")
}

/// A PHC string that no password matches, and that costs as much to compare with as any.
pub(super) fn nobody(salt: &[u8; 16], hash: &[u8; 32]) -> String {
    let text = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
    let (salt, hash) = (text(salt), text(hash));
    format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}")
}

impl Argon {
    fn memory(&self) -> Memory<'_> {
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memories.in_use += 1;
        let blocks = memories.spare.pop().unwrap_or_default();
        Memory { of: self, blocks }
    }

    fn output(
        &self,
        argon2: &Argon2<'_>,
        password: &str,
        salt: &[u8],
    ) -> Result<Output, PasswordError> {
        let length = argon2.params().output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let mut memory = self.memory();
        memory.blocks.resize(argon2.params().block_count(), Block::new());
        let mut buffer = [0; Output::MAX_LENGTH];
        let out = buffer.get_mut(..length).ok_or(Error::OutputSize)?;
        let (password, blocks) = (password.as_bytes(), &mut memory.blocks[..]);
        argon2.hash_password_into_with_memory(password, salt, out, blocks).map_err(Error::from)?;
        Ok(Output::new(out).map_err(Error::from)?)
    }

    /// The PHC string of `password` under `salt`.
    ///
    /// # Errors
    /// [`PasswordError::Hash`].
    pub(super) fn hash(&self, password: &str, salt: &[u8; 16]) -> Result<String, PasswordError> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params());
        let output = self.output(&argon2, password, salt)?;
        let phc = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: params().try_into()?,
            salt: Some(Salt::new(salt).map_err(Error::from)?),
            hash: Some(output),
        };
        Ok(phc.to_string())
    }

    /// Whether `phc` was made from `password`, by the parameters that it names.
    ///
    /// # Errors
    /// [`PasswordError::Hash`], also for a string that is no Argon2 hash.
    pub(super) fn matches(&self, password: &str, phc: &str) -> Result<bool, PasswordError> {
        let hash = PasswordHash::new(phc).map_err(Error::from)?;
        let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
        let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
        let version = hash.version.map_or(Ok(Version::default()), Version::try_from);
        let version = version.map_err(Error::from)?;
        let argon2 = Argon2::new(algorithm, version, Params::try_from(&hash)?);
        // Outputs compare in constant time.
        Ok(self.output(&argon2, password, salt)? == *expected)
    }
}
