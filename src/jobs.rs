//! Long work of operators: backups, restores, drills. Started by one call, looked at by others.
//!
//! A job lives as long as the process; what it has done by then is durable by itself. Finished jobs
//! are kept for a while, so that whoever started one can read how it ended.
//!
//! Refuses: two jobs of the same kind on the same subject at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::control::{ControlError, ControlReply};

/// Finished jobs that are remembered.
const FINISHED_MAX: usize = 64;

/// How far a job is: told by the work, read by anybody.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    step: Mutex<String>,
}

impl Progress {
    /// Says what is being done, in a few words, and how much of it there is (0: not known).
    pub fn begin(&self, step: impl Into<String>, total: u64) {
        *lock(&self.step) = step.into();
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
    /// Says how much of it is done.
    pub fn at(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }
    /// Says that so much more of it is done.
    pub fn advance(&self, by: u64) {
        self.done.fetch_add(by, Ordering::Relaxed);
    }
}

/// A job, as its starter sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its number in this process.
    pub job: u64,
    /// What it is doing.
    pub step: String,
    /// How much of that is done.
    pub done: u64,
    /// How much there is; 0 if not known.
    pub total: u64,
    /// How it ended, once it has.
    pub outcome: Option<Result<Box<ControlReply>, ControlError>>,
}

struct Job {
    subject: String,
    progress: Arc<Progress>,
    outcome: Option<Result<ControlReply, ControlError>>,
}

#[derive(Default)]
struct Table {
    jobs: BTreeMap<u64, Job>,
    last: u64,
}

/// All jobs of a node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<Table>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Both locks guard single values that are replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Starts `work` on the current arbiter; returns the job's number at once. `subject` names what it
    /// works on: `backup`, `restore tn_…`.
    ///
    /// # Errors
    /// [`ControlError::Refused`] while another job works on the same subject.
    pub fn start<F>(
        &self,
        subject: impl Into<String>,
        work: impl FnOnce(Arc<Progress>) -> F,
    ) -> Result<u64, ControlError>
    where
        F: Future<Output = Result<ControlReply, ControlError>> + 'static,
    {
        let subject = subject.into();
        let mut table = lock(&self.0);
        if table.jobs.values().any(|job| job.outcome.is_none() && job.subject == subject) {
            let message = format!("{subject} is running already; wait until it is done");
            return Err(ControlError::Refused { message });
        }
        table.last += 1;
        let number = table.last;
        let progress = Arc::new(Progress::default());
        let job = Job { subject, progress: progress.clone(), outcome: None };
        table.jobs.insert(number, job);
        drop(table);
        let working = actix_rt::spawn(work(progress));
        let table = self.0.clone();
        actix_rt::spawn(async move {
            let died = |_| {
                let message = "the job died; the node's log says why".to_owned();
                Err(ControlError::Refused { message })
            };
            let outcome = working.await.unwrap_or_else(died);
            let mut table = lock(&table);
            if let Some(job) = table.jobs.get_mut(&number) {
                job.outcome = Some(outcome);
            }
            table.forget_oldest();
        });
        Ok(number)
    }

    /// Starts `work` and answers how far it is, which is not far.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn begin<F>(
        &self,
        subject: impl Into<String>,
        work: impl FnOnce(Arc<Progress>) -> F,
    ) -> Result<ControlReply, ControlError>
    where
        F: Future<Output = Result<ControlReply, ControlError>> + 'static,
    {
        let job = self.start(subject, work)?;
        let begun = JobStatus { job, step: String::new(), done: 0, total: 0, outcome: None };
        Ok(ControlReply::Job(self.status(job).unwrap_or(begun)))
    }

    /// How far a job is.
    pub fn status(&self, number: u64) -> Option<JobStatus> {
        let table = lock(&self.0);
        let job = table.jobs.get(&number)?;
        let progress = &job.progress;
        Some(JobStatus {
            job: number,
            step: lock(&progress.step).clone(),
            done: progress.done.load(Ordering::Relaxed),
            total: progress.total.load(Ordering::Relaxed),
            outcome: job.outcome.clone().map(|outcome| outcome.map(Box::new)),
        })
    }
}

impl Table {
    fn forget_oldest(&mut self) {
        let finished: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.outcome.is_some())
            .map(|(&number, _)| number)
            .collect();
        for number in finished.iter().rev().skip(FINISHED_MAX) {
            self.jobs.remove(number);
        }
    }
}
