//! One loaded PKCS#11 module: its thread, its sessions, and the way jobs get to it.
//!
//! A module is a shared library that is initialised once in a process and never ended, because other
//! parts of the process may use it too. All calls into it come from one thread of its own, so that a
//! token that hangs holds up its callers for a bounded time and nobody else.
//!
//! Refuses: jobs while an earlier one hangs, and to try a refused PIN again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::mounted::read_secret;
use super::source::SourceError;

/// How long a job may take, waiting for its turn included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A session without jobs is closed after this: then the PIN counts again.
const IDLE_MAX: Duration = Duration::from_millis(500);
/// A session is closed after so many jobs, for the same reason.
const JOBS_PER_SESSION_MAX: u32 = 64;

type Job = Box<dyn FnOnce(&mut Library) + Send>;

/// Which token of which module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) module: PathBuf,
    pub(super) token: String,
}

impl Place {
    pub(super) fn failed(&self, reason: String) -> SourceError {
        SourceError::Token { module: self.module.clone(), token: self.token.clone(), reason }
    }
}

/// A PIN, and what tells it from others without being it.
pub(super) struct Pin {
    text: Zeroizing<String>,
    /// Of the PIN and of when its file was written: touching the file makes it worth another try.
    mark: [u8; 32],
}

impl Pin {
    pub(super) fn read(path: &Path) -> Result<Self, SourceError> {
        let bytes = read_secret(path)?;
        let not = |reason| SourceError::NotAKey { place: path.display().to_string(), reason };
        let text = std::str::from_utf8(&bytes).map_err(|_| not("the PIN is not UTF-8"))?;
        let text = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if text.is_empty() {
            return Err(not("there is no PIN in it"));
        }
        let written = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let written = written.map_err(SourceError::io(path))?;
        let since = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&since.as_nanos().to_be_bytes());
        context.update(text.as_bytes());
        let mut mark = [0; 32];
        mark.copy_from_slice(context.finish().as_ref());
        Ok(Self { text, mark })
    }
}

/// The door to a module's thread.
pub(super) struct Module {
    jobs: mpsc::Sender<Job>,
    is_stuck: Arc<AtomicBool>,
}

/// Every module this process has loaded.
static MODULES: LazyLock<Mutex<BTreeMap<PathBuf, Arc<Module>>>> = LazyLock::new(Mutex::default);

impl Module {
    /// The module of this path; its thread starts when it is first asked for.
    pub(super) fn of(path: &Path) -> Result<Arc<Self>, SourceError> {
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(path) {
            return Ok(Arc::clone(module));
        }
        let (jobs, queue) = mpsc::channel::<Job>();
        let mut library = Library::new(path);
        std::thread::Builder::new()
            .name("pkcs11".to_owned())
            .spawn(move || work(&queue, &mut library))
            .map_err(SourceError::io(path))?;
        let module = Arc::new(Self { jobs, is_stuck: Arc::default() });
        modules.insert(path.to_owned(), Arc::clone(&module));
        Ok(module)
    }

    /// Has `job` done on the module's thread.
    pub(super) fn call<T: Send + 'static>(
        &self,
        place: &Place,
        job: impl FnOnce(&mut Library) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let late = || SourceError::Timeout {
            what: format!("the PKCS#11 module {}", place.module.display()),
            timeout_ms: u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        };
        if self.is_stuck.load(Ordering::SeqCst) {
            return Err(late());
        }
        let (told, outcome) = mpsc::sync_channel(1);
        let is_stuck = Arc::clone(&self.is_stuck);
        let job: Job = Box::new(move |library| {
            let _late = told.try_send(job(library));
            // After the outcome is told: whoever gave up waiting looks for it once more.
            is_stuck.store(false, Ordering::SeqCst);
        });
        if self.jobs.send(job).is_err() {
            return Err(self.died(place));
        }
        match outcome.recv_timeout(TIMEOUT) {
            Ok(outcome) => outcome,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.died(place)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.is_stuck.store(true, Ordering::SeqCst);
                let Ok(outcome) = outcome.try_recv() else { return Err(late()) };
                self.is_stuck.store(false, Ordering::SeqCst);
                outcome
            }
        }
    }

    /// Forgets this module, so that the next caller gets a new thread for it.
    fn died(&self, place: &Place) -> SourceError {
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        if modules.get(&place.module).is_some_and(|module| std::ptr::eq(&**module, self)) {
            modules.remove(&place.module);
        }
        place.failed("the thread of its module died".to_owned())
    }
}

