//! A log in memory, for tests: the same answers as the embedded one, and any failure on command.
//!
//! It outlives nothing but is shared by its clones' handles; "reopening" is using the same one again.
//! It promises no durability and never becomes a backend of a node.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::oneshot;

use crate::id::TenantId;
use crate::log::Appended;
use crate::log::Appending;
use crate::log::CommitLog;
use crate::log::Health;
use crate::log::LogError;
use crate::log::LogStats;
use crate::log::Tail;
use crate::record::Record;

#[derive(Debug, Default)]
struct History {
    /// Where the records that were let go ended.
    base: Option<Tail>,
    records: Vec<Record>,
}

impl History {
    fn tail(&self) -> Tail {
        let base = self.base.unwrap_or(Tail::EMPTY);
        self.records.last().map_or(base, |record| record.header.tail())
    }

    fn let_go(&mut self, tenant: TenantId, tail: Tail) -> Result<(), LogError> {
        let end = self.tail();
        if tail.lsn > end.lsn && end != Tail::EMPTY {
            return Err(LogError::Founded { tenant, lsn: end.lsn });
        }
        if self.base.is_none_or(|base| base.lsn < tail.lsn) {
            self.base = Some(tail);
            self.records.retain(|record| record.header.lsn > tail.lsn);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Injected {
    /// The answer, without effect.
    Answer(Appended),
    /// `Unknown`, though the record is written.
    UnknownButWritten,
}

#[derive(Debug, Default)]
struct State {
    histories: BTreeMap<TenantId, History>,
    injected: VecDeque<Injected>,
    paused: Option<Vec<(Record, oneshot::Sender<Appended>)>>,
    poisoned: Option<String>,
    stats: LogStats,
}

impl State {
    fn append(&mut self, record: Record) -> Appended {
        if self.poisoned.is_some() {
            return Appended::Poisoned;
        }
        let header = &record.header;
        let tail = self.histories.get(&header.tenant).map_or(Tail::EMPTY, History::tail);
        let follows = tail.lsn.checked_add(1) == Some(header.lsn)
            && header.prev == tail.hash
            && header.epoch >= tail.epoch;
        if !follows {
            return Appended::Fenced { tail };
        }
        let answer = match self.injected.pop_front() {
            None | Some(Injected::Answer(Appended::Durable)) => Appended::Durable,
            Some(Injected::UnknownButWritten) => Appended::Unknown,
            Some(Injected::Answer(answer)) => {
                if answer == Appended::Poisoned {
                    self.poisoned = Some("injected failure".into());
                }
                return answer;
            }
        };
        self.stats.records += 1;
        self.stats.groups += 1;
        self.stats.bytes += record.body.len() as u64;
        self.histories.entry(header.tenant).or_default().records.push(record);
        answer
    }
}

/// The log in memory.
#[derive(Debug, Default)]
pub struct MemoryLog(Mutex<State>);

impl MemoryLog {
    /// An empty log that works.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the next record that would be written so, without writing it. Calls queue up.
    /// `Poisoned` stays: the log takes nothing after it. `Durable` means nothing is injected.
    pub fn fail_next(&self, appended: Appended) {
        self.state().injected.push_back(Injected::Answer(appended));
    }

    /// Writes the next record, but answers `Unknown`.
    pub fn unknown_but_written_next(&self) {
        self.state().injected.push_back(Injected::UnknownButWritten);
    }

    /// Keeps appends waiting until [`MemoryLog::resume`].
    pub fn pause(&self) {
        self.state().paused.get_or_insert_default();
    }

    /// How many appends wait.
    pub fn waiting(&self) -> usize {
        self.state().paused.as_ref().map_or(0, Vec::len)
    }

    /// Writes and answers what waited, in order, and goes on as usual.
    pub fn resume(&self) {
        let mut state = self.state();
        let waiting = state.paused.take().unwrap_or_default();
        let answers: Vec<_> =
            waiting.into_iter().map(|(record, answer)| (state.append(record), answer)).collect();
        drop(state);
        for (appended, answer) in answers {
            let _ = answer.send(appended); // whoever asked may be gone
        }
    }
}

impl CommitLog for MemoryLog {
    fn append(&self, record: Record) -> Appending {
        let mut state = self.state();
        if let Some(waiting) = &mut state.paused {
            let (answer, answered) = oneshot::channel();
            waiting.push((record, answer));
            return Box::pin(async move { answered.await.unwrap_or(Appended::Unknown) });
        }
        Box::pin(std::future::ready(state.append(record)))
    }

    fn tail(&self, tenant: TenantId) -> Result<Tail, LogError> {
        Ok(self.state().histories.get(&tenant).map_or(Tail::EMPTY, History::tail))
    }

    fn read_from(
        &self,
        tenant: TenantId,
        lsn: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        let state = self.state();
        let Some(history) = state.histories.get(&tenant) else { return Ok(Vec::new()) };
        let first = history.base.map_or(1, |base| base.lsn + 1);
        let Some(skip) = lsn.max(1).checked_sub(first) else {
            return Err(LogError::Truncated { tenant, first });
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let (mut bytes, mut records) = (0, Vec::new());
        for record in history.records.iter().skip(skip) {
            bytes += record.body.len();
            records.push(record.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    /// Lets go at once.
    fn let_go(&self, tails: &[(TenantId, Tail)]) -> Result<(), LogError> {
        let mut state = self.state();
        for (tenant, tail) in tails {
            state.histories.entry(*tenant).or_default().let_go(*tenant, *tail)?;
        }
        Ok(())
    }

    fn tenants(&self) -> Vec<TenantId> {
        self.state().histories.keys().copied().collect()
    }

    fn health(&self) -> Health {
        self.state().poisoned.clone().map_or(Health::Writable, Health::Poisoned)
    }

    fn stats(&self) -> LogStats {
        self.state().stats
    }

    fn close(&self) {
        self.resume();
        self.state().poisoned.get_or_insert_with(|| "the log is closed".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id as _;
    use crate::log::contract;

    const TENANT: [u8; 16] = [1; 16];

    #[test]
    fn it_keeps_the_contract() {
        contract::check(|| MemoryLog::new());
    }

    #[test]
    fn unknown_comes_with_and_without_effect_and_the_tail_tells() {
        let log = MemoryLog::new();
        let tenant = TenantId::from_bytes(TENANT);
        let record = Record::new(tenant, 1, 1, 1, [0; 32], vec![]);
        log.fail_next(Appended::Unknown);
        log.unknown_but_written_next();
        assert_eq!(contract::wait(log.append(record.clone())), Appended::Unknown);
        assert_eq!(log.tail(tenant).unwrap(), Tail::EMPTY);
        assert_eq!(contract::wait(log.append(record)), Appended::Unknown);
        assert_eq!(log.tail(tenant).unwrap().lsn, 1);
    }

    #[test]
    fn after_poison_nothing_is_taken_and_a_paused_log_answers_when_resumed() {
        let log = MemoryLog::new();
        let tenant = TenantId::from_bytes(TENANT);
        let record = Record::new(tenant, 1, 1, 1, [0; 32], vec![]);
        log.pause();
        let appending = log.append(record.clone());
        assert_eq!((log.waiting(), log.tail(tenant).unwrap()), (1, Tail::EMPTY));
        log.fail_next(Appended::Poisoned);
        log.resume();
        assert_eq!(contract::wait(appending), Appended::Poisoned);
        assert_eq!(contract::wait(log.append(record)), Appended::Poisoned);
        assert_ne!(log.health(), Health::Writable);
    }
}
