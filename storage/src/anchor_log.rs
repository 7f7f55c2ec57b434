//! The anchor log: what the node swore about its tenants' histories, and when.
//!
//! Each [`Checkpoint`] holds a signed statement over the ends of the histories that changed since
//! the one before, and the hash of the one before. Whoever later finds a tenant's log shorter than,
//! or different from, the newest anchored end knows that history was cut away or rewritten; a
//! tenant's own hash chain cannot show that.
//!
//! ```text
//! NNNNNNNNNNNNNNNN.anchors   magic (8) · frames
//! frame                      length u32 LE · crc32c u32 LE of the payload · MessagePack payload
//! ```
//!
//! Every file begins with the newest anchored end of each tenant, so that opening reads one file.
//!
//! Refuses: to change or remove a checkpoint; to write after a failed write or sync; to write
//! behind damage. A torn end, which only a crash in the middle of an append leaves, is cut off and
//! said in [`AnchorLog::repairs`]. It does not know what the signed statement means.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::disk::{CopyFile, Disk, DiskFile, OpenMode};
use crate::id::TenantId;
use crate::record::{GENESIS, Hash};

mod frame;

use frame::{BadFrame, Frames, MAGIC, push_frame};

const SUFFIX: &str = ".anchors";
/// Size after which a file takes no further checkpoint. Opening reads one file whole.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The end of one tenant's history at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Whose history.
    pub tenant: TenantId,
    /// LSN of its last record.
    pub lsn: u64,
    /// Hash of that record.
    #[serde(with = "serde_bytes")]
    pub record: Hash,
    /// Sequence number of its last audit entry.
    pub audit_seq: u64,
    /// Hash of that entry.
    #[serde(with = "serde_bytes")]
    pub audit: Hash,
}

/// A leaf and the checkpoint it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchored {
    /// The end of the history.
    pub leaf: Leaf,
    /// The checkpoint's number.
    pub checkpoint: u64,
    /// When the checkpoint was made, Unix milliseconds.
    pub at_ms: u64,
}

/// What is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCheckpoint {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Ends of histories, in the order they enter the tree; each tenant at most once.
    pub leaves: Vec<Leaf>,
    /// Leaves of the whole tree, these included.
    pub size: u64,
    /// The tree's right edge after these leaves: whatever its maker needs to go on.
    pub frontier: Vec<u8>,
    /// The signed statement.
    pub note: String,
}

/// A checkpoint as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// 1 for the first, then without gaps.
    pub seq: u64,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Hash of the checkpoint before; zeros for the first.
    #[serde(with = "serde_bytes")]
    pub prev: Hash,
    /// Leaves of the whole tree, this checkpoint's included.
    pub size: u64,
    /// The leaves this checkpoint added, in tree order.
    pub leaves: Vec<Leaf>,
    /// The tree's right edge after them.
    #[serde(with = "serde_bytes")]
    pub frontier: Vec<u8>,
    /// The signed statement.
    pub note: String,
}

/// The newest checkpoint, without its leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// Its number.
    pub seq: u64,
    /// When it was made, Unix milliseconds.
    pub at_ms: u64,
    /// Its hash.
    #[serde(with = "serde_bytes")]
    pub hash: Hash,
    /// Leaves of the whole tree.
    pub size: u64,
    /// The tree's right edge.
    #[serde(with = "serde_bytes")]
    pub frontier: Vec<u8>,
    /// The signed statement.
    pub note: String,
}

/// What every file begins with: all that must be known of the files before it.
#[derive(Serialize, Deserialize)]
struct Opening {
    tip: Option<Tip>,
    anchored: Vec<Anchored>,
}

/// Why the anchor log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AnchorLogError {
    /// The disk said no.
    #[error("the anchor log cannot be read or written")]
    Io(#[from] io::Error),
    /// What is stored is not what was written.
    #[error("the anchor log is damaged in {path} at byte {offset}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
    },
    /// An earlier write or sync failed; nothing is written until the node starts again.
    #[error("the anchor log takes no more checkpoints after a failed write")]
    Stopped,
    /// No space is left. Nothing was changed.
    #[error("no space is left for a checkpoint")]
    Full,
}