fn work(queue: &mpsc::Receiver<Job>, library: &mut Library) {
    loop {
        match queue.recv_timeout(IDLE_MAX) {
            Ok(job) => job(library),
            Err(mpsc::RecvTimeoutError::Timeout) => library.open = None,
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// A session that is signed in.
struct Open {
    token: String,
    mark: [u8; 32],
    jobs: u32,
    session: Session,
}

/// The module itself, on its thread.
pub(super) struct Library {
    path: PathBuf,
    loaded: Option<Pkcs11>,
    open: Option<Open>,
    /// By token: the PIN it refused last.
    refused: HashMap<String, [u8; 32]>,
}

impl Library {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), loaded: None, open: None, refused: HashMap::new() }
    }

    /// Does `job` in a session of the token that is signed in with this PIN.
    pub(super) fn with_session<T>(
        &mut self,
        place: &Place,
        pin: &Pin,
        job: impl FnOnce(&Session) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let is_same = |open: &Open| {
            open.token == place.token && open.mark == pin.mark && open.jobs < JOBS_PER_SESSION_MAX
        };
        let open = match self.open.take().filter(is_same) {
            Some(open) => open,
            None => self.sign_in(place, pin)?,
        };
        let outcome = job(&open.session);
        // After a failure nobody knows what the session is worth: the next job gets another.
        if outcome.is_ok() {
            self.open = Some(Open { jobs: open.jobs + 1, ..open });
        }
        outcome
    }

    fn load(&mut self, place: &Place) -> Result<Pkcs11, SourceError> {
        if let Some(loaded) = &self.loaded {
            return Ok(loaded.clone());
        }
        let failed = |error: Error| place.failed(format!("its module cannot be used: {error}"));
        let library = Pkcs11::new(&self.path).map_err(failed)?;
        match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(self.loaded.insert(library).clone())
    }

    fn slot(library: &Pkcs11, place: &Place) -> Result<Slot, SourceError> {
        let failed = |error: Error| place.failed(format!("the tokens cannot be listed: {error}"));
        let mut slots = Vec::new();
        for slot in library.get_slots_with_initialized_token().map_err(failed)? {
            // A token that went while it was looked at is as good as none.
            let Ok(info) = library.get_token_info(slot) else { continue };
            if info.label().trim_end() == place.token {
                slots.push(slot);
            }
        }
        match slots[..] {
            [slot] => Ok(slot),
            [] => Err(place.failed("there is no such token".to_owned())),
            _ => Err(place.failed("there is more than one such token".to_owned())),
        }
    }

    fn sign_in(&mut self, place: &Place, pin: &Pin) -> Result<Open, SourceError> {
        if self.refused.get(&place.token) == Some(&pin.mark) {
            let reason = "it refused the PIN, which is not tried again before its file changes";
            return Err(place.failed(reason.to_owned()));
        }
        let library = self.load(place)?;
        let slot = Self::slot(&library, place)?;
        let failed = |error: Error| place.failed(format!("no session can be had: {error}"));
        let session = library.open_ro_session(slot).map_err(failed)?;
        let secret = AuthPin::from(pin.text.as_str().to_owned());
        match session.login(UserType::User, Some(&secret)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(Error::Pkcs11(
                refusal @ (RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked),
                _,
            )) => {
                self.refused.insert(place.token.clone(), pin.mark);
                return Err(place.failed(format!("it refused the PIN: {refusal:?}")));
            }
            Err(error) => return Err(failed(error)),
        }
        self.refused.remove(&place.token);
        Ok(Open { token: place.token.clone(), mark: pin.mark, jobs: 0, session })
    }
}