struct State {
    /// Number of the file that is written.
    number: u64,
    file: Box<dyn DiskFile>,
    len: u64,
    tip: Option<Tip>,
    anchored: HashMap<TenantId, Anchored>,
    is_stopped: bool,
    damage: Option<(PathBuf, u64)>,
}

/// The append-only list of checkpoints in one directory.
pub struct AnchorLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    repairs: Vec<String>,
    state: Mutex<State>,
}

impl std::fmt::Debug for AnchorLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnchorLog({})", self.dir.display())
    }
}

impl AnchorLog {
    /// Opens the anchor log in `dir`, or begins it. Damage does not fail the opening: what comes
    /// before it is served, and [`append`](Self::append) refuses.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, AnchorLogError> {
        disk.create_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent)?;
        }
        let numbers = numbers(&*disk, dir)?;
        let number = match numbers.last() {
            Some(last) => *last,
            None => {
                begin_file(&*disk, dir, 1, &Opening { tip: None, anchored: Vec::new() })?;
                1
            }
        };
        let path = path_of(dir, number);
        let bytes = disk.read(&path)?;
        let mut read = Replay { tip: None, anchored: HashMap::new() };
        let end = replay(&path, &bytes, &mut read);
        let file = disk.open(&path, OpenMode::Write)?;
        let mut repairs = Vec::new();
        let (len, mut damage) = match end {
            End::Whole => (bytes.len() as u64, None),
            End::Torn { offset } => {
                file.set_len(offset)?;
                file.sync()?;
                let cut = bytes.len() as u64 - offset;
                repairs.push(format!(
                    "{}: cut {cut} bytes of an unfinished checkpoint",
                    path.display()
                ));
                (offset, None)
            }
            End::Damaged { offset } => (offset, Some((path, offset))),
        };
        // The numbers are gapless, or a whole file was taken away.
        if let Some(absent) = (1..number).find(|n| !numbers.contains(n)) {
            damage = Some((path_of(dir, absent), 0));
        }
        let state = State {
            number,
            file,
            len,
            tip: read.tip,
            anchored: read.anchored,
            is_stopped: false,
            damage,
        };
        Ok(Self { disk, dir: dir.to_owned(), repairs, state: Mutex::new(state) })
    }

    /// The newest checkpoint.
    pub fn tip(&self) -> Option<Tip> {
        self.lock().tip.clone()
    }
    /// The newest anchored end of a tenant's history.
    pub fn anchored(&self, tenant: TenantId) -> Option<Anchored> {
        self.lock().anchored.get(&tenant).copied()
    }
    /// The newest anchored end of every tenant, in id order.
    pub fn all_anchored(&self) -> Vec<Anchored> {
        let mut all: Vec<_> = self.lock().anchored.values().copied().collect();
        all.sort_by_key(|anchored| anchored.leaf.tenant);
        all
    }
    /// What was mended when the log was opened.
    pub fn repairs(&self) -> &[String] {
        &self.repairs
    }
    /// Whether checkpoints are taken; if not, why.
    pub fn check_writable(&self) -> Result<(), AnchorLogError> {
        check_writable(&self.lock())
    }

    /// Adds a checkpoint. It is durable when this returns.
    ///
    /// # Errors
    /// After [`AnchorLogError::Full`] nothing changed and a later try may pass; after
    /// [`AnchorLogError::Io`] every later try is [`AnchorLogError::Stopped`].
    pub fn append(&self, new: NewCheckpoint) -> Result<Tip, AnchorLogError> {
        let mut state = self.lock();
        check_writable(&state)?;
        if state.len >= FILE_BYTES_MAX {
            self.roll(&mut state)?;
        }
        let (seq, prev) = state.tip.as_ref().map_or((1, GENESIS), |tip| (tip.seq + 1, tip.hash));
        let NewCheckpoint { at_ms, leaves, size, frontier, note } = new;
        let checkpoint = Checkpoint { seq, at_ms, prev, size, leaves, frontier, note };
        let payload = encode(&checkpoint);
        let mut frame = Vec::with_capacity(payload.len() + 8);
        push_frame(&mut frame, &payload)?;
        write(&mut state, &frame)?;
        state.len += frame.len() as u64;
        let mut read = Replay { tip: None, anchored: std::mem::take(&mut state.anchored) };
        let tip = read.take(checkpoint, hash(&payload));
        state.anchored = read.anchored;
        state.tip = Some(tip.clone());
        Ok(tip)
    }

    /// Visits every checkpoint from the first on, and checks frames, numbers and links on the way.
    pub fn walk(&self, mut visit: impl FnMut(&Checkpoint)) -> Result<(), AnchorLogError> {
        let (last, len) = {
            let state = self.lock();
            if let Some((path, offset)) = &state.damage {
                return Err(AnchorLogError::Damaged { path: path.clone(), offset: *offset });
            }
            (state.number, state.len)
        };
        let (mut seq, mut prev) = (0, GENESIS);
        for number in 1..=last {
            let path = path_of(&self.dir, number);
            let damaged = |offset: u64| AnchorLogError::Damaged { path: path.clone(), offset };
            let mut bytes = self.disk.read(&path)?;
            if number == last {
                // What comes after is being written right now.
                bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            }
            let mut frames = Frames::new(&bytes).ok_or_else(|| damaged(0))?;
            let opening = frames.next().and_then(Result::ok).ok_or_else(|| damaged(0))?;
            let opening: Opening = decode(opening.1).ok_or_else(|| damaged(opening.0))?;
            let told = opening.tip.as_ref().map_or((0, GENESIS), |tip| (tip.seq, tip.hash));
            if told != (seq, prev) {
                return Err(damaged(MAGIC.len() as u64));
            }
            for frame in frames {
                let (offset, payload) = frame.map_err(|end| damaged(end.offset))?;
                let checkpoint: Checkpoint = decode(payload).ok_or_else(|| damaged(offset))?;
                if checkpoint.seq != seq + 1 || checkpoint.prev != prev {
                    return Err(damaged(offset));
                }
                (seq, prev) = (checkpoint.seq, hash(payload));
                visit(&checkpoint);
            }
        }
        Ok(())
    }

    /// Hands every file to `visit`: its name and its bytes. The copy holds every checkpoint there was
    /// when this was called, and nothing unfinished.
    ///
    /// # Errors
    /// If a file cannot be read; and whatever `visit` says.
    pub fn copy_files<E: From<AnchorLogError>>(&self, visit: CopyFile<'_, E>) -> Result<(), E> {
        let (last, len) = {
            let state = self.lock();
            (state.number, state.len)
        };
        for number in numbers(&*self.disk, &self.dir).map_err(AnchorLogError::from)? {
            let path = path_of(&self.dir, number);
            let mut bytes = self.disk.read(&path).map_err(AnchorLogError::from)?;
            if number == last {
                bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            } else if number > last {
                break;
            }
            visit(&format!("{number:016}{SUFFIX}"), &bytes)?;
        }
        Ok(())
    }

    fn roll(&self, state: &mut State) -> Result<(), AnchorLogError> {
        let mut anchored: Vec<_> = state.anchored.values().copied().collect();
        anchored.sort_by_key(|anchored| anchored.leaf.tenant);
        let opening = Opening { tip: state.tip.clone(), anchored };
        let number = state.number + 1;
        let begun = begin_file(&*self.disk, &self.dir, number, &opening).and_then(|len| {
            Ok((len, self.disk.open(&path_of(&self.dir, number), OpenMode::Write)?))
        });
        match begun {
            Ok((len, file)) => {
                (state.number, state.len, state.file) = (number, len, file);
                Ok(())
            }
            Err(error) => {
                state.is_stopped = true;
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_writable(state: &State) -> Result<(), AnchorLogError> {
    match &state.damage {
        Some((path, offset)) => {
            Err(AnchorLogError::Damaged { path: path.clone(), offset: *offset })
        }
        None if state.is_stopped => Err(AnchorLogError::Stopped),
        None => Ok(()),
    }
}

/// Writes a frame at the end. Any failure but a mended lack of space stops the log.
fn write(state: &mut State, frame: &[u8]) -> Result<(), AnchorLogError> {
    let Err(error) = state.file.write_at(state.len, frame) else {
        return state.file.sync().map_err(|error| {
            state.is_stopped = true;
            error.into()
        });
    };
    let is_mended = error.kind() == io::ErrorKind::StorageFull
        && state.file.set_len(state.len).and_then(|()| state.file.sync()).is_ok();
    state.is_stopped = !is_mended;
    Err(if is_mended { AnchorLogError::Full } else { error.into() })
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}{SUFFIX}"))
}

/// The numbers of the files there are, in order.
fn numbers(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let number = |path: PathBuf| path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok();
    Ok(disk.list(dir)?.into_iter().filter_map(number).collect())
}

/// Makes a file with its opening frame, whole or not at all; returns its length.
fn begin_file(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    opening: &Opening,
) -> Result<u64, AnchorLogError> {
    let mut bytes = MAGIC.to_vec();
    push_frame(&mut bytes, &encode(opening))?;
    disk.write_atomic(&path_of(dir, number), &bytes)?;
    Ok(bytes.len() as u64)
}

fn encode<T: Serialize>(frame: &T) -> Vec<u8> {
    rmp_serde::to_vec(frame).expect("frames hold only what MessagePack can carry")
}

fn decode<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Option<T> {
    rmp_serde::from_slice(payload).ok()
}

/// SHA-256 over a domain label and a checkpoint's payload.
fn hash(payload: &[u8]) -> Hash {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    digest.update(b"bulkhead.checkpoint.1");
    digest.update(payload);
    let mut out = GENESIS;
    out.copy_from_slice(digest.finish().as_ref());
    out
}

/// How a file ends.
enum End {
    Whole,
    Torn { offset: u64 },
    Damaged { offset: u64 },
}

/// What reading a file gives.
struct Replay {
    tip: Option<Tip>,
    anchored: HashMap<TenantId, Anchored>,
}

impl Replay {
    fn take(&mut self, checkpoint: Checkpoint, hash: Hash) -> Tip {
        let Checkpoint { seq, at_ms, size, leaves, frontier, note, .. } = checkpoint;
        for leaf in leaves {
            self.anchored.insert(leaf.tenant, Anchored { leaf, checkpoint: seq, at_ms });
        }
        Tip { seq, at_ms, hash, size, frontier, note }
    }
}

fn replay(path: &Path, bytes: &[u8], read: &mut Replay) -> End {
    let Some(mut frames) = Frames::new(bytes) else {
        return End::Damaged { offset: 0 };
    };
    // A file appears whole with its opening, so a bad opening is never the trace of a crash.
    let Some(opening) =
        frames.next().and_then(Result::ok).and_then(|(_, payload)| decode::<Opening>(payload))
    else {
        return End::Damaged { offset: MAGIC.len() as u64 };
    };
    read.tip = opening.tip;
    read.anchored = opening.anchored.into_iter().map(|a| (a.leaf.tenant, a)).collect();
    for frame in frames {
        let (offset, payload) = match frame {
            Ok(frame) => frame,
            Err(BadFrame { offset, is_torn: true }) => return End::Torn { offset },
            Err(BadFrame { offset, is_torn: false }) => return End::Damaged { offset },
        };
        let (seq, prev) = read.tip.as_ref().map_or((0, GENESIS), |tip| (tip.seq, tip.hash));
        match decode::<Checkpoint>(payload) {
            Some(checkpoint) if checkpoint.seq == seq + 1 && checkpoint.prev == prev => {
                read.tip = Some(read.take(checkpoint, hash(payload)));
            }
            _ => {
                tracing::debug!(path = %path.display(), offset, "a checkpoint does not follow");
                return End::Damaged { offset };
            }
        }
    }
    End::Whole
}

#[cfg(test)]
mod tests;
